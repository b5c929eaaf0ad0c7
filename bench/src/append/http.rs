//! Signed batches over HTTP into the real server: until acknowledged, and until settled.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ed25519_dalek::SigningKey;
use punchtrail_domain::{
    DeviceId, EmployeeId, OrgId, SiteId, Time,
    signing::{ENROLMENT_TYPE, PublicKey, sign, to_base64url},
    wire::{BatchAnswer, BatchItem, BatchRequest, EnrollRequest, Enrolled, ItemStatus},
};
use punchtrail_tests::{Place, Server};
use sqlx::PgPool;

use super::rate;
use crate::load::Kiosk;

const DEVICES: usize = 8;
const BATCH_PUNCHES: usize = 100;
/// How many people punch at each device.
const PEOPLE_PER_DEVICE: usize = 250;
/// Long enough ago that nothing lies in the future, not so long that it is beyond the look-back.
const START_AGO_MS: i64 = 20 * 86_400_000;
const POLL_MS: u64 = 20;
const SETTLE_MAX: Duration = Duration::from_secs(600);

/// Punches a second until the last answer, and until every follower stands at the head.
pub struct Rates {
    pub acknowledged: f64,
    pub settled: f64,
}

struct Sender {
    url: String,
    token: String,
    bodies: Vec<Vec<u8>>,
}

pub async fn deliver(url: &str, pool: &PgPool, punches: usize) -> anyhow::Result<Rates> {
    let place = Place::with_database(url)?;
    let mut server = Server::start(&place).await?;
    let senders = prepare(&server, &place, punches).await?;
    settled(pool).await?;
    let client = reqwest::Client::builder().pool_max_idle_per_host(DEVICES).build()?;
    let started = Instant::now();
    let sending = senders.into_iter().map(|sender| tokio::spawn(send(client.clone(), sender)));
    let mut applied = 0;
    for task in sending.collect::<Vec<_>>() {
        applied += task.await??;
    }
    let acknowledged = rate(applied, started);
    settled(pool).await?;
    let settled = rate(applied, started);
    ensure!(applied >= punches, "{applied} of {punches} punches were applied");
    server.terminate().await?;
    Ok(Rates { acknowledged, settled })
}

async fn send(client: reqwest::Client, sender: Sender) -> anyhow::Result<usize> {
    let mut applied = 0;
    for body in sender.bodies {
        let answer: BatchAnswer = client
            .post(&sender.url)
            .bearer_auth(&sender.token)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        applied += answer.results.iter().filter(|r| r.status == ItemStatus::Applied).count();
    }
    Ok(applied)
}

/// Enrols the devices and makes every body before the clock runs.
async fn prepare(server: &Server, place: &Place, punches: usize) -> anyhow::Result<Vec<Sender>> {
    let cli = place.cli();
    let site = cli.text(&["site", "add", "--name", "Bench", "--tz", "Europe/Berlin"], "site").await?;
    let roster = place.data.path().join("roster.csv");
    let mut csv = String::from("badge,name,pin,site\n");
    for n in 0..DEVICES * PEOPLE_PER_DEVICE {
        csv.push_str(&format!("b{n:05},Worker {n},,{site}\n"));
    }
    std::fs::write(&roster, csv)?;
    let roster = roster.to_str().context("the data directory has a plain name")?;
    cli.json(&["employee", "import", roster]).await?;
    let pool = sqlx::PgPool::connect(place.database_url.as_deref().unwrap_or_default()).await?;
    let people: Vec<uuid::Uuid> =
        sqlx::query_scalar("select employee from employee_directory order by badge")
            .fetch_all(&pool)
            .await?;
    pool.close().await;
    let mut senders = Vec::new();
    for device in 0..DEVICES {
        let code = cli.text(&["device", "pair", "--site", &site], "code").await?;
        let key = SigningKey::from_bytes(&rand::random());
        let enrolled = enroll(server, &key, &code).await?;
        let (org, site, id): (OrgId, SiteId, DeviceId) =
            (enrolled.org, enrolled.site, enrolled.device);
        let people = people[device * PEOPLE_PER_DEVICE..][..PEOPLE_PER_DEVICE]
            .iter()
            .map(|id| EmployeeId(*id))
            .collect();
        let start = Time::from(jiff::Timestamp::now()).plus_millis(-START_AGO_MS);
        let mut kiosk = Kiosk::new(org, site, id, key, people, start);
        let batches = punches.div_ceil(DEVICES * BATCH_PUNCHES);
        let bodies = (0..batches).map(|_| body(&mut kiosk)).collect::<Result<_, _>>()?;
        let url = format!("{}/v1/sites/{site}/punches/batch", server.url());
        senders.push(Sender { url, token: enrolled.token, bodies });
    }
    Ok(senders)
}

async fn enroll(server: &Server, key: &SigningKey, code: &str) -> anyhow::Result<Enrolled> {
    let letters = punchtrail_domain::wire::pairing_code(code).context("a pairing code")?;
    let request = EnrollRequest {
        code: letters.clone(),
        name: "Bench".into(),
        public_key: to_base64url(&PublicKey::from(key).to_bytes()),
        proof: sign(key, ENROLMENT_TYPE, letters.as_bytes()).to_string(),
        app: "punchtrail-bench/1".into(),
    };
    let answer = reqwest::Client::new()
        .post(format!("{}/v1/devices/enroll", server.url()))
        .json(&request)
        .send()
        .await?;
    Ok(answer.error_for_status()?.json().await?)
}

fn body(kiosk: &mut Kiosk) -> anyhow::Result<Vec<u8>> {
    let punches = (0..BATCH_PUNCHES)
        .map(|_| {
            let signed = kiosk.punch();
            BatchItem {
                capture: to_base64url(signed.text.as_bytes()),
                signature: signed.signature.to_string(),
            }
        })
        .collect();
    Ok(serde_json::to_vec(&BatchRequest { punches })?)
}

/// Waits until adjudicator and every live read model stand at the head.
async fn settled(pool: &PgPool) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < SETTLE_MAX {
        let behind: i64 = sqlx::query_scalar(
            "select (select position from ledger_head) - least( \
             (select position from followers where name = 'adjudicator'), \
             (select min(position) from read.projections where live))",
        )
        .fetch_one(pool)
        .await?;
        if behind == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
    }
    anyhow::bail!("the followers did not settle within {SETTLE_MAX:?}")
}
