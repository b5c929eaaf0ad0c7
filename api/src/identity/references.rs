//! Reference photos as they come: looked at before they are kept, so that nobody is compared with a
//! picture that can't be compared with.

use punchtrail_domain::policy::is_language;
use punchtrail_infra::photos::loose;
use punchtrail_protocol::{DeviceId, Digest, wire::NOTICE_CHARS_MAX};
use punchtrail_vision::{Floors, Picture};

use super::pictures::no_picture;
use crate::{
    problem::{Code, Refusal},
    state::App,
};

/// Checks what a person is said to have read.
///
/// # Errors
/// Names the field at fault.
pub fn check_notice(notice: &str, language: &str) -> Result<(), Refusal> {
    let length = notice.chars().count();
    if !(1..=NOTICE_CHARS_MAX).contains(&length) || notice.chars().any(char::is_control) {
        let what = "`notice` names the version that was read, in 1 to 32 characters.";
        return Err(Refusal::field("/notice", "invalid_value", what));
    }
    if !is_language(language) {
        let what = "`language` is a tag of BCP 47 like `de` or `pt-BR`.";
        return Err(Refusal::field("/language", "invalid_value", what));
    }
    Ok(())
}

/// Keeps a reference photo, if it can be compared with.
///
/// # Errors
/// When the bytes are another photo's, no picture, or show no single face that can be compared.
pub async fn keep(app: &App, photo: Digest, bytes: Vec<u8>) -> Result<(), Refusal> {
    if Digest::of(&bytes) != photo {
        return Err(Refusal::another_digest());
    }
    check(app, bytes.clone()).await?;
    // Before it is kept: one that is then not enrolled goes as a photo of no punch does.
    loose::note(app.ledger.pool(), photo, DeviceId::NIL, bytes.len() as u64).await?;
    let kept = app.photos.put(photo, &bytes).await;
    kept.map(drop).map_err(|error| Refusal::photo_not_kept(&error))
}

/// That a picture shows one face that can be compared with. Without models only that it is a
/// picture can be known.
///
/// # Errors
/// When it doesn't, with what to do about it.
pub async fn check(app: &App, bytes: Vec<u8>) -> Result<(), Refusal> {
    let models = app.models.clone();
    let looked = app.on_a_core(move || {
        let picture = Picture::decode(&bytes)?;
        Ok(models.map(|models| models.look(&picture, &Floors::default(), true).guidance))
    });
    let guidance = looked.await?.map_err(|error| no_picture(&error))?.unwrap_or_default();
    match guidance.first() {
        None => Ok(()),
        Some(first) => Err(Refusal::new(
            Code::Invalid,
            format!(
                "This picture can't be compared with: {}. Nothing was kept; take another one.",
                first.text(punchtrail_protocol::guidance::Language::English)
            ),
        )),
    }
}
