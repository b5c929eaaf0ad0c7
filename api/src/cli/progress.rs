//! Progress bars on stderr, when it is a terminal: drawn a few times a second, each number in its
//! own place, so that nothing jumps about. What is done within a moment shows none.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str = "{msg} {wide_bar} {percent:>3} % {human_pos:>11} of {human_len}  {eta:>4}";
const IN_WORDS: &str = "{msg} {wide_bar}";
/// How often it is drawn.
const DRAWS_A_SECOND: u8 = 4;
/// What takes no longer is done before anybody has read what it does.
const HIDDEN: Duration = Duration::from_millis(700);
/// A spinner's.
const TICK_EVERY: Duration = Duration::from_millis(250);

/// A bar, hidden at first, and for ever unless stderr is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    began: Instant,
    is_shown: AtomicBool,
}

impl Progress {
    /// What is being done.
    pub(super) fn of(doing: &'static str) -> Self {
        let progress = Self::with(TEMPLATE);
        progress.bar.set_message(doing);
        progress
    }

    /// Steps that are named as they come.
    pub(super) fn of_steps() -> Self {
        Self::with(TEMPLATE)
    }

    /// One of which its words say how far it is.
    pub(super) fn in_words() -> Self {
        Self::with(IN_WORDS)
    }

    fn with(template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        style(&bar, template);
        Self { bar, began: Instant::now(), is_shown: AtomicBool::new(false) }
    }

    /// How far it is.
    pub(super) fn at(&self, done: u64, of: u64) {
        self.show();
        if self.bar.length() != Some(of) {
            self.bar.set_length(of);
        }
        self.bar.set_position(done);
    }

    /// A step begins of which nobody knows how long it takes.
    pub(super) fn waits(&self, doing: &'static str) {
        self.show();
        style(&self.bar, "{msg} {spinner}");
        self.bar.set_message(doing);
        self.bar.enable_steady_tick(TICK_EVERY);
    }

    /// A step: how much of how much is done, or that it goes on, of which nobody knows how much.
    pub(super) fn step(&self, doing: &'static str, done: u64, of: u64) {
        let is_new = self.bar.message() != doing;
        if of == 0 {
            if is_new {
                self.waits(doing);
            }
            return;
        }
        if is_new {
            self.bar.disable_steady_tick();
            style(&self.bar, TEMPLATE);
            self.bar.set_message(doing);
        }
        self.at(done, of);
    }

    /// How far it is, in words, too.
    pub(super) fn says(&self, words: String, done: u64, of: u64) {
        self.bar.set_message(words);
        self.at(done, of);
    }

    /// It shows no more.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        let is_time = self.began.elapsed() >= HIDDEN;
        if is_time && !self.is_shown.swap(true, Ordering::Relaxed) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_A_SECOND));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}
