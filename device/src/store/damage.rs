//! What can be read of a damaged database.
//!
//! The file is opened for reading alone, so that nothing is written to it, not even its own log
//! folded in. Each table is looked through forwards and backwards, and by each of its indexes, for
//! the places of its rows; then each row is read by itself. So a page that can't be read costs the
//! rows on it and no others, and an index that is whole says which those were. What was read is
//! written to another database, row by row, as it stands there: whether a capture's bytes are still
//! what was signed, its signature says, and the server keeps those that aren't for people to see.

use std::{collections::BTreeSet, path::Path};

use futures::TryStreamExt;
use punchtrail_protocol::{Digest, Time};
use sqlx::{
    Column, ConnectOptions, Connection, QueryBuilder, Row, Sqlite, SqliteConnection, TypeInfo,
    ValueRef,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{Db, StoreError, from_stored, identity::IdentityId, log};

/// The tables, those that others point to first. What failed lately, and how the folder was
/// upgraded, is left out.
const TABLES: [&str; 9] = [
    "identity",
    "contact",
    "capture",
    "photo",
    "attachment",
    "dispute",
    "command",
    "manifest",
    "pin_guess",
];

/// What could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOut {
    /// Captures that were read.
    pub captures: u64,
    /// Of those, the ones that wait to be delivered.
    pub waiting: u64,
    /// Captures that could not be; none: nobody can know.
    pub unreadable: Option<u64>,
    /// Whether that is what an index says, rather than the most that it can be.
    pub exact: bool,
    /// Their numbers, as far as they are known.
    pub numbers: BTreeSet<u64>,
    /// Whether everything about captures was read, and the last one is the chain's end: numbers can
    /// go on from there, and none is given out twice.
    pub whole: bool,
}

/// Copies what can be read of the database at `path` into `fresh`, an empty one.
///
/// # Errors
/// When `fresh` refuses; of what can't be read nothing fails.
pub async fn read_out(path: &Path, fresh: Db<'_>, at: Time) -> Result<ReadOut, StoreError> {
    // Before SQLite opens it.
    let log_whole = check_log(path).is_ok();
    let opened = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        // A file that was cut short is read as far as it goes.
        .pragma("writable_schema", "ON")
        .disable_statement_logging()
        .connect()
        .await;
    // Whatever it is, it is no database.
    let Ok(mut damaged) = opened else { return Ok(ReadOut::default()) };
    let (mut captures_whole, mut known) = (true, Numbers::default());
    for table in TABLES {
        let (rows, mut whole) = places(&mut damaged, fresh, table).await?;
        for row in rows {
            whole &= copy(&mut damaged, fresh, table, row).await?;
        }
        match table {
            "identity" => captures_whole &= whole,
            "capture" => {
                captures_whole &= whole;
                known = Numbers::of(&mut damaged, fresh).await?;
            }
            _ => {}
        }
    }
    // A damaged file has nothing to lose by an end that goes wrong.
    let _ = damaged.close().await;
    complete(fresh).await?;
    let mut read = counted(fresh, known).await?;
    if !log_whole {
        // What the log held is neither in the tables nor in an index.
        (read.unreadable, read.exact) = (None, false);
    }
    read.whole = captures_whole && read.unreadable == Some(0) && ends_well(fresh).await?;
    if !read.whole {
        end(fresh, at, read.unreadable).await?;
    }
    Ok(read)
}

/// Whether the database at `path` can be opened and has no fault, looked at for reading alone.
pub async fn is_sound(path: &Path) -> bool {
    if path.metadata().is_ok_and(|file| file.len() == 0) || check_log(path).is_err() {
        return false;
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let Ok(mut opened) = options.disable_statement_logging().connect().await else { return false };
    let found =
        sqlx::query_scalar::<_, String>("PRAGMA quick_check(1)").fetch_one(&mut opened).await;
    let known = sqlx::query("SELECT 1 FROM identity LIMIT 1").fetch_optional(&mut opened).await;
    let _ = opened.close().await;
    found.is_ok_and(|found| found == "ok") && known.is_ok()
}

/// That the log beside the database at `path` is whole.
///
/// # Errors
/// [`StoreError::Damaged`] where what was committed would be passed over.
pub(super) fn check_log(path: &Path) -> Result<(), StoreError> {
    match log::lost_commits(path) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => {
            Err(StoreError::Damaged("its log can't be read to the end of what was kept".to_owned()))
        }
        Err(error) => Err(StoreError::DiskFailed(error.to_string())),
    }
}

/// How many captures there are, and how many of them wait.
///
/// # Errors
/// When the store refuses.
pub async fn held(db: Db<'_>) -> Result<(u64, u64), StoreError> {
    let (all, waiting): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(*) - count(acked_ms) FROM capture")
            .fetch_one(db)
            .await?;
    Ok((from_stored(all), from_stored(waiting)))
}

/// Where a table's rows are, by all that tells; and whether the table itself was read to its end.
async fn places(
    damaged: &mut SqliteConnection,
    fresh: Db<'_>,
    table: &str,
) -> Result<(BTreeSet<i64>, bool), StoreError> {
    let indexes: Vec<String> =
        sqlx::query_scalar("SELECT name FROM pragma_index_list(?) WHERE NOT partial")
            .bind(table)
            .fetch_all(fresh)
            .await?;
    let mut found = BTreeSet::new();
    let table_alone = format!("SELECT rowid FROM {table} NOT INDEXED ORDER BY rowid");
    let whole = note(damaged, &table_alone, &mut found).await;
    let mut ways = vec![format!("{table_alone} DESC")];
    ways.extend(
        indexes.iter().map(|index| format!("SELECT rowid FROM {table} INDEXED BY \"{index}\"")),
    );
    for way in ways {
        note(damaged, &way, &mut found).await;
    }
    Ok((found, whole))
}

/// Notes the places that a query gives, and whether it came to its end.
async fn note(damaged: &mut SqliteConnection, query: &str, found: &mut BTreeSet<i64>) -> bool {
    let mut rows = sqlx::query_scalar::<_, i64>(query).fetch(damaged);
    loop {
        match rows.try_next().await {
            Ok(Some(row)) => found.insert(row),
            Ok(None) => return true,
            Err(_) => return false,
        };
    }
}

/// Copies one row; whether it could be read, and is sound enough to be kept.
async fn copy(
    damaged: &mut SqliteConnection,
    fresh: Db<'_>,
    table: &str,
    place: i64,
) -> Result<bool, StoreError> {
    let query = format!("SELECT * FROM {table} WHERE rowid = ?");
    let read = sqlx::query(&query).bind(place).fetch_optional(damaged).await;
    let Ok(Some(row)) = read else { return Ok(false) };
    let Ok(mut insert) = insert(table, &row) else { return Ok(false) };
    match insert.build().execute(fresh).await.map_err(StoreError::from) {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(error @ (StoreError::Full | StoreError::DiskFailed(_) | StoreError::Busy)) => {
            Err(error)
        }
        // What breaks the schema's rules isn't what was written.
        Err(_) => Ok(false),
    }
}

fn insert<'a>(table: &str, row: &SqliteRow) -> Result<QueryBuilder<'a, Sqlite>, sqlx::Error> {
    let names: Vec<&str> = row.columns().iter().map(Column::name).collect();
    let names = names.join(", ");
    let mut insert = QueryBuilder::new(format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ("));
    let mut values = insert.separated(", ");
    for column in 0..row.columns().len() {
        let value = row.try_get_raw(column)?;
        let kind = value.type_info().name().to_owned();
        match kind.as_str() {
            _ if value.is_null() => values.push_bind(None::<i64>),
            "INTEGER" => values.push_bind(row.try_get_unchecked::<i64, _>(column)?),
            "TEXT" => values.push_bind(row.try_get_unchecked::<String, _>(column)?),
            _ => values.push_bind(row.try_get_unchecked::<Vec<u8>, _>(column)?),
        };
    }
    insert.push(")");
    Ok(insert)
}

/// What stands beside captures and wasn't read; and who works here is to be walked anew.
async fn complete(fresh: Db<'_>) -> Result<(), StoreError> {
    for statement in [
        "INSERT OR IGNORE INTO contact (identity) SELECT id FROM identity",
        "UPDATE contact SET roster = NULL",
        "UPDATE capture SET site = (SELECT site FROM identity WHERE id = capture.identity)
         WHERE site IS NULL",
        "UPDATE dispute SET site = (SELECT site FROM identity WHERE id = dispute.identity)
         WHERE site IS NULL",
    ] {
        sqlx::query(statement).execute(&mut *fresh).await?;
    }
    Ok(())
}

/// The numbers that were used, as the index of numbers has them.
#[derive(Default)]
struct Numbers {
    of: BTreeSet<(IdentityId, i64)>,
    whole: bool,
}

impl Numbers {
    async fn of(damaged: &mut SqliteConnection, fresh: Db<'_>) -> Result<Self, StoreError> {
        let index: String =
            sqlx::query_scalar("SELECT name FROM pragma_index_list('capture') WHERE origin = 'pk'")
                .fetch_one(fresh)
                .await?;
        let query = format!("SELECT identity, seq FROM capture INDEXED BY \"{index}\"");
        let mut rows = sqlx::query_as::<_, (IdentityId, i64)>(&query).fetch(damaged);
        let mut numbers = Self { of: BTreeSet::new(), whole: true };
        loop {
            match rows.try_next().await {
                Ok(Some(number)) => numbers.of.insert(number),
                Ok(None) => return Ok(numbers),
                Err(_) => return Ok(Self { whole: false, ..numbers }),
            };
        }
    }
}

async fn counted(fresh: Db<'_>, known: Numbers) -> Result<ReadOut, StoreError> {
    let rows: Vec<(IdentityId, i64, bool)> =
        sqlx::query_as("SELECT identity, seq, acked_ms IS NULL FROM capture")
            .fetch_all(&mut *fresh)
            .await?;
    let read: BTreeSet<(IdentityId, i64)> =
        rows.iter().map(|(identity, seq, _)| (*identity, *seq)).collect();
    let mut used = known.of;
    let identities: Vec<(IdentityId, i64, i64)> = sqlx::query_as(
        "SELECT id, identity.seq, acked_through FROM identity JOIN contact ON identity = id",
    )
    .fetch_all(&mut *fresh)
    .await?;
    if !known.whole {
        // Numbers have no holes: all that the server doesn't hold are here, or were.
        for (identity, last, acked_through) in &identities {
            used.extend((acked_through + 1..=*last).map(|seq| (*identity, seq)));
        }
    }
    let unread: BTreeSet<u64> = used.difference(&read).map(|(_, seq)| from_stored(*seq)).collect();
    let unreadable = used.difference(&read).count() as u64;
    Ok(ReadOut {
        captures: rows.len() as u64,
        waiting: rows.iter().filter(|(_, _, waits)| *waits).count() as u64,
        unreadable: (known.whole || !identities.is_empty()).then_some(unreadable),
        exact: known.whole,
        numbers: unread,
        whole: false,
    })
}

/// Whether the present identity's chain ends with a capture that is here, or the server holds all.
async fn ends_well(fresh: Db<'_>) -> Result<bool, StoreError> {
    let Some(identity) = super::identity::current(&mut *fresh).await? else { return Ok(false) };
    let acked_through = super::contact::of(&mut *fresh, identity.id).await?.acked_through;
    let last: Option<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT seq, bytes FROM capture WHERE identity = ? ORDER BY seq DESC LIMIT 1",
    )
    .bind(identity.id)
    .fetch_optional(fresh)
    .await?;
    Ok(match last {
        Some((seq, bytes)) => {
            from_stored(seq) == identity.seq && Digest::of(&bytes) == identity.head
        }
        None => acked_through == identity.seq,
    })
}

/// Ends the present identity's chain.
async fn end(fresh: Db<'_>, at: Time, unreadable: Option<u64>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE identity SET ended_at_ms = ?, unreadable = ?
         WHERE id = (SELECT max(id) FROM identity)",
    )
    .bind(at.millis())
    .bind(unreadable.map(super::to_stored))
    .execute(fresh)
    .await?;
    Ok(())
}

/// The photos that captures and retakes name and of which nothing is noted.
///
/// # Errors
/// When the store refuses.
pub async fn unnoted_photos(db: Db<'_>) -> Result<Vec<(IdentityId, Digest)>, StoreError> {
    let rows: Vec<(IdentityId, String)> = sqlx::query_as(
        "SELECT identity, photo FROM capture WHERE photo IS NOT NULL
         UNION SELECT identity, photo FROM attachment
         EXCEPT SELECT identity, sha256 FROM photo",
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|(identity, photo)| Ok((identity, photo.parse().map_err(StoreError::unreadable)?)))
        .collect()
}
