//! Those who do their worst at the door: a stranger without credentials, and a device whose access
//! was ended. What they do costs them little: requests without bodies, tokens of nobody, wrong
//! codes, connections that say nothing.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use ed25519_dalek::SigningKey;
use futures::{StreamExt, stream};
use punchtrail_protocol::{
    signing::{ENROLMENT_TYPE, PublicKey, sign, to_base64url},
    wire::PAIRING_ALPHABET,
};
use rand::RngExt;
use reqwest::{Body, Client, header};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet};

use crate::Kiosk;

/// Connections of each kind, and requests at once on each.
const CONNECTIONS: usize = 8;
const STREAMS: usize = 63;
/// Connections that say nothing.
const SILENT: usize = 300;

/// They go on until this is dropped.
#[derive(Debug)]
pub struct Hostile {
    _doing: JoinSet<()>,
}

impl Hostile {
    /// A stranger at the server at `url`, and a revoked device.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn begin(url: &str, address: SocketAddr, revoked: &Kiosk) -> anyhow::Result<Self> {
        let mut doing = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (http, at) = (many_at_once()?, format!("{url}/v1/devices/enroll"));
            doing.spawn(over_and_over(move |_| {
                let enrolment = http.post(&at);
                drop_answer(without_body(enrolment))
            }));
            let (http, url) = (many_at_once()?, url.to_owned());
            doing.spawn(over_and_over(move |n| {
                let kind = if n.is_multiple_of(2) { "ptk_" } else { "ptd_" };
                let nobody = format!("{kind}{}", to_base64url(&rand::random::<[u8; 32]>()));
                let path = ["/v1/punches", "/metrics", "/openapi.json", "/nowhere"];
                let path = path[usize::try_from(n % 4).unwrap_or_default()];
                drop_answer(http.get(format!("{url}{path}")).bearer_auth(nobody))
            }));
        }
        let (http, at) = (many_at_once()?, format!("{url}/v1/devices/enroll"));
        doing.spawn(over_and_over(move |_| drop_answer(http.post(&at).json(&guess()))));
        for path in [revoked.batch_path(), "/v1/devices/self/heartbeat".to_owned()] {
            let (http, at) = (many_at_once()?, format!("{url}{path}"));
            let token = revoked.token().to_owned();
            doing.spawn(over_and_over(move |_| {
                drop_answer(without_body(http.post(&at).bearer_auth(&token)))
            }));
        }
        let (http, at) = (many_at_once()?, format!("{url}/v1/photos/{}", "0".repeat(64)));
        let token = revoked.token().to_owned();
        doing.spawn(over_and_over(move |_| {
            drop_answer(without_body(http.put(&at).bearer_auth(&token)))
        }));
        doing.spawn(silence(address));
        Ok(Self { _doing: doing })
    }
}

/// A client whose requests share one HTTP/2 connection.
fn many_at_once() -> anyhow::Result<Client> {
    Ok(Client::builder().http2_prior_knowledge().timeout(Duration::from_secs(20)).build()?)
}

fn without_body(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    let never = stream::pending::<Result<Vec<u8>, Infallible>>();
    request
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, 300)
        .body(Body::wrap_stream(never))
}

fn guess() -> serde_json::Value {
    let letter = || {
        let at = rand::rng().random_range(0..PAIRING_ALPHABET.len());
        char::from(PAIRING_ALPHABET[at])
    };
    let code: String = (0..8).map(|_| letter()).collect();
    let key = SigningKey::from_bytes(&[7; 32]);
    json!({
        "code": code, "name": "x", "app": "x", "public_key": PublicKey::from(&key),
        "proof": sign(&key, ENROLMENT_TYPE, code.as_bytes()),
    })
}

async fn drop_answer(request: reqwest::RequestBuilder) {
    drop(request.send().await);
}

/// As many at once as a connection carries, each followed by the next.
async fn over_and_over<F: Future<Output = ()>>(mut request: impl FnMut(u64) -> F) {
    let endless = stream::iter(0_u64..).map(|n| {
        let asked = request(n);
        async move {
            asked.await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    endless.buffer_unordered(STREAMS).for_each(|()| async {}).await;
}

/// Connections over which nothing is said, each opened again when it is ended.
async fn silence(address: SocketAddr) {
    let one = |_| async move {
        loop {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                drop(stream.read_to_end(&mut Vec::new()).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    stream::iter(0..SILENT).map(one).buffer_unordered(SILENT).for_each(|()| async {}).await;
}
