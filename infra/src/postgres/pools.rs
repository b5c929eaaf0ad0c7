//! Bounded pools of connections, one a role.
//!
//! Each new connection is checked for durability and gets its role and time limits in one round
//! trip, before anybody sees it. They are session settings: put a pooler that shares sessions
//! between clients (PgBouncer in transaction mode) between us and Postgres, and they are lost.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, Row,
    pool::PoolConnectionMetadata,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    durability,
    error::PostgresError,
    hosts::takes_writes,
    patience::{self, Pool},
    roles,
};

/// How long a caller waits for a connection. Longer only hides an overload.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds what a connection's caches may grow to.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);
const IDLE_MAX: Duration = Duration::from_secs(5 * 60);
/// One unused for longer is tried before it is lent: the server may have been restarted. A busy
/// one isn't, which saves a round trip a statement.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// How long that may take: a silent one is dropped, and another opened.
const TRIAL_MAX: Duration = Duration::from_secs(1);
/// How long a single connection may take to open, to be tried and to be left: less than a
/// supervisor waits for a start.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// How long the pools may take to close together.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Connections for appending: one appends, the other is there at once when it broke.
const COMMITTERS: u32 = 2;

/// How many connections each pool may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSizes {
    /// For look-ups and for rows beside the ledger. The committer has connections of its own: the
    /// head's lock lets one append at a time, so more don't help.
    pub writer: u32,
    pub reader: u32,
    pub follower: u32,
    pub owner: u32,
}

impl Default for PoolSizes {
    fn default() -> Self {
        Self { writer: 8, reader: 12, follower: 10, owner: 2 }
    }
}

impl PoolSizes {
    /// The most connections that a node opens.
    pub const fn total(self) -> u32 {
        let Self { writer, reader, follower, owner } = self;
        writer + reader + follower + owner + COMMITTERS
    }
}

/// Connections by what they may do. They open on demand and heal by themselves after the server
/// was away.
#[derive(Debug, Clone)]
pub struct Pools {
    /// Works as [`roles::WRITER`]: inserts into the ledger and can't change it.
    pub writer: Pool,
    /// The same, for the committer alone: no look-up makes an append wait for a connection.
    pub committer: Pool,
    /// Works as [`roles::READER`]: owns the read models, only selects from the ledger.
    pub reader: Pool,
    /// The same, for what fills the read models: no reader waits behind it for a connection.
    pub follower: Pool,
    /// Works as the connecting user, which owns the schema.
    pub owner: Pool,
    old: Old,
}

/// Which connections are of no use any more.
#[derive(Debug, Clone, Default)]
struct Old(Arc<Mutex<Option<Instant>>>);

impl Old {
    /// All that are open now.
    fn add_all(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn has(&self, connection: &PoolConnectionMetadata) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() <= connection.age)
    }
}

impl Pools {
    fn all(&self) -> [(&Pool, Session); 5] {
        [
            (&self.writer, WRITER),
            (&self.committer, COMMITTER),
            (&self.reader, READER),
            (&self.follower, FOLLOWER),
            (&self.owner, OWNER),
        ]
    }

    /// New connections lead to another host from now on; those that there are aren't lent again.
    pub(super) fn lead_to(&self, options: &PgConnectOptions) {
        for (pool, session) in self.all() {
            pool.lead_to(options.clone().application_name(session.application));
        }
        self.old.add_all();
    }

    /// Whether a connection that waits to be lent, of those that write, turned read-only under
    /// way. Then none of those that there are is lent again: they lead to the same host.
    pub(super) async fn drop_read_only(&self) -> bool {
        for pool in [&self.committer, &self.writer] {
            let Some(mut connection) = pool.try_acquire() else { continue };
            // One that is broken or silent is found out as it is given back.
            if let Ok(false) = patience::within(TRIAL_MAX, takes_writes(&mut connection)).await {
                self.old.add_all();
                return true;
            }
        }
        false
    }

    /// Closes all, waiting until what is lent has come back, or its time is up.
    pub async fn close(&self) {
        let Self { writer, committer, reader, follower, owner, .. } = self;
        let all = [writer, committer, reader, follower, owner].map(|pool| pool.close(CLOSE_MAX));
        futures::future::join_all(all).await;
    }
}

/// What a kind of connection is set to.
#[derive(Debug, Clone, Copy)]
struct Session {
    /// Whether a statement may read a table whole where an index serves it. A plan made while a
    /// table was empty would do so, and is kept while the table grows.
    scans: &'static str,
    application: &'static str,
    role: &'static str,
    statement_timeout: &'static str,
    lock_timeout: &'static str,
    /// How long it may do nothing within a transaction: what it holds, others wait for.
    idle_timeout: &'static str,
    /// How long a statement may be silent: longer than the server's own limits let it.
    answer_max: Duration,
}

/// How the server notices that a client is gone, or can't be reached: the client itself sets
/// nothing on its sockets. In units of their own; one that the server doesn't know isn't set, and
/// on a Unix socket they do nothing.
const GONE: &[(&str, &str)] = &[
    // Probed after 5 s without a word, each 2 s, gone after 3: 11 s in all.
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    // What was sent isn't received for so long.
    ("tcp_user_timeout", "10s"),
    // Looked at while a statement runs.
    ("client_connection_check_interval", "2s"),
];

/// What holds the head: everybody waits for it, so the server waits for nobody there.
const COMMITTER: Session = Session {
    application: "punchtrail-committer",
    statement_timeout: "10s",
    lock_timeout: "3s",
    idle_timeout: "5s",
    ..WRITER
};
const WRITER: Session = Session {
    scans: "off",
    application: "punchtrail-writer",
    role: roles::WRITER,
    statement_timeout: "30s",
    lock_timeout: "5s",
    idle_timeout: "10s",
    // Look-ups, mostly while a device waits. What takes longer asks for it.
    answer_max: Duration::from_secs(10),
};
const READER: Session = Session {
    scans: "on",
    application: "punchtrail-reader",
    role: roles::READER,
    statement_timeout: "30s",
    lock_timeout: "10s",
    idle_timeout: "15s",
    answer_max: Duration::from_secs(32),
};
const FOLLOWER: Session = Session {
    application: "punchtrail-follower",
    statement_timeout: "60s",
    answer_max: Duration::from_secs(62),
    ..READER
};
/// A migration may build an index for as long as it takes.
const OWNER: Session = Session {
    scans: "on",
    application: "punchtrail-owner",
    role: "none",
    statement_timeout: "0",
    lock_timeout: "5min",
    idle_timeout: "60s",
    answer_max: Duration::from_secs(10),
};

impl Session {
    async fn begin(self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        let Self { scans, role, statement_timeout, lock_timeout, idle_timeout, .. } = self;
        let settings = durability::SELECT_LIST;
        let gone: Vec<String> =
            GONE.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
        let gone = gone.join(", ");
        // Without parameters it is one message and one answer.
        let statement = format!(
            "select current_setting('transaction_read_only') = 'on' as read_only, {settings}, \
             set_config('statement_timeout', '{statement_timeout}', false), \
             set_config('lock_timeout', '{lock_timeout}', false), \
             set_config('idle_in_transaction_session_timeout', '{idle_timeout}', false), \
             set_config('timezone', 'UTC', false), set_config('enable_seqscan', '{scans}', false), \
             set_config('role', '{role}', false), (select count(set_config(name, value, false)) \
             from (values {gone}) as gone (name, value) join pg_settings using (name))"
        );
        let row = connection
            .fetch_one(statement.as_str())
            .await
            .map_err(PostgresError::sql("prepare a database session"))?;
        if row.try_get("read_only").map_err(PostgresError::sql("prepare a database session"))? {
            return Err(PostgresError::Standby);
        }
        durability::verify(&row)
    }

    fn pool(self, options: &PgConnectOptions, size: u32, old: &Old) -> Pool {
        let (lent, returned) = (old.clone(), old.clone());
        let connections = PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .max_lifetime(LIFETIME_MAX)
            .idle_timeout(IDLE_MAX)
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let old = lent.has(&meta);
                Box::pin(async move {
                    if old || meta.idle_for < TRUSTED_IDLE {
                        return Ok(!old);
                    }
                    patience::within(TRIAL_MAX, takes_writes(connection)).await
                })
            })
            .after_release(move |_, meta| {
                let old = returned.has(&meta);
                Box::pin(async move { Ok(!old) })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    self.begin(connection)
                        .await
                        .map_err(|error| sqlx::Error::Configuration(Box::new(error)))
                })
            })
            .connect_lazy_with(options.clone().application_name(self.application));
        Pool::new(connections, self.answer_max)
    }
}

/// Opens the pools, after trying on one connection whether each kind of session can be had:
/// inside a pool, a refusal would only look like a time-out.
///
/// # Errors
/// When the database can't be reached, isn't durable, or the roles can't be taken.
pub(super) async fn open(
    options: &PgConnectOptions,
    sizes: PoolSizes,
) -> Result<Pools, PostgresError> {
    let trial = async {
        let mut trial =
            options.connect().await.map_err(PostgresError::sql("connect to the database"))?;
        for session in [OWNER, WRITER, READER] {
            session.begin(&mut trial).await?;
        }
        trial.close().await.map_err(PostgresError::sql("close a connection"))
    };
    opened(trial).await?;
    let old = Old::default();
    Ok(Pools {
        writer: WRITER.pool(options, sizes.writer, &old),
        committer: COMMITTER.pool(options, COMMITTERS, &old),
        reader: READER.pool(options, sizes.reader, &old),
        follower: FOLLOWER.pool(options, sizes.follower, &old),
        owner: OWNER.pool(options, sizes.owner, &old),
        old,
    })
}

/// One connection as the owner, for migrations.
///
/// # Errors
/// When it can't be had.
pub(super) async fn owner_connection(
    options: &PgConnectOptions,
) -> Result<PgConnection, PostgresError> {
    opened(async {
        let mut connection = options
            .clone()
            .application_name("punchtrail-migrate")
            .connect()
            .await
            .map_err(PostgresError::sql("connect to the database"))?;
        OWNER.begin(&mut connection).await?;
        Ok(connection)
    })
    .await
}

/// What a single connection is opened for, as long as that may take.
pub(super) async fn opened<T>(
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    let work = async { Ok(work.await) };
    patience::within(OPEN_MAX, work)
        .await
        .unwrap_or_else(|silent| Err(PostgresError::sql("connect to the database")(silent)))
}
