//! People and their badges over time, over HTTP: who holds a badge when, who leaves and comes back,
//! what the manifest tells of it, and rosters as one call.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House, request};
use hyper::{Method, StatusCode, header};
use punchtrail_infra::testing::sqlx;
use punchtrail_protocol::{EmployeeId, SiteId};
use serde_json::{Value, json};

const MORNING: &str = "2026-03-02T07:00:00.000Z";
const NOON: &str = "2026-03-02T11:00:00.000Z";
const EVENING: &str = "2026-03-02T17:00:00.000Z";

struct Scene {
    house: House,
    site: SiteId,
    device: Device,
    ada: EmployeeId,
    bo: EmployeeId,
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let device = house.device(site).await;
        let ada = house.employee(site, "17", "Ada Kaya").await;
        let bo = house.employee(site, "18", "Bo Lind").await;
        Self { house, site, device, ada, bo }
    }

    async fn issue(&self, employee: EmployeeId, body: Value) -> Answer {
        self.house.write(&format!("/v1/employees/{employee}/badges"), &body).await
    }

    async fn badges(&self, employee: EmployeeId) -> Vec<(String, Value, Value)> {
        let path = format!("/v1/employees/{employee}/badges");
        let listed = self.house.read(&path).await.body;
        let row = |row: &Value| {
            (row["number"].as_str().unwrap().to_owned(), row["from"].clone(), row["until"].clone())
        };
        listed["data"].as_array().unwrap().iter().map(row).collect()
    }

    async fn end(&self, employee: EmployeeId, number: &str, body: Value) -> Answer {
        let path = format!("/v1/employees/{employee}/badges");
        let listed = self.house.read(&path).await.body;
        let rows = listed["data"].as_array().unwrap();
        let holding = rows.iter().find(|row| row["number"] == number).unwrap()["holding"].clone();
        let holding = holding.as_str().unwrap();
        self.house.write(&format!("{path}/{holding}/end"), &body).await
    }

    async fn leave(&self, employee: EmployeeId, body: Value) -> Answer {
        self.house.write(&format!("/v1/employees/{employee}/departure"), &body).await
    }

    /// Who stands on the manifest with which badges, and its version.
    async fn manifest(&self) -> (Vec<(EmployeeId, Vec<String>)>, String) {
        let path = format!("/v1/sites/{}/manifest", self.site);
        let mut asked =
            request(Method::GET, &path, Some(&self.device.token), axum::body::Body::empty());
        let head = self.house.ledger.head().await.unwrap();
        asked.headers_mut().insert("punchtrail-after", head.0.into());
        let page = self.house.ask(asked).await.body;
        let row = |row: &Value| {
            let badges: Vec<String> = serde_json::from_value(row["badges"].clone()).unwrap();
            assert_eq!(row["badge"].as_str(), badges.first().map(String::as_str));
            (row["employee"].as_str().unwrap().parse().unwrap(), badges)
        };
        let rows = page["data"].as_array().unwrap().iter().map(row).collect();
        (rows, page["roster"].as_str().unwrap().to_owned())
    }

    async fn import(&self, text: &str, query: &str) -> Answer {
        let path = format!("/v1/imports/employees{query}");
        let mut asked = request(Method::POST, &path, Some(&self.house.key), text.to_owned().into());
        asked.headers_mut().insert(header::CONTENT_TYPE, "text/csv".parse().unwrap());
        self.house.ask(asked).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_badge_has_one_holder_at_a_time() {
    let scene = Scene::new().await;
    let taken = scene.issue(scene.bo, json!({ "badge": " 17 " })).await;
    assert_eq!(taken.refusal(), "409 conflict");
    let said = taken.body["detail"].as_str().unwrap();
    assert!(said.contains("Ada Kaya") && said.contains("17"), "{said}");
    let handed = json!({ "badge": "17", "from": NOON, "reissue": true });
    let done = scene.issue(scene.bo, handed.clone()).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    let again = scene.issue(scene.bo, handed).await;
    assert_eq!(again.status, StatusCode::OK, "said again it stands: {}", again.text);
    assert_eq!(scene.badges(scene.ada).await[0].2, NOON);
    assert!(scene.badges(scene.bo).await.contains(&("17".to_owned(), json!(NOON), Value::Null)));
    let later = json!({ "badge": "17", "from": MORNING, "reissue": true });
    assert_eq!(scene.issue(scene.ada, later).await.refusal(), "409 conflict");
    let longer = json!({ "because": "lost", "until": EVENING });
    assert_eq!(scene.end(scene.ada, "17", longer).await.refusal(), "409 conflict");
    let earlier = json!({ "because": "returned", "until": MORNING });
    assert_eq!(scene.end(scene.ada, "17", earlier).await.status, StatusCode::OK);
    assert_eq!(scene.badges(scene.ada).await[0].2, MORNING);
    let nobody = EmployeeId(uuid::Uuid::now_v7());
    assert_eq!(scene.issue(nobody, json!({ "badge": "99" })).await.refusal(), "404 not_found");
    let empty = scene.issue(scene.ada, json!({ "badge": " " })).await;
    assert_eq!(empty.refusal(), "422 invalid: /badge invalid_value");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_are_issued_one_badge_at_once_one_holds_it() {
    let scene = Scene::new().await;
    let mut people = Vec::new();
    for n in 0..8 {
        people.push(scene.house.employee(scene.site, &format!("b{n}"), &format!("P {n}")).await);
    }
    let asked = people.iter().map(|one| scene.issue(*one, json!({ "badge": "77", "from": NOON })));
    let answers = futures::future::join_all(asked).await;
    let held = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(held, 1);
    let refused = answers.iter().filter(|answer| answer.status != StatusCode::OK);
    for answer in refused {
        assert_eq!(answer.refusal(), "409 conflict");
        assert!(answer.body["detail"].as_str().unwrap().contains("P "), "{}", answer.text);
    }
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_frees_badges_and_is_corrected_and_taken_back() {
    let scene = Scene::new().await;
    assert_eq!(scene.leave(scene.ada, json!({ "at": NOON })).await.status, StatusCode::OK);
    assert_eq!(scene.badges(scene.ada).await[0].2, NOON);
    let again = scene.leave(scene.ada, json!({})).await;
    assert_eq!(again.status, StatusCode::OK);
    let left = scene.house.read(&format!("/v1/employees/{}", scene.ada)).await.body;
    assert_eq!(left["departed_at"], NOON, "without a time it changes nothing");
    let issued = scene.issue(scene.bo, json!({ "badge": "17", "from": EVENING })).await;
    assert_eq!(issued.status, StatusCode::OK, "{}", issued.text);
    let later = json!({ "at": "2026-03-05T17:00:00.000Z" });
    assert_eq!(scene.leave(scene.ada, later).await.status, StatusCode::OK);
    assert_eq!(scene.badges(scene.ada).await[0].2, EVENING, "up to when the other one got it");
    assert_eq!(scene.leave(scene.ada, json!({ "at": MORNING })).await.status, StatusCode::OK);
    assert_eq!(scene.badges(scene.ada).await[0].2, MORNING);
    let path = format!("/v1/employees/{}/departure", scene.ada);
    let back = scene.house.send(Method::DELETE, &path, Some(&scene.house.key), "").await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    assert_eq!(scene.badges(scene.ada).await[0].2, EVENING);
    let twice = scene.house.send(Method::DELETE, &path, Some(&scene.house.key), "").await;
    assert_eq!(twice.refusal(), "409 conflict");
    assert_eq!(scene.leave(scene.bo, json!({ "at": EVENING })).await.status, StatusCode::OK);
    let path = format!("/v1/employees/{}/departure", scene.bo);
    scene.house.send(Method::DELETE, &path, Some(&scene.house.key), "").await;
    assert!(scene.badges(scene.bo).await.iter().all(|held| held.2.is_null()), "free, so theirs");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_tells_every_badge_and_each_change_is_another_version() {
    let scene = Scene::new().await;
    let (_, mut version) = scene.manifest().await;
    for n in 0..50 {
        let issued = scene.issue(scene.ada, json!({ "badge": format!("A{n}") })).await;
        assert_eq!(issued.status, StatusCode::OK, "{}", issued.text);
    }
    let changed = async |what: &str, version: &mut String| {
        let (rows, now) = scene.manifest().await;
        assert_ne!(&now, version, "{what}");
        *version = now;
        rows
    };
    let rows = changed("issued", &mut version).await;
    let badges = &rows.iter().find(|(one, _)| *one == scene.ada).unwrap().1;
    assert_eq!((badges.len(), badges[0].as_str()), (51, "A49"));
    let reissued = json!({ "badge": "17", "reissue": true });
    assert_eq!(scene.issue(scene.bo, reissued).await.status, StatusCode::OK);
    let rows = changed("handed on", &mut version).await;
    let holders: Vec<_> =
        rows.iter().filter(|(_, held)| held.iter().any(|badge| badge == "17")).collect();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].0, scene.bo);
    let path = format!("/v1/employees/{}/assignments/{}", scene.bo, scene.site);
    let ended = json!({ "from": null, "until": MORNING });
    let done = scene.house.send(Method::PUT, &path, Some(&scene.house.key), ended.to_string());
    assert_eq!(done.await.status, StatusCode::OK);
    let rows = changed("no longer there", &mut version).await;
    assert!(rows.iter().all(|(one, _)| *one != scene.bo));
    let sites = scene.house.read(&format!("/v1/employees/{}", scene.bo)).await.body;
    assert_eq!(sites["sites"], json!([]));
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_taken_on_by_hand_is_renamed_leaves_and_comes_back() {
    let scene = Scene::new().await;
    let new = json!({
        "name": " Cy ", "site": scene.site, "from": MORNING, "badge": "19",
        "external_id": "E-3", "pin": "4711",
    });
    let hired = scene.house.write("/v1/employees", &new).await;
    assert_eq!(hired.status, StatusCode::CREATED, "{}", hired.text);
    let cy = hired.body["employee"].as_str().unwrap().to_owned();
    let again = scene.house.write("/v1/employees", &new).await;
    assert_eq!(again.refusal(), "409 conflict", "the badge is held");
    let of = |rest: &str| format!("/v1/employees/{cy}{rest}");
    let named = json!({ "name": "Cyrus" }).to_string();
    scene.house.send(Method::PUT, &of("/name"), Some(&scene.house.key), named).await;
    let shown = scene.house.read(&of("")).await.body;
    assert_eq!((&shown["name"], &shown["badges"]), (&json!("Cyrus"), &json!(["19"])));
    assert_eq!((&shown["external_id"], &shown["has_pin"]), (&json!("E-3"), &json!(true)));
    let early = scene.house.write(&of("/return"), &json!({ "at": NOON })).await;
    assert_eq!(early.refusal(), "409 conflict");
    scene.house.write(&of("/departure"), &json!({ "at": NOON })).await;
    let back = scene.house.write(&of("/return"), &json!({ "at": EVENING })).await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    let shown = scene.house.read(&of("")).await.body;
    assert_eq!((&shown["departed_at"], &shown["badges"]), (&Value::Null, &json!([])));
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roster_is_one_call_and_its_report_names_people() {
    let scene = Scene::new().await;
    let site = scene.site;
    let head = scene.house.ledger.head().await.unwrap();
    let faulty = format!(
        "badge;name;pin;site;external_id\n17;Ada Kaya;;{site};\n\n17;Eve;;{site};\n\
         4.01E+12;X;;{site};\n"
    );
    let refused = scene.import(&faulty, "").await;
    assert_eq!(refused.refusal(), "422 invalid: /4 invalid_value");
    assert!(refused.body["detail"].as_str().unwrap().contains("Row 5"), "{}", refused.text);
    let looked = scene.import(&faulty, "?dry_run=true").await;
    assert_eq!(looked.status, StatusCode::OK, "{}", looked.text);
    let faults = looked.body["faults"].as_array().unwrap();
    let rows: Vec<u64> = faults.iter().map(|fault| fault["row"].as_u64().unwrap()).collect();
    assert_eq!(rows, [4, 4, 5], "held by another, twice in the file, and damaged");
    let good = format!("badge,name,pin,site\n17,Dora,,{site}\n21,Eve,,{site}\n");
    let would = scene.import(&good, "?dry_run=true&reissue=2026-03-02").await.body;
    assert_eq!((&would["created"], &would["updated"]), (&json!(2), &json!(1)));
    assert!(would["changes"][0]["what"].to_string().contains("Ada Kaya"), "{would}");
    assert_eq!(scene.house.ledger.head().await.unwrap(), head, "nothing was written");
    let done = scene.import(&good, "?reissue=2026-03-02").await.body;
    assert_eq!((&done["created"], &done["updated"]), (&json!(2), &json!(1)), "{done}");
    let again = scene.import(&good, "?reissue=2026-03-02").await.body;
    assert_eq!((&again["imported"], &again["unchanged"]), (&json!(0), &json!(2)), "{again}");
    assert_eq!(scene.badges(scene.ada).await[0].2, "2026-03-01T23:00:00.000Z", "midnight there");
    let name = scene.house.read(&format!("/v1/employees/{}", scene.ada)).await.body;
    assert_eq!(name["name"], "Ada Kaya");
    for (query, wrong) in [("?from=soon", "from"), ("?wage=1", "wage")] {
        let refused = scene.import(&good, query).await;
        assert!(refused.refusal().starts_with(&format!("422 invalid: {wrong} ")), "{query}");
    }
    let json = scene.house.write("/v1/imports/employees", &json!({})).await;
    assert_eq!(json.refusal(), "415 unsupported_media_type");
    scene.house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rosters_at_once_make_each_person_once() {
    let scene = Scene::new().await;
    let roster = |from: u32| -> String {
        let rows = (from..from + 40).map(|n| format!("c{n},Worker {n},,{}\n", scene.site));
        format!("badge,name,pin,site\n{}", rows.collect::<String>())
    };
    let (one, other) = (roster(0), roster(20));
    let (one, other) = tokio::join!(scene.import(&one, ""), scene.import(&other, ""));
    for answer in [&one, &other] {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let made = |answer: &Answer| answer.body["created"].as_u64().unwrap();
    assert_eq!(made(&one) + made(&other), 60);
    scene.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_persons_numbers_are_gone() {
    let scene = Scene::new().await;
    scene.issue(scene.ada, json!({ "badge": "A2" })).await;
    scene.leave(scene.ada, json!({ "at": NOON })).await;
    let retained = json!({ "record_retention_days": 0 }).to_string();
    let policy = format!("/v1/sites/{}/policy", scene.site);
    scene.house.send(Method::PUT, &policy, Some(&scene.house.key), retained).await;
    let path = format!("/v1/employees/{}/erasure", scene.ada);
    let outlook = scene.house.read(&path).await.body;
    assert_eq!(outlook["badges"], 2, "{outlook}");
    let erased = scene.house.write(&path, &json!({})).await;
    assert_eq!(erased.status, StatusCode::ACCEPTED, "{}", erased.text);
    let held: i64 = sqlx::query_scalar("select count(*) from badge_holdings where employee = $1")
        .bind(scene.ada.0)
        .fetch_one(&scene.house.pools.writer)
        .await
        .unwrap();
    assert_eq!(held, 0);
    scene.house.close().await;
}
