//! The bytes of what is in quarantine, as sent. What became of an item is in the read model.

use punchtrail_protocol::Digest;
use sqlx::{PgExecutor, Row, postgres::PgRow};

/// The bytes of an item as the device sent them, two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawItem {
    pub capture: String,
    pub signature: String,
}

/// The bytes of an item; none when there is no such item.
///
/// # Errors
/// When the database is out of reach.
pub async fn raw(
    executor: impl PgExecutor<'_>,
    item: Digest,
) -> Result<Option<RawItem>, sqlx::Error> {
    sqlx::query("select capture, signature from quarantine_items where id = $1")
        .bind(item.0.as_slice())
        .try_map(|row: PgRow| {
            Ok(RawItem { capture: row.try_get("capture")?, signature: row.try_get("signature")? })
        })
        .fetch_optional(executor)
        .await
}
