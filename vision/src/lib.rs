//! Pictures and the faces in them: decoded with limits, cleaned, measured, and compared.
//!
//! Pure: bytes in, values out. Whoever calls reads the files, keeps the results and decides. Server
//! and device both call [`Models::look`], so that a worker is told the same by either.
//!
//! ```text
//! picture, models ← faces ← look
//! ```
//!
//! A face is advice. Nothing here says that somebody isn't who they say they are, and nothing here
//! can tell a living face from a picture of one.

mod faces;
mod look;
mod models;
mod picture;

pub use faces::{EMBEDDING_BYTES, Embedding, Face, InvalidEmbedding, Point, Prepared};
pub use look::{Floors, Look, Measures, Quality};
pub use models::{DETECTOR_FILE, EMBEDDER_FILE, MODEL, ModelError, Models};
pub use picture::{PIXELS_MAX, Picture, PictureError, SIDE_PX_MAX, SIDE_PX_MIN, THUMBNAIL_SIDE_PX};
