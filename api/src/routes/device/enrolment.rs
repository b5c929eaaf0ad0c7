//! Enrolment of devices.

use std::net::IpAddr;

use axum::{
    Json as Answer,
    extract::{Request, State},
    http::StatusCode,
};
use punchtrail_infra::devices::enrolment::{
    self, Certified, Comeback, EnrolledDevice, Enrolment, EnrolmentError,
};
use punchtrail_protocol::{
    capture::APP_CHARS_MAX,
    signing::{ENROLMENT_TYPE, KeyError, PublicKey, RETURN_TYPE, Signature, from_base64url},
    wire::{CERTIFICATE_CHARS_MAX, EnrollRequest, Enrolled, ReturnRequest, Returned, pairing_code},
};

use super::history;
use crate::{
    ask::{
        extract::{Coming, read_json, read_json_body},
        limits::DEVICE_NAME_CHARS_MAX,
    },
    door::{
        gate::Standing,
        limits::{SPACE_LETTERS, STRANGERS_BODY_BYTES_MAX, TRY_WAIT_MAX},
        throttle::Turn,
        waiters::Place,
    },
    problem::{Code, Refusal},
    seal,
    state::App,
};

/// What a certificate is sealed for.
const CERTIFICATE: &str = "punchtrail.certificate.v1";

/// Enrols a device by a pairing code and the proof that it holds its key. The token is shown this
/// once.
#[utoipa::path(
    post, path = "/v1/devices/enroll", tag = "devices",
    operation_id = "enrollDevice",
    request_body = EnrollRequest, responses((status = 201, body = Enrolled)),
)]
pub async fn enroll(
    State(app): State<App>,
    request: Request,
) -> Result<(StatusCode, Answer<Enrolled>), Refusal> {
    let place = app.door.place_of(&request);
    let Coming { body, admitted } = read_json_body(&app, request, STRANGERS_BODY_BYTES_MAX).await?;
    let enrolment = checked(read_json(body.bytes())?)?;
    let turns = Turns::take(&app, place, &enrolment.code).await?;
    admitted.wait_for_permit().await?;
    let org = app.deployment.org;
    let device = match enrolment::enroll(&app.ledger, org, enrolment).await {
        Err(EnrolmentError::CodeInvalid) => {
            turns.failed();
            return Err(invalid_code());
        }
        enrolled => enrolled?,
    };
    app.door.gate.found(device.token.reveal(), Some(Standing::Known));
    tracing::info!(device = %device.device, site = %device.site, "a device was enrolled");
    let answer = Enrolled {
        device: device.device,
        org,
        site: device.site,
        token: device.token.reveal().to_owned(),
        server_time: app.ledger.now(),
        certificate: Some(certificate(&app, &device)?),
        history: Some(history::told(&app)),
        photo_key: Some(app.photo_secret.key().to_string()),
    };
    Ok((StatusCode::CREATED, Answer(answer)))
}

fn certificate(app: &App, device: &EnrolledDevice) -> Result<String, Refusal> {
    let content = serde_json::to_vec(&device.certified()).map_err(|_| Refusal::internal())?;
    Ok(seal::seal(&app.deployment, CERTIFICATE, &content))
}

/// Takes a device back that this server enrolled and, since its database went back to before that,
/// doesn't know. Its token is good again. One that is known is left as it is.
#[utoipa::path(
    post, path = "/v1/devices/return", tag = "devices",
    operation_id = "returnDevice",
    request_body = ReturnRequest, responses((status = 200, body = Returned)),
)]
pub async fn come_back(
    State(app): State<App>,
    request: Request,
) -> Result<Answer<Returned>, Refusal> {
    let Coming { body, admitted } = read_json_body(&app, request, STRANGERS_BODY_BYTES_MAX).await?;
    admitted.wait_for_permit().await?;
    let asked: ReturnRequest = read_json(body.bytes())?;
    let certified = proven(&app, &asked)?;
    let device = certified.device;
    match enrolment::come_back(&app.ledger, app.deployment.org, certified).await? {
        Comeback::Taken => tracing::warn!(
            %device,
            "a device came back that was enrolled before the database went back, and isn't known: \
             it is taken again as it was enrolled"
        ),
        Comeback::Known => {}
        Comeback::Revoked => {
            return Err(Refusal::new(
                Code::DeviceRevoked,
                "This device was revoked. What it holds it may still deliver by its token.",
            ));
        }
    }
    Ok(Answer(Returned { device, server_time: app.ledger.now() }))
}

/// What is certified, by the server that sealed it and the device whose key signs it.
fn proven(app: &App, asked: &ReturnRequest) -> Result<Certified, Refusal> {
    let unknown = || {
        Refusal::new(
            Code::Forbidden,
            "This is no certificate of this server. Enrol the device anew with a pairing code; \
             what it holds stays in its folder and is delivered by its old identity when that is \
             known again.",
        )
    };
    if asked.certificate.len() > CERTIFICATE_CHARS_MAX {
        return Err(unknown());
    }
    let content = seal::open(&app.deployment, CERTIFICATE, &asked.certificate);
    let certified: Certified =
        content.and_then(|content| serde_json::from_slice(&content).ok()).ok_or_else(unknown)?;
    let proof = from_base64url(&asked.proof).map(Signature).ok_or_else(|| {
        Refusal::field("/proof", "invalid_value", "`proof` is 64 bytes in base64url.")
    })?;
    certified.key.verify(RETURN_TYPE, asked.certificate.as_bytes(), &proof).map_err(|_| {
        Refusal::field(
            "/proof",
            "bad_signature",
            "`proof` does not sign this certificate by the enrolled key.",
        )
    })?;
    Ok(certified)
}

/// Leave to try a code: of where it comes from, and of those that begin like it.
struct Turns(Turn<IpAddr>, Turn<String>);

impl Turns {
    /// Waits for them if need be, in the line of its origin.
    async fn take(app: &App, place: Place, code: &str) -> Result<Self, Refusal> {
        let far = || {
            Refusal::new(
                Code::QuotaExceeded,
                "Too many wrong codes came from there or began like this one. Wait a moment and \
                 try again; a new code may begin otherwise.",
            )
            .to_be_retried()
        };
        let waiting = async {
            let mut waiter = app.tries.join(place)?;
            let first = waiter.is_in_front().await;
            let space: String = code.chars().take(SPACE_LETTERS).collect();
            let of_space = app.wrong_in_space.turn(space).await;
            let of_origin = app.wrong_codes.turn(place.0).await;
            first.then_some(Self(of_origin, of_space))
        };
        tokio::time::timeout(TRY_WAIT_MAX, waiting).await.ok().flatten().ok_or_else(far)
    }

    fn failed(self) {
        self.0.failed();
        self.1.failed();
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
