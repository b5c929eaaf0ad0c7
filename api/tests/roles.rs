//! The table of who may call what, walked over every route there is: as nobody, as every role, with
//! keys of every scope; and a manager of one site at every object of another.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod callers;
mod common;

use std::collections::BTreeSet;

use callers::{Person, sign_in_as};
use common::{Answer, House, request};
use hyper::{Method, StatusCode, header};
use punchtrail_api::{
    auth::table::{RULES_OF_ROUTES, Reach, Who, rule, scopes},
    router::described,
};
use punchtrail_infra::access::{
    keys::{self, NewKey},
    roles::Role,
    trail::Doer,
};
use punchtrail_protocol::{SiteId, capture::PunchKind};
use serde_json::{Value, json};
use strum::VariantArray as _;

/// Every route that isn't a device's, as the description of the API has them.
fn routes() -> Vec<(Method, String)> {
    let api = serde_json::to_value(described()).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let of_device = operation["security"].to_string().contains("device_token")
                || ["/v1/devices/enroll", "/v1/devices/return"].contains(&path.as_str());
            if !of_device && !["/livez", "/readyz"].contains(&path.as_str()) {
                let method = method.to_uppercase().parse().unwrap();
                routes.push((method, path.clone()));
            }
        }
    }
    routes
}

/// A path with something in each of its places that is nothing's id.
fn filled(path: &str) -> String {
    let nobody = "00000000-0000-7000-8000-000000000000";
    let digest = "0".repeat(64);
    path.replace("{sha256}", &digest)
        .replace("{item}", &digest)
        .replace("{holding}", &digest)
        .replace("{note}", &digest)
        .replace("{day}", "2026-11-01")
        .replace("{role}", "payroll")
        .split('/')
        .map(|part| if part.starts_with('{') { nobody } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[test]
fn every_route_has_a_row_and_every_row_a_route() {
    let routes: BTreeSet<_> =
        routes().into_iter().map(|(method, path)| (method.to_string(), path)).collect();
    let rows: BTreeSet<_> =
        RULES_OF_ROUTES.iter().map(|rule| (rule.method.to_owned(), rule.path.to_owned())).collect();
    let (without, beyond) = (&routes - &rows, &rows - &routes);
    assert!(without.is_empty() && beyond.is_empty(), "no row: {without:?}; no route: {beyond:?}");
}

async fn called(house: &House, person: &Person, (method, path): (&Method, &str)) -> Answer {
    let body = if *method == Method::GET { String::new() } else { "{}".to_owned() };
    let mut request = request(method.clone(), &filled(path), None, body.into());
    let json = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    person.put_on(&mut request);
    house.ask(request).await
}

#[tokio::test]
async fn whoever_may_ask_is_told_which_methods_there_are() {
    let house = House::new().await;
    let open = RULES_OF_ROUTES.iter().filter(|rule| rule.who == Who::Anybody);
    for rule in open {
        for person in [Person::Nobody, Person::Key(house.key.clone())] {
            for method in [Method::PUT, Method::DELETE, Method::OPTIONS] {
                let answer = called(&house, &person, (&method, rule.path)).await;
                let refusal = answer.refusal();
                assert_eq!(refusal, "405 method_not_allowed", "{method} {}", rule.path);
                let allowed = answer.headers[header::ALLOW].to_str().unwrap();
                assert!(allowed.split(',').any(|one| one == rule.method), "{allowed}");
            }
        }
    }
    let closed = called(&house, &Person::Nobody, (&Method::PUT, "/v1/punches")).await;
    assert_eq!(closed.refusal(), "401 unauthenticated");
    let key = Person::Key(house.key.clone());
    let admins = called(&house, &key, (&Method::PUT, "/v1/punches"));
    assert_eq!(admins.await.refusal(), "405 method_not_allowed");
    house.close().await;
}

/// Whether the call was let through to its handler.
fn was_let(answer: &Answer) -> bool {
    let code = answer.body["code"].as_str().unwrap_or_default();
    // An auditor without leave is let through to what shows people, and refused there.
    let of_names = answer.body["detail"].as_str().is_some_and(|text| text.contains("names:read"));
    !matches!(answer.status, StatusCode::UNAUTHORIZED) && (code != "forbidden" || of_names)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_as_nobody_and_as_each_role() {
    let house = House::new().await;
    let site = house.site().await;
    let table: Vec<_> = routes();
    for (method, path) in &table {
        let open = rule(method, path).unwrap().who == Who::Anybody;
        let answer = called(&house, &Person::Nobody, (method, path)).await;
        assert_eq!(answer.status == StatusCode::UNAUTHORIZED, !open, "{method} {path}");
        let garbled = Person::Key("ptk_0123456789012345678901234567890123456789012".to_owned());
        let answer = called(&house, &garbled, (method, path)).await;
        assert_eq!(answer.status == StatusCode::UNAUTHORIZED, !open, "{method} {path}");
    }
    for role in Role::VARIANTS {
        let sites: &[SiteId] = if role.has_sites() { &[site] } else { &[] };
        let login = format!("{}@example.org", role.as_str());
        let mut person = sign_in_as(&house, &login, *role, sites).await;
        for (method, path) in &table {
            let rule = rule(method, path).unwrap();
            let allowed = rule.allows(*role) && (rule.reach != Reach::All || !role.has_sites());
            let answer = called(&house, &person, (method, path)).await;
            assert_eq!(was_let(&answer), allowed, "{role:?} {method} {path}: {}", answer.text);
            assert!(!answer.status.is_server_error(), "{role:?} {method} {path}: {}", answer.text);
            // Some of them end the session.
            if ["/v1/session", "/v1/sign-in"].iter().any(|of| path.starts_with(of)) {
                person = sign_in_as(&house, &login, *role, sites).await;
            }
        }
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_with_a_key_of_each_scope() {
    let house = House::new().await;
    let all = Person::Key(house.key.clone());
    for (method, path) in &routes() {
        let rule = rule(method, path).unwrap();
        let answer = called(&house, &all, (method, path)).await;
        let allowed = rule.who != Who::User;
        assert_eq!(was_let(&answer), allowed, "{method} {path}: {}", answer.text);
    }
    for scope in scopes() {
        let new = NewKey { name: scope, scopes: Some(vec![scope.to_owned()]), ..NewKey::default() };
        let writer = &house.pools.writer;
        let (_, secret) = keys::create(writer, new, &Doer::command_line()).await.unwrap();
        let key = Person::Key(secret.reveal().to_owned());
        for (method, path) in &routes() {
            let rule = rule(method, path).unwrap();
            let allowed = rule.scope == Some(scope) || rule.who == Who::Anybody;
            let answer = called(&house, &key, (method, path)).await;
            assert_eq!(was_let(&answer), allowed, "{scope} {method} {path}: {}", answer.text);
        }
    }
    house.close().await;
}

/// One shop with all that there is in one, and the manager of another.
#[tokio::test(flavor = "multi_thread")]
async fn a_manager_of_one_site_finds_nothing_of_another() {
    let house = House::new().await;
    let (own, other) = (house.site().await, house.site().await);
    let mut device = house.device(other).await;
    let mut own_device = house.device(own).await;
    let employee = house.employee(other, "17", "Ada Other").await;
    let own_employee = house.employee(own, "18", "Bea Own").await;
    let items = [device.next(employee, PunchKind::In), device.signed(b"not a capture")];
    let punch = punch_of(&items[0]);
    assert_eq!(house.deliver(&device, &items).await.status, StatusCode::OK);
    let own_items = [own_device.next(own_employee, PunchKind::In)];
    assert_eq!(house.deliver(&own_device, &own_items).await.status, StatusCode::OK);
    house.settled().await;
    let item = house.read("/v1/quarantine").await.body["data"][0]["item"].clone();
    let item = item.as_str().unwrap().to_owned();
    let dispute = uuid::Uuid::now_v7();
    let body = json!({
        "dispute": dispute, "site": other, "employee": employee, "punch": punch,
        "cause": "wrong_time", "text": "It was nine",
    });
    let opened = house.write("/v1/disputes", &body).await;
    assert_eq!(opened.status, StatusCode::CREATED, "{}", opened.text);
    house.settled().await;

    let manager = sign_in_as(&house, "own@example.org", Role::Manager, &[own]).await;
    let path = |pattern: &str| {
        filled(
            &pattern
                .replace("{punch}", &punch)
                .replace("{employee}", &employee.to_string())
                .replace("{device}", &device.id.to_string())
                .replace("{site}", &other.to_string())
                .replace("{item}", &item)
                .replace("{dispute}", &dispute.to_string())
                .replace("{day}", "2026-11-01"),
        )
    };
    let body_of = |pattern: &str| match pattern {
        "/v1/punches/{punch}/decision" | "/v1/punches/{punch}/decision/preview" => {
            json!({"decision": "accept"})
        }
        "/v1/quarantine/{item}/admit" => json!({
            "employee": own_employee, "site": own, "kind": "in",
            "captured_at": "2026-11-01T08:00:00.000Z",
        }),
        "/v1/disputes/{dispute}/resolution" => json!({"how": "dismiss", "note": "no"}),
        "/v1/disputes/{dispute}/answers" | "/v1/disputes/{dispute}/reopening" => {
            json!({"note": "no"})
        }
        "/v1/devices/{device}/commands" => json!({"type": "sync_employees"}),
        "/v1/employees/{employee}/name" => json!({"name": "n"}),
        "/v1/employees/{employee}/pin" => json!({"pin": "4711"}),
        "/v1/employees/{employee}/badges" => json!({"badge": "b"}),
        "/v1/employees/{employee}/badges/{holding}/end" => json!({"because": "lost"}),
        "/v1/employees/{employee}/face/consent" => json!({"notice": "1", "language": "en"}),
        "/v1/employees/{employee}/face/head-covering" => json!({"expected": true}),
        "/v1/punches/{punch}/person" | "/v1/punches/{punch}/person/preview" => {
            json!({"employee": own_employee})
        }
        "/v1/punches/{punch}/shift" | "/v1/punches/{punch}/shift/preview" => {
            json!({"out": punch})
        }
        _ => json!({}),
    };
    let mut walked = 0;
    for rule in RULES_OF_ROUTES {
        let of_site = rule.reach == Reach::Own && rule.path.contains('{');
        if !of_site || !rule.allows(Role::Manager) {
            continue;
        }
        let method: Method = rule.method.parse().unwrap();
        let body = if method == Method::GET { Value::Null } else { body_of(rule.path) };
        let answer = manager.ask(&house, method, &path(rule.path), &body).await;
        assert_eq!(answer.refusal(), "404 not_found", "{} {}", rule.method, rule.path);
        walked += 1;
    }
    assert!(walked > 25, "{walked}");

    // What may be asked for by a parameter or in a body.
    for path in [
        "/v1/punches",
        "/v1/reviews",
        "/v1/reviews/counts",
        "/v1/disputes",
        "/v1/devices",
        "/v1/employees",
        "/v1/figures",
    ] {
        let asked = manager.get(&house, &format!("{path}?site={other}")).await;
        assert_eq!(asked.refusal(), "404 not_found", "{path}");
    }
    for path in [
        format!("/v1/timecards?site={other}&from=2026-11-01&to=2026-11-30"),
        format!("/v1/timecards?employee={employee}&from=2026-11-01&to=2026-11-30"),
        format!("/v1/timeline?employee={employee}"),
    ] {
        assert_eq!(manager.get(&house, &path).await.refusal(), "404 not_found", "{path}");
    }
    let taken_on = json!({"name": "n", "site": other});
    let taken_on = manager.ask(&house, Method::POST, "/v1/employees", &taken_on).await;
    assert_eq!(taken_on.refusal(), "404 not_found");
    // Nobody's badge is taken from somebody elsewhere, and who that is isn't said.
    let badges = format!("/v1/employees/{own_employee}/badges");
    let theirs = manager.ask(&house, Method::POST, &badges, &json!({"badge": "17"})).await;
    assert_eq!(theirs.refusal(), "409 conflict");
    assert!(theirs.text.contains("held by somebody else"), "{}", theirs.text);
    assert!(!theirs.text.contains("Ada"), "{}", theirs.text);
    let handed_on = json!({"badge": "17", "reissue": true});
    let handed_on = manager.ask(&house, Method::POST, &badges, &handed_on).await;
    assert_eq!(handed_on.refusal(), "404 not_found");
    let about_theirs = json!({
        "dispute": uuid::Uuid::now_v7(), "site": own, "employee": own_employee, "punch": punch,
        "cause": "wrong_time", "text": "mine",
    });
    let opened = manager.ask(&house, Method::POST, "/v1/disputes", &about_theirs).await;
    assert_eq!(opened.refusal(), "404 not_found");
    let many = json!({
        "referred_for": "near_duplicate",
        "items": [{"punch": punch, "expected_sequence": 1}],
    });
    let ruled = manager.ask(&house, Method::POST, "/v1/reviews/accept", &many).await;
    assert_eq!(ruled.body["data"][0]["code"], "not_found", "{}", ruled.text);

    // Lists show what is theirs and nothing else, of one site and of several.
    let both = sign_in_as(&house, "both@example.org", Role::Manager, &[own, other]).await;
    for (path, key, mine) in [
        ("/v1/punches", "punch", punch_of(&own_items[0])),
        ("/v1/employees", "employee", own_employee.to_string()),
        ("/v1/devices", "device", own_device.id.to_string()),
        ("/v1/sites", "site", own.to_string()),
    ] {
        let listed = manager.get(&house, path).await;
        let rows = listed.body["data"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{path}: {}", listed.text);
        assert_eq!(rows[0][key], mine, "{path}");
        let listed = both.get(&house, path).await;
        assert_eq!(listed.body["data"].as_array().unwrap().len(), 2, "{path}: {}", listed.text);
    }
    for path in ["/v1/quarantine", "/v1/disputes"] {
        let listed = manager.get(&house, path).await;
        assert_eq!(listed.body["data"], json!([]), "{path}");
        let listed = both.get(&house, path).await;
        assert_eq!(listed.body["data"].as_array().unwrap().len(), 1, "{path}: {}", listed.text);
    }
    assert_eq!(manager.get(&house, "/v1/figures").await.status, StatusCode::OK);
    assert_eq!(both.get(&house, "/v1/figures").await.refusal(), "422 invalid: site missing_field");
    house.close().await;
}

fn punch_of(item: &Value) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let bytes = URL_SAFE_NO_PAD.decode(item["capture"].as_str().unwrap()).unwrap();
    let capture: Value = serde_json::from_slice(&bytes).unwrap();
    capture["punch"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_sees_names_by_an_admins_grant_only() {
    let house = House::new().await;
    let site = house.site().await;
    let mut device = house.device(site).await;
    let employee = house.employee(site, "17", "Ada Lovelace").await;
    let item = device.next(employee, PunchKind::In);
    let punch = punch_of(&item);
    house.deliver(&device, &[item]).await;
    let head = house.settled().await;
    let note = json!({"decision": "void", "reason": "test", "note": "Ada said so"});
    let voided = house.write(&format!("/v1/punches/{punch}/decision"), &note).await;
    assert_eq!(voided.status, StatusCode::OK, "{head}: {}", voided.text);
    house.settled().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let auditor = sign_in_as(&house, "auditor@example.org", Role::Auditor, &[]).await;
    let own = auditor.get(&house, "/v1/session").await;
    let user = own.body["user"].as_str().unwrap().to_owned();
    let pages = [
        "/v1/punches".to_owned(),
        format!("/v1/punches/{punch}"),
        format!("/v1/punches/{punch}/explanation"),
        "/v1/employees".to_owned(),
        format!("/v1/employees/{employee}"),
        format!("/v1/employees/{employee}/days/2026-11-01/explanation"),
        format!("/v1/timeline?employee={employee}"),
        format!("/v1/timecards?employee={employee}&from=2026-11-01&to=2026-11-30"),
    ];
    let photo = format!("/v1/photos/{}", "0".repeat(64));
    for path in &pages {
        let page = auditor.get(&house, path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        assert!(
            !page.text.contains("Ada") && !page.text.contains("\"17\""),
            "{path} {}",
            page.text
        );
    }
    assert_eq!(auditor.get(&house, &photo).await.refusal(), "403 forbidden");
    // Nobody gives it to themselves, and none is without a reason or an end.
    let grants = format!("/v1/users/{user}/grants");
    let until = |hours| {
        punchtrail_protocol::Time::from(
            jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours),
        )
    };
    let grant = json!({"reason": "Complaint 12", "expires_at": until(1)});
    let asked = auditor.ask(&house, Method::POST, &grants, &grant).await;
    assert_eq!(asked.refusal(), "403 forbidden");
    for wrong in [
        json!({"reason": " ", "expires_at": until(1)}),
        json!({"reason": "x", "expires_at": until(-1)}),
        json!({"reason": "x", "expires_at": until(24 * 40)}),
    ] {
        let asked = admin.ask(&house, Method::POST, &grants, &wrong).await;
        assert_eq!(asked.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", asked.text);
    }
    let given = admin.ask(&house, Method::POST, &grants, &grant).await;
    assert_eq!(given.status, StatusCode::CREATED, "{}", given.text);
    let shown = auditor.get(&house, &pages[1]).await;
    assert_eq!(shown.body["employee_name"], "Ada Lovelace");
    let told = auditor.get(&house, &pages[2]).await;
    assert!(told.text.contains("Ada said so"), "{}", told.text);
    assert_eq!(auditor.get(&house, &photo).await.refusal(), "404 not_found");
    let grant = format!("/v1/grants/{}", given.body["grant"].as_str().unwrap());
    let ended = admin.ask(&house, Method::DELETE, &grant, &Value::Null).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT, "{}", ended.text);
    assert!(!auditor.get(&house, &pages[1]).await.text.contains("Ada"));
    let trail = auditor.get(&house, "/v1/audit?limit=2").await;
    let acts: Vec<_> = trail.body["data"].as_array().unwrap().iter().map(|l| &l["act"]).collect();
    assert_eq!(acts, ["grant_ended", "grant_made"], "{}", trail.text);
    assert!(!trail.text.contains("Complaint"), "the trail holds no texts");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_held_to_its_sites_and_to_its_time() {
    let house = House::new().await;
    let (own, other) = (house.site().await, house.site().await);
    house.employee(own, "17", "Ada Lovelace").await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1_500);
    let body = json!({
        "name": "shop", "scopes": ["sites:read", "employees:read"], "sites": [own],
        "expires_at": punchtrail_protocol::Time::from(soon),
    });
    house.settled().await;
    let made = admin.ask(&house, Method::POST, "/v1/keys", &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let key = Person::Key(made.body["token"].as_str().unwrap().to_owned());
    let sites = key.get(&house, "/v1/sites").await;
    if jiff::Timestamp::now() < soon {
        assert_eq!(sites.body["data"].as_array().map(Vec::len), Some(1), "{}", sites.text);
        let people = key.get(&house, "/v1/employees").await;
        assert!(people.status == StatusCode::UNAUTHORIZED || !people.text.contains("Ada"));
    }
    let theirs = key.get(&house, &format!("/v1/sites/{other}")).await;
    assert!([404, 401].contains(&theirs.status.as_u16()), "{}", theirs.text);
    // It expires while a node remembers it as good, and opens nothing from that moment.
    punchtrail_testkit::eventually(
        "the key's time to be over",
        punchtrail_testkit::PATIENCE,
        async || {
            let over = jiff::Timestamp::now() > soon;
            Ok(over.then_some(()))
        },
    )
    .await
    .unwrap();
    assert_eq!(key.get(&house, "/v1/sites").await.refusal(), "401 unauthenticated");
    for wrong in [
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["everything"]}),
        json!({"name": "x", "scopes": ["sites:read"], "sites": []}),
        json!({"name": "x", "scopes": ["sites:read"], "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "", "scopes": ["sites:read"]}),
    ] {
        let answer = admin.ask(&house, Method::POST, "/v1/keys", &wrong).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong} {}", answer.text);
    }
    house.close().await;
}
