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
use punchtrail_domain::{AggregateType, Event, punch::PunchEvent};
use punchtrail_infra::{
    ledger::{Entry, give_way},
    postgres::copy::Rows,
};
use punchtrail_protocol::{
    DeviceId, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind, vocabulary::Standing,
};
use uuid::Uuid;

use crate::engine::ProjectionError;

/// Events of a punch that change no row: passed over before they are decoded.
const EVIDENCE: [&str; 14] = [
    "AnomalyWithdrawn",
    "ShiftJoined",
    "ShiftParted",
    "Reinstated",
    "ReviewEscalated",
    "ConflictingCaptureReceived",
    "AnomalyFlagged",
    "VerificationRequested",
    "PhotoReceived",
    "PhotoRetaken",
    "VerificationSucceeded",
    "VerificationFailed",
    "VerificationUnavailable",
    "PhotoErased",
];

/// The event that says what was known of the device's clock.
const SYNCED: &str = "Synced";

/// How a punch came to be.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    employee: Option<EmployeeId>,
    site: SiteId,
    device: DeviceId,
    kind: PunchKind,
    captured_at: Time,
    /// The zone of the wall clock the worker saw; an admitted punch has none.
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
        by_offset.min(self.received_at)
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
    /// Who was found to have made it.
    found: Option<EmployeeId>,
    ruling: Option<Ruling>,
    position: Position,
}

/// A punch that enters the models with this batch, as the batch leaves it.
#[derive(Debug)]
pub(crate) struct NewPunch<'a> {
    pub punch: PunchId,
    pub employee: Option<EmployeeId>,
    pub site: SiteId,
    pub device: DeviceId,
    pub kind: PunchKind,
    pub captured_at: Time,
    pub effective_at: Time,
    /// When it truly was, as far as is known; after the receipt of what isn't amended never.
    pub true_at: Time,
    pub standing: Standing,
    pub reasons: Vec<&'static str>,
    pub position: Position,
    /// Null for an admitted punch.
    pub zone: Option<&'a str>,
}

/// Columns of the punches that were there before the batch and changed in it; none keeps what
/// stands.
#[derive(Debug, Default)]
pub(crate) struct ChangedPunches {
    pub punches: Vec<Uuid>,
    pub employees: Vec<Option<Uuid>>,
    pub kinds: Vec<Option<&'static str>>,
    pub effective_at: Vec<Option<Timestamp>>,
    pub true_at: Vec<Option<Timestamp>>,
    pub standings: Vec<Option<&'static str>>,
    pub reasons: Vec<Option<String>>,
    /// Whether the reasons join those of a punch referred before.
    pub joins: Vec<bool>,
    pub positions: Vec<i64>,
}

/// Columns of the punches whose capture was in an earlier batch than what was known of its clock.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    pub punches: Vec<Uuid>,
    pub received_at: Vec<Timestamp>,
    /// How far the device's clock was ahead, in milliseconds; 0 where that isn't known.
    pub offsets_ms: Vec<i64>,
}

/// A batch's punches.
#[derive(Debug, Default)]
pub(crate) struct Punches<'a> {
    pub new: Vec<NewPunch<'a>>,
    pub changed: ChangedPunches,
    /// Empty unless true times were asked for.
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

/// Folds a batch's punch events. True times are those of the device's clock, bounded by the receipt.
pub(crate) async fn fold(events: &[Arc<Entry>]) -> Result<Punches<'_>, ProjectionError> {
    fold_events(events, false).await
}

/// The same, with what is known of the devices' clocks.
pub(crate) async fn fold_with_true_times(
    events: &[Arc<Entry>],
) -> Result<Punches<'_>, ProjectionError> {
    fold_events(events, true).await
}

async fn fold_events(
    events: &[Arc<Entry>],
    true_times: bool,
) -> Result<Punches<'_>, ProjectionError> {
    let mut places: HashMap<PunchId, usize> = HashMap::with_capacity(events.len() / 2);
    let mut folded: Vec<Folded<'_>> = Vec::with_capacity(events.len() / 2);
    for (index, entry) in events.iter().enumerate() {
        give_way(index).await;
        let recorded = &entry.recorded;
        let kind = recorded.event_type.as_str();
        let concerns = recorded.aggregate_type == AggregateType::Punch
            && !EVIDENCE.contains(&kind)
            && (true_times || kind != SYNCED);
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
                found: None,
                ruling: None,
                position: recorded.position,
            });
            folded.len() - 1
        });
        let Some(target) = folded.get_mut(place) else { continue };
        // Evidence changes no row.
        if kind != SYNCED {
            target.position = recorded.position;
        }
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
                    device: capture.device,
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
                    device: *device,
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
                    device: DeviceId::NIL,
                    kind: *kind,
                    captured_at: *at,
                    tz: None,
                    recorded_at,
                });
            }
            PunchEvent::Identified { employee, .. } | PunchEvent::Reassigned { employee, .. } => {
                self.found = Some(*employee);
            }
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
                let (received_at, offset_ms) = (*received_at, clock.offset_ms());
                self.receipt = Some(Receipt { received_at, offset_ms });
            }
            PunchEvent::Reinstated {}
            | PunchEvent::AnomalyWithdrawn { .. }
            | PunchEvent::ShiftJoined { .. }
            | PunchEvent::ShiftParted { .. }
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
                if punch.amended.is_some() || punch.found.is_some() || punch.ruling.is_some() {
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
        self.offsets_ms.push(receipt.offset_ms.unwrap_or(0));
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
            employee: punch.found.or(origin.employee),
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
        }
    }
}

impl ChangedPunches {
    fn add(&mut self, punch: &Folded<'_>) {
        self.punches.push(punch.punch.uuid());
        let time = |at: Time| at.timestamp().to_sqlx();
        self.employees.push(punch.found.map(EmployeeId::uuid));
        self.kinds.push(punch.amended.map(|amended| amended.kind.as_str()));
        self.effective_at.push(punch.amended.map(|amended| time(amended.effective_at)));
        self.true_at.push(punch.amended.map(|amended| time(amended.true_at)));
        self.standings.push(punch.ruling.as_ref().map(|ruling| ruling.standing.as_str()));
        self.reasons.push(punch.ruling.as_ref().and_then(Ruling::joined));
        self.joins.push(punch.ruling.as_ref().is_some_and(|ruling| ruling.joins));
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
            .uuid(punch.device.uuid())
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
