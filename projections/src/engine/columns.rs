//! Reading a model's columns into types that can't be wrong.

use jiff_sqlx::Timestamp;
use punchtrail_protocol::{SiteId, Time};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

/// Sites, to be bound.
pub(crate) fn ids(sites: &[SiteId]) -> Vec<Uuid> {
    sites.iter().map(|site| site.uuid()).collect()
}

/// A column that holds one of our codes.
pub(crate) fn parsed<T>(row: &PgRow, column: &str) -> Result<T, sqlx::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.try_get::<&str, _>(column)?.parse().map_err(|error: T::Err| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(error),
    })
}

/// A `timestamptz` column.
pub(crate) fn time(row: &PgRow, column: &str) -> Result<Time, sqlx::Error> {
    Ok(row.try_get::<Timestamp, _>(column)?.to_jiff().into())
}

/// A `timestamptz` column that may be null.
pub(crate) fn time_or_none(row: &PgRow, column: &str) -> Result<Option<Time>, sqlx::Error> {
    Ok(row.try_get::<Option<Timestamp>, _>(column)?.map(|at| at.to_jiff().into()))
}
