//! The queue in the ledger's own Postgres: a table, of which whoever takes a row leases it.
//!
//! Time is the database's. Each step is one statement, so it is made whole or not at all; rows are
//! locked in the order of their keys but for those that are taken, which passes over what others
//! have locked. A row says who may finish it by its receipt, which changes with each taking: who
//! lost a lease unawares changes nothing.
//!
//! Consumers in the process that sends are woken at once; others look often at first, then every
//! [`POLL_MAX`].

use std::time::Duration;

use async_trait::async_trait;
use punchtrail_protocol::PunchId;
use sqlx::{Row, postgres::PgRow};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{
    BATCH_MAX, DEAD_SHOWN_MAX, DeadLetter, Depth, LATER_MAX, Letter, NEVER_DONE, PUT_BACK_MAX,
    PutBack, Queue, QueueError, RECEIVES_MAX, Receipt, Taken, VISIBLE_FOR, WAIT_MAX, kept,
};
use crate::postgres::Pool;

/// The first pause between two looks for something due.
const POLL_FIRST: Duration = Duration::from_millis(50);
/// The longest.
const POLL_MAX: Duration = Duration::from_secs(1);
/// The most that one statement names, in punches.
const STATEMENT_MAX: usize = 1_000;
/// How long a statement may take: all but counting touch a few rows, by their keys.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The most rows that are counted: beyond it there are this many or more.
const COUNT_MAX: i64 = 1_000_000;

/// Sent in key order, as every writer of many rows. One in hand is marked, also when its lease ran
/// out: its holder may still say that it is done.
const SEND: &str = "insert into check_queue as line (punch) \
    select distinct punch from unnest($1::uuid[]) as sent (punch) order by punch \
    on conflict (punch) do update set again = true \
    where line.receipt is not null and not line.again";

/// `now()` is when the statement began, which the index can be searched by. What was found is named
/// by an array: of a join Postgres believes that it is of a tenth of the table, as it does of every
/// limit that it doesn't know when it plans, and walks the whole key.
const RECEIVE: &str = "with next as ( \
        select punch from check_queue where due_at <= now() \
        order by due_at limit $1 for update skip locked \
    ), lost as ( \
        delete from check_queue where punch = any (array(select punch from next)) \
        and receives >= $3 and not again \
        returning punch, sent_at, receives, error \
    ), buried as ( \
        insert into check_dead_letters as letter (punch, sent_at, receives, reason) \
        select punch, sent_at, receives, concat_ws('; before: ', $4::text, error) \
        from lost order by punch \
        on conflict (punch) do update set (sent_at, receives, reason, died_at) = \
        (excluded.sent_at, excluded.receives, excluded.reason, excluded.died_at) \
    ), taken as ( \
        update check_queue set receipt = gen_random_uuid(), again = false, \
        due_at = now() + make_interval(secs => $2), \
        receives = case when again then 1 else receives + 1 end \
        where punch = any (array(select punch from next)) and (receives < $3 or again) \
        returning punch, sent_at, receives, receipt \
    ) \
    select punch, receives, receipt, extract(epoch from now() - sent_at)::float8 as waited_s \
    from taken \
    union all select punch, receives, null, 0 from lost";

/// What is in hand, of receipts `$1` of punches `$2`, locked.
macro_rules! held {
    ($rest:literal) => {
        concat!(
            "with held as ( \
                select line.punch, line.receives, line.again from check_queue as line \
                join unnest($1::text[], $2::uuid[]) as given (receipt, punch) \
                on line.punch = given.punch and line.receipt = given.receipt::uuid \
                order by line.punch for update of line \
            )",
            $rest
        )
    };
}

const EXTEND: &str = held!(
    "update check_queue as line set due_at = now() + make_interval(secs => $3) \
    from held where line.punch = held.punch returning line.punch"
);

/// What was sent again meanwhile stands in line anew.
const DONE: &str = held!(
    ", anew as ( \
        update check_queue as line set receipt = null, again = false, receives = 0, error = null, \
        sent_at = now(), due_at = now() from held where line.punch = held.punch and held.again \
    ) \
    delete from check_queue as line using held where line.punch = held.punch and not held.again"
);

const LATER: &str = held!(
    "update check_queue as line set receipt = null, again = false, \
    receives = greatest(line.receives - 1, 0), due_at = now() + make_interval(secs => $3) \
    from held where line.punch = held.punch"
);

/// Those that were taken `$4` times die, unless they were sent again meanwhile.
const FAILED: &str = held!(
    ", back as ( \
        update check_queue as line set receipt = null, again = false, error = $5, \
        receives = case when held.again then 0 else held.receives end, \
        due_at = now() + make_interval(secs => $3) \
        from held where line.punch = held.punch and (held.receives < $4 or held.again) \
    ), lost as ( \
        delete from check_queue as line using held \
        where line.punch = held.punch and held.receives >= $4 and not held.again \
        returning line.punch, line.sent_at, line.receives \
    ) \
    insert into check_dead_letters as letter (punch, sent_at, receives, reason) \
    select punch, sent_at, receives, $5 from lost order by punch \
    on conflict (punch) do update set (sent_at, receives, reason, died_at) = \
    (excluded.sent_at, excluded.receives, excluded.reason, excluded.died_at) \
    returning punch"
);

const DEPTH: &str = "select \
    (select count(*) from (select from check_queue order by punch limit $1) as line) as line, \
    (select count(*) from (select from check_queue where receipt is not null and due_at > now() \
        limit $1) as hand) as in_hand, \
    (select count(*) from (select from check_dead_letters order by punch limit $1) as letters) \
        as dead, \
    (select extract(epoch from now() - min(sent_at))::float8 from check_queue) as oldest_s";

const DEAD: &str = "select punch, receives, reason, \
    extract(epoch from now() - sent_at)::float8 as age_s \
    from check_dead_letters order by died_at desc limit $1";

const PUT_BACK: &str = "with back as ( \
        delete from check_dead_letters where punch = any (array( \
            select punch from check_dead_letters where $1::uuid is null or punch = $1 \
            order by punch limit $2 for update \
        )) returning punch \
    ), line as ( \
        insert into check_queue as line (punch) select punch from back order by punch \
        on conflict (punch) do update set again = true \
        where line.receipt is not null and not line.again \
    ) \
    select count(*) from back";

/// The queue in Postgres. Those of one process should be clones of one, to wake each other.
#[derive(Debug, Clone)]
pub struct PostgresQueue {
    pool: Pool,
    visible_for: Duration,
    /// Counts what this process put in line.
    sent: watch::Sender<u64>,
}

impl PostgresQueue {
    /// `pool` is the writing role's.
    pub fn new(pool: &Pool) -> Self {
        let pool = pool.answering_within(ANSWER_MAX);
        Self { pool, visible_for: VISIBLE_FOR, sent: watch::Sender::new(0) }
    }

    /// The same queue; what is taken from this one is hidden from others for so long.
    #[must_use]
    pub fn holding_for(&self, visible_for: Duration) -> Self {
        Self { visible_for, ..self.clone() }
    }

    fn wake(&self) {
        self.sent.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What is due now; and how many were found that nobody had finished, which are dead now.
    async fn take(&self, max: usize) -> Result<(Vec<Taken>, usize), QueueError> {
        let rows = sqlx::query(RECEIVE)
            .bind(max as i64)
            .bind(self.visible_for.as_secs_f64())
            .bind(RECEIVES_MAX.cast_signed())
            .bind(NEVER_DONE)
            .fetch_all(&self.pool)
            .await?;
        let found = rows.len();
        let taken: Vec<Taken> =
            rows.iter().filter_map(|row| read(row).transpose()).collect::<Result<_, _>>()?;
        let lost = found - taken.len();
        Ok((taken, lost))
    }

    /// A statement over what is in hand, in parts; which punches it names.
    async fn over_held(
        &self,
        statement: &'static str,
        taken: &[Receipt],
        further: Further<'_>,
    ) -> Result<Vec<PunchId>, QueueError> {
        let mut named = Vec::new();
        for part in taken.chunks(STATEMENT_MAX) {
            let handles: Vec<&str> = part.iter().map(|receipt| &*receipt.handle).collect();
            let punches: Vec<Uuid> = part.iter().map(|receipt| receipt.punch.uuid()).collect();
            let query = sqlx::query(statement).bind(handles).bind(punches);
            let query = match further {
                Further::None => query,
                Further::Seconds(pause) => query.bind(pause.as_secs_f64()),
                Further::Failure { after, receives, reason } => {
                    query.bind(after.as_secs_f64()).bind(receives.cast_signed()).bind(reason)
                }
            };
            for row in query.fetch_all(&self.pool).await? {
                named.push(PunchId(row.try_get("punch")?));
            }
        }
        Ok(named)
    }

    async fn fail(
        &self,
        taken: &[Receipt],
        after: Duration,
        receives: u32,
        reason: &str,
    ) -> Result<(), QueueError> {
        let (after, reason) = (after.min(LATER_MAX), kept(reason));
        let further = Further::Failure { after, receives, reason: &reason };
        for punch in self.over_held(FAILED, taken, further).await? {
            tracing::warn!(%punch, "a check is given up; it is among the dead letters");
        }
        Ok(())
    }
}

/// What a statement over what is in hand needs further.
#[derive(Debug, Clone, Copy)]
enum Further<'a> {
    None,
    Seconds(Duration),
    Failure { after: Duration, receives: u32, reason: &'a str },
}

/// One in hand; none if it was taken too often, and is dead now.
fn read(row: &PgRow) -> Result<Option<Taken>, sqlx::Error> {
    let punch = PunchId(row.try_get("punch")?);
    let receives = row.try_get::<i32, _>("receives")?.cast_unsigned();
    let Some(receipt) = row.try_get::<Option<Uuid>, _>("receipt")? else {
        tracing::warn!(%punch, receives, "a check is given up: nobody who had it finished it");
        return Ok(None);
    };
    let handle = receipt.to_string();
    let receipt = Receipt { punch, handle, receives, sent_at_ms: 0, last: None };
    Ok(Some(Taken { punch, receives, waited: seconds(row.try_get("waited_s")?), receipt }))
}

/// A clock that was set back makes it negative.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[async_trait]
impl Queue for PostgresQueue {
    async fn send(&self, punches: &[PunchId]) -> Result<(), QueueError> {
        for part in punches.chunks(STATEMENT_MAX) {
            let part: Vec<Uuid> = part.iter().map(|punch| punch.uuid()).collect();
            sqlx::query(SEND).bind(part).execute(&self.pool).await?;
            self.wake();
        }
        Ok(())
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Taken>, QueueError> {
        let until = Instant::now() + wait.min(WAIT_MAX);
        let (mut sent, mut pause) = (self.sent.subscribe(), POLL_FIRST);
        loop {
            sent.mark_unchanged();
            let (taken, lost) = self.take(max.clamp(1, BATCH_MAX)).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !taken.is_empty() || left.is_zero() {
                return Ok(taken);
            }
            // Behind those that are dead now there may be others.
            if lost == 0 {
                tokio::select! {
                    _ = sent.changed() => {}
                    () = tokio::time::sleep(pause.min(left)) => pause = (pause * 2).min(POLL_MAX),
                }
            }
        }
    }

    async fn extend(&self, taken: &[Receipt]) -> Result<Vec<PunchId>, QueueError> {
        let held = self.over_held(EXTEND, taken, Further::Seconds(self.visible_for)).await?;
        let lost = taken.iter().map(Receipt::punch).filter(|punch| !held.contains(punch));
        Ok(lost.collect())
    }

    async fn done(&self, taken: &[Receipt]) -> Result<(), QueueError> {
        self.over_held(DONE, taken, Further::None).await?;
        Ok(())
    }

    async fn later(&self, taken: &[Receipt], after: Duration) -> Result<(), QueueError> {
        self.over_held(LATER, taken, Further::Seconds(after.min(LATER_MAX))).await?;
        Ok(())
    }

    async fn failed(
        &self,
        taken: &[Receipt],
        after: Duration,
        reason: &str,
    ) -> Result<(), QueueError> {
        self.fail(taken, after, RECEIVES_MAX, reason).await
    }

    async fn give_up(&self, taken: &[Receipt], reason: &str) -> Result<(), QueueError> {
        self.fail(taken, Duration::ZERO, 0, reason).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let row = sqlx::query(DEPTH).bind(COUNT_MAX).fetch_one(&self.pool).await?;
        let count = |name: &str| row.try_get::<i64, _>(name).map(i64::cast_unsigned);
        let (line, in_hand, dead) = (count("line")?, count("in_hand")?, count("dead")?);
        let oldest = row.try_get::<Option<f64>, _>("oldest_s")?.map(seconds);
        Ok(Depth { waiting: line.saturating_sub(in_hand), in_hand, dead, oldest })
    }

    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let limit = limit.min(DEAD_SHOWN_MAX) as i64;
        let rows = sqlx::query(DEAD).bind(limit).fetch_all(&self.pool).await?;
        let letter = |row: &PgRow| {
            Ok(DeadLetter {
                letter: Letter::Punch(PunchId(row.try_get("punch")?)),
                reason: row.try_get("reason")?,
                receives: row.try_get::<i32, _>("receives")?.cast_unsigned(),
                age: seconds(row.try_get("age_s")?),
            })
        };
        rows.iter().map(letter).collect()
    }

    async fn put_back(&self, which: PutBack) -> Result<usize, QueueError> {
        let one = match which {
            PutBack::All => None,
            PutBack::One(punch) => Some(punch.uuid()),
        };
        let back: i64 = sqlx::query_scalar(PUT_BACK)
            .bind(one)
            .bind(PUT_BACK_MAX as i64)
            .fetch_one(&self.pool)
            .await?;
        self.wake();
        Ok(usize::try_from(back).unwrap_or_default())
    }
}
