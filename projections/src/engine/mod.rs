//! What feeds read models, whatever they are: it is given them, and knows none by name.

pub(crate) mod columns;
mod generations;
pub mod page;
pub(crate) mod progress;
pub mod projection;
pub mod rebuild;
pub mod runner;

pub use generations::{ListedGeneration, generations};
pub use page::{Order, Page};
pub use projection::{Generation, Projection, ProjectionError};
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use runner::{ProjectionState, ProjectionStatus, Projections, ReadBehind};
