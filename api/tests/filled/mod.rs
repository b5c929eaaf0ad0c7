//! A server with one of everything in it and more, made over HTTP; and what whoever calls it needs
//! to know: as whom to ask, the ids of what is there, and requests that each operation takes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]

mod access;
mod office;
mod people;
mod sync;
mod webhooks;

use std::collections::BTreeMap;

use axum::body::Body;
use hyper::{Method, StatusCode, header};
use image::{ImageFormat, RgbImage};
use punchtrail_api::{door::address::TrustedProxies, quota::Allowance};
use punchtrail_infra::{access::roles::Role, webhooks::address::Egress};
use punchtrail_protocol::{SiteId, Time};
use punchtrail_testkit::Receiver;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    callers::{Person, sign_in_as},
    common::{Answer, Device, House, request},
    provider::StandIn,
};

/// How many of each thing that a request uses up.
const EACH: usize = 6;
/// What is asked of every request that is to be repeated, as its operation takes it.
type Requests = BTreeMap<String, Vec<Value>>;

/// What a caller is told.
#[derive(Debug, Default, Serialize)]
pub struct Given {
    /// The headers of each kind of caller, by what the description calls their credentials.
    pub callers: BTreeMap<&'static str, Value>,
    /// Ids by the parameter that they are for; under `METHOD /path parameter` those that an
    /// operation gets in place of these, since it takes away what they are of.
    pub ids: BTreeMap<String, Vec<String>>,
    /// Requests by operation, each good once at least.
    pub requests: Requests,
    /// Operations that were called with success while the server was filled.
    pub called: Vec<String>,
}

/// The server, and what is told of it.
pub struct Filled {
    pub house: House,
    pub given: Given,
    provider: StandIn,
    receiver: Receiver,
    device: Device,
    /// Where the device stands; one that nothing stands at; one that is changed.
    site: String,
    elsewhere: String,
    changed: String,
}

/// So many milliseconds from now.
fn in_ms(ms: i64) -> Time {
    Time::from(jiff::Timestamp::now()).plus_millis(ms)
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A small picture, another for each number.
fn picture(number: usize) -> Vec<u8> {
    let shade = u8::try_from(number * 20).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(96, 96, image::Rgb([shade, 255 - shade, 90]));
    image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

fn id(answer: &Answer, field: &str) -> String {
    assert!(answer.status.is_success(), "{}", answer.text);
    answer.body[field].as_str().unwrap_or_else(|| panic!("{field}: {}", answer.text)).to_owned()
}

/// Who asks in a role beside the admin, by name.
const ROLES: [(&str, Role); 3] =
    [("manager", Role::Manager), ("auditor", Role::Auditor), ("payroll", Role::Payroll)];

impl Filled {
    /// Everything is there, and every follower has seen it.
    pub async fn new() -> Self {
        let provider = StandIn::new().await;
        let (settings, receiver) = (provider.settings(), Receiver::taking().await.unwrap());
        let house = House::with(|options| {
            options.provider = Some(settings);
            // Each request comes from an address of its own, so that none is sent away for others.
            options.proxies = TrustedProxies(vec!["127.0.0.0/8".parse().unwrap()]);
            options.webhooks.egress = Egress::new(Vec::new(), true);
            options.allowance = Allowance { device_calls: u32::MAX, key_calls: u32::MAX };
        })
        .await;
        let mut sites = Vec::new();
        for name in ["Mill", "Quay", "Yard"] {
            let body = json!({"name": name, "tz": "Europe/Berlin"});
            sites.push(id(&house.write("/v1/sites", &body).await, "site"));
        }
        let [site, elsewhere, changed] = <[String; 3]>::try_from(sites).unwrap();
        let device = house.device(site.parse().unwrap()).await;
        let given = Given::default();
        let mut filled =
            Self { house, given, provider, receiver, device, site, elsewhere, changed };
        filled.callers().await;
        filled.people().await;
        filled.sync().await;
        filled.office().await;
        filled.access().await;
        filled.webhooks().await;
        filled.house.settled().await;
        filled
    }

    pub async fn close(self) {
        self.house.close().await;
    }

    async fn callers(&mut self) {
        let bearer = |token: &str| json!({"Authorization": format!("Bearer {token}")});
        let admin = sign_in_as(&self.house, "admin@example.org", Role::Admin, &[]).await;
        let (house, site) = (&self.house, self.site.parse::<SiteId>().unwrap());
        let mut of_role = BTreeMap::new();
        for (name, role) in ROLES {
            let sites = if role == Role::Manager { vec![site] } else { Vec::new() };
            let person = sign_in_as(house, &format!("{name}@example.org"), role, &sites).await;
            of_role.insert(name, browser(&person));
        }
        let callers = &mut self.given.callers;
        callers.append(&mut of_role);
        callers.insert("operator_key", bearer(&self.house.key));
        callers.insert("device_token", bearer(&self.device.token));
        callers.insert("session", browser(&admin));
        let sites = [&self.site, &self.elsewhere].map(String::clone);
        self.ids("site", sites);
        for operation in ["PUT /v1/sites/{site}/policy", "PUT /v1/sites/{site}/zone"] {
            self.ids(&format!("{operation} site"), [self.changed.clone()]);
        }
        self.ids("device", [self.device.id.to_string()]);
    }

    fn ids(&mut self, parameter: &str, ids: impl IntoIterator<Item = String>) {
        self.given.ids.entry(parameter.to_owned()).or_default().extend(ids);
    }

    /// A request that the operation takes.
    fn give(&mut self, operation: &str, request: Value) {
        self.given.requests.entry(operation.to_owned()).or_default().push(request);
    }

    /// Writes as an operator what has to be taken.
    async fn write(&self, path: &str, body: &Value) -> Answer {
        let answer = self.house.write(path, body).await;
        assert!(answer.status.is_success(), "{path} {body}: {}", answer.text);
        answer
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        let key = Some(self.house.key.as_str());
        let answer = self.house.send(Method::PUT, path, key, body.to_string()).await;
        assert!(answer.status.is_success(), "{path} {body}: {}", answer.text);
        answer
    }

    /// Takes somebody on.
    async fn person(&self, name: &str) -> String {
        let body = json!({"name": name, "site": self.site, "from": in_ms(-30 * DAY_MS)});
        id(&self.write("/v1/employees", &body).await, "employee")
    }

    /// Sends a picture, by hand.
    async fn send_picture(&mut self, operation: &str, path: &str, token: &str, picture: Vec<u8>) {
        let mut request = request(Method::PUT, path, Some(token), Body::from(picture));
        let jpeg = header::HeaderValue::from_static("image/jpeg");
        request.headers_mut().insert(header::CONTENT_TYPE, jpeg);
        let answer = self.house.ask(request).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
        self.given.called.push(operation.to_owned());
    }

    /// That a call by hand was answered so.
    fn called(&mut self, operation: &str, answer: &Answer, status: StatusCode) {
        assert_eq!(answer.status, status, "{operation}: {}", answer.text);
        self.given.called.push(operation.to_owned());
    }
}

/// What a browser's own page sends.
fn browser(person: &Person) -> Value {
    let Person::Browser(cookies) = person else { panic!("{person:?} is in no browser") };
    json!({"Cookie": cookies, "Sec-Fetch-Site": "same-origin"})
}
