//! Signing in and out, links, second factors, admins among themselves, and what the trail says of
//! it; over HTTP, and on two nodes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod callers;
mod common;

use std::collections::BTreeSet;

use callers::{PASSWORD, Person, cookies, sign_in, sign_in_as, user};
use common::{Answer, House, ask, request};
use hyper::{Method, StatusCode, header};
use punchtrail_infra::access::{
    roles::Role,
    sign_in::{
        self as entry, Along, Asking, SignInError, TRIES_AT_ACCOUNT_MAX, TRIES_OF_ADDRESS_MAX,
    },
    trail::Doer,
    users,
};
use punchtrail_protocol::capture::PunchKind;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret, Totp};

const OWN: &str = "/v1/session";

fn changed(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_new_at_each_sign_in_and_ends_everywhere_at_once() {
    let house = House::new().await;
    let (second, stop, running) = house.second().await;
    user(&house, "ada@example.org", Role::Admin, &[]).await;
    let entered = sign_in(&house, "Ada@Example.org ", PASSWORD, "").await;
    assert_eq!(entered.status, StatusCode::OK, "{}", entered.text);
    for cookie in entered.headers.get_all(header::SET_COOKIE) {
        let cookie = cookie.to_str().unwrap();
        for part in ["__Host-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
    let first = cookies(&entered);
    let on_second = async |cookies: &str| {
        let mut request = request(Method::GET, OWN, None, axum::body::Body::empty());
        request.headers_mut().insert(header::COOKIE, cookies.parse().unwrap());
        ask(second, request).await
    };
    assert_eq!(on_second(&first).await.status, StatusCode::OK);
    let kept: Vec<Vec<u8>> = sqlx_scalar(&house, "select token_hash from sessions").await;
    assert_eq!(kept.len(), 1);
    assert!(!first.as_bytes().windows(kept[0].len()).any(|part| part == kept[0]));
    // A session that a browser came with is no session any more, whoever put it there.
    let again = sign_in(&house, "ada@example.org", PASSWORD, &first).await;
    let fresh = cookies(&again);
    assert_ne!(first, fresh);
    assert_eq!(on_second(&first).await.refusal(), "401 unauthenticated");
    let browser = Person::Browser(fresh.clone());
    let own = browser.get(&house, OWN).await;
    assert_eq!(own.body["role"], "admin", "{}", own.text);
    changed(&browser.ask(&house, Method::DELETE, OWN, &Value::Null).await);
    assert_eq!(on_second(&fresh).await.refusal(), "401 unauthenticated");
    assert_eq!(browser.get(&house, OWN).await.refusal(), "401 unauthenticated");
    // Nor is it a key, nor a key a session.
    let entered = sign_in(&house, "ada@example.org", PASSWORD, "").await;
    let cookies = cookies(&entered);
    let token = cookies.split_once('=').unwrap().1.split(';').next().unwrap().to_owned();
    assert_eq!(house.get("/v1/punches", Some(&token)).await.refusal(), "401 unauthenticated");
    let key = Person::Browser(format!("__Host-punchtrail={}", house.key));
    assert_eq!(key.get(&house, "/v1/punches").await.refusal(), "401 unauthenticated");
    let twice = Person::Browser(format!("{cookies}; __Host-punchtrail={token}"));
    assert_eq!(twice.get(&house, OWN).await.refusal(), "401 unauthenticated");
    // A device's route is none of a person's.
    let signed_in = Person::Browser(cookies);
    let beat = signed_in.ask(&house, Method::POST, "/v1/devices/self/heartbeat", &json!({})).await;
    assert_eq!(beat.refusal(), "403 forbidden");
    stop.cancel();
    running.await.unwrap();
    house.close().await;
}

async fn sqlx_scalar<T>(house: &House, statement: &str) -> Vec<T>
where
    T: Send + Unpin,
    (T,): for<'r> punchtrail_infra::testing::sqlx::FromRow<
            'r,
            punchtrail_infra::testing::sqlx::postgres::PgRow,
        >,
{
    let rows: Vec<(T,)> = punchtrail_infra::testing::sqlx::query_as(statement)
        .fetch_all(&house.pools.writer)
        .await
        .unwrap();
    rows.into_iter().map(|(value,)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_time_its_password_its_role_and_its_user() {
    let house = House::new().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let one = user(&house, "ada@example.org", Role::Payroll, &[]).await.id;
    let ada = async || sign_in_as(&house, "ada@example.org", Role::Payroll, &[]).await;
    let is_out = async |person: &Person| {
        assert_eq!(person.get(&house, OWN).await.refusal(), "401 unauthenticated");
    };
    for (over, column) in [("13 hours", "created_at"), ("3 hours", "seen_at")] {
        let person = ada().await;
        let statement = format!(
            "update sessions set {column} = now() - interval '{over}' where user_id = '{}'",
            one.0
        );
        run(&house, &statement).await;
        is_out(&person).await;
    }
    // The password: every session ends, and the browser that changed it goes on by a new one.
    let (here, elsewhere) = (ada().await, ada().await);
    let new = "four doors, one key";
    let wrong = json!({"current": "none of theirs", "password": new});
    let path = "/v1/session/password";
    let refused = here.ask(&house, Method::POST, path, &wrong).await;
    assert_eq!(refused.refusal(), "422 invalid: /current invalid_value");
    for weak in ["short", "passwordpassword", "ada@example.org1"] {
        let weak = json!({"current": PASSWORD, "password": weak});
        let refused = here.ask(&house, Method::POST, path, &weak).await;
        assert_eq!(refused.refusal(), "422 invalid: /password invalid_value");
    }
    let right = json!({"current": PASSWORD, "password": new});
    let done = here.ask(&house, Method::POST, path, &right).await;
    changed(&done);
    is_out(&here).await;
    is_out(&elsewhere).await;
    let here = Person::Browser(cookies(&done));
    assert_eq!(here.get(&house, OWN).await.status, StatusCode::OK);
    let old = sign_in(&house, "ada@example.org", PASSWORD, "").await;
    assert_eq!(old.refusal(), "401 sign_in_refused");
    // A role, being kept out, all sessions ended by an admin.
    let in_again = async || {
        let entered = sign_in(&house, "ada@example.org", new, "").await;
        assert_eq!(entered.status, StatusCode::OK, "{}", entered.text);
        Person::Browser(cookies(&entered))
    };
    let of = |what: &str| format!("/v1/users/{one}/{what}");
    let person = in_again().await;
    let role = json!({"role": "auditor"});
    changed(&admin.ask(&house, Method::PUT, &of("role"), &role).await);
    is_out(&person).await;
    let person = in_again().await;
    assert_eq!(person.get(&house, OWN).await.body["role"], "auditor");
    let listed = admin.get(&house, &of("sessions")).await;
    assert_eq!(listed.body["data"].as_array().unwrap().len(), 1, "{}", listed.text);
    changed(&admin.ask(&house, Method::DELETE, &of("sessions"), &Value::Null).await);
    is_out(&person).await;
    let person = in_again().await;
    changed(&admin.ask(&house, Method::PUT, &of("disabled"), &json!({"disabled": true})).await);
    is_out(&person).await;
    let kept_out = sign_in(&house, "ada@example.org", new, "").await;
    assert_eq!(kept_out.refusal(), "401 sign_in_refused");
    changed(&admin.ask(&house, Method::PUT, &of("disabled"), &json!({"disabled": false})).await);
    let person = in_again().await;
    // Their own list, and one of it ended from elsewhere.
    let other = in_again().await;
    let listed = person.get(&house, "/v1/sessions").await;
    let session = listed.body["data"][0]["session"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{session}");
    assert_eq!(admin.ask(&house, Method::DELETE, &path, &Value::Null).await.status, 404);
    changed(&person.ask(&house, Method::DELETE, &path, &Value::Null).await);
    is_out(&other).await;
    // Erased, nothing of them is left but an id.
    changed(&admin.ask(&house, Method::DELETE, &format!("/v1/users/{one}"), &Value::Null).await);
    is_out(&person).await;
    let listed = admin.get(&house, "/v1/users").await;
    assert!(!listed.text.contains("ada@example.org"), "{}", listed.text);
    house.close().await;
}

async fn run(house: &House, statement: &str) {
    let done = punchtrail_infra::testing::sqlx::query(statement).execute(&house.pools.writer).await;
    done.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_page_changes_nothing_with_a_cookie() {
    let house = House::new().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let Person::Browser(cookies) = &admin else { unreachable!() };
    let from = async |method: Method, path: &str, pairs: &[(&'static str, &str)], body: &str| {
        let mut request = request(method, path, None, body.to_owned().into());
        let headers = request.headers_mut();
        headers.insert(header::COOKIE, cookies.parse().unwrap());
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        house.ask(request).await
    };
    let body = json!({"second_factor_required": false}).to_string();
    let put = async |pairs: &[(&'static str, &str)]| {
        from(Method::PUT, "/v1/roles/payroll", pairs, &body).await
    };
    for foreign in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site"), ("origin", "http://test")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", "https://test.evil.example")],
        &[("origin", "https://evil.example"), ("host", "test")],
        &[],
    ] {
        assert_eq!(put(foreign).await.refusal(), "403 cross_origin", "{foreign:?}");
    }
    changed(&put(&[("sec-fetch-site", "same-origin")]).await);
    changed(&put(&[("origin", "https://test")]).await);
    // A form can send text, and that is no JSON.
    let own = ("sec-fetch-site", "same-origin");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let answer = put(&[own, ("content-type", kind)]).await;
        assert_eq!(answer.refusal(), "415 unsupported_media_type", "{kind}");
    }
    // Nobody is signed in from another page either, as whoever that page likes.
    let login = json!({"login": "admin@example.org", "password": PASSWORD}).to_string();
    let foreign = [("origin", "https://evil.example")];
    let answer = from(Method::POST, "/v1/sign-in", &foreign, &login).await;
    assert_eq!(answer.refusal(), "403 cross_origin");
    // With a key it is a program, wherever it runs.
    let mut with_key =
        request(Method::PUT, "/v1/roles/payroll", Some(&house.key), body.clone().into());
    with_key.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    changed(&house.ask(with_key).await);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_stopped_on_all_nodes_and_keep_nobody_out_who_is_known() {
    let house = House::new().await;
    let (second, stop, running) = house.second().await;
    user(&house, "ada@example.org", Role::Admin, &[]).await;
    let known = cookies(&sign_in(&house, "ada@example.org", PASSWORD, "").await);
    let guess = async |n: u64, login: &str| {
        let body = json!({"login": login, "password": format!("guess number {n}")});
        let mut request = request(Method::POST, "/v1/sign-in", None, body.to_string().into());
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        ask(if n.is_multiple_of(2) { house.address } else { second }, request).await
    };
    // Whether there is such an account or not.
    for login in ["ada@example.org", "nobody@example.org"] {
        for n in 0..TRIES_AT_ACCOUNT_MAX {
            assert_eq!(guess(n, login).await.refusal(), "401 sign_in_refused", "{n} {login}");
        }
        let stopped = guess(0, login).await;
        assert_eq!(stopped.refusal(), "429 quota_exceeded", "{login}");
        let wait: u64 = stopped.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=900).contains(&wait), "{wait}");
    }
    let beyond = TRIES_OF_ADDRESS_MAX;
    for n in 0..beyond {
        guess(n, &format!("{n}@example.org")).await;
    }
    let stopped = guess(0, "somebody@example.org").await;
    assert_eq!(stopped.refusal(), "429 quota_exceeded", "the address, whatever the account");
    // The owner, from a browser that they have signed in from, though it is the same address.
    let entered = sign_in(&house, "ada@example.org", PASSWORD, &known).await;
    assert_eq!(entered.status, StatusCode::OK, "{}", entered.text);
    // The browser is known by a new token each time, and only of that account.
    let known = cookies(&entered);
    let other = sign_in(&house, "eve@example.org", PASSWORD, &known).await;
    assert_eq!(other.refusal(), "429 quota_exceeded");
    let ada = Person::Browser(known);
    let trail = ada.get(&house, "/v1/audit?limit=1000").await;
    let lines = trail.body["data"].as_array().unwrap();
    let failed: Vec<u64> = lines
        .iter()
        .filter(|line| line["act"] == "sign_in_failed")
        .map(|line| line["count"].as_u64().unwrap())
        .collect();
    assert!(failed.contains(&10) && failed.len() <= 8, "told of by tenfolds: {failed:?}");
    assert!(lines.iter().any(|line| line["act"] == "sign_in_throttled"), "{}", trail.text);
    assert!(!trail.text.contains("nobody@example.org"), "what was typed isn't kept");
    assert!(
        lines.iter().all(|line| line["act"] == "user_invited"
            || line["act"] == "link_made"
            || line["act"] == "key_made"
            || line["address"] == "127.0.0.1"),
        "{}",
        trail.text
    );
    stop.cancel();
    running.await.unwrap();
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_guesses_leave_a_few_rows() {
    let house = House::new().await;
    user(&house, "ada@example.org", Role::Admin, &[]).await;
    // Beneath the door, which would shed most of them before they are counted.
    let writer = &house.pools.writer;
    let one = |n: u32| async move {
        let login = if n.is_multiple_of(3) { "ada@example.org" } else { "nobody@example.org" };
        let address = Some(std::net::IpAddr::from([198, 51, 100, (n % 9) as u8]));
        let doer = Doer { address, ..Doer::default() };
        let asking = Asking { login, browser: None, doer: &doer };
        match entry::begin(writer, &asking).await {
            Ok(candidate) => {
                entry::finish(writer, &asking, candidate, false, Along::default()).await.map(drop)
            }
            Err(error) => Err(error),
        }
    };
    let (mut wrong, mut throttled) = (0, 0);
    for batch in 0..1_250 {
        for guess in futures::future::join_all((0..8).map(|n| one(batch * 8 + n))).await {
            match guess.unwrap_err() {
                SignInError::Wrong => wrong += 1,
                SignInError::Throttled { .. } => throttled += 1,
                error => panic!("{error}"),
            }
        }
    }
    // A window may end in between.
    assert!(wrong <= 2 * 2 * TRIES_AT_ACCOUNT_MAX && wrong + throttled == 10_000, "{wrong}");
    let lines: Vec<i64> = sqlx_scalar(&house, "select count(*) from trail").await;
    let buckets: Vec<i64> = sqlx_scalar(&house, "select count(*) from sign_in_tries").await;
    assert!(lines[0] < 200 && buckets[0] < 60, "{lines:?} {buckets:?}");
    // The page is as it was: a guess over HTTP, and whoever is known.
    let guess = sign_in(&house, "ada@example.org", "a guess of many", "").await;
    assert_eq!(guess.refusal(), "429 quota_exceeded");
    house.close().await;
}

fn totp(secret: &str) -> Totp {
    Builder::new().with_secret(Secret::try_from_base32(secret).unwrap()).build().unwrap()
}

/// The code of now, or of so many steps later.
fn code(secret: &str, steps: u64) -> String {
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    totp(secret).generate(now + 30 * steps).to_string()
}

async fn enter(house: &House, code: Option<&str>) -> Answer {
    let body = json!({"login": "ada@example.org", "password": PASSWORD, "code": code});
    house.post("/v1/sign-in", None, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_required_of_a_role_and_no_code_is_good_twice() {
    let house = House::new().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let ada = sign_in_as(&house, "ada@example.org", Role::Payroll, &[]).await;
    assert_eq!(ada.get(&house, "/v1/employees").await.status, StatusCode::OK);
    let required = json!({"second_factor_required": true});
    changed(&admin.ask(&house, Method::PUT, "/v1/roles/payroll", &required).await);
    // Now they may set one, and nothing else.
    assert_eq!(ada.get(&house, "/v1/employees").await.refusal(), "403 second_factor_required");
    let own = ada.get(&house, OWN).await;
    assert_eq!(own.body["lacks_second_factor"], true, "{}", own.text);
    let path = "/v1/session/second-factor";
    let proof = json!({"current": PASSWORD});
    let begun = ada.ask(&house, Method::POST, path, &proof).await;
    assert_eq!(begun.status, StatusCode::CREATED, "{}", begun.text);
    let secret = begun.body["secret"].as_str().unwrap().to_owned();
    let uri = begun.body["uri"].as_str().unwrap();
    assert!(uri.starts_with("otpauth://totp/") && uri.contains(&secret), "{uri}");
    let confirm = format!("{path}/confirmation");
    let wrong = ada.ask(&house, Method::POST, &confirm, &json!({"code": "000"})).await;
    assert_eq!(wrong.refusal(), "422 invalid: /code invalid_value");
    let used = code(&secret, 0);
    let done = ada.ask(&house, Method::POST, &confirm, &json!({"code": used})).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    let codes: Vec<String> = serde_json::from_value(done.body["recovery_codes"].clone()).unwrap();
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), 10);
    assert_eq!(ada.get(&house, OWN).await.refusal(), "401 unauthenticated", "rotated");
    let ada = Person::Browser(cookies(&done));
    assert_eq!(ada.get(&house, "/v1/employees").await.status, StatusCode::OK);
    // From here on the password alone lets nobody in.
    assert_eq!(enter(&house, None).await.refusal(), "401 second_factor_needed");
    assert_eq!(enter(&house, Some(&used)).await.refusal(), "401 sign_in_refused", "used");
    // Of two who try one code at once, one is let in.
    let next = code(&secret, 1);
    let both = futures::future::join(enter(&house, Some(&next)), enter(&house, Some(&next))).await;
    let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    // A recovery code, however it is typed, once.
    let typed = codes[3].to_lowercase().replace('-', " ");
    assert_eq!(enter(&house, Some(&typed)).await.status, StatusCode::OK);
    assert_eq!(enter(&house, Some(&codes[3])).await.refusal(), "401 sign_in_refused");
    // It can't be taken away while the role needs it.
    let removal = json!({"current": PASSWORD, "code": codes[4]});
    let path = format!("{path}/removal");
    let refused = ada.ask(&house, Method::POST, &path, &removal).await;
    assert_eq!(refused.refusal(), "409 conflict");
    let optional = json!({"second_factor_required": false});
    changed(&admin.ask(&house, Method::PUT, "/v1/roles/payroll", &optional).await);
    let entered = enter(&house, Some(&codes[5])).await;
    let ada = Person::Browser(cookies(&entered));
    changed(&ada.ask(&house, Method::POST, &path, &removal).await);
    assert_eq!(enter(&house, None).await.status, StatusCode::OK);
    let trail = admin.get(&house, "/v1/audit?act=recovery_code_used").await;
    assert_eq!(trail.body["data"].as_array().unwrap().len(), 3, "{}", trail.text);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_good_once_and_voids_the_last() {
    let house = House::new().await;
    let writer = &house.pools.writer;
    let (id, first) = users::admin_link(writer, "admin").await.unwrap();
    let (same, second) = users::admin_link(writer, "admin").await.unwrap();
    assert_eq!(id, same);
    let accept = async |token: &str, password: &str| {
        let body = json!({"token": token, "password": password});
        house.post("/v1/links/acceptance", None, &body).await
    };
    assert_eq!(accept(first.token(), PASSWORD).await.refusal(), "403 link_invalid");
    let weak = accept(second.token(), "admin").await;
    assert_eq!(weak.refusal(), "422 invalid: /password invalid_value", "it stays good");
    // Of two at once one sets it.
    let both = futures::future::join(
        accept(second.token(), PASSWORD),
        accept(second.token(), "another password of theirs"),
    )
    .await;
    let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
    assert_eq!(accept(second.token(), PASSWORD).await.refusal(), "403 link_invalid");
    // Whoever is locked out, without password or phone, or kept out, comes in by the same command.
    run(
        &house,
        "update users set totp_secret = '\\x0102030405060708090a0b0c0d0e0f1011121314', \
                 disabled_at = now()",
    )
    .await;
    let (_, link) = users::admin_link(writer, "Admin").await.unwrap();
    assert_eq!(accept(link.token(), PASSWORD).await.status, StatusCode::OK);
    let entered = sign_in(&house, "admin", PASSWORD, "").await;
    assert_eq!(entered.status, StatusCode::OK, "{}", entered.text);
    // Over, it is as if it had never been.
    let (_, link) = users::admin_link(writer, "admin").await.unwrap();
    run(&house, "update user_links set expires_at = now()").await;
    assert_eq!(accept(link.token(), PASSWORD).await.refusal(), "403 link_invalid");
    for nonsense in ["", "ptl_", "ptl_0123", "ptk_x", "\u{1F6AA}"] {
        assert_eq!(accept(nonsense, PASSWORD).await.refusal(), "403 link_invalid");
    }
    // No link makes an admin of somebody else.
    user(&house, "pat@example.org", Role::Payroll, &[]).await;
    assert!(users::admin_link(writer, "pat@example.org").await.is_err());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_always_an_admin() {
    let house = House::new().await;
    let (second, stop, running) = house.second().await;
    let (ada_id, bea_id) = (
        user(&house, "ada@example.org", Role::Admin, &[]).await.id,
        user(&house, "bea@example.org", Role::Admin, &[]).await.id,
    );
    let demote = json!({"role": "auditor"}).to_string();
    let put = |person: &Person, id: users_id::Id, at| {
        let path = format!("/v1/users/{id}/role");
        let mut request = request(Method::PUT, &path, None, demote.clone().into());
        person.put_on(&mut request);
        ask(at, request)
    };
    // Each other, at once, on two nodes: one does.
    for _ in 0..5 {
        let ada = sign_in_as(&house, "ada@example.org", Role::Admin, &[]).await;
        let bea = sign_in_as(&house, "bea@example.org", Role::Admin, &[]).await;
        let both =
            futures::future::join(put(&ada, bea_id, house.address), put(&bea, ada_id, second))
                .await;
        let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
        statuses.sort_unstable();
        // Who came second is no admin any more, or signed in no more.
        assert!(statuses == [204, 403] || statuses == [204, 401], "{statuses:?}");
        run(&house, "update users set role = 'admin'").await;
    }
    // Both themselves at once: one stays.
    let ada = sign_in_as(&house, "ada@example.org", Role::Admin, &[]).await;
    let bea = sign_in_as(&house, "bea@example.org", Role::Admin, &[]).await;
    let both =
        futures::future::join(put(&ada, ada_id, house.address), put(&bea, bea_id, second)).await;
    let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
    let (last, id) = match both.0.status {
        StatusCode::CONFLICT => (ada, ada_id),
        _ => (bea, bea_id),
    };
    // The last one can't be demoted, kept out or erased, by themselves or by a key.
    let (key, one) = (Person::Key(house.key.clone()), format!("/v1/users/{id}"));
    for person in [&last, &key] {
        for (method, path, body) in [
            (Method::PUT, format!("{one}/role"), json!({"role": "payroll"})),
            (Method::PUT, format!("{one}/disabled"), json!({"disabled": true})),
            (Method::DELETE, one.clone(), Value::Null),
        ] {
            let refused = person.ask(&house, method, &path, &body).await;
            assert_eq!(refused.refusal(), "409 last_admin", "{path}");
        }
    }
    // Whoever was only invited doesn't count yet.
    let invite = json!({"login": "new@example.org", "name": "New", "role": "admin"});
    let invited = last.ask(&house, Method::POST, "/v1/users", &invite).await;
    assert_eq!(invited.status, StatusCode::CREATED, "{}", invited.text);
    let path = format!("{one}/role");
    let refused = last.ask(&house, Method::PUT, &path, &json!({"role": "payroll"})).await;
    assert_eq!(refused.refusal(), "409 last_admin");
    let again = last.ask(&house, Method::POST, "/v1/users", &invite).await;
    assert_eq!(again.refusal(), "409 conflict", "one login is one user's");
    let body = json!({"token": invited.body["token"], "password": PASSWORD});
    assert_eq!(house.post("/v1/links/acceptance", None, &body).await.status, StatusCode::OK);
    changed(&last.ask(&house, Method::PUT, &path, &json!({"role": "payroll"})).await);
    stop.cancel();
    running.await.unwrap();
    house.close().await;
}

mod users_id {
    pub type Id = punchtrail_infra::access::ids::UserId;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ruling_names_the_person_who_is_never_ruling_on_themselves() {
    let house = House::new().await;
    let site = house.site().await;
    let mut device = house.device(site).await;
    let (worker, boss) = (
        house.employee(site, "17", "Ada Worker").await,
        house.employee(site, "18", "Bea Boss").await,
    );
    let items = [device.next(worker, PunchKind::In), device.next(boss, PunchKind::In)];
    house.deliver(&device, &items).await;
    house.settled().await;
    let punches = house.read("/v1/punches?order=oldest").await;
    let of = |who: &str| {
        let rows = punches.body["data"].as_array().unwrap();
        let row = rows.iter().find(|row| row["employee_name"] == who).unwrap();
        format!("/v1/punches/{}", row["punch"].as_str().unwrap())
    };
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let bea = user(&house, "bea@example.org", Role::Manager, &[site]).await.id;
    let admin_id = user(&house, "admin@example.org", Role::Admin, &[]).await.id;
    let tie = |id: users_id::Id| format!("/v1/users/{id}/employee");
    let body = json!({"employee": boss});
    changed(&admin.ask(&house, Method::PUT, &tie(bea), &body).await);
    let own = admin.ask(&house, Method::PUT, &tie(admin_id), &body).await;
    assert_eq!(own.refusal(), "403 own_record");
    let nobody = json!({"employee": uuid::Uuid::now_v7()});
    let unknown = admin.ask(&house, Method::PUT, &tie(bea), &nobody).await;
    assert_eq!(unknown.refusal(), "422 invalid: /employee unknown");
    let other = user(&house, "pat@example.org", Role::Payroll, &[]).await.id;
    let taken = admin.ask(&house, Method::PUT, &tie(other), &body).await;
    assert_eq!(taken.refusal(), "409 conflict");
    let manager = sign_in_as(&house, "bea@example.org", Role::Manager, &[site]).await;
    let void = json!({"decision": "void", "reason": "test", "note": "A trial run"});
    let decide = |of: &str| format!("{of}/decision");
    let ruled = manager.ask(&house, Method::POST, &decide(&of("Ada Worker")), &void).await;
    assert_eq!(ruled.status, StatusCode::OK, "{}", ruled.text);
    let own = manager.ask(&house, Method::POST, &decide(&of("Bea Boss")), &void).await;
    assert_eq!(own.refusal(), "403 own_record");
    let explained = house.read(&format!("{}/explanation", of("Ada Worker"))).await;
    assert!(explained.text.contains("bea@example.org"), "{}", explained.text);
    assert!(
        explained.text.contains(&format!("\"type\":\"user\",\"id\":\"{}\"", bea.0))
            || explained.text.contains(&bea.0.to_string()),
        "{}",
        explained.text
    );
    // Erased, the ruling stands and the name is gone.
    let path = format!("/v1/users/{bea}");
    changed(&admin.ask(&house, Method::DELETE, &path, &Value::Null).await);
    punchtrail_testkit::eventually(
        "the name to be gone",
        punchtrail_testkit::PATIENCE,
        async || {
            let explained = house.read(&format!("{}/explanation", of("Ada Worker"))).await;
            let gone = !explained.text.contains("bea@example.org");
            Ok(gone.then_some(()))
        },
    )
    .await
    .unwrap();
    let explained = house.read(&format!("{}/explanation", of("Ada Worker"))).await;
    assert!(explained.text.contains("whose name was erased"), "{}", explained.text);
    house.models_are_as_rebuilt().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bears_on_security_is_in_the_trail_or_is_not_done() {
    let house = House::new().await;
    let site = house.site().await;
    let employee = house.employee(site, "17", "Ada Worker").await;
    house.settled().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let exported = admin.get(&house, &format!("/v1/employees/{employee}/export")).await;
    assert_eq!(exported.status, StatusCode::OK);
    let code = format!("/v1/sites/{site}/pairing-codes");
    assert_eq!(admin.ask(&house, Method::POST, &code, &Value::Null).await.status, 201);
    let missing = format!("/v1/employees/{}/export", uuid::Uuid::now_v7());
    assert_eq!(admin.get(&house, &missing).await.status, StatusCode::NOT_FOUND);
    let mut walked = Vec::new();
    let mut page = "/v1/audit?limit=2".to_owned();
    loop {
        let answer = admin.get(&house, &page).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        walked.extend(answer.body["data"].as_array().unwrap().clone());
        let Some(next) = answer.body["next_cursor"].as_str() else { break };
        page = format!("/v1/audit?limit=2&cursor={next}");
    }
    let acts: Vec<_> = walked.iter().rev().map(|line| line["act"].as_str().unwrap()).collect();
    let expected = [
        "key_made",
        "user_invited",
        "link_made",
        "link_used",
        "signed_in",
        "person_exported",
        "pairing_code_made",
    ];
    assert_eq!(acts, expected);
    let export = &walked[1];
    assert_eq!(export["subject"], format!("employee:{employee}"));
    assert!(export["actor"].as_str().unwrap().starts_with("user:"), "{export}");
    let request = export["request_id"].as_str().unwrap();
    assert_eq!(request, exported.headers["x-request-id"].to_str().unwrap());
    assert_eq!(
        admin.get(&house, "/v1/audit?act=nonsense").await.refusal(),
        "422 invalid: act invalid_value"
    );
    // What can't be written there isn't shown.
    punchtrail_infra::testing::sqlx::query("alter table trail rename to away")
        .execute(&house.pools.owner)
        .await
        .unwrap();
    let exported = admin.get(&house, &format!("/v1/employees/{employee}/export")).await;
    assert!(exported.status.is_server_error(), "{}", exported.status);
    assert!(!exported.text.contains("Ada"));
    let entered = sign_in(&house, "admin@example.org", PASSWORD, "").await;
    assert!(entered.status.is_server_error(), "{}", entered.text);
    assert!(entered.headers.get(header::SET_COOKIE).is_none());
    house.close().await;
}
