//! The walk over the ledger, event by event in the order of positions.

use std::{collections::BTreeSet, sync::Arc};

use punchtrail_domain::{
    Event,
    device::DeviceEvent,
    dispute::DisputeEvent,
    employee::EmployeeEvent,
    epoch::EpochEvent,
    log::merkle::Frontier,
    punch::{Clock, PunchEvent},
    quarantine::QuarantineEvent,
};
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, EpochId, OrgId, PunchId,
    attachment::Attachment,
    capture::{Capture, CaptureText},
    signing::{ATTACHMENT_TYPE, CAPTURE_TYPE, Signature},
    spelling::normal,
};

use super::{
    AuditError,
    beside::{Badges, Named, NamedConflict, NamedItem, NamedLink, NamedNote},
    claims::Comparison,
    devices::Devices,
    memory::{Remembered, Walked},
    report::{DeviceFork, Finding, FindingCode, Findings},
    rows::Row,
    signatures::{self, Keys, Signed, WAITING_SIGNATURES_MAX},
};
use crate::postgres::Pool;

/// A row, hashed and read off the threads that serve.
struct Checked {
    hash: Option<Digest>,
    read: Read,
}

/// What the walk needs of an event.
enum Read {
    Nothing,
    Unreadable,
    Captured {
        of: PunchId,
        capture: Option<Box<Capture>>,
        // The text as signed, beside what it says.
        body: CaptureText,
        signature: Signature,
    },
    Synced {
        of: PunchId,
        clock: Clock,
    },
    Conflict {
        punch: PunchId,
        digest: Digest,
        device: DeviceId,
    },
    /// A person's ruling, with their note and what it made of a punch.
    Ruled {
        note: Option<(Digest, Option<String>)>,
        admitted: Option<(PunchId, Remembered)>,
    },
    Quarantined {
        item: Digest,
        device: DeviceId,
        seq: Option<u64>,
    },
    /// A picture was added to a punch.
    Retaken {
        of: PunchId,
        record: String,
        signature: Signature,
    },
    Erased(What),
    /// Something of a person that the rows of badges go by.
    Person(EmployeeId, EmployeeEvent),
    Device {
        device: DeviceId,
        event: DeviceEvent,
        /// The note that it names, and who caused it.
        note: Option<(Digest, Option<String>)>,
    },
    Epoch(EpochId, EpochEvent),
}

/// What an event says was erased.
#[derive(Debug, Clone, Copy)]
enum What {
    /// The bytes of a picture of a punch.
    Picture,
    /// What was kept of somebody's face.
    Face,
}

/// How often what was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Erased {
    pub pictures: u64,
    pub faces: u64,
    pub people: u64,
    /// Notes that events name and that are gone.
    pub notes: u64,
}

/// A step back of the database, as the ledger says.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepBack {
    /// Where it says so.
    pub position: u64,
    /// The epoch that began.
    pub epoch: EpochId,
    /// Up to where the histories agree.
    pub after: u64,
    /// The last position that is known to be gone.
    pub seen: u64,
}

/// What the walk has seen. Grows with the number of devices, not of events.
pub(super) struct Walk {
    pub findings: Findings,
    pub comparison: Comparison,
    pub computed: Frontier,
    pub stored: Frontier,
    pub keys: Keys,
    pub devices: Devices,
    pub badges: Badges,
    /// The organisations that devices enrolled for; one, that is.
    pub orgs: BTreeSet<OrgId>,
    pub forks: Vec<DeviceFork>,
    pub forks_more: u64,
    pub events: u64,
    pub unreadable: u64,
    pub steps_back: Vec<StepBack>,
    pub signatures: u64,
    pub erased: Erased,
    pub links: u64,
    pub last: u64,
    /// The latest time at which an event says it was recorded.
    pub last_recorded_us: i64,
    waiting: Vec<Signed>,
    /// The capture whose receipt is next.
    captured: Option<(PunchId, Remembered)>,
}

impl Walk {
    pub(super) fn new(findings: Findings, comparison: Comparison) -> Self {
        Self {
            findings,
            comparison,
            computed: Frontier::new(),
            stored: Frontier::new(),
            keys: Keys::new(),
            devices: Devices::new(),
            badges: Badges::default(),
            orgs: BTreeSet::new(),
            forks: Vec::new(),
            forks_more: 0,
            events: 0,
            unreadable: 0,
            steps_back: Vec::new(),
            signatures: 0,
            erased: Erased::default(),
            links: 0,
            last: 0,
            last_recorded_us: i64::MIN,
            waiting: Vec::new(),
            captured: None,
        }
    }

    /// Takes the next page in.
    pub(super) async fn page(&mut self, pool: &Pool, rows: Vec<Row>) -> Result<(), AuditError> {
        let rows = Arc::new(rows);
        let checked = check(&rows).await?;
        let mut named = Named::default();
        for (row, checked) in rows.iter().zip(checked) {
            self.place(row);
            self.leaf(row, checked.hash);
            self.event(row.position, checked.read, &mut named);
        }
        let compared = named.check(pool, &mut self.findings, &mut self.waiting).await?;
        self.links += compared.links;
        self.erased.notes += compared.notes_gone;
        if self.waiting.len() >= WAITING_SIGNATURES_MAX {
            self.check_signatures().await?;
        }
        Ok(())
    }

    /// After the last page: positions up to the head that hold nothing, signatures that still wait.
    pub(super) async fn end(&mut self, head: u64) -> Result<(), AuditError> {
        self.expect(head + 1);
        self.check_signatures().await
    }

    async fn check_signatures(&mut self) -> Result<(), AuditError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.signatures += waiting.len() as u64;
        signatures::check(waiting, &self.keys, &mut self.findings).await
    }

    fn expect(&mut self, position: u64) {
        let next = self.last + 1;
        if position > next {
            let through = position - 1;
            let what = match through - next {
                0 => format!("no event stands at position {next}: it was removed"),
                _ => format!("no events stand at positions {next} to {through}: they were removed"),
            };
            self.findings.add(Finding::within((next, through), FindingCode::Missing, what));
            self.comparison.hole();
        }
    }

    fn place(&mut self, row: &Row) {
        self.events += 1;
        if row.position == self.last {
            let what = "two events stand at this position";
            self.findings.add(Finding::at(row.position, FindingCode::Misplaced, what));
            self.comparison.hole();
        }
        self.expect(row.position);
        self.last = row.position;
        if row.recorded_at_us < self.last_recorded_us {
            let what = "it says it was recorded before the event in front of it";
            self.findings.add(Finding::at(row.position, FindingCode::TimeReversed, what));
        }
        self.last_recorded_us = self.last_recorded_us.max(row.recorded_at_us);
    }

    fn leaf(&mut self, row: &Row, hash: Option<Digest>) {
        let stored = row.stored_hash();
        if hash.is_none() || hash != stored {
            let what = format!(
                "its row ({} {} of {} {}) isn't the one its hash was made of: the row was changed",
                row.event_type, row.sequence, row.aggregate_type, row.aggregate_id
            );
            self.findings.add(Finding::at(row.position, FindingCode::LeafMismatch, what));
        }
        self.computed.push(hash.unwrap_or_default());
        self.stored.push(stored.unwrap_or_default());
        self.comparison.at(&self.computed, &self.stored);
    }

    fn event(&mut self, position: u64, read: Read, named: &mut Named) {
        match read {
            Read::Nothing => {}
            Read::Unreadable => self.unreadable += 1,
            Read::Conflict { punch, digest, device } => {
                named.conflicts.push(NamedConflict { position, punch, digest, device });
            }
            Read::Ruled { note, admitted } => {
                named.notes.extend(note.map(|note| NamedNote::of(position, note)));
                named.walked.extend(admitted.map(|(punch, remembered)| Walked {
                    position,
                    punch,
                    remembered,
                }));
            }
            Read::Quarantined { item, device, seq } => {
                self.devices.entry(device).or_default().quarantined += 1;
                named.items.push(NamedItem { position, item, device, seq });
            }
            Read::Device { device, event, note } => {
                named.notes.extend(note.map(|note| NamedNote::of(position, note)));
                self.device(position, device, event);
            }
            Read::Epoch(epoch, EpochEvent::Opened { after, seen, .. }) => {
                let (after, seen) = (after.0, seen.0);
                self.steps_back.push(StepBack { position, epoch, after, seen });
            }
            Read::Captured { of, capture: Some(capture), body, signature }
                if capture.punch == of =>
            {
                let device = capture.device;
                let link = NamedLink::of((position, device), of, &capture, body.digest());
                named.links.push(link);
                // Its receipt follows it, and the adjudicator walks over both at once.
                let (site, kind, at) = (capture.site, capture.kind, capture.captured_at);
                let (employee, badge) = (capture.employee, capture.badge.as_deref().map(normal));
                let (captured_at, true_at) = (at, at);
                let remembered = Remembered { employee, badge, captured_at, true_at, site, kind };
                self.captured = Some((of, remembered));
                let body = body.as_str().as_bytes().to_vec();
                let kind = CAPTURE_TYPE;
                self.waiting.push(Signed { position, device, kind, body, signature });
            }
            Read::Synced { of, clock } => {
                let captured = self.captured.take().filter(|(captured, _)| *captured == of);
                named.walked.extend(captured.map(|(punch, remembered)| {
                    let true_at = clock.true_time(remembered.true_at);
                    Walked { position, punch, remembered: Remembered { true_at, ..remembered } }
                }));
            }
            Read::Retaken { of, record, signature } => {
                match Attachment::parse_kept(record.as_bytes()) {
                    Ok(read) if read.punch == of => self.waiting.push(Signed {
                        position,
                        device: read.device,
                        kind: ATTACHMENT_TYPE,
                        body: record.into_bytes(),
                        signature,
                    }),
                    _ => {
                        let what = "the picture's record can't be read, or is another punch's";
                        self.findings.add(Finding::at(position, FindingCode::BadSignature, what));
                    }
                }
            }
            Read::Erased(What::Picture) => self.erased.pictures += 1,
            Read::Erased(What::Face) => self.erased.faces += 1,
            Read::Person(employee, event) => {
                self.erased.people += u64::from(matches!(event, EmployeeEvent::Erased { .. }));
                self.badges.take(position, employee, &event);
            }
            Read::Captured { .. } => {
                let what = "the capture can't be read, or is another punch's";
                self.findings.add(Finding::at(position, FindingCode::BadSignature, what));
            }
        }
    }

    fn device(&mut self, position: u64, device: DeviceId, event: DeviceEvent) {
        match &event {
            DeviceEvent::Registered { org } => {
                self.orgs.insert(*org);
            }
            DeviceEvent::Enrolled { key, .. } => {
                self.keys.entry(device).or_insert((position, *key));
            }
            DeviceEvent::ForkDetected { seq, first, second } => {
                let (seq, first, second) = (*seq, *first, *second);
                if self.forks.len() < super::DEVICE_NOTES_MAX {
                    self.forks.push(DeviceFork { device, seq, first, second, position });
                } else {
                    self.forks_more += 1;
                }
            }
            _ => {}
        }
        self.devices.entry(device).or_default().take(position, event);
    }
}

/// Hashes and reads a page's rows, spread over the cores.
async fn check(rows: &Arc<Vec<Row>>) -> Result<Vec<Checked>, AuditError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = rows.len().div_ceil(cores).max(1);
    let shares: Vec<_> = (0..rows.len())
        .step_by(share)
        .map(|start| {
            let rows = Arc::clone(rows);
            tokio::task::spawn_blocking(move || {
                let end = rows.len().min(start + share);
                rows[start..end].iter().map(check_row).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut checked = Vec::with_capacity(rows.len());
    for share in shares {
        checked.extend(share.await.map_err(|_| AuditError::Stopped)?);
    }
    Ok(checked)
}

fn check_row(row: &Row) -> Checked {
    Checked { hash: row.hash(), read: read(row) }
}

fn read(row: &Row) -> Read {
    let by = |note: Option<Digest>| note.map(|digest| (digest, actor(&row.metadata)));
    match row.event() {
        Some(Event::Punch(of, event)) => read_punch(of, event, by),
        Some(Event::Quarantine(item, QuarantineEvent::Quarantined { device, seq, .. })) => {
            Read::Quarantined { item, device, seq }
        }
        Some(Event::Quarantine(_, QuarantineEvent::Dismissed { note })) => {
            Read::Ruled { note: by(note), admitted: None }
        }
        Some(Event::Dispute(_, event)) => read_dispute(event, by),
        Some(Event::Device(device, event)) => {
            let note = match &event {
                DeviceEvent::CommandIssued { instruction, .. } => by(instruction.note()),
                DeviceEvent::CommandFinished { note, .. } => by(*note),
                _ => None,
            };
            Read::Device { device, event, note }
        }
        Some(Event::Epoch(epoch, event)) => Read::Epoch(epoch, event),
        Some(Event::Employee(employee, event)) => match event {
            EmployeeEvent::BiometricsErased { .. } => Read::Erased(What::Face),
            EmployeeEvent::Erased { .. }
            | EmployeeEvent::BadgeIssued { .. }
            | EmployeeEvent::BadgeEnded { .. } => Read::Person(employee, event),
            EmployeeEvent::LegalHoldPlaced { note, .. }
            | EmployeeEvent::LegalHoldLifted { note, .. } => {
                Read::Ruled { note: by(note), admitted: None }
            }
            _ => Read::Nothing,
        },
        Some(_) => Read::Nothing,
        None => Read::Unreadable,
    }
}

fn read_punch(
    of: PunchId,
    event: PunchEvent,
    by: impl Fn(Option<Digest>) -> Option<(Digest, Option<String>)>,
) -> Read {
    match event {
        PunchEvent::Captured { capture: body, signature } => {
            let capture = body.capture().ok().cloned().map(Box::new);
            Read::Captured { of, capture, body, signature }
        }
        PunchEvent::ConflictingCaptureReceived { digest, device, .. } => {
            Read::Conflict { punch: of, digest, device }
        }
        PunchEvent::Admitted { employee, site, kind, captured_at, note, .. } => {
            let remembered = Remembered::entered(employee, captured_at, site, kind);
            Read::Ruled { note: by(note), admitted: Some((of, remembered)) }
        }
        PunchEvent::Synced { clock, .. } => Read::Synced { of, clock },
        PunchEvent::Entered { employee, site, kind, at: captured_at, note, .. } => {
            let remembered = Remembered::entered(employee, captured_at, site, kind);
            Read::Ruled { note: by(note), admitted: Some((of, remembered)) }
        }
        PunchEvent::Identified { note, .. }
        | PunchEvent::Reassigned { note, .. }
        | PunchEvent::ShiftJoined { note, .. }
        | PunchEvent::ShiftParted { note }
        | PunchEvent::Accepted { note, .. }
        | PunchEvent::Rejected { note, .. }
        | PunchEvent::Amended { note, .. }
        | PunchEvent::Voided { note, .. } => Read::Ruled { note: by(note), admitted: None },
        PunchEvent::PhotoRetaken { record, signature, .. } => {
            Read::Retaken { of, record, signature }
        }
        PunchEvent::PhotoErased { .. } => Read::Erased(What::Picture),
        PunchEvent::AnomalyFlagged { .. }
        | PunchEvent::AnomalyWithdrawn { .. }
        | PunchEvent::ReferralLifted {}
        | PunchEvent::ReferredForReview { .. }
        | PunchEvent::ReviewEscalated { .. }
        | PunchEvent::Reinstated {}
        | PunchEvent::VerificationRequested { .. }
        | PunchEvent::PhotoReceived { .. }
        | PunchEvent::VerificationSucceeded { .. }
        | PunchEvent::VerificationFailed { .. }
        | PunchEvent::VerificationUnavailable { .. } => Read::Nothing,
    }
}

fn read_dispute(
    event: DisputeEvent,
    by: impl Fn(Option<Digest>) -> Option<(Digest, Option<String>)>,
) -> Read {
    let note = match event {
        DisputeEvent::Opened { note, .. } => note,
        DisputeEvent::Answered { note }
        | DisputeEvent::Resolved { note, .. }
        | DisputeEvent::Reopened { note } => Some(note),
        DisputeEvent::EvidenceAdded { .. } => return Read::Nothing,
    };
    Read::Ruled { note: by(note), admitted: None }
}

/// Who caused an event, as its metadata says.
fn actor(metadata: &str) -> Option<String> {
    let object: serde_json::Value = serde_json::from_str(metadata).ok()?;
    Some(object.get("actor")?.as_str()?.to_owned())
}
