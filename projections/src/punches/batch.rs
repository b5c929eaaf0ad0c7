//! What a batch of events does to punches, folded once in columns ready for one statement.
//!
//! Of one punch, `Captured`, `Synced` and `Accepted` mostly come in one batch, or two: then a punch
//! is one new row, or a new row and one change. A punch's row changes with what counts of it (its
//! time, its kind) and with its standing; evidence alone (a conflicting capture, an anomaly of a
//! rejected punch) changes no row.
//!
//! Who wants to know when a punch truly was made ([`fold_with_true_times`]) also has `Synced` read,
//! which says how far the device's clock was off; it comes with `Captured`, or at the start of the
//! next batch.

use std::{collections::HashMap, sync::Arc};

use jiff_sqlx::{Timestamp, ToSqlx};
use punchtrail_domain::{
    AggregateType, Event,
    punch::{Anomaly, PunchEvent},
};
use punchtrail_infra::{
    ledger::{Entry, give_way},
    postgres::copy::Rows,
};
use punchtrail_protocol::{
    DeviceId, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind, vocabulary::Standing,
};
use uuid::Uuid;

use crate::engine::ProjectionError;

/// Which events of punches a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// What a punch counts as, and where it stands.
    Standings,
    /// And what its pairing rests on: clocks, joined shifts, doubts of whose it is.
    Pairings,
}

/// Events that change no row but where pairing rests on them.
const FOR_PAIRING: [&str; 5] =
    ["Synced", "AnomalyFlagged", "AnomalyWithdrawn", "ShiftJoined", "ShiftParted"];

/// The most that a clock's lead is kept as, in milliseconds: twelve thousand years, more than there
/// are times.
const LEAD_MAX_MS: i64 = 400_000_000_000_000;

/// Events of a punch that change no row: passed over before they are decoded.
const EVIDENCE: [&str; 10] = [
    "Reinstated",
    "ReviewEscalated",
    "ConflictingCaptureReceived",
    "VerificationRequested",
    "PhotoReceived",
    "PhotoRetaken",
    "VerificationSucceeded",
    "VerificationFailed",
    "VerificationUnavailable",
    "PhotoErased",
];

/// How a punch came to be.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    employee: Option<EmployeeId>,
    site: SiteId,
    /// None: a person added the punch.
    device: Option<DeviceId>,
    kind: PunchKind,
    captured_at: Time,
    /// The zone of the wall clock the worker saw; where a person said when it was, there is none.
    tz: Option<&'a str>,
    /// When the ledger had it.
    recorded_at: Time,
}

/// When a capture came, and how far the device's clock was ahead, where that is known.
#[derive(Debug, Clone, Copy)]
struct Receipt {
    received_at: Time,
    offset_ms: Option<i64>,
}

impl Receipt {
    /// When a capture that the device's clock shows at `captured_at` was truly made, as far as is
    /// known: never after it was received.
    fn true_time(self, captured_at: Time) -> Time {
        let by_offset = captured_at.plus_millis(self.offset_ms.unwrap_or(0).saturating_neg());
        by_offset.min(self.received_at).max(Time::FIRST)
    }
}

/// Where a punch stands after the batch, and why.
#[derive(Debug, Clone, Default)]
struct Ruling {
    standing: Standing,
    /// Codes, distinct and in order.
    reasons: Vec<&'static str>,
    /// Only referrals: their reasons join those of a punch that was referred before the batch.
    joins: bool,
}

/// What a person found a punch to be.
#[derive(Debug, Clone, Copy)]
struct Amended {
    effective_at: Time,
    kind: PunchKind,
    /// Its time, but never after it was said.
    true_at: Time,
}

#[derive(Debug)]
struct Folded<'a> {
    punch: PunchId,
    origin: Option<Origin<'a>>,
    receipt: Option<Receipt>,
    amended: Option<Amended>,
    /// Who was found to have made it, the last one at last.
    found: Vec<EmployeeId>,
    ruling: Option<Ruling>,
    /// By how many more doubts than before it may be somebody else's.
    other_holders: i64,
    /// What it was joined with, or with nothing any more.
    joined: Option<Option<PunchId>>,
    position: Position,
}

/// A punch that enters the models with this batch, as the batch leaves it.
#[derive(Debug)]
pub(crate) struct NewPunch<'a> {
    pub punch: PunchId,
    pub employee: Option<EmployeeId>,
    /// Everybody who was ever said to have made it.
    pub employees: Vec<EmployeeId>,
    pub site: SiteId,
    /// None: a person added the punch.
    pub device: Option<DeviceId>,
    pub kind: PunchKind,
    pub captured_at: Time,
    pub effective_at: Time,
    /// When it truly was, as far as is known; after the receipt of what isn't amended never.
    pub true_at: Time,
    pub standing: Standing,
    pub reasons: Vec<&'static str>,
    pub position: Position,
    /// None where a person said when it was.
    pub zone: Option<&'a str>,
    /// How far the clock that it was captured by led; 0 where a person said when it was.
    pub lead_ms: Option<i64>,
    pub other_holders: i64,
    pub joined: Option<PunchId>,
}

/// Columns of the punches that were there before the batch and changed in it; none keeps what
/// stands.
#[derive(Debug, Default)]
pub(crate) struct ChangedPunches {
    pub punches: Vec<Uuid>,
    pub employees: Vec<Option<Uuid>>,
    /// Everybody who was found to have made one of them.
    pub found: Vec<(Uuid, Uuid)>,
    pub kinds: Vec<Option<&'static str>>,
    pub effective_at: Vec<Option<Timestamp>>,
    pub true_at: Vec<Option<Timestamp>>,
    pub standings: Vec<Option<&'static str>>,
    pub reasons: Vec<Option<String>>,
    /// Whether the reasons join those of a punch referred before.
    pub joins: Vec<bool>,
    pub other_holders: Vec<i64>,
    /// The `out` that a shift was joined with, if that changed.
    pub joined: Vec<Option<Uuid>>,
    pub joined_changed: Vec<bool>,
    pub positions: Vec<i64>,
}

/// Columns of the punches whose capture was in an earlier batch than what was known of its clock.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    pub punches: Vec<Uuid>,
    pub received_at: Vec<Timestamp>,
    /// How far the device's clock was ahead, in milliseconds; none where that isn't known.
    pub leads_ms: Vec<Option<i64>>,
}

/// A batch's punches.
#[derive(Debug, Default)]
pub(crate) struct Punches<'a> {
    pub new: Vec<NewPunch<'a>>,
    pub changed: ChangedPunches,
    /// Empty but for pairing.
    pub receipts: Receipts,
}

impl ChangedPunches {
    /// Every change must have met its row: a punch can't change before it came.
    pub(crate) fn check(&self, rows: u64) -> Result<(), ProjectionError> {
        let expected = self.punches.len() as u64;
        if rows == expected {
            return Ok(());
        }
        let last = self.positions.iter().copied().max().unwrap_or_default();
        Err(ProjectionError::inconsistent(
            Position::from_db(last),
            format!("{} of {expected} changed punches are not in the model", expected - rows),
        ))
    }
}

/// Folds a batch's punch events.
pub(crate) async fn fold(
    events: &[Arc<Entry>],
    takes: Takes,
) -> Result<Punches<'_>, ProjectionError> {
    let mut places: HashMap<PunchId, usize> = HashMap::with_capacity(events.len() / 2);
    let mut folded: Vec<Folded<'_>> = Vec::with_capacity(events.len() / 2);
    for (index, entry) in events.iter().enumerate() {
        give_way(index).await;
        let recorded = &entry.recorded;
        let event_type = recorded.event_type.as_str();
        let concerns = recorded.aggregate_type == AggregateType::Punch
            && !EVIDENCE.contains(&event_type)
            && (takes == Takes::Pairings || !FOR_PAIRING.contains(&event_type));
        if !concerns {
            continue;
        }
        let Event::Punch(punch, event) = entry.event()? else { continue };
        let place = *places.entry(*punch).or_insert_with(|| {
            folded.push(Folded {
                punch: *punch,
                origin: None,
                receipt: None,
                amended: None,
                found: Vec::new(),
                ruling: None,
                other_holders: 0,
                joined: None,
                position: recorded.position,
            });
            folded.len() - 1
        });
        let Some(target) = folded.get_mut(place) else { continue };
        target.position = recorded.position;
        target.take(entry, event)?;
    }
    let mut punches = Punches::default();
    for punch in folded {
        punches.add(punch);
    }
    Ok(punches)
}

impl<'a> Folded<'a> {
    fn take(&mut self, entry: &'a Entry, event: &'a PunchEvent) -> Result<(), ProjectionError> {
        let recorded_at = Time::from(entry.recorded.recorded_at);
        match event {
            PunchEvent::Captured { .. } => {
                let capture = entry.capture().ok_or_else(|| {
                    ProjectionError::inconsistent(
                        entry.recorded.position,
                        "its capture can't be read",
                    )
                })?;
                self.origin = Some(Origin {
                    employee: capture.employee,
                    site: capture.site,
                    device: Some(capture.device),
                    kind: capture.kind,
                    captured_at: capture.captured_at,
                    tz: Some(&capture.tz),
                    recorded_at,
                });
            }
            PunchEvent::Admitted { employee, site, kind, captured_at, device, .. } => {
                self.origin = Some(Origin {
                    employee: Some(*employee),
                    site: *site,
                    device: Some(*device),
                    kind: *kind,
                    captured_at: *captured_at,
                    tz: None,
                    recorded_at,
                });
            }
            PunchEvent::Entered { employee, site, kind, at, .. } => {
                self.origin = Some(Origin {
                    employee: Some(*employee),
                    site: *site,
                    device: None,
                    kind: *kind,
                    captured_at: *at,
                    tz: None,
                    recorded_at,
                });
            }
            PunchEvent::Identified { employee, .. } | PunchEvent::Reassigned { employee, .. } => {
                self.found.push(*employee);
            }
            PunchEvent::AnomalyFlagged { anomaly: Anomaly::OtherHolder { .. } } => {
                self.other_holders += 1;
            }
            PunchEvent::AnomalyWithdrawn { anomaly: Anomaly::OtherHolder { .. } } => {
                self.other_holders -= 1;
            }
            PunchEvent::ShiftJoined { out, .. } => self.joined = Some(Some(*out)),
            PunchEvent::ShiftParted { .. } => self.joined = Some(None),
            PunchEvent::ReferralLifted {} => self.rule(Standing::Recorded, None),
            PunchEvent::ReferredForReview { reasons } => {
                let ruling = match self.ruling.take() {
                    Some(ruling) if ruling.standing == Standing::Referred => ruling,
                    ruled => Ruling { joins: ruled.is_none(), ..Ruling::default() },
                };
                self.ruling = Some(ruling.referred(reasons.iter().map(|reason| reason.as_str())));
            }
            PunchEvent::Accepted { .. } => self.rule(Standing::Accepted, None),
            PunchEvent::Rejected { reason, .. } => {
                self.rule(Standing::Rejected, Some(reason.as_str()));
            }
            PunchEvent::Voided { .. } => self.rule(Standing::Voided, None),
            PunchEvent::Amended { effective_at, kind, .. } => {
                let (effective_at, kind) = (*effective_at, *kind);
                let true_at = effective_at.min(recorded_at);
                self.amended = Some(Amended { effective_at, kind, true_at });
            }
            PunchEvent::Synced { received_at, clock, .. } => {
                let offset_ms = clock.offset_ms().map(|ms| ms.clamp(-LEAD_MAX_MS, LEAD_MAX_MS));
                let received_at = *received_at;
                self.receipt = Some(Receipt { received_at, offset_ms });
            }
            PunchEvent::Reinstated {}
            | PunchEvent::AnomalyWithdrawn { .. }
            | PunchEvent::ReviewEscalated { .. }
            | PunchEvent::ConflictingCaptureReceived { .. }
            | PunchEvent::AnomalyFlagged { .. }
            | PunchEvent::VerificationRequested { .. }
            | PunchEvent::PhotoReceived { .. }
            | PunchEvent::PhotoRetaken { .. }
            | PunchEvent::VerificationSucceeded { .. }
            | PunchEvent::VerificationFailed { .. }
            | PunchEvent::VerificationUnavailable { .. }
            | PunchEvent::PhotoErased { .. } => {}
        }
        Ok(())
    }

    /// Whether there is more of it than its receipt.
    fn changes(&self) -> bool {
        self.amended.is_some()
            || self.ruling.is_some()
            || self.joined.is_some()
            || !self.found.is_empty()
            || self.other_holders != 0
    }

    fn rule(&mut self, standing: Standing, reason: Option<&'static str>) {
        self.ruling =
            Some(Ruling { standing, reasons: reason.into_iter().collect(), joins: false });
    }
}

impl Ruling {
    fn referred(mut self, reasons: impl Iterator<Item = &'static str>) -> Self {
        self.standing = Standing::Referred;
        self.reasons.extend(reasons);
        self.reasons.sort_unstable();
        self.reasons.dedup();
        self
    }

    fn joined(&self) -> Option<String> {
        (!self.reasons.is_empty()).then(|| self.reasons.join(","))
    }
}

impl<'a> Punches<'a> {
    fn add(&mut self, punch: Folded<'a>) {
        match punch.origin {
            Some(origin) => self.new.push(NewPunch::of(&punch, origin)),
            None => {
                if let Some(receipt) = punch.receipt {
                    self.receipts.add(punch.punch, receipt);
                }
                if punch.changes() {
                    self.changed.add(&punch);
                }
            }
        }
    }
}

impl Receipts {
    fn add(&mut self, punch: PunchId, receipt: Receipt) {
        self.punches.push(punch.uuid());
        self.received_at.push(receipt.received_at.timestamp().to_sqlx());
        self.leads_ms.push(receipt.offset_ms);
    }
}

impl<'a> NewPunch<'a> {
    fn of(punch: &Folded<'a>, origin: Origin<'a>) -> Self {
        let captured = Receipt { received_at: origin.recorded_at, offset_ms: None };
        let Amended { effective_at, kind, true_at } = punch.amended.unwrap_or(Amended {
            effective_at: origin.captured_at,
            kind: origin.kind,
            true_at: punch.receipt.unwrap_or(captured).true_time(origin.captured_at),
        });
        let ruling = punch.ruling.clone().unwrap_or_default();
        Self {
            punch: punch.punch,
            employee: punch.found.last().copied().or(origin.employee),
            employees: origin.employee.into_iter().chain(punch.found.iter().copied()).collect(),
            site: origin.site,
            device: origin.device,
            kind,
            captured_at: origin.captured_at,
            effective_at,
            true_at,
            standing: ruling.standing,
            reasons: ruling.reasons,
            position: punch.position,
            zone: origin.tz,
            lead_ms: match (origin.tz, punch.receipt) {
                (None, _) => Some(0),
                (Some(_), receipt) => receipt.and_then(|receipt| receipt.offset_ms),
            },
            other_holders: punch.other_holders,
            joined: punch.joined.flatten(),
        }
    }
}

impl ChangedPunches {
    fn add(&mut self, punch: &Folded<'_>) {
        self.punches.push(punch.punch.uuid());
        let time = |at: Time| at.timestamp().to_sqlx();
        self.employees.push(punch.found.last().map(|employee| employee.uuid()));
        let found = punch.found.iter().map(|employee| (punch.punch.uuid(), employee.uuid()));
        self.found.extend(found);
        self.kinds.push(punch.amended.map(|amended| amended.kind.as_str()));
        self.effective_at.push(punch.amended.map(|amended| time(amended.effective_at)));
        self.true_at.push(punch.amended.map(|amended| time(amended.true_at)));
        self.standings.push(punch.ruling.as_ref().map(|ruling| ruling.standing.as_str()));
        self.reasons.push(punch.ruling.as_ref().and_then(Ruling::joined));
        self.joins.push(punch.ruling.as_ref().is_some_and(|ruling| ruling.joins));
        self.other_holders.push(punch.other_holders);
        self.joined.push(punch.joined.flatten().map(PunchId::uuid));
        self.joined_changed.push(punch.joined.is_some());
        self.positions.push(punch.position.to_db());
    }
}

/// Inserts new punches with the columns that the timeline and the site's feed share.
pub(crate) async fn insert(
    tx: &mut sqlx::PgConnection,
    table: &str,
    new: &[NewPunch<'_>],
) -> Result<(), ProjectionError> {
    let mut rows = Rows::new(10);
    for (index, punch) in new.iter().enumerate() {
        give_way(index).await;
        rows.row()
            .uuid(punch.punch.uuid())
            .uuid_or_null(punch.employee.map(EmployeeId::uuid))
            .uuid(punch.site.uuid())
            .uuid_or_null(punch.device.map(DeviceId::uuid))
            .text(punch.kind.as_str())
            .timestamp_us(punch.captured_at.timestamp().as_microsecond())
            .timestamp_us(punch.effective_at.timestamp().as_microsecond())
            .text(punch.standing.as_str())
            .texts_or_null(&punch.reasons)
            .position(punch.position);
    }
    let statement = format!(
        "copy {table} (punch, employee, site, device, kind, captured_at, effective_at, standing, \
             reasons, position) from stdin (format binary)"
    );
    Ok(rows.copy_into(tx, &statement).await?)
}

/// Changes punches in a table with the columns that the timeline and the site's feed share.
pub(crate) async fn change(
    tx: &mut sqlx::PgConnection,
    table: &str,
    changed: &ChangedPunches,
) -> Result<(), ProjectionError> {
    if changed.punches.is_empty() {
        return Ok(());
    }
    // A column set to the value that it has leaves its indexes alone.
    let statement = format!(
        "update {table} as held set \
             employee = coalesce(now.employee, held.employee), \
             kind = coalesce(now.kind, held.kind), \
             effective_at = coalesce(now.effective_at, held.effective_at), \
             standing = coalesce(now.standing, held.standing), \
             reasons = case when now.standing is null then held.reasons \
                 when now.joins and held.standing = 'referred' then nullif(array( \
                     select distinct reason collate \"C\" \
                     from unnest(held.reasons || string_to_array(now.reasons, ',')) as reason \
                     order by 1), '{{}}') else string_to_array(now.reasons, ',') end, \
             position = now.position \
         from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], \
         $6::bool[], $7::bigint[], $8::uuid[]) as now \
         (punch, kind, effective_at, standing, reasons, joins, position, employee) \
         where held.punch = now.punch"
    );
    let done = sqlx::query(&statement)
        .bind(&changed.punches)
        .bind(&changed.kinds)
        .bind(&changed.effective_at)
        .bind(&changed.standings)
        .bind(&changed.reasons)
        .bind(&changed.joins)
        .bind(&changed.positions)
        .bind(&changed.employees)
        .execute(tx)
        .await?;
    changed.check(done.rows_affected())
}
