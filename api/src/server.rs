//! The server: its parts opened and started, and a stop that loses nothing.
//!
//! Stopping goes from the outside in: no new connections, requests in flight are answered, then the
//! followers finish what they hold, then the ledger's committer. Each part is bounded; what takes
//! longer is cut off, which is as safe as a crash and no safer.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use punchtrail_infra::{
    access::{
        deployment::{self, Deployment},
        provider::{Provider, Settings, SettingsError},
    },
    adjudicator,
    audit::checkpoint,
    follower::{Followers, Node},
    ledger::{Clock, Ledger},
    photos::{PhotoPlace, PhotosError, open_photos},
    postgres::Pools,
    queue,
    supervision::{Supervised, Supervisor},
    threads::{NoThreads, Threads},
};
use punchtrail_projections::engine::{ProjectionError, Projections};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    auth,
    door::{
        Door,
        address::TrustedProxies,
        admission::{Admission, Budget, Class},
        connection_limit::ConnectionLimit,
        connections::{self, Serving},
        limits::{CONNECTIONS_MAX, CONNECTIONS_OVERFLOW_MAX, SETTLE_MAX, Timeouts},
        refusals::Refusals,
        tls::{CertificateFiles, Tls, TlsError},
    },
    health::Health,
    identity::start::{self, IdentityError, IdentityOptions},
    metrics,
    quota::Allowance,
    router::{metrics_router, router},
    state::{App, Opened},
    webhooks::{self, WebhookError, WebhookOptions, Webhooks},
};

/// Connections to the address that only metrics are served on.
const METRICS_CONNECTIONS_MAX: usize = 16;

/// What a server needs.
#[derive(Debug)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to serve metrics without a key, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    pub pools: Pools,
    /// Where checkpoints are kept, and photos unless they are elsewhere.
    pub data_dir: PathBuf,
    /// Where photos are kept.
    pub photos: PhotoPlace,
    /// Connections served at once.
    pub connections_max: usize,
    /// What requests of a class may use; none lets everything in at once.
    pub budget: Option<fn(Class) -> Budget>,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// The proxies that say for whom they ask.
    pub proxies: TrustedProxies,
    /// What is served by TLS; in the clear without.
    pub tls: Option<CertificateFiles>,
    /// What watches over the tasks of this node.
    pub supervisor: Supervisor,
    /// This node's clock.
    pub clock: Clock,
    /// Who checks faces.
    pub identity: IdentityOptions,
    /// What callers may ask for within a day.
    pub allowance: Allowance,
    /// The provider that vouches for people who sign in, if any.
    pub provider: Option<Settings>,
    /// How webhooks are sent.
    pub webhooks: WebhookOptions,
}

impl ServeOptions {
    /// With the usual limits, and metrics only for operators' keys.
    pub fn new(listen: SocketAddr, pools: Pools, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            metrics_listen: None,
            pools,
            data_dir: data_dir.into(),
            photos: PhotoPlace::default(),
            connections_max: CONNECTIONS_MAX,
            budget: Some(Class::budget),
            timeouts: Timeouts::default(),
            proxies: TrustedProxies::default(),
            tls: None,
            supervisor: Supervisor::default(),
            clock: Clock::default(),
            identity: IdentityOptions::default(),
            allowance: Allowance::default(),
            provider: None,
            webhooks: WebhookOptions::default(),
        }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}; is another server running there?")]
    Listen { address: SocketAddr, source: io::Error },
    /// The certificate can't be served.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// Photos can't be kept where they should be.
    #[error(transparent)]
    Photos(#[from] PhotosError),
    /// Nothing can be written into the data directory.
    #[error("the data directory can't be written to: {0}")]
    Node(io::Error),
    /// The folder of checkpoints can't be used.
    #[error("the checkpoint folder can't be used: {0}")]
    Checkpoints(String),
    /// The database is out of reach.
    #[error("the database is out of reach: {0}")]
    Database(#[from] punchtrail_infra::postgres::DatabaseError),
    /// The system gives no more threads.
    #[error(transparent)]
    Threads(#[from] NoThreads),
    /// A provider of sign-ins can't be used as it was set.
    #[error("{0}. Nothing was started")]
    Provider(#[from] SettingsError),
    /// Webhooks can't be sent.
    #[error(transparent)]
    Webhooks(#[from] WebhookError),
    /// Faces can't be checked as asked for.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// A read model can't be started.
    #[error("a read model can't be started: {0}")]
    Projection(#[from] ProjectionError),
}

/// A server that listens. It answers once [`Server::run`] is polled.
pub struct Server {
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
    address: SocketAddr,
    app: App,
    tls: Option<Tls>,
    followers: Followers,
    upkeep: Vec<Supervised>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens everything and listens.
    ///
    /// # Errors
    /// See [`ServeError`]; nothing is left running then.
    pub async fn start(options: ServeOptions) -> Result<Self, ServeError> {
        let listener = listen(options.listen).await?;
        let address = listener
            .local_addr()
            .map_err(|source| ServeError::Listen { address: options.listen, source })?;
        let metrics_listener = match options.metrics_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let tls = match options.tls {
            Some(files) => Some(Tls::open(files).await?),
            None => None,
        };
        let provider = options.provider.map(Provider::new).transpose()?.map(Arc::new);
        metrics::handle();
        let deployment = Deployment::open(&options.pools.writer).await?;
        let schema = deployment::schema_version(&options.pools.owner).await?;
        let region = options.identity.region.as_deref();
        let photos = open_photos(&options.photos, &options.data_dir, region).await?;
        let checkpoints = open_checkpoints(&options.data_dir, &deployment)?;
        let writer = &options.pools.writer;
        let faces = start::ready(&options.identity, writer, &options.data_dir).await?;
        let queue = queue::open(options.identity.queue.clone(), writer)
            .await
            .map_err(IdentityError::from)?;
        let hooks = Webhooks::open(options.webhooks, &options.data_dir).await?;
        let cores = Threads::of_cores("punchtrail-work")?;
        let node = Node::of(&options.data_dir).map_err(ServeError::Node)?;
        let supervisor = options.supervisor;
        let ledger = Ledger::open_for(
            &options.pools,
            supervisor.clone(),
            // Of this ledger: the directory may have served another one.
            Some(options.data_dir.join(format!("anchors-{}", deployment.org))),
            options.clock,
        )
        .await?;
        let (followers, projections) =
            match follow(&ledger, &options.pools, node, checkpoints).await {
                Ok(following) => following,
                Err(error) => {
                    ledger.close().await;
                    return Err(error);
                }
            };
        let (stop, until) = (followers.stopping(), followers.stopping());
        let upkeep = supervisor.spawn("metrics_upkeep", stop, move || keep_up(until.clone()));
        let health = Health::new(ledger.clone(), schema, followers.clone(), faces.told);
        let door = Door {
            timeouts: options.timeouts,
            gate: auth::gate(&ledger),
            admission: match options.budget {
                Some(budget) => Admission::new(budget, ledger.returning()),
                None => Admission::off(),
            },
            connections: ConnectionLimit::new(options.connections_max, CONNECTIONS_OVERFLOW_MAX),
            proxies: options.proxies,
            refusals: Refusals::default(),
        };
        let (stop, until, refusals) =
            (followers.stopping(), followers.stopping(), door.refusals.clone());
        let telling =
            supervisor.spawn("refusals", stop, move || refusals.clone().run(until.clone()));
        let app = App::new(Opened {
            ledger,
            pools: options.pools,
            deployment,
            photos,
            projections,
            health,
            door,
            cores,
            models: faces.models,
            allowance: options.allowance,
            provider,
            webhooks: hooks,
        });
        let (stop, until, kept) = (followers.stopping(), followers.stopping(), app.clone());
        let tidying = supervisor
            .spawn("upkeep", stop, move || crate::upkeep::run(kept.clone(), until.clone()));
        let (stop, until, of) = (followers.stopping(), followers.stopping(), app.clone());
        let expiring = supervisor
            .spawn("commands", stop, move || crate::commands::run(of.clone(), until.clone()));
        let mut upkeep = vec![upkeep, tidying, expiring, telling];
        if let Some(tls) = tls.clone() {
            let (stop, until) = (followers.stopping(), followers.stopping());
            let watch = move || tls.clone().watch(until.clone());
            upkeep.push(supervisor.spawn("certificate", stop, watch));
        }
        upkeep.extend(start::start(&app, &followers, queue, faces.checkers));
        upkeep.extend(webhooks::start(&app, &followers, node));
        Ok(Self { listener, metrics_listener, address, app, tls, followers, upkeep })
    }

    /// Where it serves metrics without a key, if anywhere.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's parts, for tests and measurements in one process with it.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Serves until `cancel`, then stops: requests in flight are answered, followers and the ledger
    /// settled. The pools stay open; they belong to the caller.
    pub async fn run(self, cancel: CancellationToken) {
        let metrics = self.metrics_listener.map(|listener| {
            let (app, listener, until) = (self.app.clone(), Arc::new(listener), cancel.clone());
            let few = ConnectionLimit::new(METRICS_CONNECTIONS_MAX, 0);
            self.app.ledger.supervisor().spawn("metrics_listener", cancel.clone(), move || {
                let (listener, until) = (Arc::clone(&listener), until.clone());
                let serving = Serving {
                    limit: few.clone(),
                    proxies: TrustedProxies::default(),
                    timeouts: app.door.timeouts,
                    tls: None,
                };
                connections::serve(listener, metrics_router(app.clone()), serving, until)
            })
        });
        let routes = router(self.app.clone());
        let Door { timeouts, connections: limit, proxies, .. } = self.app.door.clone();
        let serving = Serving { limit, proxies, timeouts, tls: self.tls };
        connections::serve(Arc::new(self.listener), routes, serving, cancel).await;
        if let Some(metrics) = metrics {
            metrics.settled().await;
        }
        let settling = async {
            self.followers.stop().await;
            for task in self.upkeep {
                task.settled().await;
            }
            self.app.ledger.close().await;
        };
        if timeout(SETTLE_MAX, settling).await.is_err() {
            tracing::warn!(
                "followers did not settle in time; they go on from their places next time"
            );
        }
        tracing::info!("stopped");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

fn open_checkpoints(
    data_dir: &Path,
    deployment: &Deployment,
) -> Result<Arc<checkpoint::Folder>, ServeError> {
    checkpoint::Folder::open(data_dir, deployment.org)
        .map(Arc::new)
        .map_err(|error| ServeError::Checkpoints(error.to_string()))
}

/// Starts everything that follows the ledger on this node.
async fn follow(
    ledger: &Ledger,
    pools: &Pools,
    node: Node,
    checkpoints: Arc<checkpoint::Folder>,
) -> Result<(Followers, Projections), ServeError> {
    let followers = Followers::new(ledger, node, &CancellationToken::new());
    adjudicator::start(&followers, ledger);
    checkpoint::start(&followers, ledger, checkpoints);
    let models = punchtrail_projections::all();
    let pool = pools.follower.clone();
    match Projections::start(models, pool, ledger.feed(), &followers).await {
        Ok(projections) => Ok((followers, projections)),
        Err(error) => {
            followers.stop().await;
            Err(error.into())
        }
    }
}

/// Folds what was measured into its buckets, so that it doesn't pile up when nobody asks.
async fn keep_up(stop: CancellationToken) {
    let mut tick = tokio::time::interval(metrics::UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Some(handle) = metrics::handle() {
            handle.run_upkeep();
        }
    }
}
