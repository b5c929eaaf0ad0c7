//! Where faces are in a picture, and the numbers that one face is compared by.

mod bare;
mod crop;
mod detect;
mod embedding;

use crate::{Models, Picture};
pub use bare::Prepared;
pub use crop::Crop;
pub use detect::{Input, SIDES_PX, faces as found};
pub use embedding::{EMBEDDING_BYTES, Embedding, InvalidEmbedding};

/// A place in a picture, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

/// A face that was found: its box, which may reach over the picture's edges, and five marks in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// The box's left edge, in pixels.
    pub x: f32,
    /// The box's upper edge, in pixels.
    pub y: f32,
    /// The box's width, in pixels.
    pub width: f32,
    /// The box's height, in pixels.
    pub height: f32,
    /// How sure the detector is, 0 to 1. Portraits have 0.9; it doesn't tell a covered face.
    pub score: f32,
    /// As seen in the picture: left eye, right eye, nose, left and right corner of the mouth.
    pub marks: [Point; 5],
}

impl Models {
    /// The faces in a picture, the largest first; of two boxes on one face the better one.
    ///
    /// Looked for at 320 pixels first, which takes a third of the time that 640 do; there once more
    /// only if nothing was found, or what was found is so small that its marks would be coarse.
    pub fn faces(&self, picture: &Picture) -> Vec<Face> {
        detect::faces(self, picture).0
    }

    /// The numbers that `face` is compared by. None if the face has no extent.
    pub fn embed(&self, picture: &Picture, face: &Face) -> Option<Embedding> {
        self.embed_crop(&Crop::of(picture, face)?)
    }

    pub(crate) fn embed_crop(&self, crop: &Crop) -> Option<Embedding> {
        Embedding::new(self.numbers(&crop.planes())?)
    }
}
