//! The one committer of this node: settles all callers that wait in one transaction.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use punchtrail_domain::{
    AggregateType, Recorded, StoredEvent, aggregate::Undecodable, epoch::EpochEvent,
    log::recorded::Actor,
};
use punchtrail_protocol::{EpochId, Position};
use sqlx::PgConnection;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Append, AppendError, Appended, Commits, DeliveryOutcome, Entry, GROUP_BYTES_MAX,
    GROUP_EVENTS_MAX, GROUP_REQUESTS_MAX, Metadata, ReadError, Request,
    commits::PROVE_MS,
    entry::Recent,
    epochs::{self, Doubt, Found, Look},
    feed, holders,
    known::Known,
    part::{Part, Size, leaf},
    pressure::Deliveries,
    read,
    settle::{Settled, Settlement, Verdict},
    witness::Witness,
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
/// How long the rows beside the ledger may take to be put back: a little more than the database
/// is given for it.
const SET_BACK_MAX: Duration = Duration::from_secs(60 * epochs::SET_BACK_MINUTES_MAX + 5);
/// A head that others hold (SQLSTATE).
const LOCK_NOT_AVAILABLE: &str = "55P03";

const COPY_EVENTS: &str = "copy events (aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload, metadata, position, recorded_at, leaf_hash) from stdin (format binary)";

const GROUP_SIZE_MAX: Size = Size { events: GROUP_EVENTS_MAX, bytes: GROUP_BYTES_MAX };
/// How often a group is tried again because the database's history had changed meanwhile.
const HISTORY_TRIES_MAX: u32 = 3;

/// Why a group was not committed.
enum NotCommitted {
    /// The database doesn't have the history that this node knows.
    OtherHistory,
    Refused(sqlx::Error),
}

impl From<sqlx::Error> for NotCommitted {
    fn from(error: sqlx::Error) -> Self {
        Self::Refused(error)
    }
}

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
    pub witness: Arc<Witness>,
    pub stop: CancellationToken,
}

impl Request {
    /// What is to be committed; none when it is only to be looked.
    fn part(&self) -> Option<Part<'_>> {
        match self {
            Self::Append(append, _) => Some(Part::Append(append)),
            Self::Delivery(delivery, _) => Some(Part::Delivery(delivery)),
            Self::Judging(judging, _) => Some(Part::Judging(judging)),
            Self::Compare(..) => None,
        }
    }

    fn size(&self) -> Size {
        self.part().map_or_else(Size::default, |part| part.size())
    }

    fn answer(self, verdict: Result<Verdict, AppendError>) {
        match self {
            Self::Append(_, answer) | Self::Judging(_, answer) => {
                answer.send(verdict.and_then(Verdict::appended));
            }
            Self::Delivery(_, answer) => answer.send(verdict.and_then(Verdict::delivered)),
            Self::Compare(_, answer) => answer.send(verdict.map(drop)),
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
        // Who would have made the last group too large, and is first in the next one.
        let (mut left, mut proven) = (None, false);
        loop {
            let mut group: Vec<Request> = left.take().into_iter().collect();
            if group.is_empty() {
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
            }
            let mut size = group.iter().map(Request::size).fold(Size::default(), Size::plus);
            while group.len() < GROUP_REQUESTS_MAX {
                let Ok(request) = waiting.try_recv() else { break };
                size = size.plus(request.size());
                if !size.within(GROUP_SIZE_MAX) && !group.is_empty() {
                    left = Some(request);
                    break;
                }
                group.push(request);
            }
            self.commit_all(group).await;
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
        let (group, looks): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|request| request.part().is_some());
        for look in looks {
            let Request::Compare(doubt, answer) = look else { continue };
            let compared = self.compare(doubt).await;
            answer.send(compared.map_err(|error| not_committed(error)()));
        }
        if group.is_empty() {
            return;
        }
        match self.commit_surely(&group).await {
            Ok(verdicts) => answer_each(group, verdicts),
            Err(error) if group.len() > 1 && is_of_one_caller(&error) => {
                tracing::error!(%error, callers = group.len(), "a group was refused; each alone \
                    now");
                for request in group {
                    let alone = [request];
                    let outcome = self.commit_surely(&alone).await;
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

    /// Commits a group; again, when the database turned out to have another history.
    async fn commit_surely(
        &self,
        group: &[Request],
    ) -> Result<Vec<Result<Verdict, AppendError>>, sqlx::Error> {
        for _ in 0..HISTORY_TRIES_MAX {
            match self.commit(group).await {
                Ok(verdicts) => return Ok(verdicts),
                Err(NotCommitted::OtherHistory) => self.compare(Doubt::Own).await?,
                Err(NotCommitted::Refused(error)) => return Err(error),
            }
        }
        let what = "the database's history changes from one look to the next: does its address \
            lead to several?";
        Err(sqlx::Error::Protocol(what.to_owned()))
    }

    async fn commit(
        &self,
        group: &[Request],
    ) -> Result<Vec<Result<Verdict, AppendError>>, NotCommitted> {
        let started = Instant::now();
        let parts: Vec<Part<'_>> = group.iter().filter_map(Request::part).collect();
        let (epoch, newest) = self.witness.newest();
        let (mut tx, look) = within(HEAD_MAX, async {
            let mut tx = self.pool.begin().await?;
            let look = epochs::lock_head(&mut tx, newest.position).await?;
            Ok::<_, sqlx::Error>((tx, look))
        })
        .await?;
        if !look.agrees(epoch, newest) {
            return Err(NotCommitted::OtherHistory);
        }
        let written = within(GROUP_MAX, self.settle(&mut tx, &parts, look)).await?;
        let Written { mut verdicts, recorded, new_head } = written;
        within(COMMIT_MAX, tx.commit()).await.map_err(not_answered)?;
        // One that wrote no event, too: it locked the head, which a standby can't, and waited for
        // standbys.
        self.commits.made();
        let count = recorded.len();
        if let Some(last) = recorded.last() {
            self.witness.take(epoch, last.anchor());
        }
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

    /// Looks whether the database has the history that this node knows, and the one that is in
    /// doubt. If it went back and nobody has noticed, a new epoch begins; this node forgets what is
    /// gone.
    async fn compare(&self, doubt: Doubt) -> Result<(), sqlx::Error> {
        let seen = self.witness.seen();
        let compared = within(SET_BACK_MAX, async {
            let mut tx = self.pool.begin().await?;
            let mut found = epochs::compare(&mut tx, &seen, doubt).await?;
            if let Some(event) = found.begins {
                self.begin_epoch(&mut tx, &mut found, &event).await?;
            }
            Ok::<_, sqlx::Error>((tx, found))
        });
        let (tx, found) = compared.await?;
        within(COMMIT_MAX, tx.commit()).await.map_err(not_answered)?;
        self.commits.made();
        let Found { before, history, newest, standing, begins, strays } = found;
        match (begins, doubt) {
            // Whoever put the copy back knows, and says it.
            (Some(_), Doubt::PutBack { .. }) | (None, _) => {}
            (Some(event), _) => went_back(&event, newest.position, strays),
        }
        if begins.is_some() || !before.agrees(seen.epoch, seen.newest()) {
            let epoch = history.current();
            self.witness.learn(history, standing);
            self.witness.take(epoch, newest);
            self.recent.forget();
            self.head.send_replace(newest.position);
        }
        Ok(())
    }

    /// Writes an epoch's first event.
    async fn begin_epoch(
        &self,
        tx: &mut Transaction,
        found: &mut Found,
        event: &EpochEvent,
    ) -> Result<(), sqlx::Error> {
        let epoch = EpochId(uuid::Uuid::now_v7());
        let at = found.newest.position.plus(1);
        let recorded_us = found.before.recorded_us.max(read::clock_us(&mut **tx).await?);
        let entry = Entry::made_from(opening(epoch, event, at), None);
        self.write(tx, vec![entry], recorded_us).await?;
        sqlx::query("update ledger_head set epoch = $1")
            .bind(epoch.uuid())
            .execute(&mut **tx)
            .await?;
        move_head(tx, at, recorded_us).await?;
        (found.history, found.newest) = epochs::history(tx).await?;
        Ok(())
    }

    /// Settles all parts and writes what they come to, all but the commit.
    async fn settle(
        &self,
        tx: &mut Transaction,
        parts: &[Part<'_>],
        look: Look,
    ) -> Result<Written, sqlx::Error> {
        let head = look.head;
        let mut known = Known::read(tx, parts).await?;
        let recorded_us = look.recorded_us.max(known.clock_us);
        let mut settlement = Settlement::new(head);
        let mut verdicts = Vec::with_capacity(parts.len());
        for part in parts {
            let refused = match settlement.check(part, &known) {
                Ok(()) => write_side(tx, part, settlement.next()).await?,
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
        for Entry { recorded: event, leaf_hash, .. } in &mut entries {
            event.recorded_at = recorded_at;
            *leaf_hash = leaf(event, recorded_us)
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
                .digest(leaf_hash);
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

/// The first event of an epoch; its time is set when it is written.
fn opening(epoch: EpochId, event: &EpochEvent, position: Position) -> Recorded {
    Recorded {
        position,
        recorded_at: jiff::Timestamp::UNIX_EPOCH,
        aggregate_type: AggregateType::Epoch,
        aggregate_id: epoch.to_string(),
        sequence: 1,
        event_type: event.name().to_owned(),
        event_version: event.version().to_owned(),
        payload: serde_json::to_string(event).unwrap_or_default(),
        metadata: Metadata::new(Actor::Server).to_text(),
    }
}

/// Says it, where people look.
fn went_back(event: &EpochEvent, position: Position, strays: i64) {
    let EpochEvent::Opened { after, seen, noticed_by, .. } = event;
    let noticed_by: &str = (*noticed_by).into();
    tracing::error!(
        %after, %seen, %position, noticed_by, strays,
        "THE DATABASE WENT BACK: events after that position are gone that had been committed. A \
         new epoch of the ledger began; devices send again what they still keep, read models and \
         judgements follow the ledger as it is now. Checkpoints are refused until somebody has \
         looked: punchtrail ledger verify"
    );
    metrics::counter!("punchtrail_ledger_went_back_total").increment(1);
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
    next: Position,
) -> Result<Option<AppendError>, sqlx::Error> {
    let Part::Append(Append { side: Some(side), .. }) = part else { return Ok(None) };
    let mut savepoint = sqlx::Connection::begin(&mut **tx).await?;
    match side.run(&mut savepoint, next).await {
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
