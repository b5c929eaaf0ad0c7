//! A punch as the timeline and a site's feed show it.

use punchtrail_protocol::{
    DeviceId, EmployeeId, Position, PunchId, SiteId, Time, capture::PunchKind, vocabulary::Standing,
};
use serde::Serialize;
use sqlx::{FromRow, Row, postgres::PgRow};

use crate::engine::columns::{parsed, time};

/// The columns that make a [`PunchView`].
pub(crate) const COLUMNS: &str = "punch, employee, site, device, kind, captured_at, effective_at, \
     standing, reasons, position";

/// A punch as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PunchView {
    pub punch: PunchId,
    /// Who; null for an unknown badge.
    pub employee: Option<EmployeeId>,
    // None until somebody who shows punches to people looks it up.
    /// The person's name, if the directory has it.
    pub employee_name: Option<String>,
    pub site: SiteId,
    /// The device that captured it, or delivered what it was admitted from; all zeros for one that
    /// a person added.
    pub device: DeviceId,
    /// Whether a person added it, which nobody made at a device.
    pub entered: bool,
    pub kind: PunchKind,
    /// When, by the device's clock.
    pub captured_at: Time,
    /// The time that counts: as captured, or as a person amended it.
    pub effective_at: Time,
    pub standing: Standing,
    /// Why it stands so, as codes: of a referred punch every doubt since it was last ruled on, of a
    /// rejected one the reason of that ruling; else none.
    pub reasons: Vec<String>,
    /// Position of its latest change.
    pub position: Position,
}

impl FromRow<'_, PgRow> for PunchView {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let device = DeviceId(row.try_get("device")?);
        Ok(Self {
            punch: PunchId(row.try_get("punch")?),
            employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
            employee_name: None,
            site: SiteId(row.try_get("site")?),
            device,
            entered: device == DeviceId::NIL,
            kind: parsed(row, "kind")?,
            captured_at: time(row, "captured_at")?,
            effective_at: time(row, "effective_at")?,
            standing: parsed(row, "standing")?,
            reasons: row.try_get::<Option<_>, _>("reasons")?.unwrap_or_default(),
            position: Position::from_db(row.try_get("position")?),
        })
    }
}
