//! Accepts connections and serves requests on them, each as patiently as it deserves.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, http::Request};
use hyper::{
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    address::{TrustedProxies, origin},
    connection_limit::{ConnectionLimit, Counted, Overflow},
    head_guard::HeadGuard,
    idle::IdleLimit,
    limits::{DRAIN_MAX, HEAD_BYTES_MAX, HEADERS_MAX, OVERFLOW_TIMEOUT, STREAMS_MAX, Timeouts},
    visit::Visit,
};
use crate::metrics;

/// After an accept that failed (no file descriptors left), how long to wait before the next.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves connections until `cancel`, then waits until the last request is answered.
pub async fn serve(
    listener: Arc<TcpListener>,
    routes: Router,
    limit: ConnectionLimit,
    proxies: TrustedProxies,
    timeouts: Timeouts,
    cancel: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let usual = Service { timeouts, protocol: protocol(timeouts), routes: routes.clone() };
    let timeouts = Timeouts { head: OVERFLOW_TIMEOUT, idle: OVERFLOW_TIMEOUT, ..timeouts };
    let routes = routes.layer(Extension(Overflow));
    let overflow = Service { timeouts, protocol: protocol(timeouts), routes };
    loop {
        let (stream, peer, counted) = tokio::select! {
            () = cancel.cancelled() => break,
            next = next(&listener, &limit) => next,
        };
        let origin = Some(origin(peer.ip())).filter(|_| !proxies.contains(peer.ip()));
        let visit = Visit::new(peer.ip(), origin, limit.silent());
        let service = if counted.is_overflow { &overflow } else { &usual };
        service.serve(stream, visit, counted, &graceful);
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
}

impl Service {
    fn serve(
        &self,
        stream: TcpStream,
        visit: Visit,
        counted: Counted,
        graceful: &GracefulShutdown,
    ) {
        let Timeouts { head, idle, .. } = self.timeouts;
        // A connection has begun once a head is whole.
        let guarded = HeadGuard::new(without_delay(stream), visit.clone());
        let io = IdleLimit::new(guarded, head, idle);
        let (service, of) = (TowerToHyperService::new(self.routes.clone()), visit.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let in_flight = of.request();
            request.extensions_mut().insert(of.clone());
            let answering = service.call(request);
            async move {
                let answer = answering.await;
                drop(in_flight);
                answer
            }
        });
        let connection = self.protocol.serve_connection(TokioIo::new(io), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            metrics::connections(1.0);
            tokio::select! {
                served = connection => if let Err(error) = served {
                    tracing::debug!(%error, "a connection broke off");
                },
                () = visit.turned_out() => tracing::debug!("a silent connection made room"),
            }
            metrics::connections(-1.0);
            drop(counted);
        });
    }
}
