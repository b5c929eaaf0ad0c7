//! The epoch: a stretch of the ledger's history that nothing was taken back from. A database that
//! went back (a standby that was behind took over, an older copy was put back) begins a new one, so
//! that every node and device that remembers more than the ledger has knows from where.

mod command;
mod error;
mod event;
mod history;

use serde::{Deserialize, Serialize};

pub use command::EpochCommand;
pub use error::EpochError;
pub use event::{EpochEvent, NoticedBy};
pub use history::{Anchor, History, Whereabouts};

use crate::aggregate::aggregate;

/// An epoch as its events make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Epoch {
    opened: bool,
}

impl Epoch {
    /// What follows from `command`.
    ///
    /// # Errors
    /// When the epoch was opened already.
    pub fn decide(&self, command: EpochCommand) -> Result<Vec<EpochEvent>, EpochError> {
        let EpochCommand::Open { after, ends, lost, seen, noticed_by } = command;
        match self.opened {
            true => Err(EpochError::Opened),
            false => Ok(vec![EpochEvent::Opened { after, ends, lost, seen, noticed_by }]),
        }
    }

    fn evolve(&mut self, event: EpochEvent) {
        match event {
            EpochEvent::Opened { .. } => self.opened = true,
        }
    }
}

aggregate!(Epoch, EpochCommand, EpochEvent, EpochError, { Opened });
