//! What a ruling rests on beside its punch: the clock, the person it is given to, the other end of
//! a shift. Whoever rules, through whichever door, these hold.

use jiff::{civil::Date, tz::TimeZone};
use punchtrail_domain::{
    employee::{Employee, EmployeeEvent},
    punch::{Anomaly, Punch, PunchCommand, PunchError},
    site::Site,
    timecard::{TimecardPolicy, business_day},
};
use punchtrail_protocol::{EmployeeId, PunchId, SiteId, Time};

use super::{Author, RuleError, shifts};
use crate::ledger::{ExecuteError, Ledger, ReadError, StreamAppend};

/// Something that a ruling names isn't there, or can't be meant. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody sets a time that has not come.
    #[error(
        "that time has not come yet: it is {now} by the server's clock. Nothing was changed; give \
         the time at which it was"
    )]
    InFuture {
        /// What the command calls the time.
        field: &'static str,
        now: Time,
    },
    /// There is no such person.
    #[error("there is no such employee; nothing was changed")]
    NoSuchPerson,
    /// Nothing new is recorded of who was erased.
    #[error("everything about this employee was erased; nothing was changed")]
    Erased,
    /// There is no such site.
    #[error("there is no such site; nothing was changed")]
    NoSuchSite,
    /// A caller's own id is its idempotency key.
    #[error("the id of a punch that is entered is a UUID of version 7; nothing was changed")]
    NotV7,
    /// There is no such punch to settle a dispute by.
    #[error("there is no such punch; nothing was changed")]
    NoSuchPunch,
    /// There is no such punch to end a shift.
    #[error("there is no such punch to end the shift with; nothing was changed")]
    NoSuchOut,
    /// What begins a shift is ended by an `out` of the same person that counts.
    #[error(
        "a shift ends with an `out` that counts, of the same person as its `in`; nothing was \
         changed"
    )]
    NoOut,
    /// A shift ends after it began, and in time.
    #[error(
        "a shift ends after its `in`, at most 72 hours later; nothing was changed. Amend the times \
         first if they are wrong"
    )]
    TooFarApart,
    /// Another `in` was joined with that `out`.
    #[error("another `in` is joined with this `out` already; nothing was changed. Part them first")]
    Taken,
}

impl Fault {
    /// The field of the command that is at fault.
    pub const fn field(self) -> &'static str {
        match self {
            Self::InFuture { field, .. } => field,
            Self::NoSuchPerson | Self::Erased => "employee",
            Self::NoSuchSite => "site",
            Self::NotV7 => "punch",
            Self::NoSuchPunch => "by_punch",
            Self::NoSuchOut | Self::NoOut | Self::TooFarApart | Self::Taken => "out",
        }
    }

    /// Whether what stands contradicts it, rather than that it can't be meant.
    pub const fn is_conflict(self) -> bool {
        matches!(self, Self::Erased | Self::NoOut | Self::TooFarApart | Self::Taken)
    }
}

impl<E: std::error::Error> From<Fault> for RuleError<E> {
    fn from(fault: Fault) -> Self {
        Self::AtFault(fault)
    }
}

impl<E: std::error::Error> From<ReadError> for RuleError<E> {
    fn from(error: ReadError) -> Self {
        Self::Ledger(ExecuteError::Load(error))
    }
}

/// That a time which a person sets has come, by the server's clock.
pub(super) fn has_come(ledger: &Ledger, field: &'static str, at: Time) -> Result<(), Fault> {
    let now = ledger.now();
    if at > now { Err(Fault::InFuture { field, now }) } else { Ok(()) }
}

/// That a punch isn't the author's own: not recorded as theirs, and not perhaps theirs either.
pub(super) fn concerned(author: &Author, punch: &Punch) -> Result<(), RuleError<PunchError>> {
    author.may_rule_on(punch.employee())?;
    for anomaly in punch.anomalies() {
        if let Anomaly::OtherHolder { holder } = anomaly {
            author.may_rule_on(*holder)?;
        }
    }
    Ok(())
}

/// Checks what a command rests on, and gives what must not change until it is appended.
pub(super) async fn held(
    ledger: &Ledger,
    author: &Author,
    (punch, loaded): (PunchId, &Punch),
    command: &PunchCommand,
) -> Result<Vec<StreamAppend>, RuleError<PunchError>> {
    Ok(match command {
        PunchCommand::Amend { effective_at: Some(at), .. } => {
            has_come(ledger, "effective_at", *at)?;
            Vec::new()
        }
        PunchCommand::UseServerTime { .. } => {
            loaded.server_time().map_or(Ok(()), |at| has_come(ledger, "decision", at))?;
            Vec::new()
        }
        PunchCommand::Enter { employee, site, at, .. } => {
            author.may_rule_on(Some(*employee))?;
            has_come(ledger, "at", *at)?;
            if ledger.load::<Site>(&site.to_string()).await?.sequence == 0 {
                return Err(Fault::NoSuchSite.into());
            }
            vec![person(ledger, *employee).await?]
        }
        PunchCommand::Assign { employee, .. } => {
            author.may_rule_on(Some(*employee))?;
            vec![person(ledger, *employee).await?]
        }
        PunchCommand::JoinShift { out, .. } => {
            shifts::held(ledger, author, (punch, loaded), *out).await?
        }
        _ => Vec::new(),
    })
}

/// That a person is known and was not erased, nor will be before this is appended.
pub(super) async fn person(
    ledger: &Ledger,
    employee: EmployeeId,
) -> Result<StreamAppend, RuleError<PunchError>> {
    let loaded = ledger.load::<Employee>(&employee.to_string()).await?;
    if !loaded.aggregate.is_registered() {
        return Err(Fault::NoSuchPerson.into());
    }
    if loaded.aggregate.erased_at().is_some() {
        return Err(Fault::Erased.into());
    }
    Ok(StreamAppend::of::<EmployeeEvent>(employee, loaded.sequence, &[]))
}

/// The business days on which a punch lies as it stands in each of these, in order.
pub(super) async fn days(ledger: &Ledger, punches: &[&Punch]) -> Result<Vec<Date>, ReadError> {
    let Some(site) = punches.iter().find_map(|punch| punch.site()) else { return Ok(Vec::new()) };
    let times = punches.iter().filter_map(|punch| punch.effective()).map(|(at, _)| at);
    let mut days = business_days(ledger, site, times).await?;
    days.sort_unstable();
    days.dedup();
    Ok(days)
}

/// The business days of these times at a site.
pub(super) async fn business_days(
    ledger: &Ledger,
    site: SiteId,
    times: impl Iterator<Item = Time>,
) -> Result<Vec<Date>, ReadError> {
    let site = ledger.load::<Site>(&site.to_string()).await?.aggregate;
    let day = |at: Time| {
        let zone = site.rules().zone_at(at).and_then(|tz| TimeZone::get(tz).ok());
        let zone = zone.unwrap_or(TimeZone::UTC);
        business_day(at, &TimecardPolicy::of_site(site.rules().policy_at(at), zone))
    };
    Ok(times.map(day).collect())
}
