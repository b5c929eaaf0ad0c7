//! Commands to devices whose time is over, and those that an erasure makes.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, TryStreamExt};
use punchtrail_domain::{AggregateType, device::DeviceError, employee::EmployeeEvent};
use punchtrail_infra::{
    devices::commands,
    ledger::{ExecuteError, streams},
};
use punchtrail_projections::devices::{commands::overdue, of_person};
use punchtrail_protocol::{DeviceId, EmployeeId, SiteId, Time};
use tokio_util::sync::CancellationToken;

use crate::{problem::Refusal, rounds, state::App};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// Commands that are looked at together.
const PAGE: u32 = 500;
/// Devices that are told at once.
const AT_ONCE: usize = 8;

/// Notes what expired, until it is stopped. Of several nodes each may do it: a device takes it
/// once.
pub async fn run(app: App, stop: CancellationToken) {
    let failing = "expired commands can't be noted now; they are looked at again";
    rounds::go(EVERY, stop, failing, || look(&app)).await;
}

/// Notes what expired, a page of it.
///
/// # Errors
/// When the database is out of reach.
pub async fn look(app: &App) -> Result<(), Refusal> {
    for (device, command) in overdue(&app.pools.reader, app.ledger.now(), PAGE).await? {
        commands::expire(&app.ledger, device, command).await?;
    }
    Ok(())
}

/// Tells every device that may hold something captured of a person until `taken_until` to forget
/// its photos. May be done twice.
///
/// # Errors
/// When the database is out of reach, or the ledger can't take it now.
pub async fn forget_photos(
    app: &App,
    employee: EmployeeId,
    taken_until: Time,
) -> Result<(), ExecuteError<DeviceError>> {
    let sites = ever_assigned(app, employee).await?;
    let devices = of_person(&app.pools.reader, employee, &sites).await;
    let devices = devices.map_err(|error| ExecuteError::Load(error.into()))?;
    futures::stream::iter(devices)
        .map(|device| tell(app, device, (employee, taken_until)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// A device that is told no more erases nothing; what it sends is erased as it arrives.
async fn tell(
    app: &App,
    device: DeviceId,
    what: (EmployeeId, Time),
) -> Result<(), ExecuteError<DeviceError>> {
    match commands::issue_forgetting(&app.ledger, device, what).await {
        Err(ExecuteError::Refused(error)) => {
            tracing::warn!(%device, %error, "a device isn't told to forget a person's photos");
            Ok(())
        }
        told => told.map(drop),
    }
}

/// The sites that a person was ever assigned to.
async fn ever_assigned(
    app: &App,
    employee: EmployeeId,
) -> Result<Vec<SiteId>, ExecuteError<DeviceError>> {
    let ids = [employee.to_string()];
    let events = streams(app.ledger.pool(), AggregateType::Employee, &ids).await;
    let mut sites = BTreeSet::new();
    for recorded in events.map_err(ExecuteError::Load)? {
        let event = recorded.read().map_err(|error| ExecuteError::Load(error.into()))?;
        if let EmployeeEvent::AssignedToSite { site, .. } = event {
            sites.insert(site);
        }
    }
    Ok(sites.into_iter().collect())
}
