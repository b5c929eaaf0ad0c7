//! People who sign in, as tests need them: with cookies, as a browser's own page sends them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]
#![allow(dead_code, reason = "each test file uses its part")]

use axum::body::Body;
use hyper::{Method, Request, StatusCode, header};
use punchtrail_infra::access::{
    links,
    roles::Role,
    trail::Doer,
    users::{self, Invited},
};
use punchtrail_protocol::SiteId;
use serde_json::{Value, json};

use super::common::{Answer, House, request};

/// What everybody's password is here.
pub const PASSWORD: &str = "three doors, one key";

/// Who asks.
#[derive(Debug, Clone)]
pub enum Person {
    Nobody,
    /// Whoever has a key.
    Key(String),
    /// Whoever is signed in: the cookies.
    Browser(String),
}

impl Person {
    /// Puts on a request what it is known by, as a browser's own page does.
    pub fn put_on(&self, request: &mut Request<Body>) {
        let headers = request.headers_mut();
        match self {
            Self::Nobody => {}
            Self::Key(key) => {
                headers.insert(header::AUTHORIZATION, format!("Bearer {key}").parse().unwrap());
            }
            Self::Browser(cookies) => {
                headers.insert(header::COOKIE, cookies.parse().unwrap());
                headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
            }
        }
    }

    pub async fn ask(&self, house: &House, method: Method, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = request(method, path, None, body.into());
        let json = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        self.put_on(&mut request);
        house.ask(request).await
    }

    /// Reads everything that is written now, where the route can wait for it.
    pub async fn get(&self, house: &House, path: &str) -> Answer {
        let head = house.ledger.head().await.unwrap();
        let mut request = request(Method::GET, path, None, Body::empty());
        request.headers_mut().insert("punchtrail-after", head.0.into());
        self.put_on(&mut request);
        house.ask(request).await
    }
}

/// The cookies that an answer gives, as they are sent back.
pub fn cookies(answer: &Answer) -> String {
    let given = answer.headers.get_all(header::SET_COOKIE).iter();
    let given = given.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
    given.collect::<Vec<_>>().join("; ")
}

/// Makes a user of that role with a password, unless there is one, and gives their id.
pub async fn user(house: &House, login: &str, role: Role, sites: &[SiteId]) -> users::User {
    let writer = &house.pools.writer;
    if users::named(writer, login).await.unwrap().is_none() {
        let invited = Invited { login, name: login, role, sites };
        let (_, link) = users::invite(writer, &invited, &Doer::command_line()).await.unwrap();
        let body = json!({"token": link.token(), "password": PASSWORD});
        let accepted = house.post("/v1/links/acceptance", None, &body).await;
        assert_eq!(accepted.status, StatusCode::OK, "{}", accepted.text);
        assert!(links::whose(writer, link.token()).await.is_err(), "a link is good once");
    }
    users::named(writer, login).await.unwrap().unwrap()
}

/// Signs in as a user of that role, who is made unless there is one.
pub async fn sign_in_as(house: &House, login: &str, role: Role, sites: &[SiteId]) -> Person {
    user(house, login, role, sites).await;
    let answer = sign_in(house, login, PASSWORD, "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    Person::Browser(cookies(&answer))
}

/// Asks to be let in, from a browser with these cookies.
pub async fn sign_in(house: &House, login: &str, password: &str, cookies: &str) -> Answer {
    let body = json!({"login": login, "password": password});
    let mut request = request(Method::POST, "/v1/sign-in", None, body.to_string().into());
    let json = header::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    if !cookies.is_empty() {
        request.headers_mut().insert(header::COOKIE, cookies.parse().unwrap());
    }
    house.ask(request).await
}
