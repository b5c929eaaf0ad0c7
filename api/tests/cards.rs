//! Hours, as payroll gets them over HTTP: a doubt takes nothing, two clocks are not one, and rules
//! that change leave the days before as they were.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Device, House};
use hyper::StatusCode;
use jiff::{ToSpan, civil::Date, tz::TimeZone};
use punchtrail_protocol::{
    EmployeeId, PunchId, SiteId, Time,
    capture::{Capture, PunchKind},
};
use serde_json::{Value, json};

use PunchKind::{BreakEnd, BreakStart, In, Out};

/// A kiosk's uptime at its heartbeat: far enough into its boot for punches of days before.
const UPTIME_MS: i64 = 40 * 86_400_000;

struct Scene {
    house: House,
    site: SiteId,
    employee: EmployeeId,
    /// Some days ago, in Berlin.
    day: Date,
}

/// A kiosk, and when its server was told of its uptime; none: never.
struct Kiosk {
    device: Device,
    told: Option<Time>,
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "Ada Lovelace").await;
        let today = jiff::Timestamp::now().to_zoned(TimeZone::UTC).date();
        Self { house, site, employee, day: today.saturating_sub(3.days()) }
    }

    async fn kiosk(&self) -> Kiosk {
        Kiosk { device: self.house.device(self.site).await, told: None }
    }

    /// A kiosk whose clock the server can know.
    async fn told_kiosk(&self) -> Kiosk {
        let device = self.house.device(self.site).await;
        let mut beat = device.heartbeat();
        beat["uptime_ms"] = json!(UPTIME_MS);
        let path = "/v1/devices/self/heartbeat";
        let answer = self.house.post(path, Some(&device.token), &beat).await;
        let told = answer.body["server_time"].as_str().unwrap().parse().unwrap();
        Kiosk { device, told: Some(told) }
    }

    /// A time of day in Berlin, so many days after the scene's.
    fn at(&self, days: i32, clock: &str) -> Time {
        let clock: jiff::civil::Time = clock.parse().unwrap();
        let wall = self.day.saturating_add(days.days()).to_datetime(clock);
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        wall.to_zoned(zone).unwrap().timestamp().into()
    }

    /// Punches that the kiosk's clock showed at these times, `lead_s` ahead of the true ones.
    async fn punch(
        &self,
        kiosk: &mut Kiosk,
        lead_s: i64,
        punches: &[(PunchKind, Time)],
    ) -> Vec<PunchId> {
        let captures: Vec<Capture> = punches
            .iter()
            .map(|(kind, shown)| {
                let is = shown.plus_millis(-lead_s * 1_000);
                let (told, employee) = (kiosk.told, self.employee);
                kiosk.device.chain.capture_with(|capture| {
                    (capture.employee, capture.kind) = (Some(employee), *kind);
                    capture.captured_at = *shown;
                    let uptime_ms = told.map_or(1_000, |told| UPTIME_MS + is.millis_since(told));
                    capture.uptime_ms = uptime_ms.cast_unsigned();
                })
            })
            .collect();
        let items: Vec<Value> = captures.iter().map(|one| kiosk.device.item(one)).collect();
        let outcomes = self.house.deliver(&kiosk.device, &items).await.outcomes();
        assert_eq!(outcomes, vec!["applied"; items.len()]);
        self.house.settled().await;
        captures.iter().map(|capture| capture.punch).collect()
    }

    async fn rule(&self, punch: PunchId, body: &Value) {
        let path = format!("/v1/punches/{punch}/decision");
        let ruled = self.house.write(&path, body).await;
        assert_eq!(ruled.status, StatusCode::OK, "{}", ruled.text);
        self.house.settled().await;
    }

    /// The cards of the scene's day and some before and after.
    async fn cards(&self) -> Vec<Value> {
        let days = [-2, 3].map(|days: i32| self.day.saturating_add(days.days()));
        let path =
            format!("/v1/timecards?employee={}&from={}&to={}", self.employee, days[0], days[1]);
        let answer = self.house.read(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body["data"][0]["cards"].as_array().unwrap().clone()
    }

    /// The one card that there is.
    async fn card(&self) -> Value {
        let cards = self.cards().await;
        assert_eq!(cards.len(), 1, "{cards:?}");
        assert_eq!(cards[0]["day"], json!(self.day), "{cards:?}");
        cards[0].clone()
    }

    async fn close(self) {
        self.house.models_are_as_rebuilt().await;
        self.house.close().await;
    }
}

/// Minutes accepted, that would be added, that would be taken.
fn minutes(card: &Value) -> [u64; 3] {
    ["worked_accepted_s", "worked_provisional_s", "provisional_taken_s"]
        .map(|name| card["totals"][name].as_u64().unwrap_or_else(|| panic!("{name}: {card}")) / 60)
}

fn codes(card: &Value) -> Vec<&str> {
    let unmatched = card["unmatched"].as_array().unwrap();
    unmatched.iter().map(|one| one["code"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_doubt_takes_nothing_from_what_is_not_doubted() {
    // A second kiosk's double of a shift whose `in` was corrected.
    let scene = Scene::new().await;
    let (mut one, mut other) = (scene.kiosk().await, scene.kiosk().await);
    let shift = [(In, scene.at(0, "08:00:00")), (Out, scene.at(0, "16:00:00"))];
    let punches = scene.punch(&mut one, 0, &shift).await;
    let corrected = json!({ "decision": "amend", "effective_at": scene.at(0, "07:00:00") });
    scene.rule(punches[0], &corrected).await;
    assert_eq!(minutes(&scene.card().await), [540, 0, 0]);
    // A double tap of the `out` that is doubted, too.
    let double = scene.punch(&mut other, 0, &[(Out, scene.at(0, "16:00:20"))]).await;
    let card = scene.card().await;
    assert_eq!(minutes(&card), [540, 0, 0], "{card}");
    assert_eq!(codes(&card), ["double_out"], "{card}");
    let ruled = json!({ "decision": "void", "reason": "duplicate" });
    scene.rule(double[0], &ruled).await;
    assert_eq!(codes(&scene.card().await), Vec::<&str>::new());
    scene.close().await;
}

#[tokio::test]
async fn what_a_doubtful_break_would_take_is_said_and_taken_when_it_is_ruled_on() {
    let scene = Scene::new().await;
    let (mut right, mut wrong) = (scene.kiosk().await, scene.told_kiosk().await);
    let shift = [(In, scene.at(0, "08:00:00")), (Out, scene.at(0, "16:00:00"))];
    scene.punch(&mut right, 0, &shift).await;
    // Ten minutes ahead, more than the policy allows: both are referred.
    let pause = [(BreakStart, scene.at(0, "12:10:00")), (BreakEnd, scene.at(0, "12:40:00"))];
    let pause = scene.punch(&mut wrong, 600, &pause).await;
    let card = scene.card().await;
    assert_eq!(minutes(&card), [480, 0, 30], "{card}");
    assert_eq!(codes(&card), ["waits_for_ruling"; 2], "{card}");
    for punch in pause {
        scene.rule(punch, &json!({ "decision": "accept" })).await;
    }
    let card = scene.card().await;
    assert_eq!(minutes(&card), [450, 0, 0], "{card}");
    assert_eq!(card["totals"]["break_s"], 1_800);
    scene.close().await;
}

#[tokio::test]
async fn an_accepted_punch_whose_only_counterpart_is_doubtful_waits_for_it() {
    let scene = Scene::new().await;
    let (mut right, mut wrong) = (scene.kiosk().await, scene.told_kiosk().await);
    scene.punch(&mut right, 0, &[(In, scene.at(0, "22:00:00"))]).await;
    let out = scene.punch(&mut wrong, 600, &[(Out, scene.at(1, "06:10:00"))]).await;
    let card = scene.card().await;
    assert_eq!(minutes(&card), [0, 480, 0], "{card}");
    assert_eq!(codes(&card), ["waits_for_doubtful"], "{card}");
    let segment = &card["segments"][0];
    assert_eq!(
        (&segment["counted_as"], &segment["doubt"]),
        (&json!("provisional"), &json!("punch"))
    );
    assert_eq!(segment["to"]["true_at"], json!(scene.at(1, "06:00:00")));
    let path = format!("/v1/punches/{}/decision/preview", out[0]);
    let previewed = scene.house.write(&path, &json!({ "decision": "accept" })).await;
    let day = &previewed.body["days"][0];
    assert_eq!(day["now"], json!({ "accepted_min": 0, "provisional_min": 480, "taken_min": 0 }));
    assert_eq!(day["then"]["accepted_min"], 480, "{}", previewed.text);
    scene.rule(out[0], &json!({ "decision": "reject", "reason": "other" })).await;
    assert_eq!(codes(&scene.card().await), ["in_without_out"]);
    scene.close().await;
}

#[tokio::test]
async fn two_clocks_that_are_known_give_the_true_hours() {
    let scene = Scene::new().await;
    let (mut fast, mut right) = (scene.told_kiosk().await, scene.told_kiosk().await);
    let morning = [(In, scene.at(0, "08:01:40")), (Out, scene.at(0, "12:01:40"))];
    scene.punch(&mut fast, 100, &morning).await;
    let afternoon = [(In, scene.at(0, "12:01:00")), (Out, scene.at(0, "17:00:00"))];
    scene.punch(&mut right, 0, &afternoon).await;
    let card = scene.card().await;
    assert_eq!(minutes(&card), [539, 0, 0], "{card}");
    let elapsed = |index: usize| card["segments"][index]["elapsed_s"].as_u64().unwrap();
    assert_eq!([elapsed(0), elapsed(1)], [4 * 3_600, 4 * 3_600 + 59 * 60], "{card}");
    let out = &card["segments"][0]["to"];
    assert_eq!(out["at"], json!(scene.at(0, "12:01:40")));
    assert_eq!(out["true_at"], json!(scene.at(0, "12:00:00")));
    assert_eq!(card["segments"][1]["from"]["true_at"], Value::Null);
    scene.close().await;
}

#[tokio::test]
async fn a_shift_across_a_slow_and_a_fast_clock_is_as_long_as_it_was() {
    let scene = Scene::new().await;
    let (mut slow, mut fast) = (scene.told_kiosk().await, scene.told_kiosk().await);
    scene.punch(&mut slow, -90, &[(In, scene.at(0, "07:58:30"))]).await;
    scene.punch(&mut fast, 60, &[(Out, scene.at(0, "16:01:00"))]).await;
    assert_eq!(minutes(&scene.card().await), [480, 0, 0]);
    scene.close().await;
}

#[tokio::test]
async fn an_order_that_hangs_on_an_unknown_clock_is_doubted_until_somebody_says_when() {
    let scene = Scene::new().await;
    let (mut fast, mut unknown) = (scene.told_kiosk().await, scene.kiosk().await);
    let morning = [(In, scene.at(0, "08:01:40")), (Out, scene.at(0, "12:01:40"))];
    let morning = scene.punch(&mut fast, 100, &morning).await;
    let afternoon = [(In, scene.at(0, "12:01:00")), (Out, scene.at(0, "17:00:00"))];
    scene.punch(&mut unknown, 0, &afternoon).await;
    let card = scene.card().await;
    assert_eq!(minutes(&card), [0, 539, 0], "{card}");
    assert!(card["segments"].as_array().unwrap().iter().all(|part| part["doubt"] == "clocks"));
    for punch in morning {
        scene.rule(punch, &json!({ "decision": "use_server_time" })).await;
    }
    assert_eq!(minutes(&scene.card().await), [539, 0, 0]);
    scene.close().await;
}

#[tokio::test]
async fn a_clock_years_ahead_that_is_known_lands_on_its_own_day() {
    let scene = Scene::new().await;
    let mut ahead = scene.told_kiosk().await;
    let years_s = 4 * 365 * 86_400;
    let punches = [(In, "08:00:00"), (Out, "16:00:00")]
        .map(|(kind, clock)| (kind, scene.at(0, clock).plus_millis(years_s * 1_000)));
    let punches = scene.punch(&mut ahead, years_s, &punches).await;
    assert_eq!(minutes(&scene.card().await), [0, 480, 0]);
    for punch in punches {
        scene.rule(punch, &json!({ "decision": "accept" })).await;
    }
    let card = scene.card().await;
    assert_eq!(minutes(&card), [480, 0, 0], "{card}");
    let (site, day) = (scene.site, scene.day);
    let path = format!("/v1/timecards?site={site}&from={day}&to={day}");
    assert_eq!(scene.house.read(&path).await.body["data"][0]["cards"][0], card);
    scene.close().await;
}

impl Scene {
    async fn put(&self, path: &str, body: &Value) -> common::Answer {
        let path = format!("/v1/sites/{}/{path}", self.site);
        let (put, key) = (hyper::Method::PUT, Some(self.house.key.as_str()));
        let answer = self.house.send(put, &path, key, body.to_string()).await;
        self.house.settled().await;
        answer
    }

    fn date(&self, days: i32) -> Date {
        self.day.saturating_add(days.days())
    }
}

#[tokio::test]
async fn a_policy_from_a_day_on_leaves_the_days_before_as_they_were() {
    let scene = Scene::new().await;
    let mut kiosk = scene.kiosk().await;
    let nights =
        [0, 1].map(|day| [(In, scene.at(day, "01:00:00")), (Out, scene.at(day, "04:00:00"))]);
    scene.punch(&mut kiosk, 0, &nights.concat()).await;
    let before = scene.cards().await;
    assert_eq!(before.len(), 2);
    // A policy of its own, as all were before; then one from the second day.
    let first = scene.put("policy", &json!({ "photos": true })).await;
    assert_eq!((first.status, &first.body["from"]), (StatusCode::OK, &Value::Null));
    let second = scene.date(1);
    let later = json!({ "day_starts_min": 300, "shift_max_s": 3_600 });
    let set = scene.put(&format!("policy?from={second}"), &later).await;
    assert_eq!(set.body["from"], json!(second), "{}", set.text);
    let after = scene.cards().await;
    assert_eq!(after[0], before[0]);
    assert_eq!(after[1]["day"], json!(second), "the day of the change is the longer one");
    assert_eq!(minutes(&after[1]), [0, 0, 0], "no shift is that long any more: {}", after[1]);
    // Far ahead, and long gone: the last one set for a time holds then.
    for (day, moved) in [("2100-01-01", false), ("2000-01-01", true)] {
        scene.put(&format!("policy?from={day}"), &json!({ "day_starts_min": 300 })).await;
        let now = scene.cards().await;
        assert_eq!(now[0]["day"] != before[0]["day"], moved, "{day}: {now:?}");
    }
    let today = scene.put("policy", &json!({ "day_starts_min": 60 })).await;
    assert!(today.body["from"].is_string(), "{}", today.text);
    let shown = scene.house.read(&format!("/v1/sites/{}", scene.site)).await.body;
    assert_eq!(shown["policies"].as_array().unwrap().len(), 5, "{shown}");
    assert_eq!(shown["policies"][1]["from"], "2000-01-01");
    let wrong = scene.put("policy?from=tomorrow", &json!({})).await;
    assert_eq!(wrong.refusal(), "422 invalid: from invalid_value");
    scene.close().await;
}

#[tokio::test]
async fn a_zone_is_corrected_for_its_past_only_when_that_is_asked_for() {
    let scene = Scene::new().await;
    let mut kiosk = scene.kiosk().await;
    // Late in the evening in Berlin, the next morning in Auckland.
    let evening = [(In, scene.at(0, "20:00:00")), (Out, scene.at(0, "23:00:00"))];
    scene.punch(&mut kiosk, 0, &evening).await;
    let next = scene.date(1);
    let preview = async |body: Value| {
        let path = format!("/v1/sites/{}/zone/preview", scene.site);
        let answer = scene.house.write(&path, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.body
    };
    let from = json!({ "tz": "Pacific/Auckland", "from": next });
    assert_eq!(preview(from.clone()).await["moved"]["days"], 0);
    assert_eq!(scene.put("zone", &from).await.body["from"], json!(next));
    assert_eq!(scene.card().await["day"], json!(scene.day));
    let past = json!({ "tz": "Pacific/Auckland", "correct_past": true });
    let said = preview(past.clone()).await;
    let moved = &said["moved"];
    assert_eq!((&moved["people"], &moved["days"]), (&json!(1), &json!(2)), "{said}");
    assert_eq!(moved["complete"], true);
    assert_eq!(moved["shown"][0]["day"], json!(scene.day));
    assert_eq!(moved["shown"][0]["employee_name"], "Ada Lovelace");
    assert_eq!(moved["shown"][0]["now"]["accepted_min"], 180);
    assert_eq!(moved["shown"][0]["then"]["accepted_min"], 0);
    assert_eq!(moved["shown"][1]["then"]["accepted_min"], 180);
    assert_eq!(scene.card().await["day"], json!(scene.day), "nothing was written");
    assert_eq!(scene.put("zone", &past).await.status, StatusCode::OK);
    let cards = scene.cards().await;
    assert_eq!((cards.len(), &cards[0]["day"]), (1, &json!(next)), "{cards:?}");
    let unknown = scene.put("zone", &json!({ "tz": "Moon/Base" })).await;
    assert_eq!(unknown.refusal(), "422 invalid: /tz invalid_value");
    let both = json!({ "tz": "Europe/Paris", "from": next, "correct_past": true });
    assert_eq!(scene.put("zone", &both).await.refusal(), "422 invalid: /from invalid_value");
    let shown = scene.house.read(&format!("/v1/sites/{}", scene.site)).await.body;
    assert_eq!(shown["zones"].as_array().unwrap().len(), 2, "{shown}");
    scene.close().await;
}

impl Scene {
    /// What the command line gives, beside the server.
    async fn run(&self, arguments: &[&str]) -> (i32, String, Value) {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
            .args(arguments)
            .env("DATABASE_URL", self.house.database.url())
            .env_remove("RUST_LOG")
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let object = serde_json::from_str(&stdout).unwrap_or_default();
        (output.status.code().unwrap_or(-1), stdout, object)
    }
}

#[tokio::test]
async fn the_command_line_sets_policies_and_zones_from_a_day_on() {
    let scene = Scene::new().await;
    let mut kiosk = scene.kiosk().await;
    let evening = [(In, scene.at(0, "20:00:00")), (Out, scene.at(0, "23:00:00"))];
    scene.punch(&mut kiosk, 0, &evening).await;
    let before = scene.card().await;
    let site = scene.site.to_string();
    let policy = async |more: &[&str]| {
        scene.run(&[&["site", "policy", &site][..], more, &["--json"]].concat()).await
    };
    let (_, _, first) = policy(&["--set", "travel_s=0"]).await;
    assert_eq!((&first["from"], first["policy"]["travel_s"].as_u64()), (&Value::Null, Some(0)));
    let next = scene.date(1).to_string();
    let (_, _, later) = policy(&["--set", "day_starts_min=300", "--from", &next]).await;
    assert_eq!((later["from"].as_str(), &later["policy"]["travel_s"]), (Some(&*next), &json!(0)));
    let day = scene.day.to_string();
    let on = async |day: &str| policy(&["--on", day]).await.2["policy"]["day_starts_min"].clone();
    assert_eq!([on(&day).await, on(&next).await], [json!(0), json!(300)]);
    let (_, _, today) = policy(&["--set", "day_starts_min=60"]).await;
    assert!(today["from"].as_str().is_some_and(|from| from > &*next), "{today}");
    let (_, shown, _) = scene.run(&["site", "policy", &site]).await;
    assert!(shown.contains("since ever: travel=0s\n"), "{shown}");
    assert!(shown.contains(&format!("from {next} on: day_starts=5h\n")), "{shown}");
    let (exit, _, _) = policy(&["--from", &next]).await;
    assert_eq!(exit, 2, "a day alone changes nothing");
    assert_eq!(scene.card().await, before);

    let zone = async |more: &[&str]| {
        let zone = ["site", "zone", &site, "Pacific/Auckland"];
        scene.run(&[&zone[..], more].concat()).await
    };
    let (_, said, _) = zone(&["--correct-past"]).await;
    assert!(said.contains("hours of 1 people would move, on 2 of their days"), "{said}");
    assert!(said.contains("Ada Lovelace") && said.contains("Nothing was changed"), "{said}");
    let (_, _, moved) = zone(&["--from", &next, "--json"]).await;
    assert_eq!((&moved["moved"]["days"], &moved["applied"]), (&json!(0), &json!(false)));
    assert_eq!(scene.card().await, before);
    let (exit, _, _) = zone(&["--from", &next, "--correct-past"]).await;
    assert_eq!(exit, 2);
    let (_, _, applied) = zone(&["--correct-past", "--apply", "--json"]).await;
    assert_eq!((&applied["from"], &applied["applied"]), (&Value::Null, &json!(true)));
    let cards = scene.cards().await;
    assert_eq!((cards.len(), cards[0]["day"].as_str()), (1, Some(&*next)), "{cards:?}");
    scene.close().await;
}
