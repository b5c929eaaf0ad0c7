//! Reference pictures: what a worker's face is compared with, taken at the device while somebody
//! with the right stands by, after the worker was shown the notice and agreed.
//!
//! Online only: the code of who stands by is good once and for ten minutes. Nothing of it is ever
//! written to this device's disk.

use std::collections::BTreeSet;

use punchtrail_protocol::{
    EmployeeId,
    sealed_photo::{SEALED_PHOTO_TYPE, seal},
    wire::{
        LANGUAGE_CHARS_MAX, NOTICE_CHARS_MAX, REFERENCES_MAX, ReferencesAnswer, ReferencesRequest,
        pairing_code,
    },
};
use zeroize::Zeroizing;

use crate::{
    client::{AddressError, CallError, Server},
    device::Device,
    frame::{BadPhoto, Frame},
    store::{StoreError, contact},
};

/// What is enrolled.
#[derive(Debug, Clone)]
pub struct Reference {
    pub employee: EmployeeId,
    /// The code of who stands by.
    pub code: String,
    /// JPEG or PNG, one to eight.
    pub photos: Vec<Zeroizing<Vec<u8>>>,
    /// Which version of the notice the worker was shown.
    pub notice: String,
    /// The language it was shown in, a tag of BCP 47.
    pub language: String,
}

/// Why no reference was enrolled. Nothing stays on this device in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error(
        "this device is not enrolled. Run `punchtrail-device enroll` with a pairing code first"
    )]
    NotEnrolled,
    /// A code that can't be one.
    #[error(
        "`{0}` is no code: eight letters of BCDFGHJKLMNPQRSTVWXZ, like BCDF-GHJK. Nothing was sent"
    )]
    BadCode(String),
    /// A picture that isn't taken.
    #[error("{0}. Nothing was sent; take another")]
    BadPhoto(#[from] BadPhoto),
    #[error("1 to {REFERENCES_MAX} pictures are taken, no two alike. Nothing was sent")]
    PhotoCount,
    #[error(
        "a notice's version has 1 to {NOTICE_CHARS_MAX} characters, a language's tag 2 to \
         {LANGUAGE_CHARS_MAX}. Nothing was sent"
    )]
    BadNotice,
    #[error("{0}. Nothing was sent")]
    Address(#[from] AddressError),
    /// The server didn't take it, or can't be reached.
    #[error(
        "not enrolled: {0}. A code works once and for ten minutes; if it was used or its answer \
         got lost, look whether the worker has references now, or ask for another code"
    )]
    Call(#[from] CallError),
    #[error("{0}. Nothing was sent")]
    Store(#[from] StoreError),
}

impl ReferenceError {
    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            Self::NotEnrolled => "not_enrolled",
            Self::BadCode(_) => "bad_code",
            Self::BadPhoto(_) => "bad_photo",
            Self::PhotoCount => "photo_count",
            Self::BadNotice => "bad_notice",
            Self::Address(_) => "address",
            Self::Call(error) => error.code(),
            Self::Store(_) => "store",
        }
    }
}

impl Device {
    /// Sends pictures that a worker's face is compared with from now on.
    ///
    /// # Errors
    /// With nothing enrolled, as far as is known.
    pub async fn reference(
        &self,
        reference: Reference,
    ) -> Result<ReferencesAnswer, ReferenceError> {
        let Reference { employee, code, photos, notice, language } = reference;
        let code = pairing_code(&code).ok_or(ReferenceError::BadCode(code))?;
        let fits = |text: &str, least, most| (least..=most).contains(&text.chars().count());
        if !fits(&notice, 1, NOTICE_CHARS_MAX) || !fits(&language, 2, LANGUAGE_CHARS_MAX) {
            return Err(ReferenceError::BadNotice);
        }
        let frames = photos.into_iter().map(Frame::of).collect::<Result<Vec<_>, _>>()?;
        let distinct: BTreeSet<_> = frames.iter().map(|frame| frame.digest.0).collect();
        if !(1..=REFERENCES_MAX).contains(&frames.len()) || distinct.len() < frames.len() {
            return Err(ReferenceError::PhotoCount);
        }
        let identity = self.identity().await?.ok_or(ReferenceError::NotEnrolled)?;
        let key = contact::of(&mut *self.store.read().await?, identity.id).await?.photo_key;
        let server = Server::with_patience(&identity.server, self.options.call_ms)?
            .with_token(&identity.token)?;
        let given_at = self.now().time;
        let digests = frames.iter().map(|frame| frame.digest).collect();
        for Frame { digest, media, bytes } in frames {
            let (media, body) = match key {
                None => (media, bytes.to_vec()),
                Some(key) => {
                    let sealed = seal(&key, &bytes).map_err(StoreError::unreadable)?;
                    (SEALED_PHOTO_TYPE, sealed)
                }
            };
            server.put_photo(digest, media, body).await?;
        }
        let request = ReferencesRequest { code, notice, language, given_at, photos: digests };
        Ok(server.references(identity.site, employee, &request).await?)
    }
}
