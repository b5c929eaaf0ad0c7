//! What operators read and rule, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod common;

use common::{Device, House, request};
use hyper::{Method, StatusCode};
use punchtrail_infra::{access::credentials, testing::sqlx};
use punchtrail_protocol::{EmployeeId, capture::PunchKind};
use serde_json::{Value, json};
use uuid::Uuid;

/// A site with a worker and a device that delivered these kinds of punches.
async fn after(kinds: &[PunchKind]) -> (House, Device, EmployeeId, Vec<String>) {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "B1", "Ada Lovelace").await;
    let mut device = house.device(site).await;
    if kinds.is_empty() {
        return (house, device, employee, Vec::new());
    }
    let items: Vec<Value> = kinds.iter().map(|kind| device.next(employee, *kind)).collect();
    let answer = house.deliver(&device, &items).await;
    let punch = |result: &Value| result["punch"].as_str().unwrap().to_owned();
    let punches = answer.body["results"].as_array().unwrap().iter().map(punch).collect();
    house.settled().await;
    (house, device, employee, punches)
}

#[tokio::test]
async fn punches_are_listed_in_pages_and_by_filters() {
    let kinds = [PunchKind::In, PunchKind::BreakStart, PunchKind::BreakEnd, PunchKind::Out];
    let (house, device, employee, punches) = after(&kinds).await;
    let head = house.settled().await;
    let first = house.read_after("/v1/punches?order=oldest&limit=3", head).await.body;
    assert_eq!(first["data"].as_array().unwrap().len(), 3);
    assert_eq!(first["data"][0]["punch"], punches[0]);
    assert_eq!(first["data"][0]["employee_name"], "Ada Lovelace");
    assert_eq!(first["data"][0]["standing"], "accepted");
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = house.read(&format!("/v1/punches?order=oldest&cursor={cursor}")).await.body;
    assert_eq!(rest["data"][0]["punch"], punches[3]);
    assert_eq!((&rest["has_more"], &rest["next_cursor"]), (&json!(false), &Value::Null));
    let site = device.site();
    for (filter, count) in [
        (format!("employee={employee}"), 4),
        (format!("site={site}&device={}", device.id), 4),
        ("standing=rejected".to_owned(), 0),
        ("from=2000-01-01T00:00:00.000Z&to=2001-01-01T00:00:00.000Z".to_owned(), 0),
        (format!("employee={}", Uuid::new_v4()), 0),
    ] {
        let found = house.read(&format!("/v1/punches?{filter}")).await.body;
        assert_eq!(found["data"].as_array().unwrap().len(), count, "{filter}");
    }
    for (query, refusal) in [
        ("employee=ada", "422 invalid: employee invalid_value"),
        ("standing=maybe", "422 invalid: standing invalid_value"),
        ("from=yesterday", "422 invalid: from invalid_value"),
        ("order=random", "422 invalid: order invalid_value"),
        ("limit=1001", "422 invalid: limit invalid_value"),
        ("color=red", "422 invalid: color unknown_field"),
        ("cursor=zzz", "400 cursor_invalid"),
    ] {
        let answer = house.read(&format!("/v1/punches?{query}")).await;
        assert_eq!(answer.refusal(), refusal, "{query}");
    }
    // A cursor of another list is none of this one.
    let foreign = house.read(&format!("/v1/timeline?employee={employee}&cursor={cursor}")).await;
    assert_eq!(foreign.refusal(), "400 cursor_invalid");
    house.close().await;
}

#[tokio::test]
async fn a_punch_its_events_and_its_explanation_are_shown() {
    let (house, _, _, punches) = after(&[PunchKind::In]).await;
    let punch = &punches[0];
    let shown = house.read(&format!("/v1/punches/{punch}")).await.body;
    assert_eq!(shown["standing"], "accepted");
    let events = house.read(&format!("/v1/punches/{punch}/events")).await.body;
    let types: Vec<_> = events["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event_type"].clone())
        .collect();
    assert_eq!(types, ["Captured", "Synced", "Accepted"]);
    let explained = house.read(&format!("/v1/punches/{punch}/explanation")).await.body;
    assert_eq!(explained["standing"], "accepted");
    assert!(!explained["sentences"].as_array().unwrap().is_empty(), "{explained}");
    let unknown = Uuid::now_v7();
    for path in ["", "/events", "/explanation"] {
        let answer = house.read(&format!("/v1/punches/{unknown}{path}")).await;
        assert_eq!(answer.refusal(), "404 not_found");
        let answer = house.read(&format!("/v1/punches/nonsense{path}")).await;
        assert_eq!(answer.refusal(), "404 not_found");
    }
    house.close().await;
}

#[tokio::test]
async fn a_day_without_punches_is_explained_too() {
    let (house, device, employee, _) = after(&[]).await;
    let mut beat = device.heartbeat();
    beat["outbox"] = json!(12);
    beat["oldest"] = json!("2026-11-21T08:59:03.120Z");
    beat["seq"] = json!(12);
    house.post("/v1/devices/self/heartbeat", Some(&device.token), &beat).await;
    let path = format!("/v1/employees/{employee}/days/2026-11-21/explanation");
    let told = house.read(&path).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text);
    assert!(told.text.contains(&device.id.to_string()), "{}", told.text);
    assert!(told.text.contains("12"), "{}", told.text);
    let bad = house.read(&format!("/v1/employees/{employee}/days/2026-02-30/explanation")).await;
    assert_eq!(bad.refusal(), "404 not_found");
    let nobody = format!("/v1/employees/{}/days/2026-11-21/explanation", Uuid::new_v4());
    assert_eq!(house.read(&nobody).await.refusal(), "404 not_found");
    house.close().await;
}

#[tokio::test]
async fn rulings_change_what_counts_and_are_explained() {
    let (house, _, employee, punches) = after(&[PunchKind::In, PunchKind::Out]).await;
    let decide = async |punch: &str, body: Value| {
        house.write(&format!("/v1/punches/{punch}/decision"), &body).await
    };
    let note = "The bus was late.";
    let amend =
        json!({ "decision": "amend", "effective_at": "2026-11-20T08:00:00.000Z", "note": note });
    let written = decide(&punches[0], amend).await;
    assert_eq!(written.status, StatusCode::OK, "{}", written.text);
    let position = written.body["position"].as_u64().unwrap();
    let shown = house.read_after(&format!("/v1/punches/{}", punches[0]), position).await.body;
    assert_eq!(shown["effective_at"], "2026-11-20T08:00:00.000Z");
    let events = house.read(&format!("/v1/punches/{}/events", punches[0])).await;
    assert!(!events.text.contains(note), "a note stands beside the ledger, not in it");
    let kept: String =
        sqlx::query_scalar("select body from notes").fetch_one(&house.pools.writer).await.unwrap();
    assert_eq!(kept, note);
    let voided = decide(&punches[1], json!({ "decision": "void" })).await;
    let position = voided.body["position"].as_u64().unwrap();
    let timeline = format!("/v1/timeline?employee={employee}");
    let timeline = house.read_after(&timeline, position).await.body;
    assert_eq!(timeline["data"].as_array().unwrap().len(), 1, "a voided punch doesn't count");
    for (body, refusal) in [
        (json!({ "decision": "void" }), "409 conflict"),
        (json!({ "decision": "amend", "kind": "in" }), "409 conflict"),
        (json!({ "decision": "use_server_time" }), "409 conflict"),
        (json!({ "decision": "reject" }), "422 invalid: /reason missing_field"),
        (json!({ "decision": "reject", "reason": "mood" }), "422 invalid: /reason invalid_value"),
        (json!({ "decision": "amend" }), "422 invalid: /effective_at missing_field"),
        (json!({ "decision": "void", "kind": "in" }), "422 invalid: /effective_at invalid_value"),
        (json!({ "decision": "accept", "reason": "mood" }), "422 invalid: /reason invalid_value"),
        (json!({ "decision": "forgive" }), "422 invalid: /decision invalid_value"),
        (
            json!({ "decision": "void", "note": "x".repeat(2_001) }),
            "422 invalid: /note invalid_value",
        ),
        (json!({}), "422 invalid: /decision missing_field"),
    ] {
        assert_eq!(decide(&punches[1], body.clone()).await.refusal(), refusal, "{body}");
    }
    let unknown = decide(&Uuid::now_v7().to_string(), json!({ "decision": "accept" })).await;
    assert_eq!(unknown.refusal(), "404 not_found");
    house.models_are_as_rebuilt().await;
    house.close().await;
}

#[tokio::test]
async fn a_quarantined_item_is_admitted_once_or_dismissed() {
    let (house, mut device, employee, _) = after(&[]).await;
    let item = |text: &[u8]| device.signed(text);
    let items = [item(b"{\"v\":1}"), item(b"garbage")];
    house.deliver(&device, &items).await;
    let head = house.settled().await;
    let list = house.read_after("/v1/quarantine?state=waiting&order=oldest", head).await.body;
    let id = |at: usize| list["data"][at]["item"].as_str().unwrap().to_owned();
    let (first, second) = (id(0), id(1));
    let shown = house.read(&format!("/v1/quarantine/{second}")).await.body;
    assert_eq!(shown["decoded"], "garbage");
    assert_eq!(shown["code"], "bad_capture");
    assert_eq!(shown["capture"], items[1]["capture"]);
    let admit = json!({
        "employee": employee, "site": device.site(), "kind": "in",
        "captured_at": "2026-11-21T09:00:00.000Z", "note": "Seen by the manager",
    });
    let path = format!("/v1/quarantine/{first}/admit");
    let admitted = house.write(&path, &admit).await;
    assert_eq!(admitted.status, StatusCode::CREATED, "{}", admitted.text);
    let position = admitted.body["position"].as_u64().unwrap();
    let punch = admitted.body["punch"].as_str().unwrap();
    let punch = house.read_after(&format!("/v1/punches/{punch}"), position).await.body;
    assert_eq!((&punch["standing"], &punch["kind"]), (&json!("accepted"), &json!("in")));
    assert_eq!(house.write(&path, &admit).await.refusal(), "409 conflict");
    let dismissed = house.write(&format!("/v1/quarantine/{second}/dismiss"), &json!({})).await;
    assert_eq!(dismissed.status, StatusCode::OK);
    let again = house.write(&format!("/v1/quarantine/{second}/dismiss"), &json!({})).await;
    assert_eq!(again.refusal(), "409 conflict");
    let position = dismissed.body["position"].as_u64().unwrap();
    let waiting = house.read_after("/v1/quarantine?state=waiting", position).await.body;
    assert_eq!(waiting["data"], json!([]));
    // The device still gets the same answer.
    let answer = house.deliver(&device, &items).await;
    assert_eq!(answer.outcomes(), ["quarantined bad_capture"; 2]);
    let mut nobody = admit.clone();
    nobody["employee"] = json!(Uuid::new_v4());
    assert_eq!(house.write(&path, &nobody).await.refusal(), "422 invalid: /employee unknown");
    let missing = "0".repeat(64);
    let unknown = house.write(&format!("/v1/quarantine/{missing}/dismiss"), &json!({})).await;
    assert_eq!(unknown.refusal(), "404 not_found");
    assert_eq!(house.read("/v1/quarantine/zz").await.refusal(), "404 not_found");
    let state = house.read("/v1/quarantine?state=lost").await;
    assert_eq!(state.refusal(), "422 invalid: state invalid_value");
    device.chain.next.seq += 1;
    house.models_are_as_rebuilt().await;
    house.close().await;
}

#[tokio::test]
async fn timecards_come_by_person_and_by_site() {
    let (house, device, employee, punches) = after(&[PunchKind::In, PunchKind::Out]).await;
    let mut position = 0;
    for (punch, time) in punches.iter().zip(["08:00", "16:30"]) {
        let body =
            json!({ "decision": "amend", "effective_at": format!("2026-11-20T{time}:00.000Z") });
        let written = house.write(&format!("/v1/punches/{punch}/decision"), &body).await;
        position = written.body["position"].as_u64().unwrap();
    }
    let days = "from=2026-11-20&to=2026-11-20";
    let path = format!("/v1/timecards?employee={employee}&{days}");
    let cards = house.read_after(&path, position).await.body;
    let totals = &cards["data"][0]["cards"][0]["totals"];
    assert_eq!(totals["worked_accepted_s"], 30_600, "{cards}");
    assert_eq!(cards["data"][0]["employee_name"], "Ada Lovelace");
    let site = house.read(&format!("/v1/timecards?site={}&{days}", device.site())).await.body;
    assert_eq!(site["data"], cards["data"]);
    for (query, refusal) in [
        (days.to_owned(), "422 invalid: employee invalid_value"),
        (
            format!("employee={employee}&site={}&{days}", device.site()),
            "422 invalid: employee invalid_value",
        ),
        (format!("employee={employee}&from=2026-11-20"), "422 invalid: to missing_field"),
        (
            format!("employee={employee}&from=2026-11-20&to=2026-11-19"),
            "422 invalid: to invalid_value",
        ),
        (
            format!("employee={employee}&from=2026-01-01&to=2026-12-31"),
            "422 invalid: to invalid_value",
        ),
        (format!("employee={employee}&from=20th&to=2026-11-20"), "422 invalid: from invalid_value"),
    ] {
        let answer = house.read(&format!("/v1/timecards?{query}")).await;
        assert_eq!(answer.refusal(), refusal, "{query}");
    }
    house.close().await;
}

#[tokio::test]
async fn sites_people_and_devices_are_listed_and_changed() {
    let (house, device, employee, _) = after(&[]).await;
    let sites = house.read("/v1/sites").await.body;
    assert_eq!(sites["data"][0]["tz"], "Europe/Berlin");
    let site = device.site();
    assert_eq!(house.read(&format!("/v1/sites/{site}")).await.body, sites["data"][0]);
    let people = house.read(&format!("/v1/employees?site={site}")).await.body;
    assert_eq!(people["data"][0]["name"], "Ada Lovelace");
    let devices = house.read("/v1/devices").await.body;
    assert_eq!(devices["data"][0]["name"], "Front door");
    let left = house.write(&format!("/v1/employees/{employee}/departure"), &json!({})).await;
    let position = left.body["position"].as_u64().unwrap();
    let person = house.read_after(&format!("/v1/employees/{employee}"), position).await.body;
    assert!(person["departed_at"].is_string(), "{person}");
    let put = async |body: Value| {
        let path = format!("/v1/sites/{site}/policy");
        house.send(Method::PUT, &path, Some(&house.key), body.to_string()).await
    };
    assert_eq!(
        put(json!({ "batch_max": 501 })).await.refusal(),
        "422 invalid: /batch_max invalid_value"
    );
    assert_eq!(put(json!({ "batches": 1 })).await.refusal(), "422 invalid: /batches unknown_field");
    let code = house.write(&format!("/v1/sites/{site}/pairing-codes"), &json!({})).await;
    assert_eq!(code.status, StatusCode::CREATED);
    assert_eq!(code.body["code"].as_str().unwrap().len(), 9);
    let nowhere = Uuid::new_v4();
    for (path, body) in [
        (format!("/v1/sites/{nowhere}/pairing-codes"), json!({})),
        (format!("/v1/devices/{nowhere}/revoke"), json!({})),
        (format!("/v1/devices/{nowhere}/site"), json!({ "site": site })),
        (format!("/v1/employees/{nowhere}/departure"), json!({})),
    ] {
        assert_eq!(house.write(&path, &body).await.refusal(), "404 not_found", "{path}");
    }
    for path in ["sites", "devices", "employees"] {
        let answer = house.read(&format!("/v1/{path}/{nowhere}")).await;
        assert_eq!(answer.refusal(), "404 not_found");
    }
    let moved = format!("/v1/devices/{}/site", device.id);
    let unknown = house.write(&moved, &json!({ "site": nowhere })).await;
    assert_eq!(unknown.refusal(), "422 invalid: /site unknown");
    house.close().await;
}

#[tokio::test]
async fn events_are_read_as_they_are_kept() {
    let (house, ..) = after(&[PunchKind::In]).await;
    let head = house.settled().await;
    let mut place = 0;
    let mut seen = Vec::new();
    loop {
        let page = house.read(&format!("/v1/ledger/events?after={place}&limit=3")).await.body;
        seen.extend(page["data"].as_array().unwrap().clone());
        place = page["next_after"].as_u64().unwrap();
        if page["has_more"] == false {
            break;
        }
    }
    let positions: Vec<_> = seen.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=head).collect::<Vec<_>>());
    let kept: Vec<String> =
        sqlx::query_scalar("select payload::text from events order by position")
            .fetch_all(&house.pools.writer)
            .await
            .unwrap();
    let shown: Vec<_> = seen.iter().map(|event| event["payload"].as_str().unwrap()).collect();
    assert_eq!(shown, kept);
    let state = house.read("/v1/ledger").await.body;
    assert_eq!(state["position"], head);
    assert!(state["followers"].as_array().unwrap().len() >= 8, "{state}");
    let beyond = house.read("/v1/ledger/events?after=18446744073709551615").await;
    assert_eq!(beyond.refusal(), "422 invalid: after invalid_value");
    house.close().await;
}

#[tokio::test]
async fn a_read_beyond_the_head_is_refused() {
    let (house, ..) = after(&[]).await;
    let head = house.settled().await;
    for (value, refusal) in [
        ((head + 1).to_string(), "422 invalid: punchtrail-after beyond_head"),
        ("soon".to_owned(), "422 invalid: punchtrail-after invalid_value"),
        ("-1".to_owned(), "422 invalid: punchtrail-after invalid_value"),
    ] {
        let mut request =
            request(Method::GET, "/v1/punches", Some(&house.key), axum::body::Body::empty());
        request.headers_mut().insert("punchtrail-after", value.parse().unwrap());
        assert_eq!(house.ask(request).await.refusal(), refusal);
    }
    house.close().await;
}

#[tokio::test]
async fn a_cursor_is_good_on_its_own_walk_and_nowhere_else() {
    let house = House::new().await;
    let sites = [house.site().await, house.site().await];
    let mut people = Vec::new();
    for badge in ["B-1", "B-2"] {
        people.push(house.employee(sites[0], badge, "Ada").await);
    }
    let mut devices = [house.device(sites[0]).await, house.device(sites[0]).await];
    let (path, device) = (format!("/v1/sites/{}/punches", sites[0]), &mut devices[0]);
    let mut items = vec![json!({"capture": "1", "signature": "1"})];
    items.push(json!({"capture": "2", "signature": "2"}));
    for _ in 0..2 {
        items.extend(people.iter().map(|person| device.next(*person, PunchKind::In)));
    }
    house.deliver(device, &items).await;
    let head = house.settled().await;
    let person = people[0];
    let lists = [
        "/v1/punches?".to_owned(),
        "/v1/punches?order=oldest&".to_owned(),
        format!("/v1/punches?employee={person}&"),
        format!("/v1/punches?device={}&", devices[0].id),
        format!("/v1/timeline?employee={person}&"),
        "/v1/sites?".to_owned(),
        "/v1/devices?".to_owned(),
        format!("/v1/devices?site={}&", sites[0]),
        "/v1/employees?".to_owned(),
        format!("/v1/employees?site={}&", sites[0]),
        "/v1/quarantine?".to_owned(),
        format!("/v1/timecards?site={}&from=2020-01-01&to=2020-01-31&", sites[0]),
    ];
    let (_, other) =
        credentials::create_operator_key(&house.pools.writer, "other", None).await.unwrap();
    let (mut cursors, key) = (Vec::new(), house.key.as_str());
    for list in &lists {
        let first = house.read_after(&format!("{list}limit=1"), head).await;
        assert_eq!(first.status, StatusCode::OK, "{list}: {}", first.text);
        let Some(cursor) = first.body["next_cursor"].as_str() else { continue };
        cursors.push((list, cursor.to_owned()));
    }
    assert!(cursors.len() >= lists.len() - 1, "{cursors:?}");
    for (of, cursor) in &cursors {
        for list in &lists {
            let page = house.get(&format!("{list}limit=2&cursor={cursor}"), Some(key)).await;
            if list == *of {
                assert_eq!(page.status, StatusCode::OK, "{list}: {}", page.text);
            } else {
                assert_eq!(page.refusal(), "400 cursor_invalid", "{of} on {list}");
            }
        }
        let theirs = house.get(&format!("{of}limit=1&cursor={cursor}"), Some(other.reveal())).await;
        assert_eq!(theirs.refusal(), "400 cursor_invalid", "{of}");
        let feed = house.get(&format!("{path}?since={cursor}"), Some(&devices[0].token)).await;
        assert_eq!(feed.refusal(), "400 cursor_invalid", "{of}");
    }
    let feed = house.get(&format!("{path}?limit=1"), Some(&devices[0].token)).await;
    let since = feed.body["next_cursor"].as_str().unwrap();
    let theirs = house.get(&format!("{path}?since={since}"), Some(&devices[1].token)).await;
    assert_eq!(theirs.refusal(), "400 cursor_invalid");
    let own = house.get(&format!("{path}?since={since}"), Some(&devices[0].token)).await;
    assert_eq!(own.status, StatusCode::OK, "{}", own.text);
    house.close().await;
}
