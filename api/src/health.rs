//! Whether everything that should run runs: what readiness, metrics and `/v1/ledger` tell.

use std::sync::Arc;

use punchtrail_infra::{adjudicator, audit::checkpoint, ledger::Ledger};
use punchtrail_projections::engine::runner::Projections;
use punchtrail_protocol::Position;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

/// The followers of this node, as they tell of themselves.
#[derive(Debug)]
pub struct Health {
    /// The read models.
    pub projections: Arc<Projections>,
    /// The adjudicator.
    pub adjudicator: watch::Receiver<adjudicator::Progress>,
    /// The checkpoints.
    pub checkpoints: watch::Receiver<checkpoint::Progress>,
}

/// Where a follower of the ledger stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FollowerState {
    /// Which.
    pub name: String,
    /// How far it has taken the ledger; none when it stopped and doesn't say.
    pub position: Option<Position>,
    /// What it is doing.
    pub state: String,
    /// Why it stopped or retries.
    pub error: Option<String>,
}

/// Whether this node is ready to serve.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether it is.
    pub ready: bool,
    /// The ledger's head; none when the database is out of reach.
    pub ledger: Option<Position>,
    /// The version of the schema, as migrated.
    pub schema: Option<i64>,
    /// The adjudicator. While it has stopped, punches are taken and count provisionally.
    pub adjudicator: FollowerState,
    /// The read models.
    pub projections: Vec<FollowerState>,
    /// The checkpoints. A refusal doesn't make the node unready: punches are taken all the same, and
    /// somebody has to look.
    pub checkpoints: FollowerState,
}

impl Health {
    /// The adjudicator's state.
    pub fn adjudicator(&self) -> FollowerState {
        let (position, state, error) = match &*self.adjudicator.borrow() {
            adjudicator::Progress::At(position) => (Some(*position), "following", None),
            adjudicator::Progress::Stopped(why) => (None, "stopped", Some(why.clone())),
        };
        FollowerState { name: "adjudicator".to_owned(), position, state: state.to_owned(), error }
    }

    /// The checkpoints' state.
    pub fn checkpoints(&self) -> FollowerState {
        let (position, state, error) = match &*self.checkpoints.borrow() {
            checkpoint::Progress::At(position) => (Some(*position), "following", None),
            checkpoint::Progress::Refused(why) => (None, "refused", Some(why.clone())),
        };
        FollowerState { name: "checkpoints".to_owned(), position, state: state.to_owned(), error }
    }

    /// The read models' states.
    pub fn projections(&self) -> Vec<FollowerState> {
        let state =
            |status: punchtrail_projections::engine::runner::ProjectionStatus| FollowerState {
                name: status.name.to_owned(),
                position: Some(status.position),
                state: status.state.as_str().to_owned(),
                error: status.error,
            };
        self.projections.status().into_iter().map(state).collect()
    }

    /// Everything together.
    pub async fn readiness(&self, ledger: &Ledger, schema: Option<i64>) -> Readiness {
        let head = ledger.head().await.ok();
        let adjudicator = self.adjudicator();
        let models_ready = self.projections.status().iter().all(|status| status.state.is_ready());
        Readiness {
            ready: head.is_some()
                && schema.is_some()
                && adjudicator.error.is_none()
                && models_ready,
            ledger: head,
            schema,
            adjudicator,
            projections: self.projections(),
            checkpoints: self.checkpoints(),
        }
    }

    /// Puts where everybody stands into the metrics.
    pub fn measure(&self, head: Position) {
        let gauge = |name: String, position: Position| {
            metrics::gauge!("punchtrail_follower_lag_events", "follower" => name)
                .set((head.0.saturating_sub(position.0)) as f64);
        };
        metrics::gauge!("punchtrail_ledger_position").set(head.0 as f64);
        let followers =
            self.projections().into_iter().chain([self.adjudicator(), self.checkpoints()]);
        for follower in followers {
            let stopped = matches!(follower.state.as_str(), "stopped" | "refused");
            metrics::gauge!("punchtrail_follower_stopped", "follower" => follower.name.clone())
                .set(f64::from(u8::from(stopped)));
            if let Some(position) = follower.position {
                gauge(follower.name, position);
            }
        }
    }
}
