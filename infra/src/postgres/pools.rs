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
    ConnectOptions, Connection, Executor, PgConnection, PgPool, Row,
    pool::PoolConnectionMetadata,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{durability, error::PostgresError, hosts::takes_writes, roles};

/// How long a caller waits for a connection. Longer only hides an overload.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds what a connection's caches may grow to.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);
const IDLE_MAX: Duration = Duration::from_secs(5 * 60);
/// One unused for longer is tried before it is lent: the server may have been restarted. A busy
/// one isn't, which saves a round trip a statement.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How long a connection's first answer after a rest may take.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

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
    pub writer: PgPool,
    /// The same, for the committer alone: no look-up makes an append wait for a connection.
    pub committer: PgPool,
    /// Works as [`roles::READER`]: owns the read models, only selects from the ledger.
    pub reader: PgPool,
    /// The same, for what fills the read models: no reader waits behind it for a connection.
    pub follower: PgPool,
    /// Works as the connecting user, which owns the schema.
    pub owner: PgPool,
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
    fn all(&self) -> [(&PgPool, Session); 5] {
        [
            (&self.writer, WRITER),
            (&self.committer, WRITER),
            (&self.reader, READER),
            (&self.follower, READER),
            (&self.owner, OWNER),
        ]
    }

    /// New connections lead to another host from now on; those that there are aren't lent again.
    pub(super) fn lead_to(&self, options: &PgConnectOptions) {
        for (pool, session) in self.all() {
            pool.set_connect_options(options.clone().application_name(session.application));
        }
        self.old.add_all();
    }

    /// Whether a connection that waits to be lent, of those that write, turned read-only under
    /// way. Then none of those that there are is lent again: they lead to the same host.
    pub(super) async fn drop_read_only(&self) -> bool {
        for pool in [&self.committer, &self.writer] {
            let Some(mut connection) = pool.try_acquire() else { continue };
            let writes = tokio::time::timeout(ANSWER_WAIT, takes_writes(&mut connection)).await;
            // Nothing is known of one that is broken but that itself.
            if !matches!(writes, Ok(Ok(true))) {
                connection.close_on_drop();
            }
            if let Ok(Ok(false)) = writes {
                self.old.add_all();
                return true;
            }
        }
        false
    }

    /// Closes all, waiting until what is lent has come back.
    pub async fn close(&self) {
        self.writer.close().await;
        self.committer.close().await;
        self.reader.close().await;
        self.follower.close().await;
        self.owner.close().await;
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
}

const WRITER: Session = Session {
    scans: "off",
    application: "punchtrail-writer",
    role: roles::WRITER,
    statement_timeout: "30s",
    lock_timeout: "10s",
};
const READER: Session = Session {
    scans: "on",
    application: "punchtrail-reader",
    role: roles::READER,
    statement_timeout: "60s",
    lock_timeout: "10s",
};
/// A migration may build an index for as long as it takes.
const OWNER: Session = Session {
    scans: "on",
    application: "punchtrail-owner",
    role: "none",
    statement_timeout: "0",
    lock_timeout: "5min",
};

impl Session {
    async fn begin(self, connection: &mut PgConnection) -> Result<(), PostgresError> {
        let Self { scans, role, statement_timeout, lock_timeout, .. } = self;
        let settings = durability::SELECT_LIST;
        // Without parameters it is one message and one answer.
        let statement = format!(
            "select current_setting('transaction_read_only') = 'on' as read_only, {settings}, set_config('statement_timeout', '{statement_timeout}', false), \
             set_config('lock_timeout', '{lock_timeout}', false), \
             set_config('idle_in_transaction_session_timeout', '60s', false), \
             set_config('timezone', 'UTC', false), set_config('enable_seqscan', '{scans}', false), \
             set_config('role', '{role}', false)"
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

    fn pool(self, options: &PgConnectOptions, size: u32, old: &Old) -> PgPool {
        let (lent, returned) = (old.clone(), old.clone());
        PgPoolOptions::new()
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
                    let writes = tokio::time::timeout(ANSWER_WAIT, takes_writes(connection)).await;
                    writes.unwrap_or(Ok(false))
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
            .connect_lazy_with(options.clone().application_name(self.application))
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
    let mut trial =
        options.connect().await.map_err(PostgresError::sql("connect to the database"))?;
    for session in [OWNER, WRITER, READER] {
        session.begin(&mut trial).await?;
    }
    trial.close().await.map_err(PostgresError::sql("close a connection"))?;
    let old = Old::default();
    Ok(Pools {
        writer: WRITER.pool(options, sizes.writer, &old),
        committer: WRITER.pool(options, COMMITTERS, &old),
        reader: READER.pool(options, sizes.reader, &old),
        follower: READER.pool(options, sizes.follower, &old),
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
    let mut connection = options
        .clone()
        .application_name("punchtrail-migrate")
        .connect()
        .await
        .map_err(PostgresError::sql("connect to the database"))?;
    OWNER.begin(&mut connection).await?;
    Ok(connection)
}
