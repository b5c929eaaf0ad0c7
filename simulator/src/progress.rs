//! Bars for whoever waits in front of a terminal, a line now and then for whoever reads a log.

use std::{sync::Arc, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Fleet;

/// How often the bar of the storm moves, in milliseconds.
const LOOK_MS: u64 = 500;
/// How often a log gets a line, in seconds.
const LINE_S: u64 = 30;

/// Where progress is shown.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: MultiProgress,
    lines: bool,
}

impl Progress {
    /// Bars on stderr; a line now and then where that is no terminal.
    pub fn shown() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(4));
        let lines = bars.is_hidden();
        Self { bars, lines }
    }

    /// Nothing.
    pub fn hidden() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        Self { bars, lines: false }
    }

    pub(crate) fn begin(&self, what: &'static str, total: u64) -> ProgressBar {
        if self.lines {
            eprintln!("{what}: {total}");
        }
        let style = ProgressStyle::with_template(
            "{prefix:>18} {bar:32} {human_pos}/{human_len} {elapsed} {msg}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(ProgressBar::new(total).with_style(style).with_prefix(what));
        bar.enable_steady_tick(Duration::from_millis(LOOK_MS));
        bar
    }
}

/// Moves the storm's bar until it is `over`.
pub(crate) async fn watch(fleet: Arc<Fleet>, bar: ProgressBar, over: CancellationToken) {
    let mut line_at = Instant::now() + Duration::from_secs(LINE_S);
    let mut before = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
            () = over.cancelled() => {
                bar.set_position(fleet.meter.glance().0);
                bar.finish();
                return;
            }
        }
        let (acknowledged, sheds) = fleet.meter.glance();
        bar.set_position(acknowledged);
        bar.set_message(format!("{sheds} shed"));
        if bar.is_hidden() && Instant::now() >= line_at {
            line_at += Duration::from_secs(LINE_S);
            tracing::info!(
                acknowledged,
                sheds,
                per_s = (acknowledged - before) / LINE_S,
                elapsed_s = fleet.meter.elapsed().as_secs(),
                "delivering"
            );
            before = acknowledged;
        }
    }
}
