//! Whether the read models are what the ledger's events make them.
//!
//! Each is filled anew beside the live one, in temporary tables of one connection, which nobody
//! else sees and which go with it; then both are compared row by row, in one snapshot, at the place
//! where the live one stands. So it works beside servers that go on feeding: no row of progress is
//! locked, no lease is taken, and nothing that is read is written.

use std::{sync::Arc, time::Duration};

use punchtrail_infra::{
    audit::{Finding, FindingCode, ModelCompared},
    ledger::{Entry, Feed},
    postgres::{Pool, within},
};
use punchtrail_protocol::Position;
use sqlx::{Connection, PgConnection, Postgres, Transaction};

use super::{
    progress::{self, Progress},
    projection::{Generation, Projection, ProjectionError},
    rebuild::{BATCH_EVENTS_MAX, Told},
};

/// How long a look at a model's views may take.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// The longest time that filling all models anew may take.
const COMPARE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What became of a comparison.
#[derive(Debug, Default)]
pub struct Comparison {
    pub findings: Vec<Finding>,
    /// The models that were compared, and where.
    pub models: Vec<ModelCompared>,
    /// Why others were not.
    pub left_out: Vec<String>,
}

impl Comparison {
    fn altered(&mut self, what: String) {
        self.findings.push(Finding::aside(FindingCode::ModelAltered, what));
    }
}

/// Looks at what needs no filling: places beyond the head, and views that show something else than
/// the live tables. `pool` is the reading role's.
///
/// # Errors
/// When the database is out of reach.
pub async fn look(
    models: &[Arc<dyn Projection>],
    pool: &Pool,
) -> Result<Vec<Finding>, sqlx::Error> {
    let mut looked = Comparison::default();
    if !progress::table_exists(pool).await? {
        return Ok(looked.findings);
    }
    let ahead: Vec<(String, i64, i64)> = sqlx::query_as(
        "select name, projections.position, head.position from read.projections, ledger_head head \
         where live and projections.position > 0 and not exists (select from events event \
             where event.position = projections.position \
             and event.leaf_hash = coalesce(projections.leaf_hash, event.leaf_hash)) order by 1",
    )
    .fetch_all(pool)
    .await?;
    for (name, position, head) in ahead {
        let what = format!(
            "the read model `{name}` stands at {position}, at an event that isn't there; the \
                 head is {head}"
        );
        looked.findings.push(Finding::aside(FindingCode::PlaceAltered, what));
    }
    for model in models {
        let live = progress::live(pool, model.name()).await?;
        // The views are looked at as of the generation that they should show; nothing is kept.
        within(LOOK_MAX, async {
            let mut trial = pool.begin().await?;
            look_at_views(&mut trial, model.as_ref(), live.as_ref(), &mut looked).await
        })
        .await?;
    }
    Ok(looked.findings)
}

async fn look_at_views(
    trial: &mut PgConnection,
    model: &dyn Projection,
    live: Option<&Progress>,
    looked: &mut Comparison,
) -> Result<(), sqlx::Error> {
    for base in model.tables() {
        let view = format!("read.\"{base}\"");
        let Some(live) = live else {
            let there: bool = sqlx::query_scalar("select to_regclass($1) is not null")
                .bind(&view)
                .fetch_one(&mut *trial)
                .await?;
            if there {
                looked.altered(format!("the place of the read model `{}` is gone", model.name()));
                return Ok(());
            }
            continue;
        };
        let table = live.generation.table(base);
        let gone: bool = sqlx::query_scalar("select to_regclass($1) is null")
            .bind(&table)
            .fetch_one(&mut *trial)
            .await?;
        if gone {
            looked.altered(format!("the table {table} of a read model is gone"));
            continue;
        }
        let as_it_should =
            format!("create temporary view \"{base} as it should be\" as select * from {table}");
        progress::run(trial, &as_it_should).await?;
        let same: Option<bool> = sqlx::query_scalar(
            "select pg_get_viewdef(to_regclass($1)) = pg_get_viewdef(to_regclass($2))",
        )
        .bind(&view)
        .bind(format!("pg_temp.\"{base} as it should be\""))
        .fetch_one(&mut *trial)
        .await?;
        if same != Some(true) {
            looked.altered(format!("{view}, which readers see, doesn't show {table}"));
        }
    }
    Ok(())
}

/// Compares these models with what the ledger's events make of them. `pool` is the reading role's;
/// `told` is told how many events were taken of how many.
///
/// # Errors
/// When the database is out of reach. What the events can't be made to is in the comparison.
pub async fn compare(
    models: &[Arc<dyn Projection>],
    pool: &Pool,
    feed: &Feed,
    told: Told<'_>,
) -> Result<Comparison, sqlx::Error> {
    let mut comparison = Comparison::default();
    if !progress::table_exists(pool).await? {
        return Ok(comparison);
    }
    within(COMPARE_MAX, compare_all(models, pool, feed, told, &mut comparison)).await?;
    Ok(comparison)
}

async fn compare_all(
    models: &[Arc<dyn Projection>],
    pool: &Pool,
    feed: &Feed,
    told: Told<'_>,
    comparison: &mut Comparison,
) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?.detach();
    progress::run(
        &mut connection,
        "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0",
    )
    .await?;
    for model in models {
        let compared = Filling { model: model.as_ref(), pool, feed, connection: &mut connection }
            .compare(comparison, &mut *told)
            .await;
        match compared {
            Ok(()) => {}
            Err(ProjectionError::Database(error)) if !is_refused(&error) => return Err(error),
            Err(error) => comparison
                .left_out
                .push(format!("The read model `{}` can't be compared: {error}.", model.name())),
        }
    }
    progress::run(&mut connection, "discard temporary").await?;
    connection.close().await
}

/// Whether the database refused what was asked, instead of being out of reach.
fn is_refused(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error
            .code()
            .is_some_and(|code| ["22", "23", "42", "54"].iter().any(|c| code.starts_with(c)))
    })
}

/// A model that is filled anew, in temporary tables.
struct Filling<'a> {
    model: &'a dyn Projection,
    pool: &'a Pool,
    feed: &'a Feed,
    connection: &'a mut PgConnection,
}

impl Filling<'_> {
    async fn compare(
        mut self,
        comparison: &mut Comparison,
        told: Told<'_>,
    ) -> Result<(), ProjectionError> {
        let name = self.model.name();
        let Some(live) = progress::live(self.pool, name).await? else { return Ok(()) };
        if live.version != self.model.version() {
            comparison.left_out.push(format!(
                "The read model `{name}` is of version {}, this program makes version {}: it \
                 wasn't compared.",
                live.version,
                self.model.version()
            ));
            return Ok(());
        }
        progress::run(self.connection, &self.model.create_sql(&Generation::SCRATCH)).await?;
        // Most of it outside the snapshot, so that this is a short one.
        let mut filled = Position::START;
        while let Some(last) = self.batch(filled, live.position).await? {
            filled = last;
            told(filled.0, live.position.0);
        }
        let mut snapshot = self.connection.begin().await?;
        progress::run(&mut snapshot, "set transaction isolation level repeatable read").await?;
        let live = progress::live(&mut *snapshot, name).await?;
        let Some(live) = live.filter(|live| live.position >= filled) else {
            comparison
                .left_out
                .push(format!("The read model `{name}` went back meanwhile: it wasn't compared."));
            return Ok(());
        };
        while filled < live.position {
            let events = read(self.feed, filled, live.position).await?;
            let Some(last) = events.last() else { break };
            filled = last.position();
            self.model.apply(&mut snapshot, &Generation::SCRATCH, &events).await?;
        }
        for base in self.model.tables() {
            let table = live.generation.table(base);
            if let Some(what) = differs(&mut snapshot, &table, base).await? {
                comparison.altered(format!("the read model `{name}`, table {table}: {what}"));
            }
        }
        snapshot.rollback().await?;
        comparison.models.push(ModelCompared { name: name.to_owned(), position: live.position.0 });
        Ok(())
    }

    /// Takes the next events in; up to where, if there were any.
    async fn batch(
        &mut self,
        after: Position,
        to: Position,
    ) -> Result<Option<Position>, ProjectionError> {
        let events = read(self.feed, after, to).await?;
        let Some(last) = events.last().map(|entry| entry.position()) else { return Ok(None) };
        let mut tx = self.connection.begin().await?;
        self.model.apply(&mut tx, &Generation::SCRATCH, &events).await?;
        tx.commit().await?;
        Ok(Some(last))
    }
}

/// The events after one position, not beyond another.
async fn read(
    feed: &Feed,
    after: Position,
    to: Position,
) -> Result<Vec<Arc<Entry>>, ProjectionError> {
    let most = to.0.saturating_sub(after.0).min(BATCH_EVENTS_MAX.into());
    if most == 0 {
        return Ok(Vec::new());
    }
    let mut events = feed.read(after, u32::try_from(most).unwrap_or(BATCH_EVENTS_MAX)).await?;
    events.retain(|entry| entry.position() <= to);
    Ok(events)
}

/// What is different between a live table and the one that was filled anew.
async fn differs(
    snapshot: &mut Transaction<'_, Postgres>,
    live: &str,
    base: &str,
) -> Result<Option<String>, sqlx::Error> {
    let anew = Generation::SCRATCH.table(base);
    let key: String = sqlx::query_scalar(
        "select string_agg(format('%I', attname), ', ' order by place) from pg_index \
         cross join unnest(indkey) with ordinality as of (attnum, place) \
         join pg_attribute attribute on attrelid = indrelid and attribute.attnum = of.attnum \
         where indrelid = to_regclass($1) and indisprimary",
    )
    .bind(&anew)
    .fetch_one(&mut **snapshot)
    .await?;
    let statement = format!(
        "with added as (select * from {live} except all select * from {anew}), \
         missing as (select * from {anew} except all select * from {live}) \
         select (select count(*) from added), (select count(*) from missing), \
         (select concat_ws(' ', {key}) from (table added union all table missing) either limit 1)"
    );
    let mut attempt = snapshot.begin().await?;
    let counted: Result<(i64, i64, Option<String>), sqlx::Error> =
        sqlx::query_as(&statement).fetch_one(&mut *attempt).await;
    attempt.rollback().await?;
    match counted {
        Ok((0, 0, _)) => Ok(None),
        Ok((added, missing, which)) => Ok(Some(format!(
            "{added} row(s) aren't what the events make them, {missing} that they make aren't \
             there, one of them {}",
            which.unwrap_or_default()
        ))),
        Err(error) if is_refused(&error) => Ok(Some(format!("it can't be compared: {error}"))),
        Err(error) => Err(error),
    }
}
