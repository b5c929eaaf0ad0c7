//! What it costs to ask what somebody may: the same reads by a key that may do everything and by
//! one of one scope and one site; and by an admin and by a manager of one site, who are signed in.

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
const TURNS: [usize; 8] = [0, 1, 2, 3, 3, 2, 1, 0];

/// Who asks: the name of the row, the row that it is compared with, and the header that says it.
pub struct Asker {
    name: &'static str,
    of: Option<&'static str>,
    header: String,
}

/// Each after the one who may do everything and is known in the same way.
pub async fn make(server: &Server, pool: &PgPool, key: &str) -> anyhow::Result<[Asker; 4]> {
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
    let admin = session(server, &writer, (Role::Admin, &[])).await?;
    let manager = session(server, &writer, (Role::Manager, &sites)).await?;
    let bearer = |key: &str| format!("authorization: Bearer {key}");
    let (any, scoped) = (bearer(key), bearer(scoped.reveal()));
    Ok([
        Asker { name: "of_any_key", of: None, header: any },
        Asker { name: "of_scoped_key", of: Some("of_any_key"), header: scoped },
        Asker { name: "of_admin", of: None, header: admin },
        Asker { name: "of_manager", of: Some("of_admin"), header: manager },
    ])
}

/// The cookie of somebody new who has signed in.
async fn session(
    server: &Server,
    writer: &Pool,
    (role, sites): (Role, &[SiteId]),
) -> anyhow::Result<String> {
    let login = role.as_str();
    let invited = Invited { login, name: login, role, sites };
    let (_, link) = users::invite(writer, &invited, &Doer::command_line()).await?;
    let (client, url) = (Client::new(), server.url());
    let accepted = json!({ "token": link.token(), "password": PASSWORD });
    let set = client.post(format!("{url}/v1/links/acceptance")).json(&accepted).send().await?;
    set.error_for_status()?;
    let body = json!({ "login": login, "password": PASSWORD });
    let let_in = client.post(format!("{url}/v1/sign-in")).json(&body).send().await?;
    let let_in = let_in.error_for_status()?;
    let cookie = let_in.headers().get(header::SET_COOKIE).context("no session was given")?;
    Ok(format!("cookie: {}", cookie.to_str()?.split(';').next().unwrap_or_default()))
}

/// Measures each, and compares those who may do less with those who may do everything.
pub async fn measure(
    address: SocketAddr,
    askers: [Asker; 4],
    punches: usize,
    each: Duration,
    report: &mut Report,
) -> anyhow::Result<Vec<Aim>> {
    let (mut answers, mut spent) = ([0_usize; 4], [Duration::ZERO; 4]);
    for turn in TURNS {
        let started = Instant::now();
        answers[turn] += asked(address, &askers[turn].header, punches, each / 2).await?.len();
        spent[turn] += started.elapsed();
    }
    let mut aims = Vec::new();
    for (Asker { name, of, .. }, (answers, spent)) in askers.iter().zip(answers.iter().zip(spent)) {
        report.add(name, *answers as f64 / spent.as_secs_f64(), "answers/s", *of);
        let ratio = report.rows.last().and_then(|row| row.ratio);
        if let (Some(of), Some(ratio)) = (of, ratio) {
            let what = format!("explanations a second, {name} by {of}");
            aims.push(Aim::at_least(what, ratio, 0.9, ""));
        }
    }
    Ok(aims)
}
