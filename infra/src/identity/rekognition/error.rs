//! What each error of Rekognition leads to.
//!
//! Three ways: the image is at fault, and the worker or a reviewer sees to it; it may pass, and is
//! tried again; or Amazon refuses, and an operator has to mend something. What isn't known here is
//! never taken for a miss.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_rekognition::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use punchtrail_domain::punch::Missing;

use super::super::Unavailable;

/// The most of Amazon's own words that is kept for the log, in characters.
const WORDS_MAX: usize = 300;

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// An image can't be read, or has no face to be compared.
    Image(String),
    Unavailable(Unavailable),
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Image,
    Missing(Missing, Passes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passes {
    /// By itself, or after an operator has mended what is wrong.
    Yes,
    No,
}

/// The table: from an error's code and the HTTP status of the answer, where there are such.
fn meaning(code: Option<&str>, status: Option<u16>) -> Meaning {
    match (code, status) {
        // The only parameters that vary are the images: one is too small, or has no face.
        (
            Some(
                "InvalidParameterException"
                | "InvalidImageFormatException"
                | "ImageTooLargeException",
            ),
            _,
        ) => Meaning::Image,
        (
            Some(
                "ThrottlingException"
                | "ProvisionedThroughputExceededException"
                | "LimitExceededException"
                | "TooManyRequestsException"
                | "RequestLimitExceeded"
                | "Throttling"
                | "SlowDown",
            ),
            _,
        )
        | (_, Some(429)) => Meaning::Missing(Missing::Throttled, Passes::Yes),
        (Some("InternalServerError" | "ServiceUnavailableException" | "RequestTimeout"), _) => {
            Meaning::Missing(Missing::Unreachable, Passes::Yes)
        }
        // No object in S3 is ever named here: a fault of this program, which no waiting mends.
        (Some("InvalidS3ObjectException"), _) => Meaning::Missing(Missing::Refused, Passes::No),
        // Access, signature, credentials, clock, an action that the region doesn't have.
        (Some("AccessDeniedException"), _)
        | (Some(_), Some(400..=499))
        | (None, Some(401 | 403)) => Meaning::Missing(Missing::Refused, Passes::Yes),
        _ => Meaning::Missing(Missing::Unreachable, Passes::Yes),
    }
}

/// Whether an answer says that there were too many calls.
pub(super) fn is_throttled(code: Option<&str>, status: Option<u16>) -> bool {
    matches!(meaning(code, status), Meaning::Missing(Missing::Throttled, _))
}

impl Failed {
    /// What an action's error leads to.
    pub(super) fn of<E>(action: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = match error {
            SdkError::ServiceError(answered) => Some(answered.raw().status().as_u16()),
            // No answer, or one that isn't Rekognition's.
            _ => None,
        };
        let meaning = if lacks_credentials(error) {
            Meaning::Missing(Missing::Refused, Passes::Yes)
        } else {
            meaning(error.code(), status)
        };
        let answered = status.map(|status| format!(" ({status})")).unwrap_or_default();
        let why = format!("{action}{answered}: {}", words(error));
        match meaning {
            Meaning::Image => Self::Image(why),
            Meaning::Missing(missing, passes) => {
                Self::Unavailable(Unavailable { missing, passes: passes == Passes::Yes, why })
            }
        }
    }

    /// An answer without what the API says it always has.
    pub(super) fn malformed(action: &str) -> Self {
        Self::Unavailable(Unavailable {
            missing: Missing::Unreachable,
            passes: true,
            why: format!("{action}: the answer lacks what it must have"),
        })
    }
}

/// What happened, in Amazon's words, without a byte of an answer's body: a body that can't be read
/// may hold what a picture shows.
fn words<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let words = match (error.code(), error.message()) {
        (Some(code), message) => format!("{code}: {}", message.unwrap_or("no more was said")),
        (None, _) => causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": "),
    };
    words.chars().take(WORDS_MAX).collect()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<CredentialsError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Meaning = Meaning::Missing(Missing::Refused, Passes::Yes);
    const THROTTLED: Meaning = Meaning::Missing(Missing::Throttled, Passes::Yes);
    const UNREACHABLE: Meaning = Meaning::Missing(Missing::Unreachable, Passes::Yes);

    #[test]
    fn every_error_that_the_api_names_leads_somewhere() {
        let named = [
            ("AccessDeniedException", 400, REFUSED),
            ("ImageTooLargeException", 400, Meaning::Image),
            ("InternalServerError", 500, UNREACHABLE),
            ("InvalidImageFormatException", 400, Meaning::Image),
            ("InvalidParameterException", 400, Meaning::Image),
            ("InvalidS3ObjectException", 400, Meaning::Missing(Missing::Refused, Passes::No)),
            ("ProvisionedThroughputExceededException", 400, THROTTLED),
            ("ThrottlingException", 500, THROTTLED),
        ];
        for (code, status, expected) in named {
            assert_eq!(meaning(Some(code), Some(status)), expected, "{code}");
        }
    }

    #[test]
    fn what_every_service_of_aws_may_say_leads_somewhere() {
        let common = [
            ("UnrecognizedClientException", 400, REFUSED),
            ("InvalidSignatureException", 400, REFUSED),
            ("ExpiredTokenException", 400, REFUSED),
            ("MissingAuthenticationTokenException", 400, REFUSED),
            ("UnknownOperationException", 400, REFUSED),
            ("TooManyRequestsException", 429, THROTTLED),
            ("ServiceUnavailableException", 503, UNREACHABLE),
            ("SomethingNew", 400, REFUSED),
            ("SomethingNew", 500, UNREACHABLE),
        ];
        for (code, status, expected) in common {
            assert_eq!(meaning(Some(code), Some(status)), expected, "{code}");
        }
    }

    #[test]
    fn an_answer_without_a_code_is_never_taken_for_a_fault_of_the_image() {
        let answers = [
            (None, UNREACHABLE),
            (Some(200), UNREACHABLE),
            (Some(400), UNREACHABLE),
            (Some(403), REFUSED),
            (Some(429), THROTTLED),
            (Some(500), UNREACHABLE),
            (Some(503), UNREACHABLE),
        ];
        for (status, expected) in answers {
            assert_eq!(meaning(None, status), expected, "{status:?}");
        }
    }
}
