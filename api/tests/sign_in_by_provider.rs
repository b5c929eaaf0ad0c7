//! Signing in by a provider of OpenID Connect: a browser's whole way, whom it lets in, what it does
//! when the provider lies or is away, and how one is tied and untied.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod callers;
mod common;
mod provider;

use std::collections::HashMap;

use callers::{PASSWORD, Person, cookies, sign_in, sign_in_as, user};
use common::{Answer, House, LISTEN};
use hyper::{Method, StatusCode, header};
use provider::{Browser, By, Fault, PUBLIC, Says, StandIn};
use punchtrail_api::server::{ServeOptions, Server};
use punchtrail_infra::{
    access::{
        roles::Role,
        sign_in::BEGUN_OF_ADDRESS_MAX,
        trail::Doer,
        users::{self, Invited},
    },
    testing::sqlx,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use totp_rs::{Builder, Secret, Totp};

const ADA: &str = "ada@example.org";
const SUBJECT: &str = "7f3a";
const BEGIN: &str = "/v1/sign-in/provider";
const CODE: &str = "/v1/sign-in/provider/code";

async fn invite(house: &House, login: &str, role: Role) -> users::User {
    let invited = Invited { login, name: login, role, sites: &[] };
    let writer = &house.pools.writer;
    users::invite(writer, &invited, &Doer::command_line()).await.unwrap();
    users::named(writer, login).await.unwrap().unwrap()
}

fn is_in(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    assert_eq!(answer.headers[header::LOCATION], "/");
}

async fn count(house: &House, of: &str) -> i64 {
    let statement = format!("select count(*) from {of}");
    sqlx::query_scalar(&statement).fetch_one(&house.pools.writer).await.unwrap()
}

async fn run(house: &House, statement: &str) {
    sqlx::query(statement).execute(&house.pools.writer).await.unwrap();
}

/// What the trail says of a kind of act, the newest first: of whom, and how.
async fn noted(house: &House, act: &str) -> Vec<(String, Value)> {
    let lines = house.get(&format!("/v1/audit?act={act}"), Some(&house.key)).await;
    let line = |line: &Value| (line["subject"].to_string(), line["detail"].clone());
    lines.body["data"].as_array().unwrap().iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_invited_comes_in_by_the_provider_and_is_known_from_then_on() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    let ada = invite(&house, ADA, Role::Admin).await;
    let ways = house.get("/v1/sign-in", None).await;
    let expected = json!({"name": "Example ID", "path": BEGIN});
    assert_eq!((&ways.body["password"], &ways.body["provider"]), (&json!(true), &expected));
    provider.say(provider.is(SUBJECT, "Ada@Example.org"));
    let mut browser = Browser::default();
    let back = browser.begin(&house, &provider).await;
    // What goes to the provider says nothing of what the cookie holds.
    let token = browser.cookies["__Host-punchtrail-provider"].clone();
    assert!(provider.came().values().all(|value| !value.contains(&token)));
    let entered = browser.go(&house, &back).await;
    is_in(&entered);
    assert_eq!(entered.headers[header::REFERRER_POLICY], "no-referrer");
    assert!(!browser.cookies.contains_key("__Host-punchtrail-provider"));
    let own = browser.own(&house).await;
    assert_eq!((&own.body["login"], &own.body["role"]), (&json!(ADA), &json!("admin")));
    // The same way back opens nothing a second time, here or elsewhere.
    let session = browser.clone();
    for cookie in [None, Some(token)] {
        let mut again = session.clone();
        let provider = "__Host-punchtrail-provider".to_owned();
        again.cookies.extend(cookie.map(|cookie| (provider, cookie)));
        assert_eq!(again.go(&house, &back).await.refusal(), "403 sign_in_over");
    }
    assert_eq!(Browser::default().go(&house, &back).await.refusal(), "403 sign_in_over");
    // From then on by what the provider calls them, whatever their address is there.
    provider.say(provider.is(SUBJECT, "lovelace@example.org"));
    let last = browser.cookies["__Host-punchtrail"].clone();
    is_in(&browser.sign_in(&house, &provider).await);
    assert_ne!(browser.cookies["__Host-punchtrail"], last, "a session that nobody knew before");
    let mut old = Browser::default();
    old.cookies.insert("__Host-punchtrail".to_owned(), last);
    assert_eq!(old.own(&house).await.refusal(), "401 unauthenticated");
    let of_ada = format!("/v1/users/{}", ada.id);
    let listed = browser.ask(&house, Method::GET, &of_ada, &Value::Null).await.body;
    assert_eq!((&listed["has_password"], &listed["has_provider"]), (&json!(false), &json!(true)));
    let id = json!(ada.id.to_string()).to_string();
    let by_provider = (id.clone(), json!("provider"));
    assert_eq!(noted(&house, "signed_in").await, [by_provider.clone(), by_provider]);
    assert_eq!(noted(&house, "provider_tied").await, [(id, Value::Null)]);
    // Its pages were read once.
    assert_eq!((provider.asked("description"), provider.asked("keys")), (1, 1));
    // Sessions end as any.
    let out = browser.ask(&house, Method::DELETE, "/v1/session", &Value::Null).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert_eq!(browser.own(&house).await.refusal(), "401 unauthenticated");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_begins_and_another_goes_on() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    invite(&house, ADA, Role::Auditor).await;
    provider.say(provider.is(SUBJECT, ADA));
    let folder = tempfile::tempdir().unwrap();
    let mut options = ServeOptions::new(LISTEN, house.database.pools().await, folder.path());
    options.provider = Some(provider.settings());
    let second = Server::start(options).await.unwrap();
    let (address, cancel) = (second.address(), CancellationToken::new());
    let running = tokio::spawn(second.run(cancel.clone()));
    let mut browser = Browser::default();
    let back = browser.begin(&house, &provider).await;
    let both = [house.address, address].map(|node| {
        let (mut browser, back) = (browser.clone(), back.clone());
        async move { browser.send(node, Method::GET, &back, "cross-site", &Value::Null).await }
    });
    let answers = futures::future::join_all(both).await;
    let let_in = answers.iter().filter(|answer| answer.status == StatusCode::SEE_OTHER).count();
    assert_eq!(let_in, 1, "{answers:?}");
    assert_eq!(count(&house, "sessions").await, 1);
    cancel.cancel();
    running.await.unwrap();
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_lies_lets_nobody_in() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    invite(&house, ADA, Role::Admin).await;
    let honest = provider.is(SUBJECT, ADA);
    let claims = |over: Value| {
        let mut says = honest.clone();
        says.claims.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        says
    };
    let by = |by: By| Says { by, ..honest.clone() };
    let now = jiff::Timestamp::now().as_second();
    let lies = [
        ("another nonce", claims(json!({"nonce": "of another sign-in"}))),
        ("no nonce", claims(json!({"nonce": null}))),
        ("another audience", claims(json!({"aud": "another clock"}))),
        ("one audience more", claims(json!({"aud": [provider::CLIENT, "another clock"]}))),
        ("no audience", claims(json!({"aud": []}))),
        ("another issuer", claims(json!({"iss": "https://id.example"}))),
        ("expired", claims(json!({"iat": now - 600, "exp": now - 300}))),
        ("without an end", claims(json!({"exp": null}))),
        ("nobody", claims(json!({"sub": null}))),
        ("an empty name", claims(json!({"sub": ""}))),
        ("a name without end", claims(json!({"sub": "a".repeat(256)}))),
        ("another key", by(By::AnotherKey)),
        ("another key of that name", by(By::AnotherKeyOfThatName)),
        ("no signature", by(By::Nothing)),
        ("the client's secret", by(By::Hs256)),
        ("the public key as a secret", by(By::Hs256OfPublicKey)),
        ("no ID token", Says { answer: json!({"id_token": null}), ..honest.clone() }),
        ("garbage", Says { answer: json!({"id_token": "a.b.c"}), ..honest.clone() }),
        ("mixed up", Says { sent_by: Some("https://id.example".to_owned()), ..honest.clone() }),
        ("an address not seen", claims(json!({"email_verified": false}))),
        ("an address of which nothing is said", claims(json!({"email_verified": null}))),
        ("another address", claims(json!({"email": "bea@example.org"}))),
        ("an address within another", claims(json!({"email": format!("x{ADA}")}))),
    ];
    for (lie, says) in lies {
        provider.say(says);
        let mut browser = Browser::default();
        let answer = browser.sign_in(&house, &provider).await;
        let refusal = answer.refusal();
        let is_refused = ["401 sign_in_refused", "503 provider_unavailable"];
        assert!(is_refused.contains(&refusal.as_str()), "{lie}: {refusal}");
        assert_eq!(browser.own(&house).await.refusal(), "401 unauthenticated", "{lie}");
        assert_eq!(count(&house, "user_identities").await, 0, "{lie}");
        assert_eq!(count(&house, "sessions").await, 0, "{lie}");
    }
    assert_eq!(count(&house, "users").await, 1, "nobody is made by signing in");
    assert!(!noted(&house, "sign_in_failed").await.is_empty());
    // Each is looked up anew once for a key that isn't known, and then not again for a while.
    assert!(provider.asked("keys") <= 2);
    // By each key of its own it is believed.
    for key in [By::Rs256, By::Es256, By::EdDsa] {
        provider.say(by(key));
        is_in(&Browser::default().sign_in(&house, &provider).await);
    }
    house.close().await;
}

/// A way back with other parameters.
fn changed(back: &str, change: &[(&str, Option<&str>)]) -> String {
    let (path, query) = back.split_once('?').unwrap();
    let mut pairs: HashMap<String, String> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    for (name, value) in change {
        match value {
            Some(value) => drop(pairs.insert((*name).to_owned(), (*value).to_owned())),
            None => drop(pairs.remove(*name)),
        }
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{path}?{query}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_makes_up_leads_nowhere() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    invite(&house, ADA, Role::Admin).await;
    provider.say(provider.is(SUBJECT, ADA));
    let mut browser = Browser::default();
    let back = browser.begin(&house, &provider).await;
    let with = |change: &[(&str, Option<&str>)]| changed(&back, change);
    // Another browser's way back, in this one: nobody is signed in as somebody else.
    let mut other = Browser::default();
    let others = other.begin(&house, &provider).await;
    for wrong in [
        others,
        back.split_once('?').unwrap().0.to_owned(),
        with(&[("state", None)]),
        with(&[("state", Some(""))]),
        with(&[("state", Some("of nobody"))]),
    ] {
        assert_eq!(browser.go(&house, &wrong).await.refusal(), "403 sign_in_over", "{wrong}");
    }
    for garbled in ["", "pto_", "pts_0123456789012345678901234567890123456789012", "\u{e4}"] {
        let mut browser = Browser::default();
        let cookie = "__Host-punchtrail-provider".to_owned();
        browser.cookies.insert(cookie, garbled.to_owned());
        let answer = browser.go(&house, &back).await;
        assert_eq!(answer.refusal(), "403 sign_in_over", "{garbled}");
    }
    // Twice the same parameter is refused, and takes nothing.
    let twice = format!("{back}&state=other");
    assert_eq!(browser.go(&house, &twice).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    // What was begun is good still, and once: a made-up code ends it.
    let made_up = with(&[("code", Some("made up"))]);
    assert_eq!(browser.go(&house, &made_up).await.refusal(), "401 sign_in_refused");
    assert_eq!(browser.go(&house, &back).await.refusal(), "403 sign_in_over");
    for change in [
        &[("code", None)][..],
        &[("code", Some(""))],
        &[("error", Some("access_denied"))],
        &[("iss", None)],
        &[("iss", Some("https://id.example"))],
    ] {
        let back = browser.begin(&house, &provider).await;
        let answer = browser.go(&house, &changed(&back, change)).await;
        assert_eq!(answer.refusal(), "401 sign_in_refused", "{change:?}");
    }
    // A code of another browser's under this one's state: PKCE tells them apart.
    let others = Browser::default().begin(&house, &provider).await;
    let others = url::form_urlencoded::parse(others.split_once('?').unwrap().1.as_bytes());
    let (_, code) = others.into_owned().find(|(name, _)| name == "code").unwrap();
    let back = browser.begin(&house, &provider).await;
    let mixed = changed(&back, &[("code", Some(&code))]);
    assert_eq!(browser.go(&house, &mixed).await.refusal(), "401 sign_in_refused");
    // Too late.
    let back = browser.begin(&house, &provider).await;
    run(&house, "update provider_sign_ins set expires_at = now() - interval '1 second'").await;
    assert_eq!(browser.go(&house, &back).await.refusal(), "403 sign_in_over");
    assert_eq!(
        browser.ask(&house, Method::POST, CODE, &json!({"code": "1"})).await.refusal(),
        "403 sign_in_over"
    );
    assert_eq!(count(&house, "sessions").await, 0);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_away_keeps_nobody_out_who_has_a_password() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    user(&house, "bea@example.org", Role::Payroll, &[]).await;
    invite(&house, ADA, Role::Auditor).await;
    let honest = provider.is(SUBJECT, ADA);
    let fails = |page: &'static str, fault: Fault| {
        provider.say(Says { faults: HashMap::from([(page, fault)]), ..honest.clone() });
    };
    // Its pages can't be read: it isn't asked again at once.
    fails("description", Fault::Status(500));
    let mut browser = Browser::default();
    for _ in 0..3 {
        let away = browser.go(&house, BEGIN).await;
        assert_eq!(away.refusal(), "503 provider_unavailable");
        assert!(away.headers.contains_key(header::RETRY_AFTER));
    }
    assert_eq!(provider.asked("description"), 1);
    let entered = sign_in(&house, "bea@example.org", PASSWORD, "").await;
    assert_eq!(entered.status, StatusCode::OK, "{}", entered.text);
    house.close().await;
    // Each page, each way to fail, with a server that knows nothing yet of it.
    let faults = [Fault::Slow, Fault::Huge, Fault::Status(500), Fault::Elsewhere, Fault::Garbage];
    let each = ["description", "keys", "token"].into_iter().flat_map(|page| {
        faults.into_iter().map(move |fault| async move {
            let provider = StandIn::new().await;
            let house = provider.house().await;
            invite(&house, ADA, Role::Auditor).await;
            let honest = provider.is(SUBJECT, ADA);
            let fails =
                || Says { faults: HashMap::from([(page, fault)]), ..provider.is(SUBJECT, ADA) };
            let mut browser = Browser::default();
            let answer = match page {
                "token" => {
                    provider.say(honest);
                    let back = browser.begin(&house, &provider).await;
                    provider.say(fails());
                    browser.go(&house, &back).await
                }
                _ => {
                    provider.say(fails());
                    browser.go(&house, BEGIN).await
                }
            };
            assert_eq!(answer.refusal(), "503 provider_unavailable", "{page} {fault:?}");
            assert_eq!(count(&house, "sessions").await, 0, "{page} {fault:?}");
            assert_eq!(provider.asked(page), 1, "{page} {fault:?}");
            house.close().await;
        })
    });
    futures::future::join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_names_other_places_or_another_provider_is_not_taken() {
    for description in [
        json!({"issuer": "https://id.example"}),
        json!({"jwks_uri": "http://id.example/keys"}),
        json!({"jwks_uri": "file:///etc/passwd"}),
        json!({"authorization_endpoint": "not an address"}),
    ] {
        let provider = StandIn::new().await;
        let house = provider.house().await;
        provider.say(Says { description: description.clone(), ..provider.is(SUBJECT, ADA) });
        let answer = Browser::default().go(&house, BEGIN).await;
        assert_eq!(answer.refusal(), "503 provider_unavailable", "{description}");
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_and_somebody_kept_out_and_somebody_erased_get_the_same_words() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let ada = invite(&house, ADA, Role::Payroll).await;
    provider.say(provider.is("never seen", "nobody@example.org"));
    let nobody = Browser::default().sign_in(&house, &provider).await;
    assert_eq!(nobody.refusal(), "401 sign_in_refused");
    let same = |answer: &Answer| {
        assert_eq!(answer.refusal(), "401 sign_in_refused");
        assert_eq!(answer.body["detail"], nobody.body["detail"]);
    };
    let of = |what: &str| format!("/v1/users/{}{what}", ada.id);
    // Kept out before they ever came.
    let honest = provider.is(SUBJECT, ADA);
    provider.say(honest.clone());
    let disabled = |disabled: bool| json!({ "disabled": disabled });
    admin.ask(&house, Method::PUT, &of("/disabled"), &disabled(true)).await;
    same(&Browser::default().sign_in(&house, &provider).await);
    admin.ask(&house, Method::PUT, &of("/disabled"), &disabled(false)).await;
    let mut browser = Browser::default();
    is_in(&browser.sign_in(&house, &provider).await);
    // Their account at the provider is theirs alone, and theirs here that one's.
    provider.say(provider.is("another", ADA));
    same(&Browser::default().sign_in(&house, &provider).await);
    provider.say(honest.clone());
    admin.ask(&house, Method::PUT, &of("/disabled"), &disabled(true)).await;
    assert_eq!(browser.own(&house).await.refusal(), "401 unauthenticated");
    same(&browser.sign_in(&house, &provider).await);
    admin.ask(&house, Method::PUT, &of("/disabled"), &disabled(false)).await;
    is_in(&browser.sign_in(&house, &provider).await);
    let role = json!({"role": "auditor"});
    admin.ask(&house, Method::PUT, &of("/role"), &role).await;
    is_in(&browser.sign_in(&house, &provider).await);
    assert_eq!(browser.own(&house).await.body["role"], "auditor", "roles stay ours");
    let erased = admin.ask(&house, Method::DELETE, &of(""), &Value::Null).await;
    assert_eq!(erased.status, StatusCode::NO_CONTENT);
    same(&browser.sign_in(&house, &provider).await);
    assert_eq!(count(&house, "user_identities").await, 0);
    // Who has a password isn't come to by a word about an address.
    user(&house, "bea@example.org", Role::Payroll, &[]).await;
    provider.say(provider.is("of Bea's namesake", "bea@example.org"));
    same(&Browser::default().sign_in(&house, &provider).await);
    assert_eq!(count(&house, "users where erased_at is null").await, 2);
    let failed = noted(&house, "sign_in_failed").await;
    assert!(!failed.is_empty());
    // An address that only the provider's other page tells.
    invite(&house, "cy@example.org", Role::Payroll).await;
    let mut says = provider.is("c", "");
    says.claims = json!({"sub": "c"});
    says.told = json!({"email": "cy@example.org", "email_verified": false});
    provider.say(says.clone());
    same(&Browser::default().sign_in(&house, &provider).await);
    says.told = json!({"email": "cy@example.org", "email_verified": true, "sub": "d"});
    provider.say(says.clone());
    same(&Browser::default().sign_in(&house, &provider).await);
    says.told = json!({"email": "cy@example.org", "email_verified": true});
    provider.say(says);
    is_in(&Browser::default().sign_in(&house, &provider).await);
    house.close().await;
}

fn code_of(secret: &str) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let totp: Totp = Builder::new().with_secret(secret).build().unwrap();
    totp.generate(u64::try_from(jiff::Timestamp::now().as_second()).unwrap()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_factor_is_ours_unless_the_provider_saw_one() {
    let provider = StandIn::new().await;
    let mut settings = provider.settings();
    settings.multi_factor_acr = vec!["urn:example:two".to_owned()];
    let house = House::with(|options| options.provider = Some(settings)).await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let ada = invite(&house, ADA, Role::Payroll).await;
    let required = json!({"second_factor_required": true});
    admin.ask(&house, Method::PUT, "/v1/roles/payroll", &required).await;
    let honest = provider.is(SUBJECT, ADA);
    let with = |over: Value| {
        let mut says = honest.clone();
        says.claims.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        says
    };
    let lacks = async |browser: &mut Browser| {
        let own = browser.own(&house).await;
        assert_eq!(own.status, StatusCode::OK, "{}", own.text);
        own.body["lacks_second_factor"].as_bool().unwrap()
    };
    let mut browser = Browser::default();
    // The provider saw one, and says so in either way.
    for says in [with(json!({"amr": ["pwd", "mfa"]})), with(json!({"acr": "urn:example:two"}))] {
        provider.say(says);
        is_in(&browser.sign_in(&house, &provider).await);
        assert!(!lacks(&mut browser).await);
    }
    assert_eq!(provider.came()["acr_values"], "urn:example:two");
    // It doesn't: then one has to be set here, by who has signed in a moment ago.
    for says in [with(json!({"amr": ["pwd"]})), with(json!({"acr": "urn:example:one"}))] {
        provider.say(says);
        is_in(&browser.sign_in(&house, &provider).await);
        assert!(lacks(&mut browser).await);
    }
    let factor = "/v1/session/second-factor";
    let nothing = json!({"current": ""});
    run(&house, "update sessions set created_at = created_at - interval '11 minutes'").await;
    let stale = browser.ask(&house, Method::POST, factor, &nothing).await;
    assert_eq!(stale.refusal(), "422 invalid: /current invalid_value");
    is_in(&browser.sign_in(&house, &provider).await);
    let pending = browser.ask(&house, Method::POST, factor, &nothing).await;
    assert_eq!(pending.status, StatusCode::CREATED, "{}", pending.text);
    let secret = pending.body["secret"].as_str().unwrap().to_owned();
    let confirmed = json!({"code": code_of(&secret)});
    let path = format!("{factor}/confirmation");
    let confirmed = browser.ask(&house, Method::POST, &path, &confirmed).await;
    assert_eq!(confirmed.status, StatusCode::OK, "{}", confirmed.text);
    let recovery: Vec<String> =
        serde_json::from_value(confirmed.body["recovery_codes"].clone()).unwrap();
    assert!(!lacks(&mut browser).await);
    // From now on it is asked for, from the browser that came back and no other.
    let mut fresh = Browser::default();
    let back = fresh.begin(&house, &provider).await;
    let mut elsewhere = fresh.clone();
    assert_eq!(fresh.go(&house, &back).await.refusal(), "401 second_factor_needed");
    assert_eq!(fresh.own(&house).await.refusal(), "401 unauthenticated");
    assert_eq!(fresh.go(&house, &back).await.refusal(), "403 sign_in_over");
    elsewhere.cookies.clear();
    let try_ = |code: &str| json!({ "code": code });
    let stranger = elsewhere.ask(&house, Method::POST, CODE, &try_(&recovery[0])).await;
    assert_eq!(stranger.refusal(), "403 sign_in_over");
    let wrong = fresh.ask(&house, Method::POST, CODE, &try_("000000")).await;
    assert_eq!(wrong.refusal(), "401 sign_in_refused");
    let foreign = fresh.send(house.address, Method::POST, CODE, "cross-site", &try_("1")).await;
    assert_eq!(foreign.refusal(), "403 cross_origin");
    let right = fresh.ask(&house, Method::POST, CODE, &try_(&recovery[0])).await;
    assert_eq!(right.status, StatusCode::OK, "{}", right.text);
    assert_eq!(right.body["user"], ada.id.to_string());
    assert!(!lacks(&mut fresh).await);
    let again = fresh.ask(&house, Method::POST, CODE, &try_(&recovery[1])).await;
    assert_eq!(again.refusal(), "403 sign_in_over");
    // Guesses are stopped as they are for a password.
    let mut guesser = Browser::default();
    let back = guesser.begin(&house, &provider).await;
    assert_eq!(guesser.go(&house, &back).await.refusal(), "401 second_factor_needed");
    let mut refusals = Vec::new();
    for _ in 0..12 {
        refusals.push(guesser.ask(&house, Method::POST, CODE, &try_("000000")).await.refusal());
    }
    assert_eq!(refusals.last().unwrap(), "429 quota_exceeded", "{refusals:?}");
    // Kept out meanwhile, a code helps nothing.
    let mut late = Browser::default();
    let back = late.begin(&house, &provider).await;
    assert_eq!(late.go(&house, &back).await.refusal(), "401 second_factor_needed");
    let path = format!("/v1/users/{}/disabled", ada.id);
    admin.ask(&house, Method::PUT, &path, &json!({"disabled": true})).await;
    let out = late.ask(&house, Method::POST, CODE, &try_(&recovery[2])).await;
    assert_eq!(out.refusal(), "403 sign_in_over");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_password_ties_themselves_and_an_admin_unties() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    let admin = sign_in_as(&house, "admin@example.org", Role::Admin, &[]).await;
    let bea = user(&house, "bea@example.org", Role::Payroll, &[]).await;
    let path = "/v1/session/provider";
    let as_bea = async || {
        let mut browser = Browser::default();
        let entered = sign_in(&house, "bea@example.org", PASSWORD, "").await;
        for pair in cookies(&entered).split("; ") {
            let (name, value) = pair.split_once('=').unwrap();
            browser.cookies.insert(name.to_owned(), value.to_owned());
        }
        browser
    };
    let mut browser = as_bea().await;
    let wrong = browser.ask(&house, Method::POST, path, &json!({"current": "a guess"})).await;
    assert_eq!(wrong.refusal(), "422 invalid: /current invalid_value");
    let current = json!({"current": PASSWORD});
    provider.say(provider.is("b", "whatever@example.org"));
    let lead = async |browser: &mut Browser| {
        let begun = browser.ask(&house, Method::POST, path, &current).await;
        assert_eq!(begun.status, StatusCode::OK, "{}", begun.text);
        let location = begun.body["location"].as_str().unwrap().to_owned();
        browser.there_and_back(&provider, &location).await
    };
    // Signed out meanwhile, or another's session: nothing is tied.
    let back = lead(&mut browser).await;
    let mut out = browser.clone();
    out.cookies.remove("__Host-punchtrail");
    assert_eq!(out.go(&house, &back).await.refusal(), "403 sign_in_over");
    let back = lead(&mut browser).await;
    let Person::Browser(admins) = &admin else { unreachable!() };
    let theirs = admins.split("; ").find_map(|pair| pair.strip_prefix("__Host-punchtrail="));
    let mut other = browser.clone();
    other.cookies.insert("__Host-punchtrail".to_owned(), theirs.unwrap().to_owned());
    assert_eq!(other.go(&house, &back).await.refusal(), "403 sign_in_over");
    assert_eq!(count(&house, "user_identities").await, 0);
    let back = lead(&mut browser).await;
    is_in(&browser.go(&house, &back).await);
    assert_eq!(browser.own(&house).await.body["login"], "bea@example.org");
    // From then on they come in by it.
    let mut fresh = Browser::default();
    is_in(&fresh.sign_in(&house, &provider).await);
    assert_eq!(fresh.own(&house).await.body["login"], "bea@example.org");
    // One account there, one user here.
    let back = lead(&mut browser).await;
    assert_eq!(browser.go(&house, &back).await.refusal(), "409 conflict");
    // By whom it may be untied.
    let of = format!("/v1/users/{}/provider", bea.id);
    let own = fresh.ask(&house, Method::DELETE, &of, &Value::Null).await;
    assert_eq!(own.refusal(), "403 forbidden");
    let untied = admin.ask(&house, Method::DELETE, &of, &Value::Null).await;
    assert_eq!(untied.status, StatusCode::NO_CONTENT, "{}", untied.text);
    assert_eq!(
        admin.ask(&house, Method::DELETE, &of, &Value::Null).await.refusal(),
        "404 not_found"
    );
    for browser in [&mut fresh, &mut browser] {
        assert_eq!(browser.own(&house).await.refusal(), "401 unauthenticated");
        assert_eq!(browser.sign_in(&house, &provider).await.refusal(), "401 sign_in_refused");
    }
    let id = json!(bea.id.to_string()).to_string();
    assert_eq!(noted(&house, "provider_untied").await, [(id, Value::Null)]);
    assert_eq!(noted(&house, "signed_in").await.last().unwrap().1, json!("password"));
    // An admin who comes by the provider alone isn't the one who must remain.
    invite(&house, ADA, Role::Admin).await;
    provider.say(provider.is(SUBJECT, ADA));
    let mut ada = Browser::default();
    is_in(&ada.sign_in(&house, &provider).await);
    let the_other = users::named(&house.pools.writer, "admin@example.org").await.unwrap().unwrap();
    let demoted = json!({"role": "auditor"});
    let path = format!("/v1/users/{}/role", the_other.id);
    let refused = ada.ask(&house, Method::PUT, &path, &demoted).await;
    assert_eq!(refused.refusal(), "409 last_admin");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_are_found_and_begun_ones_are_counted() {
    let provider = StandIn::new().await;
    let house = provider.house().await;
    invite(&house, ADA, Role::Auditor).await;
    provider.say(provider.is(SUBJECT, ADA));
    is_in(&Browser::default().sign_in(&house, &provider).await);
    provider.change_keys("second");
    is_in(&Browser::default().sign_in(&house, &provider).await);
    assert_eq!(provider.asked("keys"), 2);
    // Tokens that name made-up keys don't make the server ask without end.
    provider.say(Says { by: By::AnotherKey, ..provider.is(SUBJECT, ADA) });
    for _ in 0..3 {
        let answer = Browser::default().sign_in(&house, &provider).await;
        assert_eq!(answer.refusal(), "401 sign_in_refused");
    }
    assert_eq!(provider.asked("keys"), 2);
    let most = format!("update sign_in_tries set tries = {BEGUN_OF_ADDRESS_MAX}");
    run(&house, &most).await;
    let stopped = Browser::default().go(&house, BEGIN).await;
    assert_eq!(stopped.refusal(), "429 quota_exceeded");
    house.close().await;
    // Without a provider there is nothing of all this.
    let house = House::new().await;
    assert_eq!(house.get("/v1/sign-in", None).await.body["provider"], Value::Null);
    let callback = format!("{BEGIN}/callback");
    for path in [BEGIN, callback.as_str()] {
        assert_eq!(Browser::default().go(&house, path).await.refusal(), "404 not_found");
    }
    assert!(PUBLIC.starts_with("https"));
    house.close().await;
}
