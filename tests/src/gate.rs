//! The line between devices and a server, as a TCP proxy on loopback: open, cut, silent, slow, or
//! losing answers.
//!
//! A device is enrolled with the gate's address and keeps it for life; the server behind may come
//! back on another port ([`Gate::lead_to`]). What the gate does to a connection is what a real line
//! does: bytes are passed on unread, a cut resets what is under way, and an answer is lost only
//! after the server has begun to send it, so what was asked has been done. Faults that strike by
//! chance do so by a seed.
//!
//! It knows one thing of HTTP/1: a request's first line stands in the first bytes that a client
//! sends after an answer. That is enough to lose the answers to one kind of request.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::AbortHandle,
    time::Instant,
};

/// How much is passed on at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;
/// The same on a slow line: small, so that it is slow evenly.
const SLOW_CHUNK_BYTES: usize = 1 << 10;
/// How much of a request's beginning is kept to tell what is asked, in bytes.
const HEAD_BYTES_MAX: usize = 256;

/// Whether bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Every connection, old or new, is reset.
    Cut,
    /// Connections stand, and nothing passes: a line that is dead without saying so.
    Silent,
}

/// How often something strikes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chance {
    Next(u32),
    /// Each time with this probability.
    Always(f64),
}

/// Answers that never arrive: their connection is reset when the server begins to send them.
#[derive(Debug, Clone)]
pub struct LostAnswers {
    /// Only to requests whose first line contains this; empty for all.
    pub to: String,
    pub chance: Chance,
}

/// What has gone through so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections that were let through.
    pub connections: u64,
    /// Connections that were reset because the line was not open when they came.
    pub turned_away: u64,
    /// Requests that reached the server.
    pub requests: u64,
    /// Answers that were lost on purpose.
    pub answers_lost: u64,
    /// Bytes towards the server.
    pub bytes_up: u64,
    /// Bytes towards the devices.
    pub bytes_down: u64,
}

/// The line, until dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Rules>,
    faults: Mutex<Faults>,
    pace: Mutex<Option<Pace>>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    upstream: SocketAddr,
    line: Line,
}

#[derive(Debug)]
struct Faults {
    lost: Option<LostAnswers>,
    dice: StdRng,
}

/// A bound on all bytes of the line together.
#[derive(Debug)]
struct Pace {
    bytes_per_s: u64,
    free_at: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    turned_away: AtomicU64,
    requests: AtomicU64,
    answers_lost: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

/// Why a connection ends.
enum End {
    Closed,
    /// By the gate, or because one end is gone: the other is reset.
    Broken,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// Opens a line to the server at `upstream`. `seed` decides what strikes by chance.
    ///
    /// # Errors
    /// When no port is to be had.
    pub async fn open(upstream: SocketAddr, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (rules, _) = watch::channel(Rules { upstream, line: Line::Open });
        let shared = Arc::new(Shared {
            rules,
            faults: Mutex::new(Faults { lost: None, dice: StdRng::seed_from_u64(seed) }),
            pace: Mutex::new(None),
            counts: Counts::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What devices take for the server, like `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The server is elsewhere now. Connections to where it was are reset.
    pub fn lead_to(&self, upstream: SocketAddr) {
        self.shared.rules.send_modify(|rules| rules.upstream = upstream);
    }

    /// Lets bytes pass, resets everything, or goes silent.
    pub fn set(&self, line: Line) {
        self.shared.rules.send_modify(|rules| rules.line = line);
    }

    /// Bounds the bytes that pass in a second, both ways together; none for no bound.
    pub fn slow_to(&self, bytes_per_s: Option<u64>) {
        *locked(&self.shared.pace) =
            bytes_per_s.map(|bytes_per_s| Pace { bytes_per_s, free_at: Instant::now() });
    }

    /// Loses answers from now on; none for no longer.
    pub fn lose_answers(&self, lost: Option<LostAnswers>) {
        locked(&self.shared.faults).lost = lost;
    }

    /// What has gone through so far.
    pub fn traffic(&self) -> Traffic {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            connections: read(&counts.connections),
            turned_away: read(&counts.turned_away),
            requests: read(&counts.requests),
            answers_lost: read(&counts.answers_lost),
            bytes_up: read(&counts.bytes_up),
            bytes_down: read(&counts.bytes_down),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Line::Cut);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An error concerns one connection that went before it came.
        if let Ok((device, _)) = listener.accept().await {
            tokio::spawn(carry(device, Arc::clone(&shared)));
        }
    }
}

async fn carry(mut device: TcpStream, shared: Arc<Shared>) {
    if let End::Broken = pass(&mut device, &shared).await {
        let _ = device.set_zero_linger();
    }
}

/// Passes bytes between `device` and the server until one of them or the gate ends it.
async fn pass(device: &mut TcpStream, shared: &Shared) -> End {
    let mut watched = shared.rules.subscribe();
    let rules = *watched.borrow_and_update();
    if rules.line != Line::Open {
        shared.counts.turned_away.fetch_add(1, Ordering::Relaxed);
        speak_again(&mut watched).await;
        return End::Broken;
    }
    let Ok(mut server) = TcpStream::connect(rules.upstream).await else { return End::Broken };
    let _ = (device.set_nodelay(true), server.set_nodelay(true));
    shared.counts.connections.fetch_add(1, Ordering::Relaxed);
    let head = Mutex::new(Head::default());
    let end = {
        let (from_device, to_device) = device.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            end = shared.upward(from_device, to_server, &head) => end,
            end = shared.downward(from_server, to_device, &head) => end,
            () = change(&mut watched, rules) => End::Broken,
        }
    };
    if let End::Broken = end {
        speak_again(&mut watched).await;
        let _ = server.set_zero_linger();
    }
    end
}

async fn change(watched: &mut watch::Receiver<Rules>, from: Rules) {
    // The gate itself is gone when there is nothing to watch any more.
    let _ = watched.wait_for(|now| *now != from).await;
}

/// On a silent line, not even a reset gets through.
async fn speak_again(watched: &mut watch::Receiver<Rules>) {
    let _ = watched.wait_for(|now| now.line != Line::Silent).await;
}

/// The beginning of the request under way on one connection.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    answered: bool,
}

impl Head {
    fn line(&self) -> String {
        let end = self.bytes.iter().position(|b| *b == b'\r').unwrap_or(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }
}

impl Shared {
    async fn upward(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        head: &Mutex<Head>,
    ) -> End {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let room = self.chunk_bytes();
            let length = match from.read(&mut chunk[..room]).await {
                Ok(0) => break,
                Ok(length) => length,
                Err(_) => return End::Broken,
            };
            self.note_request(head, &chunk[..length]);
            self.wait_turn(length).await;
            if to.write_all(&chunk[..length]).await.is_err() {
                return End::Broken;
            }
            self.counts.bytes_up.fetch_add(length as u64, Ordering::Relaxed);
        }
        // The device says no more; what the server still answers goes on its way.
        if to.shutdown().await.is_err() {
            return End::Broken;
        }
        std::future::pending().await
    }

    async fn downward(
        &self,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        head: &Mutex<Head>,
    ) -> End {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let room = self.chunk_bytes();
            let length = match from.read(&mut chunk[..room]).await {
                Ok(0) => break,
                Ok(length) => length,
                Err(_) => return End::Broken,
            };
            if self.is_lost(head) {
                return End::Broken;
            }
            self.wait_turn(length).await;
            if to.write_all(&chunk[..length]).await.is_err() {
                return End::Broken;
            }
            self.counts.bytes_down.fetch_add(length as u64, Ordering::Relaxed);
        }
        match to.shutdown().await {
            Ok(()) => End::Closed,
            Err(_) => End::Broken,
        }
    }

    fn note_request(&self, head: &Mutex<Head>, bytes: &[u8]) {
        let mut head = locked(head);
        if head.answered || head.bytes.is_empty() {
            *head = Head::default();
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
        }
        let room = HEAD_BYTES_MAX.saturating_sub(head.bytes.len());
        head.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether the answer that begins here gets lost. What follows of an answer is not looked at
    /// again.
    fn is_lost(&self, head: &Mutex<Head>) -> bool {
        let mut head = locked(head);
        if std::mem::replace(&mut head.answered, true) {
            return false;
        }
        let lost = locked(&self.faults).strikes(&head.line());
        if lost {
            self.counts.answers_lost.fetch_add(1, Ordering::Relaxed);
        }
        lost
    }

    fn chunk_bytes(&self) -> usize {
        if locked(&self.pace).is_some() { SLOW_CHUNK_BYTES } else { CHUNK_BYTES }
    }

    async fn wait_turn(&self, bytes: usize) {
        let turn = {
            let mut pace = locked(&self.pace);
            let Some(pace) = pace.as_mut() else { return };
            let takes = Duration::from_secs_f64(bytes as f64 / pace.bytes_per_s.max(1) as f64);
            pace.free_at = pace.free_at.max(Instant::now()) + takes;
            pace.free_at
        };
        tokio::time::sleep_until(turn).await;
    }
}

impl Faults {
    fn strikes(&mut self, asked: &str) -> bool {
        let Some(lost) = self.lost.as_mut().filter(|lost| asked.contains(&lost.to)) else {
            return false;
        };
        match &mut lost.chance {
            Chance::Next(0) => false,
            Chance::Next(left) => {
                *left -= 1;
                true
            }
            Chance::Always(probability) => self.dice.random_bool(probability.clamp(0.0, 1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchtrail_testkit::{PATIENCE, eventually};

    /// Answers each line with itself.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    async fn call(gate: &Gate) -> TcpStream {
        TcpStream::connect(gate.address).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, line: &str) -> std::io::Result<String> {
        stream.write_all(line.as_bytes()).await?;
        let mut answer = vec![0; line.len()];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn an_open_line_passes_bytes_and_counts_them() {
        let gate = Gate::open(echo().await, 1).await.unwrap();
        let mut stream = call(&gate).await;
        assert_eq!(ask(&mut stream, "one\r\n").await.unwrap(), "one\r\n");
        assert_eq!(ask(&mut stream, "two\r\n").await.unwrap(), "two\r\n");
        eventually("all counted", PATIENCE, async || {
            let traffic = gate.traffic();
            let counted = (traffic.connections, traffic.requests, traffic.bytes_down);
            Ok((counted == (1, 2, 10)).then_some(()))
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_cut_line_resets_old_and_new_connections_until_it_is_opened() {
        let gate = Gate::open(echo().await, 1).await.unwrap();
        let mut stream = call(&gate).await;
        ask(&mut stream, "before").await.unwrap();
        gate.set(Line::Cut);
        assert!(ask(&mut stream, "after").await.is_err());
        assert!(ask(&mut call(&gate).await, "anew").await.is_err());
        assert_eq!(gate.traffic().turned_away, 1);
        gate.set(Line::Open);
        assert_eq!(ask(&mut call(&gate).await, "again").await.unwrap(), "again");
    }

    #[tokio::test]
    async fn on_a_silent_line_nobody_hears_anything_until_it_speaks_again() {
        let gate = Gate::open(echo().await, 1).await.unwrap();
        let mut old = call(&gate).await;
        ask(&mut old, "before").await.unwrap();
        gate.set(Line::Silent);
        let mut new = call(&gate).await;
        let speaking = std::cell::Cell::new(false);
        let heard = async |stream| (ask(stream, "hello").await.is_err(), speaking.get());
        let speak = async {
            // Everything that could get through on loopback has its turn first.
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            speaking.set(true);
            gate.set(Line::Open);
        };
        let (old, new, ()) = tokio::join!(heard(&mut old), heard(&mut new), speak);
        assert_eq!((old, new), ((true, true), (true, true)), "(reset, and not before it spoke)");
        assert_eq!(ask(&mut call(&gate).await, "again").await.unwrap(), "again");
    }

    #[tokio::test]
    async fn an_answer_is_lost_only_where_it_is_asked_for() {
        let gate = Gate::open(echo().await, 1).await.unwrap();
        gate.lose_answers(Some(LostAnswers { to: "/batch".to_owned(), chance: Chance::Next(1) }));
        let mut stream = call(&gate).await;
        ask(&mut stream, "POST /heartbeat").await.unwrap();
        assert!(ask(&mut stream, "POST /batch").await.is_err());
        assert_eq!(gate.traffic().answers_lost, 1);
        assert_eq!(ask(&mut call(&gate).await, "POST /batch").await.unwrap(), "POST /batch");
    }

    #[tokio::test]
    async fn the_server_may_come_back_elsewhere() {
        let gate = Gate::open(echo().await, 1).await.unwrap();
        let mut stream = call(&gate).await;
        ask(&mut stream, "here").await.unwrap();
        gate.lead_to(echo().await);
        assert!(ask(&mut stream, "here").await.is_err());
        assert_eq!(ask(&mut call(&gate).await, "there").await.unwrap(), "there");
    }

    #[test]
    fn chance_is_the_seeds() {
        let struck = |seed| {
            let lost = Some(LostAnswers { to: String::new(), chance: Chance::Always(0.5) });
            let mut faults = Faults { lost, dice: StdRng::seed_from_u64(seed) };
            (0..64).map(|_| faults.strikes("")).collect::<Vec<_>>()
        };
        assert_eq!(struck(7), struck(7));
        assert_ne!(struck(7), struck(8));
        assert!((16..48).contains(&struck(7).iter().filter(|lost| **lost).count()));
    }
}
