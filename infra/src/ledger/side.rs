//! Rows beside the ledger that a caller writes in the transaction of its events.

use std::{fmt, future::Future, pin::Pin};

use punchtrail_protocol::Position;
use sqlx::PgConnection;

type Write = dyn for<'c> Fn(&'c mut PgConnection, Position) -> Written<'c> + Send + Sync;
type Written<'c> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'c>>;

/// A write beside the ledger: runs inside the append's transaction, behind a savepoint, so that a
/// refused row turns its own caller away and nobody else's.
pub struct SideWrite(Box<Write>);

impl SideWrite {
    /// A write that may be run more than once: again, when the transaction it ran in was lost.
    /// It refuses its caller by the database's own error, or by `RowNotFound` when a row that it
    /// rests on isn't there.
    pub fn new<F>(write: F) -> Self
    where
        F: for<'c> Fn(&'c mut PgConnection) -> Written<'c> + Send + Sync + 'static,
    {
        Self(Box::new(move |connection, _| write(connection)))
    }

    /// The same, told of the position of the first event that it goes with: of the next event of
    /// all, if it goes with none.
    pub fn at<F>(write: F) -> Self
    where
        F: for<'c> Fn(&'c mut PgConnection, Position) -> Written<'c> + Send + Sync + 'static,
    {
        Self(Box::new(write))
    }

    pub(super) async fn run(
        &self,
        connection: &mut PgConnection,
        next: Position,
    ) -> Result<(), sqlx::Error> {
        (self.0)(connection, next).await
    }
}

impl fmt::Debug for SideWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SideWrite")
    }
}
