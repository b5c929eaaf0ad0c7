//! What a refused request still has to say.
//!
//! A request may be refused before its body is read. On HTTP/1 the connection then ends, and a
//! sender who is cut off in the middle of its body may never read why. So the answer goes out at
//! once, and the rest is read for a while and thrown away: a little work, and a device learns that
//! its token is no longer good instead of seeing a broken connection for ever.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::header,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use crate::door::limits::{REFUSED_BYTES_MAX, REFUSED_MAX};

/// The body of a request that is being answered, to be read on once its handler has let go of it.
#[derive(Debug)]
pub struct Leftover(Option<Arc<Mutex<Body>>>);

/// What the handler gets of it.
struct Shared(Arc<Mutex<Body>>);

impl Leftover {
    /// Keeps hold of a request's body.
    pub fn of(request: Request) -> (Request, Self) {
        let waits_to_be_asked = request.headers().contains_key(header::EXPECT);
        if request.body().is_end_stream() || waits_to_be_asked {
            return (request, Self(None));
        }
        let (parts, body) = request.into_parts();
        let body = Arc::new(Mutex::new(body));
        let shared = Body::new(Shared(Arc::clone(&body)));
        (Request::from_parts(parts, shared), Self(Some(body)))
    }

    /// Reads the rest and throws it away, bounded in bytes and time, while the answer goes out.
    /// Whether there is a rest; then the connection should end with the answer.
    pub fn discard(self) -> bool {
        let Some(body) = self.0 else { return false };
        let mut body = std::mem::take(&mut *body.lock().unwrap_or_else(PoisonError::into_inner));
        if body.is_end_stream() {
            return false;
        }
        let reading = async move {
            let mut read_bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read_bytes += frame.data_ref().map_or(0, Bytes::len);
                if read_bytes > REFUSED_BYTES_MAX {
                    return;
                }
            }
        };
        tokio::spawn(tokio::time::timeout(REFUSED_MAX, reading));
        true
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
