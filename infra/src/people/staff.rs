//! People by hand: taken on, renamed, leaving, coming back, working at one site more or less.

use punchtrail_domain::employee::{
    BadgeEnd, DirectoryField, Employee, EmployeeCommand, EmployeeError, EmployeeEvent,
};
use punchtrail_protocol::{EmployeeId, SiteId, Time, spelling::normal};
use uuid::Uuid;

use super::{
    badges::{self, next_holder, rows},
    change::{Changed, Entry, No, change},
    directory::{self, EmployeeEntry},
    error::PeopleError,
    import::{EXTERNAL_ID_CHARS_MAX, NAME_CHARS_MAX, Pin},
    pins,
};
use crate::ledger::{AppendError, Ledger, Metadata};

/// Somebody who is taken on.
#[derive(Debug, Clone)]
pub struct NewEmployee {
    pub name: String,
    pub site: SiteId,
    /// Since when they work there; none: since ever.
    pub from: Option<Time>,
    pub badge: Option<String>,
    pub external_id: Option<String>,
    pub pin: Option<Pin>,
}

fn text(text: &str, chars_max: usize) -> Option<String> {
    let text = normal(text.trim());
    let fits = (1..=chars_max).contains(&text.chars().count());
    (fits && !text.chars().any(char::is_control)).then_some(text)
}

/// A name as it is kept.
///
/// # Errors
/// When it can't be one.
pub fn name(typed: &str) -> Result<String, PeopleError> {
    text(typed, NAME_CHARS_MAX).ok_or(PeopleError::Name(NAME_CHARS_MAX))
}

/// What makes somebody known, working at a site from then on.
pub(super) fn registered(
    site: SiteId,
    fields: Vec<DirectoryField>,
    from: Option<Time>,
) -> Vec<EmployeeEvent> {
    vec![
        EmployeeEvent::Registered {},
        EmployeeEvent::DirectoryChanged { fields },
        EmployeeEvent::AssignedToSite { site, from },
    ]
}

/// Takes somebody on, with a badge if one is given: from when they work there, or since it is free.
///
/// # Errors
/// When something can't be, somebody else holds the badge, or the ledger doesn't take it.
pub async fn hire(
    ledger: &Ledger,
    new: NewEmployee,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    let NewEmployee { name: typed, site, from, badge, external_id, pin } = new;
    if !directory::site_exists(ledger.pool(), site).await? {
        return Err(PeopleError::NoSuchSite);
    }
    let badge = badge.as_deref().map(badges::number).transpose()?;
    let id = external_id.map(|id| {
        text(&id, EXTERNAL_ID_CHARS_MAX).ok_or(PeopleError::ExternalId(EXTERNAL_ID_CHARS_MAX))
    });
    let pin_phc = match pin {
        Some(pin) => Some(pins::hashed(pin).await?),
        None => None,
    };
    let employee = EmployeeId(Uuid::now_v7());
    let (name, external_id) = (name(&typed)?, id.transpose()?);
    let mut fields = vec![DirectoryField::Name];
    fields.extend(pin_phc.as_ref().map(|_| DirectoryField::Pin));
    fields.extend(external_id.as_ref().map(|_| DirectoryField::ExternalId));
    let entry = EmployeeEntry { employee, name, pin_phc, external_id };
    let (entry, about) = (Some(Entry::Whole(entry)), Vec::from_iter(badge.clone()));
    let taken = change(ledger, (employee, &about), entry, metadata, |draft| {
        draft.take(registered(site, fields.clone(), from));
        let Some(number) = &badge else { return Ok(()) };
        let free = free_since(&draft.of_numbers);
        badges::issue_in(draft, number, from.unwrap_or_default().max(free))
    })
    .await;
    match taken {
        Err(PeopleError::Append(AppendError::Side(sqlx::Error::Database(error))))
            if error.is_unique_violation() =>
        {
            Err(PeopleError::ExternalId(EXTERNAL_ID_CHARS_MAX))
        }
        taken => taken,
    }
}

/// Since when nobody holds a number, if nobody does.
pub(super) fn free_since(held: &[rows::HoldingRow]) -> Time {
    held.iter().filter(|row| row.is_any()).filter_map(|row| row.until).max().unwrap_or_default()
}

/// Gives a person another name.
///
/// # Errors
/// When it can't be one, there is no such person, or the ledger doesn't take it.
pub async fn rename(
    ledger: &Ledger,
    employee: EmployeeId,
    new: &str,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    let new = name(new)?;
    let entry = Some(Entry::Name(new.clone()));
    let names = directory::employee_names(ledger.pool(), &[employee]).await?;
    change(ledger, (employee, &[]), entry, metadata, |draft| {
        if names.get(&employee) != Some(&new) {
            let command = EmployeeCommand::ChangeDirectory { fields: vec![DirectoryField::Name] };
            draft.take(draft.now.decide(command)?);
        }
        Ok(())
    })
    .await
}

/// Notes that a person leaves, or, if they left, that it was at another time; without a time, now,
/// unless they left before. What they hold ends with it; what somebody else holds by now ends when
/// that one got it.
///
/// # Errors
/// When there is no such person, they came back after that, or the ledger doesn't take it.
pub async fn depart(
    ledger: &Ledger,
    employee: EmployeeId,
    at: Option<Time>,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    change(ledger, (employee, &[]), None, metadata, |draft| {
        let left = draft.now.employment().departed_at();
        let at = at.or(left).unwrap_or_else(|| ledger.now());
        draft.take(departed(&draft.now, (&draft.badges, &draft.of_numbers), at)?);
        Ok(())
    })
    .await
}

/// What it is that somebody leaves, by their badges and by whoever held those numbers.
pub(super) fn departed(
    employee: &Employee,
    (badges, of_numbers): (&[rows::HoldingRow], &[rows::HoldingRow]),
    at: Time,
) -> Result<Vec<EmployeeEvent>, EmployeeError> {
    let mut events = employee.decide(EmployeeCommand::Depart { at })?;
    for event in &mut events {
        let EmployeeEvent::BadgeEnded { holding, until, .. } = event else { continue };
        let row = badges.iter().find(|row| row.holding == *holding);
        let next = row.and_then(|row| next_holder(of_numbers, row)).and_then(|next| next.from);
        *until = next.map_or(*until, |next| next.min(*until));
    }
    Ok(events)
}

/// Notes that a person didn't leave after all: the badges that ended with it are held again, as
/// far as nobody else got them since.
///
/// # Errors
/// When they haven't left, or the ledger doesn't take it.
pub async fn cancel_departure(
    ledger: &Ledger,
    employee: EmployeeId,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    change(ledger, (employee, &[]), None, metadata, |draft| {
        let (mut free, mut taken) = (Vec::new(), Vec::new());
        for row in &draft.badges {
            match next_holder(&draft.of_numbers, row).and_then(|next| next.from) {
                None => free.push(row.holding),
                Some(next) if row.until < Some(next) => taken.push((row.holding, next)),
                Some(_) => {}
            }
        }
        let left = draft.now.employment().departed_at();
        let by_it = |holding| {
            let held = draft.now.badges().get(holding);
            held.is_some_and(|held| {
                held.because == Some(BadgeEnd::Departed) && left.is_some() && held.until >= left
            })
        };
        // Theirs until somebody else got it.
        let because = BadgeEnd::Reissued;
        let longer = taken.into_iter().filter(|(holding, _)| by_it(*holding));
        let longer: Vec<EmployeeEvent> = longer
            .map(|(holding, until)| EmployeeEvent::BadgeEnded { holding, until, because })
            .collect();
        let mut events = draft.now.decide(EmployeeCommand::CancelDeparture { free })?;
        events.extend(longer);
        draft.take(events);
        Ok(())
    })
    .await
}

/// Notes that a person comes back. Their badges ended when they left; each is issued anew.
///
/// # Errors
/// When they haven't left, or left later, or the ledger doesn't take it.
pub async fn come_back(
    ledger: &Ledger,
    employee: EmployeeId,
    at: Time,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    change(ledger, (employee, &[]), None, metadata, |draft| {
        let stands = draft.now.employment();
        if stands.departed_at().is_none() && stands.returned_at() == Some(at) {
            return Ok(());
        }
        draft.take(draft.now.decide(EmployeeCommand::Return { at })?);
        Ok(())
    })
    .await
}

/// Lets a person work at a site from when until when, or corrects it; with an end alone, what
/// stands ends.
///
/// # Errors
/// When there is no such site or person, they left, it ends before it begins, or the ledger doesn't
/// take it.
pub async fn assign(
    ledger: &Ledger,
    employee: EmployeeId,
    site: SiteId,
    (from, until): (Option<Time>, Option<Time>),
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    if !directory::site_exists(ledger.pool(), site).await? {
        return Err(PeopleError::NoSuchSite);
    }
    change(ledger, (employee, &[]), None, metadata, |draft| {
        let stands = draft.now.assignments().latest(site).is_some();
        if from.is_some() || until.is_none() || !stands {
            draft.take(draft.now.decide(EmployeeCommand::AssignToSite { site, from })?);
        }
        if let Some(until) = until {
            draft.take(draft.now.decide(EmployeeCommand::UnassignFromSite { site, until })?);
        }
        Ok(())
    })
    .await
}

/// Notes that a person no longer works at a site, or since another time.
///
/// # Errors
/// When there is no such person, they never worked there, it is before they began there, or the
/// ledger doesn't take it.
pub async fn unassign(
    ledger: &Ledger,
    employee: EmployeeId,
    site: SiteId,
    until: Time,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    change(ledger, (employee, &[]), None, metadata, |draft| {
        let command = EmployeeCommand::UnassignFromSite { site, until };
        let events = draft.now.decide(command)?;
        if draft.now.assignments().latest(site).is_none() {
            return Err(No::Other(PeopleError::NoSuchSite));
        }
        draft.take(events);
        Ok(())
    })
    .await
}
