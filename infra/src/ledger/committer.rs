//! The one committer of this node: settles all callers that wait in one transaction.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use punchtrail_domain::aggregate::Undecodable;
use punchtrail_protocol::Position;
use sqlx::PgConnection;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Append, AppendError, Appended, Commits, DeliveryOutcome, Entry, GROUP_EVENTS_MAX,
    GROUP_REQUESTS_MAX, ReadError, Request,
    commits::PROVE_MS,
    entry::Recent,
    feed, holders,
    known::Known,
    part::{Part, leaf},
    pressure::Deliveries,
    settle::{Settled, Settlement, Verdict},
};
use crate::postgres::{Pool, Transaction, copy::Copying, within};

/// How long getting a connection and the head may take: more than the session's own limit for the
/// lock, which says better what is the matter.
const HEAD_MAX: Duration = Duration::from_secs(6);
/// How long the statements of a group may take, with the head locked.
const GROUP_MAX: Duration = Duration::from_secs(10);
/// How long a commit may take. One that wasn't answered then is in doubt; its callers are told so
/// while they still listen.
const COMMIT_MAX: Duration = Duration::from_secs(5);
/// A head that others hold (SQLSTATE).
const LOCK_NOT_AVAILABLE: &str = "55P03";

const COPY_EVENTS: &str = "copy events (aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload, metadata, position, recorded_at, leaf_hash) from stdin (format binary)";

#[derive(Clone)]
pub(super) struct Committer {
    /// Who waits for an answer. Kept by no run of the committer: one that dies leaves it to the
    /// next.
    pub waiting: Arc<Mutex<mpsc::Receiver<Request>>>,
    pub pool: Pool,
    /// Of the login, to see who holds the head. With it, the committer of a node that serves:
    /// it proves now and then that it can commit.
    pub owner: Option<Pool>,
    pub commits: Commits,
    pub head: watch::Sender<Position>,
    pub recent: Arc<Recent>,
    pub deliveries: Arc<Deliveries>,
    pub stop: CancellationToken,
}

impl Request {
    fn part(&self) -> Part<'_> {
        match self {
            Self::Append(append, _) => Part::Append(append),
            Self::Delivery(delivery, _) => Part::Delivery(delivery),
            Self::Judging(judging, _) => Part::Judging(judging),
        }
    }

    fn events(&self) -> usize {
        match self {
            Self::Append(append, _) => append.streams.iter().map(|s| s.events.len()).sum(),
            Self::Delivery(delivery, _) => 2 * delivery.items.len(),
            Self::Judging(judging, _) => judging.streams.iter().map(|s| s.events.len()).sum(),
        }
    }

    fn answer(self, verdict: Result<Verdict, AppendError>) {
        // A caller that no longer waits has been disconnected; what was committed stays.
        match self {
            Self::Append(_, answer) | Self::Judging(_, answer) => {
                let _ = answer.send(verdict.and_then(Verdict::appended));
            }
            Self::Delivery(_, answer) => {
                let _ = answer.send(verdict.and_then(Verdict::delivered));
            }
        }
    }
}

impl Verdict {
    fn appended(self) -> Result<Appended, AppendError> {
        match self {
            Self::Appended(appended) => Ok(appended),
            Self::Delivered(_) => Err(AppendError::Stopping),
        }
    }
    fn delivered(self) -> Result<DeliveryOutcome, AppendError> {
        match self {
            Self::Delivered(outcome) => Ok(outcome),
            Self::Appended(_) => Err(AppendError::Stopping),
        }
    }
}

impl Committer {
    pub(super) async fn run(self) {
        let mut waiting = self.waiting.lock().await;
        let mut group = Vec::new();
        let mut proven = false;
        loop {
            tokio::select! {
                biased;
                next = waiting.recv() => match next {
                    Some(request) => group.push(request),
                    None => return,
                },
                () = self.stop.cancelled() => waiting.close(),
                () = self.idle(proven) => {
                    self.prove().await;
                    proven = true;
                    continue;
                }
            }
            let mut events: usize = group.iter().map(Request::events).sum();
            while group.len() < GROUP_REQUESTS_MAX && events < GROUP_EVENTS_MAX {
                let Ok(request) = waiting.try_recv() else { break };
                events += request.events();
                group.push(request);
            }
            self.commit_all(std::mem::take(&mut group)).await;
        }
    }

    /// Until it has been idle for so long that nobody knows whether it could still commit.
    async fn idle(&self, proven: bool) {
        match (&self.owner, proven) {
            (None, _) => std::future::pending().await,
            (Some(_), false) => {}
            (Some(_), true) => tokio::time::sleep(Duration::from_millis(PROVE_MS)).await,
        }
    }

    /// Does what every append does, without one: has the head, writes, and commits.
    async fn prove(&self) {
        let prove = async {
            let mut lent = self.pool.acquire().await?;
            let write = sqlx::query("update ledger_head set position = position");
            write.execute(&mut *lent).await.map(drop)
        };
        match within(COMMIT_MAX, prove).await {
            Ok(()) => self.commits.made(),
            Err(error) => self.failed(&error).await,
        }
    }

    async fn failed(&self, error: &sqlx::Error) {
        self.commits.failed(error);
        if let (Some(owner), true) = (&self.owner, is_held_elsewhere(error)) {
            holders::look(owner).await;
        }
    }

    /// Commits a group; if the database refuses a row of it, which would be a bug, each caller
    /// alone.
    async fn commit_all(&self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        match self.commit(&group).await {
            Ok(verdicts) => answer_each(group, verdicts),
            Err(error) if group.len() > 1 && is_of_one_caller(&error) => {
                tracing::error!(%error, callers = group.len(), "a group was refused; each alone \
                    now");
                for request in group {
                    let alone = [request];
                    let outcome = self.commit(&alone).await;
                    let [request] = alone;
                    match outcome {
                        Ok(verdicts) => answer_each(vec![request], verdicts),
                        Err(error) => request.answer(Err(not_committed(error)())),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, callers = group.len(), "an append was not committed");
                self.failed(&error).await;
                let refusal = not_committed(error);
                for request in group {
                    request.answer(Err(refusal()));
                }
            }
        }
    }

    async fn commit(
        &self,
        group: &[Request],
    ) -> Result<Vec<Result<Verdict, AppendError>>, sqlx::Error> {
        let started = Instant::now();
        let parts: Vec<Part<'_>> = group.iter().map(Request::part).collect();
        let (mut tx, head, recorded_us) = within(HEAD_MAX, async {
            let mut tx = self.pool.begin().await?;
            let (head, recorded_us) = lock_head(&mut tx).await?;
            Ok::<_, sqlx::Error>((tx, head, recorded_us))
        })
        .await?;
        let written = within(GROUP_MAX, self.settle(&mut tx, &parts, head, recorded_us)).await?;
        let Written { mut verdicts, recorded, new_head } = written;
        within(COMMIT_MAX, tx.commit()).await.map_err(not_answered)?;
        if new_head > head {
            self.commits.made();
        }
        let count = recorded.len();
        self.recent.push(recorded);
        feed::forward(&self.head, new_head);
        if parts.iter().any(|part| matches!(part, Part::Delivery(_))) {
            self.deliveries.committed();
        }
        if parts.iter().any(|part| matches!(part, Part::Judging(_))) {
            self.deliveries.judged();
        }
        metrics::counter!("punchtrail_ledger_events_total").increment(count as u64);
        metrics::histogram!("punchtrail_ledger_commit_seconds").record(started.elapsed());
        metrics::gauge!("punchtrail_ledger_head").set(new_head.0 as f64);
        for verdict in verdicts.iter_mut().flatten() {
            if let Verdict::Delivered(outcome) = verdict {
                outcome.head = new_head;
            }
        }
        Ok(verdicts)
    }

    /// Settles all parts and writes what they come to, all but the commit.
    async fn settle(
        &self,
        tx: &mut Transaction,
        parts: &[Part<'_>],
        head: Position,
        recorded_us: i64,
    ) -> Result<Written, sqlx::Error> {
        let mut known = Known::read(tx, parts).await?;
        let recorded_us = recorded_us.max(known.clock_us);
        let mut settlement = Settlement::new(head);
        let mut verdicts = Vec::with_capacity(parts.len());
        for part in parts {
            let refused = match settlement.check(part, &known) {
                Ok(()) => write_side(tx, part).await?,
                Err(error) => Some(error),
            };
            verdicts.push(match refused {
                Some(error) => Err(error),
                None => Ok(settlement.settle(part, &mut known)),
            });
        }
        let Settled { events, side } = settlement.finish(&known);
        let new_head = head.plus(events.len() as u64);
        let recorded = self.write(tx, events, recorded_us).await?;
        side.write(tx).await?;
        if new_head > head {
            move_head(tx, new_head, recorded_us).await?;
        }
        Ok(Written { verdicts, recorded, new_head })
    }

    async fn write(
        &self,
        tx: &mut Transaction,
        mut entries: Vec<Entry>,
        recorded_us: i64,
    ) -> Result<Vec<Entry>, sqlx::Error> {
        if entries.is_empty() {
            return Ok(entries);
        }
        let recorded_at = jiff::Timestamp::from_microsecond(recorded_us)
            .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        let mut rows = Copying::begin(tx, COPY_EVENTS, 10).await?;
        for Entry { recorded: event, .. } in &mut entries {
            event.recorded_at = recorded_at;
            let leaf_hash = leaf(event, recorded_us)
                .hash()
                .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
            rows.row()
                .await?
                .text(event.aggregate_type.as_str())
                .text(&event.aggregate_id)
                .bigint(event.sequence.cast_signed())
                .text(&event.event_type)
                .text(&event.event_version)
                .text(&event.payload)
                .text(&event.metadata)
                .position(event.position)
                .timestamp_us(recorded_us)
                .digest(&leaf_hash);
        }
        rows.finish().await?;
        Ok(entries)
    }
}

/// A group that is written and not committed yet.
struct Written {
    verdicts: Vec<Result<Verdict, AppendError>>,
    recorded: Vec<Entry>,
    new_head: Position,
}

/// What a commit that wasn't answered may wait for: no error of Postgres says it.
fn not_answered(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            sqlx::Error::Io(std::io::Error::new(
                error.kind(),
                format!("a commit: {error}. Does Postgres wait for a synchronous standby?"),
            ))
        }
        other => other,
    }
}

/// Whether another session had the head for too long.
fn is_held_elsewhere(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(LOCK_NOT_AVAILABLE)
}

/// Whether it is about what one caller wrote or rests on, and not about the connection: the
/// database refused a row (SQLSTATE classes 22 and 23), or an event can't be read. The others may
/// well pass.
fn is_of_one_caller(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        sqlx::Error::Decode(_) => true,
        _ => false,
    }
}

fn answer_each(group: Vec<Request>, verdicts: Vec<Result<Verdict, AppendError>>) {
    for (request, verdict) in group.into_iter().zip(verdicts) {
        request.answer(verdict);
    }
}

/// What each caller of a group is told that was not committed.
fn not_committed(error: sqlx::Error) -> impl Fn() -> AppendError {
    let error = match ReadError::from(error) {
        ReadError::Undecodable(error) => Err(error),
        ReadError::Hole { missing, .. } | ReadError::CutOff { missing, .. } => {
            Err(Undecodable::new(missing, "it is missing"))
        }
        ReadError::Database(error) => Ok(Arc::new(error)),
    };
    move || match &error {
        Ok(error) => AppendError::Unavailable(Arc::clone(error)),
        Err(error) => AppendError::Unreadable(error.clone()),
    }
}

/// Nobody else appends from here to the commit.
async fn lock_head(connection: &mut PgConnection) -> Result<(Position, i64), sqlx::Error> {
    let (position, recorded_us): (i64, i64) = sqlx::query_as(
        "select position, (extract(epoch from recorded_at) * 1000000)::bigint \
         from ledger_head for update",
    )
    .fetch_one(connection)
    .await?;
    Ok((Position::from_db(position), recorded_us))
}

async fn move_head(
    connection: &mut PgConnection,
    to: Position,
    recorded_us: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update ledger_head set position = $1, \
         recorded_at = timestamptz 'epoch' + $2 * interval '1 microsecond'",
    )
    .bind(to.to_db())
    .bind(recorded_us)
    .execute(connection)
    .await?;
    Ok(())
}

/// Runs a caller's own write behind a savepoint: a refused row turns that caller away alone.
async fn write_side(
    tx: &mut Transaction,
    part: &Part<'_>,
) -> Result<Option<AppendError>, sqlx::Error> {
    let Part::Append(Append { side: Some(side), .. }) = part else { return Ok(None) };
    let mut savepoint = sqlx::Connection::begin(&mut **tx).await?;
    match side.run(&mut savepoint).await {
        Ok(()) => {
            savepoint.commit().await?;
            Ok(None)
        }
        Err(error @ (sqlx::Error::Database(_) | sqlx::Error::RowNotFound)) => {
            savepoint.rollback().await?;
            Ok(Some(AppendError::Side(error)))
        }
        Err(error) => Err(error),
    }
}
