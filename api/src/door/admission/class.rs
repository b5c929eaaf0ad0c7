//! The classes of requests, and what each may use.

use std::time::Duration;

use crate::door::gate::Standing;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// A person waits for it: reads and rulings, the search at a door.
    Interactive,
    /// A device's enrolment, for which nobody has credentials yet.
    Enrolment,
    /// People who sign in, and so have none yet either.
    SignIn,
    /// A device's report of itself.
    Heartbeat,
    /// A batch of what a device captured.
    Delivery,
    /// What a device catches up on: manifests and deltas.
    Sync,
    Photo,
    /// What came of the check of a picture, for the worker who stands there.
    Verdict,
}

/// What a class may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests worked on at once.
    pub at_once: usize,
    /// A request that would wait longer than this, by estimate, is refused.
    pub wait_max: Duration,
    /// Requests that may wait for a permit, whatever the estimate.
    pub waiting_max: usize,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Interactive,
        Self::Enrolment,
        Self::SignIn,
        Self::Heartbeat,
        Self::Delivery,
        Self::Sync,
        Self::Photo,
        Self::Verdict,
    ];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Its budget. Deliveries are enough that some are verified while others commit, and few enough
    /// to leave readers their share of the cores.
    pub fn budget(self) -> Budget {
        let budget = |at_once, wait_s, waiting_max| Budget {
            at_once,
            wait_max: Duration::from_secs(wait_s),
            waiting_max,
        };
        match self {
            Self::Interactive => budget(16, 5, 512),
            Self::Enrolment => budget(2, 5, 256),
            Self::SignIn => budget(2, 5, 64),
            Self::Heartbeat => budget(4, 2, 512),
            Self::Delivery => budget(8, 2, 256),
            Self::Sync => budget(4, 2, 128),
            Self::Photo => budget(4, 2, 64),
            Self::Verdict => budget(2, 2, 128),
        }
    }

    /// Whether its callers have no credentials yet.
    pub(super) fn is_of_strangers(self) -> bool {
        matches!(self, Self::Enrolment | Self::SignIn)
    }

    /// Whether its callers are told apart by their credentials, and so have slots.
    pub(super) fn knows_callers(self) -> bool {
        matches!(self, Self::Delivery | Self::Heartbeat | Self::Sync)
    }

    /// Whether people are served by it, also on connections that overflow the limit.
    pub(super) fn serves_people(self) -> bool {
        matches!(self, Self::Interactive | Self::Enrolment | Self::SignIn)
    }

    /// How many requests of one caller may be there of whose bodies nothing more has come: of a
    /// revoked device one. The next one takes the place of the oldest.
    pub(super) fn coming_max(self, standing: Standing) -> usize {
        match (self, standing) {
            (_, Standing::Revoked) | (Self::Delivery, _) => 1,
            (Self::Photo | Self::Heartbeat | Self::Verdict, _) => 2,
            (Self::Interactive | Self::Sync, _) => 16,
            (Self::Enrolment | Self::SignIn, _) => 32,
        }
    }
}
