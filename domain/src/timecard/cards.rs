//! Cards, made of two pairings: of the accepted punches among themselves, and of all that count.
//!
//! The first gives what is settled; no doubtful punch has a part in it, so none can take from it.
//! What the second has beyond the first is what the doubtful ones would add, and what it lacks is
//! what they would take. Time that was worked by the first stays worked, and a break by the first
//! gives way only to work by the second, so no stretch of time stands on the cards twice.

use std::collections::{BTreeMap, HashSet};

use jiff::civil::Date;
use punchtrail_protocol::{PunchId, SiteId};

use super::{
    CountedAs, Mark, Rules, Segment, SegmentDoubt, SegmentKind, Timecard, TimecardPunch, Totals,
    Unmatched, UnmatchedCode,
    clocks::{Clocks, elapsed_s},
    pairing::{Alone, Pair, Paired, ordered, pair},
};

/// Pairs one person's punches, in any order and at any of the sites whose rules `rules_of` gives,
/// into one card for each business day that has a punch, in order of days.
///
/// The same punches under the same rules always give the same cards, and rules that hold from a day
/// on change no card of a day before it.
#[must_use]
pub fn timecards<'r>(
    punches: &[TimecardPunch],
    rules_of: impl Fn(SiteId) -> &'r Rules,
) -> Vec<Timecard> {
    let all = ordered(punches);
    let accepted = |punch: &&&TimecardPunch| punch.standing == CountedAs::Accepted;
    let settled: Vec<&TimecardPunch> = all.iter().filter(accepted).copied().collect();
    let sure = pair(&settled, &rules_of);
    let clocks = Clocks::of(&settled);
    let (hang, stand): (Vec<Pair<'_>>, Vec<Pair<'_>>) = sure.pairs.iter().partition(|pair| {
        [pair.opening, pair.from, pair.to].iter().any(|punch| clocks.leave_open(punch))
    });
    let mut cards = Cards::default();
    if settled.len() == all.len() && hang.is_empty() {
        stand.iter().for_each(|pair| cards.settled(pair));
        sure.alone.iter().for_each(|alone| cards.alone(alone));
        return cards.finish();
    }
    let maybe = if settled.len() == all.len() { sure.clone() } else { pair(&all, &rules_of) };
    cards.stretches(&stand, &maybe, &clocks);
    cards.unmatched(&sure, &maybe);
    cards.left_over(&all, &maybe);
    cards.finish()
}

/// Part of a stretch: from one punch to another.
type Piece<'a> = (&'a TimecardPunch, &'a TimecardPunch);

#[derive(Default)]
struct Cards {
    by_day: BTreeMap<Date, Timecard>,
    shown: HashSet<PunchId>,
}

impl Cards {
    fn stretches(&mut self, stand: &[Pair<'_>], maybe: &Paired<'_>, clocks: &Clocks<'_>) {
        let (work, would_work) =
            (of(SegmentKind::Worked, stand), of(SegmentKind::Worked, &maybe.pairs));
        let mut added = Vec::new();
        for pair in &would_work {
            for piece in beyond(pair, &work) {
                self.provisional(pair, piece, clocks);
                added.push(Pair { from: piece.0, to: piece.1, ..*pair });
            }
        }
        for pair in &work {
            self.settled(pair);
            let taken: u64 = beyond(pair, &would_work).iter().map(|(a, b)| elapsed_s(a, b)).sum();
            self.card(pair.day).totals.provisional_taken_s += taken;
        }
        let mut covered = work;
        for pair in of(SegmentKind::Break, stand) {
            if beyond(&pair, &added)[..] == [(pair.from, pair.to)] {
                self.settled(&pair);
                covered.push(pair);
            }
        }
        covered.sort_by_key(|pair| (pair.from.true_at(), pair.to.true_at()));
        for pair in of(SegmentKind::Break, &maybe.pairs) {
            for piece in beyond(&pair, &covered) {
                self.provisional(&pair, piece, clocks);
            }
        }
    }

    fn settled(&mut self, pair: &Pair<'_>) {
        self.segment(pair, (pair.from, pair.to), None);
    }

    fn provisional(&mut self, pair: &Pair<'_>, piece: Piece<'_>, clocks: &Clocks<'_>) {
        let ends = [pair.opening, pair.from, pair.to];
        let settled = ends.iter().all(|punch| punch.standing == CountedAs::Accepted);
        let hangs = settled && ends.iter().any(|punch| clocks.leave_open(punch));
        self.segment(
            pair,
            piece,
            Some(if hangs { SegmentDoubt::Clocks } else { SegmentDoubt::Punch }),
        );
    }

    fn segment(&mut self, pair: &Pair<'_>, (from, to): Piece<'_>, doubt: Option<SegmentDoubt>) {
        let counted_as = if doubt.is_some() { CountedAs::Provisional } else { CountedAs::Accepted };
        let segment = Segment {
            kind: pair.kind,
            shift: pair.opening.punch,
            from: mark(from),
            to: mark(to),
            elapsed_s: elapsed_s(from, to),
            counted_as,
            doubt,
        };
        self.shown.extend([from.punch, to.punch]);
        let card = self.card(pair.day);
        card.totals.add_segment(&segment);
        card.segments.push(segment);
    }

    fn unmatched(&mut self, sure: &Paired<'_>, maybe: &Paired<'_>) {
        let alone: HashSet<PunchId> = maybe.alone.iter().map(|alone| alone.punch.punch).collect();
        for of_it in &sure.alone {
            match maybe.days.get(&of_it.punch.punch) {
                Some(day) if !alone.contains(&of_it.punch.punch) => {
                    self.alone(&Alone {
                        day: *day,
                        code: UnmatchedCode::WaitsForDoubtful,
                        ..*of_it
                    });
                }
                _ => self.alone(of_it),
            }
        }
        let doubtful = |alone: &&Alone<'_>| alone.punch.standing == CountedAs::Provisional;
        maybe.alone.iter().filter(doubtful).for_each(|alone| self.alone(alone));
    }

    /// Every punch stands on a card.
    fn left_over(&mut self, all: &[&TimecardPunch], maybe: &Paired<'_>) {
        for punch in all {
            let Some(day) = maybe.days.get(&punch.punch).copied() else { continue };
            if !self.shown.contains(&punch.punch) {
                let code = match punch.standing {
                    CountedAs::Provisional => UnmatchedCode::WaitsForRuling,
                    CountedAs::Accepted => UnmatchedCode::WaitsForDoubtful,
                };
                self.alone(&Alone { day, code, punch, may_pair_until: None });
            }
        }
    }

    fn alone(&mut self, alone: &Alone<'_>) {
        let Alone { day, code, punch, may_pair_until } = *alone;
        let TimecardPunch { kind, standing, .. } = *punch;
        let unmatched = Unmatched { code, kind, mark: mark(punch), standing, may_pair_until };
        self.shown.insert(punch.punch);
        self.card(day).unmatched.push(unmatched);
    }

    fn card(&mut self, day: Date) -> &mut Timecard {
        self.by_day.entry(day).or_insert_with(|| Timecard {
            day,
            segments: Vec::new(),
            unmatched: Vec::new(),
            totals: Totals::default(),
        })
    }

    fn finish(self) -> Vec<Timecard> {
        let true_at = |mark: &Mark| mark.true_at.unwrap_or(mark.at);
        let mut cards: Vec<Timecard> = self.by_day.into_values().collect();
        for card in &mut cards {
            card.segments.sort_by_key(|part| (true_at(&part.from), true_at(&part.to)));
            card.unmatched.sort_by_key(|one| (true_at(&one.mark), one.mark.punch));
        }
        cards
    }
}

fn of<'a>(kind: SegmentKind, pairs: &[Pair<'a>]) -> Vec<Pair<'a>> {
    pairs.iter().filter(|pair| pair.kind == kind).copied().collect()
}

/// What of a pair no other covers; those are in order and don't overlap.
fn beyond<'a>(pair: &Pair<'a>, covers: &[Pair<'a>]) -> Vec<Piece<'a>> {
    let (start, end) = (pair.from.true_at(), pair.to.true_at());
    let first = covers.partition_point(|cover| cover.to.true_at() < start);
    let near = covers[first..].iter().take_while(|cover| cover.from.true_at() <= end);
    if start == end {
        // What has no length is whole or not there.
        return if near.count() > 0 { Vec::new() } else { vec![(pair.from, pair.to)] };
    }
    let (mut pieces, mut reached) = (Vec::new(), pair.from);
    for cover in near.filter(|cover| cover.from.true_at() < end && cover.to.true_at() > start) {
        if cover.from.true_at() > reached.true_at() {
            pieces.push((reached, cover.from));
        }
        if cover.to.true_at() > reached.true_at() {
            reached = cover.to;
        }
    }
    if end > reached.true_at() {
        pieces.push((reached, pair.to));
    }
    pieces
}

fn mark(punch: &TimecardPunch) -> Mark {
    let TimecardPunch { punch: id, effective_at: at, site, entered, ref tz, .. } = *punch;
    let true_at = Some(punch.true_at()).filter(|is| *is != at);
    Mark { punch: id, at, true_at, site, tz: tz.clone(), entered }
}
