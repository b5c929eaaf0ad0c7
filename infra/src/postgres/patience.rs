//! An end on our side to every wait for the database.
//!
//! A connection may fall silent without being closed: a cable, a firewall that forgot it, a frozen
//! server, a commit that waits for a standby which isn't there. The database's client waits for
//! ever then, also when it gives a connection back to its pool (it sends what is left, a rollback
//! say, and waits for the answer), and so the pool runs dry. It sets neither keepalive nor time-out
//! on its sockets, and gives no way to. So:
//!
//! - a statement on a [`Pool`] ends when nothing was heard for as long as that pool waits;
//! - a transaction, which is many statements, is run [`within`] a time;
//! - a connection whose user went away in the middle has [`RETURN_MAX`] to come back to its senses.
//!
//! What didn't answer is dropped, without a word to a server that doesn't hear: its place in the
//! pool is free at once. Whether a commit that wasn't answered was made isn't known then.

use std::{
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures::{
    StreamExt, TryStreamExt,
    channel::mpsc,
    future::BoxFuture,
    sink::SinkExt,
    stream::{self, BoxStream},
};
use sqlx::{
    Describe, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres, TransactionManager,
    pool::PoolConnection,
    postgres::{
        PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo,
    },
};
use tokio::{runtime::Handle, time::timeout};

/// How long a connection that is given back may take to finish what was begun on it.
const RETURN_MAX: Duration = Duration::from_secs(2);
/// Rows read ahead of whoever takes them.
const ROWS_AHEAD: usize = 64;

/// Does work on the database that must not take longer.
///
/// # Errors
/// Its own, or that the time was up: [`super::Trouble::Passing`].
pub async fn within<T, E: From<Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(E::from(unanswered(limit))),
    }
}

fn unanswered(limit: Duration) -> Error {
    metrics::counter!("punchtrail_database_unanswered_total").increment(1);
    let waited_s = limit.as_secs_f64();
    Error::Io(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("the database did not answer within {waited_s} s; the connection was dropped"),
    ))
}

/// A bounded pool of connections, none of which is waited for without end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    connections: PgPool,
    answer_max: Duration,
}

impl Pool {
    /// Statements on it end when nothing was heard for so long.
    pub fn new(connections: PgPool, answer_max: Duration) -> Self {
        Self { connections, answer_max }
    }

    /// The same connections, for statements that may be silent for so long.
    #[must_use]
    pub fn answering_within(&self, answer_max: Duration) -> Self {
        Self { connections: self.connections.clone(), answer_max }
    }

    /// Lends a connection. What is done on it has to be [`within`] a time.
    ///
    /// # Errors
    /// When none is to be had in time.
    pub async fn acquire(&self) -> Result<Lent, Error> {
        self.connections.acquire().await.map(|connection| Lent(Some(connection)))
    }

    /// Lends a connection that waits to be lent, untried; none when there is none.
    pub(super) fn try_acquire(&self) -> Option<Lent> {
        self.connections.try_acquire().map(|connection| Lent(Some(connection)))
    }

    /// New connections are opened so from now on.
    pub(super) fn lead_to(&self, options: PgConnectOptions) {
        self.connections.set_connect_options(options);
    }

    /// Begins a transaction, rolled back unless it is committed. It has to be run [`within`] a
    /// time, from here to the commit.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        self.begin_with("begin").await
    }

    /// The same by a `begin` of one's own.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn begin_with(&self, statement: &'static str) -> Result<Transaction, Error> {
        let mut lent = self.acquire().await?;
        PgTransactionManager::begin(&mut lent, Some(statement.into())).await?;
        Ok(Transaction { lent, open: true })
    }

    /// Opens no more connections, and closes each as it comes back. Not waited for longer than
    /// `limit`: what is still lent then is dropped when its time is up.
    pub async fn close(&self, limit: Duration) {
        if timeout(limit, self.connections.close()).await.is_err() {
            tracing::warn!("not all connections to the database could be closed in time");
        }
    }
}

/// A connection on loan. However its user leaves it, it is back in the pool or gone within
/// two seconds.
#[derive(Debug)]
pub struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    /// Takes it out of the pool for good, which may open another in its place: for sessions that
    /// are set otherwise. Closing it is the caller's.
    pub fn detach(mut self) -> PgConnection {
        match self.0.take() {
            Some(connection) => connection.detach(),
            None => unreachable!("it is here until it is dropped"),
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        match &self.0 {
            Some(connection) => connection,
            None => unreachable!("it is here until it is dropped"),
        }
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.0 {
            Some(connection) => connection,
            None => unreachable!("it is here until it is dropped"),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The way in which the pool itself takes back what is dropped, but not for ever. Given up,
        // or without a runtime, the connection goes and its place is free.
        let Some(mut connection) = self.0.take() else { return };
        let returning = connection.return_to_pool();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if timeout(RETURN_MAX, returning).await.is_err() {
                    tracing::warn!("a connection to the database is silent; it was dropped");
                }
            });
        }
    }
}

/// A transaction on a connection of its own.
#[derive(Debug)]
pub struct Transaction {
    lent: Lent,
    open: bool,
}

impl Transaction {
    /// Makes what was done in it last.
    ///
    /// # Errors
    /// When the database refuses, or is out of reach; it isn't known then whether it was done.
    pub async fn commit(mut self) -> Result<(), Error> {
        PgTransactionManager::commit(&mut self.lent).await?;
        self.open = false;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.lent
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.lent
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            PgTransactionManager::start_rollback(&mut self.lent);
        }
    }
}

impl<'p> Executor<'p> for &Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (pool, (mut give, taken)) = (self.clone(), mpsc::channel(ROWS_AHEAD));
        let work = async move {
            let mut lent = pool.acquire().await?;
            let mut steps = lent.fetch_many(query);
            while let Some(step) = within(pool.answer_max, steps.try_next()).await? {
                if give.send(step).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let end = stream::once(work).filter_map(async |end: Result<(), Error>| end.err().map(Err));
        stream::select(taken.map(Ok), end).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lent = pool.acquire().await?;
            within(pool.answer_max, lent.fetch_optional(query)).await
        })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lent = pool.acquire().await?;
            within(pool.answer_max, lent.prepare_with(sql, parameters)).await
        })
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lent = pool.acquire().await?;
            within(pool.answer_max, lent.describe(sql)).await
        })
    }
}
