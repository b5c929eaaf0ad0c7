//! Punches that people add, and times that nobody sets before they have come, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Answer, Device, House};
use hyper::StatusCode;
use punchtrail_domain::{
    employee::{Employee, EmployeeCommand},
    site::{Site, SiteCommand},
};
use punchtrail_infra::{
    access::credentials,
    ledger::{Metadata, SideWrite},
    people::directory,
};
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

/// A worker who came at eight and whose going nobody saw.
struct Scene {
    house: House,
    site: SiteId,
    employee: EmployeeId,
    device: Device,
    start: PunchId,
}

fn at(text: &str) -> Time {
    format!("2026-11-20T{text}.000Z").parse().unwrap()
}

fn ahead() -> Time {
    Time::from(jiff::Timestamp::now()).plus_millis(600_000)
}

impl Scene {
    async fn new() -> Self {
        let house = House::new().await;
        let site = house.site().await;
        let employee = house.employee(site, "B1", "Ada Lovelace").await;
        let mut device = house.device(site).await;
        let start = press(&house, &mut device, employee, PunchKind::In, at("08:00:00")).await;
        house.settled().await;
        Self { house, site, employee, device, start }
    }

    /// The missing `out`, as a person adds it.
    fn out(&self) -> Value {
        json!({
            "punch": Uuid::now_v7(), "employee": self.employee, "site": self.site, "kind": "out",
            "at": at("16:00:00"), "reason": "forgotten", "note": "The door's list has it",
        })
    }

    async fn enter(&self, body: &Value) -> Answer {
        self.house.write("/v1/punches", body).await
    }

    async fn hours(&self) -> Value {
        let path =
            format!("/v1/timecards?employee={}&from=2026-11-20&to=2026-11-20", self.employee);
        let read = self.house.read(&path).await;
        read.body["data"][0]["cards"][0]["totals"].clone()
    }
}

async fn press(
    house: &House,
    device: &mut Device,
    employee: EmployeeId,
    kind: PunchKind,
    at: Time,
) -> PunchId {
    let capture = device.chain.capture_with(|next| {
        (next.employee, next.badge, next.kind) = (Some(employee), None, kind);
        next.captured_at = at;
    });
    let answer = house.deliver(device, &[device.item(&capture)]).await;
    assert_eq!(answer.outcomes(), ["applied"], "{}", answer.text);
    capture.punch
}

#[tokio::test]
async fn a_person_adds_what_is_missing_and_it_is_marked_for_ever() {
    let scene = Scene::new().await;
    let (house, body) = (&scene.house, scene.out());
    let none = json!({ "accepted_min": 0, "provisional_min": 0 });
    let whole = json!({ "accepted_min": 480, "provisional_min": 0 });
    let preview = house.write("/v1/punches/preview", &body).await.body;
    let day = json!([{ "day": "2026-11-20", "now": none, "then": whole }]);
    assert_eq!(preview["days"], day, "{preview}");
    assert_eq!(
        house.read(&format!("/v1/punches/{}", body["punch"].as_str().unwrap())).await.status,
        StatusCode::NOT_FOUND,
        "nothing was written"
    );

    let added = scene.enter(&body).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.text);
    let head = house.settled().await;
    // The same again, also after it was corrected.
    let path = format!("/v1/punches/{}", body["punch"].as_str().unwrap());
    let amend = json!({ "decision": "amend", "effective_at": at("16:30:00") });
    let amended = house.write(&format!("{path}/decision"), &amend).await;
    assert_eq!(amended.status, StatusCode::OK, "{}", amended.text);
    assert_eq!(amended.body["days"], json!(["2026-11-20"]));
    let after = house.settled().await;
    assert!(after > head);
    for _ in 0..2 {
        let again = scene.enter(&body).await;
        assert_eq!((again.status, &again.body), (StatusCode::OK, &added.body));
    }
    assert_eq!(house.settled().await, after, "nothing was written");
    let shown = house.read(&path).await.body;
    assert_eq!((&shown["entered"], &shown["standing"]), (&json!(true), &json!("accepted")));
    assert_eq!(shown["employee_name"], "Ada Lovelace");
    let captured = house.read(&format!("/v1/punches/{}", scene.start)).await.body;
    assert_eq!(captured["entered"], false);
    let told = house.read(&format!("{path}/explanation")).await.body["sentences"].to_string();
    assert!(told.contains("added") && told.contains("The door's list has it"), "{told}");
    assert!(scene.hours().await.to_string().contains("30600"), "{}", scene.hours().await);
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn what_can_not_be_meant_is_refused_and_changes_nothing() {
    let scene = Scene::new().await;
    let house = &scene.house;
    let body = scene.out();
    assert_eq!(scene.enter(&body).await.status, StatusCode::CREATED);
    let head = house.settled().await;
    let with = |field: &str, value: Value| {
        let mut other = body.clone();
        other[field] = value;
        other
    };
    let fresh = |field: &str, value: Value| {
        let mut other = with(field, value);
        other["punch"] = json!(Uuid::now_v7());
        other
    };
    // Something else under the id says what stands.
    for other in [
        with("kind", json!("in")),
        with("at", json!(at("16:00:01"))),
        with("reason", json!("no_device")),
        with("note", json!("another")),
        with("note", Value::Null),
        with("punch", json!(scene.start)),
    ] {
        let refused = scene.enter(&other).await;
        assert_eq!(refused.refusal(), "409 conflict", "{other}");
        let detail = refused.body["detail"].as_str().unwrap();
        let stands = if other["punch"] == body["punch"] { "a person added" } else { "captured" };
        assert!(detail.contains(stands) && detail.contains("2026-11-20T"), "{detail}");
    }
    for (other, refusal) in [
        (fresh("at", json!(ahead())), "422 invalid: /at invalid_value"),
        (with("punch", json!(Uuid::new_v4())), "422 invalid: /punch invalid_value"),
        (with("punch", json!(Uuid::nil())), "422 invalid: /punch invalid_value"),
        (fresh("employee", json!(Uuid::now_v7())), "422 invalid: /employee unknown"),
        (fresh("site", json!(Uuid::now_v7())), "422 invalid: /site unknown"),
        (fresh("reason", json!("bored")), "422 invalid: /reason invalid_value"),
        (fresh("note", json!("n".repeat(2_001))), "422 invalid: /note invalid_value"),
    ] {
        for path in ["/v1/punches", "/v1/punches/preview"] {
            let refused = house.write(path, &other).await;
            assert_eq!(refused.refusal(), refusal, "{path} {other}");
        }
    }
    let own = credentials::create_operator_key(&house.pools.writer, "Ada", Some(scene.employee));
    let (_, own) = own.await.unwrap();
    let refused = house.post("/v1/punches", Some(own.reveal()), &scene.out()).await;
    assert_eq!(refused.refusal(), "403 own_record");
    let refused = house.post("/v1/punches", Some(&scene.device.token), &scene.out()).await;
    assert_eq!(refused.refusal(), "403 forbidden", "a device captures");
    assert_eq!(house.settled().await, head, "nothing was written");

    // Who was erased is given nothing new; the same as before is the same still.
    let erase = EmployeeCommand::Erase { at: house.ledger.now() };
    let id = scene.employee.to_string();
    house.ledger.execute::<Employee>(&id, erase, &Metadata::default()).await.unwrap();
    let refused = scene.enter(&scene.out()).await;
    assert_eq!(refused.refusal(), "409 conflict");
    assert_eq!(scene.enter(&body).await.status, StatusCode::OK);
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_capture_under_an_entered_id_is_kept_once_as_a_conflict() {
    let mut scene = Scene::new().await;
    let body = scene.out();
    assert_eq!(scene.enter(&body).await.status, StatusCode::CREATED);
    let entered: PunchId = body["punch"].as_str().unwrap().parse().unwrap();
    let employee = scene.employee;
    let capture = scene.device.chain.capture_with(|next| {
        (next.punch, next.employee, next.kind) = (entered, Some(employee), PunchKind::Out);
        next.captured_at = at("15:59:00");
    });
    let item = scene.device.item(&capture);
    let house = &scene.house;
    let first = house.deliver(&scene.device, std::slice::from_ref(&item)).await;
    assert_eq!(first.outcomes(), ["conflict"], "{}", first.text);
    let head = house.settled().await;
    for _ in 0..2 {
        let again = house.deliver(&scene.device, std::slice::from_ref(&item)).await;
        assert_eq!(again.outcomes(), ["conflict"], "{}", again.text);
    }
    assert_eq!(house.settled().await, head, "it is kept once");
    let kept = house.read(&format!("/v1/quarantine?punch={entered}")).await.body;
    assert_eq!(kept["data"].as_array().unwrap().len(), 1, "{kept}");
    let stands = house.read(&format!("/v1/punches/{entered}")).await.body;
    assert_eq!(
        (&stands["entered"], &stands["effective_at"]),
        (&json!(true), &json!(at("16:00:00")))
    );
    // Of its bytes nothing is lost: they are a punch of their own, if a person finds so.
    let path = format!("/v1/quarantine/{}/admit", kept["data"][0]["item"].as_str().unwrap());
    let admit = json!({
        "employee": employee, "site": scene.site, "kind": "out", "captured_at": at("15:59:00"),
    });
    let admitted = house.write(&path, &admit).await;
    assert_eq!(admitted.status, StatusCode::CREATED, "{}", admitted.text);
    assert_eq!(scene.enter(&body).await.status, StatusCode::OK);
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn nobody_sets_a_time_that_has_not_come() {
    let scene = Scene::new().await;
    let house = &scene.house;
    let amend = json!({ "decision": "amend", "effective_at": ahead() });
    for path in ["decision", "decision/preview"] {
        let refused = house.write(&format!("/v1/punches/{}/{path}", scene.start), &amend).await;
        assert_eq!(refused.refusal(), "422 invalid: /effective_at invalid_value", "{path}");
        assert!(refused.body["detail"].as_str().unwrap().contains("by the server's clock"));
    }
    let garbage = scene.device.signed(b"garbage");
    house.deliver(&scene.device, &[garbage]).await;
    house.settled().await;
    let waiting = house.read("/v1/quarantine?state=waiting").await.body;
    let path = format!("/v1/quarantine/{}/admit", waiting["data"][0]["item"].as_str().unwrap());
    let admit = json!({
        "employee": scene.employee, "site": scene.site, "kind": "out", "captured_at": ahead(),
    });
    let refused = house.write(&path, &admit).await;
    assert_eq!(refused.refusal(), "422 invalid: /captured_at invalid_value");
    let dispute = Uuid::now_v7();
    let opened = json!({
        "dispute": dispute, "site": scene.site, "employee": scene.employee,
        "punch": scene.start, "cause": "wrong_time",
    });
    assert_eq!(house.write("/v1/disputes", &opened).await.status, StatusCode::CREATED);
    let head = house.settled().await;
    let path = format!("/v1/disputes/{dispute}/resolution");
    for settle in [
        json!({ "how": "amend", "effective_at": ahead(), "note": "n" }),
        json!({
            "how": "add", "by_punch": Uuid::now_v7(), "effective_at": ahead(), "kind": "out",
            "note": "n",
        }),
    ] {
        let refused = house.write(&path, &settle).await;
        assert_eq!(refused.refusal(), "422 invalid: /effective_at invalid_value", "{settle}");
    }
    let start = scene.start.to_string();
    let later = ahead().to_string();
    let (who, where_) = (scene.employee.to_string(), scene.site.to_string());
    for arguments in [
        vec!["punch", "amend", &start, "--effective-at", &later],
        vec![
            "punch",
            "add",
            "--who",
            &who,
            "--site",
            &where_,
            "--kind",
            "out",
            "--at",
            &later,
            "--reason",
            "forgotten",
        ],
    ] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_punchtrail"))
            .args(&arguments)
            .env("DATABASE_URL", house.database.url())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("has not come yet"), "{said}");
    }
    assert_eq!(house.settled().await, head, "nothing was written");
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_time_of_another_day_shows_both_days_also_where_the_clocks_are_others() {
    let scene = Scene::new().await;
    let house = &scene.house;
    let path = format!("/v1/punches/{}/decision", scene.start);
    let amend = json!({ "decision": "amend", "effective_at": "2026-11-18T08:00:00.000Z" });
    let preview = house.write(&format!("{path}/preview"), &amend).await.body;
    let days = |body: &Value| -> Vec<String> {
        let days = body["days"].as_array().unwrap_or_else(|| panic!("{body}"));
        days.iter().map(|day| day["day"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(days(&preview), ["2026-11-18", "2026-11-20"], "an `in` alone makes no hours");
    let made = house.write(&path, &amend).await.body;
    assert_eq!(made["days"], json!(["2026-11-18", "2026-11-20"]), "{made}");

    // Half a world away the same instant is another day's.
    let far = SiteId(Uuid::now_v7());
    let command = SiteCommand::Register { tz: "Pacific/Auckland".to_owned() };
    let named = || {
        Some(SideWrite::new(move |connection| {
            Box::pin(async move { directory::put_site(connection, far, "Auckland").await })
        }))
    };
    let id = far.to_string();
    house.ledger.execute_with::<Site>(&id, command, &Metadata::default(), named).await.unwrap();
    let mut device = house.device(far).await;
    let there = Time::from(at("10:00:00"));
    let punch = press(house, &mut device, scene.employee, PunchKind::In, there).await;
    house.settled().await;
    let path = format!("/v1/punches/{punch}/decision");
    let amend = json!({ "decision": "amend", "effective_at": at("12:00:00") });
    let head = house.settled().await;
    house.read_after(&format!("/v1/punches/{punch}"), head).await;
    let preview = house.write(&format!("{path}/preview"), &amend).await.body;
    assert_eq!(days(&preview), ["2026-11-20", "2026-11-21"], "{preview}");
    let made = house.write(&path, &amend).await.body;
    assert_eq!(made["days"], json!(["2026-11-20", "2026-11-21"]), "{made}");
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}

#[tokio::test]
async fn a_dispute_is_settled_and_its_punch_added_or_given_away_in_one_write() {
    let mut scene = Scene::new().await;
    let ben = scene.house.employee(scene.site, "B2", "Ben").await;
    let mine = press(&scene.house, &mut scene.device, ben, PunchKind::Out, at("17:00:00")).await;
    scene.house.settled().await;
    let house = &scene.house;
    let open = async |cause: &str, day: Option<&str>, punch: Option<PunchId>| {
        let dispute = Uuid::now_v7();
        let body = json!({
            "dispute": dispute, "site": scene.site, "employee": scene.employee, "cause": cause,
            "day": day, "punch": punch,
        });
        let opened = house.write("/v1/disputes", &body).await;
        assert_eq!(opened.status, StatusCode::CREATED, "{}", opened.text);
        format!("/v1/disputes/{dispute}/resolution")
    };
    let missing = open("missing_punch", Some("2026-11-20"), None).await;
    let added = Uuid::now_v7();
    // What stands under the id, or isn't whole, settles nothing.
    let head = house.settled().await;
    for (by, kind, refusal) in [
        (json!(scene.start), json!("out"), "409 conflict"),
        (json!(Uuid::new_v4()), json!("out"), "422 invalid: /by_punch invalid_value"),
        (json!(added), Value::Null, "422 invalid: /effective_at missing_field"),
    ] {
        let settle = json!({
            "how": "add", "by_punch": by, "effective_at": at("16:00:00"), "kind": kind,
            "note": "n",
        });
        assert_eq!(house.write(&missing, &settle).await.refusal(), refusal, "{settle}");
    }
    let unknown = json!({ "how": "add", "by_punch": Uuid::now_v7(), "note": "n" });
    assert_eq!(house.write(&missing, &unknown).await.refusal(), "422 invalid: /by_punch unknown");
    assert_eq!(house.settled().await, head, "nothing was written");
    let settle = json!({
        "how": "add", "by_punch": added, "effective_at": at("16:00:00"), "kind": "out",
        "reason": "no_device", "note": "The kiosk was down",
    });
    let settled = house.write(&missing, &settle).await;
    assert_eq!(settled.status, StatusCode::OK, "{}", settled.text);
    house.settled().await;
    let shown = house.read(&format!("/v1/punches/{added}")).await.body;
    assert_eq!((&shown["entered"], &shown["employee"]), (&json!(true), &json!(scene.employee)));
    assert!(scene.hours().await.to_string().contains("28800"), "{}", scene.hours().await);
    assert_eq!(house.write(&missing, &settle).await.refusal(), "409 already_ruled");

    // The last `out` is Ada's; Ben's name was tapped.
    let not_theirs = open("missing_punch", Some("2026-11-20"), None).await;
    let settle = json!({
        "how": "reassign", "by_punch": mine, "employee": scene.employee,
        "reason": "wrong_person", "note": "She tapped the wrong name",
    });
    let own = credentials::create_operator_key(&house.pools.writer, "Ben", Some(ben));
    let (_, own) = own.await.unwrap();
    let refused = house.post(&not_theirs, Some(own.reveal()), &settle).await;
    assert_eq!(refused.refusal(), "403 own_record", "nobody gives away their own");
    let settled = house.write(&not_theirs, &settle).await;
    assert_eq!(settled.status, StatusCode::OK, "{}", settled.text);
    house.settled().await;
    let shown = house.read(&format!("/v1/punches/{mine}")).await.body;
    assert_eq!(shown["employee"], json!(scene.employee));
    house.models_are_as_rebuilt().await;
    scene.house.close().await;
}
