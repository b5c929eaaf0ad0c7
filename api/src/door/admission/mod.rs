//! Admission before work: every request is of a class, and every class has a budget of its own, so
//! that ten thousand devices that come back at once keep nobody from reading an explanation.
//!
//! # Words
//! - **class**: what a request is about. Each has a **budget**, a queue and a schedule of its own.
//! - **admitted**: let in when its head has come, before its body is read; else **refused**, with a
//!   time to come back.
//! - **coming**: admitted, and its body isn't there. It waits in no queue, and nobody behind it.
//! - **permit**: the right to be worked on. A class has so many at once.
//! - **queue**: the requests of a class that are there and wait for a permit.
//! - **caller**: who sends a request, known by a hash of its credentials alone.
//! - **schedule**: when the callers of a class may come back; a **slot** is one caller's time.
//! - **on time**, **early**, **unscheduled**: how a caller arrives, held against its slot.
//! - **overflow**: connections over the limit, on which devices are only told when to come back.
//!
//! # How a request goes
//! Its credentials are looked at first ([`Gate`](super::gate::Gate)): who has none gets into no
//! line but that of enrolment. It is refused when it would wait too long behind the queue
//! ([`Budget::wait_max`], estimated from how long the last permits were held), when its head comes
//! and once more when its body is there: only then it asks for its permit, so that a slow
//! connection keeps nobody waiting. Of the requests that a caller lets come, the oldest has to go
//! when there are too many. What is refused gets a slot: far enough that all who have one can be
//! served, and so spread by the size of the fleet. Devices that were served get the time of their
//! next batch with the answer while others wait ([`Admission::pace`]).
//!
//! Early callers and revoked devices are admitted only as far as nobody else is kept waiting by it.

mod class;
mod queue;
mod schedule;

use std::{
    collections::hash_map::RandomState,
    convert::Infallible,
    fmt,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::HttpBody,
    extract::{OptionalFromRequestParts, Request, State},
    http::{HeaderMap, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use punchtrail_infra::ledger::Returning;
use tokio_util::sync::CancellationToken;

pub use self::{
    class::{Budget, Class},
    schedule::Caller,
};
use self::{
    queue::{Permit, Priority, Queue},
    schedule::{Arrival, EarlyShare, Schedule},
};
use crate::{
    door::{
        Door,
        connection_limit::Overflow,
        crowd::{Crowd, Member},
        gate::{Standing, bearer},
        limits::{COMING_MAX, COMING_OF_STRANGERS_MAX},
        visit::{Visit, Whose},
        waiters::Place,
    },
    problem::{CloseConnection, Code, RETRY_AFTER_S, Refusal},
};

/// How many times longer than estimated an admitted request may wait for its permit.
const WAIT_FACTOR: u32 = 4;
/// As many early callers and revoked devices may wait as one permit in so many.
const EARLY_WAITING_SHARE: usize = 4;
/// An unscheduled caller is admitted while the wait is no longer than one part in so many of what
/// it may be: the rest is for those who have a slot, or they would be turned away a second time.
const UNSCHEDULED_SHARE: u32 = 4;
/// A device that has more gets no slot sooner, in seconds: it drains a backlog by slices of a
/// quarter of a minute, and may have no leave by its policy to send another yet.
const SLICE_S: usize = 15;
/// The pause before the next batch of a device that has no more to deliver, as far as it said,
/// while others wait, in milliseconds.
const PACE_MS: std::ops::RangeInclusive<u64> = 2_000..=4_000;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Why {
    /// It would have waited too long.
    Wait,
    Early,
    /// It is a revoked device's.
    Revoked,
    /// Too many of its origin wait for their credentials to be looked up.
    Unknown,
    /// It came on a connection that overflows the limit.
    #[strum(serialize = "seats")]
    Overflow,
}

impl Why {
    /// Its name in metrics.
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Admits requests, class by class. Cheap to clone.
#[derive(Clone)]
pub struct Admission(Option<Arc<Limiters>>);

struct Limiters {
    classes: [Limiter; Class::ALL.len()],
    coming: Crowd<(Class, Whose)>,
    /// The same of those without credentials.
    strangers: Crowd<(Class, Whose)>,
    hasher: RandomState,
    returning: Returning,
}

/// The limiter of a class.
struct Limiter {
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
        let (now, early_share) = (Instant::now(), Arc::<EarlyShare>::default());
        let classes = Class::ALL.map(|class| Limiter {
            budget: budget(class),
            queue: Queue::new(budget(class).at_once),
            schedule: Mutex::new(Schedule::new(now, Arc::clone(&early_share))),
        });
        Self(Some(Arc::new(Limiters {
            classes,
            coming: Crowd::new(COMING_MAX),
            strangers: Crowd::new(COMING_OF_STRANGERS_MAX),
            hasher: RandomState::new(),
            returning,
        })))
    }

    /// Admits everything at once, to measure what that does.
    pub fn off() -> Self {
        Self(None)
    }

    /// A device says that it has `backlog` items to deliver, and would begin `after` that by
    /// itself: how long it should wait instead, in milliseconds, when more come back then than can
    /// be served; else 0.
    pub fn announce(&self, caller: Option<Caller>, backlog: u64, after: Duration) -> u64 {
        let (Some(limiters), Some(caller)) = (&self.0, caller) else { return 0 };
        let (limiter, now) = (limiters.of(Class::Delivery), Instant::now());
        let (per_second, roll) = (limiter.queue.per_second(), rand::random());
        let wait = limiter.schedule().announce(caller, backlog, after, per_second, roll, now);
        wait.map_or(0, |wait| limiters.told(wait))
    }

    /// A pause for a device that delivered `items`, before its next batch, in milliseconds: none
    /// unless others wait. One that has more, as far as it said, gets a slot like those who are
    /// turned away; the others a few seconds, for what they may capture. A device that doesn't keep
    /// it is early.
    pub fn pace(&self, caller: Option<Caller>, items: usize) -> u64 {
        let Some(limiters) = &self.0 else { return 0 };
        let (limiter, now) = (limiters.of(Class::Delivery), Instant::now());
        let has_more = caller.is_some_and(|who| limiter.schedule().came(who, items as u64, now));
        if limiter.queue.is_free() {
            return 0;
        }
        if has_more {
            return limiters.told(limiter.give(caller, SLICE_S));
        }
        let pause = Duration::from_millis(rand::random_range(PACE_MS));
        limiter.schedule().expect(caller, now + pause, now);
        millis(pause)
    }

    /// Publishes the load of each class.
    pub fn publish(&self) {
        let Some(limiters) = &self.0 else { return };
        for class in Class::ALL {
            let (load, class) = (limiters.of(class).queue.load(), class.as_str());
            metrics::gauge!("punchtrail_admission_working", "class" => class)
                .set(load.working as f64);
            metrics::gauge!("punchtrail_admission_waiting", "class" => class)
                .set(load.waiting as f64);
        }
        metrics::gauge!("punchtrail_admission_coming")
            .set((limiters.coming.count() + limiters.strangers.count()) as f64);
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

impl Limiters {
    fn of(&self, class: Class) -> &Limiter {
        &self.classes[class as usize]
    }

    async fn serve(
        self: &Arc<Self>,
        door: &Door,
        class: Class,
        mut request: Request,
        next: Next,
    ) -> Result<Response, Refusal> {
        let (limiter, sender) = (self.of(class), Sender::of(door, &self.hasher, &request));
        let caller = sender.hash.filter(|_| class.knows_callers()).map(Caller);
        let refuse = |(why, wait)| self.refuse(class, why, wait);
        if request.extensions().get::<Overflow>().is_some() && !class.serves_people() {
            return Err(match door.gate.knows(request.headers()) {
                true => refuse((Why::Overflow, limiter.give(caller, 0))),
                false => self.refuse_stranger(class, Why::Overflow),
            });
        }
        let standing = match class.is_of_strangers() {
            true => Standing::Stranger,
            false => match sender.standing(door, request.headers()).await? {
                Some(standing) => standing,
                None => return Err(self.refuse_stranger(class, Why::Unknown)),
            },
        };
        let whose = sender.whose(standing);
        let place = limiter.place(caller, standing);
        limiter.check(place, caller).map_err(refuse)?;
        if let Some(caller) = caller.filter(|_| place.priority() == Priority::Usual) {
            limiter.schedule().came(caller, 0, Instant::now());
        }
        let (permit, out) = (limiter.queue.admit().into(), CancellationToken::new());
        // Only what is to be read is waited for.
        let has_body = !matches!(*request.method(), Method::GET | Method::HEAD)
            && !request.body().is_end_stream();
        let crowd = if class.is_of_strangers() { &self.strangers } else { &self.coming };
        let coming =
            has_body.then(|| crowd.join((class, whose), class.coming_max(standing), out.clone()));
        let limiters = Arc::clone(self);
        let coming = Mutex::new(coming);
        let admitted =
            Arc::new(Admitted { limiters, class, caller, standing, place, permit, coming });
        if !has_body {
            admitted.wait_for_permit().await?;
        }
        request.extensions_mut().insert(Arc::clone(&admitted));
        tokio::select! {
            response = next.run(request) => Ok(response),
            () = out.cancelled() => Err(turned_out(class)),
        }
    }

    /// A device was told to come back after `wait`; in milliseconds.
    fn told(&self, wait: Duration) -> u64 {
        self.returning.within(wait);
        millis(wait)
    }

    fn refuse(&self, class: Class, why: Why, wait: Duration) -> Refusal {
        if class.knows_callers() {
            self.returning.within(wait);
        }
        refused(class, why, wait)
    }

    /// Nobody knows whether it is a device: it gets no slot, and no follower rests for it.
    fn refuse_stranger(&self, class: Class, why: Why) -> Refusal {
        refused(class, why, Duration::from_secs(rand::random_range(RETRY_AFTER_S)))
    }
}

fn refused(class: Class, why: Why, wait: Duration) -> Refusal {
    let (class, why) = (class.as_str(), why.as_str());
    metrics::counter!("punchtrail_admission_refused_total", "class" => class, "why" => why)
        .increment(1);
    Refusal::shed(wait)
}

impl Limiter {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a slot, no sooner than in `from_s` seconds: how long until then.
    fn give(&self, caller: Option<Caller>, from_s: usize) -> Duration {
        let per_second = self.queue.per_second();
        self.schedule().give(caller, from_s, per_second, rand::random(), Instant::now())
    }

    /// Which place one more request has in the queue.
    fn place(&self, caller: Option<Caller>, standing: Standing) -> InQueue {
        let usual = InQueue { wait_max: self.budget.wait_max, last: None };
        if self.queue.is_free() {
            return usual;
        }
        match caller.map(|caller| self.schedule().arrival(caller, Instant::now())) {
            Some(Arrival::Early(left)) => InQueue { last: Some((Why::Early, Some(left))), ..usual },
            _ if standing == Standing::Revoked => {
                InQueue { last: Some((Why::Revoked, None)), ..usual }
            }
            Some(Arrival::Unscheduled) => {
                InQueue { wait_max: usual.wait_max / UNSCHEDULED_SHARE, ..usual }
            }
            Some(Arrival::OnTime) | None => usual,
        }
    }

    /// That there is room for it, or why not and how long to wait.
    fn check(&self, place: InQueue, caller: Option<Caller>) -> Result<(), (Why, Duration)> {
        if self.queue.is_free() {
            return Ok(());
        }
        let load = self.queue.load();
        match place.last {
            // A few are kept at hand, so that no permit is wasted while nobody else waits.
            Some(_) if load.early < self.budget.at_once / EARLY_WAITING_SHARE => Ok(()),
            Some((why, left)) => Err((why, left.unwrap_or_else(|| self.give(caller, 0)))),
            None if load.waiting >= self.budget.waiting_max
                || self.queue.estimated_wait() > place.wait_max =>
            {
                Err((Why::Wait, self.give(caller, 0)))
            }
            None => Ok(()),
        }
    }
}

/// The place of a request in its queue.
#[derive(Debug, Clone, Copy)]
struct InQueue {
    wait_max: Duration,
    /// Behind all others: why, and how early it came.
    last: Option<(Why, Option<Duration>)>,
}

impl InQueue {
    fn priority(self) -> Priority {
        if self.last.is_some() { Priority::Early } else { Priority::Usual }
    }
}

/// Who sends a request, as far as its head tells.
struct Sender {
    visit: Option<Visit>,
    /// Of its credentials.
    hash: Option<u64>,
    place: Place,
}

impl Sender {
    fn of(door: &Door, hasher: &RandomState, request: &Request) -> Self {
        let visit = request.extensions().get::<Visit>().cloned();
        // By the token, however the header is spelled.
        let credentials = bearer(request.headers()).ok();
        Self {
            hash: credentials.map(|token| hasher.hash_one(token)),
            place: door.place_of(request),
            visit,
        }
    }

    /// What its credentials are worth; none when too many wait to be looked up.
    async fn standing(
        &self,
        door: &Door,
        headers: &HeaderMap,
    ) -> Result<Option<Standing>, Refusal> {
        door.gate.standing(headers, self.place).await
    }

    /// Whose request it is, and from now on its connection, when it is worth that much.
    fn whose(&self, standing: Standing) -> Whose {
        match self.hash {
            Some(hash) if standing != Standing::Stranger => {
                if let Some(visit) = &self.visit {
                    visit.is_of(hash, standing);
                }
                Whose::Caller(hash)
            }
            _ => Whose::Origin(self.place.0),
        }
    }
}

fn turned_out(class: Class) -> Refusal {
    match class {
        Class::Delivery => Refusal::new(
            Code::OneAtATime,
            "Another batch of this device came while this one's body was still to come. Nothing of \
             this one was taken; send it again after the answer to the other.",
        )
        .retried_after(1),
        _ => Refusal::new(
            Code::RequestTimeout,
            "Others came while this request's body was still to come. Nothing was taken; send it \
             again.",
        ),
    }
}

/// A request that was admitted. Its permit goes to the next when it is dropped.
pub struct Admitted {
    limiters: Arc<Limiters>,
    class: Class,
    caller: Option<Caller>,
    standing: Standing,
    place: InQueue,
    permit: tokio::sync::Mutex<Permit>,
    /// While its body is coming.
    coming: Mutex<Option<Member<(Class, Whose)>>>,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("class", &self.class).finish_non_exhaustive()
    }
}

/// Where admission tells callers apart.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Arc<Admitted>>().and_then(|admitted| admitted.caller))
    }
}

impl Admitted {
    /// What its sender's credentials are worth.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Its body is there: it won't have to go any more.
    pub fn has_come(&self) {
        drop(self.coming.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Puts the permit down while the request waits for something else than work.
    pub async fn put_down(&self) {
        self.permit.lock().await.put_down();
    }

    /// Waits for the permit, if it isn't held yet.
    ///
    /// # Errors
    /// Busy when others came meanwhile, or it isn't granted in a reasonable time.
    pub async fn wait_for_permit(&self) -> Result<(), Refusal> {
        self.has_come();
        let mut permit = self.permit.lock().await;
        if permit.is_held() {
            return Ok(());
        }
        let (class, limiter) = (self.class, self.limiters.of(self.class));
        let refuse = |(why, wait)| self.limiters.refuse(class, why, wait);
        limiter.check(self.place, self.caller).map_err(refuse)?;
        let (asked, wait_max) = (Instant::now(), limiter.budget.wait_max * WAIT_FACTOR);
        tokio::time::timeout(wait_max, permit.acquire(self.place.priority()))
            .await
            .map_err(|_| refuse((Why::Wait, limiter.give(self.caller, 0))))?;
        metrics::histogram!(
            "punchtrail_admission_wait_duration_seconds", "class" => class.as_str()
        )
        .record(asked.elapsed());
        Ok(())
    }
}

/// Lets a request pass whose sender has good credentials: for what is never refused otherwise.
pub async fn gated(State(door): State<Door>, request: Request, next: Next) -> Response {
    let Some(limiters) = &door.admission.0 else { return next.run(request).await };
    let sender = Sender::of(&door, &limiters.hasher, &request);
    match sender.standing(&door, request.headers()).await {
        Ok(Some(standing)) => {
            sender.whose(standing);
            next.run(request).await
        }
        Ok(None) => limiters.refuse_stranger(Class::Interactive, Why::Unknown).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Admits a request and has it served, or refuses it. When the limit on connections is near, a
/// device's ends with its answer; people keep theirs.
pub async fn admit(
    State((door, class)): State<(Door, Class)>,
    request: Request,
    next: Next,
) -> Response {
    let Some(limiters) = &door.admission.0 else { return next.run(request).await };
    let mut response = match limiters.serve(&door, class, request, next).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    if !class.serves_people() && door.connections.is_near() {
        response.extensions_mut().insert(CloseConnection);
    }
    response
}
