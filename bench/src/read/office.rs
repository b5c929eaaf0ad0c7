//! A page of reviews when a hundred wait and when very many do, and a year's figures: how long the
//! middle answer takes, of a ledger with that many punches. Events are written straight into it, as
//! `bench growth` does; nobody verifies it.

use std::time::Instant;

use anyhow::ensure;
use punchtrail_domain::dispute::{DisputeEvent, Subject};
use punchtrail_protocol::{
    Digest, PunchId,
    dispute::{About, DisputeCause, Settlement},
};
use punchtrail_tests::{Installation, Server};
use sqlx::PgPool;

use crate::{
    database::Cluster,
    growth::{
        history::{Calendar, History},
        measure::catch_up,
    },
    report::{Aim, Report},
};

/// Events of a punch: captured, synced, accepted.
const EVENTS_PER_PUNCH: u64 = 3;
/// With 4,000 people who punch twice a day, a million are 125 days, and so a year.
const DAYS_APART: i64 = 3;
const FEW_REVIEWS: u64 = 100;
/// Of a year, fifty a week and site at forty sites.
const DISPUTES: i64 = 104_000;
/// Answers of which the middle one counts.
const ANSWERS: usize = 51;

/// Measures them, in a database of their own.
pub async fn measure(
    cluster: &Cluster,
    punches: u64,
    reviews: u64,
    report: &mut Report,
) -> anyhow::Result<Vec<Aim>> {
    ensure!(reviews > FEW_REVIEWS && reviews <= punches, "reviews are of punches");
    let url = cluster.empty().await?;
    let place = Installation::with_database(&url)?;
    let events = punches * EVENTS_PER_PUNCH;
    let mut history = {
        let database = cluster.open(&url).await?;
        let calendar = Calendar::AsCaptured { days_apart: DAYS_APART };
        let history = History::begin(&database.pools, events, calendar).await?;
        database.pools.close().await;
        history
    };
    let owner = PgPool::connect(&url).await?;
    let mut written = history.write_up_to(&owner, events).await?;
    written += disputes(&owner, &history).await?;
    let refer = async |from: u64, to: u64, written: u64| {
        let referred = referrals(&owner, from, to).await?;
        catch_up(&url, &place, written + referred).await?;
        sqlx::query("vacuum analyze").execute(&owner).await?;
        anyhow::Ok(())
    };
    refer(0, FEW_REVIEWS, written).await?;
    let few = page(&place).await?;
    report.add("reviews_of_100", few, "ms p50", None);
    refer(FEW_REVIEWS, reviews, 0).await?;
    let many = page(&place).await?;
    report.add("reviews_of_many", many, "ms p50", Some("reviews_of_100"));
    let site = history.doors.first().map(|door| door.site.to_string()).unwrap_or_default();
    let to = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let from = to.saturating_sub(jiff::Span::new().weeks(51));
    let year = format!("/v1/figures?from={from}&to={to}");
    let all = middle_ms(&place, &year).await?;
    report.add("figures_year", all, "ms p50", None);
    let one = middle_ms(&place, &format!("{year}&site={site}")).await?;
    report.add("figures_year_of_site", one, "ms p50", None);
    owner.close().await;
    cluster.drop_database(&url).await?;
    Ok(vec![
        Aim::at_most(format!("page of reviews, {reviews} open by 100"), many / few, 2.0, ""),
        Aim::at_most(format!("a year's figures, {punches} punches"), all, 1_000.0, " ms"),
    ])
}

async fn page(place: &Installation) -> anyhow::Result<f64> {
    middle_ms(place, "/v1/reviews?limit=50").await
}

async fn middle_ms(place: &Installation, path: &str) -> anyhow::Result<f64> {
    let mut server = Server::start(place).await?;
    let key = place.cli().text(&["key", "new"], "key").await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}{path}", server.url());
    let mut took_ms = Vec::new();
    for _ in 0..ANSWERS {
        let started = Instant::now();
        http.get(&url).bearer_auth(&key).send().await?.error_for_status()?.bytes().await?;
        took_ms.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    server.terminate().await?;
    took_ms.sort_unstable_by(f64::total_cmp);
    Ok(took_ms[took_ms.len() / 2])
}

/// Moves the head and the adjudicator over what was written.
const STAND: &str = "update ledger_head set recorded_at = clock_timestamp(), \
         position = (select max(position) from events); \
     update followers set position = (select max(position) from events) where name = 'adjudicator'";

/// Refers the punches from one number on to another.
async fn referrals(owner: &PgPool, from: u64, to: u64) -> anyhow::Result<u64> {
    let done = sqlx::query(
        "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, \
             payload, metadata, position, recorded_at, leaf_hash) \
         select 'punch', aggregate_id, 4, 'ReferredForReview', '1', \
             '{\"ReferredForReview\":{\"reasons\":[\"near_duplicate\"]}}', \
             '{\"actor\":\"policy\"}', \
             (select position from ledger_head) + row_number() over (order by position), \
             clock_timestamp(), sha256('') \
         from (select aggregate_id, position from events \
               where aggregate_type = 'punch' and sequence = 3 \
               order by position offset $1 limit $2) punches",
    )
    .bind(from.cast_signed())
    .bind((to - from).cast_signed())
    .execute(owner)
    .await?;
    sqlx::raw_sql(STAND).execute(owner).await?;
    Ok(done.rows_affected())
}

/// A year's disputes, each settled hours later.
async fn disputes(owner: &PgPool, history: &History) -> anyhow::Result<u64> {
    let about = About::Punch(PunchId::NIL);
    let causes = [DisputeCause::WrongTime, DisputeCause::WrongKind, DisputeCause::NotMine];
    let mut opened = Vec::new();
    for (door, cause) in history.doors.iter().zip(causes.into_iter().cycle()) {
        let employee = door.people[0];
        let subject = Subject { site: door.site, employee, about, cause };
        opened.push(serde_json::to_string(&DisputeEvent::Opened { subject, note: None })?);
    }
    let (how, note) = (Settlement::Dismiss, Digest::ZERO);
    let resolved = serde_json::to_string(&DisputeEvent::Resolved { how, by_punch: None, note })?;
    let done = sqlx::query(
        "with made as (select n, gen_random_uuid()::text as id, \
             clock_timestamp() - interval '7 days' \
             - interval '350 days' * (1 - n::float8 / $1) as at \
             from generate_series(1, $1::bigint) n), \
         happened as ( \
             select id, 1 as sequence, 'Opened' as event, \
                 ($2::text[])[1 + n % array_length($2, 1)] as payload, at from made \
             union all select id, 2, 'Resolved', $3, at + interval '1 minute' * (n % 9000) \
             from made) \
         insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, \
             payload, metadata, position, recorded_at, leaf_hash) \
         select 'dispute', id, sequence, event, '1', payload::json, \
             '{\"actor\":\"command_line\"}', \
             (select position from ledger_head) + row_number() over (order by at, sequence), \
             at, sha256('') from happened",
    )
    .bind(DISPUTES)
    .bind(opened)
    .bind(resolved)
    .execute(owner)
    .await?;
    sqlx::raw_sql(STAND).execute(owner).await?;
    Ok(done.rows_affected())
}
