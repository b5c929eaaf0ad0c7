//! Commands to devices: issued, cancelled, expired, and what devices say became of them. Free text
//! stands beside the ledger, written in the same transaction as the event that names it.

use punchtrail_domain::{
    device::{Device, DeviceCommand, DeviceError, Instruction},
    log::recorded::Actor,
};
use punchtrail_protocol::{
    CommandId, DeviceId, Digest, EmployeeId, Position, Time,
    command::{CommandArgs, CommandStatus, CommandType},
};
use uuid::Uuid;

use crate::{
    ledger::{Append, AppendError, ExecuteError, Ledger, Loaded, StreamAppend},
    rulings::{Author, notes::Note},
};

/// How often a command is decided anew when other appends keep coming first.
const TRIES_MAX: u32 = 8;

/// A command that was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    pub command: CommandId,
    pub issued_at: Time,
    pub expires_at: Time,
    /// Position of the device's newest event.
    pub position: Position,
}

/// Tells a device to do something. `args` are those of the type, checked; the author's note is
/// their text.
///
/// # Errors
/// When there is no such device, it was revoked or too much waits for it, or the append was not
/// made.
pub async fn issue(
    ledger: &Ledger,
    device: DeviceId,
    (kind, args): (CommandType, &CommandArgs),
    author: &Author,
) -> Result<Issued, ExecuteError<DeviceError>> {
    let (command, issued_at) = (CommandId(Uuid::now_v7()), ledger.now());
    let instruction = match kind {
        CommandType::SyncEmployees => Instruction::SyncEmployees,
        CommandType::UploadPending => Instruction::UploadPending,
        CommandType::ShowMessage => {
            Instruction::ShowMessage { note: author.note_digest().unwrap_or_default() }
        }
        CommandType::ForgetPhotos => Instruction::ForgetPhotos {
            employee: args.employee.unwrap_or_default(),
            taken_until: args.taken_until.unwrap_or(issued_at),
        },
        CommandType::RestartAgent => Instruction::RestartAgent,
    };
    let expires_at = expiry(kind, issued_at);
    let issue = DeviceCommand::Issue { command, instruction, expires_at };
    let Written { position, .. } = write(ledger, device, issue, author).await?;
    Ok(Issued { command, issued_at, expires_at, position })
}

/// Tells a device to forget what was captured of a person until `taken_until`, once, however often
/// this is done: the command's id follows from what it is about.
///
/// # Errors
/// As [`issue`].
pub async fn issue_forgetting(
    ledger: &Ledger,
    device: DeviceId,
    (employee, taken_until): (EmployeeId, Time),
) -> Result<Position, ExecuteError<DeviceError>> {
    let command = forgetting_id(device, employee, taken_until);
    let expires_at = expiry(CommandType::ForgetPhotos, taken_until);
    let instruction = Instruction::ForgetPhotos { employee, taken_until };
    let issue = DeviceCommand::Issue { command, instruction, expires_at };
    Ok(write(ledger, device, issue, &Author::of(Actor::Server)).await?.position)
}

fn expiry(kind: CommandType, from: Time) -> Time {
    from.plus_millis(i64::from(kind.life_s()) * 1_000)
}

/// A UUIDv7 of the time of the erasure, its random part a digest of what the command is about.
fn forgetting_id(device: DeviceId, employee: EmployeeId, taken_until: Time) -> CommandId {
    let digest = Digest::of_parts(&[
        b"punchtrail.forget_photos.v1",
        device.uuid().as_bytes(),
        employee.uuid().as_bytes(),
        &taken_until.millis().to_be_bytes(),
    ]);
    let mut random = [0; 10];
    random.copy_from_slice(&digest.0[..10]);
    let millis = u64::try_from(taken_until.millis()).unwrap_or_default();
    CommandId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

/// What a device says became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    pub command: CommandId,
    pub status: CommandStatus,
    /// What it says of it, for people.
    pub detail: Option<String>,
}

/// Notes what a device says became of a command. Gives whether that is new, and the position of the
/// device's newest event.
///
/// # Errors
/// When there is no such command for the device or another result of it stands, or the append was
/// not made.
pub async fn finish(
    ledger: &Ledger,
    device: DeviceId,
    Finish { command, status, detail }: Finish,
    request: &str,
) -> Result<(bool, Position), ExecuteError<DeviceError>> {
    let author = Author {
        actor: Actor::Device(device),
        employee: None,
        request: Some(request.to_owned()),
        note: detail.filter(|text| !text.is_empty()).map(Note::new),
    };
    let finish = DeviceCommand::Finish { command, status, note: author.note_digest() };
    let Written { is_new, position } = write(ledger, device, finish, &author).await?;
    Ok((is_new, position))
}

/// Takes a command back that isn't settled.
///
/// # Errors
/// When there is no such command for the device or it is settled, or the append was not made.
pub async fn cancel(
    ledger: &Ledger,
    device: DeviceId,
    command: CommandId,
    author: &Author,
) -> Result<Position, ExecuteError<DeviceError>> {
    let cancel = DeviceCommand::Cancel { command };
    Ok(write(ledger, device, cancel, author).await?.position)
}

/// Notes that a command's time is over, if it is and nothing was heard of it.
///
/// # Errors
/// When there is no such device, or the append was not made.
pub async fn expire(
    ledger: &Ledger,
    device: DeviceId,
    command: CommandId,
) -> Result<Position, ExecuteError<DeviceError>> {
    let expire = DeviceCommand::Expire { command, at: ledger.now() };
    Ok(write(ledger, device, expire, &Author::of(Actor::Server)).await?.position)
}

struct Written {
    is_new: bool,
    position: Position,
}

/// Carries out a command on the device. The note is written only with an event that names it.
async fn write(
    ledger: &Ledger,
    device: DeviceId,
    command: DeviceCommand,
    author: &Author,
) -> Result<Written, ExecuteError<DeviceError>> {
    for _ in 0..TRIES_MAX {
        let Loaded { aggregate, sequence, position } =
            ledger.load::<Device>(&device.to_string()).await.map_err(ExecuteError::Load)?;
        let events = aggregate.decide(command.clone()).map_err(ExecuteError::Refused)?;
        if events.is_empty() {
            return Ok(Written { is_new: false, position: position.unwrap_or_default() });
        }
        let streams = vec![StreamAppend::of(device, sequence, &events)];
        let append = Append { streams, metadata: author.metadata(), side: author.side() };
        match ledger.append(append).await {
            Ok(appended) => return Ok(Written { is_new: true, position: appended.last }),
            Err(AppendError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(AppendError::Stale.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_to_forget_has_one_id_however_often_it_is_made() {
        let id = |device: u128, employee: u128, ms: i64| {
            let device = DeviceId(Uuid::from_u128(device));
            let employee = EmployeeId(Uuid::from_u128(employee));
            forgetting_id(device, employee, Time::from_millis(ms))
        };
        let made = id(1, 2, 1_790_000_000_000);
        assert_eq!(made, id(1, 2, 1_790_000_000_000));
        assert_eq!(made.uuid().get_version_num(), 7);
        for other in [id(2, 2, 1_790_000_000_000), id(1, 3, 1_790_000_000_000), id(1, 2, 5)] {
            assert_ne!(made, other);
        }
    }
}
