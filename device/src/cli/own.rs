//! What a worker reads of their own: the record, and a dispute that was kept. What people wrote is
//! shown as text, whatever is in it.

use punchtrail_device::{
    KeptDispute, OwnRecord,
    client::{DisputeOutcome, PunchOutcome, RecordOutcome},
    store::{disputes::HeldDispute, outbox::HeldPunch},
};
use punchtrail_protocol::shown::Shown;

use super::text::local;

/// How much of a word of the server's is shown, in characters.
const WORD_SHOWN_MAX: usize = 80;
/// How much of a text is.
const TEXT_SHOWN_MAX: usize = 2_000;

fn word(text: &str) -> Shown<'_> {
    Shown::new(text).within(WORD_SHOWN_MAX)
}

/// A text in its lines, each shown for itself.
fn text(indent: &str, text: &str) -> Vec<String> {
    let line = |line: &str| format!("{indent}{}", Shown::new(line).within(TEXT_SHOWN_MAX));
    text.lines().map(line).collect()
}

/// A dispute that is on disk.
pub fn disputed(kept: &KeptDispute) -> String {
    let about = match (kept.punch, kept.day) {
        (Some(punch), _) => format!("punch {punch}"),
        (_, Some(day)) => day.to_string(),
        (None, None) => String::new(),
    };
    format!(
        "Kept: your dispute about {about} ({}). It will be sent when the server is in reach; a \
         manager answers, and `record` shows the answer. What isn't disputed counts as before.",
        kept.dispute
    )
}

/// A worker's own record.
pub fn own(record: &OwnRecord) -> String {
    let mut lines = match (&record.record, &record.error) {
        (Some(record), _) => told(record),
        (None, Some(error)) => vec![format!(
            "The server could not be asked: {}. Below is only what this device itself holds.",
            Shown::new(&error.detail).within(TEXT_SHOWN_MAX)
        )],
        (None, None) => Vec::new(),
    };
    let here = &record.here;
    let waiting = here.punches.iter().filter(|punch| punch.waiting).count();
    if record.record.is_none()
        || waiting > 0
        || here.disputes.iter().any(|one| one.state != "taken")
    {
        lines.push("held by this device:".to_owned());
        let shown = |punch: &&HeldPunch| record.record.is_none() || punch.waiting;
        lines.extend(here.punches.iter().filter(shown).map(held_punch));
        let shown = |one: &&HeldDispute| record.record.is_none() || one.state != "taken";
        lines.extend(here.disputes.iter().filter(shown).map(held_dispute));
    }
    lines.join("\n")
}

fn held_punch(punch: &HeldPunch) -> String {
    let state = if punch.waiting { "waits to be sent" } else { "the server has it" };
    format!("  {}  {}: {state}", local(punch.captured_at), word(&punch.kind))
}

fn held_dispute(one: &HeldDispute) -> String {
    let about = match (one.punch, one.day) {
        (Some(punch), _) => format!("punch {punch}"),
        (_, Some(day)) => day.to_string(),
        (None, None) => String::new(),
    };
    let state = match (one.state, &one.detail) {
        ("taken", _) => "the server has it".to_owned(),
        ("failed", Some(why)) => format!("not taken: {}", word(why)),
        (_, Some(why)) => format!("waits to be sent; the last try: {}", word(why)),
        _ => "waits to be sent".to_owned(),
    };
    format!("  {}  dispute about {about}: {state}", local(one.made_at))
}

fn told(record: &RecordOutcome) -> Vec<String> {
    let mut lines = Vec::new();
    for day in &record.days {
        let provisional = match day.provisional_min {
            0 => String::new(),
            min => format!(", and {} that count until a manager has looked", hours(min)),
        };
        let accepted = hours(day.accepted_min);
        lines.push(format!("{}: {accepted} accepted{provisional}", word(&day.day)));
        lines.extend(day.punches.iter().flat_map(punch));
    }
    if record.days.is_empty() {
        lines.push("No punches on these days.".to_owned());
    }
    lines.extend(record.disputes.iter().flat_map(dispute));
    lines
}

fn hours(min: u64) -> String {
    format!("{}:{:02} h", min / 60, min % 60)
}

fn punch(punch: &PunchOutcome) -> Vec<String> {
    let standing = match punch.standing.as_str() {
        "recorded" => "counts, not judged yet",
        "accepted" => "accepted",
        "referred" => "counts; a manager will look at it",
        "rejected" => "rejected",
        "voided" => "taken out of the count",
        other => other,
    };
    let (at, kind) = (local(punch.effective_at), word(&punch.kind));
    let mut lines = vec![format!("  {at}  {kind}: {} ({})", word(standing), punch.punch)];
    let reason = |reason: &punchtrail_device::client::ReasonOutcome| {
        format!("      {}", Shown::new(&reason.text).within(TEXT_SHOWN_MAX))
    };
    lines.extend(punch.reasons.iter().map(reason));
    lines
}

fn dispute(one: &DisputeOutcome) -> Vec<String> {
    let about = match (one.punch, &one.day) {
        (Some(punch), _) => format!("punch {punch}"),
        (_, Some(day)) => word(day).to_string(),
        (None, None) => String::new(),
    };
    let (state, cause) = (word(&one.state), word(&one.cause));
    let mut lines =
        vec![format!("dispute about {about}, {cause}, of {}: {state}", local(one.opened_at))];
    lines.extend(one.text.iter().flat_map(|said| text("  you: ", said)));
    lines.extend(one.answers.iter().flat_map(|answer| text("  answer: ", &answer.text)));
    if let Some(resolution) = &one.resolution {
        lines.push(format!("  settled: {}", word(&resolution.words)));
        lines.extend(resolution.text.iter().flat_map(|why| text("  why: ", why)));
    }
    lines
}
