//! What a device was told to do, and what became of it. A command is settled once it is finished,
//! expired or cancelled; a result that comes after that is recorded all the same, since it is a
//! fact.

use std::collections::{BTreeMap, VecDeque};

use punchtrail_protocol::{
    CommandId, Digest, EmployeeId, Time,
    command::{CommandStatus, CommandType},
};
use serde::{Deserialize, Serialize};

use super::{DeviceError, DeviceEvent};

/// Commands that may wait for a device, but for those to forget photos.
pub const COMMANDS_WAITING_MAX: usize = 100;
/// Commands to forget photos that may wait for a device: a whole house may leave at once while it
/// is off.
pub const FORGETTING_WAITING_MAX: usize = 10_000;
/// Settled commands that are remembered, those that were settled last. A result of another is of no
/// command that is known.
pub const COMMANDS_REMEMBERED_MAX: usize = 1_000;

/// What a device is told to do, without any free text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    SyncEmployees,
    UploadPending,
    ShowMessage {
        /// Digest of the text, which stands beside the ledger.
        note: Digest,
    },
    /// Erase the photos of a person's punches.
    ForgetPhotos {
        employee: EmployeeId,
        /// Of punches captured until then, by the capture's own time.
        taken_until: Time,
    },
    RestartAgent,
}

impl Instruction {
    /// Its type.
    pub const fn kind(&self) -> CommandType {
        match self {
            Self::SyncEmployees => CommandType::SyncEmployees,
            Self::UploadPending => CommandType::UploadPending,
            Self::ShowMessage { .. } => CommandType::ShowMessage,
            Self::ForgetPhotos { .. } => CommandType::ForgetPhotos,
            Self::RestartAgent => CommandType::RestartAgent,
        }
    }

    /// Digest of the text that belongs to it.
    pub const fn note(&self) -> Option<Digest> {
        match self {
            Self::ShowMessage { note } => Some(*note),
            _ => None,
        }
    }
}

/// A command of which nothing was heard yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    kind: CommandType,
    expires_at: Time,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    Finished(CommandStatus),
    Expired,
    Cancelled,
}

/// The commands of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Commands {
    waiting: BTreeMap<CommandId, Waiting>,
    /// At most [`COMMANDS_REMEMBERED_MAX`], the one settled last at the end.
    settled: VecDeque<(CommandId, Outcome)>,
}

impl Commands {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a command of that id was issued, as far as it is remembered.
    pub(super) fn knows(&self, command: CommandId) -> bool {
        self.waiting.contains_key(&command) || self.outcome(command).is_some()
    }

    fn outcome(&self, command: CommandId) -> Option<Outcome> {
        let mut newest_first = self.settled.iter().rev();
        newest_first.find(|(settled, _)| *settled == command).map(|(_, outcome)| *outcome)
    }

    pub(super) fn issue(
        &self,
        command: CommandId,
        instruction: Instruction,
        expires_at: Time,
    ) -> Result<Vec<DeviceEvent>, DeviceError> {
        let forgets = |kind: CommandType| kind == CommandType::ForgetPhotos;
        let alike = forgets(instruction.kind());
        let max = if alike { FORGETTING_WAITING_MAX } else { COMMANDS_WAITING_MAX };
        if self.waiting.values().filter(|waiting| forgets(waiting.kind) == alike).count() >= max {
            return Err(DeviceError::TooManyCommands(max));
        }
        Ok(vec![DeviceEvent::CommandIssued { command, instruction, expires_at }])
    }

    pub(super) fn finish(
        &self,
        command: CommandId,
        status: CommandStatus,
        note: Option<Digest>,
    ) -> Result<Vec<DeviceEvent>, DeviceError> {
        match self.outcome(command) {
            Some(Outcome::Finished(stands)) if stands == status => Ok(Vec::new()),
            Some(Outcome::Finished(_)) => Err(DeviceError::OtherResult),
            None if !self.waiting.contains_key(&command) => Err(DeviceError::NoSuchCommand),
            Some(Outcome::Expired | Outcome::Cancelled) | None => {
                Ok(vec![DeviceEvent::CommandFinished { command, status, note }])
            }
        }
    }

    pub(super) fn expire(&self, command: CommandId, at: Time) -> Vec<DeviceEvent> {
        let over = self.waiting.get(&command).is_some_and(|waiting| waiting.expires_at <= at);
        over.then_some(DeviceEvent::CommandExpired { command }).into_iter().collect()
    }

    pub(super) fn cancel(&self, command: CommandId) -> Result<Vec<DeviceEvent>, DeviceError> {
        match self.outcome(command) {
            Some(Outcome::Cancelled) => Ok(Vec::new()),
            Some(_) => Err(DeviceError::Settled),
            None if self.waiting.contains_key(&command) => {
                Ok(vec![DeviceEvent::CommandCancelled { command }])
            }
            None => Err(DeviceError::NoSuchCommand),
        }
    }

    pub(super) fn evolve(&mut self, event: &DeviceEvent) {
        match *event {
            DeviceEvent::CommandIssued { command, ref instruction, expires_at } => {
                let kind = instruction.kind();
                self.waiting.insert(command, Waiting { kind, expires_at });
            }
            DeviceEvent::CommandFinished { command, status, .. } => {
                self.settle(command, Outcome::Finished(status));
            }
            DeviceEvent::CommandExpired { command } => self.settle(command, Outcome::Expired),
            DeviceEvent::CommandCancelled { command } => self.settle(command, Outcome::Cancelled),
            _ => {}
        }
    }

    fn settle(&mut self, command: CommandId, outcome: Outcome) {
        if self.waiting.remove(&command).is_none() {
            self.settled.retain(|(settled, _)| *settled != command);
        }
        self.settled.push_back((command, outcome));
        while self.settled.len() > COMMANDS_REMEMBERED_MAX {
            self.settled.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> CommandId {
        CommandId(Uuid::from_u128(n))
    }

    fn at(ms: i64) -> Time {
        Time::from_millis(ms)
    }

    fn take(commands: &mut Commands, events: Vec<DeviceEvent>) -> usize {
        events.iter().for_each(|event| commands.evolve(event));
        events.len()
    }

    fn issued(n: u128) -> Commands {
        let mut commands = Commands::default();
        let events = commands.issue(id(n), Instruction::UploadPending, at(100)).unwrap();
        take(&mut commands, events);
        commands
    }

    #[test]
    fn one_result_stands_and_comes_twice_for_nothing() {
        let mut commands = issued(1);
        let done = |commands: &Commands| commands.finish(id(1), CommandStatus::Done, None);
        let events = done(&commands).unwrap();
        assert_eq!(take(&mut commands, events), 1);
        assert_eq!(done(&commands), Ok(vec![]));
        let other = commands.finish(id(1), CommandStatus::Failed, None);
        assert_eq!(other, Err(DeviceError::OtherResult));
        assert_eq!(
            commands.finish(id(2), CommandStatus::Done, None),
            Err(DeviceError::NoSuchCommand)
        );
        assert_eq!(commands.cancel(id(1)), Err(DeviceError::Settled));
    }

    #[test]
    fn what_comes_late_is_recorded() {
        let mut commands = issued(1);
        assert_eq!(commands.expire(id(1), at(99)), []);
        let events = commands.expire(id(1), at(100));
        assert_eq!(take(&mut commands, events), 1);
        assert_eq!(commands.expire(id(1), at(101)), [], "once");
        let events = commands.finish(id(1), CommandStatus::Done, None).unwrap();
        assert_eq!(take(&mut commands, events), 1);
        assert_eq!(commands.finish(id(1), CommandStatus::Done, None), Ok(vec![]));
    }

    #[test]
    fn no_more_wait_and_are_remembered_than_fit() {
        let mut commands = Commands::default();
        for n in 0..COMMANDS_WAITING_MAX as u128 {
            let events = commands.issue(id(n), Instruction::SyncEmployees, at(1)).unwrap();
            take(&mut commands, events);
        }
        let full = commands.issue(id(999), Instruction::RestartAgent, at(1));
        assert_eq!(full, Err(DeviceError::TooManyCommands(COMMANDS_WAITING_MAX)));
        // What has to be forgotten is heard of all the same.
        let (employee, taken_until) = (EmployeeId::NIL, at(0));
        let forget = Instruction::ForgetPhotos { employee, taken_until };
        assert_eq!(commands.issue(id(999), forget, at(1)).unwrap().len(), 1);
        for n in 0..FORGETTING_WAITING_MAX as u128 {
            let (command, expires_at) = (id(100_000 + n), at(1));
            commands.evolve(&DeviceEvent::CommandIssued {
                command,
                instruction: forget,
                expires_at,
            });
        }
        let full = commands.issue(id(999), forget, at(1));
        assert_eq!(full, Err(DeviceError::TooManyCommands(FORGETTING_WAITING_MAX)));
        for n in 0..3 * COMMANDS_REMEMBERED_MAX as u128 {
            let (command, instruction) = (id(10_000 + n), Instruction::UploadPending);
            commands.evolve(&DeviceEvent::CommandIssued {
                command,
                instruction,
                expires_at: at(1),
            });
            commands.evolve(&DeviceEvent::CommandCancelled { command });
        }
        assert_eq!(commands.settled.len(), COMMANDS_REMEMBERED_MAX);
        let forgotten = commands.finish(id(10_000), CommandStatus::Done, None);
        assert_eq!(forgotten, Err(DeviceError::NoSuchCommand));
    }
}
