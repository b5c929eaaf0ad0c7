//! Rosters as files, for operators.

use std::sync::Arc;

use axum::{
    Json as Answer,
    extract::{Request, State},
};
use punchtrail_infra::people::{
    directory,
    import::{self, ImportError, Imported, OneRow, Options, RowFault},
    moment::Moment,
};
use punchtrail_protocol::{EmployeeId, SiteId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::staff::pin_of;

use crate::{
    ask::{
        extract::{
            InPath, Json, Line, Params, content_length, media_type, next_chunk, too_large, too_slow,
        },
        limits::{ROSTER_BODY_BYTES_MAX, ROSTER_BODY_PINS_MAX},
    },
    auth::Operator,
    once::Unkept,
    problem::{Code, Refusal},
    state::{App, HeldBody},
};

/// Types that a CSV file goes under.
const CSV_TYPES: [&str; 3] = ["text/csv", "text/plain", "application/vnd.ms-excel"];

/// How a roster is meant. Each time is a day at the row's site (`2026-11-26`), or RFC 3339.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RosterQuery {
    /// Whether it is only to be said what would be.
    pub dry_run: Option<bool>,
    /// From when on the people work at their sites; since ever, or as it stands, unless given.
    pub from: Option<String>,
    /// When badges that somebody else holds changed hands; refused unless given.
    pub reissue: Option<String>,
    /// Since when people who had left are back; refused unless given here or in a row.
    pub returned: Option<String>,
}

impl RosterQuery {
    fn options(&self) -> Result<Options, Refusal> {
        let moment = |name: &'static str, text: &Option<String>| {
            let read = text.as_deref().map(str::parse::<Moment>).transpose();
            read.map_err(|error| Refusal::field(name, "invalid_value", format!("{name}: {error}.")))
        };
        Ok(Options {
            dry_run: self.dry_run.unwrap_or_default(),
            from: moment("from", &self.from)?,
            reissue: moment("reissue", &self.reissue)?,
            returned: moment("returned", &self.returned)?,
            pins_max: Some(ROSTER_BODY_PINS_MAX),
        })
    }
}

/// Imports a roster, all of it or nothing: a CSV file as `employee import` takes it, at most 8 MiB
/// with 1,000 PINs. With a faulty row 422 `invalid`, which points to rows; a dry run tells of all
/// faults, and of what would change, by name.
#[utoipa::path(
    post, path = "/v1/imports/employees", tag = "employees", params(RosterQuery),
    operation_id = "importEmployees",
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, body = Imported)), security(("operator_key" = [])),
)]
pub async fn employees(
    State(app): State<App>,
    operator: Operator,
    Params(query): Params<RosterQuery>,
    request: Request,
) -> Result<Unkept<Answer<Imported>>, Refusal> {
    let options = query.options()?;
    let (held, line) = roster(&app, request).await?;
    line.wait_for_permit().await?;
    // Hashing PINs waits for cores of its own.
    line.put_down().await;
    let (by, heard) = (operator.metadata(), Arc::new(|_, _| {}));
    // It tells of people by name.
    Ok(Unkept(Answer(import::import(&app.ledger, held.bytes(), &options, &by, heard).await?)))
}

/// A person of another system.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalBody {
    pub name: String,
    /// Where they work, besides where they do.
    pub site: SiteId,
    /// A badge; what they hold stays theirs.
    #[serde(default)]
    pub badge: Option<String>,
    /// 4 to 12 digits; what they have stays unless given.
    #[serde(default)]
    pub pin: Option<String>,
    /// From when on they work there: a day at the site (`2026-11-26`), or RFC 3339; since ever, or
    /// as it stands, unless given.
    #[serde(default)]
    pub from: Option<String>,
    /// When the badge, if somebody else holds it, changed hands; refused unless given.
    #[serde(default)]
    pub reissue: Option<String>,
    /// Since when they are back, if they had left; refused unless given.
    #[serde(default)]
    pub returned: Option<String>,
}

/// What was written of a person of another system.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExternalPut {
    pub employee: EmployeeId,
    pub created: bool,
    /// Each change, in words; none if they stood like that already.
    pub changes: Vec<String>,
    /// What is strange and may be right.
    pub warnings: Vec<String>,
    pub position: u64,
}

/// Makes the person of that id of another system what they are there: new, or changed. The same
/// rules hold as for a row of an import; the same again changes nothing.
#[utoipa::path(
    put, path = "/v1/employees/by-external-id/{external_id}", tag = "employees",
    operation_id = "putEmployeeByExternalId",
    params(("external_id" = String, Path, description = "The id in the other system")),
    request_body = ExternalBody, responses((status = 200, body = ExternalPut)),
    security(("operator_key" = [])),
)]
pub async fn put_external(
    State(app): State<App>,
    operator: Operator,
    InPath(external_id): InPath<String>,
    Json(body): Json<ExternalBody>,
) -> Result<Unkept<Answer<ExternalPut>>, Refusal> {
    let ExternalBody { name, site, badge, pin, from, reissue, returned } = body;
    let pin = pin.as_deref().map(pin_of).transpose()?;
    let query = RosterQuery { dry_run: None, from, reissue, returned };
    let (options, by, site) = (query.options()?, operator.metadata(), site.to_string());
    let badge = badge.as_deref();
    let row = OneRow { external_id: &external_id, name: &name, site: &site, badge, pin };
    let done = import::one(&app.ledger, row, &options, &by).await.map_err(of_one_row)?;
    let words = |faults: Vec<RowFault>| faults.into_iter().map(|fault| fault.what).collect();
    // The one row's. With an Idempotency-Key it is written with this answer, and can't be read yet.
    let change = done.changes.into_iter().next();
    let employee = match change.as_ref().and_then(|of| of.employee) {
        Some(employee) => Some(employee),
        None => directory::employee_of_external_id(app.ledger.pool(), &external_id).await?,
    };
    let changes = change.map_or_else(Vec::new, |of| of.what);
    // It tells of people by name.
    Ok(Unkept(Answer(ExternalPut {
        employee: employee.ok_or_else(Refusal::internal)?,
        created: done.created > 0,
        changes,
        warnings: words(done.warnings),
        position: done.position,
    })))
}

/// What is wrong with the one row, without speaking of a file.
fn of_one_row(error: ImportError) -> Refusal {
    match error {
        ImportError::Rows { faults, .. } => {
            let what: Vec<String> = faults.into_iter().map(|fault| fault.what).collect();
            let detail = format!("{}. Nothing was changed.", what.join("; "));
            Refusal::field("", "invalid_value", detail)
        }
        error => error.into(),
    }
}

/// The file, as far as it may be large.
async fn roster(app: &App, request: Request) -> Result<(HeldBody, Line), Refusal> {
    let (parts, mut body) = request.into_parts();
    if media_type(&parts.headers).is_some_and(|kind| !CSV_TYPES.contains(&&*kind)) {
        let what = "The body has to be a CSV file, Content-Type text/csv.";
        return Err(Refusal::new(Code::UnsupportedMediaType, what));
    }
    if content_length(&parts.headers).is_some_and(|length| length > ROSTER_BODY_BYTES_MAX) {
        return Err(too_large(ROSTER_BODY_BYTES_MAX));
    }
    let line = Line::of(&parts);
    let mut held = app.body(line.standing());
    let reading = async {
        while let Some(chunk) = next_chunk(&mut body, app.door.timeouts.silence).await? {
            if held.bytes().len() + chunk.len() > ROSTER_BODY_BYTES_MAX {
                return Err(too_large(ROSTER_BODY_BYTES_MAX));
            }
            held.push(&chunk)?;
        }
        Ok(())
    };
    tokio::time::timeout(app.door.timeouts.photo, reading).await.map_err(|_| too_slow())??;
    line.has_come();
    Ok((held, line))
}
