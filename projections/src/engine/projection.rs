//! What a read model is to the runner: a name, a version, tables, and what a batch of events does
//! to them.
//!
//! A model's tables belong to a generation. A rebuild fills the next generation beside the live one
//! and swaps; readers go through views named like the tables ([`Projection::tables`]), which always
//! show the live generation. So a model must name its tables only through [`Generation::table`],
//! never directly, and its readers only through the views.

use std::sync::Arc;

use futures::future::BoxFuture;
use punchtrail_domain::aggregate::Undecodable;
use punchtrail_infra::ledger::{Entry, ReadError};
use punchtrail_protocol::Position;
use sqlx::PgConnection;

/// The schema of all read models, owned by the reading role.
pub const SCHEMA: &str = "read";

/// One set of a model's tables, filled from the ledger's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u32);

impl Generation {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// One that only the connection sees that makes it, and that goes with it.
    pub(crate) const SCRATCH: Self = Self(0);

    /// The generation of that number, from 1.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number, from 1.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The full name of this generation's table: `read."timeline_3"` for `timeline` in the third.
    pub fn table(&self, base: &str) -> String {
        let schema = if *self == Self::SCRATCH { "pg_temp" } else { SCHEMA };
        format!("{schema}.\"{base}_{}\"", self.0)
    }

    /// A name for this generation's index on that table: `"timeline_3_site"`. An index lies in the
    /// schema of its table, so the name stands alone.
    pub fn index(&self, base: &str, what: &str) -> String {
        format!("\"{base}_{}_{what}\"", self.0)
    }
}

/// Why a batch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The ledger can't be read. The model stops at an event that this program doesn't know.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The events contradict what the model holds. The model stops there.
    #[error("the model can't follow at position {position}: {what}")]
    Inconsistent {
        /// The event, or the last of the batch when it can't be told.
        position: Position,
        what: String,
    },
    /// The database. Retried, unless it refused the values themselves.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<Undecodable> for ProjectionError {
    fn from(error: Undecodable) -> Self {
        Self::Read(error.into())
    }
}

impl ProjectionError {
    /// What doesn't fit, at a position.
    pub fn inconsistent(position: Position, what: impl Into<String>) -> Self {
        Self::Inconsistent { position, what: what.into() }
    }

    /// Whether the same batch would fail again: then the model stops instead of trying on.
    pub fn is_poison(&self) -> bool {
        match self {
            Self::Read(error) => error.stops_at().is_some(),
            Self::Inconsistent { .. } => true,
            Self::Database(error) => refuses_values(error),
        }
    }
}

/// SQLSTATE classes (PostgreSQL manual, appendix A) that trying again can't mend: data exception,
/// integrity, syntax or access rule, program limit.
const POISON_CLASSES: [&str; 4] = ["22", "23", "42", "54"];

fn refuses_values(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| POISON_CLASSES.iter().any(|class| code.starts_with(class))),
        sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::TypeNotFound { .. } => true,
        _ => false,
    }
}

/// A read model.
///
/// Adding one: write its file, list it in [`crate::all`], describe it in docs/read-models.md. The
/// next start creates its tables and fills them from the ledger.
pub trait Projection: Send + Sync + 'static {
    /// The model's name, as operators and metrics know it. At most 40 characters of `[a-z_]`.
    fn name(&self) -> &'static str;

    /// Raised whenever the tables or their meaning change: the next start then rebuilds the model
    /// beside the live one, and swaps.
    fn version(&self) -> i32;

    /// Base names of the tables. A view `read.<base>` shows each one's live generation.
    fn tables(&self) -> &'static [&'static str];

    /// Creates this generation's tables with their keys, and the indexes that [`Projection::apply`]
    /// needs; each index says in a comment which query needs it. Any number of statements.
    fn create_sql(&self, generation: &Generation) -> String;

    /// Creates the indexes that only readers need, each with a comment saying which query; every
    /// statement `create index if not exists`. A rebuild runs it after filling.
    fn index_sql(&self, _generation: &Generation) -> String {
        String::new()
    }

    /// Takes a batch of consecutive events into this generation's tables: fold the batch first,
    /// then one multi-row statement a table. The same events must give the same tables, however
    /// they are cut into batches. Nothing but `tx` may be written to.
    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_indexes_carry_their_generation() {
        let third = Generation::new(3);
        assert_eq!(third.table("timeline"), r#"read."timeline_3""#);
        assert_eq!(third.index("timeline", "site"), r#""timeline_3_site""#);
        assert_eq!(Generation::SCRATCH.table("timeline"), r#"pg_temp."timeline_0""#);
    }

    #[test]
    fn an_unreachable_database_is_tried_again_and_a_wrong_event_is_not() {
        assert!(!ProjectionError::Database(sqlx::Error::PoolTimedOut).is_poison());
        assert!(ProjectionError::inconsistent(Position(3), "no such punch").is_poison());
    }
}
