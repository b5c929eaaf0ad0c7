//! A device's way from the gate to an empty outbox, which is the device's own [`Route`].

use std::time::Duration;

use punchtrail_device::{
    backoff::RETRY_AFTER_MAX_S,
    drain::{
        Route, Setback,
        lane::{Next, Pace},
    },
};
use rand::RngExt;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{Fleet, GATE_MS, caller::Caller, member::Member, misbehaviour::FIXED_RETRY_MS};

/// Finds the server again some moment after `gate`, and drains until nothing waits or `over`.
pub async fn drain(member: &mut Member, fleet: &Fleet, gate: Instant, over: &CancellationToken) {
    let found = gate + Duration::from_millis(member.dice.random_range(0..GATE_MS));
    let (identity, policy) = (member.identity.clone(), member.followed(&fleet.plan));
    let caller = Caller::new(member, fleet);
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
