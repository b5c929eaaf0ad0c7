//! Commands to devices: which wait, and what became of each. Texts stand beside the ledger and are
//! joined when read, so that what is erased there is gone everywhere.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    AggregateType, Event, Recorded,
    device::{DeviceEvent, Instruction},
};
use punchtrail_infra::{
    ledger::{Entry, ReadError, streams},
    postgres::Pool,
};
use punchtrail_protocol::{
    CommandId, DeviceId, Digest, EmployeeId, Position, Time,
    command::{COMMANDS_GIVEN_MAX, CommandArgs, CommandStatus, CommandType},
    wire::WaitingCommand,
};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use crate::engine::{
    Generation, Projection, ProjectionError,
    columns::{parsed, time, time_or_none},
    page::Page,
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "device_commands";

/// The model.
#[derive(Debug)]
pub struct DeviceCommands;

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum CommandState {
    /// Nothing was heard of it yet.
    Waiting,
    Done,
    /// The device tried, and couldn't.
    Failed,
    /// The device doesn't know such a command, or wouldn't act on it.
    Refused,
    /// Its time was over before anything was heard of it.
    Expired,
    /// Somebody took it back.
    Cancelled,
}

impl CommandState {
    /// The state as the API and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<CommandStatus> for CommandState {
    fn from(status: CommandStatus) -> Self {
        match status {
            CommandStatus::Done => Self::Done,
            CommandStatus::Failed => Self::Failed,
            CommandStatus::Refused => Self::Refused,
        }
    }
}

impl Projection for DeviceCommands {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["device_commands"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {table} (
                 -- Serves one command, and what became of it.
                 command     uuid primary key,
                 device      uuid not null,
                 type        text not null,
                 employee    uuid,
                 taken_until timestamptz,
                 -- Of the text that belongs to it.
                 note        bytea,
                 issued_at   timestamptz not null,
                 -- Who issued it, as its event's metadata says.
                 issued_by   text,
                 expires_at  timestamptz not null,
                 state       text not null,
                 settled_at  timestamptz,
                 -- Of what the device said of it.
                 detail      bytea,
                 -- Of the event that issued it: the order of the list.
                 position    bigint not null
             )",
            table = generation.table("device_commands"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        format!(
            "-- Serves a device's commands, newest first.
             create index if not exists {list} on {table} (device, position);
             -- Serves what waits for a device, which each heartbeat asks.
             create index if not exists {waiting} on {table} (device, position)
                 where state = 'waiting';
             -- Serves those whose time is over.
             create index if not exists {due} on {table} (expires_at) where state = 'waiting';",
            table = generation.table("device_commands"),
            list = generation.index("device_commands", "device"),
            waiting = generation.index("device_commands", "waiting"),
            due = generation.index("device_commands", "due"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let table = generation.table("device_commands");
            let of_a_device =
                |entry: &&Arc<Entry>| entry.recorded.aggregate_type == AggregateType::Device;
            let mut issued = Vec::new();
            let mut settled = HashMap::new();
            for entry in events.iter().filter(of_a_device) {
                let Event::Device(device, event) = entry.event()? else { continue };
                if let DeviceEvent::CommandIssued { command, instruction, expires_at } = event {
                    let (expires_at, entry) = (*expires_at, entry.as_ref());
                    issued.push(Issued {
                        device: *device,
                        command: *command,
                        instruction: *instruction,
                        expires_at,
                        entry,
                    });
                }
                if let Some((command, state, detail)) = outcome(event) {
                    settled.insert(command, Settled { state, detail, entry: entry.as_ref() });
                }
            }
            insert(tx, &table, &issued).await?;
            settle(tx, &table, &settled).await
        })
    }
}

/// What an event says became of a command.
fn outcome(event: &DeviceEvent) -> Option<(CommandId, CommandState, Option<Digest>)> {
    match *event {
        DeviceEvent::CommandFinished { command, status, note } => {
            Some((command, status.into(), note))
        }
        DeviceEvent::CommandExpired { command } => Some((command, CommandState::Expired, None)),
        DeviceEvent::CommandCancelled { command } => Some((command, CommandState::Cancelled, None)),
        _ => None,
    }
}

struct Issued<'a> {
    device: DeviceId,
    command: CommandId,
    instruction: Instruction,
    expires_at: Time,
    entry: &'a Entry,
}

struct Settled<'a> {
    state: CommandState,
    detail: Option<Digest>,
    entry: &'a Entry,
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    issued: &[Issued<'_>],
) -> Result<(), ProjectionError> {
    if issued.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "insert into {table} (command, device, type, employee, taken_until, note, issued_at, \
             issued_by, expires_at, position, state) \
         select *, 'waiting' from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], \
             $5::timestamptz[], $6::bytea[], $7::timestamptz[], $8::text[], $9::timestamptz[], \
             $10::bigint[])"
    );
    let column = |of: &dyn Fn(&Issued<'_>) -> Uuid| issued.iter().map(of).collect::<Vec<_>>();
    let people: Vec<_> = issued.iter().map(|one| person(&one.instruction)).collect();
    let recorded = |one: &Issued<'_>| one.entry.recorded.recorded_at.to_sqlx();
    let actor = |one: &Issued<'_>| one.entry.recorded.actor().map(|actor| actor.to_string());
    let note = |one: &Issued<'_>| one.instruction.note().map(|note| note.0.to_vec());
    sqlx::query(&statement)
        .bind(column(&|one| one.command.uuid()))
        .bind(column(&|one| one.device.uuid()))
        .bind(issued.iter().map(|one| one.instruction.kind().as_str()).collect::<Vec<_>>())
        .bind(people.iter().map(|of| of.map(|(of, _)| of.uuid())).collect::<Vec<_>>())
        .bind(
            people
                .iter()
                .map(|of| of.map(|(_, until)| until.timestamp().to_sqlx()))
                .collect::<Vec<_>>(),
        )
        .bind(issued.iter().map(note).collect::<Vec<_>>())
        .bind(issued.iter().map(recorded).collect::<Vec<_>>())
        .bind(issued.iter().map(actor).collect::<Vec<_>>())
        .bind(issued.iter().map(|one| one.expires_at.timestamp().to_sqlx()).collect::<Vec<_>>())
        .bind(issued.iter().map(|one| one.entry.recorded.position.to_db()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn settle(
    tx: &mut PgConnection,
    table: &str,
    settled: &HashMap<CommandId, Settled<'_>>,
) -> Result<(), ProjectionError> {
    let Some(last) = settled.values().map(|one| one.entry.recorded.position).max() else {
        return Ok(());
    };
    let (mut commands, mut states, mut times, mut details) = (vec![], vec![], vec![], vec![]);
    for (command, one) in settled {
        commands.push(command.uuid());
        states.push(one.state.as_str());
        times.push(one.entry.recorded.recorded_at.to_sqlx());
        details.push(one.detail.map(|detail| detail.0.to_vec()));
    }
    let statement = format!(
        "update {table} as held set state = now.state, settled_at = now.settled_at, \
             detail = now.detail \
         from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bytea[]) \
             as now (command, state, settled_at, detail) \
         where held.command = now.command"
    );
    let done = sqlx::query(&statement)
        .bind(&commands)
        .bind(states)
        .bind(times)
        .bind(details)
        .execute(tx)
        .await?;
    if done.rows_affected() == commands.len() as u64 {
        return Ok(());
    }
    Err(ProjectionError::inconsistent(last, "a settled command is not in the model"))
}

/// A command to a device, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommandView {
    pub command: CommandId,
    pub device: DeviceId,
    #[serde(rename = "type")]
    pub kind: CommandType,
    /// Those of its type; a text that was erased is left out.
    pub args: CommandArgs,
    pub issued_at: Time,
    /// Who issued it.
    pub issued_by: Option<String>,
    /// Not to be acted on any more from then.
    pub expires_at: Time,
    pub state: CommandState,
    /// When that was recorded; null while it waits.
    pub settled_at: Option<Time>,
    /// What the device said of it, unless that was erased.
    pub detail: Option<String>,
    /// Position of the event that issued it.
    pub position: Position,
}

impl FromRow<'_, PgRow> for CommandView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            command: CommandId(row.try_get("command")?),
            device: DeviceId(row.try_get("device")?),
            kind: parsed(row, "type")?,
            args: args(row)?,
            issued_at: time(row, "issued_at")?,
            issued_by: row.try_get("issued_by")?,
            expires_at: time(row, "expires_at")?,
            state: parsed(row, "state")?,
            settled_at: time_or_none(row, "settled_at")?,
            detail: row.try_get("said")?,
            position: Position::from_db(row.try_get("position")?),
        })
    }
}

fn args(row: &PgRow) -> Result<CommandArgs, sqlx::Error> {
    Ok(CommandArgs {
        text: row.try_get("text")?,
        employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
        taken_until: time_or_none(row, "taken_until")?,
    })
}

/// A device's commands, newest first, before `before`; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    device: DeviceId,
    before: Option<Position>,
    limit: u32,
) -> Result<Page<CommandView>, sqlx::Error> {
    let rows = sqlx::query_as(
        "select command.*, note.body as text, detail.body as said \
         from read.device_commands command \
         left join notes note on note.digest = command.note \
         left join notes detail on detail.digest = command.detail \
         where command.device = $1 and command.position < $2 \
         order by command.position desc limit $3",
    )
    .bind(device.uuid())
    .bind(before.map_or(i64::MAX, Position::to_db))
    .bind(Page::<CommandView>::to_ask(limit))
    .fetch_all(pool)
    .await?;
    Ok(Page::cut(rows, limit))
}

/// What waits for a device at `now`, the oldest first; at most [`COMMANDS_GIVEN_MAX`]. A message
/// whose text was erased is given no more.
///
/// # Errors
/// When the database is out of reach.
pub async fn waiting(
    pool: &Pool,
    device: DeviceId,
    now: Time,
) -> Result<Vec<WaitingCommand>, sqlx::Error> {
    sqlx::query(
        "select command.command, command.type, command.employee, command.taken_until, \
             command.expires_at, note.body as text \
         from read.device_commands command left join notes note on note.digest = command.note \
         where command.device = $1 and command.state = 'waiting' and command.expires_at > $2 \
         and (command.note is null or note.body is not null) \
         order by command.position limit $3",
    )
    .bind(device.uuid())
    .bind(now.timestamp().to_sqlx())
    .bind(COMMANDS_GIVEN_MAX as i64)
    .try_map(|row: PgRow| {
        Ok(WaitingCommand {
            command: CommandId(row.try_get("command")?),
            kind: parsed(&row, "type")?,
            args: args(&row)?,
            expires_at: time(&row, "expires_at")?,
        })
    })
    .fetch_all(pool)
    .await
}

/// Commands whose time was over at `now` and that still wait; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn overdue(
    pool: &Pool,
    now: Time,
    limit: u32,
) -> Result<Vec<(DeviceId, CommandId)>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "select device, command from read.device_commands \
         where state = 'waiting' and expires_at <= $1 order by expires_at limit $2",
    )
    .bind(now.timestamp().to_sqlx())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(device, command)| (DeviceId(device), CommandId(command))).collect())
}

/// A device's commands, newest first, from the ledger itself: also while no server runs and no
/// model is up to date.
///
/// # Errors
/// See [`ReadError`].
pub async fn from_ledger(pool: &Pool, device: DeviceId) -> Result<Vec<CommandView>, ReadError> {
    let events = streams(pool, AggregateType::Device, &[device.to_string()]).await?;
    let mut views: Vec<(CommandView, Option<Digest>, Option<Digest>)> = Vec::new();
    for recorded in &events {
        let event: DeviceEvent = recorded.read()?;
        if let DeviceEvent::CommandIssued { command, instruction, expires_at } = event {
            let view = view_of(device, command, &instruction, expires_at, recorded);
            views.push((view, instruction.note(), None));
        }
        let Some((command, state, detail)) = outcome(&event) else { continue };
        if let Some((view, _, said)) = views.iter_mut().find(|(view, ..)| view.command == command) {
            (view.state, *said) = (state, detail);
            view.settled_at = Some(recorded.recorded_at.into());
        }
    }
    let digests = views.iter().flat_map(|(_, text, said)| text.iter().chain(said));
    let digests: Vec<Vec<u8>> = digests.map(|digest| digest.0.to_vec()).collect();
    let kept: Vec<(Vec<u8>, String)> =
        sqlx::query_as("select digest, body from notes where digest = any($1)")
            .bind(digests)
            .fetch_all(pool)
            .await?;
    let kept: HashMap<Vec<u8>, String> = kept.into_iter().collect();
    let body = |digest: Option<Digest>| kept.get(digest?.0.as_slice()).cloned();
    let told = views.into_iter().rev().map(|(mut view, text, said)| {
        (view.args.text, view.detail) = (body(text), body(said));
        view
    });
    Ok(told.collect())
}

fn view_of(
    device: DeviceId,
    command: CommandId,
    instruction: &Instruction,
    expires_at: Time,
    recorded: &Recorded,
) -> CommandView {
    let (employee, taken_until) = person(instruction).unzip();
    CommandView {
        command,
        device,
        kind: instruction.kind(),
        args: CommandArgs { text: None, employee, taken_until },
        issued_at: recorded.recorded_at.into(),
        issued_by: recorded.actor().map(|actor| actor.to_string()),
        expires_at,
        state: CommandState::Waiting,
        settled_at: None,
        detail: None,
        position: recorded.position,
    }
}

/// Whose photos are to be forgotten, and until when.
fn person(instruction: &Instruction) -> Option<(EmployeeId, Time)> {
    match *instruction {
        Instruction::ForgetPhotos { employee, taken_until } => Some((employee, taken_until)),
        _ => None,
    }
}
