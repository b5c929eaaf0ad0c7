//! Whether everything that should run runs: what readiness, metrics and `/v1/ledger` tell. A list
//! over what was started, and nothing by name: whatever is started among the followers or the tasks
//! is here.

use jiff::Timestamp;
use punchtrail_domain::epoch::History;
use punchtrail_infra::{
    follower::{FollowerState, FollowerStatus, Followers},
    ledger::{CommitStatus, Ledger},
    supervision::{Supervisor, TaskStatus},
};
use punchtrail_protocol::{EpochId, Position};
use serde::Serialize;
use utoipa::ToSchema;

/// Who checks faces on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FaceChecks {
    /// In this order: `rekognition`, `local`, `review` (a person looks at each picture).
    pub order: Vec<&'static str>,
    /// Why the local check isn't among them though it was asked for.
    pub local_missing: Option<String>,
}

/// What runs on this node, as it tells of itself.
pub struct Health {
    ledger: Ledger,
    schema: Option<i64>,
    followers: Followers,
    supervisor: Supervisor,
    faces: FaceChecks,
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

/// That the database went back: events that had been committed are gone.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WentBack {
    /// How often that was noticed since the ledger began.
    pub times: usize,
    /// Up to where the history before the last time stands; 0 where that wasn't known.
    pub after: Position,
}

impl WentBack {
    /// What the ledger's history says; none if it never went back.
    pub fn of(history: &History) -> Option<Self> {
        let times = history.epochs().count() - 1;
        let (_, after) = history.epochs().next_back()?;
        (times > 0).then_some(Self { times, after })
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
    /// The ledger's epoch: another one each time that the database went back.
    pub epoch: EpochId,
    /// Whether the database ever went back. It doesn't make the node unready; somebody has to know.
    pub went_back: Option<WentBack>,
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
    /// Who checks faces. Models that are missing don't make the node unready: people look instead,
    /// and somebody has to know.
    pub faces: FaceChecks,
}

impl Health {
    /// Of this ledger and these followers, and of all that is supervised.
    pub fn new(
        ledger: Ledger,
        schema: Option<i64>,
        followers: Followers,
        faces: FaceChecks,
    ) -> Self {
        let supervisor = ledger.supervisor().clone();
        Self { ledger, schema, followers, supervisor, faces }
    }

    /// Where each follower stands.
    pub fn followers(&self) -> Vec<Follower> {
        self.followers.status().into_iter().map(Follower::from).collect()
    }

    /// Everything together, from what is known here: it waits for nothing, least of all for a
    /// database that may not answer.
    pub fn readiness(&self) -> Readiness {
        let (followers, tasks) = (self.followers.status(), self.supervisor.status());
        let (commits, history) = (self.ledger.commits(), self.ledger.history());
        Readiness {
            ready: commits.able
                && followers.iter().all(|follower| follower.state.is_ready())
                && tasks.iter().all(|task| task.runs),
            ledger: self.ledger.seen(),
            epoch: history.current(),
            went_back: WentBack::of(&history),
            commits: commits.into(),
            schema: self.schema,
            followers: followers.into_iter().map(Follower::from).collect(),
            tasks: tasks.into_iter().map(Task::from).collect(),
            faces: self.faces.clone(),
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
