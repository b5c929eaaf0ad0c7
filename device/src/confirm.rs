//! Who stands at the device: somebody chosen from the manifest, confirmed by PIN. What is a
//! person's own, a record or a dispute, is shown and taken only then.

use punchtrail_protocol::EmployeeId;

use crate::{
    device::Device,
    pin::{self, Look, Pin},
    store::{StoreError, identity::Identity, roster},
};

/// Why nobody was confirmed. Nothing was shown and nothing kept, but that a guess is counted.
#[derive(Debug, thiserror::Error)]
pub enum NotConfirmed {
    #[error(
        "this device is not enrolled. Run `punchtrail-device enroll` with a pairing code first"
    )]
    NotEnrolled,
    /// Nobody on the manifest.
    #[error(
        "nobody of that id is on this device's list. Nothing was kept; check the id, or ask a \
         manager"
    )]
    UnknownEmployee,
    #[error(
        "no PIN is known for this person here, so it can't be told who asks. Nothing was kept; ask \
         a manager, who can do this for you"
    )]
    NoPin,
    #[error("that PIN is wrong. Nothing was kept; try again")]
    WrongPin,
    #[error(
        "too many wrong PINs. Nothing was kept; wait ten minutes, or ask a manager, who can do \
         this for you"
    )]
    PinThrottled,
    /// The store refused.
    #[error("{0}. Nothing was kept; try again")]
    Store(#[from] StoreError),
}

impl NotConfirmed {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotEnrolled => "not_enrolled",
            Self::UnknownEmployee => "unknown_employee",
            Self::NoPin => "no_pin",
            Self::WrongPin => "wrong_pin",
            Self::PinThrottled => "pin_throttled",
            Self::Store(error) if error.is_full() => "disk_full",
            Self::Store(_) => "store",
        }
    }
}

impl Device {
    /// The identity that works here, once `employee` is confirmed by PIN, online or not.
    ///
    /// # Errors
    /// When it isn't them, or that can't be told here.
    pub(crate) async fn confirm(
        &self,
        employee: EmployeeId,
        pin: Pin,
    ) -> Result<Identity, NotConfirmed> {
        let moment = self.now();
        let identity = self.identity().await?.ok_or(NotConfirmed::NotEnrolled)?;
        let known = roster::by_id(&mut *self.store.read().await?, identity.id, employee).await?;
        let phc = known.ok_or(NotConfirmed::UnknownEmployee)?.pin_phc.ok_or(NotConfirmed::NoPin)?;
        match pin::look(&self.store, employee, pin, phc, &moment).await? {
            Look::Right => Ok(identity),
            Look::Wrong => Err(NotConfirmed::WrongPin),
            Look::Throttled => Err(NotConfirmed::PinThrottled),
            Look::Unreadable => Err(NotConfirmed::NoPin),
        }
    }
}
