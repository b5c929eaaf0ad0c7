//! Whether everything that should run runs: what readiness, metrics and `/v1/ledger` tell. A list
//! over what was started, and nothing by name: whatever is started among the followers or the tasks
//! is here.

use jiff::Timestamp;
use punchtrail_infra::{
    follower::{FollowerState, FollowerStatus, Followers},
    ledger::{CommitStatus, Ledger},
    supervision::{Supervisor, TaskStatus},
};
use punchtrail_protocol::Position;
use serde::Serialize;
use utoipa::ToSchema;

/// What runs on this node, as it tells of itself.
pub struct Health {
    ledger: Ledger,
    schema: Option<i64>,
    followers: Followers,
    supervisor: Supervisor,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Where a follower of the ledger stands: the adjudicator, the checkpoints, each read model.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Follower {
    pub name: &'static str,
    /// How far it has taken the ledger; none until that is known.
    pub position: Option<Position>,
    /// `following`, `standby` (another node has it), `retrying`, `rebuilding`, `newer` (another
    /// version of the program takes care of it), `refused` or `stopped`; the last two need a
    /// person.
    pub state: &'static str,
    /// Why it stopped, refuses or retries.
    pub error: Option<String>,
}

impl From<FollowerStatus> for Follower {
    fn from(status: FollowerStatus) -> Self {
        let FollowerStatus { name, position, state, error } = status;
        Self { name, position, state: state.as_str(), error }
    }
}

/// A task that lives as long as the server.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Task {
    pub name: &'static str,
    /// Whether it runs; not between its death and its next start.
    pub runs: bool,
    /// How often it was started again.
    pub restarts: u64,
    pub error: Option<String>,
}

impl From<TaskStatus> for Task {
    fn from(status: TaskStatus) -> Self {
        let TaskStatus { name, runs, restarts, error } = status;
        Self { name, runs, restarts, error }
    }
}

/// Whether this node can commit. When it has nothing to do it tries every two seconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct Commits {
    /// Whether it made one within the last six seconds.
    pub able: bool,
    /// When it last made one.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last: Option<Timestamp>,
    /// Since when they fail.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
    /// Why, or what is waited for.
    pub error: Option<String>,
}

impl From<CommitStatus> for Commits {
    fn from(status: CommitStatus) -> Self {
        let CommitStatus { able, last, failing_since, error } = status;
        Self { able, last, failing_since, error }
    }
}

/// Whether this node is ready to serve.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    pub ready: bool,
    /// The newest position of the ledger that this node has seen.
    pub ledger: Position,
    /// Without commits no punch is taken, so a node that can't make any isn't ready.
    pub commits: Commits,
    /// The version of the schema, as this node migrated or found it.
    pub schema: Option<i64>,
    /// What follows the ledger. One that has stopped makes the node unready; one that refuses (the
    /// checkpoints, when the database is behind them) doesn't: punches are taken all the same, and
    /// somebody has to look.
    pub followers: Vec<Follower>,
    /// What runs beside. One that died makes the node unready until it runs again.
    pub tasks: Vec<Task>,
}

impl Health {
    /// Of this ledger and these followers, and of all that is supervised.
    pub fn new(ledger: Ledger, schema: Option<i64>, followers: Followers) -> Self {
        let supervisor = ledger.supervisor().clone();
        Self { ledger, schema, followers, supervisor }
    }

    /// Where each follower stands.
    pub fn followers(&self) -> Vec<Follower> {
        self.followers.status().into_iter().map(Follower::from).collect()
    }

    /// Everything together, from what is known here: it waits for nothing, least of all for a
    /// database that may not answer.
    pub fn readiness(&self) -> Readiness {
        let (followers, tasks) = (self.followers.status(), self.supervisor.status());
        let commits = self.ledger.commits();
        Readiness {
            ready: commits.able
                && followers.iter().all(|follower| follower.state.is_ready())
                && tasks.iter().all(|task| task.runs),
            ledger: self.ledger.seen(),
            commits: commits.into(),
            schema: self.schema,
            followers: followers.into_iter().map(Follower::from).collect(),
            tasks: tasks.into_iter().map(Task::from).collect(),
        }
    }

    /// Puts what is known only when it is asked for into the metrics.
    pub fn measure(&self) {
        let head = self.ledger.seen();
        let able = f64::from(u8::from(self.ledger.commits().able));
        metrics::gauge!("punchtrail_ledger_commits_able").set(able);
        metrics::gauge!("punchtrail_ledger_position").set(head.0 as f64);
        for FollowerStatus { name, position, state, .. } in self.followers.status() {
            let here = f64::from(u8::from(state != FollowerState::Standby));
            metrics::gauge!("punchtrail_follower_here", "follower" => name).set(here);
            if let Some(position) = position {
                let lag = head.0.saturating_sub(position.0);
                metrics::gauge!("punchtrail_follower_lag_events", "follower" => name)
                    .set(lag as f64);
            }
        }
        for TaskStatus { name, runs, .. } in self.supervisor.status() {
            let up = f64::from(u8::from(runs));
            metrics::gauge!("punchtrail_task_up", "task" => name).set(up);
        }
    }
}
