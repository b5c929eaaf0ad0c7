//! Refusals, as RFC 9457 problems with a stable code.
//!
//! Which one when: [`Code`] lists them all. A handler returns a [`Refusal`]; the envelope around
//! every handler writes it out with the request's id, so there is no refusal without one. What a
//! client sent is never answered with a 5xx; a 5xx says that the server can't now ([`Code::Busy`],
//! [`Code::ReadBehind`]) or is broken ([`Code::Internal`]), and never shows what broke.

use std::{borrow::Cow, io, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use punchtrail_domain::{
    device::DeviceError, dispute::DisputeError, employee::EmployeeError, punch::PunchError,
    quarantine::QuarantineError, site::SiteError,
};
use punchtrail_infra::{
    ledger::{AppendError, ExecuteError, ReadError},
    people::{PeopleError, import::ImportError},
    postgres::{DatabaseError, Trouble},
    rulings::{Fault, RuleError},
};
use punchtrail_protocol::wire::{FieldError, Problem};

/// After how many seconds a busy server asks to be tried again: at least, and at most.
pub const RETRY_AFTER_S: std::ops::RangeInclusive<u64> = 1..=5;
/// Where the page is that a problem's `type` leads to (`crate::problem_page`).
pub const PROBLEMS_PATH: &str = "/docs/problems";
/// The content type of a problem (RFC 9457).
pub const PROBLEM_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $title:literal;)+) => {
        /// Every kind of refusal. Its stable code is its name in snake case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[derive(strum::IntoStaticStr, strum::VariantArray)]
        #[strum(serialize_all = "snake_case")]
        pub enum Code { $($(#[$doc])* $name),+ }

        impl Code {
            /// Its HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),+ }
            }
            /// The stable code.
            pub fn as_str(self) -> &'static str {
                self.into()
            }
            /// The kind in words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

codes! {
    /// The body is no strict JSON.
    MalformedJson = BAD_REQUEST, "The request is not well-formed JSON";
    /// The request broke off or can't be read.
    BadRequest = BAD_REQUEST, "The request can't be read";
    /// A cursor is foreign, altered or outdated.
    CursorInvalid = BAD_REQUEST, "The cursor is not valid here";
    /// No token, or nobody's.
    Unauthenticated = UNAUTHORIZED, "Authentication is needed";
    /// Login, password or code is wrong.
    SignInRefused = UNAUTHORIZED, "That doesn't let you in";
    /// The password is right, and a code is needed.
    SecondFactorNeeded = UNAUTHORIZED, "A code of the second factor is needed";
    /// The role needs a second factor that wasn't set yet.
    SecondFactorRequired = FORBIDDEN, "A second factor has to be set first";
    /// A browser asks on another page's behalf.
    CrossOrigin = FORBIDDEN, "This came from another page";
    /// A sign-in by a provider isn't this browser's, was used or took too long.
    SignInOver = FORBIDDEN, "This sign-in can't go on";
    /// The link is wrong, used, void or expired.
    LinkInvalid = FORBIDDEN, "The link is not valid";
    /// The caller may not do this.
    Forbidden = FORBIDDEN, "This is not allowed";
    /// The device's access has ended.
    DeviceRevoked = FORBIDDEN, "The device was revoked";
    /// The pairing code is wrong, used or expired.
    PairingCodeInvalid = FORBIDDEN, "The pairing code is not valid";
    /// There is no such thing, or the caller may not know of it.
    NotFound = NOT_FOUND, "Not found";
    /// The path knows other methods.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The body took too long.
    RequestTimeout = REQUEST_TIMEOUT, "The request took too long";
    /// The roster changed during a walk.
    RosterChanged = CONFLICT, "The roster has changed";
    /// It is about the caller's own, and nobody rules on their own.
    OwnRecord = FORBIDDEN, "Nobody rules on their own";
    /// Somebody ruled after the caller had looked.
    AlreadyRuled = CONFLICT, "Somebody has ruled meanwhile";
    /// More is known than when the caller looked.
    PunchChanged = CONFLICT, "The punch has changed meanwhile";
    /// What stands already contradicts the request.
    Conflict = CONFLICT, "The request contradicts what stands";
    /// Nobody could change anything any more.
    LastAdmin = CONFLICT, "They are the last admin";
    /// Something stands in the way of a person's erasure.
    ErasureRefused = CONFLICT, "The person can't be erased now";
    /// A request with the same idempotency key is at work.
    IdempotencyInFlight = CONFLICT, "A request with this key is at work";
    /// The request was done before, and its answer isn't given again.
    AnswerNotKept = CONFLICT, "The answer was given once";
    /// The idempotency key stands for another request.
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "The key stands for another request";
    /// More than is taken at once.
    PayloadTooLarge = PAYLOAD_TOO_LARGE, "The request is too large";
    /// Another type of content is needed.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "The type of content is not taken here";
    /// A field or parameter is at fault.
    Invalid = UNPROCESSABLE_ENTITY, "The request is not valid";
    /// The signature isn't by the device's key.
    BadSignature = UNPROCESSABLE_ENTITY, "The signature does not verify";
    /// Too much of the device waits in quarantine.
    QuarantineFull = UNPROCESSABLE_ENTITY, "Too much waits in quarantine";
    /// Too many disputes of the person, or from the device, wait.
    DisputesFull = UNPROCESSABLE_ENTITY, "Too many disputes wait";
    /// The bytes are not those that the digest names.
    DigestMismatch = UNPROCESSABLE_ENTITY, "The digest is another one";
    /// The device's last batch is still being taken.
    OneAtATime = TOO_MANY_REQUESTS, "One batch at a time";
    /// Too many requests of this kind.
    QuotaExceeded = TOO_MANY_REQUESTS, "Too many requests";
    /// The server is broken.
    Internal = INTERNAL_SERVER_ERROR, "The server failed";
    /// The server can't take this now.
    Busy = SERVICE_UNAVAILABLE, "The server is busy";
    /// The provider of sign-ins is away or answers nothing that can be taken.
    ProviderUnavailable = SERVICE_UNAVAILABLE, "The provider can't be asked now";
    /// The read model is not yet where the reader wants it.
    ReadBehind = SERVICE_UNAVAILABLE, "The read side is behind";
}

/// Marks an answer with which its connection ends, to make room.
#[derive(Debug, Clone, Copy)]
pub struct CloseConnection;

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Refusal {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
    closes: bool,
}

impl Refusal {
    /// A refusal; `detail` says what happened, what was kept and what to do.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_s: None, closes: false }
    }

    /// A field is at fault: `pointer` is a JSON pointer, or a parameter's name.
    pub fn field(
        pointer: impl Into<String>,
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        let error = FieldError { pointer: pointer.into(), code: code.to_owned() };
        Self { errors: vec![error], ..Self::new(Code::Invalid, detail) }
    }

    /// No credentials, garbled ones and nobody's are refused alike.
    pub fn unauthenticated() -> Self {
        Self::new(
            Code::Unauthenticated,
            "Send `Authorization: Bearer` with a device's token or an operator's key that is in \
             force, or sign in.",
        )
    }

    /// The request could be read in more than one way; its connection ends.
    pub fn unclear(what: &'static str) -> Self {
        let detail = format!("{what} Nothing of the request was taken; the connection ends.");
        Self { closes: true, ..Self::new(Code::BadRequest, detail) }
    }

    /// The same for everything that isn't there or isn't the caller's.
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "There is nothing here that you may see.")
    }

    /// The server can't now; to be tried again after a while, spread so that not all come at once.
    pub fn busy(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Busy, detail).to_be_retried()
    }

    /// Not let in: to be tried again after `wait`. The connection ends with it, and makes room.
    pub fn shed(wait: Duration) -> Self {
        let refusal = Self::new(
            Code::Busy,
            "More is coming in than can be taken now. Nothing was taken; send it again after the \
             time in Retry-After.",
        );
        Self { closes: true, ..refusal.retried_after(wait.as_secs_f64().ceil() as u64) }
    }

    /// The photo store failed; the log says how, `detail` what can't be done now.
    pub fn photo_store(error: &io::Error, detail: &'static str) -> Self {
        tracing::error!(%error, "the photo store failed");
        Self::busy(detail)
    }

    /// The photo store failed as it was to keep a photo.
    pub fn photo_not_kept(error: &io::Error) -> Self {
        Self::photo_store(error, "The photo can't be kept now. Send it again.")
    }

    /// The bytes of a photo aren't those that were said to come.
    pub fn another_digest() -> Self {
        Self::new(
            Code::DigestMismatch,
            "The bytes that came have another digest. Nothing was kept; send the photo again.",
        )
    }

    /// Broken; the log says what, the client learns only that.
    pub fn internal() -> Self {
        Self::new(
            Code::Internal,
            "The server failed; nothing of this request was acknowledged. The operator finds the \
             reason in the log under this request_id.",
        )
    }

    /// With all that is at fault, or stands in the way.
    #[must_use]
    pub fn because_of(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// With a time to come back.
    #[must_use]
    pub fn to_be_retried(self) -> Self {
        self.retried_after(rand::random_range(RETRY_AFTER_S))
    }

    /// With that time to come back, in seconds.
    #[must_use]
    pub fn retried_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The kind.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What happened, what was kept and what to do.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether its connection ends with it.
    pub fn ends_connection(&self) -> bool {
        self.closes
    }

    /// What it says.
    pub fn problem(&self, request_id: &str) -> Problem {
        Problem {
            kind: format!("{PROBLEMS_PATH}#{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.to_string(),
            code: self.code.as_str().to_owned(),
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
        }
    }

    /// The answer, complete.
    pub fn render(self, request_id: &str) -> Response {
        let problem = self.problem(request_id);
        let mut response = (self.code.status(), Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// What stands for an answer of the framework's own.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(
                Code::MethodNotAllowed,
                "The path is right, the method is not; see Allow.",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(Code::PayloadTooLarge, "The request is larger than what is taken here.")
            }
            status if status.is_client_error() => {
                Self::new(Code::BadRequest, "The request can't be read.")
            }
            _ => Self::internal(),
        }
    }
}

impl IntoResponse for Refusal {
    /// Only the status, and the refusal itself for the envelope to write out.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        if self.closes {
            response.extensions_mut().insert(CloseConnection);
        }
        response.extensions_mut().insert(self);
        response
    }
}

const OUT_OF_REACH: &str =
    "The database is out of reach; nothing of this request was acknowledged. Send it again.";

fn of_database(error: &DatabaseError) -> Refusal {
    match Trouble::of(error) {
        Trouble::Passing => {
            tracing::warn!(%error, "the database is out of reach");
            Refusal::busy(OUT_OF_REACH)
        }
        Trouble::Value => {
            tracing::warn!(%error, "a value the database can't hold came as far as the database");
            Refusal::new(Code::Invalid, "A value is out of the range that can be kept.")
        }
        Trouble::Lasting => {
            tracing::error!(%error, "the database refused a statement");
            Refusal::internal()
        }
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        of_database(&error)
    }
}

impl From<&ReadError> for Refusal {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Database(error) => of_database(error),
            unreadable => {
                tracing::error!(error = %unreadable, "an event can't be read");
                Self::internal()
            }
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::from(&error)
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Busy | AppendError::Stale => Self::busy(
                "More is coming in than can be written now. Nothing was taken; send it again.",
            ),
            AppendError::Stopping => {
                Self::busy("The server is stopping. Nothing was taken; send it again.")
            }
            AppendError::Unavailable(error) => {
                tracing::warn!(%error, "the database is out of reach");
                Self::busy(OUT_OF_REACH)
            }
            AppendError::Unreadable(error) => {
                tracing::error!(%error, "an append rests on an event that can't be read");
                Self::busy(format!(
                    "The event at position {} is newer than this server. Nothing was taken; send \
                     it again once the server was updated.",
                    error.position
                ))
            }
            AppendError::Side(error) => of_database(&error),
            error @ AppendError::TooMuch { .. } => {
                Self::new(Code::PayloadTooLarge, format!("{error}."))
            }
            AppendError::TooLong(bytes) => Self::new(
                Code::PayloadTooLarge,
                format!(
                    "This would be an event of {bytes} bytes; the ledger takes at most 65,535."
                ),
            ),
        }
    }
}

/// What a refused command is over HTTP.
pub trait Refuses: std::error::Error + 'static {
    /// The kind of refusal.
    fn code(&self) -> Code;
}

impl Refuses for PunchError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown => Code::NotFound,
            Self::Voided
            | Self::NoOtherTime
            | Self::NoShift
            | Self::NotJoined
            | Self::Unchanged
            | Self::Exists
            | Self::AttemptTaken
            | Self::NotCaptured => Code::Conflict,
        }
    }
}

impl Refuses for QuarantineError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown => Code::NotFound,
            Self::Admitted | Self::Dismissed | Self::Stands { .. } => Code::Conflict,
        }
    }
}

impl Refuses for DisputeError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown => Code::NotFound,
            Self::CauseDoesNotFit | Self::NoPunch | Self::ByPunch | Self::NoNote => Code::Invalid,
            Self::Exists
            | Self::Resolved
            | Self::NotResolved
            | Self::TooManyAnswers
            | Self::TooManyReopenings => Code::Conflict,
        }
    }
}

impl Refuses for DeviceError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown | Self::NoSuchCommand => Code::NotFound,
            Self::Exists
            | Self::Revoked
            | Self::TooManyCommands(_)
            | Self::OtherResult
            | Self::Settled => Code::Conflict,
        }
    }
}

impl Refuses for SiteError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown => Code::NotFound,
            Self::Exists => Code::Conflict,
            Self::UnknownZone(_) | Self::Policy(_) => Code::Invalid,
        }
    }
}

impl Refuses for EmployeeError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown | Self::NoSuchReference => Code::NotFound,
            Self::Exists
            | Self::Departed
            | Self::NotDeparted
            | Self::ReturnBeforeDeparture
            | Self::DepartureBeforeReturn
            | Self::EndsBeforeItBegan
            | Self::TooManyBadges
            | Self::NoConsent
            | Self::TooManyReferences
            | Self::NoHold
            | Self::Erased => Code::Conflict,
            Self::Held => Code::ErasureRefused,
        }
    }
}

/// An error's message as a sentence.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).chain(['.']).collect()
}

impl<E: Refuses> From<ExecuteError<E>> for Refusal {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Refused(error) => Self::new(error.code(), sentence(&error)),
            ExecuteError::Append(error) => error.into(),
            ExecuteError::Load(error) => error.into(),
        }
    }
}

impl From<PeopleError> for Refusal {
    fn from(error: PeopleError) -> Self {
        let invalid = |pointer: &str, error: &PeopleError| {
            Self::field(pointer, "invalid_value", sentence(error))
        };
        match error {
            PeopleError::Refused(error) => Self::new(error.code(), sentence(&error)),
            PeopleError::Held { .. } => Self::new(Code::Conflict, sentence(&error)),
            PeopleError::NoSuchBadge { .. } => Self::new(Code::NotFound, sentence(&error)),
            PeopleError::Number => invalid("/badge", &error),
            PeopleError::Name(_) => invalid("/name", &error),
            PeopleError::ExternalId(_) => invalid("/external_id", &error),
            PeopleError::NoSuchSite => invalid("/site", &error),
            PeopleError::Hash => Self::busy(sentence(&error)),
            PeopleError::Append(error) => error.into(),
            PeopleError::Load(error) => error.into(),
            PeopleError::Database(error) => error.into(),
        }
    }
}

/// How many faulty rows of a file stand in words in its refusal.
const FAULTS_TOLD_MAX: usize = 20;

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::TooLarge { .. }
            | ImportError::TooManyRows
            | ImportError::TooManyPins { .. }
            | ImportError::Entangled { .. } => Self::new(Code::PayloadTooLarge, sentence(&error)),
            ImportError::Header(_) => Self::field("/1", "invalid_value", sentence(&error)),
            ImportError::Rows { ref faults, .. } => {
                let told = faults.iter().take(FAULTS_TOLD_MAX);
                let told: String =
                    told.map(|fault| format!(" Row {}: {}.", fault.row, fault.what)).collect();
                let at = |row: u64| FieldError {
                    pointer: format!("/{row}"),
                    code: "invalid_value".to_owned(),
                };
                let errors = faults.iter().map(|fault| at(fault.row)).collect();
                Self::new(Code::Invalid, sentence(&error) + &told).because_of(errors)
            }
            ImportError::Partly { .. } | ImportError::Hash | ImportError::Stopped => {
                tracing::warn!(%error, "an import was not carried through");
                Self::busy(sentence(&error))
            }
            ImportError::Database(error) => error.into(),
            ImportError::Ledger(error) => error.into(),
            ImportError::Append(error) => error.into(),
        }
    }
}

impl<E: Refuses> From<RuleError<E>> for Refusal {
    fn from(error: RuleError<E>) -> Self {
        let code = match error {
            RuleError::Own => Code::OwnRecord,
            RuleError::AlreadyRuled { .. } => Code::AlreadyRuled,
            RuleError::Changed { .. } => Code::PunchChanged,
            RuleError::Stands(_) => Code::Conflict,
            RuleError::AtFault(fault) if fault.is_conflict() => Code::Conflict,
            RuleError::AtFault(fault) => {
                let code = match fault {
                    Fault::InFuture { .. } | Fault::NotV7 => "invalid_value",
                    _ => "unknown",
                };
                return Self::field(format!("/{}", fault.field()), code, sentence(&fault));
            }
            RuleError::Ledger(error) => return error.into(),
        };
        Self::new(code, sentence(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::VariantArray as _;

    #[test]
    fn a_database_out_of_reach_is_busy_and_a_broken_statement_is_not() {
        assert_eq!(Refusal::from(DatabaseError::PoolTimedOut).code(), Code::Busy);
        assert_eq!(Refusal::from(DatabaseError::RowNotFound).code(), Code::Internal);
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let response = Refusal::from(AppendError::Busy).render("r");
        let after = response.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!(RETRY_AFTER_S.contains(&after));
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_TYPE);
    }

    #[test]
    fn a_refused_command_speaks_in_sentences() {
        let refusal = Refusal::from(ExecuteError::Refused(PunchError::Voided));
        assert_eq!(refusal.code(), Code::Conflict);
        assert!(refusal.detail.starts_with("The punch was taken out of the count"));
    }

    #[test]
    fn the_page_for_integrators_lists_every_code_with_its_status() {
        let page = include_str!("../../docs/http-api.md");
        for code in Code::VARIANTS {
            let row = format!("| {} | `{}` |", code.status().as_u16(), code.as_str());
            assert!(page.contains(&row), "{row}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
        assert_eq!(rows.count(), Code::VARIANTS.len());
    }
}
