//! The operator's command line.
//!
//! Every command works whether or not a server runs on the same data directory: the embedded
//! database is shared, and a command appends through a committer of its own. With `--json` a
//! command prints exactly one JSON object on stdout; without, text for people. Logs and progress go
//! to stderr.
//!
//! Exit codes: 0 done; 1 refused or failed, and of `ledger verify` that the ledger was tampered
//! with; 2 the command line was wrong; 3 that `ledger verify` could not be carried through.
//!
//! A command never guesses: what it can't find, it says how to find. It never asks on a terminal,
//! so that scripts don't hang.

mod admin;
mod answer;
mod audit;
mod backup;
mod badge;
mod checkpoint;
mod device;
mod dispute;
mod doctor;
mod employee;
mod erase;
mod events;
mod export;
mod face;
mod figures;
mod identity;
mod key;
mod ledger;
mod look;
mod manual;
mod named;
mod openid;
mod photo;
mod progress;
mod projection;
mod punch;
mod punches;
mod queue;
mod replay;
mod restore;
mod review;
mod ruling;
mod serve;
mod site;
mod source;
mod timecard;
mod trail;
mod units;
mod unknown;
mod user;
mod webhook;

use std::{io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use answer::Answer;
use source::Source;

/// Records when people start and stop work, and can always say why a punch stands as it stands.
#[derive(Debug, Parser)]
#[command(name = "punchtrail", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(flatten)]
    source: Source,

    /// Print exactly one JSON object on stdout
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Begin with:
  punchtrail --data-dir data serve                       (and leave it running)
  punchtrail --data-dir data site add --name Mill --tz Europe/Berlin
  punchtrail --data-dir data employee import roster.csv
  punchtrail --data-dir data device pair --site Mill
Every command: docs/command-line.md";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server until SIGTERM or Ctrl-C
    Serve(Box<serve::Serve>),
    /// Make a backup of everything, while the server runs
    Backup(backup::Backup),
    /// Put a backup back where nothing is, and serve it until the devices brought what it lacks
    Restore(Box<restore::Restore>),
    /// The way in for the first admin, and for one who is locked out
    #[command(subcommand)]
    Admin(admin::Admin),
    /// People who sign in: invited, their roles, their sessions
    #[command(subcommand)]
    User(user::UserCommand),
    /// Operators' keys for the HTTP API
    #[command(subcommand)]
    Key(key::Key),
    /// Who did what that bears on security
    #[command(subcommand)]
    Audit(trail::Trail),
    /// Sites: where people work, and the policy that judges their punches
    #[command(subcommand)]
    Site(site::Site),
    /// Employees
    #[command(subcommand)]
    Employee(employee::Employee),
    /// Badges: those that nobody is known to have held
    #[command(subcommand)]
    Badge(badge::Badge),
    /// Faces: what people agreed to, and the photos that pictures are compared with
    #[command(subcommand)]
    Face(face::Face),
    /// Erase what is kept of a person
    #[command(subcommand)]
    Erase(erase::Erase),
    /// Give out what is held of a person, for them to have
    #[command(subcommand)]
    Export(export::Export),
    /// Pictures of punches and of people; each look is written down
    #[command(subcommand)]
    Photo(photo::Photo),
    /// The queue of face checks, and what nobody could check
    Queue(queue::Queue),
    /// Devices that capture punches
    #[command(subcommand)]
    Device(device::Device),
    /// One punch: what became of it, and why
    #[command(subcommand)]
    Punch(punch::Punch),
    /// A person's worked time, day by day
    Timecard(timecard::Timecard),
    /// What waits for a person's ruling
    #[command(subcommand)]
    Review(review::ReviewCommand),
    /// Disputes: what workers say isn't right, and what people make of it
    #[command(subcommand)]
    Dispute(dispute::DisputeCommand),
    /// Webhooks: whom events are sent to, and what became of that
    Webhook(webhook::Webhook),
    /// Figures week by week: disputes, referred punches, checks, how late punches came
    Figures(figures::Figures),
    /// The ledger: its state, its events, whether it was tampered with
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Read models, which can be rebuilt from the ledger at any time
    #[command(subcommand)]
    Projection(projection::Projection),
    /// Signed checkpoints, which show whether history was changed
    #[command(subcommand)]
    Checkpoint(checkpoint::Checkpoint),
    /// What is missing, unsafe or out of date, each with its cure; exit 1 if something is
    Doctor(Box<doctor::Doctor>),
    /// Print what makes a shell complete these commands
    Completions(manual::Completions),
    /// Write a manual page of each command
    Man(manual::Man),
}

/// Runs the command that was typed.
pub(crate) fn run() -> ExitCode {
    let Arguments { source, json, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return answer::mistyped(&error),
    };
    let Some(command) = command else {
        // Asked for nothing: show what can be asked for. A reader that has gone needs no help.
        let _ = Arguments::command().print_help();
        return ExitCode::from(answer::EXIT_USAGE);
    };
    log(match &command {
        Command::Serve(_) => true,
        // Its bar and a log would write over each other.
        Command::Restore(_) => !std::io::stderr().is_terminal(),
        _ => false,
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return answer::refused(
                &anyhow::Error::new(error).context("no threads to be had"),
                json,
            );
        }
    };
    match runtime.block_on(dispatch(source, json, command)) {
        Ok(answer) => answer.print(json),
        Err(error) => answer::refused(&error, json),
    }
}

async fn dispatch(source: Source, json: bool, command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Serve(command) => command.run(source, json).await,
        Command::Backup(command) => command.run(source).await,
        Command::Restore(command) => command.run(source, json).await,
        Command::Admin(command) => command.run(source).await,
        Command::User(command) => command.run(source).await,
        Command::Key(command) => command.run(source).await,
        Command::Audit(command) => command.run(source).await,
        Command::Site(command) => command.run(source).await,
        Command::Employee(command) => command.run(source).await,
        Command::Badge(command) => command.run(source).await,
        Command::Face(command) => command.run(source).await,
        Command::Erase(command) => command.run(source).await,
        Command::Export(command) => command.run(source).await,
        Command::Photo(command) => command.run(source).await,
        Command::Queue(command) => command.run(source).await,
        Command::Device(command) => command.run(source).await,
        Command::Punch(command) => command.run(source).await,
        Command::Timecard(command) => command.run(source).await,
        Command::Review(command) => command.run(source).await,
        Command::Dispute(command) => command.run(source).await,
        Command::Webhook(command) => command.run(source).await,
        Command::Figures(command) => command.run(source).await,
        Command::Ledger(command) => command.run(source, json).await,
        Command::Projection(command) => command.run(source).await,
        Command::Checkpoint(command) => command.run(source).await,
        Command::Doctor(command) => command.run(source).await,
        Command::Completions(command) => command.run(Arguments::command(), json),
        Command::Man(command) => command.run(Arguments::command()),
    }
}

/// A server tells what it does; a command only what goes wrong.
fn log(serving: bool) {
    // The driver tells of every relation that is there already, and of every connection that a
    // Postgres which we stop ourselves closes.
    let level = match serving {
        true => "info,sqlx=warn,sqlx_core::pool=error",
        false => "warn,sqlx=error,sqlx_core::pool=error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // A log on a full disk loses lines. Complaining of that on stderr would panic whoever wrote
        // one.
        .log_internal_errors(false);
    // A second subscriber can't be there: this is the only place that sets one.
    let _ = subscriber.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_page_of_flags_is_what_is_parsed() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        punchtrail_testkit::page_holds(page, &Arguments::command());
        let text = std::fs::read_to_string(page).unwrap();
        assert!(text.contains(openid::SECRET_VARIABLE), "it has no flag");
    }

    #[test]
    fn what_concerns_all_commands_may_stand_before_or_after() {
        for line in [
            &["punchtrail", "--data-dir", "d", "--json", "key", "list"][..],
            &["punchtrail", "key", "list", "--json", "--data-dir", "d"][..],
        ] {
            let arguments = Arguments::try_parse_from(line).unwrap();
            assert!(arguments.json);
            assert_eq!(arguments.source.data_dir.as_deref(), Some("d".as_ref()));
        }
    }
}
