//! One simulated device: what is known of it while its file is closed.

use std::time::Duration;

use punchtrail_device::store::identity::Identity;
use punchtrail_protocol::{
    EmployeeId, EpochId, Time,
    wire::{DevicePolicy, LedgerHistory},
};
use rand::rngs::StdRng;

use crate::{misbehaviour::Behaviour, plan::Plan};

/// A roster's version that no server gives.
pub const STALE: &str = "before-the-line-failed";

/// A device of the fleet, its file closed.
pub struct Member {
    pub index: usize,
    pub identity: Identity,
    pub waiting: u64,
    /// Photos that wait.
    pub photos: u64,
    /// Commands to act on or to tell the result of.
    pub commands: u64,
    /// When the first of the punches was captured.
    pub oldest: Option<Time>,
    pub behaviour: Behaviour,
    pub people: Vec<EmployeeId>,
    pub policy: DevicePolicy,
    pub roster: Option<String>,
    /// The number up to which the server said that it holds every number.
    pub acked_through: u64,
    /// The ledger's epoch when last told.
    pub epoch: Option<EpochId>,
    /// What the server said last of its ledger under its seal.
    pub anchor: Option<String>,
    /// When everything was acknowledged, since the gate opened.
    pub drained: Option<Duration>,
    /// When the server, too, had heard that nothing waits.
    pub finished: bool,
    /// Its dice: the same for one seed.
    pub dice: StdRng,
}

impl Member {
    /// The policy as this device follows it.
    pub fn followed(&self, plan: &Plan) -> DevicePolicy {
        let mut policy = self.policy.clone();
        let cap_s = plan.spread_cap_s.unwrap_or(u32::MAX);
        policy.reconnect_spread_s = policy.reconnect_spread_s.min(cap_s);
        if self.behaviour.no_throttle {
            policy.reconnect_spread_s = 0;
            policy.punches_per_minute = 100_000;
        }
        policy
    }

    /// Whether the ledger has another history than it was told of before: then the folder has to
    /// know at once.
    pub fn hears_of_another_history(&self, history: &Option<LedgerHistory>) -> bool {
        let told = history.as_ref().and_then(LedgerHistory::current);
        self.epoch.zip(told).is_some_and(|(known, told)| known != told)
    }

    /// Remembers what it was told of the ledger's history.
    pub fn hear(&mut self, history: &Option<LedgerHistory>) {
        let Some(history) = history else { return };
        self.epoch = history.current().or(self.epoch);
        self.anchor = Some(history.anchor.clone());
    }
}
