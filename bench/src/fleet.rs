//! A site with people and enrolled devices on a real server, and waiting until it has settled.

use std::time::Duration;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use punchtrail_protocol::{
    EmployeeId, Time,
    signing::{ENROLMENT_TYPE, PublicKey, sign, to_base64url},
    wire::{EnrollRequest, Enrolled},
};
use punchtrail_testkit::{Chain, eventually};
use punchtrail_tests::{Installation, Server};
use sqlx::PgPool;

use crate::load::Kiosk;

/// How many people punch at each device.
const PEOPLE_PER_DEVICE: usize = 250;
/// Long enough ago that nothing lies in the future, not so long that it is beyond the look-back.
const START_AGO_MS: i64 = 20 * 86_400_000;
/// How long followers may take to come to the head.
pub const SETTLE_MAX: Duration = Duration::from_secs(600);

/// An enrolled device.
pub struct Enlisted {
    pub token: String,
    pub kiosk: Kiosk,
}

/// Makes a site with people, and enrols devices for them.
pub async fn enlist(
    server: &Server,
    place: &Installation,
    devices: usize,
) -> anyhow::Result<Vec<Enlisted>> {
    let cli = place.cli();
    let site = open_site(place, "Bench").await?;
    hire(place, &[(&site, devices * PEOPLE_PER_DEVICE)]).await?;
    let pool = sqlx::PgPool::connect(place.database_url.as_deref().unwrap_or_default()).await?;
    let people: Vec<uuid::Uuid> =
        sqlx::query_scalar("select employee from badge_holdings order by number")
            .fetch_all(&pool)
            .await?;
    pool.close().await;
    let mut fleet = Vec::new();
    for device in 0..devices {
        let code = cli.text(&["device", "pair", "--site", &site], "code").await?;
        let key = SigningKey::from_bytes(&rand::random());
        let enrolled = enroll(server.url(), &key, &code).await?;
        let people = people[device * PEOPLE_PER_DEVICE..][..PEOPLE_PER_DEVICE]
            .iter()
            .map(|id| EmployeeId(*id))
            .collect();
        let start = Time::from(jiff::Timestamp::now()).plus_millis(-START_AGO_MS);
        let Enrolled { org, site, device, token, .. } = enrolled;
        fleet.push(Enlisted {
            token,
            kiosk: Kiosk::new(Chain::new(org, site, device, key), people, start),
        });
    }
    Ok(fleet)
}

/// Makes a site, and gives its id.
pub async fn open_site(place: &Installation, name: &str) -> anyhow::Result<String> {
    let zone = "Europe/Berlin";
    place.cli().text(&["site", "add", "--name", name, "--tz", zone], "site").await
}

/// Hires so many people at each site. Their names are [`name_of`] their number, counted through all
/// sites; their badges are in the order of the numbers, too.
pub async fn hire(place: &Installation, sites: &[(&str, usize)]) -> anyhow::Result<()> {
    let roster = place.data.path().join("roster.csv");
    let mut csv = String::from("badge,name,pin,site\n");
    let posts = sites.iter().flat_map(|(site, people)| std::iter::repeat_n(site, *people));
    for (n, site) in posts.enumerate() {
        csv.push_str(&format!("b{n:06},{},,{site}\n", name_of(n)));
    }
    std::fs::write(&roster, csv)?;
    let roster = roster.to_str().context("the data directory has a plain name")?;
    place.cli().json(&["employee", "import", roster]).await?;
    Ok(())
}

/// The name of the person with this number: names that differ about as much as people's do, so that
/// a search has to tell them apart.
fn name_of(number: usize) -> String {
    const GIVEN: [&str; 12] = [
        "Ada", "Ben", "Cem", "Dorota", "Eyüp", "Fatma", "Greta", "Hannes", "Ines", "Jörg", "Katya",
        "Luís",
    ];
    const SYLLABLES: [&str; 24] = [
        "Ba", "Berg", "Da", "El", "Fe", "Gri", "Hu", "Jan", "Ka", "Lo", "Man", "Ne", "Os", "Pe",
        "Ri", "Sch", "Ta", "U", "Vi", "Wa", "Xe", "Yl", "Zo", "Mi",
    ];
    // A prime, so that neighbours share no syllable.
    let scattered = number * 7_919;
    let syllable = |place: u32| SYLLABLES[scattered / 24usize.pow(place) % 24];
    let rest = format!("{}{}", syllable(1), syllable(2)).to_lowercase();
    format!("{} {}{rest}", GIVEN[number % GIVEN.len()], syllable(0))
}

/// Becomes a device of the server at `url`.
pub async fn enroll(url: &str, key: &SigningKey, code: &str) -> anyhow::Result<Enrolled> {
    let letters = punchtrail_protocol::wire::pairing_code(code).context("a pairing code")?;
    let request = EnrollRequest {
        code: letters.clone(),
        name: "Bench".into(),
        public_key: to_base64url(&PublicKey::from(key).to_bytes()),
        proof: sign(key, ENROLMENT_TYPE, letters.as_bytes()).to_string(),
        app: "punchtrail-bench/1".into(),
    };
    let answer = reqwest::Client::new()
        .post(format!("{url}/v1/devices/enroll"))
        .json(&request)
        .send()
        .await?;
    Ok(answer.error_for_status()?.json().await?)
}

/// Waits until adjudicator and every live read model stand at the head.
pub async fn settled(pool: &PgPool) -> anyhow::Result<()> {
    eventually("followers at the head", SETTLE_MAX, async || {
        let behind: i64 = sqlx::query_scalar(
            "select (select position from ledger_head) - least( \
             (select position from followers where name = 'adjudicator'), \
             (select min(position) from read.projections where live))",
        )
        .fetch_one(pool)
        .await?;
        Ok((behind == 0).then_some(()))
    })
    .await
}
