//! What happened to disputes about some punches. Most punches have none, and then it is one look at
//! an index.

use punchtrail_domain::{
    AggregateType,
    explanation::{Context, DisputeMark, Names},
};
use punchtrail_infra::{
    access::keys,
    ledger::{self, ReadError},
    people::directory,
    postgres::Pool,
    rulings::disputes::ABOUT_ONE_MAX,
};
use punchtrail_protocol::{DisputeId, PunchId};

use super::{context::Surroundings, read::Found};
use crate::rulings::disputes;

/// Adds what happened to disputes about punches that were found.
pub(super) async fn add(
    pool: &Pool,
    found: &[Found],
    to: &mut Surroundings,
) -> Result<(), ReadError> {
    let punches: Vec<PunchId> =
        found.iter().filter_map(|found| Some(found.as_ref().ok()?.as_ref()?.punch())).collect();
    if punches.is_empty() {
        return Ok(());
    }
    let about = disputes::about_punches(pool, &punches, ABOUT_ONE_MAX).await?;
    let ids: Vec<String> = about.iter().map(DisputeId::to_string).collect();
    let context = read(pool, &ids).await?;
    name(pool, &context, &mut to.names).await?;
    to.disputed(context.disputes);
    Ok(())
}

/// Looks up the names of those who had a part in disputes.
pub(super) async fn name(
    pool: &Pool,
    context: &Context,
    names: &mut Names,
) -> Result<(), sqlx::Error> {
    names.keys.extend(keys::operator_names(pool, &context.keys()).await?);
    names.employees.extend(directory::employee_names(pool, &context.disputers()).await?);
    let devices: Vec<_> = context.disputes.iter().filter_map(DisputeMark::device).collect();
    names.devices.extend(directory::device_names(pool, &devices).await?);
    Ok(())
}

/// What happened to these disputes.
pub(super) async fn read(pool: &Pool, disputes: &[String]) -> Result<Context, ReadError> {
    let mut context = Context::default();
    if !disputes.is_empty() {
        for recorded in ledger::streams(pool, AggregateType::Dispute, disputes).await? {
            context.take(&recorded)?;
        }
    }
    Ok(context)
}
