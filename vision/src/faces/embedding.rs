//! The numbers that faces are compared by.

use crate::models::EMBEDDING_NUMBERS;

/// How many bytes an embedding has where it is kept.
pub const EMBEDDING_BYTES: usize = EMBEDDING_NUMBERS * 4;

/// A face as 128 numbers, as the embedder gave them. A biometric template: to be kept as one.
///
/// Comparable only with those of the same [`MODEL`](crate::MODEL).
#[derive(Clone, PartialEq)]
pub struct Embedding {
    numbers: [f32; EMBEDDING_NUMBERS],
    norm: f32,
}

/// Bytes that are no embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an embedding has {EMBEDDING_BYTES} bytes: 128 finite 32-bit floats, not all of them zero")]
pub struct InvalidEmbedding;

impl std::fmt::Debug for Embedding {
    /// Without the numbers: they are somebody's face, and this may end up in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedding").field("norm", &self.norm).finish_non_exhaustive()
    }
}

impl Embedding {
    pub(super) fn new(numbers: Vec<f32>) -> Option<Self> {
        let numbers: [f32; EMBEDDING_NUMBERS] = numbers.try_into().ok()?;
        let norm = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
        (norm.is_finite() && norm > 0.0).then_some(Self { numbers, norm })
    }

    /// The cosine between the two, -1 to 1. OpenCV takes 0.363 and more for the same person.
    pub fn similarity(&self, other: &Self) -> f32 {
        let product: f32 = self.numbers.iter().zip(&other.numbers).map(|(a, b)| a * b).sum();
        (product / self.norm / other.norm).clamp(-1.0, 1.0)
    }

    /// The vector's length before it is compared: how much of a face the embedder saw. Portraits
    /// have 12 to 15; below 8 it is a bad picture or no face.
    pub fn norm(&self) -> f32 {
        self.norm
    }

    /// 128 floats, little-endian.
    pub fn to_bytes(&self) -> [u8; EMBEDDING_BYTES] {
        let mut bytes = [0; EMBEDDING_BYTES];
        for (four, number) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.numbers) {
            *four = number.to_le_bytes();
        }
        bytes
    }

    /// # Errors
    /// If the bytes are none that [`Embedding::to_bytes`] gives.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidEmbedding> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(InvalidEmbedding);
        }
        let numbers = numbers.iter().copied().map(f32::from_le_bytes).collect();
        Self::new(numbers).ok_or(InvalidEmbedding)
    }
}
