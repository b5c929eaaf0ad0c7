//! What came of the check of a picture. A face is advice: nothing here says that somebody isn't who
//! they say they are.

use punchtrail_protocol::{capture::IdentifiedBy, guidance::Language, vocabulary::Reason};

use super::Speaker;
use crate::{
    erasure::Erasure,
    explanation::step::{Checked, NotChecked, Step, Verification},
    punch::{Comparison, Miss, Missing, Provider},
};

/// Up to this, a picture is said to have come with the punch, in milliseconds.
const WITH_IT_MS: i64 = 60_000;

/// The step in a sentence; none where it needs no telling.
pub(super) fn sentence(
    speaker: &Speaker<'_>,
    step: &Step,
    verification: &Verification,
) -> Option<String> {
    let when = step.ledger_time.map_or_else(String::new, |time| speaker.when(time));
    Some(match verification {
        Verification::NotChecked { reason: NotChecked::NoneSetUp, .. } => {
            "No picture was to be compared.".to_owned()
        }
        Verification::NotChecked { reason: NotChecked::Otherwise, identified_by } => {
            format!("{}; no picture was to be compared.", told_by(*identified_by))
        }
        Verification::Requested { waits: false, .. } => return None,
        Verification::Requested { due_at, .. } => format!(
            "Its picture waits to be checked; without a verdict {} a manager will look at it.",
            speaker.when(*due_at)
        ),
        Verification::Received { attempt: 0, delay_ms, .. } if *delay_ms <= WITH_IT_MS => {
            "Its picture came with it.".to_owned()
        }
        Verification::Received { attempt: 0, .. } => {
            format!("Its picture reached the server {when}.")
        }
        Verification::Received { attempt, .. } => {
            format!("Picture {} reached the server {when}.", attempt + 1)
        }
        Verification::Retaken { attempt, .. } => format!(
            "Another picture was taken {} (picture {}).",
            step.device_time.map_or_else(String::new, |time| speaker.when(time)),
            attempt + 1
        ),
        Verification::Matched { check, comparison } => format!(
            "{} compared {} with a reference photo of {} {when}: {}, enough for a match (from {} \
             on).{}",
            provider(check),
            picture(check),
            speaker.worker_within(),
            similarity(check, comparison),
            percent(comparison.threshold),
            after_ruling(check),
        ),
        Verification::Missed { check, miss, guidance, comparison } => {
            let told = guidance.first().map_or_else(String::new, |first| {
                format!(" The worker was told: “{}”.", first.text(Language::English))
            });
            let found = missed(speaker, check, *miss, comparison.as_ref());
            format!(
                "{} looked at {} {when}: {found}.{told}{}",
                provider(check),
                picture(check),
                after_ruling(check)
            )
        }
        Verification::Unavailable { reason } => format!("{} {when}.", unavailable(*reason)),
        Verification::Erased { because, .. } => {
            format!("A picture of this punch was erased {when}, {}.", erased(*because))
        }
    })
}

/// What a punch is referred for that no rule of the site found, without a full stop.
pub(super) const fn doubt(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::FaceMismatch => Some("The picture was good and was not recognised"),
        Reason::FaceUnclear => Some("No picture could be compared"),
        Reason::PhotoMissing => Some("Its picture is missing"),
        Reason::FaceUnchecked => Some("Its picture was not checked by itself"),
        _ => None,
    }
}

/// What told who punched, without a full stop.
const fn told_by(identified_by: Option<IdentifiedBy>) -> &'static str {
    match identified_by {
        Some(IdentifiedBy::Pin) => "A PIN confirmed who punched",
        Some(IdentifiedBy::Badge) => "The badge told who punched",
        Some(IdentifiedBy::Qr) => "The QR code told who punched",
        Some(IdentifiedBy::Search) => "Who punched was chosen from the list of names",
        Some(IdentifiedBy::Terminal) => "The terminal told who punched",
        None => "A person said who punched",
    }
}

fn provider(check: &Checked) -> String {
    match check.check.provider {
        Provider::Rekognition => "Amazon Rekognition".to_owned(),
        Provider::Local => format!("The server's own check ({})", check.check.model),
        Provider::Review => "The review".to_owned(),
    }
}

fn picture(check: &Checked) -> String {
    match check.check.attempt {
        0 => "its picture".to_owned(),
        attempt => format!("picture {}", attempt + 1),
    }
}

fn similarity(check: &Checked, comparison: &Comparison) -> String {
    let alike = percent(comparison.similarity);
    match check.check.provider {
        Provider::Rekognition => format!("{alike} alike"),
        Provider::Local | Provider::Review => format!("{alike} alike by its measure"),
    }
}

/// Ten-thousandths as a percentage.
fn percent(ten_thousandths: u32) -> String {
    let (whole, rest) = (ten_thousandths / 100, ten_thousandths % 100);
    if rest == 0 { format!("{whole} %") } else { format!("{whole}.{rest:02} %") }
}

fn missed(
    speaker: &Speaker<'_>,
    check: &Checked,
    miss: Miss,
    comparison: Option<&Comparison>,
) -> String {
    match (miss, comparison) {
        (Miss::NoFace, _) => "no face was found".to_owned(),
        (Miss::SeveralFaces, _) => "more than one person was on it".to_owned(),
        (Miss::Unclear, _) => "the face could not be compared".to_owned(),
        (Miss::Unreadable, _) => "it could not be read as a picture".to_owned(),
        (Miss::Mismatch, None) => "it was not recognised".to_owned(),
        (Miss::Mismatch, Some(comparison)) => format!(
            "a good picture, {} to the nearest reference photo of {}, where {} is asked for",
            similarity(check, comparison),
            speaker.worker_within(),
            percent(comparison.threshold)
        ),
    }
}

const fn after_ruling(check: &Checked) -> &'static str {
    if check.after_ruling {
        " That changed nothing, because a person had ruled already."
    } else {
        ""
    }
}

const fn unavailable(reason: Missing) -> &'static str {
    match reason {
        Missing::Photo => "No picture had come",
        Missing::SentToReview => "The site has a person look at each picture; it was handed on",
        Missing::Unreachable => {
            "Whoever checks pictures could not be reached in time; it was given up"
        }
        Missing::Throttled => "Whoever checks pictures took no more in time; it was given up",
        Missing::Refused => "Whoever checks pictures refused to; it was given up",
        Missing::NothingToCompare => "There was nothing to compare its picture with",
        Missing::PhotoErased => "Its picture had been erased before it was checked",
    }
}

const fn erased(because: Erasure) -> &'static str {
    match because {
        Erasure::Requested => "because a person with the right asked for it",
        Erasure::ConsentWithdrawn => "because the worker withdrew their consent",
        Erasure::Departed => "because the worker has left",
        Erasure::RetentionOver => "because the site keeps pictures no longer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousandths_are_told_as_percentages() {
        assert_eq!([9_912, 4_000, 5, 10_000].map(percent), ["99.12 %", "40 %", "0.05 %", "100 %"]);
    }
}
