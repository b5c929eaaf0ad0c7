//! A punch's steps, told.

use punchtrail_protocol::{
    Time,
    capture::PunchKind,
    shown::Shown,
    vocabulary::{Reason, Standing},
};

use super::{
    Speaker, basis, disputed, doubt, on_card,
    synced::{clock, off_ms, synced},
    verified, words,
};
use crate::{
    explanation::{
        DoubtedAfter, OnCard,
        step::{
            Amendment, ChainFact, Decision, Escalation, Identification, Joined, Origin, Step, What,
        },
        story::Story,
    },
    punch::{Anomaly, Basis, Ground, RejectionReason, RulingReason},
};

/// How much of a note stands in a sentence.
const NOTE_SHOWN_CHARS_MAX: usize = 300;

/// The steps in sentences, in their order; then whether the punch counts, what the worker's other
/// punches make of it, and what is disputed.
pub(in crate::explanation) fn sentences(
    speaker: &Speaker<'_>,
    story: &Story,
    (card, after): (Option<OnCard>, Option<DoubtedAfter>),
) -> Vec<String> {
    let decisions = |step: &Step| matches!(step.what, What::Decided(_));
    let last_decision = story.steps.iter().rposition(decisions);
    let mut told = Vec::with_capacity(story.steps.len() + 1);
    let mut kind = story.effective.1;
    // What was said before somebody else was found is said of whom it was said of.
    let mut speaker = speaker.clone().speaking_of(story.first_employee);
    let mut found = false;
    for (index, step) in story.steps.iter().enumerate() {
        let stands = last_decision == Some(index);
        found &= matches!(step.what, What::Withdrawn(_));
        match &step.what {
            What::Captured(origin) => {
                kind = said(origin);
                told.push(captured(&speaker, story, step, origin));
            }
            What::Synced(sync) => {
                // A clock that was off comes first, or the times around it make no sense.
                let is_off = off_ms(sync.clock).is_some();
                let clock = clock(&speaker, story, sync);
                told.extend(clock.clone().filter(|_| is_off));
                told.push(synced(&speaker, sync));
                told.extend(clock.filter(|_| !is_off));
            }
            What::Chain(fact) => told.extend(chain(&speaker, story, fact)),
            What::Verified(verification) => {
                told.extend(verified::sentence(&speaker, step, verification));
            }
            What::Decided(decision) => told.push(decided(&speaker, step, decision, kind, stands)),
            What::Doubted(doubt) => told.push(format!(
                "Later something more came up. {} That changed nothing, because a person had ruled \
                 already.",
                statements(&speaker, kind, &doubt.anomalies)
            )),
            What::Identified(by) => {
                told.push(identified(&speaker, step, by));
                speaker = speaker.speaking_of(Some(by.employee));
                found = true;
            }
            What::Joined(with) => told.push(joined(&speaker, step, *with)),
            What::Withdrawn(doubt) => told.extend(
                doubt.anomalies.iter().map(|anomaly| doubt::withdrawn(&speaker, anomaly, found)),
            ),
            What::Amended(amendment) => told.push(amended(&speaker, story, step, amendment)),
            What::Escalated(Escalation { due_at }) => told.push(format!(
                "Nobody had ruled on it by {}, so it was put before others, too.",
                speaker.exact_clock(*due_at)
            )),
            // Told at the end.
            What::Disputed(_) => {}
            What::Conflict(conflict) => told.push(format!(
                "Other data came under the same punch {}. The first stands; the other waits in \
                 quarantine, as does whatever else came under it.",
                speaker.when(conflict.received_at)
            )),
        }
    }
    told.extend(speaker.erased());
    told.push(conclusion(story).to_owned());
    told.extend(card.map(|card| on_card::sentence(&speaker, story.effective.1, card)));
    told.extend(after.map(on_card::doubted_after));
    told.extend(story.steps.iter().filter_map(|step| match &step.what {
        What::Disputed(disputed) => Some(disputed::sentence(&speaker, step, disputed)),
        _ => None,
    }));
    told
}

const fn said(origin: &Origin) -> PunchKind {
    match origin {
        Origin::Device { kind, .. }
        | Origin::Quarantine { kind, .. }
        | Origin::Entered { kind, .. } => *kind,
    }
}

const fn conclusion(story: &Story) -> &'static str {
    match (story.standing, story.nobodys) {
        (Standing::Recorded | Standing::Referred, false) => "It counts until then.",
        (Standing::Recorded | Standing::Referred, true) => "It counts for nobody until then.",
        (Standing::Accepted, false) => "It counts.",
        (Standing::Accepted, true) => {
            "It counts for nobody until it is known who made it: the badge's holder, or whom a \
             manager names."
        }
        (Standing::Rejected | Standing::Voided, _) => "It does not count.",
    }
}

fn captured(speaker: &Speaker<'_>, story: &Story, step: &Step, origin: &Origin) -> String {
    let at = speaker.when_in_full(story.captured_at);
    let site = speaker.site(story.site).map_or_else(String::new, |site| format!(", at {site}"));
    match origin {
        Origin::Device { kind, seq, identified_by, badge_unknown, .. } => {
            let who = if *badge_unknown {
                "Somebody with an unknown badge".to_owned()
            } else {
                speaker.worker()
            };
            let how = words::identified(*identified_by);
            let how = if *badge_unknown { String::new() } else { format!(", {how}") };
            let device =
                story.device.map_or_else(String::new, |device| speaker.device_within(device));
            format!(
                "{who} {} {at}{site}, on {device}{how} (its punch number {seq}).",
                words::did(*kind)
            )
        }
        Origin::Quarantine { kind, .. } => format!(
            "{} entered this punch {} from an item that a device had sent: {} {} {at}{site}.{}",
            speaker.actor(step.actor.as_ref()),
            step.ledger_time.map_or_else(String::new, |time| speaker.when(time)),
            speaker.worker(),
            words::did(*kind),
            noted(speaker, step),
        ),
        Origin::Entered { kind, reason, .. } => format!(
            "{} added this punch by hand {}{}: {} {} {at}{site}. No device made it.{}",
            speaker.actor(step.actor.as_ref()),
            step.ledger_time.map_or_else(String::new, |time| speaker.when(time)),
            because(Some(*reason)),
            speaker.worker(),
            words::did(*kind),
            noted(speaker, step),
        ),
    }
}

/// Who was found to have made it.
fn identified(speaker: &Speaker<'_>, step: &Step, identified: &Identification) -> String {
    let Identification { employee, ground, instead_of, reason, .. } = identified;
    let when = step.ledger_time.map_or_else(String::new, |time| speaker.when(time));
    let found = speaker.person_within(*employee);
    let who = speaker.actor(step.actor.as_ref());
    let (because, noted) = (because(*reason), noted(speaker, step));
    match (ground, instead_of) {
        (Ground::Badge { .. }, _) => match speaker.is_named(*employee) {
            true => format!(
                "The badge that was read was {found}'s at that time, so {when} the punch was found \
                 to be theirs."
            ),
            false => format!(
                "The badge that was read was one person's at that time, so {when} the punch was \
                 found to be theirs."
            ),
        },
        (Ground::Manager, None) => {
            format!("{who} said {when} that {found} made it{because}.{noted}")
        }
        (Ground::Manager, Some(before)) => format!(
            "{who} found {when} that {found} made it and not {}{because}.{noted}",
            speaker.person_within(*before),
        ),
    }
}

fn joined(speaker: &Speaker<'_>, step: &Step, joined: Joined) -> String {
    let who = speaker.actor(step.actor.as_ref());
    let when = step.ledger_time.map_or_else(String::new, |time| speaker.when(time));
    let noted = noted(speaker, step);
    match joined.out {
        Some(out) => {
            format!("{who} joined it {when} with punch {out} to one shift, however long.{noted}")
        }
        None => format!("{who} undid {when} that it was joined with another punch.{noted}"),
    }
}

fn chain(speaker: &Speaker<'_>, story: &Story, fact: &ChainFact) -> Option<String> {
    let seq = story.seq?;
    match fact {
        ChainFact::Missing { gap, came_at } if (gap.from..=gap.to).contains(&seq) => Some(format!(
            "Its number was missing for a while: later punches of the device came first{}.",
            came_at
                .map_or_else(String::new, |at| format!(", and it was filled {}", speaker.when(at)))
        )),
        ChainFact::Missing { gap, came_at } => {
            let which = words::sentence_case(&words::numbers(gap.from, gap.to));
            let side = if gap.from > seq { "after" } else { "before" };
            let one = gap.from == gap.to;
            Some(match came_at {
                Some(at) => format!(
                    "{which} of the device, from just {side} this punch, came late, {}.",
                    speaker.when(*at)
                ),
                None => format!(
                    "{which} of the device, from just {side} this punch, {} not arrived.",
                    if one { "has" } else { "have" }
                ),
            })
        }
        ChainFact::LinkBroken { .. } => Some(
            "It does not follow on the punch before it as the server has that one; the device may \
             have been restored or repaired. That alone never counts against a punch."
                .to_owned(),
        ),
        ChainFact::Fork { second, .. } if *second == Some(story.punch) => None,
        ChainFact::Fork { second: Some(second), .. } => Some(format!(
            "Later the device used the same number for another punch (punch {second}); this one \
             came first."
        )),
        ChainFact::Fork { second: None, .. } => Some(
            "Later the device used the same number for something that is in quarantine; this one \
             came first."
                .to_owned(),
        ),
    }
}

fn statements(speaker: &Speaker<'_>, kind: PunchKind, anomalies: &[Anomaly]) -> String {
    let statement = |anomaly| format!("{}.", doubt::statement(speaker, kind, anomaly));
    anomalies.iter().map(statement).collect::<Vec<_>>().join(" ")
}

fn decided(
    speaker: &Speaker<'_>,
    step: &Step,
    decision: &Decision,
    kind: PunchKind,
    stands: bool,
) -> String {
    let when = step.ledger_time.map_or_else(String::new, |time| speaker.when(time));
    let who = speaker.actor(step.actor.as_ref());
    match decision {
        Decision::Pending {} => "It has not been judged yet.".to_owned(),
        Decision::Accepted { basis: Basis::Manager, reason, .. } => {
            format!("{who} accepted it {when}{}.{}", because(*reason), noted(speaker, step))
        }
        Decision::Accepted { basis: ground, .. } => {
            format!("{}, so it was accepted {when}.{}", basis(*ground), noted(speaker, step))
        }
        Decision::Referred { reasons, anomalies } => {
            referred(speaker, kind, (reasons, anomalies), stands)
        }
        Decision::Rejected { reason, .. } => {
            format!("{who} rejected it {when}: {}.{}", rejected(*reason), noted(speaker, step))
        }
        Decision::Voided { reason, .. } => format!(
            "{who} took it out of the count {when}, as a punch that should not be there{}.{}",
            because(*reason),
            noted(speaker, step)
        ),
        Decision::Reinstated {} => format!("{who} brought it back {when}."),
    }
}

fn referred(
    speaker: &Speaker<'_>,
    kind: PunchKind,
    (reasons, anomalies): (&[Reason], &[Anomaly]),
    stands: bool,
) -> String {
    let waits = if stands { "waits" } else { "was put" };
    let what = if stands { " for a manager" } else { " before a manager" };
    match anomalies {
        [] => match reasons.iter().find_map(|reason| verified::doubt(*reason)) {
            Some(doubt) => format!("{doubt}, so this one {waits}{what}."),
            None => {
                format!("The site's rules found something doubtful, so this one {waits}{what}.")
            }
        },
        [only] => {
            format!("{}, so this one {waits}{what}.", doubt::statement(speaker, kind, only))
        }
        several => {
            format!("{} So this one {waits}{what}.", statements(speaker, kind, several))
        }
    }
}

/// Why a person rejected it, as its worker is told.
pub(in crate::explanation) fn rejection(reason: RejectionReason) -> String {
    format!("A manager rejected it: {}", rejected(reason))
}

const fn rejected(reason: RejectionReason) -> &'static str {
    match reason {
        RejectionReason::WrongPerson => "somebody else made it",
        RejectionReason::Duplicate => "it repeats another punch",
        RejectionReason::WrongTime => "its time can't be right",
        RejectionReason::NotPresent => "the worker was not there",
        RejectionReason::Other => "for another reason",
    }
}

fn amended(speaker: &Speaker<'_>, story: &Story, step: &Step, amendment: &Amendment) -> String {
    let Amendment { from_at, from_kind, to_at, to_kind, reason, .. } = amendment;
    let kinds = (from_kind != to_kind)
        .then(|| format!("{} instead of {}", words::doing(*to_kind), words::doing(*from_kind)));
    let times = (from_at != to_at).then(|| {
        // Across midnight both days are told.
        let tell = |at: Time| match speaker.is_one_day(*from_at, *to_at) {
            true => speaker.exact_clock(at),
            false => speaker.exact_clock_in_full(at),
        };
        format!("{} instead of {}", tell(*to_at), tell(*from_at))
    });
    let changes: Vec<String> = kinds.into_iter().chain(times).collect();
    let stays = match story.seq {
        Some(_) => "What the device captured stays as it was.",
        None => "What was entered at first stays beside it.",
    };
    format!(
        "{} corrected it {}, to {}{}. {stays}{}",
        speaker.actor(step.actor.as_ref()),
        step.ledger_time.map_or_else(String::new, |time| speaker.when(time)),
        changes.join(", and to "),
        because(*reason),
        noted(speaker, step),
    )
}

/// Why, after what was done.
const fn because(reason: Option<RulingReason>) -> &'static str {
    match reason {
        None | Some(RulingReason::Other) => "",
        Some(RulingReason::Confirmed) => ", as it was confirmed",
        Some(RulingReason::Recognised) => ", as the picture shows the worker",
        Some(RulingReason::ClockWrong) => ", as the device's clock was wrong",
        Some(RulingReason::WrongTime) => ", as it was pressed at another time than meant",
        Some(RulingReason::WrongKind) => ", as the wrong button was pressed",
        Some(RulingReason::Duplicate) => ", as it repeats another one",
        Some(RulingReason::Test) => ", as somebody tried the device",
        Some(RulingReason::WrongPerson) => ", as somebody else made it",
        Some(RulingReason::Forgotten) => ", as the worker didn't punch",
        Some(RulingReason::NoDevice) => ", as there was no device that worked",
        Some(RulingReason::Mistake) => ", as the ruling before was a mistake",
    }
}

/// The note that a person left, where it is there to be read.
fn noted(speaker: &Speaker<'_>, step: &Step) -> String {
    let Some(note) = step.note else { return String::new() };
    match speaker.names.notes.get(&note) {
        Some(Some(text)) => {
            let text = text.trim_end().trim_end_matches('.');
            format!(" The note on it: “{}”.", Shown::new(text).within(NOTE_SHOWN_CHARS_MAX))
        }
        Some(None) => " The note on it was erased.".to_owned(),
        None => " There is a note on it.".to_owned(),
    }
}
