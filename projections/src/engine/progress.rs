//! Where each generation of each model stands: the rows of `read.projections`.
//!
//! A row is locked for one batch and moved in the batch's own transaction, so every event takes
//! effect once, whichever node applies it. Exactly one row of a model is live. A position is never
//! moved here without the events that lead to it.

use std::time::Duration;

use punchtrail_domain::epoch::Anchor;
use punchtrail_infra::postgres::{Pool, within};
use punchtrail_protocol::Position;
use sqlx::{Executor, PgConnection, PgExecutor, Row, postgres::PgRow};
use uuid::Uuid;

use crate::engine::projection::{Generation, Projection};

/// How long a rebuild's claim on its generation outlives its last batch, in seconds.
pub(crate) const LEASE_S: f64 = 15.0;
/// Two processes creating the table at one instant make one of them fail; it then finds it there.
/// How long it may take to make or drop a generation's tables.
const CHANGE_MAX: Duration = Duration::from_secs(60);
const CREATE_ATTEMPTS_MAX: u32 = 5;
/// Kept short, or the row would hold a page of text.
const ERROR_CHARS_MAX: usize = 1_000;

const TABLE: &str = "
create table if not exists read.projections (
    name           text not null,
    generation     integer not null check (generation > 0),
    version        integer not null,
    -- How far this generation has taken the ledger, and the hash of the event there.
    position       bigint not null default 0 check (position >= 0),
    leaf_hash      bytea,
    live           boolean not null,
    -- following; stopped at an event it can't take; building beside the live one; retired by a \
    swap.
    state          text not null check (state in ('following', 'stopped', 'building', 'retired')),
    error          text,
    error_position bigint,
    tables         text[] not null,
    -- The rebuild at work on it, and until when it need not have shown a sign of life.
    builder        uuid,
    lease_until    timestamptz,
    primary key (name, generation)
) with (fillfactor = 50);
-- Serves every batch and every reader that waits: the live generation; and keeps it the only one.
create unique index if not exists projections_live on read.projections (name) where live;
-- Tables from before noted no hash.
alter table read.projections add column if not exists leaf_hash bytea;
";

/// The state of a generation, as its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Following,
    Stopped,
    Building,
    Retired,
}

impl State {
    fn from_db(text: &str) -> Self {
        match text {
            "following" => Self::Following,
            "stopped" => Self::Stopped,
            "building" => Self::Building,
            _ => Self::Retired,
        }
    }
}

/// A generation's row.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub generation: Generation,
    pub version: i32,
    pub position: Position,
    /// Whether the ledger has the event that it stands at: not when the database went back in
    /// part, and the model not with the events.
    pub stands: bool,
    pub state: State,
    pub error: Option<String>,
    pub tables: Vec<String>,
}

const COLUMNS: &str = "generation, version, position, state, error, tables, position = 0 or exists \
    (select from events event where event.position = projections.position \
    and event.leaf_hash = coalesce(projections.leaf_hash, event.leaf_hash)) as stands";

fn progress(row: &PgRow) -> Result<Progress, sqlx::Error> {
    let generation: i32 = row.try_get("generation")?;
    let state: &str = row.try_get("state")?;
    Ok(Progress {
        generation: Generation::new(generation.cast_unsigned()),
        version: row.try_get("version")?,
        position: Position::from_db(row.try_get("position")?),
        stands: row.try_get("stands")?,
        state: State::from_db(state),
        error: row.try_get("error")?,
        tables: row.try_get("tables")?,
    })
}

/// Runs any number of statements without parameters.
pub(crate) async fn run(
    connection: &mut PgConnection,
    statements: &str,
) -> Result<(), sqlx::Error> {
    connection.execute(statements).await.map(drop)
}

/// Whether the table of progress is there; it isn't before the first server ran.
pub(crate) async fn table_exists(pool: &Pool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from information_schema.columns where table_schema = 'read' \
         and table_name = 'projections' and column_name = 'leaf_hash')",
    )
    .fetch_one(pool)
    .await
}

/// Creates the table of progress; any number of processes may call it at once.
pub(crate) async fn ensure_table(pool: &Pool) -> Result<(), sqlx::Error> {
    let mut attempt = 1;
    loop {
        if table_exists(pool).await? {
            return Ok(());
        }
        let made = within(CHANGE_MAX, async {
            let mut tx = pool.begin().await?;
            run(&mut tx, TABLE).await?;
            tx.commit().await
        });
        match made.await {
            Ok(()) => return Ok(()),
            Err(_) if attempt < CREATE_ATTEMPTS_MAX => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Creates the model's first generation unless it has one; any number of processes may call it at
/// once.
pub(crate) async fn ensure_first(
    pool: &Pool,
    projection: &dyn Projection,
) -> Result<(), sqlx::Error> {
    let first = Generation::FIRST;
    within(CHANGE_MAX, async {
        let mut tx = pool.begin().await?;
        // Whoever inserts the row creates the tables; anybody else waits here for that commit.
        let inserted = sqlx::query(
            "insert into read.projections (name, generation, version, live, state, tables) \
             select $1, $2, $3, true, 'following', $4 \
             where not exists (select from read.projections where name = $1 and live) \
             on conflict do nothing",
        )
        .bind(projection.name())
        .bind(first.number().cast_signed())
        .bind(projection.version())
        .bind(table_names(projection, first))
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() == 1 {
            create_tables(&mut tx, projection, first).await?;
            run(&mut tx, &projection.index_sql(&first)).await?;
            show(&mut tx, projection, first).await?;
        }
        tx.commit().await
    })
    .await
}

fn table_names(projection: &dyn Projection, generation: Generation) -> Vec<String> {
    projection.tables().iter().map(|base| generation.table(base)).collect()
}

async fn create_tables(
    tx: &mut PgConnection,
    projection: &dyn Projection,
    generation: Generation,
) -> Result<(), sqlx::Error> {
    run(tx, &projection.create_sql(&generation)).await
}

/// Points the model's views at this generation.
pub(crate) async fn show(
    tx: &mut PgConnection,
    projection: &dyn Projection,
    generation: Generation,
) -> Result<(), sqlx::Error> {
    let views: String = projection
        .tables()
        .iter()
        .map(|base| {
            let table = generation.table(base);
            format!(
                "drop view if exists read.\"{base}\"; \
                 create view read.\"{base}\" as select * from {table};"
            )
        })
        .collect();
    run(tx, &views).await
}

/// Locks the model's live row for this batch; none when another node has it just now.
///
/// The transaction need not wait for the disk: a crash that loses it loses the rows and the
/// progress alike, and the events are in the ledger.
pub(crate) async fn lock_live(
    tx: &mut PgConnection,
    name: &str,
) -> Result<Option<Progress>, sqlx::Error> {
    let statement = format!(
        "select {COLUMNS}, set_config('synchronous_commit', 'off', true) from read.projections \
         where name = $1 and live for update skip locked"
    );
    sqlx::query(&statement).bind(name).try_map(|row| progress(&row)).fetch_optional(tx).await
}

/// The model's live row, as committed.
pub(crate) async fn live(
    executor: impl PgExecutor<'_>,
    name: &str,
) -> Result<Option<Progress>, sqlx::Error> {
    let statement = format!("select {COLUMNS} from read.projections where name = $1 and live");
    sqlx::query(&statement).bind(name).try_map(|row| progress(&row)).fetch_optional(executor).await
}

/// How far a model has taken the ledger; nothing of it where no server ever made the model.
///
/// # Errors
/// When the database is out of reach.
pub async fn stands_at(pool: &Pool, name: &str) -> Result<Position, sqlx::Error> {
    let made: bool = sqlx::query_scalar("select to_regclass('read.projections') is not null")
        .fetch_one(pool)
        .await?;
    let live = if made { live(pool, name).await? } else { None };
    Ok(live.map_or(Position::START, |live| live.position))
}

/// Moves a generation on, in the transaction of the events that lead there. Whether the ledger has
/// the last of them: if it hasn't, the database went back since they were read, and the transaction
/// is not to be committed.
pub(crate) async fn advance(
    tx: &mut PgConnection,
    name: &str,
    generation: Generation,
    to: Anchor,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "update read.projections set position = $3, leaf_hash = $4, \
         lease_until = case when live then null else clock_timestamp() + make_interval(secs => \
         $5) end where name = $1 and generation = $2 and ($3 = 0 or exists \
         (select from events where position = $3 and leaf_hash = $4))",
    )
    .bind(name)
    .bind(generation.number().cast_signed())
    .bind(to.position.to_db())
    .bind(to.leaf_hash.0.as_slice())
    .bind(LEASE_S)
    .execute(tx)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Shows a sign of life of a rebuild that stands where it stood.
pub(crate) async fn keep_claim(
    tx: &mut PgConnection,
    name: &str,
    generation: Generation,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update read.projections set lease_until = clock_timestamp() + make_interval(secs => $3) \
         where name = $1 and generation = $2",
    )
    .bind(name)
    .bind(generation.number().cast_signed())
    .bind(LEASE_S)
    .execute(tx)
    .await
    .map(drop)
}

/// Records that the live generation can't take the event at `at`; not when it has moved meanwhile.
pub(crate) async fn stop(
    pool: &Pool,
    name: &str,
    generation: Generation,
    at: Position,
    error: &str,
) -> Result<(), sqlx::Error> {
    let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
    sqlx::query(
        "update read.projections set state = 'stopped', error = $4, error_position = $3 \
         where name = $1 and generation = $2 and live and position = $3 - 1",
    )
    .bind(name)
    .bind(generation.number().cast_signed())
    .bind(at.to_db())
    .bind(error)
    .execute(pool)
    .await
    .map(drop)
}

/// Lets a stopped model try again: this program may know the event that stopped it.
pub(crate) async fn restart(pool: &Pool, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update read.projections set state = 'following', error = null, error_position = null \
         where name = $1 and live and state = 'stopped'",
    )
    .bind(name)
    .execute(pool)
    .await
    .map(drop)
}

/// What a claim on building a model's next generation met.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It is the caller's to fill.
    Ours(Generation),
    /// Somebody is at work on it, or was until a moment ago.
    Busy {
        /// How far that one has come; none while it holds the row.
        position: Option<Position>,
    },
}

/// Claims the model's next generation and creates its tables. What an interrupted rebuild left,
/// once its lease has run out, is dropped first.
pub(crate) async fn claim_next(
    pool: &Pool,
    projection: &dyn Projection,
    builder: Uuid,
) -> Result<Claim, sqlx::Error> {
    let name = projection.name();
    within(CHANGE_MAX, async {
        let mut tx = pool.begin().await?;
        let left: Vec<PgRow> = sqlx::query(
            "select generation, position, tables, lease_until > clock_timestamp() as leased \
             from read.projections where name = $1 and state = 'building' for update skip locked",
        )
        .bind(name)
        .fetch_all(&mut *tx)
        .await?;
        for row in &left {
            if row.try_get::<Option<bool>, _>("leased")? == Some(true) {
                let at = Position::from_db(row.try_get("position")?);
                return Ok(Claim::Busy { position: Some(at) });
            }
            let (generation, tables) = (row.try_get("generation")?, row.try_get("tables")?);
            drop_generation(&mut tx, name, generation, tables).await?;
        }
        // A row locked by the one who fills it was skipped above and is still there.
        let (last, building): (i32, bool) = sqlx::query_as(
            "select max(generation), bool_or(state = 'building') from read.projections \
             where name = $1",
        )
        .bind(name)
        .fetch_one(&mut *tx)
        .await?;
        if building {
            return Ok(Claim::Busy { position: None });
        }
        let next = Generation::new(last.cast_unsigned() + 1);
        let inserted = sqlx::query(
            "insert into read.projections \
                 (name, generation, version, live, state, tables, builder, lease_until) \
             values ($1, $2, $3, false, 'building', $4, $5, \
                     clock_timestamp() + make_interval(secs => $6)) on conflict do nothing",
        )
        .bind(name)
        .bind(next.number().cast_signed())
        .bind(projection.version())
        .bind(table_names(projection, next))
        .bind(builder)
        .bind(LEASE_S)
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Claim::Busy { position: None });
        }
        create_tables(&mut tx, projection, next).await?;
        tx.commit().await?;
        Ok(Claim::Ours(next))
    })
    .await
}

/// Locks the row of a generation that `builder` fills; none when it lost it to another.
pub(crate) async fn lock_building(
    tx: &mut PgConnection,
    name: &str,
    generation: Generation,
    builder: Uuid,
) -> Result<Option<Progress>, sqlx::Error> {
    let statement = format!(
        "select {COLUMNS}, set_config('synchronous_commit', 'off', true) from read.projections \
         where name = $1 and generation = $2 and builder = $3 and state = 'building' for update"
    );
    sqlx::query(&statement)
        .bind(name)
        .bind(generation.number().cast_signed())
        .bind(builder)
        .try_map(|row| progress(&row))
        .fetch_optional(tx)
        .await
}

/// Locks the live row and waits for whoever has it.
pub(crate) async fn await_live(tx: &mut PgConnection, name: &str) -> Result<Progress, sqlx::Error> {
    let statement =
        format!("select {COLUMNS} from read.projections where name = $1 and live for update");
    sqlx::query(&statement).bind(name).try_map(|row| progress(&row)).fetch_one(tx).await
}

/// Makes `next` the live one, with both rows locked by this transaction.
pub(crate) async fn swap(
    tx: &mut PgConnection,
    projection: &dyn Projection,
    next: Generation,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update read.projections set live = false, state = 'retired' where name = $1 and live",
    )
    .bind(projection.name())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "update read.projections set live = true, state = 'following', builder = null, \
         lease_until = null where name = $1 and generation = $2",
    )
    .bind(projection.name())
    .bind(next.number().cast_signed())
    .execute(&mut *tx)
    .await?;
    show(tx, projection, next).await
}

/// Drops what swaps have retired.
pub(crate) async fn drop_retired(pool: &Pool, name: &str) -> Result<(), sqlx::Error> {
    within(CHANGE_MAX, async {
        let mut tx = pool.begin().await?;
        let retired: Vec<(i32, Vec<String>)> = sqlx::query_as(
            "select generation, tables from read.projections where name = $1 and state = 'retired' \
             for update skip locked",
        )
        .bind(name)
        .fetch_all(&mut *tx)
        .await?;
        for (generation, tables) in retired {
            drop_generation(&mut tx, name, generation, tables).await?;
        }
        tx.commit().await
    })
    .await
}

/// Drops a generation that `builder` gave up.
pub(crate) async fn abandon(
    pool: &Pool,
    name: &str,
    generation: Generation,
    builder: Uuid,
) -> Result<(), sqlx::Error> {
    within(CHANGE_MAX, async {
        let mut tx = pool.begin().await?;
        if let Some(left) = lock_building(&mut tx, name, generation, builder).await? {
            drop_generation(&mut tx, name, generation.number().cast_signed(), left.tables).await?;
        }
        tx.commit().await
    })
    .await
}

async fn drop_generation(
    tx: &mut PgConnection,
    name: &str,
    generation: i32,
    tables: Vec<String>,
) -> Result<(), sqlx::Error> {
    let drops: String =
        tables.iter().map(|table| format!("drop table if exists {table};")).collect();
    run(tx, &drops).await?;
    sqlx::query("delete from read.projections where name = $1 and generation = $2")
        .bind(name)
        .bind(generation)
        .execute(tx)
        .await
        .map(drop)
}
