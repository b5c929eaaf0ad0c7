//! One simulated device: what is known of it, and its way from the gate to an empty outbox, which
//! is the device's own [`Route`].

use std::time::Duration;

use punchtrail_device::{
    backoff::RETRY_AFTER_MAX_S,
    drain::{
        Route, Setback,
        lane::{Next, Pace},
    },
    store::identity::Identity,
};
use punchtrail_protocol::{EmployeeId, Time, wire::DevicePolicy};
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Fleet, GATE_MS,
    caller::Caller,
    misbehaviour::{Behaviour, FIXED_RETRY_MS},
    plan::Plan,
};

/// A roster's version that no server gives.
pub const STALE: &str = "before-the-line-failed";

/// A device of the fleet, its file closed.
pub struct Member {
    pub index: usize,
    pub identity: Identity,
    pub waiting: u64,
    /// When the first of them was captured.
    pub oldest: Option<Time>,
    pub behaviour: Behaviour,
    pub people: Vec<EmployeeId>,
    pub policy: DevicePolicy,
    pub roster: Option<String>,
    /// The number up to which the server said that it holds every number.
    pub acked_through: u64,
    /// When everything was acknowledged, since the gate opened.
    pub drained: Option<Duration>,
    /// When the server, too, had heard that nothing waits.
    pub finished: bool,
    /// Its dice: the same for one seed.
    pub dice: StdRng,
}

impl Member {
    /// The policy as this device follows it.
    pub fn followed(&self, plan: &Plan) -> DevicePolicy {
        let mut policy = self.policy.clone();
        let cap_s = plan.spread_cap_s.unwrap_or(u32::MAX);
        policy.reconnect_spread_s = policy.reconnect_spread_s.min(cap_s);
        if self.behaviour.no_throttle {
            policy.reconnect_spread_s = 0;
            policy.punches_per_minute = 100_000;
        }
        policy
    }

    /// Finds the server again some moment after `gate`, and drains until nothing waits or `over`.
    pub async fn drain(&mut self, fleet: &Fleet, gate: Instant, over: &CancellationToken) {
        let found = gate + Duration::from_millis(self.dice.random_range(0..GATE_MS));
        let (identity, policy) = (self.identity.clone(), self.followed(&fleet.plan));
        let caller = Caller::new(self, fleet);
        let mut route = Route::new(identity, caller, &policy, fleet.plan.retry_cap_ms, found);
        tokio::select! {
            () = settle(&mut route, gate) => route.courier.member.finished = true,
            // Dropping an errand is safe: what it didn't write down is sent again.
            () = over.cancelled() => {}
        }
        if !route.courier.member.finished
            && let Err(error) = route.courier.leave_failure().await
        {
            let index = route.courier.member.index;
            tracing::warn!(index, %error, "a device's last failure isn't written down");
        }
    }
}

/// Drains until nothing waits and the server has heard so.
async fn settle(route: &mut Route<Caller<'_>>, gate: Instant) {
    loop {
        let account = route.courier.known();
        if route.settled(&account) {
            return;
        }
        let errand = match route.next(&account, Pace::Steady) {
            Next::Do(errand) => errand,
            Next::Wait(at) => {
                sleep_until(at).await;
                continue;
            }
        };
        let done = route.perform(errand, &account).await;
        route.courier.note(&done);
        if route.courier.member.behaviour.no_throttle {
            route.lane.hurry(Instant::now());
        }
        let member = &mut *route.courier.member;
        if member.waiting == 0 && member.drained.is_none() {
            member.drained = Some(gate.elapsed());
        }
        if let Err(Setback::Call(error)) = done
            && member.behaviour.fixed_retry
        {
            let asked = error.retry_after().unwrap_or_default();
            let asked = asked.min(Duration::from_secs(RETRY_AFTER_MAX_S));
            route.lane.retry_at(Instant::now() + asked.max(Duration::from_millis(FIXED_RETRY_MS)));
        }
    }
}
