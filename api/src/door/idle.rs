//! A connection that ends when nothing happens on it: no byte either way for a while, or no
//! request's first bytes at all. HTTP/1 has time-outs of its own for a head; this also ends what
//! HTTP/2 leaves open, a body that stops coming, and a reader that stops reading.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Bytes after which a connection has begun: an HTTP/2 preface has as many.
const BEGUN_BYTES: usize = 24;

/// A connection with a limit on standing idle.
#[derive(Debug)]
pub struct IdleLimit<I> {
    inner: I,
    idle_max: Duration,
    deadline: Pin<Box<Sleep>>,
    /// Bytes still to come before the connection has begun; until then the deadline stands.
    unbegun_bytes: usize,
}

impl<I> IdleLimit<I> {
    /// Ends `inner` after `idle_max` without a byte, and after `begin_max` without a beginning.
    pub fn new(inner: I, begin_max: Duration, idle_max: Duration) -> Self {
        let deadline = Box::pin(sleep_until(Instant::now() + begin_max));
        Self { inner, idle_max, deadline, unbegun_bytes: BEGUN_BYTES }
    }

    fn moved(&mut self, read_bytes: usize) {
        self.unbegun_bytes = self.unbegun_bytes.saturating_sub(read_bytes);
        if self.unbegun_bytes == 0 {
            self.deadline.as_mut().reset(Instant::now() + self.idle_max);
        }
    }

    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "nothing happened on the connection"))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for IdleLimit<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                let read_bytes = buffer.filled().len() - before;
                if read_bytes > 0 {
                    self.moved(read_bytes);
                }
                Poll::Ready(read)
            }
            Poll::Pending => self.overdue(cx).map(Err),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for IdleLimit<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, bytes) {
            Poll::Ready(written) => {
                self.moved(0);
                Poll::Ready(written)
            }
            Poll::Pending => self.overdue(cx).map(Err),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write_vectored(cx, parts) {
            Poll::Ready(written) => {
                self.moved(0);
                Poll::Ready(written)
            }
            Poll::Pending => self.overdue(cx).map(Err),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const BEGIN: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_trickle_does_not_keep_a_connection_that_never_begins() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = IdleLimit::new(server, BEGIN, IDLE);
        let trickle = tokio::spawn(async move {
            for _ in 0..BEGUN_BYTES {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if client.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        let mut read = Vec::new();
        let error = server.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(read.len() < BEGUN_BYTES);
        drop(server);
        trickle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_in_use_stays_and_an_idle_one_ends() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = IdleLimit::new(server, BEGIN, IDLE);
        client.write_all(&[b'x'; BEGUN_BYTES]).await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).await.unwrap(), BEGUN_BYTES);
        for _ in 0..3 {
            tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
            client.write_all(b"y").await.unwrap();
            assert_eq!(server.read(&mut buffer).await.unwrap(), 1);
        }
        let error = server.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
