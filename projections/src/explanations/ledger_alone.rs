//! A punch explained from the ledger alone, so that the answer is there while no server runs and no
//! read model is up to date. Names come from the directories, a device's backlog from its report.
//!
//! What rests on the worker's other punches, whether it has a partner on the card, is left out.
//!
//! Reads every event of the device and the sites of one punch, so it is for one at a time.

use std::collections::BTreeMap;

use punchtrail_domain::{
    AggregateType,
    employee::Employee,
    explanation::{Account, Context, Explanation, Names},
};
use punchtrail_infra::{
    access::keys,
    devices::reports,
    ledger::{self, ReadError},
    people::directory,
    postgres::Pool,
    rulings::disputes,
    rulings::notes,
};
use punchtrail_protocol::{EmployeeId, PunchId, Time};

use super::disputed;

/// Explains a punch; none if the ledger has no punch of that id.
///
/// # Errors
/// When the database is out of reach, or an event can't be read by this program.
pub async fn explain_from_ledger(
    pool: &Pool,
    punch: PunchId,
) -> Result<Option<Explanation>, ReadError> {
    let events = ledger::streams(pool, AggregateType::Punch, &[punch.to_string()]).await?;
    let Some(account) = Account::of(&events)? else { return Ok(None) };
    let context = context(pool, &account).await?;
    let mut names = names(pool, &account).await?;
    disputed::name(pool, &context, &mut names).await?;
    Ok(Some(account.told(&context, &names)))
}

async fn context(pool: &Pool, account: &Account) -> Result<Context, ReadError> {
    let mut context = Context::default();
    if let Some(device) = account.device() {
        context.report = reports::backlog(pool, device).await?;
        for event in ledger::streams(pool, AggregateType::Device, &[device.to_string()]).await? {
            context.take(&event)?;
        }
    }
    // The first site is the punch's own, and its events name the zones.
    if let Some(site) = account.sites().first() {
        for event in ledger::streams(pool, AggregateType::Site, &[site.to_string()]).await? {
            context.take(&event)?;
        }
    }
    if let Some(item) = account.quarantine() {
        let events = ledger::streams(pool, AggregateType::Quarantine, &[item.to_string()]).await?;
        events.first().map_or(Ok(()), |event| context.take(event))?;
    }
    let about = disputes::about_punch(pool, account.punch()).await?;
    context.disputes = disputed::read(pool, &about).await?.disputes;
    Ok(context)
}

/// When a person was erased, if so.
async fn erased(pool: &Pool, employee: EmployeeId) -> Result<Option<Time>, ReadError> {
    let person = ledger::load::<Employee>(pool, &[employee.to_string()]).await?;
    Ok(person.into_values().next().and_then(|person| person.aggregate.erased_at()))
}

async fn names(pool: &Pool, account: &Account) -> Result<Names, ReadError> {
    let employees = directory::employee_names(pool, &account.people()).await?;
    let devices = directory::device_names(pool, account.device().as_slice()).await?;
    let sites = directory::site_names(pool, &account.sites()).await?;
    let keys = keys::operator_names(pool, &account.keys()).await?;
    let wanted = account.notes();
    let kept = notes::kept(pool, &wanted).await?;
    let notes = wanted.into_iter().map(|note| (note, kept.get(&note).map(|n| n.body.clone())));
    let mut when_erased = BTreeMap::new();
    for nameless in account.people().iter().filter(|employee| !employees.contains_key(employee)) {
        when_erased.extend(erased(pool, *nameless).await?.map(|at| (*nameless, at)));
    }
    Ok(Names {
        erased: when_erased,
        employees: employees.into_iter().collect(),
        devices: devices.into_iter().collect(),
        sites: sites.into_iter().collect(),
        keys: keys.into_iter().collect(),
        notes: notes.collect(),
    })
}
