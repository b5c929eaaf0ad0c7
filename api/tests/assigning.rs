//! Whose punches are: of nobody, of another, all of a badge at once; and shifts that are joined.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House};
use hyper::{Method, StatusCode};
use punchtrail_domain::punch::{Anomaly, Punch, PunchCommand};
use punchtrail_infra::{access::credentials, ledger::Metadata};
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

struct Scene {
    house: House,
    site: SiteId,
    ada: EmployeeId,
    ben: EmployeeId,
    device: Device,
}

fn at(text: &str) -> Time {
    format!("2026-11-20T{text}.000Z").parse().unwrap()
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let ada = house.employee(site, "B1", "Ada Lovelace").await;
        let ben = house.employee(site, "B2", "Ben").await;
        let device = house.device(site).await;
        Self { house, site, ada, ben, device }
    }

    async fn press(&mut self, who: Who<'_>, kind: PunchKind, at: Time) -> PunchId {
        self.press_all(who, kind, [at]).await.remove(0)
    }

    async fn press_all(
        &mut self,
        who: Who<'_>,
        kind: PunchKind,
        times: impl IntoIterator<Item = Time>,
    ) -> Vec<PunchId> {
        let (mut items, mut punches) = (Vec::new(), Vec::new());
        for at in times {
            let capture = self.device.chain.capture_with(|next| {
                (next.employee, next.badge) = match who {
                    Who::Known(employee) => (Some(employee), None),
                    Who::Badge(badge) => (None, Some(badge.to_owned())),
                };
                (next.kind, next.captured_at) = (kind, at);
            });
            punches.push(capture.punch);
            items.push(self.device.item(&capture));
        }
        for items in items.chunks(100) {
            let answer = self.house.deliver(&self.device, items).await;
            let outcomes = answer.outcomes();
            assert!(outcomes.iter().all(|outcome| outcome == "applied"), "{}", answer.text);
        }
        punches
    }

    async fn badges(&self, query: &str) -> Value {
        let head = self.house.settled().await;
        let page = self.house.read_after(&format!("/v1/unknown-badges?{query}"), head).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        page.body
    }

    async fn punch(&self, punch: PunchId) -> Value {
        let head = self.house.settled().await;
        self.house.read_after(&format!("/v1/punches/{punch}"), head).await.body
    }

    async fn put(&self, path: &str, token: &str, body: &Value) -> Answer {
        self.house.send(Method::PUT, path, Some(token), body.to_string()).await
    }

    async fn own_key(&self, of: EmployeeId) -> String {
        let key = credentials::create_operator_key(&self.house.pools.writer, "own", Some(of));
        key.await.unwrap().1.reveal().to_owned()
    }
}

/// Runs the binary on the house's database: its exit code, its object, all that it said.
async fn run(house: &House, arguments: &[&str]) -> (i32, Value, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
        .args(arguments)
        .env("DATABASE_URL", house.database.url())
        .env_remove("RUST_LOG")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    let said = text + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), json, said)
}

#[derive(Clone, Copy)]
enum Who<'a> {
    Known(EmployeeId),
    Badge(&'a str),
}

const NONE: [u64; 2] = [0, 0];

/// A day's accepted and provisional minutes, now and then.
fn hours(day: &Value) -> ([u64; 2], [u64; 2]) {
    let of = |when: &str| {
        ["accepted_min", "provisional_min"].map(|what| day[when][what].as_u64().unwrap())
    };
    (of("now"), of("then"))
}

#[tokio::test]
async fn a_punch_of_nobody_is_given_to_who_made_it_and_to_another_later() {
    let mut scene = Scene::new().await;
    let (ada, ben) = (scene.ada, scene.ben);
    scene.press(Who::Known(ada), PunchKind::In, at("08:00:00")).await;
    scene.press(Who::Known(ben), PunchKind::In, at("09:00:00")).await;
    let punch = scene.press(Who::Badge("stray-7"), PunchKind::Out, at("16:00:00")).await;
    scene.house.settled().await;
    let (house, path) = (&scene.house, format!("/v1/punches/{punch}/person"));
    let to_ada = json!({ "employee": ada, "reason": "recognised", "note": "I know her walk" });
    let preview = house.write(&format!("{path}/preview"), &to_ada).await.body;
    assert_eq!((&preview["from"], &preview["to"]["employee"]), (&Value::Null, &json!(ada)));
    assert_eq!(hours(&preview["to"]["days"][0]), (NONE, [480, 0]), "{preview}");
    // Nobody gives to themselves.
    let own = scene.own_key(ada).await;
    assert_eq!(scene.put(&path, &own, &to_ada).await.refusal(), "403 own_record");
    let unknown = json!({ "employee": Uuid::now_v7() });
    let refused = scene.put(&path, &house.key, &unknown).await;
    assert_eq!(refused.refusal(), "422 invalid: /employee unknown");
    let stale = json!({ "employee": ada, "expected_sequence": 2 });
    assert_eq!(scene.put(&path, &house.key, &stale).await.refusal(), "409 punch_changed");
    let given = scene.put(&path, &house.key, &to_ada).await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.text);
    assert_eq!(scene.put(&path, &house.key, &to_ada).await.refusal(), "409 conflict");
    let shown = scene.punch(punch).await;
    assert_eq!((&shown["employee"], &shown["standing"]), (&json!(ada), &json!("accepted")));
    assert_eq!(scene.badges("").await["data"], json!([]), "nothing waits with the badge");
    assert_eq!(house.read("/v1/reviews").await.body["data"], json!([]));
    house.models_are_as_rebuilt().await;

    // It was Ben after all: both days are shown, and nobody gives away their own.
    let to_ben = json!({ "employee": ben, "reason": "wrong_person" });
    let preview = house.write(&format!("{path}/preview"), &to_ben).await.body;
    assert_eq!(preview["from"]["employee_name"], "Ada Lovelace");
    assert_eq!(hours(&preview["from"]["days"][0]), ([480, 0], NONE), "{preview}");
    assert_eq!(hours(&preview["to"]["days"][0]), (NONE, [420, 0]), "{preview}");
    assert_eq!(scene.put(&path, &own, &to_ben).await.refusal(), "403 own_record");
    assert_eq!(scene.put(&path, &house.key, &to_ben).await.status, StatusCode::OK);
    assert_eq!(scene.punch(punch).await["employee"], json!(ben));
    let events = house.read(&format!("/v1/punches/{punch}/events")).await.body;
    let last = events["data"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["event_type"], "Reassigned", "{last}");
    let missing = format!("/v1/punches/{}/person", Uuid::now_v7());
    assert_eq!(scene.put(&missing, &house.key, &to_ben).await.refusal(), "404 not_found");
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn badges_that_punches_wait_with_are_listed_in_pages() {
    let mut scene = Scene::new().await;
    for (badge, count) in [("00071", 2), ("71", 1), ("\u{202e}evil", 1), ("zebra", 3)] {
        let times = (0..count).map(|n| at("08:00:00").plus_millis(n * 3_600_000));
        scene.press_all(Who::Badge(badge), PunchKind::In, times).await;
    }
    let all = scene.badges("").await;
    let row = &all["data"][0];
    assert_eq!((&row["badge"], &row["punches"]), (&json!("00071"), &json!(2)));
    assert_eq!(
        (&row["first_at"], &row["last_at"]),
        (&json!(at("08:00:00")), &json!(at("09:00:00")))
    );
    assert_eq!(row["sites"], json!([scene.site]));
    let mut walked = Vec::new();
    let mut query = "limit=1".to_owned();
    loop {
        let page = scene.badges(&query).await;
        walked.extend(page["data"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=1&cursor={cursor}");
    }
    assert_eq!(json!(walked), all["data"]);
    assert_eq!(scene.badges(&format!("site={}", scene.site)).await["data"], all["data"]);
    let elsewhere = scene.house.site().await;
    assert_eq!(scene.badges(&format!("site={elsewhere}")).await["data"], json!([]));

    // What a person takes out of the count waits for nobody, until it is brought back.
    let zebra = |page: &Value| {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["badge"] == "zebra")
            .map(|row| row["punches"].clone())
    };
    let waiting = scene.house.read("/v1/reviews?reason=unknown_badge").await.body;
    let punch = waiting["data"].as_array().unwrap().last().unwrap()["punch"].clone();
    let path = format!("/v1/punches/{}/decision", punch.as_str().unwrap());
    for (ruling, left) in [("reject", 2), ("accept", 3), ("void", 2), ("accept", 3)] {
        let body = json!({ "decision": ruling, "reason": "other" });
        let ruled = scene.house.write(&path, &body).await;
        assert_eq!(ruled.status, StatusCode::OK, "{}", ruled.text);
        assert_eq!(zebra(&scene.badges("").await), Some(json!(left)), "{ruling}");
    }
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn all_punches_of_a_badge_are_given_away_at_once_and_what_changed_is_reported() {
    let mut scene = Scene::new().await;
    let (ada, ben) = (scene.ada, scene.ben);
    scene.press(Who::Known(ada), PunchKind::In, at("07:00:00")).await;
    // Twice a day for months: more than one append takes.
    let begin: Time = "2026-05-01T06:00:00.000Z".parse().unwrap();
    let day_ms = 86_400_000;
    let ins = (0..90).map(|day| begin.plus_millis(day * day_ms));
    let ins = scene.press_all(Who::Badge("stray"), PunchKind::In, ins).await;
    let outs = (0..90).map(|day| begin.plus_millis(day * day_ms + 8 * 3_600_000));
    scene.press_all(Who::Badge("stray"), PunchKind::Out, outs).await;
    let many = (0..500).map(|n| begin.plus_millis(100 * day_ms + n * 600_000));
    scene.press_all(Who::Badge("stray"), PunchKind::BreakStart, many).await;
    let other = scene.press(Who::Badge("stray2"), PunchKind::In, begin).await;
    scene.house.settled().await;
    let house = &scene.house;
    let mut body = json!({ "badge": "stray", "employee": ada, "note": "Her old card" });
    let preview = house.write("/v1/unknown-badges/assign/preview", &body).await;
    assert_eq!(preview.status, StatusCode::OK, "{}", preview.text);
    let preview = preview.body;
    assert_eq!((&preview["punches"], &preview["previewed"]), (&json!(680), &json!(680)));
    assert_eq!(preview["days"].as_array().unwrap().len(), 31, "bounded");
    assert!(preview["days_touched"].as_u64().unwrap() >= 93, "{}", preview["days_touched"]);
    assert_eq!(hours(&preview["days"][0]), (NONE, [480, 0]), "{}", preview["days"][0]);

    // One is Ben's by now, one is out, and one was amended after somebody had looked.
    let path = |punch: PunchId, what: &str| format!("/v1/punches/{punch}/{what}");
    let to_ben = json!({ "employee": ben });
    assert_eq!(scene.put(&path(ins[0], "person"), &house.key, &to_ben).await.status, 200);
    let out = json!({ "decision": "void" });
    assert_eq!(house.write(&path(ins[1], "decision"), &out).await.status, 200);
    let amend = json!({ "decision": "amend", "effective_at": begin.plus_millis(2 * day_ms + 1) });
    assert_eq!(house.write(&path(ins[2], "decision"), &amend).await.status, 200);
    house.settled().await;
    body["as_of"] = preview["as_of"].clone();
    body["until"] = json!(begin.plus_millis(5 * day_ms));
    let own = scene.own_key(ada).await;
    let assign = "/v1/unknown-badges/assign";
    assert_eq!(house.post(assign, Some(&own), &body).await.refusal(), "403 own_record");
    let done = house.write(assign, &body).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    assert_eq!((&done.body["assigned"], &done.body["has_more"]), (&json!(7), &json!(false)));
    let left = done.body["left_as_they_are"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{}", done.text);
    assert_eq!((&left[0]["punch"], &left[0]["code"]), (&json!(ins[2]), &json!("punch_changed")));
    // All the others, and the same again.
    let body = json!({ "badge": "stray", "employee": ada });
    let head = house.settled().await;
    house.read_after("/v1/unknown-badges", head).await;
    let done = house.write(assign, &body).await.body;
    assert_eq!((&done["assigned"], &done["has_more"]), (&json!(671), &json!(false)), "{done}");
    let head = house.settled().await;
    house.read_after("/v1/unknown-badges", head).await;
    let again = house.write(assign, &body).await.body;
    assert_eq!((&again["assigned"], &again["position"]), (&json!(0), &Value::Null), "{again}");
    assert_eq!(house.settled().await, head, "nothing was written");
    let rest = scene.badges("").await;
    assert_eq!(rest["data"].as_array().unwrap().len(), 1, "{rest}");
    assert_eq!(rest["data"][0]["badge"], "stray2");
    assert_eq!(scene.punch(ins[0]).await["employee"], json!(ben), "a ruling stands");
    assert_eq!(scene.punch(ins[5]).await["employee"], json!(ada));
    assert_eq!(scene.punch(other).await["employee"], Value::Null);
    for (body, refusal) in [
        (json!({ "badge": "", "employee": ada }), "422 invalid: /badge invalid_value"),
        (
            json!({ "badge": "b", "employee": ada, "from": begin, "until": begin }),
            "422 invalid: /until invalid_value",
        ),
        (
            json!({ "badge": "stray2", "employee": Uuid::now_v7() }),
            "422 invalid: /employee unknown",
        ),
    ] {
        for path in [assign, "/v1/unknown-badges/assign/preview"] {
            assert_eq!(house.write(path, &body).await.refusal(), refusal, "{path} {body}");
        }
    }
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn two_who_give_the_same_badge_away_give_each_punch_once() {
    let mut scene = Scene::new().await;
    let (ada, ben) = (scene.ada, scene.ben);
    let times = (0..200).map(|n| at("00:00:00").plus_millis(n * 300_000));
    scene.press_all(Who::Badge("stray"), PunchKind::In, times).await;
    let head = scene.house.settled().await;
    let house = &scene.house;
    house.read_after("/v1/unknown-badges", head).await;
    let give = async |to: EmployeeId| {
        house.write("/v1/unknown-badges/assign", &json!({ "badge": "stray", "employee": to })).await
    };
    let (one, two) = tokio::join!(give(ada), give(ben));
    let assigned = |answer: &Answer| answer.body["assigned"].as_u64().unwrap();
    assert_eq!(assigned(&one) + assigned(&two), 200, "{} {}", one.text, two.text);
    assert_eq!(assigned(&one) * assigned(&two), 0, "all of an append, or nothing");
    assert_eq!(scene.badges("").await["data"], json!([]));
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn whoever_may_have_made_a_punch_is_shown_and_a_doubt_that_is_gone_waits_for_nobody() {
    let mut scene = Scene::new().await;
    let (ada, ben) = (scene.ada, scene.ben);
    scene.press(Who::Known(ada), PunchKind::In, at("08:00:00")).await;
    scene.press(Who::Known(ben), PunchKind::In, at("09:00:00")).await;
    let punch = scene.press(Who::Known(ada), PunchKind::Out, at("16:00:00")).await;
    scene.house.settled().await;
    let (house, id) = (&scene.house, punch.to_string());
    let found = async |command: PunchCommand| {
        house.ledger.execute::<Punch>(&id, command, &Metadata::default()).await.unwrap();
        house.settled().await
    };
    let other = Anomaly::OtherHolder { holder: Some(ben) };
    let head = found(PunchCommand::Judge { anomalies: vec![other], verify_by: None }).await;
    let review = house.read_after(&format!("/v1/reviews/{punch}"), head).await.body;
    assert_eq!(review["doubts"][0]["code"], "other_holder");
    let words = review["doubts"][0]["text"].as_str().unwrap();
    assert!(words.contains(' ') && !words.contains('_'), "{words}");
    let candidates = review["candidates"].as_array().unwrap();
    let who = |one: &Value| (one["why"].clone(), one["employee"].clone());
    assert_eq!(who(&candidates[0]), (json!("recorded"), json!(ada)));
    assert_eq!(who(&candidates[1]), (json!("held_badge"), json!(ben)));
    assert_eq!(hours(&candidates[0]["days"][0]).1, [480, 0], "{review}");
    assert_eq!(hours(&candidates[1]["days"][0]), (NONE, [420, 0]), "{review}");
    let neighbours = review["neighbours"].as_array().unwrap();
    assert_eq!(neighbours.len(), 2, "of both: {review}");
    // Either of the two would rule on what may be their own.
    let accept = json!({ "decision": "accept" });
    for own in [scene.own_key(ada).await, scene.own_key(ben).await] {
        let path = format!("/v1/punches/{punch}/decision");
        let refused = house.post(&path, Some(&own), &accept).await;
        assert_eq!(refused.refusal(), "403 own_record");
    }
    // The badge was Ada's after all.
    let revise = PunchCommand::Revise { person: vec![], beside: vec![], verify_by: None };
    let head = found(revise).await;
    let gone = house.read_after(&format!("/v1/reviews/{punch}"), head).await;
    assert_eq!(gone.refusal(), "404 not_found");
    assert_eq!(house.read_after("/v1/reviews/counts", head).await.body["open"], 0);
    assert_eq!(scene.punch(punch).await["standing"], "accepted");
    let today = jiff::Timestamp::now().to_string();
    let figures = house
        .read_after(&format!("/v1/figures?site={}&from={1}&to={1}", scene.site, &today[..10]), head)
        .await;
    assert!(figures.text.contains(r#""withdrawn":1"#), "{}", figures.text);
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn two_punches_are_joined_to_one_long_shift_and_parted() {
    let mut scene = Scene::new().await;
    let (ada, ben) = (scene.ada, scene.ben);
    let hour_ms = 3_600_000;
    let start = scene.press(Who::Known(ada), PunchKind::In, at("08:00:00")).await;
    let end = at("08:00:00").plus_millis(30 * hour_ms);
    let out = scene.press(Who::Known(ada), PunchKind::Out, end).await;
    let late = at("08:00:00").plus_millis(73 * hour_ms);
    let late = scene.press(Who::Known(ada), PunchKind::Out, late).await;
    let bens = scene.press(Who::Known(ben), PunchKind::Out, end).await;
    let strays = scene.press(Who::Badge("stray"), PunchKind::Out, end).await;
    let early = scene.press(Who::Known(ada), PunchKind::Out, at("07:00:00")).await;
    let again = scene.press(Who::Known(ada), PunchKind::In, at("11:00:00")).await;
    scene.house.settled().await;
    let house = &scene.house;
    let path = |punch: PunchId| format!("/v1/punches/{punch}/shift");
    let head = house.settled().await;
    for (opening, out, refusal) in [
        (start, late, "409 conflict"),
        (start, bens, "409 conflict"),
        (start, strays, "409 conflict"),
        (start, early, "409 conflict"),
        (start, again, "409 conflict"),
        (out, late, "409 conflict"),
        (start, PunchId(Uuid::now_v7()), "422 invalid: /out unknown"),
        (PunchId(Uuid::now_v7()), out, "404 not_found"),
    ] {
        let refused = house.write(&path(opening), &json!({ "out": out })).await;
        assert_eq!(refused.refusal(), refusal, "{}", refused.text);
    }
    let preview = format!("{}/preview", path(start));
    let refused = house.write(&preview, &json!({ "out": bens })).await;
    assert_eq!(refused.refusal(), "409 conflict");
    let refused = house.write(&preview, &json!({ "out": Uuid::now_v7() })).await;
    assert_eq!(refused.refusal(), "422 invalid: /out unknown");
    let shown = house.write(&preview, &json!({ "out": out })).await.body;
    assert_eq!(shown["days"][0]["day"], "2026-11-20", "{shown}");
    assert_eq!(hours(&shown["days"][0]).1[0], 1_800, "thirty hours: {shown}");
    let part = async || house.send(Method::DELETE, &path(start), Some(&house.key), "").await;
    assert_eq!(part().await.refusal(), "409 conflict", "it is joined with nothing");
    let own = scene.own_key(ada).await;
    let join = json!({ "out": out, "note": "She held the night alone" });
    assert_eq!(house.post(&path(start), Some(&own), &join).await.refusal(), "403 own_record");
    assert_eq!(house.settled().await, head, "nothing was written");
    let joined = house.write(&path(start), &join).await;
    assert_eq!(joined.status, StatusCode::OK, "{}", joined.text);
    house.settled().await;
    assert_eq!(house.write(&path(start), &join).await.refusal(), "409 conflict", "it is joined");
    let taken = house.write(&path(again), &join).await;
    assert_eq!(taken.refusal(), "409 conflict");
    assert!(taken.body["detail"].as_str().unwrap().contains("another `in`"), "{}", taken.text);
    let told = house.read(&format!("/v1/punches/{start}/explanation")).await.body;
    assert!(told["sentences"].to_string().contains("She held the night alone"), "{told}");
    assert_eq!(part().await.status, StatusCode::OK);
    let joined = house.write(&path(again), &join).await;
    assert_eq!(joined.status, StatusCode::OK, "{}", joined.text);
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn the_command_line_does_the_same_and_the_ledger_is_intact_after_it() {
    let mut scene = Scene::new().await;
    let ada = scene.ada;
    let end = at("08:00:00").plus_millis(30 * 3_600_000);
    let start = scene.press(Who::Known(ada), PunchKind::In, at("08:00:00")).await.to_string();
    let out = scene.press(Who::Badge("stray"), PunchKind::Out, end).await.to_string();
    let times = (0..3).map(|day| at("08:00:00").plus_millis(-86_400_000 * (day + 1)));
    scene.press_all(Who::Badge("late"), PunchKind::In, times).await;
    scene.house.settled().await;
    let house = &scene.house;
    scene.badges("").await;
    let (exit, listed, said) = run(house, &["badge", "unknown", "list", "--json"]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(listed["badges"][0]["badge"], "late");
    assert_eq!(listed["badges"][0]["punches"], 3);
    let (_, _, said) = run(house, &["badge", "unknown", "list"]).await;
    assert!(said.contains("stray") && said.contains("Site"), "{said}");
    let until = at("08:00:00").plus_millis(-86_400_000).to_string();
    let assign = ["badge", "unknown", "assign", "late", "B2", "--until", &until, "--note", "n"];
    let (exit, done, said) = run(house, &[&assign[..], &["--json"]].concat()).await;
    assert_eq!((exit, &done["assigned"]), (0, &json!(2)), "{said}");
    let assign = ["punch", "assign", &out, "B1", "--reason", "recognised", "--note", "n"];
    let (exit, given, said) = run(house, &[&assign[..], &["--json"]].concat()).await;
    assert_eq!((exit, &given["days"]), (0, &json!(["2026-11-21"])), "{said}");
    scene.house.settled().await;
    let (exit, _, said) = run(house, &["punch", "join", &start, &out, "--note", "n"]).await;
    assert_eq!(exit, 0, "{said}");
    let (_, _, said) = run(house, &["punch", "show", &start]).await;
    assert!(said.contains("joined with"), "{said}");
    assert_eq!(run(house, &["punch", "part", &start, "--note", "n"]).await.0, 0);
    assert_eq!(run(house, &["punch", "part", &start]).await.0, 1);
    let (site, id) = (scene.site.to_string(), Uuid::now_v7().to_string());
    let add = [
        "punch",
        "add",
        "--who",
        "B1",
        "--site",
        &site,
        "--kind",
        "out",
        "--at",
        "2026-11-20T16:00:00.000Z",
        "--reason",
        "no_device",
        "--note",
        "n",
        "--id",
        &id,
        "--json",
    ];
    let (exit, added, said) = run(house, &add).await;
    assert_eq!((exit, &added["added"]), (0, &json!(true)), "{said}");
    let (_, again, _) = run(house, &add).await;
    assert_eq!((&again["added"], &again["position"]), (&json!(false), &added["position"]));
    let (_, _, said) = run(house, &["punch", "show", &id]).await;
    assert!(said.contains("a person added it"), "{said}");
    house.settled().await;
    let (exit, _, said) = run(house, &["ledger", "verify"]).await;
    assert_eq!(exit, 0, "{said}");
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}
