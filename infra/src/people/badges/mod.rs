//! Badges: issued, given back, lost, handed on. A badge has one holder at a time; that is looked at
//! in the transaction of the event, under the head's lock, so of two who would hold one at once
//! one wins and the other is told who did.

pub mod rows;

use punchtrail_domain::employee::{BadgeEnd, EmployeeCommand};
use punchtrail_protocol::{Digest, EmployeeId, Time, capture::BADGE_CHARS_MAX, spelling::normal};
use serde::Serialize;

use rows::{Fresh, HoldingRow};

use super::{
    change::{self, Changed, Draft, No, TRIES_MAX, change},
    error::PeopleError,
};
use crate::ledger::{AppendError, Ledger, Metadata};

/// A badge's number as it is kept.
///
/// # Errors
/// When it can't be one.
pub fn number(text: &str) -> Result<String, PeopleError> {
    let text = normal(text.trim());
    let fits = (1..=BADGE_CHARS_MAX).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) { Ok(text) } else { Err(PeopleError::Number) }
}

/// Issues a badge to a person. Who holds it from then on already holds it.
///
/// # Errors
/// When somebody holds it then or later, the person refuses it, or the ledger doesn't take it.
pub async fn issue(
    ledger: &Ledger,
    employee: EmployeeId,
    number: &str,
    from: Time,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    let about = [number.to_owned()];
    change(ledger, (employee, &about), None, metadata, |draft| issue_in(draft, number, from)).await
}

/// Adds to a draft about that badge that the person holds it from then on.
pub(super) fn issue_in(draft: &mut Draft, number: &str, from: Time) -> Result<(), No> {
    let held = draft.of_numbers.iter().filter(|row| row.number == number);
    match held.clone().find(|row| row.goes_on(from)) {
        Some(row)
            if row.employee == draft.employee
                && row.until.is_none()
                && row.from.is_none_or(|since| since <= from) =>
        {
            Ok(())
        }
        Some(row) => Err(No::Held(row.clone())),
        None => give(draft, number, from),
    }
}

/// Adds that they hold a badge that is free then.
fn give(draft: &mut Draft, number: &str, from: Time) -> Result<(), No> {
    let fresh = Fresh::of(number);
    let command = EmployeeCommand::IssueBadge { holding: fresh.holding, from };
    draft.take(draft.now.decide(command)?);
    draft.fresh.push(fresh);
    Ok(())
}

/// Which of a person's badges.
#[derive(Debug, Clone)]
pub enum Which {
    /// By its number: the time that has no end, else the latest.
    Number(String),
    /// That time of holding it.
    Holding(Digest),
}

/// Notes that a person no longer holds a badge, or since another time.
///
/// # Errors
/// When they never held it, somebody else holds it before that, or the ledger doesn't take it.
pub async fn end(
    ledger: &Ledger,
    employee: EmployeeId,
    which: &Which,
    until: Time,
    because: BadgeEnd,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    change(ledger, (employee, &[]), None, metadata, |draft| {
        let row = draft.badges.iter().filter(|row| match which {
            Which::Number(number) => row.number == *number,
            Which::Holding(holding) => row.holding == *holding,
        });
        let number = || match which {
            Which::Number(number) => number.clone(),
            Which::Holding(holding) => holding.to_string(),
        };
        let row = row.max_by_key(|row| (row.until.is_none(), row.from)).cloned();
        let row = row.ok_or_else(|| No::Other(PeopleError::NoSuchBadge { number: number() }))?;
        let command = EmployeeCommand::EndBadge { holding: row.holding, until, because };
        draft.take(draft.now.decide(command)?);
        match next_holder(&draft.of_numbers, &row).filter(|next| next.from < Some(until)) {
            Some(next) => Err(No::Held(next.clone())),
            None => Ok(()),
        }
    })
    .await
}

/// Notes that a badge changed hands: whoever held it then holds it until then, and this person from
/// then on. Nothing of what was before changes.
///
/// # Errors
/// When somebody else got it only later, the person refuses it, or the ledger doesn't take it.
pub async fn reissue(
    ledger: &Ledger,
    employee: EmployeeId,
    number: &str,
    at: Time,
    metadata: &Metadata,
) -> Result<Changed, PeopleError> {
    let about = [number.to_owned()];
    for _ in 0..TRIES_MAX {
        let mut draft = Draft::load(ledger, employee, &about).await?;
        let before = match giver(&draft, number, at) {
            Err(later) => return Err(No::Held(later).told(ledger).await),
            Ok(None) => None,
            Ok(Some(row)) => {
                let mut before = Draft::load(ledger, row.employee, &[]).await?;
                let (holding, because) = (row.holding, BadgeEnd::Reissued);
                let command = EmployeeCommand::EndBadge { holding, until: at, because };
                before.take(before.now.decide(command)?);
                Some(before)
            }
        };
        let stands =
            |row: &HoldingRow| row.number == number && row.employee == employee && row.goes_on(at);
        if !draft.of_numbers.iter().any(stands)
            && let Err(no) = give(&mut draft, number, at)
        {
            return Err(no.told(ledger).await);
        }
        let drafts = [draft].into_iter().chain(before).collect();
        if let Some(changed) = change::append(ledger, drafts, None, metadata).await? {
            return Ok(changed);
        }
    }
    Err(AppendError::Stale.into())
}

/// Who holds a badge at that time; none if it is free.
///
/// # Errors
/// When the database is out of reach.
pub async fn holder(
    ledger: &Ledger,
    number: &str,
    at: Time,
) -> Result<Option<EmployeeId>, sqlx::Error> {
    let held = rows::of_numbers(ledger.pool(), &[number.to_owned()]).await?;
    let then = held.iter().find(|row| row.from.is_none_or(|from| from <= at) && row.goes_on(at));
    Ok(then.map(|row| row.employee))
}

/// Who gives a badge up to somebody at that time, if anybody holds it then.
///
/// # Errors
/// With who got it only then or later: it can't have changed hands then.
fn giver(draft: &Draft, number: &str, at: Time) -> Result<Option<HoldingRow>, HoldingRow> {
    let held = draft.of_numbers.iter().filter(|row| row.number == number && row.goes_on(at));
    let held: Vec<&HoldingRow> = held.collect();
    match held.as_slice() {
        [] => Ok(None),
        [row] if row.employee == draft.employee && row.until.is_none() => Ok(None),
        [row] if row.employee != draft.employee && row.from < Some(at) => Ok(Some((*row).clone())),
        [.., later] => Err((*later).clone()),
    }
}

/// Who held a number next after a time of holding it that ended.
pub(super) fn next_holder<'a>(all: &'a [HoldingRow], row: &HoldingRow) -> Option<&'a HoldingRow> {
    let others = all.iter().filter(|other| other.number == row.number && other.is_any());
    let later = others.filter(|other| other.holding != row.holding && other.from >= row.from);
    later.min_by_key(|other| other.from)
}

/// A badge that a person holds or held.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldBadge {
    /// What the ledger calls this time of holding it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub holding: Digest,
    pub number: String,
    /// Since when; null: since ever.
    pub from: Option<Time>,
    /// Until when; null while there is no end in sight.
    pub until: Option<Time>,
    /// Why it ended.
    pub because: Option<BadgeEnd>,
}

impl std::fmt::Debug for HeldBadge {
    /// Numbers don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldBadge").field("holding", &self.holding).finish_non_exhaustive()
    }
}

/// The badges of a person, those that ended included, the earliest first; none when there is no
/// such person.
///
/// # Errors
/// When the database is out of reach, or holds what this program can't read.
pub async fn list(
    ledger: &Ledger,
    employee: EmployeeId,
) -> Result<Option<Vec<HeldBadge>>, PeopleError> {
    let Draft { now, badges, .. } = Draft::load(ledger, employee, &[]).await?;
    let held = badges.into_iter().map(|row| HeldBadge {
        because: now.badges().get(row.holding).and_then(|held| held.because),
        holding: row.holding,
        number: row.number,
        from: row.from,
        until: row.until,
    });
    Ok(now.is_registered().then(|| held.collect()))
}
