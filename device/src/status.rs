//! What a device says about itself.

use punchtrail_protocol::{BootId, DeviceId, OrgId, SiteId, Time, wire::DevicePolicy};
use serde::Serialize;

use crate::{
    APP,
    device::{Device, is_offline},
    store::{
        StoreError,
        attachments::{self, FailedAttachment},
        commands::{self, Message},
        contact::{self, Contact},
        disputes::{self, HeldDispute},
        failures::Failure,
        identity::{self, Identity},
        outbox, photos, roster,
    },
};

/// A device's own account of itself.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The device; none before enrolment.
    #[serde(flatten)]
    pub current: Option<IdentityStatus>,
    pub employees: u64,
    /// The manifest's version; none: it is to be walked.
    pub roster_version: Option<String>,
    /// Whose people and rules are held; none before the first walk. Another site than `site` from
    /// when this device hears that it was moved until the new site's manifest is whole.
    pub roster_site: Option<SiteId>,
    /// Whether the server counts as out of reach.
    pub offline: bool,
    pub clock: ClockStatus,
    /// What the server wants shown to who looks at this device, the newest first.
    pub messages: Vec<Message>,
    /// The agent that works on this folder now.
    pub agent_pid: Option<u32>,
    /// Earlier identities of which something is left here.
    pub earlier: Vec<IdentityStatus>,
    pub app: &'static str,
}

/// One identity's account.
#[derive(Debug, Clone, Serialize)]
pub struct IdentityStatus {
    pub device: DeviceId,
    pub org: OrgId,
    pub site: SiteId,
    pub name: String,
    pub server: String,
    pub outbox: u64,
    /// Retakes that wait.
    pub attachments: u64,
    /// Disputes that wait.
    pub disputes: u64,
    /// Of those, the ones that the server did not take when it was asked.
    pub disputes_refused: u64,
    /// Disputes that the server will never take.
    pub disputes_failed: u64,
    /// The newest that it did not take.
    pub untaken_disputes: Vec<HeldDispute>,
    /// Photos that wait, those of retakes included.
    pub photos: u64,
    /// When the first of the waiting punches was captured.
    pub oldest: Option<Time>,
    /// Punches that wait and that failed when sent alone.
    pub refused: u64,
    /// Photos that wait and that the server refused.
    pub photos_refused: u64,
    /// Photos whose file is gone or damaged.
    pub photos_lost: u64,
    /// Photos that were erased because their person is to be forgotten.
    pub photos_erased: u64,
    /// Whether photos are sealed to the server.
    pub photos_sealed: bool,
    /// Commands of the server that were not acted on, or whose results it hasn't heard.
    pub commands: u64,
    /// Retakes that the server won't take.
    pub attachments_failed: u64,
    /// The newest of them.
    pub failed_attachments: Vec<FailedAttachment>,
    /// Punches acknowledged and kept still, in case the server is restored.
    pub kept: u64,
    pub last_seq: u64,
    /// Whether a salvage ended this identity: it delivers what it holds, and captures no more.
    pub ended: bool,
    /// How many confirmed punches the salvage could not read; null: there was none, or nobody can
    /// know.
    pub unreadable: Option<u64>,
    /// The number up to which the server holds everything.
    pub acked_through: u64,
    /// The server knows later numbers than this folder: it is an old copy of itself, or has a twin.
    pub behind_server: bool,
    /// When the server last answered, by this device's clock.
    pub last_contact: Option<Time>,
    /// What goes wrong now: the last failure of a kind of call that hasn't gone well since.
    pub last_error: Option<ErrorStatus>,
    /// The same for each kind of call, the last first.
    pub errors: Vec<ErrorStatus>,
}

/// Something that went wrong.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorStatus {
    /// When, by this device's clock.
    pub at: Time,
    /// What the call was for: `heartbeat`, `manifest`, `commands`, `punches`, `attachments`,
    /// `disputes`,
    /// `photos`.
    pub of: &'static str,
    pub code: String,
    pub detail: String,
    /// How many such calls failed in a row.
    pub times: u64,
}

/// A device's clocks.
#[derive(Debug, Clone, Serialize)]
pub struct ClockStatus {
    pub now: Time,
    /// Its offset from UTC, in seconds.
    pub utc_offset_s: i32,
    pub tz: String,
    pub boot: BootId,
    pub uptime_ms: u64,
    /// How far it was ahead of the server's at the last contact, in milliseconds; negative: behind.
    pub ahead_of_server_ms: Option<i64>,
}

impl From<Failure> for ErrorStatus {
    fn from(failure: Failure) -> Self {
        let Failure { purpose, at, code, text, times } = failure;
        Self { at, of: purpose.word(), code, detail: text, times }
    }
}

impl Device {
    /// Looks at everything, changes nothing; also while an agent works.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn status(&self) -> Result<Status, StoreError> {
        let now = self.now();
        self.store.check().await?;
        let mut db = self.store.read().await?;
        let mut identities = identity::all(&mut db).await?;
        let current = identities.pop();
        let mut earlier = Vec::with_capacity(identities.len());
        for identity in identities {
            let contact = contact::of(&mut db, identity.id).await?;
            earlier.push(identity_status(&mut db, &identity, &contact).await?);
        }
        let mut status = Status {
            current: None,
            employees: 0,
            roster_version: None,
            roster_site: None,
            offline: true,
            clock: ClockStatus {
                now: now.time,
                utc_offset_s: now.utc_offset_s,
                tz: now.tz.clone(),
                boot: now.boot,
                uptime_ms: now.uptime_ms,
                ahead_of_server_ms: None,
            },
            messages: Vec::new(),
            agent_pid: self.folder.agent(),
            earlier,
            app: APP,
        };
        if let Some(identity) = current {
            let contact = contact::of(&mut db, identity.id).await?;
            let heartbeat_s = contact
                .policy
                .as_ref()
                .map_or_else(|| DevicePolicy::default().heartbeat_s, |p| p.heartbeat_s);
            status.current = Some(identity_status(&mut db, &identity, &contact).await?);
            status.employees = roster::count(&mut db, identity.id).await?;
            status.offline = is_offline(&contact, heartbeat_s, &now);
            status.clock.ahead_of_server_ms = contact.clock_ahead_ms;
            let server_now = contact.server_now(now.time);
            status.messages = commands::messages(&mut db, identity.id, server_now).await?;
            status.roster_version = contact.roster;
            status.roster_site = contact.roster_site;
        }
        Ok(status)
    }
}

async fn identity_status(
    db: &mut sqlx::SqliteConnection,
    identity: &Identity,
    contact: &Contact,
) -> Result<IdentityStatus, StoreError> {
    let punches = outbox::backlog(db, identity.id).await?;
    let attachments = attachments::backlog(db, identity.id).await?;
    let failed_attachments = attachments::all_failed(db, identity.id).await?;
    let disputes = disputes::backlog(db, identity.id).await?;
    let untaken_disputes = disputes::untaken(db, identity.id).await?;
    let photos = photos::backlog(db, identity.id).await?;
    let commands = commands::open(db, identity.id).await?;
    let errors: Vec<_> = contact.failures.iter().cloned().map(ErrorStatus::from).collect();
    Ok(IdentityStatus {
        device: identity.device,
        org: identity.org,
        site: identity.site,
        name: identity.name.clone(),
        server: identity.server.clone(),
        outbox: punches.waiting,
        attachments: attachments.waiting,
        disputes: disputes.waiting,
        disputes_refused: disputes.refused,
        disputes_failed: disputes.failed,
        untaken_disputes,
        photos: photos.waiting,
        oldest: punches.oldest,
        refused: punches.refused,
        photos_refused: photos.refused,
        photos_lost: photos.lost,
        photos_erased: photos.erased,
        photos_sealed: contact.photo_key.is_some(),
        commands,
        attachments_failed: attachments.failed,
        failed_attachments,
        kept: punches.kept,
        last_seq: identity.seq,
        ended: identity.ended,
        unreadable: identity.unreadable,
        acked_through: contact.acked_through,
        behind_server: contact.acked_through > identity.seq,
        last_contact: contact.reached_at.map(|(at, _, _)| at),
        last_error: errors.first().cloned(),
        errors,
    })
}
