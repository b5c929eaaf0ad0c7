//! What a device and the server say to each other: the request and answer bodies of device protocol
//! version 1 (docs/device-protocol.md), shared by both sides so that they can't drift apart.
//!
//! The server refuses unknown fields in a request; a device ignores unknown fields in an answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    BootId, CommandId, DeviceId, Digest, DisputeId, EmployeeId, EpochId, OrgId, Position, PunchId,
    SiteId, Time,
    capture::PunchKind,
    command::{CommandArgs, CommandStatus, CommandType},
    dispute::{Day, DisputeCause, DisputeState, Settlement},
    guidance::Guidance,
    strict_json,
    vocabulary::{QuarantineCode, Reason, Standing},
};

/// The letters of a pairing code: no vowels, so that no word is spelled.
pub const PAIRING_ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// How many letters a pairing code has.
pub const PAIRING_CODE_CHARS: usize = 8;
/// How long a pairing code can be used, in seconds.
pub const PAIRING_CODE_LIFE_S: u32 = 600;
/// The most items in a batch.
pub const BATCH_ITEMS_MAX: usize = 500;
/// The largest body of a batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 3 << 20;
/// The largest photo, in bytes.
pub const PHOTO_BYTES_MAX: usize = 5 << 20;
/// The largest body of any other request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// How many epochs of the ledger a device is told of, the newest.
pub const EPOCHS_TOLD_MAX: usize = 32;
/// The longest anchor, in characters.
pub const ANCHOR_CHARS_MAX: usize = 256;
/// The longest certificate, in characters.
pub const CERTIFICATE_CHARS_MAX: usize = 4_096;
/// The header that says, on every answer to a device, which epoch the ledger is in: a UUID.
pub const EPOCH_HEADER: &str = "punchtrail-epoch";
/// The header that says where the ledger's head stands: the position of the newest event that the
/// answering node knows of.
pub const LEDGER_HEADER: &str = "punchtrail-ledger";

/// One day in seconds.
const DAY_S: u32 = 86_400;

/// A pairing code as a person types it: any case, with or without its hyphen. None if it can't be
/// one.
pub fn pairing_code(typed: &str) -> Option<String> {
    let letters: String =
        typed.chars().filter(|c| *c != '-').map(|c| c.to_ascii_uppercase()).collect();
    let plausible = letters.len() == PAIRING_CODE_CHARS
        && letters.bytes().all(|b| PAIRING_ALPHABET.contains(&b));
    plausible.then_some(letters)
}

/// `POST /v1/devices/enroll`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The pairing code, with or without hyphen, any case.
    pub code: String,
    /// The device's name, for people; 1 to 64 characters.
    pub name: String,
    /// The Ed25519 public key, base64url.
    pub public_key: String,
    /// Signature by that key over the code's eight upper-case letters.
    pub proof: String,
    pub app: String,
}

/// Answer to an enrolment. The token is shown this once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Enrolled {
    pub device: DeviceId,
    pub org: OrgId,
    pub site: SiteId,
    /// The bearer token, `ptd_…`.
    pub token: String,
    pub server_time: Time,
    /// What the server sealed of this enrolment: with it a device is known again by a server that
    /// went back to before it.
    #[serde(default)]
    pub certificate: Option<String>,
    #[serde(default)]
    pub history: Option<LedgerHistory>,
    /// The X25519 public key, base64url, to which photos that wait are sealed.
    #[serde(default)]
    pub photo_key: Option<String>,
}

/// `POST /v1/devices/return`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReturnRequest {
    /// The certificate, as the enrolment gave it.
    pub certificate: String,
    /// Signature by the device's key over the certificate's characters.
    pub proof: String,
}

/// Answer to a device that returned: its token is good again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Returned {
    pub device: DeviceId,
    pub server_time: Time,
}

/// Which history the ledger has: by it a device notices that the server's database went back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerHistory {
    /// The ledger's epochs, the present one last; at most 32, the newest.
    pub epochs: Vec<EpochBegun>,
    /// What the server remembers the ledger by, under its seal; to be given with the next
    /// heartbeat.
    pub anchor: String,
}

/// An epoch of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EpochBegun {
    pub epoch: EpochId,
    /// Up to this position it has the history of the epochs before it.
    pub after: Position,
}

impl LedgerHistory {
    /// The present epoch.
    pub fn current(&self) -> Option<EpochId> {
        self.epochs.last().map(|begun| begun.epoch)
    }

    /// Up to where the history of `epoch` is part of the ledger still; none when all of it is.
    pub fn parted_after(&self, epoch: EpochId) -> Option<Position> {
        if self.current().is_none_or(|current| current == epoch) {
            return None;
        }
        let at = self.epochs.iter().position(|begun| begun.epoch == epoch);
        // Of an epoch that isn't listed nothing is known to stand.
        let after = at.and_then(|at| self.epochs[at + 1..].iter().map(|begun| begun.after).min());
        Some(after.unwrap_or(Position::START))
    }
}

/// `POST /v1/sites/{site}/punches/batch`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// 1 to 500 items, oldest first.
    pub punches: Vec<BatchItem>,
}

/// A capture on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BatchItem {
    /// The signed bytes, base64url.
    pub capture: String,
    /// The signature, base64url.
    pub signature: String,
}

/// Answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAnswer {
    /// One result an item, in the order of the items.
    pub results: Vec<ItemResult>,
    /// The highest number up to which every number is held.
    pub acked_through: u64,
    /// The ledger's head after the commit.
    pub ledger: Position,
    pub server_time: Time,
    /// How long to wait before the next batch, in milliseconds.
    pub next_batch_after_ms: u64,
    #[serde(default)]
    pub history: Option<LedgerHistory>,
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemResult {
    /// The punch, if its id could be read.
    pub punch: Option<PunchId>,
    /// Its number, if it could be read.
    pub seq: Option<u64>,
    pub status: ItemStatus,
    /// Position of its `Captured` event, or of its quarantine.
    pub position: Position,
    pub code: Option<QuarantineCode>,
    pub detail: Option<String>,
}

/// What became of an item. Each is an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ItemStatus {
    /// First seen, now in the ledger.
    Applied,
    /// The same punch and bytes, seen before.
    Duplicate,
    /// The same punch id with other bytes: the first stands, these are evidence.
    Conflict,
    /// Can't be taken as a punch; kept where a manager sees it.
    Quarantined,
}

/// `POST /v1/devices/self/heartbeat`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    pub outbox: u64,
    pub photos: u64,
    /// When the oldest waiting punch was captured.
    #[serde(deserialize_with = "strict_json::null_or")]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub oldest: Option<Time>,
    pub seq: u64,
    pub clock: Time,
    pub boot: BootId,
    pub uptime_ms: u64,
    pub app: String,
    /// The anchor that the server gave last.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "strict_json::no_null"
    )]
    pub anchor: Option<String>,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatAnswer {
    pub server_time: Time,
    /// The highest number up to which every number is held.
    pub acked_through: u64,
    /// The roster's version at the device's site.
    pub roster: String,
    pub commands: bool,
    /// No batch within so many milliseconds: the device's place among those that came back.
    #[serde(default)]
    pub next_batch_after_ms: u64,
    /// The site that the device is assigned to now. Absent: nothing is said of it, as by an earlier
    /// server, or to a device that was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteId>,
    #[serde(default)]
    pub history: Option<LedgerHistory>,
}

/// `GET /v1/devices/self/commands`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitingCommands {
    /// At most 100, the oldest first.
    pub data: Vec<WaitingCommand>,
}

/// A command that a device hasn't said the result of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitingCommand {
    pub command: CommandId,
    #[serde(rename = "type")]
    pub kind: CommandType,
    pub args: CommandArgs,
    /// Not to be acted on any more from then.
    pub expires_at: Time,
}

/// `PUT /v1/devices/self/commands/{command}/result`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommandResult {
    pub status: CommandStatus,
    /// What happened, for people; at most 500 characters.
    #[serde(deserialize_with = "strict_json::null_or")]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub detail: Option<String>,
}

/// Answer to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommandResultAnswer {
    /// `applied` or `duplicate`.
    pub status: ItemStatus,
    /// Position of the device's newest event.
    pub position: Position,
}

/// `POST /v1/punches/{punch}/attachments`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AttachmentRequest {
    /// The signed bytes, base64url.
    pub record: String,
    /// The signature, base64url.
    pub signature: String,
}

/// Answer to an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachmentAnswer {
    /// `applied` or `duplicate`.
    pub status: ItemStatus,
    /// Position of the event that recorded it.
    pub position: Position,
}

/// `GET /v1/punches/{punch}/verdict`: where a punch stands, for the device that captured it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verdict {
    pub standing: Standing,
    /// The attempt that the guidance is about: 0 for the capture's own frame; none before a
    /// verdict.
    pub attempt: Option<u32>,
    /// What the worker can do about a picture that can't be used; empty after a match.
    pub guidance: Vec<Guidance>,
    /// Whether another picture may help.
    pub retake: bool,
    /// Position of the punch's newest event.
    pub position: Position,
}

/// `POST /v1/sites/{site}/employees/{employee}/references`: pictures that a worker's face is
/// compared with from now on, taken while somebody with the right stands by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReferencesRequest {
    /// The code that person made for this worker, with or without hyphen, any case.
    pub code: String,
    /// Which version of the notice the worker was shown; 1 to 32 characters.
    pub notice: String,
    /// The language it was shown in, a tag of BCP 47 of 2 to 35 characters.
    pub language: String,
    /// When the worker agreed, by the device's clock.
    pub given_at: Time,
    /// Digests of the pictures' bytes, 1 to 8, no two alike; each was put before.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub photos: Vec<Digest>,
}

/// Answer to reference pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReferencesAnswer {
    pub employee: EmployeeId,
    /// How many of the pictures are compared with from now on.
    pub references: u32,
}

/// `POST /v1/sites/{site}/disputes`: what a worker disputes, about a punch or about a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DisputeRequest {
    /// A UUIDv7 made by the device: the idempotency key, for ever.
    pub dispute: DisputeId,
    /// Who disputes.
    pub employee: EmployeeId,
    /// The punch that it is about; exactly one of `punch` and `day` is null.
    #[serde(deserialize_with = "strict_json::null_or")]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub punch: Option<PunchId>,
    /// The business day that it is about, `YYYY-MM-DD`.
    #[serde(deserialize_with = "strict_json::null_or")]
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub day: Option<Day>,
    pub cause: DisputeCause,
    /// In the worker's own words; at most 2,000 characters, may be empty.
    pub text: String,
}

/// Answer to a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisputeAnswer {
    /// `applied` or `duplicate`.
    pub status: ItemStatus,
    /// Position of the event that opened it.
    pub position: Position,
}

/// `GET /v1/sites/{site}/employees/{employee}/record`: a worker's own record, for showing after a
/// PIN. It holds no name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerRecord {
    pub employee: EmployeeId,
    /// The business days that were asked for and have a punch or hours, the earliest first.
    pub days: Vec<RecordDay>,
    /// The worker's disputes, the newest first, at most 50.
    pub disputes: Vec<RecordDispute>,
}

/// A business day of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordDay {
    pub day: Day,
    /// Worked minutes that are settled.
    pub accepted_min: u64,
    /// Worked minutes that count until a person has ruled.
    pub provisional_min: u64,
    /// The worker's punches of that day, in order of the time that counts.
    pub punches: Vec<RecordPunch>,
}

/// A punch as its worker is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordPunch {
    pub punch: PunchId,
    pub kind: PunchKind,
    /// When, by the device's clock.
    pub captured_at: Time,
    /// The time that counts.
    pub effective_at: Time,
    pub standing: Standing,
    /// Why it stands so.
    pub reasons: Vec<RecordReason>,
}

/// A reason as a code and in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordReason {
    pub code: String,
    /// The code in words, in English; the code itself where there are none.
    pub text: String,
}

/// A dispute as its worker is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordDispute {
    pub dispute: DisputeId,
    pub punch: Option<PunchId>,
    pub day: Option<Day>,
    pub cause: DisputeCause,
    pub state: DisputeState,
    /// When it was opened, by the server's clock.
    pub opened_at: Time,
    /// The worker's own text; null if there was none, or it was erased.
    pub text: Option<String>,
    /// What was answered, the earliest first; what was erased is left out.
    pub answers: Vec<RecordAnswer>,
    /// How it was settled; null while it waits.
    pub resolution: Option<RecordResolution>,
}

/// An answer to a dispute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordAnswer {
    /// When, by the server's clock.
    pub at: Time,
    pub text: String,
}

/// How a dispute was settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordResolution {
    pub how: Settlement,
    /// The same in words, in English.
    pub words: String,
    /// The punch that settles it, if another one does.
    pub by_punch: Option<PunchId>,
    /// When, by the server's clock.
    pub at: Time,
    /// Why; null if that was erased.
    pub text: Option<String>,
}

/// The most days of a record.
pub const RECORD_DAYS_MAX: u32 = 31;
/// The most disputes of a record, the newest.
pub const RECORD_DISPUTES_MAX: u32 = 50;

/// The most reference pictures at once.
pub const REFERENCES_MAX: usize = 8;
/// The longest version of a notice, in characters.
pub const NOTICE_CHARS_MAX: usize = 32;
/// The longest tag of a language, in characters.
pub const LANGUAGE_CHARS_MAX: usize = 35;

/// The longest wait for a verdict, in seconds.
pub const VERDICT_WAIT_S_MAX: u32 = 20;
/// After so many attempts that missed nobody is asked for another picture: a person will look.
pub const MISSES_MAX: u32 = 2;

/// The part of the policy that a device is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DevicePolicy {
    pub batch_max: u32,
    pub punches_per_minute: u32,
    pub reconnect_spread_s: u32,
    pub heartbeat_s: u32,
    pub restore_window_s: u32,
    pub lookback_s: u32,
    pub clock_suspect_s: u32,
    pub near_duplicate_s: u32,
    pub photos: bool,
    pub languages: Vec<String>,
}

impl Default for DevicePolicy {
    /// What a device does until it has been told, and a site's policy until it is changed.
    fn default() -> Self {
        Self {
            batch_max: 200,
            punches_per_minute: 120,
            reconnect_spread_s: 60,
            heartbeat_s: 300,
            restore_window_s: 30 * DAY_S,
            lookback_s: 30 * DAY_S,
            clock_suspect_s: 120,
            near_duplicate_s: 60,
            photos: false,
            languages: vec!["en".to_owned()],
        }
    }
}

/// `GET /v1/sites/{site}/manifest`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManifestPage {
    pub data: Vec<ManifestRow>,
    pub policy: DevicePolicy,
    /// The roster's version, the same on all pages of a walk.
    pub roster: String,
    /// The X25519 public key, base64url, to which photos that wait are sealed.
    #[serde(default)]
    pub photo_key: Option<String>,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
}

/// A person on the manifest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManifestRow {
    pub employee: EmployeeId,
    /// The badge that they got last; for devices that know of one.
    pub badge: Option<String>,
    /// Every badge that they hold, or are to hold, the one they got last first.
    #[serde(default)]
    pub badges: Vec<String>,
    pub name: String,
    /// The PIN's hash, if there is one.
    pub pin: Option<PinHash>,
    /// Whether photos are taken of this worker.
    pub face: bool,
    /// The kind of the last punch not rejected or voided.
    pub last_kind: Option<PunchKind>,
}

impl fmt::Debug for ManifestRow {
    /// Names and hashes of PINs don't belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestRow").field("employee", &self.employee).finish_non_exhaustive()
    }
}

/// A PIN's Argon2id hash in PHC string format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PinHash {
    pub phc: String,
}

/// `GET /v1/sites/{site}/employees?q=`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FoundEmployees {
    pub data: Vec<FoundEmployee>,
}

/// A person found; a manifest row without the PIN.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FoundEmployee {
    pub employee: EmployeeId,
    pub badge: Option<String>,
    pub name: String,
    /// Whether photos are taken of this worker.
    pub face: bool,
    /// The kind of the last punch not rejected or voided.
    pub last_kind: Option<PunchKind>,
}

impl fmt::Debug for FoundEmployee {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundEmployee").field("employee", &self.employee).finish_non_exhaustive()
    }
}

/// `GET /v1/sites/{site}/punches`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SitePunches {
    /// The site's punches, each at its latest change, in the order of those changes.
    pub data: Vec<SitePunch>,
    /// Where to go on; always there.
    pub next_cursor: String,
    /// Whether more is there now.
    pub has_more: bool,
}

/// A punch of a site at its latest change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SitePunch {
    pub punch: PunchId,
    /// Who; none for an unknown badge.
    pub employee: Option<EmployeeId>,
    pub kind: PunchKind,
    pub captured_at: Time,
    pub effective_at: Time,
    pub device: DeviceId,
    pub standing: Standing,
    pub reasons: Vec<Reason>,
    /// Position of the latest change.
    pub position: Position,
}

/// A refusal, as RFC 9457 says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    pub status: u16,
    /// What happened here, what was kept, and what to do.
    pub detail: String,
    pub code: String,
    /// The request, for the operator's log.
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) to the field, or the query parameter's name.
    pub pointer: String,
    pub code: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_in_an_earlier_epoch_stands_up_to_where_the_histories_part() {
        let begun = |n, after| EpochBegun {
            epoch: EpochId(uuid::Uuid::from_u128(n)),
            after: Position(after),
        };
        let epochs = vec![begun(1, 0), begun(2, 70), begun(3, 200), begun(4, 90)];
        let history = LedgerHistory { epochs, anchor: String::new() };
        let parted = |n| history.parted_after(EpochId(uuid::Uuid::from_u128(n))).map(|at| at.0);
        assert_eq!([1, 2, 3, 4].map(parted), [Some(70), Some(90), Some(90), None]);
        assert_eq!(parted(9), Some(0), "of an unknown one nothing is known to stand");
        assert_eq!(LedgerHistory::default().parted_after(EpochId::NIL), None);
    }

    #[test]
    fn a_pairing_code_is_read_as_people_type_it() {
        for typed in ["BCDF-GHJK", "bcdfghjk", "bcdf-ghjk"] {
            assert_eq!(pairing_code(typed).as_deref(), Some("BCDFGHJK"));
        }
        for typed in ["ABCDFGHJ", "BCDF-GHJ", "BCDFGHJKL", "", "ÄBCDFGHJ"] {
            assert_eq!(pairing_code(typed), None, "{typed}");
        }
    }
}
