//! What may be of a worker's day and is nobody's yet, or of another day by a wrong clock, told.

use punchtrail_protocol::{SiteId, capture::PunchKind};

use super::{Speaker, synced::quarantined, words};
use crate::explanation::absence::facts::{
    AbsenceFacts, BadgeTie, DayBadge, DayClock, DayDoubt, DayItem, LISTED_COUNT_MAX,
};

/// What waits for a person, and what a clock put on the wrong day.
pub(super) fn sentences(speaker: &Speaker<'_>, facts: &AbsenceFacts) -> Vec<String> {
    let mut told: Vec<String> =
        facts.quarantined.iter().map(|item| in_quarantine(speaker, item)).collect();
    let listed = facts.quarantined.len();
    told.extend(more(facts.quarantined_count, listed, "such items wait in quarantine"));
    told.extend(facts.unknown_badges.iter().map(|badge| by_badge(speaker, badge)));
    let listed = facts.unknown_badges.len();
    told.extend(more(facts.unknown_badges_count, listed, "such punches by unknown badges wait"));
    told.extend(facts.doubted.iter().map(|doubt| of_other(speaker, doubt)));
    let listed = facts.doubted.len();
    told.extend(more(facts.doubted_count, listed, "such punches of others wait"));
    told.extend(facts.wrong_clocks.iter().map(|clock| by_wrong_clock(speaker, clock)));
    let listed = facts.wrong_clocks.len();
    told.extend(more(facts.wrong_clocks_count, listed, "such punches of wrong clocks are held"));
    told
}

/// How many there are beside those that are listed.
fn more(count: u64, listed: usize, what: &str) -> Option<String> {
    let beyond = count.checked_sub(listed as u64).filter(|beyond| *beyond > 0)?;
    Some(if count >= LISTED_COUNT_MAX {
        format!("At least {beyond} more {what}.")
    } else {
        format!("Beside these, {beyond} more {what}.")
    })
}

fn in_quarantine(speaker: &Speaker<'_>, item: &DayItem) -> String {
    let device = speaker.device(item.device);
    let made = match (item.names_worker, item.captured_at) {
        (true, Some(at)) => format!(
            "something that says to be a punch of {} made {}",
            speaker.worker_within(),
            speaker.when(at)
        ),
        (true, None) => format!(
            "something {} that says to be a punch of {}; when it was made can't be read",
            speaker.when(item.received_at),
            speaker.worker_within()
        ),
        (false, Some(at)) => {
            format!("something made {}; whose it is can't be read", speaker.when(at))
        }
        (false, None) => format!(
            "something {}; whose it is and when it was made can't be read",
            speaker.when(item.received_at)
        ),
    };
    format!(
        "{device} sent {made}. It could not be taken as a punch, because {}; it waits in \
         quarantine for a person (item {}).",
        quarantined(item.code),
        item.item
    )
}

fn by_badge(speaker: &Speaker<'_>, badge: &DayBadge) -> String {
    let what = did(speaker, badge.site, badge.kind);
    let (when, worker) = (speaker.when(badge.at), speaker.worker_within());
    let whose = match badge.tie {
        BadgeTie::Held => format!("{worker} held that badge then"),
        BadgeTie::HeldOtherwise => {
            format!("nobody held that badge then, but {worker} holds it or held it at another time")
        }
        BadgeTie::Here => format!("nobody held that badge then, so it may be {worker}'s"),
    };
    format!(
        "Somebody {what} {when}, on {}, by a badge that the device did not know; {whose} (punch \
         {}). It counts for nobody until it is known who made it.",
        speaker.device_within(badge.device),
        badge.punch
    )
}

/// Somebody else is not named here.
fn of_other(speaker: &Speaker<'_>, doubt: &DayDoubt) -> String {
    format!(
        "Somebody else is recorded to have {} {}, by a badge that {} held by then, so it may be \
         theirs (punch {}). It counts for nobody until a manager has ruled.",
        words::had_done(doubt.kind).trim_start_matches("had "),
        at_site(speaker, doubt.site, &speaker.when(doubt.at)),
        speaker.worker_within(),
        doubt.punch
    )
}

fn by_wrong_clock(speaker: &Speaker<'_>, clock: &DayClock) -> String {
    let (shown, truly) = (speaker.when(clock.shown_at), speaker.when(clock.true_at));
    let what = words::did(clock.kind);
    if clock.of_this_day {
        format!(
            "By a device's clock that was wrong, {} {what} {shown}; by the server's clock that was \
             {truly}, on this day (punch {}).",
            speaker.worker_within(),
            clock.punch
        )
    } else {
        format!(
            "That {} {what} {shown} is by a device's clock that was wrong; by the server's clock \
             it was {truly}, not on this day (punch {}).",
            speaker.worker_within(),
            clock.punch
        )
    }
}

fn did(speaker: &Speaker<'_>, site: SiteId, kind: PunchKind) -> String {
    at_site(speaker, site, words::did(kind))
}

fn at_site(speaker: &Speaker<'_>, site: SiteId, what: &str) -> String {
    speaker.site(site).map_or_else(|| what.to_owned(), |site| format!("{what} at {site}"))
}
