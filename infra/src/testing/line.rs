//! The line between a node and the test server, which can fall silent without closing: what a cut
//! cable, a firewall or a frozen machine does, and no closing of a socket can show. A TCP relay on
//! loopback that passes on what it doesn't know.
//!
//! A connection that fell silent stays so, as in life: the other end hears neither bytes nor the
//! end. New ones get through once the line speaks again.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::AbortHandle,
};

use super::TestDatabase;

/// How much is passed on at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// What a connection falls silent at.
#[derive(Debug, Clone)]
pub struct Trap {
    /// Part of what the client sends.
    pub text: &'static str,
    /// Whether the server still gets it, so that only its answer is lost.
    pub arrives: bool,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    /// How often the line fell silent, and whether it is now.
    silent: watch::Sender<(u32, bool)>,
    trap: Mutex<Option<Trap>>,
}

/// A line to the test server.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    database: String,
    user: String,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Line {
    /// A new one to that database, open.
    ///
    /// # Panics
    /// When it can't be had.
    pub async fn to(database: &TestDatabase) -> Self {
        let options = database.owner_options();
        let Some(dir) = options.get_socket() else { panic!("the test server has a Unix socket") };
        let socket = dir.join(format!(".s.PGSQL.{}", options.get_port()));
        let shared = Arc::new(Shared {
            socket,
            silent: watch::Sender::new((0, false)),
            trap: Mutex::default(),
        });
        let listener = match TcpListener::bind(("127.0.0.1", 0)).await {
            Ok(listener) => listener,
            Err(error) => panic!("no port for a line: {error}"),
        };
        let Ok(address) = listener.local_addr() else { panic!("a listener has an address") };
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            address,
            database: options.get_database().unwrap_or_default().to_owned(),
            user: options.get_username().to_owned(),
            shared,
            accepting,
        }
    }

    /// What a node is given as `DATABASE_URL`.
    pub fn url(&self) -> String {
        let Self { address, database, user, .. } = self;
        format!("postgresql://{user}@{address}/{database}?sslmode=disable")
    }

    /// All connections fall silent, and new ones never hear anything.
    pub fn fall_silent(&self) {
        self.shared.silent.send_modify(|(times, silent)| {
            *times += 1;
            *silent = true;
        });
    }

    /// New connections get through again.
    pub fn speak(&self) {
        self.shared.silent.send_modify(|(_, silent)| *silent = false);
    }

    /// The next connection that sends this falls silent; the others don't.
    pub fn lay(&self, trap: Trap) {
        *self.trap() = Some(trap);
    }

    /// Whether something fell into the trap.
    pub fn has_caught(&self) -> bool {
        self.trap().is_none()
    }

    fn trap(&self) -> std::sync::MutexGuard<'_, Option<Trap>> {
        self.shared.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ends all connections with itself.
    let mut carrying = tokio::task::JoinSet::new();
    loop {
        // An error concerns one connection that went before it came.
        if let Ok((client, _)) = listener.accept().await {
            carrying.spawn(carry(client, Arc::clone(&shared)));
        }
    }
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let mut told = shared.silent.subscribe();
    let (times, silent) = *told.borrow_and_update();
    if silent {
        return std::future::pending().await;
    }
    let Ok(mut server) = UnixStream::connect(&shared.socket).await else { return };
    let _ = client.set_nodelay(true);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let upward = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from_client.read(&mut chunk).await {
            let caught = shared.catches(&chunk[..length]);
            if caught.as_ref().is_none_or(|trap| trap.arrives)
                && to_server.write_all(&chunk[..length]).await.is_err()
            {
                return false;
            }
            if caught.is_some() {
                return true;
            }
        }
        false
    };
    let downward = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from_server.read(&mut chunk).await {
            if to_client.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    };
    let falls_silent = tokio::select! {
        biased;
        _ = told.wait_for(|(now, _)| *now != times) => true,
        caught = upward => caught,
        () = downward => false,
    };
    if falls_silent {
        std::future::pending::<()>().await;
    }
}

impl Shared {
    /// Takes up the trap if that is in it.
    fn catches(&self, bytes: &[u8]) -> Option<Trap> {
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        let text = trap.as_ref()?.text.as_bytes();
        bytes.windows(text.len()).any(|window| window == text).then(|| trap.take()).flatten()
    }
}
