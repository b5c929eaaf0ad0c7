//! What feeds read models, whatever they are: it is given them, and knows none by name.

pub(crate) mod columns;
pub mod compare;
mod feeding;
mod generations;
pub mod models;
pub mod page;
pub(crate) mod progress;
pub mod projection;
pub mod rebuild;

pub use generations::{ListedGeneration, generations};
pub use models::{Projections, ReadBehind};
pub use page::{Order, Page};
pub use progress::stands_at;
pub use projection::{Generation, Projection, ProjectionError};
pub use rebuild::{RebuildError, Rebuilt, rebuild};
