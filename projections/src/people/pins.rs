//! Whose PINs a device knows: it holds the hash of everybody's who works where it serves, so that
//! it can check them offline. Whoever has the device can guess them.

use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{DeviceId, EmployeeId, SiteId, Time};
use serde::Serialize;
use sqlx::{FromRow, Row, postgres::PgRow};

use crate::engine::{
    columns::{ids, time_or_none},
    page::Page,
};

/// How many are read with one statement.
const READ_TOGETHER: u32 = 1_000;

/// Somebody whose PIN's hash was on a device, and who has that PIN still.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KnownPin {
    pub employee: EmployeeId,
    /// The name, if the directory has it and you may see it.
    pub employee_name: Option<String>,
    /// Since when they are asked for another PIN; null if they aren't.
    pub renewal_asked_at: Option<Time>,
}

impl std::fmt::Debug for KnownPin {
    /// Names don't belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KnownPin").field("employee", &self.employee).finish_non_exhaustive()
    }
}

impl FromRow<'_, PgRow> for KnownPin {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            employee: EmployeeId(row.try_get("employee")?),
            employee_name: row.try_get("name")?,
            renewal_asked_at: time_or_none(row, "pin_renewal_asked_at")?,
        })
    }
}

/// The people whose PINs a device knows, in the order of their ids, after `after`; at most `limit`.
/// Rather somebody too many: everybody who worked at one of its sites when it had come or later,
/// but nobody who got their PIN when its access had ended. Only of the sites `within`, if these are
/// given.
///
/// # Errors
/// When the database is out of reach.
pub async fn known_to(
    pool: &Pool,
    device: DeviceId,
    within: Option<&[SiteId]>,
    after: Option<EmployeeId>,
    limit: u32,
) -> Result<Page<KnownPin>, sqlx::Error> {
    let rows = sqlx::query_as(
        "select entry.employee, entry.name, entry.pin_renewal_asked_at \
         from employee_directory entry, read.devices device \
         where device.device = $1 and entry.employee > $2 and entry.pin_phc is not null \
         and (device.revoked_at is null or entry.pin_set_at is null \
             or entry.pin_set_at <= device.revoked_at) \
         and exists (select from read.roster place \
             join read.devices_sites served on served.site = place.site and served.device = $1 \
             where place.employee = entry.employee \
             and ($4::uuid[] is null or place.site = any($4)) \
             and (place.until is null or device.enrolled_at is null \
                 or place.until > device.enrolled_at)) \
         order by entry.employee limit $3",
    )
    .bind(device.uuid())
    .bind(after.unwrap_or(EmployeeId::NIL).uuid())
    .bind(Page::<KnownPin>::to_ask(limit))
    .bind(within.map(ids))
    .fetch_all(pool)
    .await?;
    Ok(Page::cut(rows, limit))
}

/// All of them.
///
/// # Errors
/// When the database is out of reach.
pub async fn everybody(
    pool: &Pool,
    device: DeviceId,
    within: Option<&[SiteId]>,
) -> Result<Vec<KnownPin>, sqlx::Error> {
    let mut all: Vec<KnownPin> = Vec::new();
    loop {
        let last = all.last().map(|pin| pin.employee);
        let page = known_to(pool, device, within, last, READ_TOGETHER).await?;
        all.extend(page.rows);
        if !page.more {
            return Ok(all);
        }
    }
}
