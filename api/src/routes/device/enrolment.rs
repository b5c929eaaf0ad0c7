//! Enrolment of devices.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_infra::devices::enrolment::{self, Enrolment, EnrolmentError};
use punchtrail_protocol::{
    capture::APP_CHARS_MAX,
    signing::{ENROLMENT_TYPE, KeyError, PublicKey, Signature, from_base64url},
    wire::{EnrollRequest, Enrolled, pairing_code},
};

use crate::{
    ask::{extract::Json, limits::DEVICE_NAME_CHARS_MAX},
    problem::{Code, Refusal},
    state::App,
};

/// Enrols a device by a pairing code and the proof that it holds its key. The token is shown this
/// once.
#[utoipa::path(
    post, path = "/v1/devices/enroll", tag = "devices",
    request_body = EnrollRequest, responses((status = 201, body = Enrolled)),
)]
pub async fn enroll(
    State(app): State<App>,
    Json(asked): Json<EnrollRequest>,
) -> Result<(StatusCode, Answer<Enrolled>), Refusal> {
    within_quota(&app)?;
    let enrolment = checked(asked).inspect_err(|refusal| count_failure(&app, refusal))?;
    let org = app.deployment.org;
    let device = enrolment::enroll(&app.ledger, org, enrolment)
        .await
        .map_err(Refusal::from)
        .inspect_err(|refusal| count_failure(&app, refusal))?;
    tracing::info!(device = %device.device, site = %device.site, "a device was enrolled");
    let answer = Enrolled {
        device: device.device,
        org,
        site: device.site,
        token: device.token.reveal().to_owned(),
        server_time: jiff::Timestamp::now().into(),
    };
    Ok((StatusCode::CREATED, Answer(answer)))
}

fn within_quota(app: &App) -> Result<(), Refusal> {
    match app.failed_enrolments.used_up_for_s() {
        None => Ok(()),
        Some(seconds) => Err(Refusal::new(
            Code::QuotaExceeded,
            "Too many enrolments have failed here lately. Wait a minute and try again.",
        )
        .retried_after(seconds)),
    }
}

fn count_failure(app: &App, refusal: &Refusal) {
    if refusal.code() == Code::PairingCodeInvalid {
        app.failed_enrolments.count();
    }
}

fn checked(asked: EnrollRequest) -> Result<Enrolment, Refusal> {
    let wrong =
        |pointer: &str, detail: &'static str| Refusal::field(pointer, "invalid_value", detail);
    let name_chars = asked.name.chars().count();
    if name_chars == 0 || name_chars > DEVICE_NAME_CHARS_MAX {
        return Err(wrong("/name", "`name` has 1 to 64 characters."));
    }
    if asked.app.chars().count() > APP_CHARS_MAX {
        return Err(wrong("/app", "`app` has at most 64 characters."));
    }
    let bytes = from_base64url(&asked.public_key).ok_or(KeyError::Invalid);
    let key = bytes.and_then(|bytes| PublicKey::from_bytes(&bytes)).map_err(|error| {
        Refusal::field("/public_key", "invalid_key", format!("The key can't be taken: {error}."))
    })?;
    let proof = from_base64url(&asked.proof)
        .map(Signature)
        .ok_or_else(|| wrong("/proof", "`proof` is 64 bytes in base64url without padding."))?;
    let code = pairing_code(&asked.code).ok_or_else(invalid_code)?;
    key.verify(ENROLMENT_TYPE, code.as_bytes(), &proof).map_err(|_| {
        Refusal::field("/proof", "bad_signature", "`proof` does not sign this code by this key.")
    })?;
    Ok(Enrolment { code, name: asked.name, key, app: asked.app })
}

fn invalid_code() -> Refusal {
    Refusal::new(
        Code::PairingCodeInvalid,
        "The code is wrong, used or expired. A code is good for one device and ten minutes; ask \
         for a new one.",
    )
}

impl From<EnrolmentError> for Refusal {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::CodeInvalid => invalid_code(),
            EnrolmentError::Ledger(error) => error.into(),
            EnrolmentError::Database(error) => error.into(),
        }
    }
}
