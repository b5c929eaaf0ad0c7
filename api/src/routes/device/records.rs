//! A worker's own record, for a device that has checked the worker's PIN.
//!
//! The server can't check that: it never sees a PIN, and the device has the manifest. It trusts the
//! device as far as it trusts it with the manifest, and bounds how many records one reads.

use std::time::Duration;

use axum::{Json as Answer, extract::State};
use punchtrail_domain::employee::Employee;
use punchtrail_projections::people::record::{self, RecordError};
use punchtrail_protocol::{
    DeviceId, EmployeeId, SiteId,
    wire::{RECORD_DAYS_MAX, WorkerRecord},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    ask::{
        after::After,
        extract::{InPath, Params},
        limits::RECORD_DAYS_DEFAULT,
    },
    auth::ReadingDevice,
    problem::{Code, Refusal},
    quota::Counted,
    state::App,
};

/// How much of a record.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RecordQuery {
    /// The last so many business days, today among them, 1 to 31; 7 unless given.
    pub days: Option<u32>,
}

/// A worker's own punches, hours and disputes, without names.
#[utoipa::path(
    get, path = "/v1/sites/{site}/employees/{employee}/record", tag = "sync",
    operation_id = "getWorkerRecord",
    params(After, ("site" = SiteId, Path, description = "The device's site"),
        ("employee" = EmployeeId, Path, description = "Who works there and gave their PIN"),
        RecordQuery),
    responses((status = 200, body = WorkerRecord)), security(("device_token" = [])),
)]
pub async fn of_worker(
    State(app): State<App>,
    device: ReadingDevice,
    _: Counted,
    InPath((site, employee)): InPath<(SiteId, EmployeeId)>,
    after: After,
    Params(query): Params<RecordQuery>,
) -> Result<Answer<WorkerRecord>, Refusal> {
    device.serves(site)?;
    let days = query.days.unwrap_or(RECORD_DAYS_DEFAULT);
    if !(1..=RECORD_DAYS_MAX).contains(&days) {
        return Err(Refusal::field("days", "invalid_value", "`days` is from 1 to 31."));
    }
    not_too_often(&app, device.id(), employee).await?;
    let known = app.ledger.load::<Employee>(&employee.to_string()).await?.aggregate;
    let now = app.ledger.now();
    if !known.assignments().holds_at(site, now) {
        return Err(Refusal::not_found());
    }
    after.reached(&app, &record::RESTS_ON).await?;
    Ok(Answer(record::record(&app.pools.reader, employee, site, days, now).await?))
}

/// Counts each read, by the device and by the device and the person.
async fn not_too_often(app: &App, device: DeviceId, employee: EmployeeId) -> Result<(), Refusal> {
    // Nobody waits for a turn here: a permit is held.
    let of_person = app.records_of_person.turn((device, employee));
    let of_person = tokio::time::timeout(Duration::ZERO, of_person).await;
    let of_device = tokio::time::timeout(Duration::ZERO, app.records.turn(device)).await;
    let (Ok(of_person), Ok(of_device)) = (of_person, of_device) else {
        return Err(Refusal::new(
            Code::QuotaExceeded,
            "This device read too many records. Wait a minute and try again.",
        )
        .to_be_retried());
    };
    of_person.failed();
    of_device.failed();
    Ok(())
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Timecards(error) => error.into(),
            RecordError::Read(error) => error.into(),
        }
    }
}
