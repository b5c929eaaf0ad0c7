//! The one call that server and device use: what is in a picture, how good it is, and what the
//! worker should do so that the next is better.

mod guide;
mod measures;

use punchtrail_protocol::guidance::Guidance;

use crate::{Embedding, Face, Models, Picture, faces::Crop};
pub use guide::Floors;
pub use measures::{Measures, Quality};

/// What was seen in a picture.
///
/// Guidance is empty if the picture can be compared. It says nothing of who it is, and nothing here
/// tells a living face from a photo or a screen held before the camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// All faces, the largest first.
    pub faces: Vec<Face>,
    /// How good the largest face is. None without a face.
    pub quality: Option<Quality>,
    /// What was measured on the largest face, for whoever sets the thresholds. None without a face.
    pub measures: Option<Measures>,
    /// What to do for a better picture, the first thing first.
    pub guidance: Vec<Guidance>,
    /// What the face is compared by: only if there is exactly one that matters.
    pub embedding: Option<Embedding>,
}

impl Models {
    /// Looks at a picture once: finds faces, measures the largest and makes its embedding.
    ///
    /// `covered_head` is for somebody who wears what covers head or eyes and will not take it off;
    /// they are never told to.
    pub fn look(&self, picture: &Picture, floors: &Floors, covered_head: bool) -> Look {
        let (faces, input) = crate::faces::found(self, picture);
        let crop = faces.first().and_then(|face| Crop::of(picture, face));
        let alone = !guide::several(&faces);
        let embedding = crop.as_ref().filter(|_| alone).and_then(|crop| self.embed_crop(crop));
        let measures = faces.first().zip(crop.as_ref()).map(|(face, crop)| {
            let norm = embedding.as_ref().map(Embedding::norm);
            Measures::of(face, crop, &input.small, face.inside(picture), norm)
        });
        let guidance = guide::guide(&faces, measures.as_ref(), floors, covered_head);
        Look { quality: measures.as_ref().map(Quality::of), measures, guidance, embedding, faces }
    }
}
