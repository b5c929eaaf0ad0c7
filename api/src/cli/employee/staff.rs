//! People by hand, on the command line.

use std::io::Read;

use super::{Add, answered};
use crate::cli::{
    answer::{Answer, Refusal},
    look::Names,
    source::Opened,
};
use punchtrail_infra::{
    ledger::Metadata,
    people::{
        import::Pin,
        moment::{self, Moment},
        pins,
        staff::{self, NewEmployee},
    },
};
use punchtrail_protocol::{EmployeeId, Time};

/// More than any PIN, and its line's end.
const LINE_BYTES_MAX: u64 = 64;

pub(super) async fn add(opened: &Opened, add: Add) -> anyhow::Result<Answer> {
    let Add { name, site, from, badge, external_id } = add;
    let site = opened.site(&site).await?;
    let rules = moment::rules_of(&opened.ledger, site).await?;
    let from = from.map(|from| from.begins(&rules));
    let new = NewEmployee { name, site, from, badge, external_id, pin: None };
    let added = staff::hire(&opened.ledger, new, &Metadata::default()).await?;
    Ok(answered(&added, &added.employee.to_string()))
}

pub(super) async fn rename(opened: &Opened, employee: &str, name: &str) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let renamed = staff::rename(&opened.ledger, employee, name, &Metadata::default()).await?;
    Ok(answered(&renamed, "Renamed."))
}

/// One line of the standard input: on a command line others could read it.
fn typed_pin() -> anyhow::Result<Pin> {
    let mut line = String::new();
    std::io::stdin().take(LINE_BYTES_MAX).read_to_string(&mut line)?;
    let wrong =
        |_| Refusal::Usage("a PIN has 4 to 12 digits, on one line of standard input".into());
    Ok(Pin::new(line.trim()).map_err(wrong)?)
}

pub(super) async fn pin(opened: &Opened, employee: &str, clear: bool) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let pin = if clear { None } else { Some(typed_pin()?) };
    let text = if clear { "They have no PIN any more." } else { "Their PIN is set." };
    let done = pins::set(&opened.ledger, employee, pin, &Metadata::default()).await?;
    Ok(answered(&done, text))
}

/// A time by the clock where somebody works.
pub(super) async fn at_home(
    opened: &Opened,
    employee: EmployeeId,
    at: Time,
) -> anyhow::Result<String> {
    let home = moment::home_of(&opened.ledger, employee).await?;
    Ok(Names::of(opened).await?.at(home, at))
}

pub(super) async fn depart(
    opened: &Opened,
    employee: &str,
    at: Option<Moment>,
) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let home = moment::rules_of_home(&opened.ledger, employee).await?;
    let at = at.map(|at| at.ends(&home));
    let left = staff::depart(&opened.ledger, employee, at, &Metadata::default()).await?;
    let at = left.now.employment().departed_at().unwrap_or_default();
    let at = at_home(opened, employee, at).await?;
    Ok(answered(&left, &format!("They leave at {at}; their badges end with it.")))
}

pub(super) async fn stay(opened: &Opened, employee: &str) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let by = Metadata::default();
    let stays = staff::cancel_departure(&opened.ledger, employee, &by).await?;
    Ok(answered(&stays, "They didn't leave. `employee badge list` shows which badges are theirs."))
}

pub(super) async fn come_back(
    opened: &Opened,
    employee: &str,
    at: Option<Moment>,
) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let home = moment::rules_of_home(&opened.ledger, employee).await?;
    let at = at.map_or_else(|| opened.ledger.now(), |at| at.begins(&home));
    let back = staff::come_back(&opened.ledger, employee, at, &Metadata::default()).await?;
    let at = at_home(opened, employee, at).await?;
    let text = format!("They are back at {at}. Issue their badge with `employee badge issue`.");
    Ok(answered(&back, &text))
}

pub(super) async fn assign(
    opened: &Opened,
    employee: &str,
    site: &str,
    from: Option<Moment>,
) -> anyhow::Result<Answer> {
    let (employee, site) = (opened.employee(employee).await?, opened.site(site).await?);
    let rules = moment::rules_of(&opened.ledger, site).await?;
    let dates = (from.map(|from| from.begins(&rules)), None);
    let done = staff::assign(&opened.ledger, employee, site, dates, &Metadata::default()).await?;
    Ok(answered(&done, "They work there."))
}

pub(super) async fn unassign(
    opened: &Opened,
    employee: &str,
    site: &str,
    until: Option<Moment>,
) -> anyhow::Result<Answer> {
    let (employee, site) = (opened.employee(employee).await?, opened.site(site).await?);
    let rules = moment::rules_of(&opened.ledger, site).await?;
    let until = until.map_or_else(|| opened.ledger.now(), |until| until.ends(&rules));
    let by = Metadata::default();
    let done = staff::unassign(&opened.ledger, employee, site, until, &by).await?;
    let until = Names::of(opened).await?.at(Some(site), until);
    Ok(answered(&done, &format!("They work there until {until}.")))
}
