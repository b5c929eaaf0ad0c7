//! What a device last said of itself, always marked as its report.

use punchtrail_protocol::DeviceId;

use super::{Speaker, words::many};
use crate::explanation::Backlog;

/// By the device's last report, how many punches it holds.
pub(in crate::explanation) fn sentence(
    speaker: &Speaker<'_>,
    device: DeviceId,
    report: &Backlog,
) -> String {
    let (when, device) = (speaker.when_about(report.reported_at), speaker.device_within(device));
    let held = match (report.waiting, report.oldest) {
        (0, _) => "no punches that wait to be sent".to_owned(),
        (1, Some(oldest)) => format!("1 punch, from {}", speaker.clock(oldest)),
        (count, Some(oldest)) => {
            format!("{}, the oldest from {}", many(count, "punch"), speaker.clock(oldest))
        }
        (count, None) => many(count, "punch"),
    };
    let said = format!("By its last report {when}, {device}");
    match (report.waiting > 0, report.has_come_since()) {
        (true, false) => format!("{said} still holds {held}."),
        (true, true) => format!("{said} held {held}; all it had made by then has arrived since."),
        (false, true) => format!("{said} holds {held}."),
        (false, false) => format!(
            "{said} holds {held}, though it had made them up to number {}; the ledger has them \
             without a gap up to number {}.",
            report.made_through, report.held_through
        ),
    }
}
