//! A receiver of webhooks beside a storm: whether it was told of everything, and how soon after the
//! followers had caught up.

use std::time::{Duration, Instant};

use anyhow::ensure;
use punchtrail_testkit::{Receiver, Reply, eventually};
use serde::Serialize;

use super::setup::Copy;

/// However much there is to tell.
const WAIT: Duration = Duration::from_secs(1_800);

/// A receiver that takes everything.
pub struct Listener(Receiver);

/// What it was told.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Told {
    /// Events that were to be told.
    pub events: u64,
    /// Requests that came.
    pub requests: usize,
    /// From when every follower stood at the head until the last was delivered, in seconds.
    pub after_s: f64,
}

impl Listener {
    /// Begins to listen; the server of `copy` tells it once it is started.
    pub async fn new(copy: &Copy) -> anyhow::Result<Self> {
        let receiver = Receiver::counting(Reply::status(204)).await?;
        copy.place.cli().json(&["webhook", "add", &receiver.url()]).await?;
        Ok(Self(receiver))
    }

    /// Waits until everything was delivered.
    pub async fn told(&self, copy: &Copy) -> anyhow::Result<Told> {
        let (began, pool) = (Instant::now(), copy.pool().await?);
        let deliveries = "select count(*), count(*) filter (where state <> 'delivered') \
            from webhook_deliveries";
        let events = eventually("everything to be delivered", WAIT, async || {
            let (events, open): (i64, i64) = sqlx::query_as(deliveries).fetch_one(&pool).await?;
            Ok((open == 0).then_some(events.cast_unsigned()))
        })
        .await?;
        pool.close().await;
        let told =
            Told { events, requests: self.0.count(), after_s: began.elapsed().as_secs_f64() };
        ensure!(told.requests as u64 >= told.events, "deliveries that nobody saw: {told:?}");
        Ok(told)
    }
}
