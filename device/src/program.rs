//! What the programs that run devices do alike around their work: log, listen for the end, speak.

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
};

use punchtrail_protocol::shown::Shown;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, field::MakeExt, fmt::format::debug_fn};

/// Logs to stderr what `RUST_LOG` chooses, or `default_filter`. Whatever a server said stands in it
/// as it may be shown.
pub fn log(default_filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default_filter.into());
    let fields = debug_fn(|out, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(out, "{}", Shown::new(&value)),
            name => write!(out, "{name}={}", Shown::new(&value)),
        }
    });
    tracing_subscriber::fmt()
        .fmt_fields(fields.delimited(" "))
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A log on a full disk loses lines. Complaining of that on stderr would panic whoever wrote
        // one.
        .log_internal_errors(false)
        .init();
}

/// What SIGINT or SIGTERM cancels, and who listens for them until aborted.
///
/// # Errors
/// When the system lets nobody listen.
pub fn stop_on_signal() -> io::Result<(CancellationToken, JoinHandle<()>)> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let asked = stop.clone();
    let listener = tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        asked.cancel();
    });
    Ok((stop, listener))
}

/// Says something on stdout. A reader that has gone changes nothing about what was done.
pub fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// An error with its causes, as far as its own text doesn't say them already.
pub fn whole(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}
