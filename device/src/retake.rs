//! Another picture for a punch that stands already: an attachment, signed like the capture.
//!
//! Record and picture are committed in one transaction that syncs, and only then does the caller
//! hear of it. Nothing here touches the capture: whatever becomes of a retake, the punch stands as
//! it was. Every attempt is kept.

use std::{fmt, str::FromStr};

use punchtrail_protocol::{
    Digest, PunchId, Time,
    attachment::{ATTEMPTS_MAX, Attachment},
    guidance::Guidance,
    id::InvalidId,
    signing::{ATTACHMENT_TYPE, sign},
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    APP,
    device::Device,
    frame::{BadPhoto, Frame},
    glance,
    store::{
        Db, StoreError, attachments,
        identity::{self, Identity},
        outbox::{self, Found},
    },
};

/// Which punch is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one captured last by this device.
    Last,
    Punch(PunchId),
}

impl FromStr for Which {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text == "last" { Ok(Self::Last) } else { text.parse().map(Self::Punch) }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("the last punch"),
            Self::Punch(punch) => write!(f, "punch {punch}"),
        }
    }
}

/// A retake that is on disk.
#[derive(Debug, Clone, Serialize)]
pub struct Retaken {
    pub punch: PunchId,
    /// 1 for the first after the capture's own frame.
    pub attempt: u32,
    /// When, by this device's clock.
    pub taken_at: Time,
    pub photo: Digest,
    /// How many more are taken of this punch.
    pub attempts_left: u32,
    /// What the worker can do about this picture, by a glance on the device.
    pub guidance: Vec<Guidance>,
}

/// Why a retake wasn't kept. The punch stands in any of these cases, and the text says so.
#[derive(Debug, thiserror::Error)]
pub enum RetakeError {
    /// Never captured here, or forgotten since.
    #[error(
        "this device holds no such punch ({0}). Nothing was kept. A picture can be added only \
         where the punch was made, and until it is forgotten there"
    )]
    UnknownPunch(Which),
    /// A picture that isn't taken.
    #[error("{0}. The punch stands without this picture; take another")]
    BadPhoto(#[from] BadPhoto),
    #[error(
        "this punch has {ATTEMPTS_MAX} further pictures already. It stands; a manager will look at \
         them"
    )]
    TooMany,
    #[error(
        "this device's disk is full. The punch stands, without this picture; whoever looks after \
         this device frees space on its disk"
    )]
    DiskFull,
    /// The store refused otherwise.
    #[error("{0}. The punch stands, without this picture; try again")]
    Store(StoreError),
}

impl From<StoreError> for RetakeError {
    fn from(error: StoreError) -> Self {
        if error.is_full() { Self::DiskFull } else { Self::Store(error) }
    }
}

impl RetakeError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownPunch(_) => "unknown_punch",
            Self::BadPhoto(_) => "bad_photo",
            Self::TooMany => "too_many_attempts",
            Self::DiskFull => "disk_full",
            Self::Store(_) => "store",
        }
    }
}

impl Device {
    /// Keeps another picture for a punch made here. When this returns, it is on disk.
    ///
    /// # Errors
    /// With nothing kept; the punch stands.
    pub async fn retake(
        &self,
        which: Which,
        photo: Zeroizing<Vec<u8>>,
    ) -> Result<Retaken, RetakeError> {
        let moment = self.now();
        let frame = Frame::of(photo)?;
        let seen = self.options.glance.as_ref().map(|_| frame.bytes.clone());

        let mut write = self.store.write().await?;
        let (identity, found) =
            whose(&mut write, which).await?.ok_or(RetakeError::UnknownPunch(which))?;
        let before = attachments::attempts(&mut write, identity.id, found.punch).await?;
        if before.last >= ATTEMPTS_MAX {
            return Err(RetakeError::TooMany);
        }
        let record = Attachment {
            v: 1,
            punch: found.punch,
            device: identity.device,
            photo: frame.digest,
            attempt: before.last + 1,
            taken_at: moment.time,
            app: APP.to_owned(),
        };
        let bytes = record.to_bytes();
        // What this device makes, every server must be able to read.
        if Attachment::parse(&bytes).as_ref() != Ok(&record) {
            return Err(StoreError::unreadable("the attachment just made").into());
        }
        let signature = sign(&identity.key, ATTACHMENT_TYPE, &bytes);
        self.keep(&mut write, identity.id, frame).await?;
        attachments::add(&mut write, identity.id, &record, &bytes, signature).await?;
        write.commit().await.map_err(StoreError::from)?;
        let Attachment { punch, device, attempt, taken_at, photo, .. } = record;
        tracing::info!(%punch, %device, attempt, "another picture kept");
        let guidance = glance::guidance(self.options.glance.as_ref(), seen).await;
        Ok(Retaken {
            punch,
            attempt,
            taken_at,
            photo,
            attempts_left: ATTEMPTS_MAX - attempt,
            guidance,
        })
    }
}

/// The punch that is meant, and who captured it; none if it isn't held here.
pub(crate) async fn whose(
    db: Db<'_>,
    which: Which,
) -> Result<Option<(Identity, Found)>, StoreError> {
    let found = match which {
        Which::Punch(punch) => outbox::find(&mut *db, punch).await?,
        Which::Last => match identity::current(&mut *db).await? {
            Some(current) => outbox::last(&mut *db, current.id).await?,
            None => None,
        },
    };
    let Some(found) = found else { return Ok(None) };
    Ok(identity::by_id(db, found.identity).await?.map(|identity| (identity, found)))
}
