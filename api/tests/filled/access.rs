//! Users, their sessions and links, and the provider that vouches for some.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};
use punchtrail_infra::access::roles::Role;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use super::{DAY_MS, EACH, Filled, browser, id, in_ms};
use crate::{
    callers::{PASSWORD, Person, cookies, sign_in_as},
    provider::Browser,
};

const FACTOR: &str = "/v1/session/second-factor";

impl Filled {
    pub(super) async fn access(&mut self) {
        self.ids("role", ["payroll".to_owned()]);
        let role = json!({"path": {"role": "payroll"}, "body": {"second_factor_required": false}});
        self.give("PUT /v1/roles/{role}", role);
        let sign_in = json!({"login": "in@example.org", "password": PASSWORD});
        sign_in_as(&self.house, "in@example.org", Role::Payroll, &[]).await;
        self.give("POST /v1/sign-in", json!({"body": sign_in}));
        for n in 0..EACH {
            self.users(n).await;
            self.sessions(n).await;
        }
        self.second_factor().await;
        self.provider().await;
    }

    async fn invited(&mut self, login: &str, role: &str) -> (String, String) {
        let login = format!("{login}@example.org");
        let body = json!({"login": login, "name": login, "role": role});
        let link = self.write("/v1/users", &body).await;
        (id(&link, "user"), id(&link, "token"))
    }

    async fn users(&mut self, n: usize) {
        let (user, _) = self.invited(&format!("user{n}"), "payroll").await;
        self.ids("user", [user.clone()]);
        let employee = &self.given.ids["employee"][n];
        let path = json!({"user": user});
        let tied = json!({"path": path, "body": {"employee": employee}});
        let mut give = |what: &str, body: Value| {
            self.give(what, json!({"path": path, "body": body}));
        };
        give("PUT /v1/users/{user}/role", json!({"role": "payroll"}));
        give("PUT /v1/users/{user}/disabled", json!({"disabled": false}));
        give("POST /v1/users/{user}/link", json!({}));
        give("DELETE /v1/users/{user}/sessions", Value::Null);
        self.give("PUT /v1/users/{user}/employee", tied);
        let new = json!({"login": format!("new{n}@example.org"), "name": "n", "role": "payroll"});
        self.give("POST /v1/users", json!({"body": new}));
        let (gone, _) = self.invited(&format!("gone{n}"), "payroll").await;
        self.give("DELETE /v1/users/{user}", json!({"path": {"user": gone}}));
        self.ids("DELETE /v1/users/{user} user", [gone]);
        let (auditor, _) = self.invited(&format!("auditor{n}"), "auditor").await;
        let grant = json!({"reason": "a count", "expires_at": in_ms(DAY_MS)});
        let path = json!({"user": auditor});
        let made = self.write(&format!("/v1/users/{auditor}/grants"), &grant).await;
        let made = id(&made, "grant");
        self.give("POST /v1/users/{user}/grants", json!({"path": path, "body": grant}));
        self.ids("grant", [made.clone()]);
        self.give("DELETE /v1/grants/{grant}", json!({"path": {"grant": made}}));
        let (_, token) = self.invited(&format!("accepts{n}"), "payroll").await;
        let body = json!({"token": token, "password": PASSWORD});
        self.give("POST /v1/links/acceptance", json!({"body": body}));
    }

    /// Each request of a session that it ends or changes comes from another one.
    async fn sessions(&mut self, n: usize) {
        let new = json!({"current": PASSWORD, "password": "four doors, one key"});
        let current = json!({"current": PASSWORD});
        for (what, body) in [
            ("DELETE /v1/session", Value::Null),
            ("POST /v1/session/password", new),
            ("POST /v1/session/provider", current.clone()),
            ("POST /v1/session/second-factor", current),
        ] {
            let login = format!("{n}.{}@example.org", what.rsplit('/').next().unwrap());
            let person = sign_in_as(&self.house, &login, Role::Payroll, &[]).await;
            let headers = browser(&person);
            self.give(what, json!({"body": body, "headers": headers}));
        }
        let seen = self.sessions_of_admin().await;
        sign_in_as(&self.house, "admin@example.org", Role::Admin, &[]).await;
        let new = self.sessions_of_admin().await;
        let other = new.difference(&seen).next().expect("another session").clone();
        self.give("DELETE /v1/sessions/{session}", json!({"path": {"session": other}}));
        self.ids("session", [other]);
    }

    async fn sessions_of_admin(&self) -> BTreeSet<String> {
        let cookies = self.given.callers["session"]["Cookie"].as_str().unwrap().to_owned();
        let listed = Person::Browser(cookies).get(&self.house, "/v1/sessions").await;
        let rows = listed.body["data"].as_array().unwrap();
        rows.iter().map(|row| row["session"].as_str().unwrap().to_owned()).collect()
    }

    /// Set, confirmed and removed by hand: its codes are good for half a minute.
    async fn second_factor(&mut self) {
        let login = "factor@example.org";
        let person = sign_in_as(&self.house, login, Role::Payroll, &[]).await;
        let (person, codes) = self.with_factor(&person, PASSWORD).await;
        let body = json!({"current": PASSWORD, "code": codes[0]});
        let path = format!("{FACTOR}/removal");
        let removed = person.ask(&self.house, Method::POST, &path, &body).await;
        self.called(&format!("POST {path}"), &removed, StatusCode::NO_CONTENT);
    }

    async fn with_factor(&mut self, person: &Person, password: &str) -> (Person, Vec<String>) {
        let current = json!({"current": password});
        let begun = person.ask(&self.house, Method::POST, FACTOR, &current).await;
        let secret = Secret::try_from_base32(id(&begun, "secret")).unwrap();
        let totp = Builder::new().with_secret(secret).build().unwrap();
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
        let path = format!("{FACTOR}/confirmation");
        let body = json!({"code": totp.generate(now).to_string()});
        let done = person.ask(&self.house, Method::POST, &path, &body).await;
        self.called(&format!("POST {path}"), &done, StatusCode::OK);
        let codes = serde_json::from_value(done.body["recovery_codes"].clone()).unwrap();
        (Person::Browser(cookies(&done)), codes)
    }

    /// Somebody comes in by the provider, then with a second factor of ours, and is untied.
    async fn provider(&mut self) {
        let (user, _) = self.invited("vouched", "payroll").await;
        self.provider.say(self.provider.is("vouched", "vouched@example.org"));
        let mut there = Browser::default();
        let begun = there.go(&self.house, "/v1/sign-in/provider").await;
        self.called("GET /v1/sign-in/provider", &begun, StatusCode::SEE_OTHER);
        let back = there.sign_in(&self.house, &self.provider).await;
        self.called("GET /v1/sign-in/provider/callback", &back, StatusCode::SEE_OTHER);
        let cookies: Vec<_> = there.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let (_, codes) = self.with_factor(&Person::Browser(cookies.join("; ")), "").await;
        let mut fresh = Browser::default();
        let asked = fresh.sign_in(&self.house, &self.provider).await;
        assert_eq!(asked.refusal(), "401 second_factor_needed");
        let body = json!({"code": codes[0]});
        let code = "/v1/sign-in/provider/code";
        let let_in = fresh.ask(&self.house, Method::POST, code, &body).await;
        self.called(&format!("POST {code}"), &let_in, StatusCode::OK);
        let path = format!("/v1/users/{user}/provider");
        let untied = self.house.send(Method::DELETE, &path, Some(&self.house.key), "").await;
        self.called("DELETE /v1/users/{user}/provider", &untied, StatusCode::NO_CONTENT);
    }
}
