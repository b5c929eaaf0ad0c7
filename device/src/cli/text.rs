//! What people read on the screen.

use jiff::tz::TimeZone;
use punchtrail_device::{
    Confirmation, Judged, Retaken, SyncReport,
    capture::Notice,
    status::{IdentityStatus, Status},
};
use punchtrail_protocol::{
    Time,
    capture::PunchKind,
    guidance::{Guidance, Language},
    shown::Shown,
};

/// How much of a name, a badge or an address is shown, in characters.
const NAME_SHOWN_MAX: usize = 80;
/// How much of a sentence is.
const SENTENCE_SHOWN_MAX: usize = 600;

/// A time by this machine's clock, to the second.
pub fn local(at: Time) -> String {
    let local = at.timestamp().to_zoned(TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn name(text: &str) -> Shown<'_> {
    Shown::new(text).within(NAME_SHOWN_MAX)
}

fn sentence(text: &str) -> Shown<'_> {
    Shown::new(text).within(SENTENCE_SHOWN_MAX)
}

/// A punch that is on disk.
pub fn confirmed(punch: &Confirmation, language: Language) -> String {
    let what = match punch.kind {
        PunchKind::In => "work started",
        PunchKind::Out => "work ended",
        PunchKind::BreakStart => "break started",
        PunchKind::BreakEnd => "break ended",
    };
    let who = match (&punch.name, &punch.badge) {
        (Some(who), _) => name(who).to_string(),
        (None, Some(badge)) => format!("badge {}", name(badge)),
        (None, None) => "unknown".to_owned(),
    };
    let notice = match punch.notice {
        Some(Notice::UnknownBadge) => " This badge isn't known here: a manager will look at it.",
        Some(Notice::PinNotChecked) => " The PIN couldn't be checked here; the badge counts.",
        None => "",
    };
    let sent = if punch.offline { "It will be sent when the server is in reach." } else { "" };
    let recorded = format!(
        "Recorded: {what} at {} by {who} (number {}, {}).{notice} {sent}",
        punch.local_time, punch.seq, punch.punch
    );
    format!("{}{}", recorded.trim_end(), advised(&punch.guidance, language))
}

/// Another picture that is on disk.
pub fn retaken(kept: &Retaken, language: Language) -> String {
    format!(
        "Kept: picture {} of punch {}. It will be sent when the server is in reach.{}",
        kept.attempt,
        kept.punch,
        advised(&kept.guidance, language)
    )
}

/// What the worker can do, a line each.
fn advised(guidance: &[Guidance], language: Language) -> String {
    guidance.iter().map(|advice| format!("\n  {}", advice.text(language))).collect()
}

/// What the server made of a punch's pictures.
pub fn judged(verdict: &Judged) -> String {
    let standing = match verdict.standing.as_str() {
        "recorded" => "is recorded and counts",
        "accepted" => "is accepted",
        "referred" => "counts; a manager will look at it",
        "rejected" => "was rejected by a manager",
        "voided" => "was voided by a manager",
        other => return format!("The punch stands as {}.", name(other)),
    };
    let pictures = match (verdict.attempt, verdict.guidance.is_empty()) {
        (None, _) => " No picture of it was looked at yet.".to_owned(),
        (Some(_), true) => String::new(),
        (Some(0), false) => " The photo can't be used:".to_owned(),
        (Some(attempt), false) => format!(" Picture {attempt} can't be used:"),
    };
    let advice: String = verdict
        .guidance
        .iter()
        .map(|advice| format!("\n  {}", name(advice.text.unwrap_or(&advice.code))))
        .collect();
    let again = match verdict.retake {
        true => format!(
            "\nAnother picture may help: punchtrail-device retake --punch {} --photo FILE",
            verdict.punch
        ),
        false => String::new(),
    };
    format!("The punch {standing}.{pictures}{advice}{again}")
}

/// What a sync did, and what still waits.
pub fn synced(report: &SyncReport) -> String {
    let SyncReport { delivered, attachments_delivered, disputes_delivered, .. } = *report;
    let beside = (disputes_delivered, attachments_delivered, report.photos_delivered);
    let done = format!("{} delivered.", counted(delivered, beside));
    let beside = (report.disputes_waiting, report.attachments_waiting, report.photos_waiting);
    let waiting = format!("{} still wait, safe on this device", counted(report.waiting, beside));
    match (&report.error, report.complete) {
        (None, true) => format!("{done} Nothing waits."),
        (Some(error), true) => {
            format!("{done} Nothing waits. Not everything went well: {}", sentence(&error.detail))
        }
        (Some(error), false) if report.left() == 0 => format!(
            "{done} Nothing waits, but the server can't be asked: {}. Try again later.",
            sentence(&error.detail)
        ),
        (Some(error), false) => format!(
            "{done} {waiting}, and nothing is lost. Gave up at {}: {}. Try again later, or leave \
             `run` at work.",
            doing(error.of),
            sentence(&error.detail)
        ),
        (None, false) => format!("{done} {waiting}. Try again."),
    }
}

/// Punches, disputes, retakes and photos; of the rare ones only what there is.
fn counted(punches: u64, (disputes, retakes, photos): (u64, u64, u64)) -> String {
    let rare = |count: u64, what: &str| match count {
        0 => String::new(),
        _ => format!(", {count} {what}"),
    };
    let (disputes, retakes) = (rare(disputes, "disputes"), rare(retakes, "retakes"));
    format!("{punches} punches{disputes}{retakes} and {photos} photos")
}

/// A kind of call, by its word, as one does it.
fn doing(of: &str) -> &str {
    match of {
        "heartbeat" => "reporting to the server",
        "manifest" => "fetching the manifest",
        "commands" => "fetching and answering commands",
        "attachments" => "delivering retakes",
        "disputes" => "delivering disputes",
        "photos" => "delivering photos",
        _ => "delivering punches",
    }
}

/// A device's account of itself.
pub fn described(status: &Status) -> String {
    let Some(current) = &status.current else {
        return "Not enrolled. Run `punchtrail-device enroll` with a pairing code.".to_owned();
    };
    let mut lines = identity_lines(current);
    lines.push(format!(
        "  manifest       {} people, {}",
        status.employees,
        status
            .roster_version
            .as_deref()
            .map_or("to be walked".to_owned(), |version| format!("version {}", name(version)))
    ));
    if let Some(of) = status.roster_site.filter(|of| *of != current.site) {
        lines.push(format!(
            "  moved          from site {of}, whose people it knows until it has its new site's"
        ));
    }
    lines.push(match status.clock.ahead_of_server_ms {
        Some(ms) => format!(
            "  clock          {} ({} s {} the server's at the last contact)",
            local(status.clock.now),
            ms.unsigned_abs() / 1_000,
            if ms < 0 { "behind" } else { "ahead of" }
        ),
        None => format!("  clock          {}", local(status.clock.now)),
    });
    lines.push(match status.agent_pid {
        Some(pid) => format!("  agent          process {pid}"),
        None => {
            "  agent          not running: nothing is delivered until `run` or `sync`".to_owned()
        }
    });
    for message in &status.messages {
        lines.push(format!("  message        {}", sentence(&message.text)));
    }
    for earlier in &status.earlier {
        lines.push("earlier, until it is empty:".to_owned());
        lines.extend(identity_lines(earlier));
    }
    lines.join("\n")
}

fn identity_lines(identity: &IdentityStatus) -> Vec<String> {
    let oldest =
        identity.oldest.map_or(String::new(), |at| format!(", the oldest from {}", local(at)));
    let mut lines = vec![
        format!("device {} ({})", identity.device, name(&identity.name)),
        format!("  server         {}, site {}", name(&identity.server), identity.site),
        format!(
            "  waiting        {} punches{oldest}; {} retakes; {} photos{}",
            identity.outbox,
            identity.attachments,
            identity.photos,
            if identity.photos_sealed { ", sealed to the server" } else { "" }
        ),
        format!(
            "  made           {}; the server holds all through {}; {} kept in case it is restored",
            identity.last_seq, identity.acked_through, identity.kept
        ),
        format!("  last contact   {}", identity.last_contact.map_or("never".to_owned(), local)),
    ];
    for error in &identity.errors {
        let (code, detail) = (name(&error.code), sentence(&error.detail));
        let (what, times) = (doing(error.of), error.times);
        let last = local(error.at);
        lines.push(format!("  failing        {what}, {times} in a row, the last {last}"));
        lines.push(format!("                 {code}: {detail}"));
    }
    if identity.refused + identity.photos_refused > 0 {
        lines.push(format!(
            "  refused        {} punches and {} photos, kept and tried again behind the others",
            identity.refused, identity.photos_refused
        ));
    }
    if identity.disputes > 0 {
        lines.push(format!(
            "  disputes       {} wait, of those {} that the server did not take yet",
            identity.disputes, identity.disputes_refused
        ));
    }
    for untaken in identity.untaken_disputes.iter().take(1) {
        let (code, why) = (untaken.code.as_deref(), untaken.detail.as_deref());
        let (code, why) = (name(code.unwrap_or_default()), sentence(why.unwrap_or_default()));
        lines.push(format!("                 {}: {code}: {why}", untaken.dispute));
    }
    if identity.photos_lost > 0 {
        lines.push(format!("  photos lost    {}: their files are gone", identity.photos_lost));
    }
    if identity.photos_erased > 0 {
        lines.push(format!("  photos erased  {}", identity.photos_erased));
    }
    if identity.attachments_failed > 0 {
        lines.push(format!(
            "  not taken      {} retakes, kept here; their punches stand. The last:",
            identity.attachments_failed
        ));
    }
    for failed in identity.failed_attachments.iter().take(1) {
        let (code, detail) = (name(&failed.code), sentence(&failed.detail));
        lines.push(format!(
            "                 picture {} of punch {}: {code}: {detail}",
            failed.attempt, failed.punch
        ));
    }
    if identity.ended {
        let unreadable = identity
            .unreadable
            .map_or("nobody can know how many".to_owned(), |count| count.to_string());
        lines.push(format!(
            "  ENDED          salvaged from a damaged database: {unreadable} confirmed punches \
             could not be read. It delivers the others; to punch here, enrol anew"
        ));
    }
    if identity.behind_server {
        lines.push(
            "  WARNING        the server knows later numbers than this folder: it is an old copy \
             of itself, or another device uses a copy. Enrol it anew"
                .to_owned(),
        );
    }
    lines
}
