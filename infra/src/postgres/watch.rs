//! Keeps pools on the host that takes writes.
//!
//! A pool connects by itself when its database comes back where it was. When another host takes the
//! writes, or a session that stands turned read-only, somebody has to say so: a task asks, a few
//! times a second, and every node does so for itself. Requests fail meanwhile with what passes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use super::{
    describe,
    error::PostgresError,
    hosts::{Lookout, Writer, writer},
    pools::Pools,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A database's hosts, and the one in use. Clones know the same one.
#[derive(Debug, Clone)]
pub(super) struct Primary {
    hosts: Arc<[PgConnectOptions]>,
    used: Arc<Mutex<Writer>>,
}

impl Primary {
    /// A database with one host, which isn't asked.
    pub fn only(host: PgConnectOptions) -> Self {
        let used = Writer { host: 0, timeline: None };
        Self { hosts: [host].into(), used: Arc::new(Mutex::new(used)) }
    }

    /// Looks for the one of `hosts` that takes writes, for as long as `wait`.
    ///
    /// # Errors
    /// [`PostgresError::NoWriter`].
    pub async fn find(hosts: Vec<PgConnectOptions>, wait: Duration) -> Result<Self, PostgresError> {
        let used = Lookout::new(&hosts).find(wait).await?;
        Ok(Self { hosts: hosts.into(), used: Arc::new(Mutex::new(used)) })
    }

    fn used(&self) -> Writer {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to connect to the host in use.
    pub fn options(&self) -> PgConnectOptions {
        self.hosts[self.used().host].clone()
    }

    /// Keeps `pools` there until it is stopped.
    pub async fn follow(self, pools: Pools, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut lookout = Lookout::new(&self.hosts);
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if self.hosts.len() > 1 {
                    self.look(&mut lookout, &pools).await;
                }
                if pools.drop_read_only().await {
                    tracing::warn!(
                        database = describe(&self.options()),
                        "the database's sessions turned read-only: new ones are opened"
                    );
                }
            }
        })
        .await;
    }

    async fn look(&self, lookout: &mut Lookout, pools: &Pools) {
        let used = self.used();
        let Some(found) = writer(&lookout.look().await, Some(used)) else { return };
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = found;
        if found.host != used.host {
            let options = self.options();
            tracing::warn!(
                now = describe(&options),
                before = describe(&self.hosts[used.host]),
                "another host takes the database's writes: going on there"
            );
            pools.lead_to(&options);
        }
    }
}
