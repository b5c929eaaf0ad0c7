//! Which of a database's hosts takes its writes.
//!
//! A highly available Postgres has several hosts, of which one is the primary, and another becomes
//! it when that one is gone. Every host is asked, at once, whether its sessions may write. An old
//! primary that was cut off or frozen says yes as well when it comes back; each promotion begins a
//! timeline with a higher number, so the highest one is taken, and never one lower than before.
//! Nothing is written here, and no host is told anything.

use std::{cmp::Reverse, fmt, io, time::Duration};

use futures::future::join_all;
use sqlx::{ConnectOptions, Executor, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::{Instant, timeout};

use super::{describe, error::PostgresError};

/// A host that doesn't answer for so long is as good as gone.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// The same when nothing is to be had before: to connect over TLS may take some round trips.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Between two looks while a start waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Whether a session on this connection may write: not on a standby, nor where an administrator or
/// a failover has made new transactions read-only.
///
/// # Errors
/// When it can't be asked.
pub(super) async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = connection.fetch_one("show transaction_read_only").await?;
    Ok(row.try_get::<String, _>(0)? == "off")
}

/// The number of the primary's timeline; none from what doesn't tell it. Told by the name of the
/// segment that is written now, which is right from a promotion's first moment on.
async fn timeline(connection: &mut PgConnection) -> Option<u32> {
    let segment = "select left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    let row = connection.fetch_one(segment).await.ok()?;
    u32::from_str_radix(row.try_get::<&str, _>(0).ok()?, 16).ok()
}

/// What a host says.
#[derive(Debug)]
pub(super) enum Said {
    /// It takes writes, on this timeline.
    Writes(Option<u32>),
    ReadOnly,
    /// It doesn't answer in time.
    Nothing,
    Refusal(sqlx::Error),
}

impl Said {
    /// Whether it says what it will say again and again, so that no waiting helps.
    fn lasts(&self) -> bool {
        /// A wrong password or no entry in `pg_hba.conf`; no such database; no right to connect.
        const LASTING_CODES: [&str; 4] = ["28P01", "28000", "3D000", "42501"];
        match self {
            Self::Refusal(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| LASTING_CODES.contains(&code.as_ref()))
            }
            Self::Refusal(sqlx::Error::Io(error)) => {
                error.kind() == std::io::ErrorKind::PermissionDenied
            }
            Self::Refusal(sqlx::Error::Tls(_) | sqlx::Error::Configuration(_)) => true,
            _ => false,
        }
    }

    /// What whoever runs the server does about it.
    fn remedy(&self) -> &'static str {
        let code = match self {
            Self::Refusal(sqlx::Error::Database(error)) => error.code(),
            _ => None,
        };
        match (self, code.as_deref()) {
            (_, Some("28P01" | "28000" | "42501")) => {
                "Correct the user or the password in DATABASE_URL, or let that user in \
                 (pg_hba.conf, `grant connect`)"
            }
            (_, Some("3D000")) => {
                "Correct the database's name in DATABASE_URL, or create it with `create database`"
            }
            (Self::ReadOnly, _) => "Promote it, or name its primary in DATABASE_URL",
            (Self::Refusal(sqlx::Error::Io(_)) | Self::Nothing, _) => {
                "Start PostgreSQL there, or correct host and port in DATABASE_URL; without \
                 DATABASE_URL, Punchtrail runs one of its own in --data-dir"
            }
            (Self::Refusal(sqlx::Error::Tls(_)), _) => {
                "Let PostgreSQL speak TLS, or correct `sslmode` in DATABASE_URL"
            }
            _ => "Its log says more",
        }
    }

    /// Whether it is a Postgres that may yet take writes.
    fn may_come(&self) -> bool {
        match self {
            Self::ReadOnly => true,
            Self::Refusal(sqlx::Error::Database(_)) => !self.lasts(),
            _ => false,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writes(_) => f.write_str("it takes writes"),
            Self::ReadOnly => f.write_str("it is a read-only standby"),
            Self::Nothing => f.write_str("no answer"),
            Self::Refusal(sqlx::Error::Io(error)) => match error.kind() {
                // Without the system's number, and that it is an error.
                io::ErrorKind::ConnectionRefused => f.write_str("connection refused"),
                io::ErrorKind::NotFound => f.write_str("no socket of PostgreSQL is there"),
                _ => error.fmt(f),
            },
            Self::Refusal(sqlx::Error::Database(error)) => f.write_str(error.message()),
            Self::Refusal(error) => error.fmt(f),
        }
    }
}

/// A host, and the connection that it is asked on.
#[derive(Debug)]
struct Host {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Host {
    /// Asks it, on the connection that there is or a new one. One that failed isn't used again.
    async fn say(&mut self, within: Duration) -> Said {
        let kept = self.connection.take();
        let asked = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.options.connect().await?,
            };
            let said = match takes_writes(&mut connection).await? {
                true => Said::Writes(timeline(&mut connection).await),
                false => Said::ReadOnly,
            };
            Ok((connection, said))
        };
        match timeout(within, asked).await {
            Ok(Ok((connection, said))) => {
                self.connection = Some(connection);
                said
            }
            Ok(Err(error)) => Said::Refusal(error),
            Err(_) => Said::Nothing,
        }
    }
}

/// The host whose writes are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Writer {
    /// Its place in the URL.
    pub host: usize,
    pub timeline: Option<u32>,
}

/// All hosts of a database, looked at together.
#[derive(Debug)]
pub(super) struct Lookout(Vec<Host>);

impl Lookout {
    pub fn new(hosts: &[PgConnectOptions]) -> Self {
        let host = |options: &PgConnectOptions| Host {
            options: options.clone().application_name("punchtrail-lookout"),
            connection: None,
        };
        Self(hosts.iter().map(host).collect())
    }

    /// What each of them says now.
    pub async fn look(&mut self) -> Vec<Said> {
        self.look_within(ANSWER_WAIT).await
    }

    async fn look_within(&mut self, within: Duration) -> Vec<Said> {
        join_all(self.0.iter_mut().map(|host| host.say(within))).await
    }

    /// Looks until one of them takes writes, and says in the log what it waits for.
    ///
    /// # Errors
    /// [`PostgresError::NoWriter`] when none does within `wait`, or at once if that is in vain.
    pub async fn find(&mut self, wait: Duration) -> Result<Writer, PostgresError> {
        let began = Instant::now();
        let mut shown = String::new();
        loop {
            let said = self.look_within(FIRST_ANSWER_WAIT).await;
            if let Some(writer) = writer(&said, None) {
                return Ok(writer);
            }
            let found = self.describe(&said);
            let in_vain = said.iter().any(Said::lasts) && !said.iter().any(Said::may_come);
            let waited = began.elapsed();
            if in_vain || waited >= wait {
                let remedy = said.last().map_or("", Said::remedy);
                return Err(PostgresError::NoWriter { found, remedy, waited_s: waited.as_secs() });
            }
            if shown != found {
                tracing::warn!(wait_s = wait.as_secs(), "waiting for the database: {found}");
                shown = found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn describe(&self, said: &[Said]) -> String {
        let one = |(host, said): (&Host, &Said)| format!("{}: {said}", describe(&host.options));
        self.0.iter().zip(said).map(one).collect::<Vec<_>>().join("; ")
    }
}

/// Whose writes to use, if there is somebody: of those that take some the one on the highest
/// timeline, and among equals the one in use. Never one on a lower timeline than that had.
pub(super) fn writer(said: &[Said], used: Option<Writer>) -> Option<Writer> {
    let writers = said.iter().enumerate().filter_map(|(host, said)| match *said {
        Said::Writes(timeline) => Some(Writer { host, timeline }),
        _ => None,
    });
    let best = writers.max_by_key(|writer| {
        let in_use = used.is_some_and(|used| used.host == writer.host);
        (writer.timeline, in_use, Reverse(writer.host))
    })?;
    let behind = used.is_some_and(|used| best.timeline.is_some() && best.timeline < used.timeline);
    (!behind).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: fn(u32) -> Said = |timeline| Said::Writes(Some(timeline));

    fn used(host: usize, timeline: u32) -> Option<Writer> {
        Some(Writer { host, timeline: Some(timeline) })
    }

    #[test]
    fn the_one_that_writes_is_used_wherever_it_stands() {
        let said = [Said::Nothing, Said::ReadOnly, ON(1)];
        assert_eq!(writer(&said, None), used(2, 1));
        assert_eq!(writer(&[Said::Nothing, Said::ReadOnly], used(0, 1)), None);
    }

    #[test]
    fn an_old_primary_that_comes_back_is_not_taken_for_the_new_one() {
        let both = [ON(1), ON(2)];
        assert_eq!(writer(&both, None), used(1, 2));
        assert_eq!(writer(&both, used(0, 1)), used(1, 2));
        assert_eq!(writer(&both, used(1, 2)), used(1, 2));
        // Also when the new one doesn't answer.
        assert_eq!(writer(&[ON(1), Said::Nothing], used(1, 2)), None);
    }

    #[test]
    fn among_equals_nobody_moves() {
        assert_eq!(writer(&[ON(1), ON(1)], used(1, 1)), used(1, 1));
        assert_eq!(writer(&[ON(1), ON(1)], None), used(0, 1));
        let silent = [Said::Writes(None), Said::Writes(None)];
        assert_eq!(writer(&silent, None), Some(Writer { host: 0, timeline: None }));
        // A Postgres that doesn't tell its timeline is trusted.
        assert_eq!(writer(&silent[..1], used(1, 2)).map(|writer| writer.host), Some(0));
    }
}
