//! What it costs to ask who asks: the same reads by a key that may do everything, by a key of one
//! scope and one site, and by a manager of one site who is signed in.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use punchtrail_infra::{
    access::{
        keys::{self, NewKey},
        roles::Role,
        trail::Doer,
        users::{self, Invited},
    },
    postgres::Pool,
};
use punchtrail_protocol::SiteId;
use punchtrail_testkit::PATIENCE;
use punchtrail_tests::Server;
use reqwest::{Client, header};
use serde_json::json;
use sqlx::PgPool;

use super::asked;
use crate::report::{Aim, Report};

/// Of a user who exists only here.
const PASSWORD: &str = "a bench needs no better one";
/// Each is asked as often as the others and in turn, there and back, so that none has the better
/// hour.
const TURNS: [usize; 6] = [0, 1, 2, 2, 1, 0];

/// Who asks: the name of the row, and the header that says it.
pub struct Asker {
    name: &'static str,
    header: String,
}

/// Those whose role or scopes are looked at, after the one who may do everything.
pub async fn make(server: &Server, pool: &PgPool, key: &str) -> anyhow::Result<[Asker; 3]> {
    let statement = "select aggregate_id from events where aggregate_type = 'site' limit 1";
    let site: (String,) = sqlx::query_as(statement).fetch_one(pool).await?;
    let (sites, doer) = ([site.0.parse::<SiteId>()?], Doer::command_line());
    let new = NewKey {
        name: "bench, one scope",
        employee: None,
        scopes: Some(vec!["punches:read".to_owned()]),
        sites: Some(sites.to_vec()),
        expires_at: None,
    };
    let writer = Pool::new(pool.clone(), PATIENCE);
    let (_, scoped) = keys::create(&writer, new, &doer).await?;
    let invited = Invited { login: "bench", name: "Bench", role: Role::Manager, sites: &sites };
    let (_, link) = users::invite(&writer, &invited, &doer).await?;
    let (client, url) = (Client::new(), server.url());
    let accepted = json!({ "token": link.token(), "password": PASSWORD });
    let set = client.post(format!("{url}/v1/links/acceptance")).json(&accepted).send().await?;
    set.error_for_status()?;
    let body = json!({ "login": "bench", "password": PASSWORD });
    let let_in = client.post(format!("{url}/v1/sign-in")).json(&body).send().await?;
    let let_in = let_in.error_for_status()?;
    let cookie = let_in.headers().get(header::SET_COOKIE).context("no session was given")?;
    let cookie = cookie.to_str()?.split(';').next().unwrap_or_default().to_owned();
    let bearer = |key: &str| format!("authorization: Bearer {key}");
    Ok([
        Asker { name: "of_any", header: bearer(key) },
        Asker { name: "of_scoped_key", header: bearer(scoped.reveal()) },
        Asker { name: "of_manager", header: format!("cookie: {cookie}") },
    ])
}

/// Measures each, and compares them with the first.
pub async fn measure(
    address: SocketAddr,
    askers: [Asker; 3],
    punches: usize,
    each: Duration,
    report: &mut Report,
) -> anyhow::Result<Vec<Aim>> {
    let (mut answers, mut spent) = ([0_usize; 3], [Duration::ZERO; 3]);
    for turn in TURNS {
        let Some(asker) = askers.get(turn) else { continue };
        let started = Instant::now();
        answers[turn] += asked(address, &asker.header, punches, each / 2).await?.len();
        spent[turn] += started.elapsed();
    }
    let mut aims = Vec::new();
    let rates = [0, 1, 2].map(|of: usize| answers[of] as f64 / spent[of].as_secs_f64());
    for (asker, rate) in askers.iter().zip(rates) {
        let first = askers[0].name;
        let of = (asker.name != first).then_some(first);
        report.add(asker.name, rate, "answers/s", of);
        if of.is_some() {
            let what = format!("explanations a second, {} by {first}", asker.name);
            aims.push(Aim::at_least(what, rate / rates[0], 0.9, ""));
        }
    }
    Ok(aims)
}
