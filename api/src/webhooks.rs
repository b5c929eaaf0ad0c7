//! Webhooks on this node: what they need, and the tasks that keep them going.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use punchtrail_infra::{
    follower::{Followers, Node, Pace, Scope},
    key_file,
    mail::Postman,
    supervision::Supervised,
    webhooks::{
        address::Egress,
        deliverer::{Deliverer, Now},
        events::{self, Teller},
        redelivery,
        secrets::Keeper,
        sending::Sender,
        summaries,
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{rounds, state::App};

/// Between two looks for jobs of redelivery when there was none.
const JOBS_EVERY: Duration = Duration::from_secs(1);
/// Between two looks for what is to be written to contacts.
const SUMMARIES_EVERY: Duration = Duration::from_secs(30);
/// Between two looks for mails that are due.
const MAIL_EVERY: Duration = Duration::from_secs(5);

/// How webhooks are sent.
#[derive(Debug, Clone, Default)]
pub struct WebhookOptions {
    /// Under which key secrets are kept; in the data directory unless given.
    pub key_file: Option<PathBuf>,
    /// Where may be sent to.
    pub egress: Egress,
    /// Who sends mail, if anybody.
    pub postman: Option<Postman>,
}

/// Why webhooks can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The key's file can't be used.
    #[error("the key of webhooks can't be used ({path}): {source}")]
    Key { path: PathBuf, source: io::Error },
    /// No client for TLS can be made.
    #[error("nothing can be sent by TLS: {0}")]
    Tls(String),
}

/// What handlers need of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks {
    pub keeper: Keeper,
    pub sender: Sender,
    /// Wakes who delivers.
    pub news: Arc<Notify>,
    pub postman: Option<Postman>,
}

impl Webhooks {
    /// Opens what they need.
    ///
    /// # Errors
    /// See [`WebhookError`].
    pub async fn open(
        options: WebhookOptions,
        data_dir: &std::path::Path,
    ) -> Result<Self, WebhookError> {
        let path = options.key_file.unwrap_or_else(|| data_dir.join(key_file::WEBHOOKS));
        let keeper =
            Keeper::of(&path).await.map_err(|source| WebhookError::Key { path, source })?;
        let sender =
            Sender::new(options.egress).map_err(|error| WebhookError::Tls(error.to_string()))?;
        Ok(Self { keeper, sender, news: Arc::default(), postman: options.postman })
    }
}

/// A task of webhooks, until it is stopped.
type Task = fn(App, Node, CancellationToken) -> BoxFuture<'static, ()>;

/// Starts what makes events, delivers them, redelivers and writes mail, on this node.
pub fn start(app: &App, followers: &Followers, node: Node) -> Vec<Supervised> {
    let of = app.clone();
    followers.start(events::NAME, Scope::Deployment { version: 1 }, Pace::Prompt, move || {
        Teller::new(of.ledger.clone(), Arc::clone(&of.webhooks.news))
    });
    let tasks: [(&'static str, Task); 4] = [
        ("webhook_jobs", |app, _, stop| Box::pin(jobs(app, stop))),
        ("webhook_summaries", |app, _, stop| Box::pin(summarise(app, stop))),
        ("webhooks_sent", |app, node, stop| Box::pin(deliver(app, node, stop))),
        ("mail", |app, _, stop| Box::pin(send_mail(app, stop))),
    ];
    let spawned = |(name, run): (&'static str, Task)| {
        let (until, of) = (followers.stopping(), app.clone());
        let again = move || run(of.clone(), node, until.clone());
        app.ledger.supervisor().spawn(name, followers.stopping(), again)
    };
    tasks.into_iter().map(spawned).collect()
}

/// Delivers what is in line until it is stopped.
async fn deliver(app: App, node: Node, stop: CancellationToken) {
    let Webhooks { keeper, sender, news, .. } = app.webhooks.clone();
    let pool = app.ledger.pool().clone();
    let now: Now = Arc::new(move || app.ledger.now().timestamp());
    let deliverer = Deliverer::new(pool, keeper, sender, (node.id(), now), news);
    deliverer.run(node.former(), stop).await;
}

/// Sends mails until it is stopped, if this node may.
async fn send_mail(app: App, stop: CancellationToken) {
    let Some(postman) = &app.webhooks.postman else { return stop.cancelled().await };
    let (pool, failing) = (app.ledger.pool(), "mails can't be looked for now");
    rounds::go(MAIL_EVERY, stop, failing, || async {
        postman.round(pool, app.ledger.now().timestamp()).await.map(drop)
    })
    .await;
}

/// Goes on with jobs of redelivery until it is stopped.
async fn jobs(app: App, stop: CancellationToken) {
    let failing = "what is to be delivered again can't be looked for now";
    rounds::go(JOBS_EVERY, stop, failing, || async {
        while let Some(count) =
            redelivery::step(app.ledger.pool(), app.ledger.now().timestamp()).await?
        {
            if count > 0 {
                app.webhooks.news.notify_one();
            }
        }
        Ok::<_, punchtrail_infra::postgres::DatabaseError>(())
    })
    .await;
}

/// Writes to contacts until it is stopped.
async fn summarise(app: App, stop: CancellationToken) {
    let failing = "what is to be written to contacts of webhooks can't be looked for now";
    rounds::go(SUMMARIES_EVERY, stop, failing, || async {
        summaries::look(app.ledger.pool(), app.ledger.now().timestamp()).await.map(drop)
    })
    .await;
}
