//! Reference photos taken at a kiosk, while somebody with the right looks on.

use std::time::Duration;

use axum::{Json as Answer, extract::State};
use punchtrail_domain::employee::{Consent, EmployeeCommand, Supervised};
use punchtrail_infra::people::faces::{self, EnrolError};
use punchtrail_protocol::{
    EmployeeId, SiteId,
    wire::{REFERENCES_MAX, ReferencesAnswer, ReferencesRequest, pairing_code},
};

use crate::{
    ask::extract::{InPath, Json},
    auth::ReadingDevice,
    identity::references,
    problem::{Code, Refusal},
    state::App,
};

/// Takes consent and reference photos by a code that a person with the right made. The photos were
/// put before.
#[utoipa::path(
    post, path = "/v1/sites/{site}/employees/{employee}/references", tag = "sync",
    operation_id = "deliverFaceReferences",
    params(("site" = SiteId, Path, description = "The device's site"),
        ("employee" = EmployeeId, Path, description = "Whose they are")),
    request_body = ReferencesRequest, responses((status = 200, body = ReferencesAnswer)),
    security(("device_token" = [])),
)]
pub async fn take(
    State(app): State<App>,
    device: ReadingDevice,
    InPath((site, employee)): InPath<(SiteId, EmployeeId)>,
    Json(asked): Json<ReferencesRequest>,
) -> Result<Answer<ReferencesAnswer>, Refusal> {
    device.serves(site)?;
    references::check_notice(&asked.notice, &asked.language)?;
    let mut photos = asked.photos.clone();
    photos.sort_unstable();
    photos.dedup();
    if photos.len() != asked.photos.len() || !(1..=REFERENCES_MAX).contains(&photos.len()) {
        let what = "`photos` has 1 to 8 digests, no two alike.";
        return Err(Refusal::field("/photos", "invalid_value", what));
    }
    let code = pairing_code(&asked.code).ok_or_else(invalid_code)?;
    // Nobody waits for a turn here: a permit is held.
    let turn = tokio::time::timeout(Duration::ZERO, app.wrong_references.turn(device.id()));
    let turn = turn.await.map_err(|_| guessed_too_often())?;
    if !faces::opens(app.ledger.pool(), &code, employee).await? {
        turn.failed();
        return Err(invalid_code());
    }
    for photo in &asked.photos {
        let read = app.photos.read(photo).await.map_err(|error| {
            Refusal::photo_store(&error, "The photos can't be read now. Ask again.")
        })?;
        let Some(bytes) = read else {
            let what = "A photo isn't here. Put it first, then ask again.";
            return Err(Refusal::field("/photos", "invalid_value", what));
        };
        references::check(&app, bytes).await?;
    }
    let place = Supervised::Kiosk { device: device.id() };
    let given_at = asked.given_at.min(app.ledger.now());
    let consent = Consent { notice: asked.notice, language: asked.language, given_at, place };
    let command =
        EmployeeCommand::EnrolReferences { consent: Some(consent), photos: asked.photos, place };
    let enrolled = faces::enrol_at_kiosk(&app.ledger, device.id(), employee, &code, command);
    let done = enrolled.await.map_err(refusal)?;
    let held = done.aggregate.biometrics().references().len();
    Ok(Answer(ReferencesAnswer { employee, references: u32::try_from(held).unwrap_or(u32::MAX) }))
}

fn refusal(error: EnrolError) -> Refusal {
    match error {
        EnrolError::CodeInvalid => invalid_code(),
        EnrolError::Ledger(error) => error.into(),
        EnrolError::Database(error) => error.into(),
    }
}

fn guessed_too_often() -> Refusal {
    Refusal::new(
        Code::QuotaExceeded,
        "Too many wrong codes came from this device. Wait a minute and try again.",
    )
    .to_be_retried()
}

fn invalid_code() -> Refusal {
    Refusal::new(
        Code::PairingCodeInvalid,
        "The code is wrong, used, expired, or another person's. Nothing was taken; ask whoever \
         made it for a new one.",
    )
}
