//! The appointment book of a class: when those who were turned away may come back.
//!
//! A fixed `Retry-After`, or one drawn from a fixed range, brings a fleet back as the herd it came as: ten
//! thousand devices told "1 to 5 seconds" are two thousand a second, whatever the server can do. Here
//! each gets a moment within the shortest time from now in which all who were given one before can be
//! served, too. So the time to come back grows with the fleet, and shrinks as it drains.
//!
//! The book remembers devices by a keyed hash of their credentials: who comes before the time that was
//! given goes behind those who kept theirs. It also knows what they said they have to deliver, so that one
//! that isn't done gets its next appointment with its answer, and needn't come to be turned away for it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How far ahead appointments are given, in seconds.
const AHEAD_S: usize = 600;
/// Coming so much before the time counts as keeping it: clocks tick differently.
const SLACK: Duration = Duration::from_millis(100);
/// How long after its time an appointment is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long it is remembered what a caller has to deliver: longer than any appointment is ahead.
const BACKLOG_REMEMBERED: Duration = Duration::from_secs(900);
/// Callers remembered; beyond it new ones aren't, and count as unannounced.
const CALLERS_MAX: usize = 1 << 16;

/// Who calls, as far as the book tells callers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller(pub u64);

/// How a caller comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was never given a time, or long ago.
    Unannounced,
    /// At its time, or a little later.
    Kept,
    /// So long before its time.
    Early(Duration),
}

/// Appointments of one class.
#[derive(Debug)]
pub struct Book {
    start: Instant,
    /// Appointments in each second ahead, as a ring over seconds since `start`.
    seconds: Vec<u32>,
    /// The second that the ring begins with.
    first_s: usize,
    callers: HashMap<Caller, Known>,
}

/// What is known of a caller.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// When it is to come, unless it came.
    at: Option<Instant>,
    /// What it has to deliver, by what it said and delivered since.
    backlog: u64,
    heard: Instant,
}

impl Known {
    fn new(now: Instant) -> Self {
        Self { at: None, backlog: 0, heard: now }
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at + REMEMBERED > now)
            || (self.backlog > 0 && self.heard + BACKLOG_REMEMBERED > now)
    }
}

impl Book {
    /// An empty one.
    pub fn new(now: Instant) -> Self {
        Self { start: now, seconds: vec![0; AHEAD_S], first_s: 0, callers: HashMap::new() }
    }

    /// How `caller` comes. One that is let in is crossed out with [`Book::came`].
    pub fn arrival(&self, caller: Caller, now: Instant) -> Arrival {
        match self.callers.get(&caller).and_then(|known| known.at) {
            Some(at) if at > now + SLACK => Arrival::Early(at - now),
            Some(at) if at + REMEMBERED > now => Arrival::Kept,
            _ => Arrival::Unannounced,
        }
    }

    /// Crosses out a caller's appointment.
    pub fn came(&mut self, caller: Caller) {
        let Some(known) = self.callers.get_mut(&caller) else { return };
        known.at = None;
        if known.backlog == 0 {
            self.callers.remove(&caller);
        }
    }

    /// Notes that a caller has so much to deliver.
    pub fn says(&mut self, caller: Caller, backlog: u64, now: Instant) {
        let Some(known) = self.known(caller, now) else { return };
        (known.backlog, known.heard) = (backlog, now);
        if !known.is_of_use(now) {
            self.callers.remove(&caller);
        }
    }

    /// A caller delivered so much: whether it has more, as far as it said.
    pub fn delivered(&mut self, caller: Caller, items: u64) -> bool {
        let Some(known) = self.callers.get_mut(&caller) else { return false };
        known.backlog = known.backlog.saturating_sub(items);
        let has_more = known.backlog > 0;
        if !has_more && known.at.is_none() {
            self.callers.remove(&caller);
        }
        has_more
    }

    /// The entry of a caller, a new one if there is room.
    fn known(&mut self, caller: Caller, now: Instant) -> Option<&mut Known> {
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&caller) {
            self.callers.retain(|_, known| known.is_of_use(now));
            if self.callers.len() >= CALLERS_MAX {
                return None;
            }
        }
        Some(self.callers.entry(caller).or_insert_with(|| Known::new(now)))
    }

    /// Gives an appointment, when `per_second` can be served: how long until then, `from_s` seconds at
    /// least, and never less than one. `roll`, from 0 to 1, chooses the moment.
    pub fn give(
        &mut self,
        caller: Option<Caller>,
        from_s: usize,
        per_second: f64,
        roll: f64,
        now: Instant,
    ) -> Duration {
        self.turn_to(now);
        let ahead = self.first_with_room(from_s.max(1), per_second.max(1.0));
        // When all are full, any of them.
        let ahead_s = ahead.unwrap_or_else(|| 1 + (roll * (AHEAD_S - 1) as f64) as usize);
        let slot = &mut self.seconds[(self.first_s + ahead_s) % AHEAD_S];
        *slot = slot.saturating_add(1);
        let wait = Duration::from_secs(ahead_s as u64) + Duration::from_secs_f64(roll);
        self.expect(caller, now + wait, now);
        wait
    }

    /// Notes when a caller is to come, without counting it among the appointments.
    pub fn expect(&mut self, caller: Option<Caller>, at: Instant, now: Instant) {
        if let Some(known) = caller.and_then(|caller| self.known(caller, now)) {
            known.at = Some(at);
        }
    }

    /// How many seconds ahead the first is, of those from `from_s` on, that has room for one more.
    fn first_with_room(&self, from_s: usize, per_second: f64) -> Option<usize> {
        let until = |second: usize| (per_second * second as f64).floor();
        (from_s..AHEAD_S).find(|ahead| {
            let second = self.first_s + ahead;
            let room = until(second + 1) - until(second);
            f64::from(self.seconds[second % AHEAD_S]) < room
        })
    }

    /// Forgets the seconds that have passed.
    fn turn_to(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs() as usize;
        let passed = second.saturating_sub(self.first_s);
        for past in 0..passed.min(AHEAD_S) {
            self.seconds[(self.first_s + past) % AHEAD_S] = 0;
        }
        self.first_s = self.first_s.max(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(fleet: u64, per_second: f64) -> (Book, Vec<Duration>, Instant) {
        let now = Instant::now();
        let mut book = Book::new(now);
        // Rolls that are spread evenly, in an order that isn't sorted.
        let rolls = (0..fleet).map(|n| (n as f64 * 0.618_034).fract());
        let waits: Vec<_> = rolls
            .zip(0..)
            .map(|(roll, n)| book.give(Some(Caller(n)), 0, per_second, roll, now))
            .collect();
        (book, waits, now)
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
        let (book, waits, _) = filled(7_000, 10.5);
        let in_time = 599.0 * 10.5;
        assert_eq!(book.seconds.iter().sum::<u32>(), 7_000);
        let most = book.seconds.iter().max().unwrap();
        // More than the book has room for: the rest may come at any time.
        assert!(f64::from(*most) <= 11.0 + (7_000.0 - in_time) / 599.0 + 8.0, "{most}");
        assert!(waits.iter().all(|wait| wait.as_secs() >= 1));
        let (book, ..) = filled(4_000, 10.5);
        assert!(book.seconds.iter().all(|given| *given <= 11));
    }

    #[test]
    fn who_comes_before_the_time_is_early_and_who_keeps_it_has_kept_it() {
        let (mut book, waits, now) = filled(1_000, 10.0);
        let (caller, wait) = (Caller(999), waits[999]);
        assert_eq!(book.arrival(caller, now), Arrival::Early(wait));
        assert_eq!(book.arrival(caller, now + wait - SLACK), Arrival::Kept);
        assert_eq!(book.arrival(caller, now + wait + REMEMBERED), Arrival::Unannounced);
        assert_eq!(book.arrival(Caller(5_000), now), Arrival::Unannounced);
        book.came(caller);
        assert_eq!(book.arrival(caller, now), Arrival::Unannounced);
    }

    #[test]
    fn who_said_that_it_has_more_is_known_to_have_until_it_delivered_it() {
        let now = Instant::now();
        let (mut book, device) = (Book::new(now), Caller(1));
        assert!(!book.delivered(device, 120));
        book.says(device, 150, now);
        let wait = book.give(Some(device), 15, 1.0, 0.0, now);
        assert_eq!(wait, Duration::from_secs(15));
        book.came(device);
        assert!(book.delivered(device, 120));
        book.expect(Some(device), now + wait, now);
        assert_eq!(book.arrival(device, now), Arrival::Early(wait));
        assert!(!book.delivered(device, 30));
        book.came(device);
        book.says(device, 5, now);
        book.says(device, 0, now);
        assert!(book.callers.is_empty());
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let (mut book, _, now) = filled(5_000, 10.0);
        let later = now + Duration::from_secs(AHEAD_S as u64 * 2);
        assert!(book.give(None, 0, 10.0, 0.999, later) <= Duration::from_secs(2));
    }

    #[test]
    fn a_full_book_goes_on_giving_appointments() {
        let (mut book, waits, now) = filled(CALLERS_MAX as u64 + 10, 1.0);
        assert!(waits.iter().all(|wait| wait.as_secs() <= AHEAD_S as u64));
        assert_eq!(book.callers.len(), CALLERS_MAX);
        let later = now + Duration::from_secs(AHEAD_S as u64) + REMEMBERED;
        book.expect(Some(Caller(u64::MAX)), later, later);
        assert_eq!(book.callers.len(), 1);
    }
}
