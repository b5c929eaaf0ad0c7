//! The schedule of a class: when those who were turned away may come back.
//!
//! A fixed `Retry-After`, or one drawn from a fixed range, brings a fleet back as the herd it came
//! as: ten thousand devices told "1 to 5 seconds" are two thousand a second, whatever the server
//! can do. Here each gets a slot within the shortest time from now in which all who were given one
//! before can be served, too. So the time to come back grows with the fleet, and shrinks as it
//! drains.
//!
//! A device that says in a heartbeat what it has to deliver gets a slot: at the moment it would
//! choose itself if there is room, else later, so that it needn't come to be turned away. One that
//! isn't done gets its next slot with its answer. Who comes early goes behind the others, and who
//! does so again, having been told, loses the slot: others may have it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How far ahead slots are given, in seconds.
const AHEAD_S: usize = 600;
/// Coming early so often loses a slot: once may be a client that doesn't know of it, and is told.
const EARLY_MAX: u32 = 2;
/// The weight of the newest arrival in the share of those that are early.
const ARRIVAL_WEIGHT: f64 = 1.0 / 256.0;
/// When such a share of those who arrive are early, many of the slots that are taken will be lost:
const EARLY_SHARE_HIGH: f64 = 0.25;
/// then nobody who hasn't come early is put off by more seconds than this.
const PUT_OFF_S: usize = 15;
/// Coming so much before the time counts as keeping it: clocks tick differently.
const SLACK: Duration = Duration::from_millis(100);
/// How long after its time a slot is remembered.
const SLOT_REMEMBERED: Duration = Duration::from_secs(60);
/// How long it is remembered what a caller has to deliver: longer than any slot is ahead.
const BACKLOG_REMEMBERED: Duration = Duration::from_secs(900);
/// Callers remembered; beyond it new ones aren't, and count as unscheduled.
const CALLERS_MAX: usize = 1 << 16;

/// Who sends a request, by a keyed hash of its credentials: nothing is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller(pub u64);

/// How a caller arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was never given a slot, or long ago, or has lost it.
    Unscheduled,
    /// At its time, or a little later.
    OnTime,
    Early(Duration),
}

/// The slots of one class.
#[derive(Debug)]
pub struct Schedule {
    start: Instant,
    /// Slots taken in each second ahead, as a ring over seconds since `start`.
    taken: Vec<u32>,
    /// The second that the ring begins with.
    first_s: usize,
    callers: HashMap<Caller, Remembered>,
    early_share: Arc<EarlyShare>,
}

/// Of those who arrived lately, in any class, the share that was early.
#[derive(Debug, Default)]
pub struct EarlyShare(Mutex<f64>);

impl EarlyShare {
    fn note(&self, arrival: Arrival) {
        let early = f64::from(u8::from(matches!(arrival, Arrival::Early(_))));
        let mut share = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *share += (early - *share) * ARRIVAL_WEIGHT;
    }

    fn is_high(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) > EARLY_SHARE_HIGH
    }
}

/// What is remembered of a caller.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    slot: Option<Slot>,
    /// What it has to deliver, by what it said and delivered since.
    backlog: u64,
    heard: Instant,
}

/// When a caller is to come.
#[derive(Debug, Clone, Copy)]
struct Slot {
    at: Instant,
    /// The second since the schedule's start in which it is counted, if it is.
    second: Option<usize>,
    /// Whether it is the moment that the caller would choose by itself.
    own: bool,
    /// How often the caller came early.
    early: u32,
}

impl Remembered {
    fn is_of_use(&self, now: Instant) -> bool {
        self.slot.is_some_and(|slot| slot.is_valid(now))
            || (self.backlog > 0 && self.heard + BACKLOG_REMEMBERED > now)
    }
}

impl Slot {
    fn new(at: Instant, second: Option<usize>) -> Self {
        Self { at, second, own: false, early: 0 }
    }

    fn is_valid(&self, now: Instant) -> bool {
        self.at + SLOT_REMEMBERED > now
    }
}

impl Schedule {
    /// An empty one.
    pub fn new(now: Instant, early_share: Arc<EarlyShare>) -> Self {
        let (taken, callers) = (vec![0; AHEAD_S], HashMap::new());
        Self { start: now, taken, first_s: 0, callers, early_share }
    }

    /// How `caller` arrives. One that is admitted has used its slot: [`Schedule::came`].
    pub fn arrival(&mut self, caller: Caller, now: Instant) -> Arrival {
        self.advance_to(now);
        let arrival = self.judge(caller, now);
        self.early_share.note(arrival);
        arrival
    }

    fn judge(&mut self, caller: Caller, now: Instant) -> Arrival {
        let slot = self.callers.get_mut(&caller).and_then(|known| known.slot.as_mut());
        let Some(slot) = slot.filter(|slot| slot.is_valid(now)) else {
            return Arrival::Unscheduled;
        };
        if slot.at > now + SLACK {
            let left = slot.at - now;
            slot.early += 1;
            if slot.early >= EARLY_MAX {
                let second = slot.second.take();
                self.free(second);
            }
            return Arrival::Early(left);
        }
        match slot.early {
            EARLY_MAX.. => Arrival::Unscheduled,
            _ => Arrival::OnTime,
        }
    }

    /// A caller came and delivered so many items, none when it was only admitted: its slot is used.
    /// Whether it has more, as far as it said.
    pub fn came(&mut self, caller: Caller, items: u64, now: Instant) -> bool {
        self.advance_to(now);
        let Some(known) = self.callers.get_mut(&caller) else { return false };
        known.backlog = known.backlog.saturating_sub(items);
        let (slot, has_more) = (known.slot.take(), known.backlog > 0);
        if !known.is_of_use(now) {
            self.callers.remove(&caller);
        }
        self.free(slot.and_then(|slot| slot.second));
        has_more
    }

    /// A caller says that it has `backlog` items to deliver, and would come `after` that by itself:
    /// how long until it should if that is later.
    pub fn announce(
        &mut self,
        caller: Caller,
        backlog: u64,
        after: Duration,
        per_second: f64,
        roll: f64,
        now: Instant,
    ) -> Option<Duration> {
        if backlog == 0 {
            self.came(caller, u64::MAX, now);
            return None;
        }
        self.advance_to(now);
        if let Some(known) = self.remember(caller, now) {
            (known.backlog, known.heard) = (backlog, now);
        }
        if let Some(held) = self.slot(caller).filter(|held| held.is_valid(now)) {
            return (!held.own && held.at > now).then(|| held.at - now);
        }
        let own_s = after.as_secs() as usize;
        let ahead_s = self.first_with_room(Some(caller), own_s, per_second)?;
        if ahead_s > own_s {
            return Some(self.assign(Some(caller), ahead_s, roll, now));
        }
        let second = self.take(ahead_s);
        self.set(Some(caller), Slot { own: true, ..Slot::new(now + after, Some(second)) }, now);
        None
    }

    /// Gives a slot, when `per_second` can be served: how long until then, `from_s` seconds at
    /// least, and never less than one. `roll`, from 0 to 1, chooses the moment.
    pub fn give(
        &mut self,
        caller: Option<Caller>,
        from_s: usize,
        per_second: f64,
        roll: f64,
        now: Instant,
    ) -> Duration {
        self.advance_to(now);
        let ahead = self.first_with_room(caller, from_s.max(1), per_second);
        // When all are full, any of them.
        let ahead_s = ahead.unwrap_or_else(|| 1 + (roll * (AHEAD_S - 1) as f64) as usize);
        self.assign(caller, ahead_s, roll, now)
    }

    /// A caller is to come then, which is not counted among the slots that are taken.
    pub fn expect(&mut self, caller: Option<Caller>, at: Instant, now: Instant) {
        self.set(caller, Slot::new(at, None), now);
    }

    /// A slot so many seconds ahead, at a moment chosen by `roll`: how long until then.
    fn assign(
        &mut self,
        caller: Option<Caller>,
        ahead_s: usize,
        roll: f64,
        now: Instant,
    ) -> Duration {
        let second = self.take(ahead_s);
        let wait = Duration::from_secs(ahead_s as u64) + Duration::from_secs_f64(roll);
        self.set(caller, Slot::new(now + wait, Some(second)), now);
        wait
    }

    /// The slot that replaces the one before, if any.
    fn set(&mut self, caller: Option<Caller>, slot: Slot, now: Instant) {
        let Some(known) = caller.and_then(|caller| self.remember(caller, now)) else { return };
        let before = known.slot.replace(slot);
        self.free(before.and_then(|before| before.second));
    }

    /// The slot that a caller has, maybe long past.
    fn slot(&self, caller: Caller) -> Option<Slot> {
        self.callers.get(&caller).and_then(|known| known.slot)
    }

    /// What is remembered of a caller; of a new one if there is room.
    fn remember(&mut self, caller: Caller, now: Instant) -> Option<&mut Remembered> {
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&caller) {
            self.callers.retain(|_, known| known.is_of_use(now));
            if self.callers.len() >= CALLERS_MAX {
                return None;
            }
        }
        let new = Remembered { slot: None, backlog: 0, heard: now };
        Some(self.callers.entry(caller).or_insert(new))
    }

    /// Takes one more so many seconds ahead; gives the second since the schedule's start.
    fn take(&mut self, ahead_s: usize) -> usize {
        let second = self.first_s + ahead_s;
        let taken = &mut self.taken[second % AHEAD_S];
        *taken = taken.saturating_add(1);
        second
    }

    /// Others may have what was taken in this second, unless it has passed.
    fn free(&mut self, second: Option<usize>) {
        if let Some(second) = second.filter(|second| *second >= self.first_s) {
            let taken = &mut self.taken[second % AHEAD_S];
            *taken = taken.saturating_sub(1);
        }
    }

    /// How many seconds ahead the first is, of those from `from_s` on, that has room for one more,
    /// or will probably.
    fn first_with_room(
        &self,
        caller: Option<Caller>,
        from_s: usize,
        per_second: f64,
    ) -> Option<usize> {
        let was_early = |caller| self.slot(caller).is_some_and(|slot| slot.early > 0);
        let favoured = caller.is_some_and(|caller| !was_early(caller));
        let last = match favoured && self.early_share.is_high() {
            true => AHEAD_S.min(from_s + PUT_OFF_S),
            false => AHEAD_S,
        };
        let until = |second: usize| (per_second.max(1.0) * second as f64).floor();
        let has_room = |ahead: &usize| {
            let second = self.first_s + ahead;
            let room = until(second + 1) - until(second);
            f64::from(self.taken[second % AHEAD_S]) < room
        };
        (from_s..last).find(has_room).or((last < AHEAD_S).then_some(last))
    }

    /// Forgets the seconds that have passed.
    fn advance_to(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs() as usize;
        let passed = second.saturating_sub(self.first_s);
        for past in 0..passed.min(AHEAD_S) {
            self.taken[(self.first_s + past) % AHEAD_S] = 0;
        }
        self.first_s = self.first_s.max(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(fleet: u64, per_second: f64) -> (Schedule, Vec<Duration>, Instant) {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, Arc::default());
        // Rolls that are spread evenly, in an order that isn't sorted.
        let rolls = (0..fleet).map(|n| (n as f64 * 0.618_034).fract());
        let waits: Vec<_> = rolls
            .zip(0..)
            .map(|(roll, n)| schedule.give(Some(Caller(n)), 0, per_second, roll, now))
            .collect();
        (schedule, waits, now)
    }

    #[test]
    fn the_time_to_come_back_grows_with_the_fleet() {
        let longest = |fleet| filled(fleet, 100.0).1.into_iter().max().unwrap().as_secs();
        assert!(longest(10) <= 2);
        // A hundred a second: ten thousand take 100 seconds.
        assert!((95..=105).contains(&longest(10_000)), "{}", longest(10_000));
    }

    #[test]
    fn no_second_is_promised_to_more_than_it_can_serve() {
        let (schedule, waits, _) = filled(7_000, 10.5);
        let in_time = 599.0 * 10.5;
        assert_eq!(schedule.taken.iter().sum::<u32>(), 7_000);
        let most = schedule.taken.iter().max().unwrap();
        // More than the schedule has room for: the rest may come at any time.
        assert!(f64::from(*most) <= 11.0 + (7_000.0 - in_time) / 599.0 + 8.0, "{most}");
        assert!(waits.iter().all(|wait| wait.as_secs() >= 1));
        let (schedule, ..) = filled(4_000, 10.5);
        assert!(schedule.taken.iter().all(|given| *given <= 11));
    }

    #[test]
    fn who_comes_before_the_time_is_early_and_who_keeps_it_is_on_time() {
        let (mut schedule, waits, now) = filled(1_000, 10.0);
        let (caller, wait) = (Caller(999), waits[999]);
        assert_eq!(schedule.arrival(caller, now), Arrival::Early(wait));
        assert_eq!(schedule.arrival(caller, now + wait - SLACK), Arrival::OnTime);
        assert_eq!(schedule.arrival(caller, now + wait + SLOT_REMEMBERED), Arrival::Unscheduled);
        assert_eq!(schedule.arrival(Caller(5_000), now), Arrival::Unscheduled);
        schedule.came(caller, 0, now);
        assert_eq!(schedule.arrival(caller, now), Arrival::Unscheduled);
    }

    #[test]
    fn who_comes_early_though_it_was_told_loses_its_slot_to_others() {
        let (mut schedule, waits, now) = filled(1_000, 10.0);
        let longest = || *waits.iter().max().unwrap();
        let early = Caller(999);
        let next = |schedule: &mut Schedule| schedule.give(None, 0, 10.0, 0.0, now);
        assert!(next(&mut schedule) >= longest() - Duration::from_secs(1));
        let wait = waits[999];
        assert_eq!(schedule.arrival(early, now), Arrival::Early(wait));
        assert!(next(&mut schedule) >= longest() - Duration::from_secs(1));
        assert_eq!(schedule.arrival(early, now), Arrival::Early(wait));
        schedule.came(Caller(0), 0, now);
        assert_eq!(next(&mut schedule).as_secs(), waits[0].as_secs());
        assert_eq!(next(&mut schedule).as_secs(), wait.as_secs());
        assert_eq!(schedule.arrival(early, now + wait), Arrival::Unscheduled);
    }

    #[test]
    fn who_announces_itself_comes_when_it_would_or_when_there_is_room() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, Arc::default());
        let minute = Duration::from_secs(60);
        let mut announce = |n: u64| {
            schedule.announce(Caller(n), 150, minute * (n % 60) as u32 / 60, 10.0, 0.5, now)
        };
        let waits: Vec<_> = (0..1_200).map(&mut announce).collect();
        // Ten a second: half of them when they would by themselves, the others in the minute after.
        assert_eq!(waits.iter().filter(|wait| wait.is_none()).count(), 600);
        let later: Vec<_> = waits.iter().flatten().map(Duration::as_secs).collect();
        assert!(later.iter().all(|wait| (60..121).contains(wait)), "{later:?}");
        let (own, deferred) = (Caller(30), Caller(1_199));
        assert_eq!(announce(1_199), waits[1_199]);
        assert_eq!(announce(30), None);
        assert_eq!(schedule.taken.iter().sum::<u32>(), 1_200);
        assert_eq!(schedule.arrival(own, now), Arrival::Early(minute / 2));
        assert_eq!(schedule.arrival(own, now + minute), Arrival::OnTime);
        assert_eq!(schedule.arrival(deferred, now), Arrival::Early(waits[1_199].unwrap()));
    }

    #[test]
    fn among_early_callers_nobody_else_is_put_off_for_long() {
        let (mut schedule, _, now) = filled(1_000, 10.0);
        let second = Duration::from_secs(1);
        let at_once =
            |schedule: &mut Schedule, n| schedule.announce(Caller(n), 150, second, 10.0, 0.0, now);
        assert!(at_once(&mut schedule, 5_000).unwrap() >= Duration::from_secs(99));
        for early in 0..100 {
            schedule.arrival(Caller(early), now);
        }
        assert_eq!(
            at_once(&mut schedule, 5_001),
            Some(second + Duration::from_secs(PUT_OFF_S as u64))
        );
        assert!(schedule.give(Some(Caller(0)), 0, 10.0, 0.0, now) >= Duration::from_secs(90));
    }

    #[test]
    fn who_said_that_it_has_more_is_known_to_have_until_it_delivered_it() {
        let now = Instant::now();
        let (mut schedule, device) = (Schedule::new(now, Arc::default()), Caller(1));
        assert!(!schedule.came(device, 120, now));
        let says = |schedule: &mut Schedule, backlog| {
            schedule.announce(device, backlog, Duration::ZERO, 1.0, 0.0, now);
        };
        says(&mut schedule, 150);
        let wait = schedule.give(Some(device), 15, 1.0, 0.0, now);
        assert_eq!(wait, Duration::from_secs(15));
        schedule.came(device, 0, now);
        assert!(schedule.came(device, 120, now));
        schedule.expect(Some(device), now + wait, now);
        assert_eq!(schedule.arrival(device, now), Arrival::Early(wait));
        assert!(!schedule.came(device, 30, now));
        says(&mut schedule, 5);
        says(&mut schedule, 0);
        assert!(schedule.callers.is_empty());
        assert!(schedule.taken.iter().all(|given| *given == 0));
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let (mut schedule, _, now) = filled(5_000, 10.0);
        let later = now + Duration::from_secs(AHEAD_S as u64 * 2);
        assert!(schedule.give(None, 0, 10.0, 0.999, later) <= Duration::from_secs(2));
    }

    #[test]
    fn a_full_schedule_goes_on_giving_slots() {
        let (mut schedule, waits, now) = filled(CALLERS_MAX as u64 + 10, 1.0);
        assert!(waits.iter().all(|wait| wait.as_secs() <= AHEAD_S as u64));
        assert_eq!(schedule.callers.len(), CALLERS_MAX);
        let later = now + Duration::from_secs(AHEAD_S as u64) + SLOT_REMEMBERED;
        schedule.expect(Some(Caller(u64::MAX)), later, later);
        assert_eq!(schedule.callers.len(), 1);
    }
}
