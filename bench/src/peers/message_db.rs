//! Message DB, event store in Postgres functions: `write_message` with the expected version, eight
//! callers at once.
//!
//! Installed by its package's own script; written to as its own role. Its documentation knows
//! batches, in one transaction, of one stream's messages: a punch's three events. A writer holds
//! its category's lock until the commit, so the callers wait for each other's; since its functions
//! are plain SQL, many punches may share a transaction, and the lock.

use std::{env, ffi::OsString, path::Path, process::Command, str::FromStr};

use anyhow::{Context, ensure};
use cqrs_es::DomainEvent;
use punchtrail_domain::punch::PunchEvent;
use sqlx::{
    PgConnection,
    postgres::{PgConnectOptions, PgPool},
    types::Json,
};
use uuid::Uuid;

use super::{Punch, connect, finish, punches, side_by_side};

/// The role, with a schema of its name, that the package's script makes for writers.
const ROLE: &str = "message_store";
/// As the user guide calls it; metadata there is optional.
const WRITE: &str =
    "select write_message($1::varchar, $2::varchar, $3::varchar, $4::jsonb, null, $5::bigint)";

/// A message as `write_message` takes it.
struct Message {
    id: String,
    stream: String,
    event: PunchEvent,
    expected_version: i64,
}

/// Writes three messages a punch, each transaction with those of `batch_punches` punches. `package`
/// is the unpacked package, whose script runs `psql`.
///
/// # Errors
/// When the package can't be installed, a write is refused, or another number of messages is there
/// in the end.
pub async fn write(
    url: &str,
    package: &Path,
    psql: &Path,
    batch_punches: usize,
    count: usize,
) -> anyhow::Result<f64> {
    let options = PgConnectOptions::from_str(url)?;
    install(&options, package, psql)?;
    let pool = connect(options.username(ROLE)).await?;
    let mut punches = punches(count).into_iter().peekable();
    let mut batches: Vec<Vec<Message>> = Vec::new();
    while punches.peek().is_some() {
        batches.push(punches.by_ref().take(batch_punches).flat_map(messages).collect());
    }
    let writers = pool.clone();
    let rate = side_by_side(count, batches, move |batch| write_batch(writers.clone(), batch));
    let rate = rate.await?;
    finish(pool, "messages", 3 * count).await?;
    Ok(rate)
}

fn messages((punch, events): Punch) -> impl Iterator<Item = Message> {
    (-1..).zip(events).map(move |(expected_version, event)| Message {
        id: Uuid::now_v7().to_string(),
        stream: format!("punch-{punch}"),
        event,
        expected_version,
    })
}

async fn write_batch(pool: PgPool, batch: Vec<Message>) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    for message in &batch {
        write_message(&mut transaction, message).await?;
    }
    Ok(transaction.commit().await?)
}

async fn write_message(connection: &mut PgConnection, message: &Message) -> anyhow::Result<()> {
    sqlx::query(WRITE)
        .bind(&message.id)
        .bind(&message.stream)
        .bind(message.event.event_type())
        .bind(Json(&message.event))
        .bind(message.expected_version)
        .execute(connection)
        .await?;
    Ok(())
}

/// Runs the package's own script on an existing database, as its superuser.
fn install(options: &PgConnectOptions, package: &Path, psql: &Path) -> anyhow::Result<()> {
    let socket = options.get_socket().context("the run's Postgres listens on a socket")?;
    let database = options.get_database().context("the database has a name")?;
    let script = package.join("database/install.sh");
    let output = Command::new("bash")
        .arg(&script)
        .env("PATH", path_with(psql)?)
        .env("PGHOST", socket)
        .env("PGPORT", options.get_port().to_string())
        .env("PGUSER", options.get_username())
        .env("DATABASE_NAME", database)
        .env("CREATE_DATABASE", "off")
        .output()
        .with_context(|| format!("run {}", script.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {said}", script.display());
    Ok(())
}

/// The search path, with the folder of `program` first.
fn path_with(program: &Path) -> anyhow::Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folder = program.parent().map(Path::to_owned);
    Ok(env::join_paths(folder.into_iter().chain(env::split_paths(&path)))?)
}
