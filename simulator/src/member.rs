//! One simulated device: the real lane, the real calls and the real transactions, with its file closed
//! whenever it waits for the server or for its turn.

use std::time::Duration;

use punchtrail_device::{
    APP,
    backoff::{RETRY_AFTER_MAX_S, TRY_FLOOR_MS},
    client::{BatchOutcome, CallError, Server},
    clock::{Clock, Moment},
    drain::{
        errand::{Setback, concerns_the_content, fitting, matched},
        lane::{Errand, Heard, Lane, Need, Next, Pace},
    },
    manifest,
    store::{
        StoreError,
        contact::{self, Contact, Failure},
        identity::Identity,
        outbox::{self, Backlog, Waiting},
        roster,
    },
};
use punchtrail_protocol::{
    EmployeeId, Time,
    wire::{BatchRequest, DevicePolicy, Heartbeat, HeartbeatAnswer, ItemStatus},
};
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Fleet, GATE_MS,
    clock::SimulatedClock,
    duration_ms,
    meter::{Class, measured},
    misbehaviour::{Behaviour, DUPLICATES_SHARE, FIXED_RETRY_MS, garbage},
    places::Visit,
    plan::Plan,
};

/// Punches of the next batch that are read together with writing down the last one's answer, so that a
/// slice of a drain at the policy's rate opens the file once and not twice.
const READ_AHEAD_MAX: usize = 32;
/// A roster's version that no server gives.
pub const STALE: &str = "before-the-line-failed";
/// How long the waits are when a roster changed under a walk, in milliseconds.
const WALK_AGAIN_MS: u64 = 10_000;

/// A device of the fleet, its file closed.
pub struct Member {
    /// Which.
    pub index: usize,
    /// Who it is to the server.
    pub identity: Identity,
    /// Punches that wait.
    pub waiting: u64,
    /// When the first of them was captured.
    pub oldest: Option<Time>,
    /// What it does wrong.
    pub behaviour: Behaviour,
    /// Its people.
    pub people: Vec<EmployeeId>,
    /// The policy it was told.
    pub policy: DevicePolicy,
    /// The roster it holds.
    pub roster: Option<String>,
    /// When everything was acknowledged, since the gate opened.
    pub drained: Option<Duration>,
    /// When the server, too, had heard that nothing waits.
    pub finished: bool,
    /// Its dice: the same for one seed.
    pub dice: StdRng,
    spread_cap_s: u32,
    retry_cap_ms: u64,
    acked_through: u64,
    clock: SimulatedClock,
    server: Option<Server>,
    failing: bool,
    /// A heartbeat's answer that isn't written down yet: the next batch's answer will say the same anew.
    unwritten: Option<(Moment, HeartbeatAnswer)>,
    read_ahead: Vec<Waiting>,
    last_failure: Option<(Failure, bool)>,
}

/// What a device's file holds beside its identity.
#[derive(Debug)]
pub struct Held {
    /// What waits.
    pub backlog: Backlog,
    /// What the server last told.
    pub contact: Contact,
    /// Its people.
    pub people: Vec<EmployeeId>,
}

impl Member {
    /// An enrolled device.
    pub fn new(
        plan: &Plan,
        index: usize,
        identity: Identity,
        held: Held,
        behaviour: Behaviour,
        dice: StdRng,
    ) -> Self {
        let Held { backlog, contact, people } = held;
        let stale = behaviour.stale_roster.then(|| STALE.to_owned());
        Self {
            index,
            identity,
            waiting: backlog.waiting,
            oldest: backlog.oldest,
            behaviour,
            people,
            policy: contact.policy.unwrap_or_default(),
            roster: stale.or(contact.roster),
            drained: None,
            finished: false,
            dice,
            spread_cap_s: plan.spread_cap_s.unwrap_or(u32::MAX),
            retry_cap_ms: plan.retry_cap_ms,
            acked_through: contact.acked_through,
            clock: SimulatedClock::off_by(behaviour.clock_off_s),
            server: None,
            failing: false,
            unwritten: None,
            read_ahead: Vec::new(),
            last_failure: None,
        }
    }

    /// The policy as this device follows it.
    fn followed(&self) -> DevicePolicy {
        let mut policy = self.policy.clone();
        policy.reconnect_spread_s = policy.reconnect_spread_s.min(self.spread_cap_s);
        if self.behaviour.no_throttle {
            policy.reconnect_spread_s = 0;
            policy.punches_per_minute = 100_000;
        }
        policy
    }

    /// Finds the server again some moment after `gate`, and drains until nothing waits or `over`.
    pub async fn drain(&mut self, fleet: &Fleet, gate: Instant, over: &CancellationToken) {
        let found = gate + Duration::from_millis(self.dice.random_range(0..GATE_MS));
        let policy = self.followed();
        let mut lane =
            Lane::new(self.identity.device, &policy, self.retry_cap_ms, found, Instant::now());
        loop {
            let need = Need { waiting: self.waiting, photos: 0 };
            if self.waiting == 0 && lane.in_contact() && !lane.reports_backlog() {
                self.finished = true;
                break;
            }
            match lane.next(need, &self.followed(), Pace::Steady, Instant::now()) {
                Next::Wait(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = over.cancelled() => break,
                },
                Next::Do(errand) => {
                    tokio::select! {
                        () = self.perform(fleet, &mut lane, errand) => {}
                        // Dropping an errand is safe: what it didn't write down is sent again.
                        () = over.cancelled() => break,
                    }
                    if self.waiting == 0 && self.drained.is_none() {
                        self.drained = Some(gate.elapsed());
                    }
                }
            }
        }
        self.server = None;
        if !self.finished
            && let Err(error) = self.write_down_failure(fleet).await
        {
            tracing::warn!(index = self.index, %error, "a device's last failure isn't written down");
        }
    }

    async fn perform(&mut self, fleet: &Fleet, lane: &mut Lane, errand: Errand) {
        let done = match errand {
            Errand::Heartbeat => self.beat(fleet, lane).await,
            Errand::Walk => self.walk(fleet, lane).await,
            Errand::Batch(items_max) => self.deliver(fleet, lane, items_max).await,
            // No simulated device has photos.
            Errand::Photo => Ok(()),
        };
        self.failing = done.is_err();
        match done {
            Ok(()) => self.last_failure = None,
            Err(Setback::Call(error)) => self.failed(lane, errand, &error),
            Err(Setback::Store(error)) => {
                fleet.meter.count(|tally| tally.store_failures += 1);
                tracing::warn!(index = self.index, %error, "a device's folder refused");
                let pause = CallError::Unreachable("the store refused".to_owned());
                lane.failed(&pause, self.dice.random(), Instant::now());
            }
        }
    }

    /// What the agent does after a failed call, and what a misbehaving one does instead.
    fn failed(&mut self, lane: &mut Lane, errand: Errand, error: &CallError) {
        let now = Instant::now();
        let roll = self.dice.random();
        self.last_failure = Some((
            Failure {
                at: self.clock.read().time,
                code: error.code().to_owned(),
                text: error.to_string(),
            },
            error.reached(),
        ));
        if errand == Errand::Walk && error.refused_with().is_some() {
            let wait_ms = WALK_AGAIN_MS / 2 + (roll * (WALK_AGAIN_MS / 2) as f64) as u64;
            lane.walk_refused(now + Duration::from_millis(TRY_FLOOR_MS + wait_ms));
            return;
        }
        let deaf = match error {
            CallError::Busy { code, detail, .. } if self.behaviour.ignore_retry_after => {
                CallError::Busy { code: code.clone(), detail: detail.clone(), retry_after: None }
            }
            heard => heard.clone(),
        };
        lane.failed(&deaf, roll, now);
        if self.behaviour.fixed_retry {
            let asked = deaf.retry_after().unwrap_or_default();
            let asked = asked.min(Duration::from_secs(RETRY_AFTER_MAX_S));
            lane.retry_at(now + asked.max(Duration::from_millis(FIXED_RETRY_MS)));
        }
    }

    fn server(&mut self) -> Result<Server, CallError> {
        if let Some(server) = &self.server {
            return Ok(server.clone());
        }
        let server = Server::at(&self.identity.server)
            .and_then(|server| server.with_token(&self.identity.token))
            .map_err(|error| CallError::Unreachable(error.to_string()))?;
        self.server = Some(server.clone());
        Ok(server)
    }

    async fn beat(&mut self, fleet: &Fleet, lane: &mut Lane) -> Result<(), Setback> {
        let server = self.server()?;
        let now = self.clock.read();
        let heartbeat = Heartbeat {
            outbox: self.waiting,
            photos: 0,
            oldest: self.oldest,
            seq: self.identity.seq,
            clock: now.time,
            boot: now.boot,
            uptime_ms: now.uptime_ms,
            app: APP.to_owned(),
        };
        let call = server.heartbeat(&heartbeat);
        let answer = measured(&fleet.meter, Class::Heartbeat, self.failing, call).await?;
        let heard = Heard {
            reported: self.waiting > 0,
            roster_differs: self.roster.as_ref() != Some(&answer.roster),
            next_batch_after_ms: self.paused_ms(answer.next_batch_after_ms),
        };
        let news = answer.acked_through != self.acked_through;
        self.unwritten = Some((now, answer));
        if news {
            let visit = self.open(fleet).await?;
            self.look(&visit).await?;
            visit.end().await;
        }
        let roll = self.dice.random();
        lane.heartbeat_answered(heard, &self.followed(), roll, Instant::now());
        Ok(())
    }

    async fn walk(&mut self, fleet: &Fleet, lane: &mut Lane) -> Result<(), Setback> {
        let server = self.server()?;
        let call = manifest::walk(&server, self.identity.site);
        let mut walked = measured(&fleet.meter, Class::Manifest, self.failing, call).await?;
        walked.rows.retain(|row| self.people.contains(&row.employee));
        let visit = self.open(fleet).await?;
        let mut write = visit.device.store().write().await?;
        let (id, version) = (self.identity.id, walked.roster.as_str());
        roster::replace(&mut write, id, &walked.rows, &walked.policy, version).await?;
        contact::reached(&mut write, id, &self.clock.read(), None).await?;
        write.commit().await.map_err(StoreError::from)?;
        visit.end().await;
        self.policy = walked.policy;
        self.roster = Some(walked.roster);
        lane.walked(&self.followed(), Instant::now());
        Ok(())
    }

    async fn deliver(
        &mut self,
        fleet: &Fleet,
        lane: &mut Lane,
        items_max: usize,
    ) -> Result<(), Setback> {
        let server = self.server()?;
        let expected = items_max.min(usize::try_from(self.waiting).unwrap_or(items_max));
        let room = fleet.places.body(&self.behaviour, expected).await?;
        let (mut items, batch) = self.next_batch(fleet, expected).await?;
        if items.is_empty() {
            return Ok(());
        }
        // The body has them; here only numbers and ids are needed to match the answer.
        for item in &mut items {
            (item.bytes, item.signature) = (Vec::new(), Vec::new());
        }
        let asked_at = Instant::now();
        let answered = self.send(fleet, &server, &items, batch).await;
        let took_ms = duration_ms(asked_at.elapsed());
        drop(room);
        let outcome = match answered {
            Ok(outcome) => outcome,
            Err(error) => {
                if !error.reached() {
                    lane.batch_unanswered(items.len(), took_ms);
                }
                return self.batch_failed(fleet, lane, &items, error).await;
            }
        };
        let (acknowledged, outcome) = matched(&items, outcome)?;
        // What the last heartbeat was answered, this answer says anew.
        self.unwritten = None;
        let visit = self.open(fleet).await?;
        visit.device.acknowledge(&self.identity, &acknowledged, &outcome).await?;
        let before = self.waiting;
        self.look(&visit).await?;
        if self.waiting > 0 && !self.behaviour.no_throttle {
            let mut db = visit.device.store().read().await?;
            self.read_ahead = outbox::next(&mut db, self.identity.id, READ_AHEAD_MAX).await?;
        }
        visit.end().await;
        self.acked_through = outcome.acked_through;
        fleet.meter.acknowledged(before.saturating_sub(self.waiting));
        let pause_ms = self.paused_ms(outcome.next_batch_after_ms);
        lane.batch_answered(items.len(), took_ms, pause_ms, &self.followed(), Instant::now());
        Ok(())
    }

    /// How long it pauses between batches when the server asks for so long.
    fn paused_ms(&self, asked_ms: u64) -> u64 {
        if self.behaviour.no_throttle { 0 } else { asked_ms }
    }

    /// The next batch: from what was read ahead if that is enough, else from the file.
    async fn next_batch(
        &mut self,
        fleet: &Fleet,
        items_max: usize,
    ) -> Result<(Vec<Waiting>, BatchRequest), StoreError> {
        let mut ahead = std::mem::take(&mut self.read_ahead);
        if ahead.len() >= items_max.max(1) {
            ahead.truncate(items_max);
            return Ok(fitting(ahead));
        }
        let _leave = fleet.places.reading(&self.behaviour).await?;
        let visit = self.visit(fleet).await?;
        let next = visit.device.next_batch(&self.identity, items_max).await?;
        if next.0.is_empty() {
            self.look(&visit).await?;
        }
        visit.end().await;
        Ok(next)
    }

    /// Sends a batch, with what a misbehaving device adds, and gives the outcome of its own items.
    async fn send(
        &mut self,
        fleet: &Fleet,
        server: &Server,
        items: &[Waiting],
        mut batch: BatchRequest,
    ) -> Result<BatchOutcome, CallError> {
        if self.behaviour.garbage {
            let extra = garbage(items.len(), &self.identity.key, &mut self.dice);
            fleet.meter.count(|tally| tally.garbage_sent += extra.len() as u64);
            batch.punches.extend(extra);
        }
        let site = self.identity.site;
        let sent = items.len() as u64;
        let twice = self.behaviour.duplicates && self.dice.random_bool(DUPLICATES_SHARE);
        let copy = twice.then(|| batch.clone());
        fleet.meter.count(|tally| tally.items_sent += sent);
        let call = server.deliver(site, batch);
        let mut outcome = measured(&fleet.meter, Class::Batch, self.failing, call).await?;
        if let Some(copy) = copy {
            fleet.meter.count(|tally| {
                tally.items_sent += sent;
                tally.batches_twice += 1;
            });
            let again =
                measured(&fleet.meter, Class::Batch, false, server.deliver(site, copy)).await;
            outcome = again.unwrap_or(outcome);
        }
        let garbage = outcome.results.split_off(items.len().min(outcome.results.len()));
        let taken =
            garbage.iter().filter(|item| item.status != ItemStatus::Quarantined).count() as u64;
        fleet.meter.count(|tally| tally.garbage_taken += taken);
        Ok(outcome)
    }

    /// A batch refused for its content is halved; one item refused alone steps behind the others.
    async fn batch_failed(
        &mut self,
        fleet: &Fleet,
        lane: &mut Lane,
        items: &[Waiting],
        error: CallError,
    ) -> Result<(), Setback> {
        if concerns_the_content(&error) {
            if lane.split(items.len(), Instant::now()) {
                return Ok(());
            }
            if let [item] = items {
                let visit = self.open(fleet).await?;
                let mut write = visit.device.store().write().await?;
                outbox::refused_alone(&mut write, self.identity.id, item.seq).await?;
                write.commit().await.map_err(StoreError::from)?;
                visit.end().await;
            }
        }
        Err(error.into())
    }

    /// Opens its files.
    async fn visit(&self, fleet: &Fleet) -> Result<Visit, StoreError> {
        fleet.places.visit(&fleet.plan, self.index, self.behaviour.clock_off_s).await
    }

    /// Opens its files, and writes down what the last heartbeat was answered.
    async fn open(&mut self, fleet: &Fleet) -> Result<Visit, StoreError> {
        let visit = self.visit(fleet).await?;
        if let Some((at, answer)) = self.unwritten.take() {
            visit.device.heard(&self.identity, &at, &answer).await?;
            self.acked_through = answer.acked_through;
        }
        Ok(visit)
    }

    /// Counts anew what waits.
    async fn look(&mut self, visit: &Visit) -> Result<(), StoreError> {
        let mut db = visit.device.store().read().await?;
        let backlog = outbox::backlog(&mut db, self.identity.id).await?;
        (self.waiting, self.oldest) = (backlog.waiting, backlog.oldest);
        Ok(())
    }

    /// For `status` of a device that didn't finish.
    async fn write_down_failure(&mut self, fleet: &Fleet) -> Result<(), StoreError> {
        let Some((failure, reached)) = self.last_failure.take() else { return Ok(()) };
        let visit = self.open(fleet).await?;
        let mut write = visit.device.store().write().await?;
        let now = self.clock.read();
        contact::failed(&mut write, self.identity.id, &now, reached, &failure, 0).await?;
        write.commit().await?;
        visit.end().await;
        Ok(())
    }
}
