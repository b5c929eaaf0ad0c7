//! The one committer of this node: settles all callers that wait in one transaction.

use std::{sync::Arc, time::Instant};

use punchtrail_domain::aggregate::Undecodable;
use punchtrail_protocol::Position;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Append, AppendError, Appended, DeliveryOutcome, Entry, GROUP_BYTES_MAX, GROUP_EVENTS_MAX,
    GROUP_REQUESTS_MAX, ReadError, Request,
    entry::Recent,
    feed,
    known::Known,
    part::{Part, Size, leaf},
    pressure::Deliveries,
    settle::{Settled, Settlement, Verdict},
};
use crate::postgres::copy::Copying;

const COPY_EVENTS: &str = "copy events (aggregate_type, aggregate_id, sequence, event_type, \
    event_version, payload, metadata, position, recorded_at, leaf_hash) from stdin (format binary)";

const GROUP_MAX: Size = Size { events: GROUP_EVENTS_MAX, bytes: GROUP_BYTES_MAX };

#[derive(Clone)]
pub(super) struct Committer {
    /// Who waits for an answer. Kept by no run of the committer: one that dies leaves it to the
    /// next.
    pub waiting: Arc<Mutex<mpsc::Receiver<Request>>>,
    pub pool: PgPool,
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

    fn size(&self) -> Size {
        self.part().size()
    }

    fn answer(self, verdict: Result<Verdict, AppendError>) {
        match self {
            Self::Append(_, answer) | Self::Judging(_, answer) => {
                answer.send(verdict.and_then(Verdict::appended));
            }
            Self::Delivery(_, answer) => answer.send(verdict.and_then(Verdict::delivered)),
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
        let mut left = None;
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
                }
            }
            let mut size = group.iter().map(Request::size).fold(Size::default(), Size::plus);
            while group.len() < GROUP_REQUESTS_MAX {
                let Ok(request) = waiting.try_recv() else { break };
                size = size.plus(request.size());
                if !size.within(GROUP_MAX) && !group.is_empty() {
                    left = Some(request);
                    break;
                }
                group.push(request);
            }
            self.commit_all(group).await;
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
        let mut tx = self.pool.begin().await?;
        let (head, recorded_us) = lock_head(&mut tx).await?;
        let mut known = Known::read(&mut tx, &parts).await?;
        let recorded_us = recorded_us.max(known.clock_us);
        let mut settlement = Settlement::new(head);
        let mut verdicts = Vec::with_capacity(parts.len());
        for part in &parts {
            let refused = match settlement.check(part, &known) {
                Ok(()) => write_side(&mut tx, part).await?,
                Err(error) => Some(error),
            };
            verdicts.push(match refused {
                Some(error) => Err(error),
                None => Ok(settlement.settle(part, &mut known)),
            });
        }
        let Settled { events, side } = settlement.finish(&known);
        let new_head = head.plus(events.len() as u64);
        let recorded = self.write(&mut tx, events, recorded_us).await?;
        side.write(&mut tx).await?;
        if new_head > head {
            move_head(&mut tx, new_head, recorded_us).await?;
        }
        tx.commit().await?;
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

    async fn write(
        &self,
        tx: &mut Transaction<'_, Postgres>,
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
        ReadError::Hole { missing, .. } => Err(Undecodable::new(missing, "it is missing")),
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
    tx: &mut Transaction<'_, Postgres>,
    part: &Part<'_>,
) -> Result<Option<AppendError>, sqlx::Error> {
    let Part::Append(Append { side: Some(side), .. }) = part else { return Ok(None) };
    let mut savepoint = sqlx::Acquire::begin(&mut *tx).await?;
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
