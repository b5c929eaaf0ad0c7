//! A server whose site checks faces, people who agreed and have a reference photo, and devices at
//! which they punch.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use ed25519_dalek::SigningKey;
use punchtrail_protocol::{
    Digest, EmployeeId, PunchId, Time,
    sealed_photo::{PhotoKey, SEALED_PHOTO_TYPE, seal},
    signing::to_base64url,
    wire::{BatchAnswer, BatchItem, BatchRequest, Enrolled, ItemStatus, Verdict},
};
use punchtrail_simulator::picture::commented;
use punchtrail_testkit::{Chain, Faces};
use punchtrail_tests::{Installation, Operator, Server};
use reqwest::{
    Method, RequestBuilder, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::json;
use sqlx::PgPool;

use super::pictures;
use crate::{
    database::Cluster,
    fleet::{enroll, hire, open_site, settled},
    load::Kiosk,
};

/// How many people punch at each device.
const PEOPLE_PER_DEVICE: usize = 4;
/// Whose pictures they have, in turn: a reference photo, and what a camera sees of them. The first
/// of a is too small to be a reference.
const LIKENESSES: [(&str, &str); 2] = [("person_a_2", "person_a_1"), ("person_b_1", "person_b_2")];
/// When they agreed, and when they began to punch, before now.
const AGREED_AGO_MS: i64 = 25 * 86_400_000;
const START_AGO_MS: i64 = 20 * 86_400_000;
/// Any answer on busy cores; a verdict is waited for in turns of [`VERDICT_WAIT_S`].
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// How long one question for a verdict waits, in seconds.
const VERDICT_WAIT_S: u64 = 20;
/// After this a verdict counts as not given.
const VERDICT_MAX: Duration = Duration::from_secs(180);
/// What makes one frame another than all others, in bytes.
const COMMENT_BYTES_MIN: usize = 16;
/// Tries of a call that is refused as busy.
const TRIES_MAX: u32 = 60;

/// The server, with everyone.
pub struct Site {
    pub server: Server,
    pub pool: PgPool,
    pub doors: Vec<Door>,
    url: String,
}

/// A device.
pub struct Door {
    kiosk: Kiosk,
    token: String,
    base: String,
    http: reqwest::Client,
    /// What its photos are sealed to.
    key: Option<PhotoKey>,
    /// What its camera sees of each of its people, whose turn it is first.
    frames: Vec<Vec<u8>>,
}

/// A punch and its first frame.
pub struct Press {
    pub punch: PunchId,
    item: BatchItem,
    photo: Digest,
    /// Sealed, if the server gave a key.
    body: Vec<u8>,
}

/// Calls that were refused as busy and made again.
pub type Busy = AtomicU64;

impl Site {
    /// Opens it in a fresh database of the run, with so many `devices`.
    pub async fn open(
        cluster: &Cluster,
        faces: &Faces,
        devices: usize,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let url = cluster.empty().await?;
        let place =
            variables.iter().fold(Installation::with_database(&url)?, |place, (name, value)| {
                place.with_variable(name, *value)
            });
        let models = faces.models().to_str().context("the models' folder has a plain name")?;
        let arguments = [&["--face-models", models], arguments].concat();
        let server = Server::start_with(&place, &arguments).await?;
        let pool = PgPool::connect(&url).await?;
        let operator = Operator::new(&place.cli(), server.url(), "bench").await?;
        let site = open_site(&place, "Bench").await?;
        let policy = json!({ "faces": true });
        let path = format!("/v1/sites/{site}/policy");
        let (status, said) = operator.ask(Method::PUT, &path, Some(&policy)).await?;
        ensure!(status.is_success(), "the site can't check faces: {status}, {said}");
        hire(&place, &[(&site, devices * PEOPLE_PER_DEVICE)]).await?;
        settled(&pool).await?;
        let people: Vec<uuid::Uuid> =
            sqlx::query_scalar("select employee from badge_holdings order by number")
                .fetch_all(&pool)
                .await?;
        let people: Vec<EmployeeId> = people.into_iter().map(EmployeeId).collect();
        let http = reqwest::Client::builder().timeout(ANSWER_WAIT).no_proxy().build()?;
        agree(&http, &operator, faces, &people).await?;
        let frames = LIKENESSES.map(|(_, seen)| pictures::kiosk(&faces.picture(seen)));
        let frames: Vec<Vec<u8>> = frames.into_iter().collect::<Result<_, _>>()?;
        let mut doors = Vec::new();
        for people in people.chunks(PEOPLE_PER_DEVICE) {
            doors.push(Door::enrol(&http, &operator, &site, people, &frames).await?);
        }
        settled(&pool).await?;
        Ok(Self { server, pool, doors, url })
    }

    /// Ends it.
    pub async fn close(mut self, cluster: &Cluster) -> anyhow::Result<()> {
        self.pool.close().await;
        self.server.terminate().await?;
        cluster.drop_database(&self.url).await
    }
}

/// Everybody agrees, and gets a reference photo.
async fn agree(
    http: &reqwest::Client,
    operator: &Operator,
    faces: &Faces,
    people: &[EmployeeId],
) -> anyhow::Result<()> {
    let given_at = Time::from(jiff::Timestamp::now()).plus_millis(-AGREED_AGO_MS);
    let consent = json!({ "notice": "bench", "language": "en", "given_at": given_at });
    let references = LIKENESSES.map(|(reference, _)| faces.picture(reference));
    for (person, reference) in people.iter().zip(references.iter().cycle()) {
        operator.post(&format!("/v1/employees/{person}/face/consent"), &consent).await?;
        let path = format!("/v1/employees/{person}/face/references/{}", Digest::of(reference));
        let url = format!("{}{path}", operator.base());
        let put = http.put(url).bearer_auth(operator.key()).body(reference.clone());
        let answer = put.send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{path} answers {status}: {}", answer.text().await?);
    }
    Ok(())
}

impl Door {
    async fn enrol(
        http: &reqwest::Client,
        operator: &Operator,
        site: &str,
        people: &[EmployeeId],
        frames: &[Vec<u8>],
    ) -> anyhow::Result<Self> {
        let code = operator.post(&format!("/v1/sites/{site}/pairing-codes"), &json!({})).await?;
        let code = code["code"].as_str().context("a pairing code")?;
        let key = SigningKey::from_bytes(&rand::random());
        let enrolled = enroll(operator.base(), &key, code).await?;
        let Enrolled { org, site, device, token, photo_key, .. } = enrolled;
        let start = Time::from(jiff::Timestamp::now()).plus_millis(-START_AGO_MS);
        Ok(Self {
            kiosk: Kiosk::new(Chain::new(org, site, device, key), people.to_vec(), start),
            token,
            key: photo_key.map(|key| key.parse()).transpose()?,
            base: operator.base().to_owned(),
            http: http.clone(),
            frames: frames.to_vec(),
        })
    }

    /// The next punch, with a first frame of its own: what the camera sees, and a comment that
    /// makes it about `bytes_min` long if it is shorter.
    ///
    /// # Errors
    /// When it can't be sealed.
    pub fn press(&mut self, bytes_min: usize) -> anyhow::Result<Press> {
        let turn = self.kiosk.seq() as usize % PEOPLE_PER_DEVICE;
        let seen = &self.frames[turn % self.frames.len()];
        let mut comment = vec![0; bytes_min.saturating_sub(seen.len()).max(COMMENT_BYTES_MIN)];
        rand::fill(&mut comment[..]);
        let frame = commented(seen, &comment);
        let photo = Digest::of(&frame);
        let signed = self.kiosk.punch_with(Some(photo));
        let capture = to_base64url(signed.text.as_bytes());
        let item = BatchItem { capture, signature: signed.signature.to_string() };
        let body = match &self.key {
            Some(key) => seal(key, &frame)?,
            None => frame,
        };
        Ok(Press { punch: signed.punch, item, photo, body })
    }

    /// Delivers a punch, and returns when it is acknowledged.
    pub async fn deliver(&self, press: &Press, busy: &Busy) -> anyhow::Result<()> {
        let path = format!("/v1/sites/{}/punches/batch", self.kiosk.site());
        let batch = BatchRequest { punches: vec![press.item.clone()] };
        let answer = self.ask(busy, || self.call(Method::POST, &path).json(&batch)).await?;
        let answer: BatchAnswer = answer.json().await?;
        let status = answer.results.first().map(|result| result.status);
        ensure!(status == Some(ItemStatus::Applied), "a punch is {status:?}");
        Ok(())
    }

    /// Puts its first frame, and returns when the server has it.
    pub async fn put(&self, press: &Press, busy: &Busy) -> anyhow::Result<()> {
        let path = format!("/v1/photos/{}", press.photo);
        let put = || {
            let media = if self.key.is_some() { SEALED_PHOTO_TYPE } else { "image/jpeg" };
            let call = self.call(Method::PUT, &path).header(CONTENT_TYPE, media);
            call.body(press.body.clone())
        };
        self.ask(busy, put).await.map(drop)
    }

    /// Waits for the verdict on it.
    ///
    /// # Errors
    /// When none comes within [`VERDICT_MAX`], or none will.
    pub async fn verdict(&self, press: &Press, busy: &Busy) -> anyhow::Result<()> {
        let path = format!("/v1/punches/{}/verdict?wait_s={VERDICT_WAIT_S}", press.punch);
        let began = Instant::now();
        while began.elapsed() < VERDICT_MAX {
            let asked = Instant::now();
            let answer = self.ask(busy, || self.call(Method::GET, &path)).await?;
            let verdict: Verdict = answer.json().await?;
            if verdict.attempt.is_some() {
                return Ok(());
            }
            let waited = asked.elapsed() >= Duration::from_secs(VERDICT_WAIT_S - 1);
            ensure!(waited, "a punch is settled without a verdict: {:?}", verdict.standing);
        }
        bail!("no verdict within {} s", VERDICT_MAX.as_secs())
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    /// Asks until it isn't refused as busy, as long after each time as the server says.
    async fn ask(
        &self,
        busy: &Busy,
        request: impl Fn() -> RequestBuilder,
    ) -> anyhow::Result<reqwest::Response> {
        for _ in 0..TRIES_MAX {
            let answer = request().send().await?;
            let status = answer.status();
            if !matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
                if status.is_success() {
                    return Ok(answer);
                }
                let path = answer.url().path().to_owned();
                bail!("{path} answers {status}: {}", answer.text().await?);
            }
            busy.fetch_add(1, Ordering::Relaxed);
            let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let pause_s = asked.and_then(|value| value.parse().ok()).unwrap_or(1);
            tokio::time::sleep(Duration::from_secs(pause_s)).await;
        }
        bail!("refused as busy {TRIES_MAX} times")
    }
}
