//! Whatever is ruled, and whenever a picture or a punch comes: a person's cards are those that the
//! events make in the end.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use common::{History, NOON_MS, judge, settle, start};
use jiff::tz::TimeZone;
use punchtrail_domain::{
    punch::{Origin, Punch},
    site::Site,
    timecard::{CountedAs, Rules, TimecardPunch, timecards},
};
use punchtrail_infra::{ledger::load, testing::world::World};
use punchtrail_projections::punches::timecards::of_employee;
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, vocabulary::Standing};

/// Each person's punches that count, and how sites pair them, from the events alone.
struct FromEvents {
    punches: BTreeMap<EmployeeId, Vec<TimecardPunch>>,
    rules: BTreeMap<SiteId, Rules>,
}

impl FromEvents {
    async fn read(world: &World, punches: &[PunchId]) -> Self {
        let mut read = Self { punches: BTreeMap::new(), rules: BTreeMap::new() };
        let ids: Vec<String> = punches.iter().map(ToString::to_string).collect();
        for (id, loaded) in load::<Punch>(world.ledger.pool(), &ids).await.unwrap() {
            let punch = loaded.aggregate;
            let (site, captured, tz) = match punch.origin().unwrap() {
                Origin::Captured { capture, .. } => {
                    (capture.site, Some(capture.captured_at), Some(capture.tz.clone()))
                }
                Origin::Admitted { site, .. } | Origin::Entered { site, .. } => (*site, None, None),
            };
            read.know(world, site).await;
            let counts = punch.standing().counts() && !punch.is_nobodys();
            let (Some(employee), true) = (punch.employee(), counts) else {
                continue;
            };
            let (effective_at, kind) = punch.effective().unwrap();
            let standing = match punch.standing() {
                Standing::Accepted => CountedAs::Accepted,
                _ => CountedAs::Provisional,
            };
            let as_shown = captured == Some(effective_at);
            let clock = punch.synced().and_then(|(_, _, clock)| clock.offset_ms());
            let zone = read.rules[&site].at(effective_at).zone.clone();
            let one = TimecardPunch {
                punch: id.parse().unwrap(),
                kind,
                effective_at,
                lead_ms: if as_shown { clock } else { Some(0) },
                standing,
                site,
                tz: tz.unwrap_or_else(|| zone.iana_name().unwrap_or("Etc/UTC").to_owned()),
                joined: punch.joined(),
                entered: matches!(punch.origin(), Some(Origin::Entered { .. })),
            };
            read.punches.entry(employee).or_default().push(one);
        }
        read
    }

    async fn know(&mut self, world: &World, site: SiteId) {
        let loaded = world.ledger.load::<Site>(&site.to_string()).await.unwrap().aggregate;
        self.rules.insert(site, Rules::of_site(loaded.rules()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_are_what_the_events_make_of_them_in_the_end() {
    for seed in 11..=14 {
        let mut history = History::new(seed).await;
        let running = start(&history.world).await;
        history.steps(160).await;
        judge(&history.world).await;
        settle(&history.world, &running).await;
        let (people, punches) = history.whose();
        let from_events = FromEvents::read(&history.world, punches).await;
        let pool = &history.world.pools.reader;
        let noon = Time::from_millis(NOON_MS).timestamp().to_zoned(TimeZone::UTC).date();
        let (mut compared, mut first) = (0, noon.yesterday().unwrap());
        let end = noon.checked_add(jiff::Span::new().days(180)).unwrap();
        while first < end {
            let last = first.checked_add(jiff::Span::new().days(60)).unwrap();
            for employee in people {
                let live = of_employee(pool, *employee, first, last).await.unwrap();
                let punches = from_events.punches.get(employee).cloned().unwrap_or_default();
                let mut made = timecards(&punches, |site| &from_events.rules[&site]);
                made.retain(|card| (first..=last).contains(&card.day));
                assert_eq!(live, made, "seed {seed}, {employee}, from {first}");
                compared += made.len();
            }
            first = last.tomorrow().unwrap();
        }
        assert!(compared > 0, "seed {seed} has cards");
        running.stop().await;
        history.world.close().await;
    }
}
