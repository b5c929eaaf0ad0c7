//! The models alone, for the bench: what a check would cost if everything around them were free.

use super::{Crop, Input, SIDES_PX};
use crate::{Models, Picture};

/// What both models take for one picture, made ready: the whole picture at the side that is tried
/// first, and its largest face.
pub struct Prepared {
    input: Input,
    crop: Vec<f32>,
}

impl Models {
    /// Makes ready what [`Models::bare`] runs. None if there is no face in the picture.
    pub fn prepare(&self, picture: &Picture) -> Option<Prepared> {
        let face = *self.faces(picture).first()?;
        let crop = Crop::of(picture, &face)?.planes();
        Some(Prepared { input: Input::of(picture, SIDES_PX[0]), crop })
    }

    /// Runs detector and embedder once each on what is ready, and nothing else. Returns how many
    /// numbers came out, so that no compiler leaves it out.
    pub fn bare(&self, prepared: &Prepared) -> usize {
        let Input { planes, width, height, .. } = &prepared.input;
        let signals = self.detect(planes, *width, *height);
        let numbers = self.numbers(&prepared.crop).unwrap_or_default();
        signals.iter().map(|signals| signals.kps.len()).sum::<usize>() + numbers.len()
    }
}
