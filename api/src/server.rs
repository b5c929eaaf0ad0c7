//! The server: followers, sockets, connections, and a stop that loses nothing.
//!
//! Stopping goes from the outside in: no new connections, requests in flight are answered, then the
//! followers finish what they hold, then the ledger's committer. Each part is bounded; what takes
//! longer is cut off, which is as safe as a crash and no safer.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use punchtrail_infra::{
    access::deployment::Deployment, adjudicator, audit::checkpoint, ledger::Ledger,
    photos::PhotoFolder, postgres::Pools,
};
use punchtrail_projections::engine::{ProjectionError, Projections};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    door::{
        admission::Admission,
        idle::IdleLimit,
        limits::{
            BEYOND_PATIENCE, CONNECTIONS_BEYOND_MAX, DRAIN_MAX, HEAD_BYTES_MAX, HEADERS_MAX,
            Patience, SETTLE_MAX, STREAMS_MAX,
        },
        seats::{Beyond, Seat, Seats},
    },
    health::Health,
    metrics,
    router::{metrics_router, router},
    state::{App, Entry},
};

/// After an accept that failed (no file descriptors left), how long to wait before the next.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Connections to the address that only metrics are served on.
const METRICS_CONNECTIONS_MAX: usize = 16;

/// What a server needs.
#[derive(Debug)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to serve metrics without a key, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The database, migrated.
    pub pools: Pools,
    /// Where photos and checkpoints are kept.
    pub data_dir: PathBuf,
    /// Connections served at once.
    pub connections_max: usize,
    /// Lets requests in.
    pub admission: Admission,
    /// How long clients may take.
    pub patience: Patience,
}

impl ServeOptions {
    /// With the usual limits, and metrics only for operators' keys.
    pub fn new(listen: SocketAddr, pools: Pools, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            metrics_listen: None,
            pools,
            data_dir: data_dir.into(),
            connections_max: crate::door::limits::CONNECTIONS_MAX,
            admission: Admission::new(),
            patience: Patience::default(),
        }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}; is another server running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The folder of photos can't be used.
    #[error("the photo folder {path} can't be used: {source}")]
    Photos {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder of checkpoints can't be used.
    #[error("the checkpoint folder can't be used: {0}")]
    Checkpoints(String),
    /// The database is out of reach.
    #[error("the database is out of reach: {0}")]
    Database(#[from] punchtrail_infra::postgres::DatabaseError),
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
    followers: Followers,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What follows the ledger on this node.
struct Followers {
    stop: CancellationToken,
    adjudicator: adjudicator::Running,
    checkpoints: checkpoint::Running,
    projections: Arc<Projections>,
    upkeep: JoinHandle<()>,
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
        metrics::handle();
        let deployment = Deployment::open(&options.pools.writer).await?;
        let photos = open_photos(&options.data_dir).await?;
        let checkpoints = open_checkpoints(&options.data_dir, &deployment)?;
        let ledger = Ledger::open_for(&options.pools).await?;
        let followers = match follow(&ledger, &options.pools, checkpoints).await {
            Ok(followers) => followers,
            Err(error) => {
                ledger.close().await;
                return Err(error);
            }
        };
        let health = Health {
            projections: Arc::clone(&followers.projections),
            adjudicator: followers.adjudicator.progress.clone(),
            checkpoints: followers.checkpoints.progress.clone(),
        };
        let entry = Entry {
            patience: options.patience,
            admission: options.admission,
            seats: Seats::new(options.connections_max, CONNECTIONS_BEYOND_MAX),
        };
        let app = App::new(ledger, options.pools, deployment, Arc::new(photos), health, entry);
        Ok(Self { listener, metrics_listener, address, app, followers })
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
            let (app, cancel) = (self.app.clone(), cancel.clone());
            let few = Seats::new(METRICS_CONNECTIONS_MAX, 0);
            let routes = metrics_router(app.clone());
            tokio::spawn(accept(listener, routes, few, app.patience, cancel))
        });
        let routes = router(self.app.clone());
        let seats = self.app.seats.clone();
        accept(self.listener, routes, seats, self.app.patience, cancel).await;
        if let Some(metrics) = metrics {
            drop(metrics.await);
        }
        let settling = async {
            self.followers.settle().await;
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

async fn open_photos(data_dir: &Path) -> Result<PhotoFolder, ServeError> {
    let path = data_dir.join("photos");
    PhotoFolder::open(&path).await.map_err(|source| ServeError::Photos { path, source })
}

fn open_checkpoints(
    data_dir: &Path,
    deployment: &Deployment,
) -> Result<Arc<checkpoint::Folder>, ServeError> {
    checkpoint::Folder::open(data_dir, deployment.org)
        .map(Arc::new)
        .map_err(|error| ServeError::Checkpoints(error.to_string()))
}

async fn follow(
    ledger: &Ledger,
    pools: &Pools,
    checkpoints: Arc<checkpoint::Folder>,
) -> Result<Followers, ServeError> {
    let stop = CancellationToken::new();
    let projections =
        Projections::start(pools.follower.clone(), ledger.feed(), stop.clone()).await?;
    Ok(Followers {
        adjudicator: adjudicator::spawn(ledger.clone(), stop.clone()),
        checkpoints: checkpoint::spawn(ledger.clone(), checkpoints, stop.clone()),
        projections: Arc::new(projections),
        upkeep: tokio::spawn(keep_up(stop.clone())),
        stop,
    })
}

impl Followers {
    async fn settle(self) {
        self.stop.cancel();
        self.adjudicator.settled().await;
        self.projections.stop().await;
        self.checkpoints.settled().await;
        drop(self.upkeep.await);
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

/// Accepts connections until `cancel`, then waits until the last request is answered.
async fn accept(
    listener: TcpListener,
    routes: Router,
    seats: Seats,
    patience: Patience,
    cancel: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let usual = Service { patience, protocol: protocol(patience), routes: routes.clone() };
    let patience = Patience { head: BEYOND_PATIENCE, idle: BEYOND_PATIENCE, ..patience };
    let routes = routes.layer(Extension(Beyond));
    let beyond = Service { patience, protocol: protocol(patience), routes };
    loop {
        let (stream, seat) = tokio::select! {
            () = cancel.cancelled() => break,
            next = next(&listener, &seats) => next,
        };
        let service = if seat.beyond { &beyond } else { &usual };
        service.serve(stream, seat, &graceful);
    }
    drop(listener);
    let open = graceful.count();
    if timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!(open, "requests were still in flight when the time to answer them was over");
    }
}

/// The next connection, once there is a seat for it.
async fn next(listener: &TcpListener, seats: &Seats) -> (TcpStream, Seat) {
    let seat = seats.take().await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, seat),
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn protocol(patience: Patience) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    protocol
}

/// Answers are small and waited for: none is held back to be sent with the next.
fn without_delay(stream: TcpStream) -> TcpStream {
    drop(stream.set_nodelay(true));
    stream
}

/// What is served on a connection, and how patiently.
struct Service {
    patience: Patience,
    protocol: auto::Builder<TokioExecutor>,
    routes: Router,
}

impl Service {
    fn serve(&self, stream: TcpStream, seat: Seat, graceful: &GracefulShutdown) {
        let Patience { head, idle, .. } = self.patience;
        let io = TokioIo::new(IdleLimit::new(without_delay(stream), head, idle));
        let service = TowerToHyperService::new(self.routes.clone());
        let connection = self.protocol.serve_connection(io, service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            metrics::connections(1.0);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
            metrics::connections(-1.0);
            drop(seat);
        });
    }
}
