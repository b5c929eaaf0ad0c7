//! The appointment book of a class: when those who were turned away may come back.
//!
//! A fixed `Retry-After`, or one drawn from a fixed range, brings a fleet back as the herd it came as: ten
//! thousand devices told "1 to 5 seconds" are two thousand a second, whatever the server can do. Here
//! each gets a moment within the shortest time from now in which all who were given one before can be
//! served, too. So the time to come back grows with the fleet, and shrinks as it drains.
//!
//! The book remembers devices by a keyed hash of their credentials: who comes before the time that was
//! given goes behind those who kept theirs.

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
/// Callers remembered; beyond it new ones aren't, and count as unannounced.
const CALLERS_MAX: usize = 1 << 16;

/// Who calls, as far as the book tells callers apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller(pub u64);

/// Whether a caller comes when it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// At its time or later, or it was never given one.
    Expected,
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
    callers: HashMap<Caller, Instant>,
}

impl Book {
    /// An empty one.
    pub fn new(now: Instant) -> Self {
        Self { start: now, seconds: vec![0; AHEAD_S], first_s: 0, callers: HashMap::new() }
    }

    /// Whether `caller` comes when it should. One that is let in is forgotten with [`Book::came`].
    pub fn arrival(&self, caller: Caller, now: Instant) -> Arrival {
        match self.callers.get(&caller) {
            Some(at) if *at > now + SLACK => Arrival::Early(*at - now),
            _ => Arrival::Expected,
        }
    }

    /// Crosses out a caller's appointment.
    pub fn came(&mut self, caller: Caller) {
        self.callers.remove(&caller);
    }

    /// Gives an appointment, when `per_second` can be served: how long until then, a second at least.
    /// `roll`, from 0 to 1, chooses the moment.
    pub fn give(
        &mut self,
        caller: Option<Caller>,
        per_second: f64,
        roll: f64,
        now: Instant,
    ) -> Duration {
        self.turn_to(now);
        let ahead = self.first_with_room(per_second.max(1.0));
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
        let Some(caller) = caller else { return };
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&caller) {
            self.callers.retain(|_, at| *at + REMEMBERED > now);
        }
        if self.callers.len() < CALLERS_MAX {
            self.callers.insert(caller, at);
        }
    }

    /// How many seconds ahead the first is that has room for one more.
    fn first_with_room(&self, per_second: f64) -> Option<usize> {
        let until = |second: usize| (per_second * second as f64).floor();
        (1..AHEAD_S).find(|ahead| {
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
            .map(|(roll, n)| book.give(Some(Caller(n)), per_second, roll, now))
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
    fn who_comes_before_the_time_is_early_and_who_keeps_it_is_expected() {
        let (mut book, waits, now) = filled(1_000, 10.0);
        let (caller, wait) = (Caller(999), waits[999]);
        assert_eq!(book.arrival(caller, now), Arrival::Early(wait));
        assert_eq!(book.arrival(caller, now + wait - SLACK), Arrival::Expected);
        assert_eq!(book.arrival(Caller(5_000), now), Arrival::Expected);
        book.came(caller);
        assert_eq!(book.arrival(caller, now), Arrival::Expected);
    }

    #[test]
    fn what_has_passed_is_forgotten() {
        let (mut book, _, now) = filled(5_000, 10.0);
        let later = now + Duration::from_secs(AHEAD_S as u64 * 2);
        assert!(book.give(None, 10.0, 0.999, later) <= Duration::from_secs(2));
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
