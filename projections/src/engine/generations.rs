//! Read models and rebuilds of them, as an operator sees them listed.

use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::Position;
use serde::Serialize;
use sqlx::{Row, postgres::PgRow};

use super::progress;

/// A read model, or a rebuild of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedGeneration {
    pub name: String,
    /// The number of its set of tables.
    pub generation: i32,
    /// The version of the model that made them.
    pub version: i32,
    /// How far they have taken the ledger.
    pub position: Position,
    /// Whether they are what readers see.
    pub live: bool,
    /// `following`, `stopped`, `building` or `retired`.
    pub state: String,
    pub error: Option<String>,
}

/// All generations of all models, by name; none before the first server ran.
///
/// # Errors
/// When the database is out of reach.
pub async fn generations(reader: &Pool) -> Result<Vec<ListedGeneration>, sqlx::Error> {
    if !progress::table_exists(reader).await? {
        return Ok(Vec::new());
    }
    sqlx::query(
        "select name, generation, version, position, live, state, error from read.projections \
         order by name, generation",
    )
    .try_map(|row: PgRow| {
        Ok(ListedGeneration {
            name: row.try_get("name")?,
            generation: row.try_get("generation")?,
            version: row.try_get("version")?,
            position: Position::from_db(row.try_get("position")?),
            live: row.try_get("live")?,
            state: row.try_get("state")?,
            error: row.try_get("error")?,
        })
    })
    .fetch_all(reader)
    .await
}
