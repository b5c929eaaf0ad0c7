//! The framing of HTTP/1 requests, looked at before it is believed.
//!
//! Two programs that read the borders of a request differently let one caller put words into the
//! next one's mouth (request smuggling; RFC 9112, section 11.2). hyper reads leniently where the
//! RFC allows it: lines that end with a bare line feed, a `Content-Length` beside
//! `Transfer-Encoding`. Here a head is handed on only once it is whole and can be read in one way;
//! else the connection ends with a 400 after the answers that are due. What is HTTP/2 passes
//! unseen: its framing leaves no such choice.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::{limits::HEAD_BYTES_MAX, visit::Visit};
use crate::problem::Refusal;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;
/// The line that begins an HTTP/2 connection.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n";
/// The longest line of a chunk's size, in bytes: sixteen digits and what is ignored behind them.
const SIZE_LINE_BYTES_MAX: usize = 256;

/// A connection on which every request's framing is looked at.
#[derive(Debug)]
pub struct HeadGuard<I> {
    inner: I,
    visit: Visit,
    /// Read, and looked at as far as `seen`.
    bytes: Vec<u8>,
    /// Handed on.
    given: usize,
    /// May be handed on.
    seen: usize,
    part: Part,
    /// How far a head was looked at that isn't whole.
    scan: Scan,
    /// What is still to be said before the end.
    answer: Vec<u8>,
    /// Whoever is to hear of the end once what is due was answered.
    reader: Option<Waker>,
}

/// What stands next in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line's end behind a chunk.
    ChunkEnd,
    Trailers,
    /// Nothing more to look at.
    Rest,
    /// Nothing more is read.
    End,
}

/// How far a head was looked at, in bytes of it.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    looked: usize,
    /// Where the line begins that isn't whole.
    line: usize,
    /// Whether a line was there that isn't empty.
    begun: bool,
}

/// Why a head isn't handed on.
type Fault = &'static str;

const BARE: Fault = "A line ends without a carriage return and a line feed.";
const TWO_LENGTHS: Fault = "The body's length is said twice.";
const NO_LENGTH: Fault = "The body's length can't be read.";
const NO_FIELD: Fault = "A header field can't be read.";
const NO_CHUNK: Fault = "A chunk can't be read.";

impl<I> HeadGuard<I> {
    /// Looks at what comes over `inner`, the stream of `visit`.
    pub fn new(inner: I, visit: Visit) -> Self {
        let (bytes, answer) = (Vec::new(), Vec::new());
        let (part, scan) = (Part::Head, Scan::default());
        Self { inner, visit, bytes, given: 0, seen: 0, part, scan, answer, reader: None }
    }

    /// Looks on until more has to be read.
    fn look(&mut self) {
        while self.seen < self.bytes.len() {
            let rest = &self.bytes[self.seen..];
            let (length, next) = match self.part.next(rest, &mut self.scan) {
                Ok(Some(found)) => found,
                Ok(None) => return,
                Err(fault) => {
                    if self.part == Part::Head {
                        self.answer = refusal(fault);
                    }
                    self.bytes.truncate(self.seen);
                    (0, Part::End)
                }
            };
            self.seen += length;
            self.part = next;
        }
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = buffer.remaining().min(self.seen - self.given);
        buffer.put_slice(&self.bytes[self.given..self.given + length]);
        self.given += length;
        if self.given == self.seen {
            self.bytes.drain(..self.given);
            (self.given, self.seen) = (0, 0);
        }
    }
}

impl Part {
    /// What stands next when so many bytes have passed.
    fn after(self, length: u64) -> Self {
        match self {
            Self::Body(left) if left > length => Self::Body(left - length),
            Self::Body(_) => Self::Head,
            Self::Chunk(left) if left > length => Self::Chunk(left - length),
            Self::Chunk(_) => Self::ChunkEnd,
            other => other,
        }
    }

    /// How much of `bytes`, which aren't empty, stands before what follows; none when more is
    /// needed to tell.
    fn next(self, bytes: &[u8], scan: &mut Scan) -> Result<Option<(usize, Self)>, Fault> {
        Ok(match self {
            Self::Head => match scan.head(bytes)? {
                Some(length) => {
                    *scan = Scan::default();
                    Some((length, body(&bytes[..length])?))
                }
                // The parser behind refuses it.
                None if bytes.len() > HEAD_BYTES_MAX => Some((0, Self::Rest)),
                None => None,
            },
            Self::Body(left) | Self::Chunk(left) => {
                let length = passed(left, bytes);
                Some((length, self.after(length as u64)))
            }
            Self::ChunkSize => match line(bytes)? {
                Some(length) => Some((length, chunk(&bytes[..length])?)),
                None if bytes.len() > SIZE_LINE_BYTES_MAX => return Err(NO_CHUNK),
                None => None,
            },
            Self::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => Some((2, Self::ChunkSize)),
                [b'\r'] => None,
                _ => return Err(NO_CHUNK),
            },
            Self::Trailers => match line(bytes)? {
                Some(2) => Some((2, Self::Head)),
                Some(length) => Some((length, Self::Trailers)),
                None if bytes.len() > HEAD_BYTES_MAX => return Err(NO_FIELD),
                None => None,
            },
            Self::Rest => Some((bytes.len(), Self::Rest)),
            Self::End => None,
        })
    }
}

/// How much of `bytes` belongs to what has `left`.
fn passed(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
}

/// How long the first line is, its end included; none while it isn't whole.
fn line(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    match bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(at) if bytes[at] == b'\n' => Err(BARE),
        Some(at) => match bytes.get(at + 1) {
            Some(b'\n') => Ok(Some(at + 2)),
            Some(_) => Err(BARE),
            None => Ok(None),
        },
        None => Ok(None),
    }
}

impl Scan {
    /// How long the head is, with its empty line; none while it isn't whole. Empty lines before it
    /// are part of it. Each byte is looked at once, however many pieces it comes in.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        while let Some(&byte) = bytes.get(self.looked) {
            let after_return = self.looked > self.line && bytes[self.looked - 1] == b'\r';
            if after_return != (byte == b'\n') {
                return Err(BARE);
            }
            self.looked += 1;
            if byte == b'\n' {
                let is_empty = self.looked - self.line == 2;
                if is_empty && self.begun {
                    return Ok(Some(self.looked));
                }
                self.begun |= !is_empty;
                self.line = self.looked;
            }
        }
        Ok(None)
    }
}

/// What follows a head.
fn body(head: &[u8]) -> Result<Part, Fault> {
    if head.starts_with(HTTP_2) {
        return Ok(Part::Rest);
    }
    let mut lines =
        head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.find(|line| !line.is_empty());
    let (mut length, mut chunked) = (None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(NO_FIELD)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) {
            return Err(NO_FIELD);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let said =
                std::str::from_utf8(value).ok().filter(|_| value.iter().all(u8::is_ascii_digit));
            let said: u64 = said.and_then(|text| text.parse().ok()).ok_or(NO_LENGTH)?;
            if length.replace(said).is_some() {
                return Err(TWO_LENGTHS);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(NO_LENGTH);
            }
            if std::mem::replace(&mut chunked, true) {
                return Err(TWO_LENGTHS);
            }
        }
    }
    match length {
        Some(_) if chunked => Err(TWO_LENGTHS),
        // Chunks came with HTTP/1.1.
        None if chunked && !request_line.is_some_and(|line| line.ends_with(b"HTTP/1.1")) => {
            Err(NO_LENGTH)
        }
        None if chunked => Ok(Part::ChunkSize),
        None | Some(0) => Ok(Part::Head),
        Some(length) => Ok(Part::Body(length)),
    }
}

/// What follows the line of a chunk's size.
fn chunk(line: &[u8]) -> Result<Part, Fault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let behind = line[digits..].trim_ascii_start();
    let size = std::str::from_utf8(&line[..digits]).ok();
    let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(NO_CHUNK)?;
    if !behind.is_empty() && !behind.starts_with(b";") {
        return Err(NO_CHUNK);
    }
    Ok(if size == 0 { Part::Trailers } else { Part::Chunk(size) })
}

fn refusal(fault: Fault) -> Vec<u8> {
    let problem = Refusal::unclear(fault).problem(&Uuid::now_v7().to_string());
    let body = serde_json::to_string(&problem).unwrap_or_default();
    tracing::debug!(fault, "a request's framing was refused");
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n\
         x-request-id: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        problem.request_id,
        body.len()
    )
    .into_bytes()
}

impl<I: AsyncRead + Unpin> AsyncRead for HeadGuard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.given < this.seen {
                this.give(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.part == Part::End {
                // An end while a request is being answered would be taken for its sender's.
                if !this.answer.is_empty() && this.visit.is_busy() {
                    this.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                return Poll::Ready(Ok(()));
            }
            if this.part == Part::Rest && this.bytes.is_empty() {
                return Pin::new(&mut this.inner).poll_read(cx, buffer);
            }
            if let Part::Body(left) | Part::Chunk(left) = this.part
                && this.bytes.is_empty()
            {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
                let read = &buffer.filled()[before..];
                let length = passed(left, read);
                this.bytes.extend_from_slice(&read[length..]);
                if !read.is_empty() {
                    this.part = this.part.after(length as u64);
                    this.look();
                }
                buffer.set_filled(before + length);
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; CHUNK_BYTES];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // What is left of a request that breaks off says nothing.
                this.part = Part::End;
                return Poll::Ready(Ok(()));
            }
            this.bytes.extend_from_slice(read.filled());
            this.look();
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for HeadGuard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_ready()
            && !self.visit.is_busy()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        flushed
    }

    /// What is due was said: the refusal is the last word.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.answer.is_empty() {
            let written = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.answer))?;
            if written == 0 {
                break;
            }
            this.answer.drain(..written);
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::door::crowd::Crowd;

    /// What comes through when `sent` comes in pieces of that size, and what is answered.
    async fn through(sent: &[u8], piece: usize) -> (Vec<u8>, String) {
        let (mut client, server) = duplex(1 << 20);
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut guard = HeadGuard::new(server, Visit::new(here, Some(here), &Crowd::new(1)));
        let (pieces, mut came) = (sent.to_vec(), Vec::new());
        let sending = tokio::spawn(async move {
            for piece in pieces.chunks(piece) {
                // The other end may have had enough.
                if client.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        });
        guard.read_to_end(&mut came).await.unwrap();
        guard.shutdown().await.unwrap();
        drop(guard);
        (came, sending.await.unwrap())
    }

    const GOOD: &[u8] = b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n\n\n\r\n:\
        PUT /b HTTP/1.1\r\nhost:x\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;a=b\r\n\n\n\n\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n\
        GET /c HTTP/1.1\r\nHost: x\r\n\r\n";

    #[tokio::test]
    async fn what_can_be_read_in_one_way_comes_through_as_it_is() {
        for piece in [1, 2, 3, 7, 1_000] {
            let (came, answer) = through(GOOD, piece).await;
            assert_eq!(String::from_utf8(came), String::from_utf8(GOOD.to_vec()), "{piece}");
            assert_eq!(answer, "");
        }
        let http_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\n\r";
        assert_eq!(through(http_2, 5).await, (http_2.to_vec(), String::new()));
    }

    #[tokio::test]
    async fn what_can_be_read_in_two_ways_ends_the_connection() {
        let line = "POST /a HTTP/1.1\r\nHost: x\r\n";
        for bad in [
            "POST /a HTTP/1.1\nHost: x\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\n\n",
            "POST /a HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
            "\nPOST /a HTTP/1.1\r\nHost: x\r\n\r\n",
            &format!("{line}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
            &format!("{line}Content-Length: 1, 1\r\n\r\nx"),
            &format!("{line}Content-Length: +1\r\n\r\nx"),
            &format!("{line}Content-Length:\r\n\r\n"),
            &format!("{line}Content-Length: 99999999999999999999\r\n\r\n"),
            &format!("{line}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &format!("{line}transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n"),
            &format!("{line}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
            &format!("{line}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            &format!("{line}Transfer-Encoding: identity\r\n\r\n"),
            "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &format!("{line}Folded: a\r\n b\r\n\r\n"),
            &format!("{line}Content-Length : 3\r\n\r\nabc"),
            &format!("{line}no colon\r\n\r\n"),
        ] {
            for piece in [1, 1_000] {
                let (came, answer) = through(bad.as_bytes(), piece).await;
                assert_eq!(String::from_utf8(came).unwrap(), "", "{bad:?}");
                assert!(answer.starts_with("HTTP/1.1 400 "), "{bad:?}: {answer}");
                assert!(answer.ends_with('}') && answer.contains("connection: close"), "{answer}");
            }
            // What came before it comes through.
            let (came, _) = through(&[GOOD, bad.as_bytes()].concat(), 11).await;
            assert_eq!(came, GOOD, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_chunk_that_can_be_read_in_two_ways_breaks_the_body_off() {
        let head = "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in [
            "3\nabc\r\n0\r\n\r\n",
            "3 x\r\nabc\r\n",
            "\r\n",
            "-1\r\n",
            "0x3\r\nabc\r\n",
            "11111111111111111\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "0\r\nA: b\n\r\n",
            &format!("3;{}\r\nabc", "a".repeat(SIZE_LINE_BYTES_MAX)),
        ] {
            let (came, answer) = through(format!("{head}{bad}").as_bytes(), 4).await;
            assert!(came.len() < head.len() + bad.len(), "{bad:?}");
            assert_eq!(answer, "", "whoever reads the body answers: {bad:?}");
        }
    }

    #[tokio::test]
    async fn a_head_without_end_is_left_to_the_parser() {
        let endless = "A".repeat(HEAD_BYTES_MAX + 10);
        assert_eq!(through(endless.as_bytes(), 999).await.0.len(), endless.len());
    }
}
