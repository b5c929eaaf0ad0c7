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
    timecard::{CountedAs, TimecardPolicy, TimecardPunch, timecards},
};
use punchtrail_infra::{ledger::load, testing::world::World};
use punchtrail_projections::punches::timecards::of_employee;
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, vocabulary::Standing};

/// Each person's punches that count, and how sites pair them, from the events alone.
struct FromEvents {
    punches: BTreeMap<EmployeeId, Vec<TimecardPunch>>,
    policies: BTreeMap<SiteId, TimecardPolicy>,
}

impl FromEvents {
    async fn read(world: &World, punches: &[PunchId]) -> Self {
        let mut read = Self { punches: BTreeMap::new(), policies: BTreeMap::new() };
        let ids: Vec<String> = punches.iter().map(ToString::to_string).collect();
        for (id, loaded) in load::<Punch>(world.ledger.pool(), &ids).await.unwrap() {
            let punch = loaded.aggregate;
            let (site, tz) = match punch.origin().unwrap() {
                Origin::Captured { capture, .. } => (capture.site, Some(capture.tz.clone())),
                Origin::Admitted { site, .. } | Origin::Entered { site, .. } => (*site, None),
            };
            let tz = match tz {
                Some(tz) => tz,
                None => read.zone(world, site).await,
            };
            read.zone(world, site).await;
            let (Some(employee), true) = (punch.employee(), punch.standing().counts()) else {
                continue;
            };
            let (effective_at, kind) = punch.effective().unwrap();
            let standing = match punch.standing() {
                Standing::Accepted => CountedAs::Accepted,
                _ => CountedAs::Provisional,
            };
            let punch = id.parse().unwrap();
            let one = TimecardPunch { punch, kind, effective_at, standing, site, tz };
            read.punches.entry(employee).or_default().push(one);
        }
        read
    }

    /// A site's zone; its policy is known from then on.
    async fn zone(&mut self, world: &World, site: SiteId) -> String {
        let loaded = world.ledger.load::<Site>(&site.to_string()).await.unwrap().aggregate;
        let rules = loaded.rules();
        let tz = rules.zone_at(Time::default()).unwrap_or("Etc/UTC").to_owned();
        let policy = rules.policy_at(Time::default());
        let policy = TimecardPolicy::of_site(policy, TimeZone::get(&tz).unwrap());
        self.policies.insert(site, policy);
        tz
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
                let mut made = timecards(&punches, |site| &from_events.policies[&site]);
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
