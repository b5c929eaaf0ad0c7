//! A worker disputes how a punch stands, or says that one is missing on a day: confirmed by PIN, on
//! disk before this says so, and delivered when the server is in reach.

use punchtrail_protocol::{
    DisputeId, EmployeeId, PunchId, Time,
    dispute::{About, BadText, Day, DisputeCause, check_text},
    wire::DisputeRequest,
};
use serde::Serialize;

use crate::{
    clock::Moment,
    confirm::NotConfirmed,
    device::Device,
    pin::Pin,
    store::{StoreError, disputes},
};

/// Disputes of one person that may wait on one device.
pub const WAITING_OF_PERSON_MAX: u64 = 50;
/// Disputes that may wait on one device.
pub const WAITING_MAX: u64 = 10_000;

/// What is disputed.
#[derive(Debug, Clone)]
pub struct Dispute {
    pub employee: EmployeeId,
    pub pin: Pin,
    pub about: About,
    pub cause: DisputeCause,
    /// In the worker's own words; may be empty.
    pub text: String,
}

/// A dispute that is on disk.
#[derive(Debug, Clone, Serialize)]
pub struct KeptDispute {
    pub dispute: DisputeId,
    pub employee: EmployeeId,
    pub punch: Option<PunchId>,
    pub day: Option<Day>,
    pub cause: DisputeCause,
    /// When, by this device's clock.
    pub made_at: Time,
}

/// Why a dispute wasn't kept.
#[derive(Debug, thiserror::Error)]
pub enum DisputeError {
    #[error(transparent)]
    NotConfirmed(#[from] NotConfirmed),
    /// A text that isn't taken.
    #[error("this text can't be kept: {0}. Nothing was kept; change it and try again")]
    BadText(BadText),
    #[error(
        "a missing punch is about a day; a wrong time, a wrong kind, one that isn't yours and a \
         rejected one are about a punch. Nothing was kept"
    )]
    CauseDoesNotFit,
    #[error("{0} has not begun yet by this device's clock. Nothing was kept")]
    DayToCome(Day),
    #[error(
        "{WAITING_OF_PERSON_MAX} of your disputes wait here already, or {WAITING_MAX} of \
         everybody's. They are kept and will be sent; this one was not kept. Ask a manager"
    )]
    TooMany,
    #[error(
        "this device's disk is full. Nothing was kept; whoever looks after this device frees space \
         on its disk"
    )]
    DiskFull,
    /// The store refused otherwise.
    #[error("{0}. Nothing was kept; try again")]
    Store(StoreError),
}

impl From<StoreError> for DisputeError {
    fn from(error: StoreError) -> Self {
        if error.is_full() { Self::DiskFull } else { Self::Store(error) }
    }
}

impl DisputeError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotConfirmed(error) => error.code(),
            Self::BadText(_) => "bad_text",
            Self::CauseDoesNotFit => "cause_does_not_fit",
            Self::DayToCome(_) => "day_to_come",
            Self::TooMany => "too_many_disputes",
            Self::DiskFull => "disk_full",
            Self::Store(_) => "store",
        }
    }
}

impl Device {
    /// Keeps what a worker disputes. When this returns, it is on disk.
    ///
    /// # Errors
    /// With nothing kept.
    pub async fn dispute(&self, dispute: Dispute) -> Result<KeptDispute, DisputeError> {
        let Dispute { employee, pin, about, cause, text } = dispute;
        let moment = self.now();
        check_text(&text).map_err(DisputeError::BadText)?;
        if !cause.fits(about) {
            return Err(DisputeError::CauseDoesNotFit);
        }
        if let Some(day) = about.day().filter(|day| *day > today(&moment)) {
            return Err(DisputeError::DayToCome(day));
        }
        let identity = self.confirm(employee, pin).await?;
        let (punch, day) = (about.punch(), about.day());
        let id = DisputeId(self.id_at(moment.time));
        let request = DisputeRequest { dispute: id, employee, punch, day, cause, text };
        let mut write = self.store.write().await?;
        let (of_person, of_all) = disputes::waiting_of(&mut write, employee).await?;
        if of_person >= WAITING_OF_PERSON_MAX || of_all >= WAITING_MAX {
            return Err(DisputeError::TooMany);
        }
        disputes::add(&mut write, (identity.id, identity.site), &request, moment.time).await?;
        write.commit().await.map_err(StoreError::from)?;
        tracing::info!(dispute = %id, device = %identity.device, cause = cause.as_str(),
            "dispute kept");
        Ok(KeptDispute { dispute: id, employee, punch, day, cause, made_at: moment.time })
    }
}

/// The day that the wall clock shows.
fn today(moment: &Moment) -> Day {
    let local = moment.time.plus_millis(i64::from(moment.utc_offset_s) * 1_000);
    local.timestamp().to_zoned(jiff::tz::TimeZone::UTC).date().into()
}
