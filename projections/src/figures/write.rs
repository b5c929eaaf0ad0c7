//! What the tables hold of what a batch is about, and what the batch makes of them: one statement a
//! table.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff_sqlx::{Timestamp, ToSqlx};
use punchtrail_domain::{aggregate::Stored, punch::PunchEvent};
use punchtrail_protocol::{DisputeId, Position, PunchId, SiteId};
use sqlx::{PgConnection, Row, postgres::PgRow};
use uuid::Uuid;

use super::fold::{Batch, Disputed, Folded, Held, Made, Referral, Wait};
use crate::engine::{Generation, ProjectionError, columns::parsed};

pub(super) async fn held(
    tx: &mut PgConnection,
    generation: &Generation,
    batch: &Batch<'_>,
) -> Result<Held, ProjectionError> {
    let made = made(tx, &batch.unknown).await?;
    let disputes = disputes(tx, &generation.table("figure_disputes"), &batch.disputes).await?;
    let referrals = referrals(tx, &generation.table("figure_referrals"), &batch.ruled).await?;
    let mut sites = batch.sites.clone();
    sites.extend(made.values().map(|made| made.site));
    sites.extend(disputes.values().map(|dispute| dispute.site));
    sites.extend(referrals.values().map(|referral| referral.site));
    let zones = zones(tx, &generation.table("figure_sites"), &sites).await?;
    Ok(Held { made, disputes, referrals, zones })
}

/// Where punches were made and when, as their first events say.
async fn made(
    tx: &mut PgConnection,
    punches: &HashSet<PunchId>,
) -> Result<HashMap<PunchId, Made>, ProjectionError> {
    if punches.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<String> = punches.iter().map(PunchId::to_string).collect();
    let rows = sqlx::query(
        // Punch by punch, as whole streams are read: no plan of this walks the ledger.
        "select wanted.id::uuid as punch, event.* from unnest($1::text[]) as wanted (id) \
         cross join lateral ( \
             select position, event_type, event_version, payload::text as payload from events \
             where aggregate_type = 'punch' and aggregate_id = wanted.id \
             order by sequence limit 1) event",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    let mut made = HashMap::with_capacity(rows.len());
    for row in rows {
        let stored = Stored {
            position: Position::from_db(row.try_get("position")?),
            event_type: row.try_get("event_type")?,
            event_version: row.try_get("event_version")?,
            payload: row.try_get("payload")?,
        };
        let of_it = match stored.read()? {
            PunchEvent::Captured { capture, .. } => capture
                .capture()
                .ok()
                .map(|capture| Made { site: capture.site, captured_at: Some(capture.captured_at) }),
            PunchEvent::Admitted { site, .. } | PunchEvent::Entered { site, .. } => {
                Some(Made { site, captured_at: None })
            }
            _ => None,
        };
        let punch = PunchId(row.try_get("punch")?);
        made.extend(of_it.map(|of_it| (punch, of_it)));
    }
    Ok(made)
}

async fn disputes(
    tx: &mut PgConnection,
    table: &str,
    disputes: &HashSet<DisputeId>,
) -> Result<BTreeMap<DisputeId, Disputed>, sqlx::Error> {
    if disputes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<Uuid> = disputes.iter().map(|dispute| dispute.uuid()).collect();
    let statement = format!("select * from {table} where dispute = any($1)");
    let read = |row: PgRow| {
        let since: Option<Timestamp> = row.try_get("waits_since")?;
        let disputed = Disputed {
            site: SiteId(row.try_get("site")?),
            cause: parsed(&row, "cause")?,
            waits_since: since.map(Timestamp::to_jiff),
        };
        Ok((DisputeId(row.try_get("dispute")?), disputed))
    };
    let rows = sqlx::query(&statement).bind(ids).try_map(read).fetch_all(tx).await?;
    Ok(rows.into_iter().collect())
}

async fn referrals(
    tx: &mut PgConnection,
    table: &str,
    punches: &HashSet<PunchId>,
) -> Result<BTreeMap<PunchId, Referral>, sqlx::Error> {
    if punches.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<Uuid> = punches.iter().map(|punch| punch.uuid()).collect();
    let statement = format!("select * from {table} where punch = any($1)");
    let read = |row: PgRow| {
        let codes: Vec<String> = row.try_get("reasons")?;
        let reasons = codes.iter().map(|code| code.parse());
        let referral = Referral {
            site: SiteId(row.try_get("site")?),
            reasons: reasons
                .collect::<Result<_, _>>()
                .map_err(|error: strum::ParseError| sqlx::Error::Decode(Box::new(error)))?,
            amended: row.try_get("amended")?,
            lifted: row.try_get("lifted")?,
        };
        Ok((PunchId(row.try_get("punch")?), referral))
    };
    let rows = sqlx::query(&statement).bind(ids).try_map(read).fetch_all(tx).await?;
    Ok(rows.into_iter().collect())
}

async fn zones(
    tx: &mut PgConnection,
    table: &str,
    sites: &HashSet<SiteId>,
) -> Result<HashMap<SiteId, String>, sqlx::Error> {
    if sites.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = sites.iter().map(|site| site.uuid()).collect();
    let statement = format!("select site, tz from {table} where site = any($1)");
    let rows: Vec<(Uuid, String)> = sqlx::query_as(&statement).bind(ids).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(site, tz)| (SiteId(site), tz)).collect())
}

pub(super) async fn write(
    tx: &mut PgConnection,
    generation: &Generation,
    folded: Folded,
) -> Result<(), ProjectionError> {
    write_sites(tx, &generation.table("figure_sites"), &folded.sites).await?;
    let referrals = generation.table("figure_referrals");
    write_referrals(tx, &referrals, &folded.referrals_before, &folded.referrals).await?;
    write_disputes(tx, &generation.table("figure_disputes"), &folded.disputes).await?;
    write_waits(tx, &generation.table("figure_waits"), &folded.waits).await?;
    write_counts(tx, &generation.table("figures"), folded).await
}

async fn write_sites(
    tx: &mut PgConnection,
    table: &str,
    sites: &BTreeMap<SiteId, String>,
) -> Result<(), ProjectionError> {
    if sites.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "insert into {table} (site, tz) select * from unnest($1::uuid[], $2::text[]) \
         on conflict (site) do update set tz = excluded.tz"
    );
    sqlx::query(&statement)
        .bind(sites.keys().map(|site| site.uuid()).collect::<Vec<_>>())
        .bind(sites.values().map(String::as_str).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn write_referrals(
    tx: &mut PgConnection,
    table: &str,
    before: &[PunchId],
    after: &BTreeMap<PunchId, Referral>,
) -> Result<(), ProjectionError> {
    if !before.is_empty() {
        let gone: Vec<Uuid> = before.iter().map(|punch| punch.uuid()).collect();
        let statement = format!("delete from {table} where punch = any($1)");
        sqlx::query(&statement).bind(gone).execute(&mut *tx).await?;
    }
    if after.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "insert into {table} (punch, site, reasons, amended, lifted) \
         select punch, site, string_to_array(reasons, ','), amended, lifted \
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[], $5::boolean[]) \
         as new (punch, site, reasons, amended, lifted)"
    );
    let codes = |referral: &Referral| {
        referral.reasons.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(",")
    };
    sqlx::query(&statement)
        .bind(after.keys().map(|punch| punch.uuid()).collect::<Vec<_>>())
        .bind(after.values().map(|referral| referral.site.uuid()).collect::<Vec<_>>())
        .bind(after.values().map(codes).collect::<Vec<_>>())
        .bind(after.values().map(|referral| referral.amended).collect::<Vec<_>>())
        .bind(after.values().map(|referral| referral.lifted).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn write_disputes(
    tx: &mut PgConnection,
    table: &str,
    disputes: &BTreeMap<DisputeId, Disputed>,
) -> Result<(), ProjectionError> {
    if disputes.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "insert into {table} (dispute, site, cause, waits_since) \
         select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[]) \
         on conflict (dispute) do update set waits_since = excluded.waits_since"
    );
    let since = |dispute: &Disputed| dispute.waits_since.map(|at| at.to_sqlx());
    sqlx::query(&statement)
        .bind(disputes.keys().map(|dispute| dispute.uuid()).collect::<Vec<_>>())
        .bind(disputes.values().map(|dispute| dispute.site.uuid()).collect::<Vec<_>>())
        .bind(disputes.values().map(|dispute| dispute.cause.as_str()).collect::<Vec<_>>())
        .bind(disputes.values().map(since).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn write_waits(
    tx: &mut PgConnection,
    table: &str,
    waits: &[Wait],
) -> Result<(), ProjectionError> {
    if waits.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "insert into {table} (dispute, sequence, site, week, cause, waited_ms) select * from \
         unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::date[], $5::text[], $6::bigint[])"
    );
    sqlx::query(&statement)
        .bind(waits.iter().map(|wait| wait.dispute.uuid()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.sequence.cast_signed()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.site.uuid()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.week.to_sqlx()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.cause.as_str()).collect::<Vec<_>>())
        .bind(waits.iter().map(|wait| wait.waited_ms).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

async fn write_counts(
    tx: &mut PgConnection,
    table: &str,
    folded: Folded,
) -> Result<(), ProjectionError> {
    if folded.counts.is_empty() {
        return Ok(());
    }
    let (mut sites, mut weeks, mut figures) = (vec![], vec![], vec![]);
    let (mut codes, mut details, mut counts) = (vec![], vec![], vec![]);
    for ((site, week, figure, code, detail), count) in folded.counts {
        sites.push(site.uuid());
        weeks.push(week.to_sqlx());
        figures.push(figure);
        codes.push(code);
        details.push(detail);
        counts.push(count);
    }
    let statement = format!(
        "insert into {table} as held (site, week, figure, code, detail, count) select * from \
         unnest($1::uuid[], $2::date[], $3::text[], $4::text[], $5::text[], $6::bigint[]) \
         on conflict (site, week, figure, code, detail) \
         do update set count = held.count + excluded.count"
    );
    sqlx::query(&statement)
        .bind(sites)
        .bind(weeks)
        .bind(figures)
        .bind(codes)
        .bind(details)
        .bind(counts)
        .execute(tx)
        .await?;
    Ok(())
}
