//! A provider of OpenID Connect on loopback, that can lie in every way that matters; and a browser
//! that goes back and forth between it and the server. Its tokens are put together by hand, so that
//! nothing of the library under test vouches for itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says where")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hyper::Method;
use punchtrail_infra::access::provider::Settings;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, task::JoinHandle};
use url::form_urlencoded;

use super::common::{Answer, House, ask, request};

pub const CLIENT: &str = "clock & stamp";
pub const SECRET: &str = "a secret: with + and %";
/// Where browsers reach the server, as it is told.
pub const PUBLIC: &str = "https://clock.example.org";
/// The most that an honest page of the stand-in holds is far below this.
const HUGE_BYTES: usize = 8 << 20;

/// By what the ID token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    #[default]
    Rs256,
    Es256,
    EdDsa,
    /// The client's secret.
    Hs256,
    /// The public key's text, as if that were a secret.
    Hs256OfPublicKey,
    Nothing,
    /// A key that is on no page of its.
    AnotherKey,
    /// The same, under the name of one that is.
    AnotherKeyOfThatName,
}

/// How it fails to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Never.
    Slow,
    Huge,
    Status(u16),
    /// It sends elsewhere, to where all would be well.
    Elsewhere,
    Garbage,
}

/// What it says, honest unless changed.
#[derive(Debug, Clone, Default)]
pub struct Says {
    pub by: By,
    /// Laid over the ID token's claims; null takes one away.
    pub claims: Value,
    /// Laid over its answer to the code.
    pub answer: Value,
    /// Laid over its description.
    pub description: Value,
    /// What it calls itself as it sends the browser back, instead of its name.
    pub sent_by: Option<String>,
    /// Pages that fail.
    pub faults: HashMap<&'static str, Fault>,
    /// What it tells of an address apart from the ID token.
    pub told: Value,
}

struct Keys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    /// On no page of its.
    hidden: RsaKeyPair,
    /// Its name for the RSA key.
    name: String,
}

impl Keys {
    fn new(name: &str) -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
            hidden: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            name: name.to_owned(),
        }
    }

    fn page(&self) -> Value {
        // PKCS #1: a sequence of modulus and exponent; of 2,048 bits the first begins here.
        let modulus = &self.rsa.public_key().as_ref()[9..9 + 256];
        let point = self.ec.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let ed = self.ed.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": self.name, "use": "sig", "alg": "RS256",
             "n": BASE64.encode(modulus), "e": "AQAB"},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig",
             "x": BASE64.encode(x), "y": BASE64.encode(y)},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "x": BASE64.encode(ed)},
        ]})
    }

    fn token(&self, by: By, claims: &Value) -> String {
        let (algorithm, name) = match by {
            By::Rs256 | By::AnotherKeyOfThatName => ("RS256", self.name.as_str()),
            By::AnotherKey => ("RS256", "nobody's"),
            By::Es256 => ("ES256", "ec"),
            By::EdDsa => ("EdDSA", "ed"),
            By::Hs256 | By::Hs256OfPublicKey => ("HS256", self.name.as_str()),
            By::Nothing => ("none", self.name.as_str()),
        };
        let head = json!({"alg": algorithm, "typ": "JWT", "kid": name});
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(claims));
        let bytes = signed.as_bytes();
        let by_rsa = |key: &RsaKeyPair| {
            let mut signature = vec![0; key.public_modulus_len()];
            let random = SystemRandom::new();
            key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
            signature
        };
        let by_secret = |secret: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), bytes).as_ref().to_vec()
        };
        let signature = match by {
            By::Rs256 => by_rsa(&self.rsa),
            By::AnotherKey | By::AnotherKeyOfThatName => by_rsa(&self.hidden),
            By::Es256 => self.ec.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
            By::EdDsa => self.ed.sign(bytes).as_ref().to_vec(),
            By::Hs256 => by_secret(SECRET.as_bytes()),
            By::Hs256OfPublicKey => by_secret(self.rsa.public_key().as_ref()),
            By::Nothing => Vec::new(),
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// A code that it gave out, and for what.
struct Given {
    nonce: String,
    challenge: String,
    redirect: String,
}

struct Inner {
    address: SocketAddr,
    says: Mutex<Says>,
    keys: Mutex<Keys>,
    given: Mutex<HashMap<String, Given>>,
    asked: Mutex<BTreeMap<&'static str, usize>>,
    /// What the last browser came with.
    came: Mutex<HashMap<String, String>>,
}

/// The stand-in.
pub struct StandIn {
    inner: Arc<Inner>,
    serving: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl StandIn {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            says: Mutex::default(),
            keys: Mutex::new(Keys::new("first")),
            given: Mutex::default(),
            asked: Mutex::default(),
            came: Mutex::default(),
        });
        let routes = Router::new()
            .route("/realms/example/.well-known/openid-configuration", get(description))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/told", get(told))
            // What would be well, were anybody to follow.
            .route("/elsewhere/description", get(description))
            .route("/elsewhere/keys", get(keys))
            .route("/elsewhere/token", post(token))
            .with_state(Arc::clone(&inner));
        let serving = async move { axum::serve(listener, routes).await.unwrap() };
        Self { inner, serving: tokio::spawn(serving) }
    }

    pub fn issuer(&self) -> String {
        self.inner.issuer()
    }

    pub fn settings(&self) -> Settings {
        Settings {
            issuer: self.issuer(),
            client_id: CLIENT.to_owned(),
            client_secret: Some(SECRET.to_owned()),
            name: "Example ID".to_owned(),
            public_url: PUBLIC.to_owned(),
            multi_factor_acr: Vec::new(),
            allows_loopback_http: true,
        }
    }

    /// A server that takes this provider's word.
    pub async fn house(&self) -> House {
        let settings = self.settings();
        House::with(|options| options.provider = Some(settings)).await
    }

    /// Says something else from now on.
    pub fn say(&self, says: Says) {
        *self.inner.says.lock().unwrap() = says;
    }

    /// That this is who signs in there.
    pub fn is(&self, subject: &str, email: &str) -> Says {
        let claims = json!({"sub": subject, "email": email, "email_verified": true});
        Says { claims, ..Says::default() }
    }

    /// Takes another key, under another name.
    pub fn change_keys(&self, name: &str) {
        *self.inner.keys.lock().unwrap() = Keys::new(name);
    }

    /// How often a page of its was asked for.
    pub fn asked(&self, page: &str) -> usize {
        self.inner.asked.lock().unwrap().get(page).copied().unwrap_or(0)
    }

    /// What the last browser was sent there with.
    pub fn came(&self) -> HashMap<String, String> {
        self.inner.came.lock().unwrap().clone()
    }
}

impl Inner {
    fn issuer(&self) -> String {
        format!("http://{}/realms/example", self.address)
    }

    fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn says(&self) -> Says {
        self.says.lock().unwrap().clone()
    }

    /// Counts a page; what it does instead of answering, if anything.
    async fn page(&self, page: &'static str) -> Option<Response> {
        *self.asked.lock().unwrap().entry(page).or_default() += 1;
        match self.says().faults.get(page)? {
            Fault::Slow => std::future::pending().await,
            Fault::Huge => Some(json_text(format!("{{\"a\":\"{}\"}}", "a".repeat(HUGE_BYTES)))),
            Fault::Status(status) => {
                let status = StatusCode::from_u16(*status).unwrap();
                Some((status, "{}").into_response())
            }
            Fault::Elsewhere => {
                let to = self.at(&format!("/elsewhere/{page}"));
                self.says.lock().unwrap().faults.clear();
                Some(Redirect::temporary(&to).into_response())
            }
            Fault::Garbage => Some(json_text("<html>soon back</html>".to_owned())),
        }
    }
}

fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Lays one object over another; null takes a field away.
fn laid(mut under: Value, over: &Value) -> Value {
    for (name, value) in over.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(under.as_object_mut().unwrap().remove(name)),
            value => under[name] = value.clone(),
        }
    }
    under
}

async fn description(State(inner): State<Arc<Inner>>) -> Response {
    if let Some(fault) = inner.page("description").await {
        return fault;
    }
    let honest = json!({
        "issuer": inner.issuer(),
        "authorization_endpoint": inner.at("/authorize"),
        "token_endpoint": inner.at("/token"),
        "jwks_uri": inner.at("/keys"),
        "userinfo_endpoint": inner.at("/told"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA", "HS256", "none"],
        "authorization_response_iss_parameter_supported": true,
    });
    Json(laid(honest, &inner.says().description)).into_response()
}

async fn keys(State(inner): State<Arc<Inner>>) -> Response {
    if let Some(fault) = inner.page("keys").await {
        return fault;
    }
    let page = inner.keys.lock().unwrap().page();
    Json(page).into_response()
}

async fn authorize(
    State(inner): State<Arc<Inner>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    assert_eq!(query["response_type"], "code");
    assert_eq!(query["client_id"], CLIENT);
    assert_eq!(query["code_challenge_method"], "S256");
    assert_eq!(query["redirect_uri"], format!("{PUBLIC}/v1/sign-in/provider/callback"));
    assert!(query["scope"].split(' ').any(|scope| scope == "openid"));
    let given = Given {
        nonce: query["nonce"].clone(),
        challenge: query["code_challenge"].clone(),
        redirect: query["redirect_uri"].clone(),
    };
    let code = format!("code-{}", rand::random::<u64>());
    inner.given.lock().unwrap().insert(code.clone(), given);
    let sent_by = inner.says().sent_by.unwrap_or_else(|| inner.issuer());
    let back = form_urlencoded::Serializer::new(String::new())
        .append_pair("code", &code)
        .append_pair("state", &query["state"])
        .append_pair("iss", &sent_by)
        // As some do.
        .append_pair("session_state", "of theirs")
        .finish();
    *inner.came.lock().unwrap() = query.clone();
    Redirect::to(&format!("{}?{back}", query["redirect_uri"])).into_response()
}

async fn token(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: String) -> Response {
    let form: HashMap<String, String> =
        form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    if let Some(fault) = inner.page("token").await {
        return fault;
    }
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = format!("{}:{}", encoded(CLIENT), encoded(SECRET));
    let credentials = base64::engine::general_purpose::STANDARD.encode(credentials);
    assert_eq!(headers[header::AUTHORIZATION], format!("Basic {credentials}"));
    assert_eq!(form["grant_type"], "authorization_code");
    let challenge = BASE64.encode(Sha256::digest(&form["code_verifier"]));
    let given = inner.given.lock().unwrap().remove(&form["code"]);
    // A code once, and of whoever began with this verifier (RFC 7636, 4.6).
    let Some(given) = given.filter(|given| given.challenge == challenge) else {
        let error = Json(json!({"error": "invalid_grant"}));
        return (StatusCode::BAD_REQUEST, error).into_response();
    };
    assert_eq!(form["redirect_uri"], given.redirect);
    let now = jiff::Timestamp::now().as_second();
    let honest = json!({
        "iss": inner.issuer(), "sub": "nobody", "aud": CLIENT, "iat": now, "exp": now + 300,
        "nonce": given.nonce,
    });
    let says = inner.says();
    let token = inner.keys.lock().unwrap().token(says.by, &laid(honest, &says.claims));
    let answer = json!({
        "access_token": "for-what-it-tells", "token_type": "Bearer", "expires_in": 300,
        "id_token": token,
    });
    Json(laid(answer, &says.answer)).into_response()
}

async fn told(State(inner): State<Arc<Inner>>, headers: HeaderMap) -> Response {
    if let Some(fault) = inner.page("told").await {
        return fault;
    }
    assert!(headers[header::AUTHORIZATION].to_str().unwrap().starts_with("Bearer "));
    let says = inner.says();
    Json(laid(json!({"sub": says.claims["sub"]}), &says.told)).into_response()
}

/// A browser: it keeps cookies, and goes where it is sent.
#[derive(Debug, Clone, Default)]
pub struct Browser {
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    /// Asks the server, as if another site had led here.
    pub async fn go(&mut self, house: &House, path: &str) -> Answer {
        self.send(house.address, Method::GET, path, "cross-site", &Value::Null).await
    }

    /// Asks the server from a page of its own.
    pub async fn ask(&mut self, house: &House, method: Method, path: &str, body: &Value) -> Answer {
        self.send(house.address, method, path, "same-origin", body).await
    }

    pub async fn send(
        &mut self,
        address: SocketAddr,
        method: Method,
        path: &str,
        from: &str,
        body: &Value,
    ) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = request(method, path, None, Body::from(body));
        let headers = request.headers_mut();
        headers.insert("sec-fetch-site", from.parse().unwrap());
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let cookies: Vec<_> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
        if !cookies.is_empty() {
            headers.insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        }
        let answer = ask(address, request).await;
        self.keep(&answer);
        answer
    }

    fn keep(&mut self, answer: &Answer) {
        for given in answer.headers.get_all(header::SET_COOKIE) {
            let given = given.to_str().unwrap();
            for part in ["__Host-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
                assert!(given.contains(part), "{given}");
            }
            let (name, value) = given.split(';').next().unwrap().split_once('=').unwrap();
            match given.contains("Max-Age=0") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
    }

    /// Follows one step to the provider and back: the path on the server.
    pub async fn there_and_back(&self, provider: &StandIn, location: &str) -> String {
        let path = location.strip_prefix(&provider.inner.at("")).expect("to the provider");
        let sent = request(Method::GET, path, None, Body::empty());
        let back = ask(provider.inner.address, sent).await;
        assert_eq!(back.status, StatusCode::SEE_OTHER, "{}", back.text);
        let back = back.headers[header::LOCATION].to_str().unwrap().to_owned();
        back.strip_prefix(PUBLIC).expect("back to the server").to_owned()
    }

    /// Begins to sign in: where the provider sends it back to.
    pub async fn begin(&mut self, house: &House, provider: &StandIn) -> String {
        let begun = self.go(house, "/v1/sign-in/provider").await;
        assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
        let location = begun.headers[header::LOCATION].to_str().unwrap().to_owned();
        self.there_and_back(provider, &location).await
    }

    /// Signs in, all the way.
    pub async fn sign_in(&mut self, house: &House, provider: &StandIn) -> Answer {
        let back = self.begin(house, provider).await;
        self.go(house, &back).await
    }

    /// Who it is signed in as.
    pub async fn own(&mut self, house: &House) -> Answer {
        self.ask(house, Method::GET, "/v1/session", &Value::Null).await
    }
}
