//! disintegrate on disintegrate-postgres: one decision a punch, eight at once.
//!
//! Used as its documentation says: the store makes its own tables, and a decision maker without
//! snapshots, of which a new punch would have no use, loads what a decision rests on and appends
//! what it leads to. For speed its documentation advises to narrow what a decision is validated by:
//! here to the one event that could make it wrong. A decision that met a conflict is made again
//! later, as it advises, too. Different punches conflict as well: under `SERIALIZABLE` Postgres
//! looks at whole pages of an index, and ids that devices make one after the other stand on the
//! same page.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{bail, ensure};
use disintegrate::{
    Decision, DecisionError, Event, NoSnapshot, StateMutate, StateQuery, serde::json::Json,
};
use disintegrate_postgres::{Error as StoreError, Migrator, PgDecisionMaker, PgEventStore};
use punchtrail_domain::punch::{Basis, Clock, PunchError, PunchEvent};
use punchtrail_protocol::{DeviceId, Digest, Time, signing::Signature};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Punch, finish, punches, side_by_side};

/// How often one decision is made, at most.
const ATTEMPTS_MAX: usize = 100;
/// How long a decision waits after each conflict it met, at most: so much less often do the same
/// two meet again that eight callers get more done.
const BACKOFF_MAX: Duration = Duration::from_millis(8);
/// SQLSTATE of a transaction that can't be put in order with another.
const SERIALIZATION_FAILURE: &str = "40001";
/// From this version on Postgres reads numbers in hexadecimal.
const READS_HEXADECIMAL: u32 = 160_000;
/// What disintegrate-postgres's migrator makes after a function with such a number, and that
/// function.
const AFTER_HEXADECIMAL: &str = "
    create function event_store_begin_epoch() returns void as $$
    declare
        last bigint;
        database int;
    begin
        select last_value into last from seq_event_event_id;
        select oid into database from pg_database where datname = current_database();
        perform pg_try_advisory_xact_lock_shared(database, 0);
        perform pg_try_advisory_xact_lock_shared(1, (last & 4294967295)::bit(32)::integer);
        perform pg_try_advisory_xact_lock_shared(2, (last >> 32)::bit(32)::integer);
    end;
    $$ language plpgsql;
    alter table event add column punch uuid;
    create index idx_event_punch on event (punch) where punch is not null";

/// The events of a punch, with the id that disintegrate finds them by.
#[derive(Debug, Clone, PartialEq, Eq, Event, Serialize, Deserialize)]
#[stream(Capturing, [Captured])]
enum Recorded {
    Captured {
        #[id]
        punch: Uuid,
        capture: String,
        signature: Signature,
    },
    Synced {
        #[id]
        punch: Uuid,
        device: DeviceId,
        received_at: Time,
        clock: Clock,
    },
    Accepted {
        #[id]
        punch: Uuid,
        basis: Basis,
        note: Option<Digest>,
    },
}

impl Recorded {
    fn of(punch: Uuid, event: PunchEvent) -> anyhow::Result<Self> {
        Ok(match event {
            PunchEvent::Captured { capture, signature } => {
                Self::Captured { punch, capture: capture.as_str().to_owned(), signature }
            }
            PunchEvent::Synced { device, received_at, clock } => {
                Self::Synced { punch, device, received_at, clock }
            }
            PunchEvent::Accepted { basis, note, reason: None } => {
                Self::Accepted { punch, basis, note }
            }
            other => bail!("a punch to measure with has no {other:?}"),
        })
    }
}

/// Whether the punch was captured before.
#[derive(Debug, Clone, Default, StateQuery, Serialize, Deserialize)]
#[state_query(Capturing)]
struct Registrations {
    #[id]
    punch: Uuid,
    captured: bool,
}

impl StateMutate for Registrations {
    fn mutate(&mut self, _: Capturing) {
        self.captured = true;
    }
}

/// To record a punch with all its events.
#[derive(Debug, Clone)]
struct Record {
    punch: Uuid,
    events: Vec<Recorded>,
}

impl Record {
    fn of((punch, events): Punch) -> anyhow::Result<Self> {
        let punch = punch.uuid();
        let events = events.into_iter().map(|event| Recorded::of(punch, event));
        Ok(Self { punch, events: events.collect::<Result<_, _>>()? })
    }
}

impl Decision for Record {
    type Event = Recorded;
    type StateQuery = Registrations;
    type Error = PunchError;

    fn state_query(&self) -> Registrations {
        Registrations { punch: self.punch, captured: false }
    }

    fn process(&self, known: &Registrations) -> Result<Vec<Recorded>, PunchError> {
        if known.captured { Err(PunchError::Exists) } else { Ok(self.events.clone()) }
    }
}

type Store = PgEventStore<Recorded, Json<Recorded>>;
type Maker = PgDecisionMaker<Recorded, Json<Recorded>, NoSnapshot>;

/// Makes one decision a punch, and tells how many were made again.
///
/// # Errors
/// When Postgres refuses, a decision met too many conflicts, or another number of events is there
/// in the end.
pub async fn decide(url: &str, count: usize) -> anyhow::Result<f64> {
    let decisions = punches(count).into_iter().map(Record::of).collect::<Result<_, _>>()?;
    let pool = PgPool::connect(url).await?;
    let maker = disintegrate_postgres::decision_maker(open(&pool).await?, NoSnapshot);
    let conflicts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&conflicts);
    let rate = side_by_side(count, decisions, move |decision| {
        let (maker, conflicts) = (maker.clone(), Arc::clone(&counted));
        async move {
            conflicts.fetch_add(make(&maker, &decision).await?, Ordering::Relaxed);
            Ok(())
        }
    })
    .await?;
    eprintln!("disintegrate_postgres: {} conflicts", conflicts.load(Ordering::Relaxed));
    finish(pool, "event", 3 * count).await?;
    Ok(rate)
}

/// Opens the store in an empty database, where it makes its tables. On a Postgres that can't read
/// what it makes them with, its migrator stops there, and the rest is made here.
async fn open(pool: &PgPool) -> anyhow::Result<Store> {
    let version = pool.acquire().await?.server_version_num().unwrap_or_default();
    if version >= READS_HEXADECIMAL {
        return Ok(PgEventStore::try_new(pool.clone(), Json::default()).await?);
    }
    let store = PgEventStore::new_uninitialized(pool.clone(), Json::default());
    let made = Migrator::new(store.clone()).init_event_store().await;
    ensure!(made.is_err(), "disintegrate-postgres needs no help with its tables any more");
    sqlx::raw_sql(AFTER_HEXADECIMAL).execute(pool).await?;
    Ok(store)
}

/// Makes the decision until it stands. Returns how often it met a conflict.
async fn make(maker: &Maker, decision: &Record) -> anyhow::Result<usize> {
    for conflicts in 0..ATTEMPTS_MAX {
        match maker.make(decision.clone()).await {
            Ok(_) => return Ok(conflicts),
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let wait_max = BACKOFF_MAX * (conflicts as u32 + 1);
        tokio::time::sleep(rand::random_range(Duration::ZERO..wait_max)).await;
    }
    bail!("a decision met {ATTEMPTS_MAX} conflicts")
}

/// The store names a conflict as such only when it shows at the commit.
fn is_conflict(error: &DecisionError<PunchError>) -> bool {
    let (DecisionError::StateStore(source) | DecisionError::EventStore(source)) = error else {
        return false;
    };
    match source.downcast_ref() {
        Some(StoreError::Concurrency) => true,
        Some(StoreError::Database(sqlx::Error::Database(error))) => {
            error.code().as_deref() == Some(SERIALIZATION_FAILURE)
        }
        _ => false,
    }
}
