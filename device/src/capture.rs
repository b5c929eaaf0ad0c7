//! The moment of a punch.
//!
//! The photo's bytes are synced first; then capture, chain head and outbox row are committed in one
//! transaction that syncs; only then does the caller hear of it, and the screen may confirm.
//! Whatever fails before leaves nothing, and the worker is told so. No network has a part in this.

use punchtrail_protocol::{
    Digest, EmployeeId, PunchId, Time,
    capture::{BADGE_CHARS_MAX, Capture, IdentifiedBy, PunchKind},
    guidance::Guidance,
    signing::{CAPTURE_TYPE, sign},
    spelling::normal,
    wire::DevicePolicy,
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    APP,
    clock::Moment,
    device::{Device, is_offline},
    frame::{BadPhoto, Frame},
    glance,
    pin::{self, GUESS_WINDOW_MS, Look, Pin},
    store::{
        StoreError, Write, contact,
        identity::{self, Identity},
        outbox::{self, Signed},
        roster::{self, Person},
    },
};

/// What a worker did at the door.
#[derive(Debug, Clone)]
pub struct Press {
    pub badge: String,
    pub kind: PunchKind,
    /// The PIN, if one was typed.
    pub pin: Option<Pin>,
    /// The first frame, JPEG or PNG, if one was taken.
    pub photo: Option<Zeroizing<Vec<u8>>>,
}

/// What the screen says about the PIN when the punch stands without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// Nobody on the manifest has this badge, or several do: a person will look at it.
    UnknownBadge,
    /// A PIN was typed, but the manifest has none that this device can check.
    PinNotChecked,
}

/// A punch that is on disk.
#[derive(Debug, Clone, Serialize)]
pub struct Confirmation {
    pub punch: PunchId,
    /// Its number on this device.
    pub seq: u64,
    pub kind: PunchKind,
    /// When, by this device's clock.
    pub captured_at: Time,
    /// The same as people here read it: wall clock, to the second.
    pub local_time: String,
    /// Who, if the manifest knows.
    pub employee: Option<EmployeeId>,
    pub name: Option<String>,
    /// The badge, if the manifest doesn't know it.
    pub badge: Option<String>,
    pub identified_by: IdentifiedBy,
    pub photo: Option<Digest>,
    /// Whether the server was out of reach.
    pub offline: bool,
    pub notice: Option<Notice>,
    /// Whether the server looks at pictures of this worker.
    pub face: bool,
    /// What the worker can do about the picture, by a glance on the device.
    pub guidance: Vec<Guidance>,
}

/// Why a punch wasn't recorded. Nothing is kept in any of these cases, and the text says so.
#[derive(Debug, thiserror::Error)]
pub enum PunchError {
    #[error(
        "this device is not enrolled, so nothing was recorded. Run `punchtrail-device enroll` \
         with a pairing code, then punch again"
    )]
    NotEnrolled,
    /// A badge that can't be one.
    #[error(
        "a badge has 1 to {BADGE_CHARS_MAX} characters. Nothing was recorded; read the badge again"
    )]
    BadBadge,
    #[error(
        "the PIN is not right. Nothing was recorded: try again, or punch by badge without the PIN"
    )]
    WrongPin,
    #[error(
        "too many wrong PINs. Nothing was recorded. Punch by badge without the PIN now, or try \
         the PIN again in {} minutes", GUESS_WINDOW_MS / 60_000
    )]
    PinThrottled,
    /// A photo that isn't taken.
    #[error("{0}. Nothing was recorded; take another, or punch without a photo")]
    BadPhoto(#[from] BadPhoto),
    /// The device was enrolled anew between two looks.
    #[error("this device was enrolled anew at this very moment. Nothing was recorded; punch again")]
    EnrolledMeanwhile,
    #[error(
        "NOT RECORDED: this device's disk is full. Nothing of this punch was kept; all earlier \
         ones are \
         safe. Punch on another device or tell your manager; whoever looks after this device \
         frees space \
         on its disk"
    )]
    DiskFull,
    /// The database can't be relied on.
    #[error(
        "NOT RECORDED: this device's database is damaged. Nothing of this punch was kept. Punch on \
         another device and tell your manager; whoever looks after this device runs \
         `punchtrail-device salvage`"
    )]
    Damaged,
    /// A salvage ended this device's chain.
    #[error(
        "NOT RECORDED: this device's database was damaged, and what could be read of it was saved. \
         It punches again once it is enrolled anew, with a pairing code. Punch on another device \
         until then"
    )]
    Ended,
    /// The store refused otherwise.
    #[error(
        "NOT RECORDED: {0}. Nothing of this punch was kept; all earlier ones stand. Punch again, \
         and if that fails, on another device"
    )]
    Store(StoreError),
}

impl From<StoreError> for PunchError {
    fn from(error: StoreError) -> Self {
        match error {
            error if error.is_full() => Self::DiskFull,
            StoreError::Damaged(_) | StoreError::SalvageBegun => Self::Damaged,
            error => Self::Store(error),
        }
    }
}

impl PunchError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotEnrolled => "not_enrolled",
            Self::BadBadge => "bad_badge",
            Self::WrongPin => "wrong_pin",
            Self::PinThrottled => "pin_throttled",
            Self::BadPhoto(_) => "bad_photo",
            Self::EnrolledMeanwhile => "enrolled_meanwhile",
            Self::DiskFull => "disk_full",
            Self::Damaged => "damaged",
            Self::Ended => "ended",
            Self::Store(_) => "store",
        }
    }
}

/// Who punched, as far as the device can tell.
struct Who {
    person: Option<Person>,
    identified_by: IdentifiedBy,
    notice: Option<Notice>,
}

impl Device {
    /// Records a punch. When this returns a confirmation, the punch is on disk.
    ///
    /// # Errors
    /// With nothing kept.
    pub async fn punch(&self, press: Press) -> Result<Confirmation, PunchError> {
        let moment = self.now();
        let badge = as_read(&press.badge).ok_or(PunchError::BadBadge)?;
        let frame = press.photo.map(Frame::of).transpose()?;
        let identity = self.identity().await?.ok_or(PunchError::NotEnrolled)?;
        let who = self.who(&identity, &badge, press.pin, &moment).await?;

        let mut write = self.store.write().await?;
        // Read anew: the number before this one may have been taken since.
        let now = identity::current(&mut write).await?.ok_or(PunchError::NotEnrolled)?;
        if now.id != identity.id {
            return Err(PunchError::EnrolledMeanwhile);
        }
        if now.ended {
            return Err(PunchError::Ended);
        }
        let unknown = who.person.is_none().then_some(badge);
        let capture = self
            .capture(&mut write, &now, &moment, press.kind, &who, unknown, frame.as_ref())
            .await?;
        let face = who.person.as_ref().is_some_and(|person| person.face);
        let glance = self.options.glance.as_ref().filter(|_| face);
        let seen = glance.and(frame.as_ref()).map(|frame| frame.bytes.clone());
        if let Some(frame) = frame {
            self.keep(&mut write, now.id, frame).await?;
        }
        let signed = signed(&now, capture)?;
        record(&mut write, &now, std::slice::from_ref(&signed)).await?;
        write.commit().await.map_err(StoreError::from)?;
        let capture = signed.capture;
        let (punch, device, seq) = (capture.punch, capture.device, capture.seq);
        tracing::info!(%punch, %device, seq, "captured");
        // Only now: nothing that is seen can undo the punch.
        let guidance = glance::guidance(glance, seen).await;
        Ok(confirmation(capture, who, guidance))
    }

    async fn who(
        &self,
        identity: &Identity,
        badge: &str,
        pin: Option<Pin>,
        moment: &Moment,
    ) -> Result<Who, PunchError> {
        let person = roster::by_badge(&mut *self.store.read().await?, identity.id, badge).await?;
        let by_badge = |person, notice| Who { person, identified_by: IdentifiedBy::Badge, notice };
        let Some(known) = person else { return Ok(by_badge(None, Some(Notice::UnknownBadge))) };
        let Some(pin) = pin else { return Ok(by_badge(Some(known), None)) };
        let Some(phc) = known.pin_phc.clone() else {
            return Ok(by_badge(Some(known), Some(Notice::PinNotChecked)));
        };
        match pin::look(&self.store, known.employee, pin, phc, moment).await? {
            Look::Right => {
                Ok(Who { person: Some(known), identified_by: IdentifiedBy::Pin, notice: None })
            }
            Look::Unreadable => Ok(by_badge(Some(known), Some(Notice::PinNotChecked))),
            Look::Wrong => Err(PunchError::WrongPin),
            Look::Throttled => Err(PunchError::PinThrottled),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is a field's source; a struct would only rename them"
    )]
    async fn capture(
        &self,
        write: &mut Write,
        identity: &Identity,
        moment: &Moment,
        kind: PunchKind,
        who: &Who,
        badge: Option<String>,
        frame: Option<&Frame>,
    ) -> Result<Capture, StoreError> {
        let contact = contact::of(write, identity.id).await?;
        let heartbeat_s = contact
            .policy
            .as_ref()
            .map_or_else(|| DevicePolicy::default().heartbeat_s, |policy| policy.heartbeat_s);
        Ok(Capture {
            v: 1,
            punch: self.punch_id(moment.time),
            org: identity.org,
            site: identity.site,
            device: identity.device,
            employee: who.person.as_ref().map(|person| person.employee),
            badge,
            kind,
            captured_at: moment.time,
            utc_offset_s: moment.utc_offset_s,
            tz: moment.tz.clone(),
            seq: identity.seq + 1,
            prev: identity.head,
            boot: moment.boot,
            uptime_ms: moment.uptime_ms,
            identified_by: who.identified_by,
            photo: frame.map(|frame| frame.digest),
            offline: is_offline(&contact, heartbeat_s, moment),
            app: APP.to_owned(),
        })
    }

    /// An id for a punch at `at`: unguessable, and in the order of time.
    pub fn punch_id(&self, at: Time) -> PunchId {
        PunchId(self.id_at(at))
    }
}

/// The capture's bytes, signed. No bytes of it are ever made again.
///
/// # Errors
/// When no server could read them.
pub fn signed(identity: &Identity, capture: Capture) -> Result<Signed, StoreError> {
    let bytes = capture.to_bytes();
    // What this device makes, every server must be able to read; a bug here must not reach the
    // chain.
    if Capture::parse(&bytes).as_ref() != Ok(&capture) {
        return Err(StoreError::unreadable("the capture just made"));
    }
    let signature = sign(&identity.key, CAPTURE_TYPE, &bytes);
    Ok(Signed { capture, bytes, signature })
}

/// Puts captures that follow one another at the end of the chain and into the outbox.
///
/// # Errors
/// When the store refuses, or the chain doesn't end where they begin.
pub async fn record(
    write: &mut Write,
    identity: &Identity,
    captures: &[Signed],
) -> Result<(), StoreError> {
    let Some(last) = captures.last() else { return Ok(()) };
    outbox::add(write, identity.id, captures).await?;
    let (count, head) = (captures.len() as u64, Digest::of(&last.bytes));
    identity::advance(write, identity.id, count, last.capture.seq, head).await
}

/// A badge as read, without the blanks around it; none if it can't be one. A reader that takes
/// letters and marks apart may give more characters than the badge has: then its normal form.
fn as_read(typed: &str) -> Option<String> {
    let badge = typed.trim();
    if badge.is_empty() || badge.contains('\0') {
        return None;
    }
    let fits = |badge: &str| badge.chars().count() <= BADGE_CHARS_MAX;
    if fits(badge) {
        return Some(badge.to_owned());
    }
    // Nothing shrinks to less than a quarter, and what is longer isn't worth the work.
    let spelled = (badge.len() <= 16 * BADGE_CHARS_MAX).then(|| normal(badge))?;
    fits(&spelled).then_some(spelled)
}

fn confirmation(capture: Capture, who: Who, guidance: Vec<Guidance>) -> Confirmation {
    let local = capture.captured_at.plus_millis(i64::from(capture.utc_offset_s) * 1_000);
    Confirmation {
        punch: capture.punch,
        seq: capture.seq,
        kind: capture.kind,
        captured_at: capture.captured_at,
        local_time: local.to_string().get(11..19).unwrap_or_default().to_owned(),
        employee: capture.employee,
        face: who.person.as_ref().is_some_and(|person| person.face),
        name: who.person.map(|person| person.name),
        badge: capture.badge,
        identified_by: capture.identified_by,
        photo: capture.photo,
        offline: capture.offline,
        notice: who.notice,
        guidance,
    }
}
