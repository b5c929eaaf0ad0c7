//! The appointment book of a class: when those who were turned away may come back.
//!
//! A fixed `Retry-After`, or one drawn from a fixed range, brings a fleet back as the herd it came as: ten
//! thousand devices told "1 to 5 seconds" are two thousand a second, whatever the server can do. Here
//! each gets a moment within the shortest time from now in which all who were given one before can be
//! served, too. So the time to come back grows with the fleet, and shrinks as it drains.
//!
//! The book remembers devices by a keyed hash of their credentials. A heartbeat says what a device has to
//! deliver, and gets it a place: at the moment it would choose itself if there is room, else later, so that it
//! needn't come to be turned away. One that isn't done gets its next appointment with its answer. Who comes
//! before the time that was given goes behind those who kept theirs, and who does so again, having been told,
//! loses the place: others may have it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How far ahead appointments are given, in seconds.
const AHEAD_S: usize = 600;
/// Coming early so often loses an appointment: once may be a client that doesn't know of it, which is told so.
const EARLY_MAX: u32 = 2;
/// The weight of the newest arrival in the share of those that come early.
const ARRIVAL_WEIGHT: f64 = 1.0 / 256.0;
/// When such a share of those who arrive come early, many of the places that are taken will be lost:
const DEAF_SHARE: f64 = 0.25;
/// then nobody who hasn't come early is put off by more seconds than this.
const PUT_OFF_S: usize = 15;
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
    deafness: Arc<Deafness>,
}

/// Of those who arrived lately at any desk, the share that came before the time they were given.
#[derive(Debug, Default)]
pub struct Deafness(Mutex<f64>);

impl Deafness {
    fn note(&self, arrival: Arrival) {
        let early = f64::from(u8::from(matches!(arrival, Arrival::Early(_))));
        let mut share = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *share += (early - *share) * ARRIVAL_WEIGHT;
    }

    fn is_common(&self) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) > DEAF_SHARE
    }
}

/// What is known of a caller.
#[derive(Debug, Clone, Copy)]
struct Known {
    appointment: Option<Appointment>,
    /// What it has to deliver, by what it said and delivered since.
    backlog: u64,
    heard: Instant,
}

/// When a caller is to come.
#[derive(Debug, Clone, Copy)]
struct Appointment {
    /// From then on
    from: Instant,
    /// until then.
    until: Instant,
    /// The second since the book's start that it is counted in, if it is.
    second: Option<usize>,
    /// Whether it is the moment that the caller would choose by itself.
    own: bool,
    /// How often it came before its time.
    early: u32,
}

impl Known {
    fn new(now: Instant) -> Self {
        Self { appointment: None, backlog: 0, heard: now }
    }

    fn is_of_use(&self, now: Instant) -> bool {
        self.appointment.is_some_and(|appointment| appointment.until > now)
            || (self.backlog > 0 && self.heard + BACKLOG_REMEMBERED > now)
    }
}

impl Appointment {
    fn at(from: Instant, second: Option<usize>) -> Self {
        Self { from, until: from + REMEMBERED, second, own: false, early: 0 }
    }
}

impl Book {
    /// An empty one.
    pub fn new(now: Instant, deafness: Arc<Deafness>) -> Self {
        let (seconds, callers) = (vec![0; AHEAD_S], HashMap::new());
        Self { start: now, seconds, first_s: 0, callers, deafness }
    }

    /// How `caller` comes. One that is let in is crossed out with [`Book::came`].
    pub fn arrival(&mut self, caller: Caller, now: Instant) -> Arrival {
        self.turn_to(now);
        let arrival = self.judge(caller, now);
        self.deafness.note(arrival);
        arrival
    }

    fn judge(&mut self, caller: Caller, now: Instant) -> Arrival {
        let known = self.callers.get_mut(&caller).and_then(|known| known.appointment.as_mut());
        let Some(appointment) = known.filter(|appointment| appointment.until > now) else {
            return Arrival::Unannounced;
        };
        if appointment.from > now + SLACK {
            let left = appointment.from - now;
            appointment.early += 1;
            if appointment.early >= EARLY_MAX {
                let place = appointment.second.take();
                self.give_up(place);
            }
            return Arrival::Early(left);
        }
        match appointment.early {
            EARLY_MAX.. => Arrival::Unannounced,
            _ => Arrival::Kept,
        }
    }

    /// Whether `caller` came before the time of the appointment it has.
    fn was_early(&self, caller: Caller) -> bool {
        let appointment = self.callers.get(&caller).and_then(|known| known.appointment);
        appointment.is_some_and(|appointment| appointment.early > 0)
    }

    /// Crosses out a caller's appointment.
    pub fn came(&mut self, caller: Caller, now: Instant) {
        self.turn_to(now);
        self.cross_out(caller);
        self.forget_if_of_no_use(caller, now);
    }

    /// Notes that a caller has so much to deliver. With nothing it needs no place.
    pub fn says(&mut self, caller: Caller, backlog: u64, now: Instant) {
        self.turn_to(now);
        if backlog == 0 {
            self.cross_out(caller);
        }
        let Some(known) = self.known(caller, now) else { return };
        (known.backlog, known.heard) = (backlog, now);
        self.forget_if_of_no_use(caller, now);
    }

    /// A caller that said what it has to deliver would come `after` that by itself: how long until it should
    /// if that is later.
    pub fn announce(
        &mut self,
        caller: Caller,
        after: Duration,
        per_second: f64,
        roll: f64,
        now: Instant,
    ) -> Option<Duration> {
        self.turn_to(now);
        let held = self.callers.get(&caller).and_then(|known| known.appointment);
        if let Some(held) = held.filter(|held| held.until > now) {
            return (!held.own && held.from > now).then(|| held.from - now);
        }
        let own_s = after.as_secs() as usize;
        let ahead_s = self.first_with_room(Some(caller), own_s, per_second)?;
        if ahead_s > own_s {
            return Some(self.note(Some(caller), ahead_s, roll, now));
        }
        let second = self.count(ahead_s);
        let own = Appointment { own: true, ..Appointment::at(now + after, Some(second)) };
        self.set(Some(caller), own, now);
        None
    }

    /// A caller delivered so much: whether it has more, as far as it said. Its appointment is done with.
    pub fn delivered(&mut self, caller: Caller, items: u64, now: Instant) -> bool {
        self.turn_to(now);
        self.cross_out(caller);
        let Some(known) = self.callers.get_mut(&caller) else { return false };
        known.backlog = known.backlog.saturating_sub(items);
        let has_more = known.backlog > 0;
        self.forget_if_of_no_use(caller, now);
        has_more
    }

    fn forget_if_of_no_use(&mut self, caller: Caller, now: Instant) {
        if self.callers.get(&caller).is_some_and(|known| !known.is_of_use(now)) {
            self.callers.remove(&caller);
        }
    }

    fn cross_out(&mut self, caller: Caller) {
        let known = self.callers.get_mut(&caller);
        let place = known.and_then(|known| known.appointment.take()?.second);
        self.give_up(place);
    }

    /// Others may have this place, unless its time has passed.
    fn give_up(&mut self, second: Option<usize>) {
        if let Some(second) = second.filter(|second| *second >= self.first_s) {
            let slot = &mut self.seconds[second % AHEAD_S];
            *slot = slot.saturating_sub(1);
        }
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
        let ahead = self.first_with_room(caller, from_s.max(1), per_second);
        // When all are full, any of them.
        let ahead_s = ahead.unwrap_or_else(|| 1 + (roll * (AHEAD_S - 1) as f64) as usize);
        self.note(caller, ahead_s, roll, now)
    }

    /// Notes when a caller is to come, without counting it among the appointments.
    pub fn expect(&mut self, caller: Option<Caller>, at: Instant, now: Instant) {
        self.set(caller, Appointment::at(at, None), now);
    }

    /// Notes an appointment so many seconds ahead, at a moment chosen by `roll`: how long until then.
    fn note(
        &mut self,
        caller: Option<Caller>,
        ahead_s: usize,
        roll: f64,
        now: Instant,
    ) -> Duration {
        let second = self.count(ahead_s);
        let wait = Duration::from_secs(ahead_s as u64) + Duration::from_secs_f64(roll);
        self.set(caller, Appointment::at(now + wait, Some(second)), now);
        wait
    }

    /// Counts one more so many seconds ahead; gives the second since the book's start.
    fn count(&mut self, ahead_s: usize) -> usize {
        let second = self.first_s + ahead_s;
        let slot = &mut self.seconds[second % AHEAD_S];
        *slot = slot.saturating_add(1);
        second
    }

    /// The one before, if any, is crossed out.
    fn set(&mut self, caller: Option<Caller>, appointment: Appointment, now: Instant) {
        let Some(known) = caller.and_then(|caller| self.known(caller, now)) else { return };
        let before = known.appointment.replace(appointment);
        self.give_up(before.and_then(|before| before.second));
    }

    /// How many seconds ahead the first is, of those from `from_s` on, that has room for one more, or will
    /// probably.
    fn first_with_room(
        &self,
        caller: Option<Caller>,
        from_s: usize,
        per_second: f64,
    ) -> Option<usize> {
        let favoured = caller.is_some_and(|caller| !self.was_early(caller));
        let last = match favoured && self.deafness.is_common() {
            true => AHEAD_S.min(from_s + PUT_OFF_S),
            false => AHEAD_S,
        };
        let until = |second: usize| (per_second.max(1.0) * second as f64).floor();
        let has_room = |ahead: &usize| {
            let second = self.first_s + ahead;
            let room = until(second + 1) - until(second);
            f64::from(self.seconds[second % AHEAD_S]) < room
        };
        (from_s..last).find(has_room).or((last < AHEAD_S).then_some(last))
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
        let mut book = Book::new(now, Arc::default());
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
        book.came(caller, now);
        assert_eq!(book.arrival(caller, now), Arrival::Unannounced);
    }

    #[test]
    fn who_comes_early_though_it_was_told_loses_its_place_to_others() {
        let (mut book, waits, now) = filled(1_000, 10.0);
        let longest = || *waits.iter().max().unwrap();
        let deaf = Caller(999);
        let next = |book: &mut Book| book.give(None, 0, 10.0, 0.0, now);
        assert!(next(&mut book) >= longest() - Duration::from_secs(1));
        let wait = waits[999];
        assert_eq!(book.arrival(deaf, now), Arrival::Early(wait));
        assert!(next(&mut book) >= longest() - Duration::from_secs(1));
        assert_eq!(book.arrival(deaf, now), Arrival::Early(wait));
        let early = Caller(0);
        book.came(early, now);
        assert_eq!(next(&mut book).as_secs(), waits[0].as_secs());
        assert_eq!(next(&mut book).as_secs(), wait.as_secs());
        assert_eq!(book.arrival(deaf, now + wait), Arrival::Unannounced);
    }

    #[test]
    fn who_announces_itself_comes_when_it_would_or_when_there_is_room() {
        let now = Instant::now();
        let mut book = Book::new(now, Arc::default());
        let minute = Duration::from_secs(60);
        let mut announce = |n: u64| {
            book.says(Caller(n), 150, now);
            book.announce(Caller(n), minute * (n % 60) as u32 / 60, 10.0, 0.5, now)
        };
        let waits: Vec<_> = (0..1_200).map(&mut announce).collect();
        // Ten a second: half of them when they would by themselves, the others in the minute after.
        assert_eq!(waits.iter().filter(|wait| wait.is_none()).count(), 600);
        let later: Vec<_> = waits.iter().flatten().map(Duration::as_secs).collect();
        assert!(later.iter().all(|wait| (60..121).contains(wait)), "{later:?}");
        let (own, deferred) = (Caller(30), Caller(1_199));
        assert_eq!(announce(1_199), waits[1_199]);
        assert_eq!(announce(30), None);
        assert_eq!(book.seconds.iter().sum::<u32>(), 1_200);
        assert_eq!(book.arrival(own, now), Arrival::Early(minute / 2));
        assert_eq!(book.arrival(own, now + minute), Arrival::Kept);
        assert_eq!(book.arrival(deferred, now), Arrival::Early(waits[1_199].unwrap()));
    }

    #[test]
    fn among_the_deaf_nobody_is_put_off_for_long() {
        let (mut book, _, now) = filled(1_000, 10.0);
        let second = Duration::from_secs(1);
        let at_once = |book: &mut Book, n| book.announce(Caller(n), second, 10.0, 0.0, now);
        assert!(at_once(&mut book, 5_000).unwrap() >= Duration::from_secs(99));
        for deaf in 0..100 {
            book.arrival(Caller(deaf), now);
        }
        assert_eq!(at_once(&mut book, 5_001), Some(second + Duration::from_secs(PUT_OFF_S as u64)));
        assert!(book.give(Some(Caller(0)), 0, 10.0, 0.0, now) >= Duration::from_secs(90));
    }

    #[test]
    fn who_said_that_it_has_more_is_known_to_have_until_it_delivered_it() {
        let now = Instant::now();
        let (mut book, device) = (Book::new(now, Arc::default()), Caller(1));
        assert!(!book.delivered(device, 120, now));
        book.says(device, 150, now);
        let wait = book.give(Some(device), 15, 1.0, 0.0, now);
        assert_eq!(wait, Duration::from_secs(15));
        book.came(device, now);
        assert!(book.delivered(device, 120, now));
        book.expect(Some(device), now + wait, now);
        assert_eq!(book.arrival(device, now), Arrival::Early(wait));
        assert!(!book.delivered(device, 30, now));
        book.says(device, 5, now);
        book.says(device, 0, now);
        assert!(book.callers.is_empty());
        assert!(book.seconds.iter().all(|given| *given == 0));
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
