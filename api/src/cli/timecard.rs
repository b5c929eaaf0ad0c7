//! `punchtrail timecard`: a person's worked time, day by day, from the read model that a server
//! keeps.

use clap::Args;
use jiff::{ToSpan as _, civil::Date, tz::TimeZone};
use punchtrail_domain::timecard::{self, Mark, Rules, Timecard as Card, Totals, UnmatchedCode};
use punchtrail_infra::people::{directory, moment};
use punchtrail_projections::punches::timecards::{self, PersonTimecards};

use super::{
    answer::{Answer, table},
    look::NONE,
    projection,
    source::{Need, Opened, Source},
};

/// The days shown unless others are asked for: today and those before it.
const DAYS: i64 = 7;
const SECONDS_PER_MINUTE: u64 = 60;

#[derive(Debug, Args)]
pub(super) struct Timecard {
    /// Who: a name, a badge, an external id or an id
    who: String,
    /// The first business day, like 2026-11-20; six days before the last one unless given
    #[arg(long, value_name = "DAY")]
    from: Option<Date>,
    /// The last business day; today unless given
    #[arg(long, value_name = "DAY")]
    to: Option<Date>,
}

impl Timecard {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.with(Need::Existing, async |opened| self.done(opened).await).await
    }

    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let employee = opened.employee(&self.who).await?;
        let home = moment::rules_of_home(&opened.ledger, employee).await?;
        let today = || timecard::business_day(opened.ledger.now(), &Rules::of_site(&home));
        let to = self.to.unwrap_or_else(today);
        let from = self.from.unwrap_or_else(|| to.saturating_sub((DAYS - 1).days()));
        let behind = projection::behind(opened, &timecards::RESTS_ON).await?;
        let pool = &opened.pools.reader;
        let cards = timecards::of_employee(pool, employee, from, to).await?;
        let employee_name = directory::employee_names(pool, &[employee]).await?.remove(&employee);
        let person = PersonTimecards { employee, employee_name, cards };
        Ok(Answer::new(&person, told(opened, &person, (from, to))).noting(behind))
    }
}

fn told(opened: &Opened, person: &PersonTimecards, (from, to): (Date, Date)) -> String {
    let look = opened.source.look;
    let who = person.employee_name.clone().filter(|_| !look.ids);
    let who = who.unwrap_or_else(|| person.employee.to_string());
    if person.cards.is_empty() {
        return format!("{who} has no punch on the days {from} to {to}.");
    }
    let mut rows: Vec<Vec<String>> = person.cards.iter().map(|card| row(card, look.utc)).collect();
    let total: Totals = person.cards.iter().map(|card| card.totals).sum();
    let [worked, doubtful, breaks] = sums(&total);
    let empty = String::new;
    rows.push(vec!["total".to_owned(), empty(), empty(), worked, doubtful, breaks, empty()]);
    let heading = ["day", "first", "last", "worked", "doubtful", "breaks", "not paired"];
    let clocks = if look.utc { "UTC" } else { "the clock where they punched" };
    format!("{who}, {from} to {to}, by {clocks}\n\n{}", table(&heading, &rows))
}

fn row(card: &Card, utc: bool) -> Vec<String> {
    let clock = |mark: Option<&Mark>| {
        let Some(mark) = mark else { return NONE.to_owned() };
        let zone = TimeZone::get(&mark.tz).ok().filter(|_| !utc).unwrap_or(TimeZone::UTC);
        mark.at.timestamp().to_zoned(zone).strftime("%H:%M").to_string()
    };
    let unmatched: Vec<&str> = card.unmatched.iter().map(|one| in_words(one.code)).collect();
    let [worked, doubtful, breaks] = sums(&card.totals);
    vec![
        card.day.strftime("%a %-d %b").to_string(),
        clock(card.segments.first().map(|segment| &segment.from)),
        clock(card.segments.last().map(|segment| &segment.to)),
        worked,
        doubtful,
        breaks,
        if unmatched.is_empty() { NONE.to_owned() } else { unmatched.join(", ") },
    ]
}

/// Worked, doubtful, breaks.
fn sums(totals: &Totals) -> [String; 3] {
    [hours(totals.worked_accepted_s), doubtful(totals), hours(totals.break_s)]
}

/// What the doubtful punches would add, and take.
fn doubtful(totals: &Totals) -> String {
    match (totals.worked_provisional_s, totals.provisional_taken_s) {
        (added, 0) => hours(added),
        (0, taken) => format!("-{}", hours(taken)),
        (added, taken) => format!("{} -{}", hours(added), hours(taken)),
    }
}

const fn in_words(code: UnmatchedCode) -> &'static str {
    match code {
        UnmatchedCode::InWithoutOut => "in without out",
        UnmatchedCode::OutWithoutIn => "out without in",
        UnmatchedCode::BreakWithoutShift => "break without shift",
        UnmatchedCode::BreakNotEnded => "break not ended",
        UnmatchedCode::BreakNotStarted => "break not started",
        UnmatchedCode::DoubleIn => "double in",
        UnmatchedCode::DoubleOut => "double out",
        UnmatchedCode::DoubleBreakStart => "double break start",
        UnmatchedCode::DoubleBreakEnd => "double break end",
        UnmatchedCode::WaitsForDoubtful => "waits for doubtful",
        UnmatchedCode::WaitsForRuling => "waits for ruling",
    }
}

fn hours(seconds: u64) -> String {
    match seconds / SECONDS_PER_MINUTE {
        0 => NONE.to_owned(),
        minutes => format!("{}:{:02}", minutes / 60, minutes % 60),
    }
}
