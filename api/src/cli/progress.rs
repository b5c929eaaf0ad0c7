//! Progress bars on stderr, when it is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec}, {eta} left";

/// A bar that is hidden unless stderr is a terminal.
pub(super) fn bar(doing: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}

/// The same bar for a step of which nobody knows how long it takes.
pub(super) fn waiting(bar: &ProgressBar, doing: &'static str) {
    if let Ok(style) = ProgressStyle::with_template("{msg} {spinner}") {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar.enable_steady_tick(Duration::from_millis(100));
}

/// Shows a step of something longer: how much of how much is done, or that it is going on where
/// nobody knows.
pub(super) fn step(bar: &ProgressBar, doing: &'static str, done: u64, all: u64) {
    if bar.message() != doing {
        match all {
            0 => waiting(bar, doing),
            _ => {
                bar.disable_steady_tick();
                if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                    bar.set_style(style);
                }
                bar.set_message(doing);
            }
        }
    }
    if all > 0 {
        bar.set_length(all);
        bar.set_position(done);
    }
}

/// A bar of which its message says how far it is.
pub(super) fn told() -> ProgressBar {
    let bar = bar("");
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar}") {
        bar.set_style(style);
    }
    bar
}
