//! One owner for each follower across all nodes: a lease in Postgres, taken before anything is
//! read.
//!
//! A node asks for all leases that it wants in one statement, every [`RENEW_MS`]: it gets those
//! that nobody has, keeps those that it has, and is refused the others. A node that is killed or
//! cut off keeps its leases until [`LEASE_MS`] after it last renewed them; one that stops gives
//! them up at once. Time is the database's; what the node itself believes ends earlier, so that it
//! never thinks it has a lease that another may have taken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Node;
use crate::postgres::Pool;

/// How long a lease lasts after it was renewed, in milliseconds.
pub const LEASE_MS: u64 = 6_000;
/// How often leases are renewed, and free ones asked for, in milliseconds.
pub const RENEW_MS: u64 = 1_500;
/// The longest time that asking may take, in milliseconds; it is asked again then.
const ASK_MS_MAX: u64 = 2_000;

/// Takes or keeps those of the leases that nobody else has. In key order, as every writer of many
/// rows.
const TAKE: &str = "insert into follower_leases as lease (name, owner, until) \
    select name, $2, clock_timestamp() + make_interval(secs => $3) \
    from unnest($1::text[]) as wanted (name) order by name \
    on conflict (name) do update set owner = excluded.owner, until = excluded.until \
    where lease.owner = excluded.owner or lease.until < clock_timestamp() \
    returning name";
const GIVE_UP: &str = "update follower_leases set until = '-infinity' where owner = $1 \
    and ($2::text is null or name = $2)";

/// Who has a lease, as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// It hasn't been asked for yet, or was left to others.
    Unknown,
    Here(Instant),
    /// Another node, when it was last asked for.
    Elsewhere,
}

/// What this node wants and has.
#[derive(Debug)]
struct Wish {
    holder: watch::Sender<Holder>,
    /// Not asked for before: it was given up for others.
    not_before: Instant,
}

/// The leases of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    pool: Pool,
    node: Node,
    wishes: Arc<Mutex<BTreeMap<String, Wish>>>,
    wished: Arc<Notify>,
}

/// A follower's lease, had or not.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    name: String,
    holder: watch::Receiver<Holder>,
    leases: Leases,
}

impl Leases {
    /// `pool` is the writing role's.
    pub(super) fn new(pool: Pool, node: Node) -> Self {
        Self { pool, node, wishes: Arc::default(), wished: Arc::default() }
    }

    /// Wants that lease from now on.
    pub(super) fn want(&self, name: String) -> Lease {
        let (publish, holder) = watch::channel(Holder::Unknown);
        let wish = Wish { holder: publish, not_before: Instant::now() };
        self.wishes().insert(name.clone(), wish);
        self.wished.notify_one();
        Lease { name, holder, leases: self.clone() }
    }

    /// Takes and renews, until it is stopped.
    pub(super) async fn keep(self, stop: CancellationToken) {
        if let Some(former) = self.node.former {
            self.release(former, None).await;
        }
        loop {
            self.renew().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wished.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(RENEW_MS)) => {}
            }
        }
    }

    /// Gives up all of them: another node may go on at once.
    pub(super) async fn give_up(&self) {
        for wish in std::mem::take(&mut *self.wishes()).into_values() {
            wish.holder.send_replace(Holder::Unknown);
        }
        self.release(self.node.id, None).await;
    }

    async fn renew(&self) {
        let now = Instant::now();
        let wanted: Vec<String> = {
            let wishes = self.wishes();
            wishes
                .iter()
                .filter(|(_, wish)| wish.not_before <= now)
                .map(|(name, _)| name.clone())
                .collect()
        };
        if wanted.is_empty() {
            return;
        }
        let ask = sqlx::query_scalar::<_, String>(TAKE)
            .bind(&wanted)
            .bind(self.node.id)
            .bind(Duration::from_millis(LEASE_MS).as_secs_f64())
            .fetch_all(&self.pool);
        match timeout(Duration::from_millis(ASK_MS_MAX), ask).await {
            // From before it was asked: the database's lease ends later in any case.
            Ok(Ok(had)) => {
                for left in self.had(&wanted, &had, now) {
                    self.release(self.node.id, Some(&left)).await;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "leases can't be renewed now"),
            Err(_) => tracing::warn!(waited_ms = ASK_MS_MAX, "leases can't be renewed now"),
        }
    }

    /// Tells who has what was asked for. Those that were had and left to others meanwhile are given
    /// back: nobody here would use them.
    fn had(&self, wanted: &[String], had: &[String], asked: Instant) -> Vec<String> {
        let until = asked + Duration::from_millis(LEASE_MS);
        let (wishes, mut left) = (self.wishes(), Vec::new());
        for name in wanted {
            let here = had.contains(name);
            match wishes.get(name).filter(|wish| wish.not_before <= asked) {
                Some(wish) => {
                    let holder = if here { Holder::Here(until) } else { Holder::Elsewhere };
                    wish.holder.send_replace(holder);
                }
                None if here => left.push(name.clone()),
                None => {}
            }
        }
        left
    }

    async fn release(&self, owner: Uuid, name: Option<&str>) {
        let given_up = sqlx::query(GIVE_UP).bind(owner).bind(name).execute(&self.pool);
        match timeout(Duration::from_millis(ASK_MS_MAX), given_up).await {
            Ok(Ok(_)) => {}
            // It runs out by itself.
            Ok(Err(error)) => tracing::debug!(%error, "leases can't be given up now"),
            Err(_) => tracing::debug!("leases can't be given up now"),
        }
    }

    fn wishes(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Wish>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Whether this node has it now.
    pub(super) fn is_held(&self) -> bool {
        matches!(*self.holder.borrow(), Holder::Here(until) if until > Instant::now())
    }

    /// Whether another node had it when it was last asked for.
    pub(super) fn is_elsewhere(&self) -> bool {
        *self.holder.borrow() == Holder::Elsewhere
    }

    /// Waits until this node has it.
    pub(super) async fn held(&mut self) {
        let now = Instant::now();
        let here = |holder: &Holder| matches!(*holder, Holder::Here(until) if until > now);
        if self.holder.wait_for(here).await.is_err() {
            // Nobody asks for it any more: the node is stopping.
            std::future::pending::<()>().await;
        }
    }

    /// Leaves it to others for so long: what stopped here may go on elsewhere.
    pub(super) async fn leave(&self, pause: Duration) {
        if let Some(wish) = self.leases.wishes().get_mut(&self.name) {
            wish.not_before = Instant::now() + pause;
            wish.holder.send_replace(Holder::Unknown);
        }
        self.leases.release(self.leases.node.id, Some(&self.name)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::PgPool;

    #[tokio::test]
    async fn one_that_was_left_while_it_was_asked_for_is_not_had_and_is_given_back() {
        let nowhere = PgPool::connect_lazy("postgres://nobody@localhost/nothing").unwrap();
        let leases = Leases::new(Pool::new(nowhere, Duration::from_secs(1)), Node::anywhere());
        let names = ["kept".to_owned(), "left".to_owned()];
        let [kept, left] = names.clone().map(|name| leases.want(name));
        let asked = Instant::now();
        if let Some(wish) = leases.wishes().get_mut("left") {
            wish.not_before = asked + Duration::from_secs(60);
        }
        assert_eq!(leases.had(&names, &names, asked), ["left"]);
        assert!(kept.is_held() && !left.is_held());
    }
}
