//! A receiver of webhooks on this machine: it keeps what it was sent, and answers as it is told,
//! also as no receiver should.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// What it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub path: String,
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: String,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status, with headers (`name: value` each) and a body.
    Status(u16, Vec<String>, String),
    /// Nothing, for as long as it is waited for.
    Hangs,
    /// A status, and then a byte now and then for ever.
    Drips,
    /// A body of ten gigabytes.
    Floods,
    /// What is no HTTP.
    Garbage,
    /// The connection's end.
    HangsUp,
    /// 200 after that.
    After(Duration),
}

impl Reply {
    /// A status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }
}

type Answers = dyn Fn(&Received, usize) -> Reply + Send + Sync;

/// A receiver. It is gone when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    kept: Arc<Kept>,
    serving: AbortHandle,
}

#[derive(Default)]
struct Kept {
    received: Mutex<Vec<Received>>,
    count: AtomicUsize,
    keeps: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Receiver {
    /// One that takes everything.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn taking() -> std::io::Result<Self> {
        Self::answering(|_, _| Reply::status(200)).await
    }

    /// One that answers each request as `answer` says, which is told how many came before.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn answering(
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), true, answer).await
    }

    /// One that only counts, for measurements.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn counting(reply: Reply) -> std::io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::at(address, false, move |_, _| reply.clone()).await
    }

    /// One at that address, which may have been another's before.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn at(
        address: SocketAddr,
        keeps: bool,
        answer: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let kept = Arc::new(Kept { keeps, ..Kept::default() });
        let (of, answer): (_, Arc<Answers>) = (Arc::clone(&kept), Arc::new(answer));
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, Arc::clone(&of), Arc::clone(&answer)));
            }
        })
        .abort_handle();
        Ok(Self { address, kept, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where to send to.
    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    /// How much came.
    pub fn count(&self) -> usize {
        self.kept.count.load(Ordering::SeqCst)
    }

    /// What came, in order.
    pub fn received(&self) -> Vec<Received> {
        self.kept.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, kept: Arc<Kept>, answer: Arc<Answers>) {
    // Whoever asks may end it at any time.
    let _ = talk(stream, kept, answer).await;
}

async fn talk(stream: TcpStream, kept: Arc<Kept>, answer: Arc<Answers>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(received) = read(&mut stream).await? {
        let before = kept.count.fetch_add(1, Ordering::SeqCst);
        let reply = answer(&received, before);
        if kept.keeps {
            kept.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        }
        if !say(&mut stream, reply).await? {
            return Ok(());
        }
    }
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Received>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut received) = (0, [(); 3].map(|()| String::new()));
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or_default(),
            "webhook-id" => received[0] = value,
            "webhook-timestamp" => received[1] = value,
            "webhook-signature" => received[2] = value,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let [id, timestamp, signature] = received;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(Received { path, id, timestamp, signature, body }))
}

/// Whether the connection goes on.
async fn say(stream: &mut BufReader<TcpStream>, reply: Reply) -> std::io::Result<bool> {
    const DRIP: Duration = Duration::from_millis(100);
    match reply {
        Reply::Status(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
            for header in headers {
                text.push_str(&format!("{header}\r\n"));
            }
            stream.write_all(format!("{text}\r\n{body}").as_bytes()).await?;
            Ok(true)
        }
        Reply::After(wait) => {
            tokio::time::sleep(wait).await;
            stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n").await?;
            Ok(true)
        }
        Reply::Hangs => {
            let mut end = [0];
            // Until whoever asks has had enough.
            stream.read_exact(&mut end).await?;
            Ok(false)
        }
        Reply::Drips => {
            stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 1000000\r\n\r\n").await?;
            loop {
                stream.write_all(b".").await?;
                tokio::time::sleep(DRIP).await;
            }
        }
        Reply::Floods => {
            let head = b"HTTP/1.1 200 x\r\ncontent-length: 10000000000\r\n\r\n";
            stream.write_all(head).await?;
            let chunk = vec![b'.'; 1 << 16];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Reply::Garbage => {
            stream.write_all(b"\x16\x03\x01 not a word of HTTP\r\n\r\n").await?;
            Ok(false)
        }
        Reply::HangsUp => Ok(false),
    }
}
