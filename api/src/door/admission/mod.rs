//! Admission before work: every request is of a class, and every class has a budget of its own, so that
//! ten thousand devices that come back at once keep nobody from reading an explanation.
//!
//! A request is let in or refused when its head has come, before its body is read: refused when it
//! would wait too long behind those already let in ([`Budget::wait_max`], estimated from what the last turns
//! took). It takes its turn once its body is there, so that a slow line holds a place in no line. What
//! is refused gets a time to come back from the class's book: far enough that all who were told
//! to come back can be served, and so spread by the size of the fleet. Devices that were served get the time
//! of their next batch with the answer while others wait ([`Admission::pace`]).
//!
//! Who comes before its time is let in only as far as nobody else is kept waiting by it.

mod queue;
mod schedule;

use std::{
    collections::hash_map::RandomState,
    convert::Infallible,
    fmt,
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::HttpBody,
    extract::{FromRequestParts, Request, State},
    http::{header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use punchtrail_infra::ledger::Returning;

pub use self::schedule::Caller;
use self::{
    queue::{Permit, Priority, Queue},
    schedule::{Arrival, EarlyShare, Schedule},
};
use crate::{
    door::{Door, connection_limit::Overflow, envelope::CloseConnection},
    problem::Refusal,
};

/// How many times longer than estimated one that was let in may wait for its turn.
const PATIENCE_FACTOR: u32 = 4;
/// Of those that may be worked on at once, as many as one in so many may wait having come early.
const EARLY_SHARE: usize = 4;
/// A device that comes without an appointment is let in while the line is no longer than one part in so
/// many of what it may be: the rest is for those who have one, or they would be turned away a second time.
const UNANNOUNCED_SHARE: u32 = 4;
/// A device that has more gets no appointment sooner, in seconds: it drains a backlog by slices of a quarter of
/// a minute, and may have no leave by its policy to send another yet.
const SLICE_S: usize = 15;
/// The pause before the next batch of a device that has no more to deliver, as far as it said, while others
/// wait, in milliseconds.
const PACE_MS: std::ops::RangeInclusive<u64> = 2_000..=4_000;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A person waits for it: reads and rulings, the search at a door, enrolment.
    Interactive,
    /// A device's report of itself.
    Heartbeat,
    /// A batch of punches.
    Delivery,
    /// What a device catches up on: manifests and deltas.
    Sync,
    /// A photo.
    Photo,
}

/// What a class may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests worked on at once.
    pub at_once: usize,
    /// A request that would wait longer than this, by estimate, is refused.
    pub wait_max: Duration,
    /// Requests that may wait, whatever the estimate.
    pub waiting_max: usize,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Interactive, Self::Heartbeat, Self::Delivery, Self::Sync, Self::Photo];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Heartbeat => "heartbeat",
            Self::Delivery => "delivery",
            Self::Sync => "sync",
            Self::Photo => "photo",
        }
    }

    /// Its budget. Deliveries are enough that some are verified while others commit, and few enough to leave
    /// readers their share of the cores.
    pub fn budget(self) -> Budget {
        let budget = |at_once, wait_s, waiting_max| Budget {
            at_once,
            wait_max: Duration::from_secs(wait_s),
            waiting_max,
        };
        match self {
            Self::Interactive => budget(16, 5, 512),
            Self::Heartbeat => budget(4, 2, 512),
            Self::Delivery => budget(8, 2, 256),
            Self::Sync => budget(4, 2, 128),
            Self::Photo => budget(16, 2, 64),
        }
    }

    /// Whether its callers are told apart by their credentials, and so can come early.
    fn knows_callers(self) -> bool {
        matches!(self, Self::Delivery | Self::Heartbeat | Self::Sync)
    }

    /// Whether the work begins with the head of a request, not when its body is there.
    fn works_on_bodies(self) -> bool {
        self == Self::Photo
    }
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It would have waited too long.
    Wait,
    /// It came before the time it was given.
    Early,
    /// It came on a connection that overflows the limit.
    Overflow,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Early => "early",
            Self::Overflow => "seats",
        }
    }
}

/// Lets requests in, class by class. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Option<Arc<Desks>>);

struct Desks {
    desks: [Desk; Class::ALL.len()],
    hasher: RandomState,
    returning: Returning,
}

struct Desk {
    class: Class,
    budget: Budget,
    queue: Arc<Queue>,
    schedule: Mutex<Schedule>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Admission" } else { "Admission(off)" })
    }
}

impl Admission {
    /// With these budgets. `returning` is told of devices that are turned away.
    pub fn new(budget: impl Fn(Class) -> Budget, returning: Returning) -> Self {
        let now = Instant::now();
        let early_share = Arc::<EarlyShare>::default();
        let desks = Class::ALL.map(|class| Desk {
            class,
            budget: budget(class),
            queue: Queue::new(budget(class).at_once),
            schedule: Mutex::new(Schedule::new(now, Arc::clone(&early_share))),
        });
        Self(Some(Arc::new(Desks { desks, hasher: RandomState::new(), returning })))
    }

    /// Lets everything in at once, to measure what that does.
    pub fn off() -> Self {
        Self(None)
    }

    /// A device says that it has `backlog` punches to deliver, and would begin `after` that by itself: how
    /// long it should wait instead, in milliseconds, when more come back then than can be served; else 0.
    pub fn announce(&self, caller: Option<Caller>, backlog: u64, after: Duration) -> u64 {
        let (Some(desks), Some(caller)) = (&self.0, caller) else { return 0 };
        let (desk, now) = (desks.desk(Class::Delivery), Instant::now());
        let per_second = desk.queue.per_second();
        let wait =
            desk.schedule().announce(caller, backlog, after, per_second, rand::random(), now);
        let Some(wait) = wait else { return 0 };
        desks.returning.within(wait);
        millis(wait)
    }

    /// A pause for a device that delivered `items`, before its next batch, in milliseconds: none unless
    /// others wait. One that has more, as far as it said, gets an appointment like those who are turned
    /// away; the others a few seconds, for what they may capture. A device that doesn't keep it comes early.
    pub fn pace(&self, caller: Option<Caller>, items: usize) -> u64 {
        let Some(desks) = &self.0 else { return 0 };
        let desk = desks.desk(Class::Delivery);
        let now = Instant::now();
        let has_more = caller.is_some_and(|who| desk.schedule().came(who, items as u64, now));
        if desk.queue.is_free() {
            return 0;
        }
        let pause = if has_more {
            let wait = desk.give_from(SLICE_S, caller);
            desks.returning.within(wait);
            wait
        } else {
            let pause = Duration::from_millis(rand::random_range(PACE_MS));
            desk.schedule().expect(caller, now + pause, now);
            pause
        };
        millis(pause)
    }

    /// Publishes how the lines stand.
    pub fn publish(&self) {
        for desk in self.0.iter().flat_map(|desks| &desks.desks) {
            let (class, load) = (desk.class.as_str(), desk.queue.load());
            metrics::gauge!("punchtrail_admission_working", "class" => class)
                .set(load.working as f64);
            metrics::gauge!("punchtrail_admission_waiting", "class" => class)
                .set(load.waiting as f64);
        }
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

impl Desks {
    fn desk(&self, class: Class) -> &Desk {
        &self.desks[class as usize]
    }

    /// Who calls, by what it sends to prove who it is. Nothing is verified yet.
    fn caller(&self, class: Class, request: &Request) -> Option<Caller> {
        let credentials = request.headers().get(header::AUTHORIZATION)?;
        class.knows_callers().then(|| Caller(self.hasher.hash_one(credentials.as_bytes())))
    }

    fn ask(self: &Arc<Self>, class: Class, request: &Request) -> Result<Ticket, Refusal> {
        let (desk, caller) = (self.desk(class), self.caller(class, request));
        let permit = desk.ask(caller).map_err(|(why, wait)| self.refuse(class, why, wait))?;
        Ok(Ticket { desks: Arc::clone(self), class, caller, permit: permit.into() })
    }

    async fn serve(
        self: &Arc<Self>,
        class: Class,
        mut request: Request,
        next: Next,
    ) -> Result<Response, Refusal> {
        let is_overflow = request.extensions().get::<Overflow>().is_some();
        if is_overflow && class != Class::Interactive {
            let (desk, caller) = (self.desk(class), self.caller(class, &request));
            return Err(self.refuse(class, Why::Overflow, desk.give(caller)));
        }
        let ticket = Arc::new(self.ask(class, &request)?);
        if class.works_on_bodies() || request.body().is_end_stream() {
            ticket.begin().await?;
        }
        request.extensions_mut().insert(Arc::clone(&ticket));
        let response = next.run(request).await;
        drop(ticket);
        Ok(response)
    }

    fn refuse(&self, class: Class, why: Why, wait: Duration) -> Refusal {
        if class.knows_callers() {
            self.returning.within(wait);
        }
        let (class, why) = (class.as_str(), why.as_str());
        metrics::counter!("punchtrail_admission_refused_total", "class" => class, "why" => why)
            .increment(1);
        Refusal::shed(wait)
    }
}

impl Desk {
    fn schedule(&self) -> std::sync::MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, caller: Option<Caller>) -> Duration {
        self.give_from(0, caller)
    }

    /// No sooner than in `from_s` seconds.
    fn give_from(&self, from_s: usize, caller: Option<Caller>) -> Duration {
        let per_second = self.queue.per_second();
        self.schedule().give(caller, from_s, per_second, rand::random(), Instant::now())
    }

    fn ask(&self, caller: Option<Caller>) -> Result<Permit, (Why, Duration)> {
        let expected = || {
            if let Some(caller) = caller {
                self.schedule().came(caller, 0, Instant::now());
            }
            Ok(self.queue.admit(Priority::Usual))
        };
        if self.queue.is_free() {
            return expected();
        }
        let load = self.queue.load();
        let now = Instant::now();
        let arrival = caller.map(|caller| self.schedule().arrival(caller, now));
        if let Some(Arrival::Early(left)) = arrival {
            // A few are kept at hand, so that no turn is wasted while nobody else waits.
            let at_hand_max = self.budget.at_once / EARLY_SHARE;
            return match load.early < at_hand_max {
                true => Ok(self.queue.admit(Priority::Early)),
                false => Err((Why::Early, left)),
            };
        }
        let wait_max = match arrival {
            Some(Arrival::Unscheduled) => self.budget.wait_max / UNANNOUNCED_SHARE,
            _ => self.budget.wait_max,
        };
        let too_many = load.waiting >= self.budget.waiting_max;
        if too_many || self.queue.estimated_wait() > wait_max {
            return Err((Why::Wait, self.give(caller)));
        }
        expected()
    }
}

/// A request that was let in. It leaves its class's line when it is dropped.
pub struct Ticket {
    desks: Arc<Desks>,
    class: Class,
    caller: Option<Caller>,
    permit: tokio::sync::Mutex<Permit>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("class", &self.class).finish_non_exhaustive()
    }
}

/// Who calls, where admission tells callers apart.
#[derive(Debug, Clone, Copy)]
pub struct Calling(pub Option<Caller>);

impl<S: Send + Sync> FromRequestParts<S> for Calling {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Arc<Ticket>>().and_then(|ticket| ticket.caller)))
    }
}

impl Ticket {
    /// Waits for the permit; only the first call waits.
    ///
    /// # Errors
    /// Busy when it isn't granted in a reasonable time.
    pub async fn begin(&self) -> Result<(), Refusal> {
        let mut permit = self.permit.lock().await;
        if permit.is_held() {
            return Ok(());
        }
        let desk = self.desks.desk(self.class);
        let (asked, patience) = (Instant::now(), desk.budget.wait_max * PATIENCE_FACTOR);
        let acquired = tokio::time::timeout(patience, permit.acquire()).await;
        acquired.map_err(|_| self.desks.refuse(self.class, Why::Wait, desk.give(self.caller)))?;
        let class = self.class.as_str();
        metrics::histogram!("punchtrail_admission_wait_duration_seconds", "class" => class)
            .record(asked.elapsed());
        Ok(())
    }
}

/// Lets a request in and waits for its turn, or refuses it. When the limit on connections is near, a
/// device's ends with its answer; people keep theirs.
pub async fn admit(
    State((door, class)): State<(Door, Class)>,
    request: Request,
    next: Next,
) -> Response {
    let Some(desks) = &door.admission.0 else { return next.run(request).await };
    let mut response = match desks.serve(class, request, next).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    if class != Class::Interactive && door.connections.is_near() {
        response.extensions_mut().insert(CloseConnection);
    }
    response
}
