//! How a punch reached the server, told, and what was known of its device's clock then.

use jiff::tz::Offset;
use punchtrail_protocol::vocabulary::QuarantineCode;

use super::{Speaker, times, words};
use crate::{
    explanation::{step::Receipt, story::Story},
    punch::{CLOCK_NOISE_MS, Clock},
};

/// Up to this, a punch is said to have arrived at once, in milliseconds.
const AT_ONCE_MS: i64 = 5_000;

/// What the device's screen showed, where that isn't the site's time; as a clause, and the site's
/// time then.
fn other_wall_clock(speaker: &Speaker<'_>, story: &Story) -> Option<(String, String)> {
    let offset = Offset::from_seconds(story.utc_offset_s?).ok()?;
    let at = story.captured_at.timestamp();
    if speaker.zone.to_offset(at) == offset {
        return None;
    }
    let shown = at.to_zoned(offset.to_time_zone());
    let site = speaker.zone.to_datetime(at);
    let day = if shown.date() == site.date() { "" } else { "%-d %B %Y " };
    let clause = format!(
        "its screen showed {}, {}",
        shown.strftime(&format!("{day}%H:%M:%S")),
        times::utc(offset)
    );
    Some((clause, speaker.exact_clock(story.captured_at)))
}

/// How it reached the server.
pub(super) fn synced(speaker: &Speaker<'_>, sync: &Receipt) -> String {
    let when = speaker.when(sync.received_at);
    if let Some(code) = sync.quarantined {
        return format!(
            "The item had reached the server {when}. It could not be taken as it came, because {}.",
            quarantined(code)
        );
    }
    let delay_ms = sync.delay_ms.saturating_add(sync.clock.offset_ms().unwrap_or_default());
    let delay = if delay_ms.saturating_abs() <= AT_ONCE_MS {
        "at once".to_owned()
    } else if delay_ms < 0 {
        format!("{} before the time it bears", words::duration(delay_ms))
    } else {
        format!("{} later", words::duration(delay_ms))
    };
    let kept = match sync.offline {
        Some(true) => "The server was out of reach then, so the device kept it. ",
        _ => "",
    };
    format!("{kept}It reached the server {when}, {delay}.")
}

/// By how much a clock was off, if it is known to have been: by more than can't be told.
pub(super) const fn off_ms(clock: Clock) -> Option<i64> {
    match clock {
        Clock::Known { offset_ms } if offset_ms.saturating_abs() > CLOCK_NOISE_MS => {
            Some(offset_ms)
        }
        Clock::Known { .. } | Clock::Unknown => None,
    }
}

/// What is known of the device's clock, and in the same breath what its screen showed: a clock that
/// was right may have shown another zone's time.
pub(super) fn clock(speaker: &Speaker<'_>, story: &Story, sync: &Receipt) -> Option<String> {
    if sync.quarantined.is_some() {
        return None;
    }
    let screen = other_wall_clock(speaker, story);
    Some(match (sync.clock, off_ms(sync.clock), screen) {
        (Clock::Unknown, _, None) => "The device's clock could not be checked.".to_owned(),
        (Clock::Unknown, _, Some((showed, site))) => format!(
            "The device's clock could not be checked; {showed}, which is {site} where the site is."
        ),
        (Clock::Known { .. }, None, None) => "The device's clock was right.".to_owned(),
        (Clock::Known { .. }, None, Some((showed, site))) => {
            format!("The device's clock was right; {showed}, where the site had {site}.")
        }
        (Clock::Known { .. }, Some(offset_ms), screen) => format!(
            "The device's clock was {} {}{}; by the server's clock the punch was made {}.",
            words::duration(offset_ms),
            if offset_ms < 0 { "behind" } else { "ahead" },
            screen.map_or_else(String::new, |(showed, _)| format!(", and {showed}")),
            speaker.when(sync.clock.true_time(story.captured_at)),
        ),
    })
}

/// Why an item is in quarantine, after "because".
pub(super) const fn quarantined(code: QuarantineCode) -> &'static str {
    match code {
        QuarantineCode::TooLarge => "it was larger than a punch may be",
        QuarantineCode::BadEncoding => "it was garbled",
        QuarantineCode::BadSignature => "its signature did not fit the device that sent it",
        QuarantineCode::BadCapture => "what it said could not be read as a punch",
        QuarantineCode::UnknownVersion => "it came in a form that the server did not know",
        QuarantineCode::WrongDevice => "it named another device than the one that sent it",
        QuarantineCode::WrongSite => "it named a site that the device does not serve",
        QuarantineCode::Conflict => "the device had sent another punch under its id before",
    }
}
