//! The follower that makes them: one transaction writes a stretch's events, puts them in line for
//! whom they concern, and moves its place, so that nothing is told twice or left out, whoever dies.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use cqrs_es::Aggregate;
use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx as _;
use punchtrail_domain::{
    AggregateType, Event,
    aggregate::StoredEvent,
    device::Device,
    dispute::{Dispute, DisputeEvent},
    employee::{Employee, EmployeeEvent},
    punch::{Punch, PunchEvent},
};
use punchtrail_protocol::{EmployeeId, Position};
use sqlx::PgConnection;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    IS_TOLD, NewEvent,
    made::{self, ExternalIds},
};
use crate::{
    follower::{Failure, Follower, Step, Tell, place},
    ledger::{Entry, Ledger, Loaded, ReadError, load},
    postgres::within,
};

/// The follower's name.
pub const NAME: &str = "webhooks";
/// The most events that are taken in one step.
const STEP_EVENTS_MAX: u32 = 2_000;

/// How long writing them down may take.
const TELL_MAX: Duration = Duration::from_secs(30);

/// The follower.
pub struct Teller {
    ledger: Ledger,
    /// Who sends is woken by it.
    news: Arc<Notify>,
}

/// Aggregates as their events make them, up to the one that is being told.
#[derive(Default)]
struct Folded<A>(HashMap<String, A>);

impl Teller {
    /// One that wakes who waits for news.
    pub fn new(ledger: Ledger, news: Arc<Notify>) -> Self {
        Self { ledger, news }
    }

    /// Takes what comes next; up to where, if there was anything.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn tell(&self) -> Result<Step, Failure> {
        let pool = self.ledger.pool();
        let from = place::of(pool, NAME).await?;
        let entries = self.ledger.feed().read(from, STEP_EVENTS_MAX).await?;
        let Some(to) = entries.last().map(|entry| entry.position()) else {
            return Ok(Step::AtHead(from));
        };
        let made = self.made(&entries).await?;
        let erased = erased(&entries)?;
        let lined = within(TELL_MAX, async {
            let mut tx = pool.begin().await?;
            let moved =
                sqlx::query("update followers set position = $3 where name = $1 and position = $2")
                    .bind(NAME)
                    .bind(from.to_db())
                    .bind(to.to_db())
                    .execute(&mut *tx)
                    .await?;
            if moved.rows_affected() != 1 {
                return Err(Failure::passing("another node moved the webhooks' place"));
            }
            keep(&mut tx, &made).await?;
            forget(&mut tx, &erased).await?;
            let lined = if made.is_empty() {
                0
            } else {
                put_in_line(&mut tx, (from, to), self.ledger.now().timestamp()).await?
            };
            tx.commit().await?;
            Ok::<_, Failure>(lined)
        })
        .await?;
        if lined > 0 {
            self.news.notify_one();
        }
        Ok(Step::Moved { to, events: entries.len() })
    }

    async fn made(&self, entries: &[Arc<Entry>]) -> Result<Vec<NewEvent>, Failure> {
        let mut punches: Folded<Punch> = self.before(entries, AggregateType::Punch).await?;
        let mut disputes: Folded<Dispute> = self.before(entries, AggregateType::Dispute).await?;
        let devices: BTreeMap<String, Loaded<Device>> = self.now(entries).await?;
        let people: BTreeMap<String, Loaded<Employee>> = self.now(entries).await?;
        // Whose id is told is known once the events were taken: two walks, the second tells.
        let mut concerned: BTreeSet<Uuid> = BTreeSet::new();
        let mut folded = Vec::new();
        for entry in entries {
            let id = &entry.recorded.aggregate_id;
            match entry.event().map_err(ReadError::from)? {
                Event::Punch(_, event) => {
                    let punch = punches.of(id);
                    let before = punch.employee();
                    punch.apply(event.clone());
                    if is_told(event) {
                        concerned.extend(punch.employee().map(EmployeeId::uuid));
                        folded.push((entry, Told::Punch(before, Box::new(punch.clone()))));
                    }
                }
                Event::Dispute(_, event) => {
                    let dispute = disputes.of(id);
                    dispute.apply(event.clone());
                    if !matches!(event, DisputeEvent::EvidenceAdded { .. }) {
                        concerned.extend(dispute.subject().map(|of| of.employee.uuid()));
                        folded.push((entry, Told::Dispute(Box::new(dispute.clone()))));
                    }
                }
                Event::Employee(employee, _) => {
                    concerned.insert(employee.uuid());
                    folded.push((entry, Told::AsItIs));
                }
                Event::Device(..) => folded.push((entry, Told::AsItIs)),
                Event::Site(..) | Event::Quarantine(..) | Event::Epoch(..) => {}
            }
        }
        let ids = self.external_ids(&Vec::from_iter(concerned)).await?;
        let mut made = Vec::with_capacity(folded.len());
        for (entry, told) in folded {
            let (of, id) = (&entry.recorded, &entry.recorded.aggregate_id);
            made.extend(match (entry.event().map_err(ReadError::from)?, told) {
                (Event::Punch(punch, event), Told::Punch(before, after)) => {
                    made::of_punch(of, (*punch, event), (before, &after), &ids)
                }
                (Event::Dispute(dispute, event), Told::Dispute(after)) => {
                    made::of_dispute(of, (*dispute, event), &after, &ids)
                }
                (Event::Device(device, event), _) => devices
                    .get(id)
                    .and_then(|now| made::of_device(of, (*device, event), &now.aggregate)),
                (Event::Employee(employee, event), _) => people.get(id).and_then(|now| {
                    made::of_employee(of, (*employee, event), &now.aggregate, &ids)
                }),
                _ => None,
            });
        }
        Ok(made)
    }

    /// What the streams of this stretch were before it; nothing is read of those that begin in it.
    async fn before<A>(
        &self,
        entries: &[Arc<Entry>],
        kind: AggregateType,
    ) -> Result<Folded<A>, Failure>
    where
        A: Aggregate<Event: StoredEvent>,
    {
        let mut first: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.recorded.aggregate_type == kind) {
            let of = first.entry(&entry.recorded.aggregate_id).or_insert(u64::MAX);
            *of = (*of).min(entry.recorded.sequence);
        }
        let older = first.iter().filter(|(_, first)| **first > 1);
        let older: Vec<String> = older.map(|(id, _)| (*id).to_owned()).collect();
        let mut folded = Folded::<A>(HashMap::new());
        if older.is_empty() {
            return Ok(folded);
        }
        for recorded in self.ledger.feed().streams(kind, &older).await? {
            let from = first.get(recorded.aggregate_id.as_str()).copied().unwrap_or_default();
            if recorded.sequence < from {
                let event = recorded.read().map_err(ReadError::from)?;
                folded.of(&recorded.aggregate_id).apply(event);
            }
        }
        Ok(folded)
    }

    /// What stands in this stretch as it is by now; nothing is read when nothing does.
    async fn now<A>(&self, entries: &[Arc<Entry>]) -> Result<BTreeMap<String, Loaded<A>>, Failure>
    where
        A: Aggregate<Event: StoredEvent>,
    {
        let of = entries.iter().filter(|one| one.recorded.aggregate_type == A::Event::AGGREGATE);
        let ids: BTreeSet<String> = of.map(|one| one.recorded.aggregate_id.clone()).collect();
        match ids.is_empty() {
            true => Ok(BTreeMap::new()),
            false => Ok(load(self.ledger.pool(), &Vec::from_iter(ids)).await?),
        }
    }

    async fn external_ids(&self, people: &[Uuid]) -> Result<ExternalIds, Failure> {
        if people.is_empty() {
            return Ok(ExternalIds::new());
        }
        let found: Vec<(Uuid, String)> = sqlx::query_as(
            "select employee, external_id from employee_directory \
             where employee = any($1) and external_id is not null",
        )
        .bind(people)
        .fetch_all(self.ledger.pool())
        .await?;
        Ok(found.into_iter().collect())
    }
}

/// What an event is told of.
enum Told {
    Punch(Option<EmployeeId>, Box<Punch>),
    Dispute(Box<Dispute>),
    AsItIs,
}

impl<A: Default> Folded<A> {
    fn of(&mut self, id: &str) -> &mut A {
        self.0.entry(id.to_owned()).or_default()
    }
}

fn is_told(event: &PunchEvent) -> bool {
    use PunchEvent as On;
    !matches!(
        event,
        On::Synced { .. }
            | On::AnomalyFlagged { .. }
            | On::AnomalyWithdrawn { .. }
            | On::VerificationRequested { .. }
            | On::PhotoReceived { .. }
    )
}

/// Who was erased in the stretch.
fn erased(entries: &[Arc<Entry>]) -> Result<Vec<Uuid>, Failure> {
    let mut erased = Vec::new();
    for entry in entries {
        if let Event::Employee(employee, EmployeeEvent::Erased { .. }) =
            entry.event().map_err(ReadError::from)?
        {
            erased.push(employee.uuid());
        }
    }
    Ok(erased)
}

async fn keep(connection: &mut PgConnection, made: &[NewEvent]) -> Result<(), sqlx::Error> {
    if made.is_empty() {
        return Ok(());
    }
    let sites = |event: &NewEvent| {
        let ids: Vec<String> = event.sites.iter().map(Uuid::to_string).collect();
        format!("{{{}}}", ids.join(","))
    };
    sqlx::query(
        "insert into webhook_events (id, position, type, sites, employee, external_id, body, at) \
         select id, position, type, sites::uuid[], employee, external_id, body, at from \
         unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[], \
         $7::text[], $8::timestamptz[]) \
         as made (id, position, type, sites, employee, external_id, body, at) \
         on conflict do nothing",
    )
    .bind(made.iter().map(|event| event.id.as_str()).collect::<Vec<_>>())
    .bind(made.iter().map(|event| event.position.to_db()).collect::<Vec<_>>())
    .bind(made.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>())
    .bind(made.iter().map(sites).collect::<Vec<_>>())
    .bind(made.iter().map(|event| event.employee).collect::<Vec<_>>())
    .bind(made.iter().map(|event| event.external_id.as_deref()).collect::<Vec<_>>())
    .bind(made.iter().map(|event| event.body.as_str()).collect::<Vec<_>>())
    .bind(made.iter().map(|event| event.at.to_sqlx()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

/// Takes the ids of people who were erased out of what was told of them.
async fn forget(connection: &mut PgConnection, erased: &[Uuid]) -> Result<(), sqlx::Error> {
    if erased.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update webhook_events set external_id = null, \
         body = replace(body, '\"external_id\":' || to_json(external_id)::text, \
                        '\"external_id\":null') \
         where employee = any($1) and external_id is not null",
    )
    .bind(erased)
    .execute(connection)
    .await
    .map(drop)
}

/// Puts the events of the stretch in line for whom they concern; how many.
async fn put_in_line(
    connection: &mut PgConnection,
    (from, to): (Position, Position),
    now: jiff::Timestamp,
) -> Result<u64, sqlx::Error> {
    let statement = format!(
        "insert into webhook_deliveries (endpoint, event, position, due_at, made_at) \
         select endpoint.id, event.id, event.position, $3, $3 from webhook_endpoints endpoint \
         join webhook_events event on event.position > $1 and event.position <= $2 \
         and event.position > endpoint.starts_after and {IS_TOLD} \
         where endpoint.disabled_at is null and endpoint.removed_at is null \
         order by event.position on conflict do nothing"
    );
    sqlx::query(&statement)
        .bind(from.to_db())
        .bind(to.to_db())
        .bind(now.to_sqlx())
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
}

impl Follower for Teller {
    fn place(&mut self) -> BoxFuture<'_, Result<Option<Position>, Failure>> {
        Box::pin(async { Ok(Some(place::of(self.ledger.pool(), NAME).await?)) })
    }

    fn step<'a>(&'a mut self, _: &'a Tell) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(self.tell())
    }
}
