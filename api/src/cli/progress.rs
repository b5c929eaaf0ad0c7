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
