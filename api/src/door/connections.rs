//! Accepts connections and serves requests on them, each as patiently as it deserves.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, http::Request};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{TrustedProxies, origin},
    connection_limit::{ConnectionLimit, Counted, Overflow},
    head_guard::HeadGuard,
    idle::IdleLimit,
    limits::{
        DRAIN_MAX, HANDSHAKE_MAX, HEAD_BYTES_MAX, HEADERS_MAX, OVERFLOW_TIMEOUT, STREAMS_MAX,
        Timeouts,
    },
    tls::Tls,
    visit::Visit,
};
use crate::metrics;

/// After an accept that failed (no file descriptors left), how long to wait before the next.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What a listener serves, and to whom how.
#[derive(Debug, Clone)]
pub struct Serving {
    pub limit: ConnectionLimit,
    /// Whose connections carry everybody.
    pub proxies: TrustedProxies,
    pub timeouts: Timeouts,
    /// None for a listener in the clear.
    pub tls: Option<Tls>,
}

/// Serves connections until `cancel`, then waits until the last request is answered.
pub async fn serve(
    listener: Arc<TcpListener>,
    routes: Router,
    serving: Serving,
    cancel: CancellationToken,
) {
    let Serving { limit, proxies, timeouts, tls } = serving;
    let graceful = GracefulShutdown::new();
    let service = |timeouts: Timeouts, routes| {
        let (tls, cancel) = (tls.clone(), cancel.clone());
        Arc::new(Service { timeouts, protocol: protocol(timeouts), routes, tls, cancel })
    };
    let usual = service(timeouts, routes.clone());
    let short = Timeouts { head: OVERFLOW_TIMEOUT, idle: OVERFLOW_TIMEOUT, ..timeouts };
    let overflow = service(short, routes.layer(Extension(Overflow)));
    loop {
        let (stream, peer, counted) = tokio::select! {
            () = cancel.cancelled() => break,
            next = next(&listener, &limit) => next,
        };
        let origin = Some(origin(peer.ip())).filter(|_| !proxies.contains(peer.ip()));
        let visit = Visit::new(peer.ip(), origin, limit.silent());
        let service = if counted.is_overflow { &overflow } else { &usual };
        let (service, watcher) = (Arc::clone(service), graceful.watcher());
        tokio::spawn(async move {
            metrics::connections(1.0);
            tokio::select! {
                () = service.serve(stream, visit.clone(), watcher) => {}
                () = visit.turned_out() => tracing::debug!("a silent connection made room"),
            }
            metrics::connections(-1.0);
            drop(counted);
        });
    }
    drop(listener);
    let open = graceful.count();
    if timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!(open, "requests were still in flight when the time to answer them was over");
    }
}

/// The next connection, once one more may be served.
async fn next(listener: &TcpListener, limit: &ConnectionLimit) -> (TcpStream, SocketAddr, Counted) {
    let counted = limit.acquire().await;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, counted),
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn protocol(timeouts: Timeouts) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
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
    timeouts: Timeouts,
    protocol: auto::Builder<TokioExecutor>,
    routes: Router,
    tls: Option<Tls>,
    cancel: CancellationToken,
}

impl Service {
    async fn serve(&self, stream: TcpStream, visit: Visit, watcher: Watcher) {
        let stream = without_delay(stream);
        let Some(tls) = &self.tls else { return self.converse(stream, visit, watcher).await };
        // Who never finishes a handshake is one of the silent, like who never finishes a head.
        let handshake = timeout(self.timeouts.head.min(HANDSHAKE_MAX), tls.accept(stream));
        match self.cancel.run_until_cancelled(handshake).await {
            Some(Ok(Ok(stream))) => self.converse(stream, visit, watcher).await,
            Some(Ok(Err(error))) => tracing::debug!(%error, "a TLS handshake failed"),
            Some(Err(_)) => tracing::debug!("a TLS handshake took too long"),
            None => {}
        }
    }

    async fn converse<I>(&self, stream: I, visit: Visit, watcher: Watcher)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Timeouts { head, idle, .. } = self.timeouts;
        // A connection has begun once a head is whole.
        let guarded = HeadGuard::new(stream, visit.clone());
        let io = IdleLimit::new(guarded, head, idle);
        let service = TowerToHyperService::new(self.routes.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let in_flight = visit.request();
            request.extensions_mut().insert(visit.clone());
            let answering = service.call(request);
            async move {
                let answer = answering.await;
                drop(in_flight);
                answer
            }
        });
        let connection = self.protocol.serve_connection(TokioIo::new(io), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection broke off");
        }
    }
}
