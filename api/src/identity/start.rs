//! Who checks faces here, and where the checks wait: as the operator said it, and as it can be had.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
};

use punchtrail_domain::punch::Provider;
use punchtrail_infra::{
    follower::{Followers, Pace, Scope},
    identity::{
        Checker, Checkers, Local, NoChecker, Rekognition, RekognitionError, RekognitionOptions,
        ToReview, embeddings::Embeddings,
    },
    postgres::Pool,
    queue::{self, Place, Queue, QueueError},
    supervision::Supervised,
    threads::{NoThreads, Threads},
};
use punchtrail_vision::{DETECTOR_FILE, EMBEDDER_FILE, Models};

use super::{
    checks::Checks,
    deadlines,
    erasures::{self, Erasures},
    feeder::{self, Feeder},
};
use crate::{health::FaceChecks, state::App};

/// Who checks faces, and where the checks wait.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// In this order: the next is asked where one is out of reach.
    pub order: Vec<Provider>,
    /// Where the local models are; none if they aren't.
    pub models: Option<PathBuf>,
    /// Rekognition's region; none to find it where the SDK does.
    pub region: Option<String>,
    /// Calls a second of each of Rekognition's actions.
    pub calls_per_second: NonZeroU32,
    /// Where checks wait.
    pub queue: Place,
}

impl Default for IdentityOptions {
    fn default() -> Self {
        let RekognitionOptions { calls_per_second, .. } = RekognitionOptions::default();
        Self {
            order: vec![Provider::Local],
            models: None,
            region: None,
            calls_per_second,
            queue: Place::Postgres,
        }
    }
}

/// Why faces can't be checked as the operator said.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key of the cache of embeddings.
    #[error("the key of reference embeddings can't be read or made in the data directory: {0}")]
    Key(#[from] std::io::Error),
    /// The local check's threads.
    #[error(transparent)]
    Threads(#[from] NoThreads),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Rekognition.
    #[error(transparent)]
    Rekognition(#[from] RekognitionError),
    /// Nobody was named.
    #[error(transparent)]
    Nobody(#[from] NoChecker),
}

/// Who checks, and how far that is from what was asked for.
pub struct Ready {
    pub checkers: Arc<Checkers>,
    pub models: Option<Arc<Models>>,
    pub told: FaceChecks,
}

/// Makes whoever checks ready. Models that are missing or wrong are no failure: then a person
/// looks, and readiness says so.
///
/// # Errors
/// When the data directory can't be used.
pub async fn ready(
    options: &IdentityOptions,
    writer: &Pool,
    data_dir: &Path,
) -> Result<Ready, IdentityError> {
    let (models, missing) = match load(options.models.clone()).await {
        Ok(models) => (Some(Arc::new(models)), None),
        Err(why) => (None, Some(why)),
    };
    let mut in_order: Vec<Arc<dyn Checker>> = Vec::new();
    for provider in &options.order {
        match (provider, &models) {
            (Provider::Local, Some(models)) => {
                let embeddings = Embeddings::of(writer.clone(), data_dir).await?;
                let local = Local::new(
                    Arc::clone(models),
                    embeddings,
                    Threads::of_cores("punchtrail-look")?,
                );
                in_order.push(Arc::new(local));
            }
            (Provider::Local, None) => {}
            (Provider::Rekognition, _) => {
                let connecting = RekognitionOptions {
                    region: options.region.clone(),
                    calls_per_second: options.calls_per_second,
                    ..RekognitionOptions::default()
                };
                in_order.push(Arc::new(Rekognition::connect(connecting).await?));
            }
            (Provider::Review, _) => in_order.push(Arc::new(ToReview)),
        }
    }
    let local_missing = missing.filter(|_| options.order.contains(&Provider::Local));
    if let Some(why) = &local_missing {
        tracing::warn!(%why, "faces can't be checked here by the local models");
    }
    if in_order.is_empty() {
        in_order.push(Arc::new(ToReview));
    }
    let order = in_order.iter().map(|checker| checker.provider().as_str()).collect();
    let checkers = Arc::new(Checkers::new(in_order)?);
    Ok(Ready { checkers, models, told: FaceChecks { order, local_missing } })
}

/// The models, or why they aren't there.
async fn load(folder: Option<PathBuf>) -> Result<Models, String> {
    let folder = folder.ok_or("no folder with the models was named (--face-models)")?;
    let read = async |name: &str| {
        let path = folder.join(name);
        tokio::fs::read(&path).await.map_err(|error| format!("{}: {error}", path.display()))
    };
    let (detector, embedder) = (read(DETECTOR_FILE).await?, read(EMBEDDER_FILE).await?);
    let loading = tokio::task::spawn_blocking(move || Models::load(&detector, &embedder));
    let loaded = loading.await.map_err(|_| "loading the models broke off".to_owned())?;
    loaded.map_err(|error| format!("{}: {error}", folder.display()))
}

/// Starts everything that a picture meets on its way, on this node.
pub fn start(
    app: &App,
    followers: &Followers,
    queue: Arc<dyn Queue>,
    checkers: Arc<Checkers>,
) -> Vec<Supervised> {
    let supervisor = app.ledger.supervisor().clone();
    let deployment = Scope::Deployment { version: 1 };
    let (feeding, line) = (app.clone(), Arc::clone(&queue));
    followers.start(feeder::NAME, deployment, Pace::Prompt, move || {
        Feeder::new(feeding.clone(), Arc::clone(&line))
    });
    let erasing = app.clone();
    followers
        .start(erasures::NAME, deployment, Pace::Prompt, move || Erasures::new(erasing.clone()));
    let (stop, until, of) = (followers.stopping(), followers.stopping(), app.clone());
    let deadlines =
        supervisor.spawn("deadlines", stop, move || deadlines::run(of.clone(), until.clone()));
    let (stop, until, of) = (followers.stopping(), followers.stopping(), app.clone());
    let verdicts = supervisor.spawn("verdicts", stop, move || {
        of.verdicts.clone().follow(of.ledger.feed(), until.clone())
    });
    let (stop, until, line) = (followers.stopping(), followers.stopping(), Arc::clone(&queue));
    let measuring = supervisor
        .spawn("queue_depth", stop, move || queue::keep_measured(Arc::clone(&line), until.clone()));
    let checks = Checks { app: app.clone(), queue, checkers };
    let mut tasks = vec![deadlines, verdicts, measuring];
    for name in CHECKING {
        let (stop, until, checks) = (followers.stopping(), followers.stopping(), checks.clone());
        tasks.push(supervisor.spawn(name, stop, move || checks.clone().run(until.clone())));
    }
    tasks
}

/// Who takes checks from the queue: several, so that one slow check keeps nine others waiting, and
/// not all.
const CHECKING: [&str; 3] = ["face_checks_1", "face_checks_2", "face_checks_3"];
