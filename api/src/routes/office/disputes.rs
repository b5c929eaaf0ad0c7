//! Disputes for people and integrators: the list, one with its evidence, opening, answering,
//! settling, taking up again.

use axum::{Json as Answer, extract::State, http::StatusCode};
use punchtrail_domain::{
    dispute::{DisputeEvent, Evidence},
    explanation::absence::Absence,
    log::recorded::Actor,
    punch::RulingReason,
};
use punchtrail_infra::{
    people::directory,
    rulings::disputes::{Change, Happened, Resolution, change, history, worked_at},
};
use punchtrail_projections::{
    explanations,
    rulings::disputes::{self as model, DisputeView, Filter},
};
use punchtrail_protocol::{
    DisputeId, EmployeeId, Position, PunchId, SiteId, Time,
    capture::PunchKind,
    dispute::{Day, DisputeCause, DisputeState, Settlement, check_text},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{
        after::After,
        extract::{InPath, Json, Params},
        page::{Page, PageQuery},
        walk::Walk,
    },
    auth::Operator,
    disputes::{self, Asked},
    problem::Refusal,
    routes::Written,
    state::App,
};

/// Which disputes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DisputeQuery {
    pub site: Option<SiteId>,
    /// Only those that stand so.
    #[param(inline)]
    pub state: Option<DisputeState>,
    pub employee: Option<EmployeeId>,
    #[param(inline)]
    pub cause: Option<DisputeCause>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// Disputes in the order they were opened.
#[utoipa::path(
    get, path = "/v1/disputes", tag = "disputes", params(After, DisputeQuery),
    operation_id = "listDisputes",
    responses((status = 200, body = Page<DisputeView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<DisputeQuery>,
) -> Result<Answer<Page<DisputeView>>, Refusal> {
    after.reached(&app, &[model::NAME]).await?;
    let DisputeQuery { site, state, employee, cause, cursor, limit } = query;
    let page = PageQuery { cursor, limit };
    let place = page.place(&app, &walk)?.map(|place| Position(u64::from_be_bytes(place)));
    let (site, within) = operator.lists(site)?;
    let filter = Filter { site, within, state, employee, cause };
    let mut found = model::list(&app.pools.reader, &filter, place, page.limit()?).await?;
    name(&app, &operator, &mut found.rows).await?;
    let key = |row: &DisputeView| row.position.0.to_be_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

/// Gives the people their names, as far as the directory has them and the caller may see them.
async fn name(app: &App, operator: &Operator, rows: &mut [DisputeView]) -> Result<(), Refusal> {
    if !operator.sees_names() {
        return Ok(());
    }
    let people: Vec<_> = rows.iter().map(|row| row.employee).collect();
    let names = directory::employee_names(&app.pools.reader, &people).await?;
    for row in rows {
        row.employee_name = names.get(&row.employee).cloned();
    }
    Ok(())
}

/// A dispute with what happened to it, and what is known of its day.
#[derive(Debug, Serialize, ToSchema)]
pub struct DisputeDetail {
    #[serde(flatten)]
    pub dispute: DisputeView,
    /// What happened, in order.
    pub history: Vec<DisputeEntry>,
    /// What was known of the day when it was last gathered: when the dispute was opened, and when
    /// it was settled. What devices hold rests on their last reports then.
    pub evidence: Option<Evidence>,
    /// The same day as it is explained now; null if the dispute is about a punch.
    pub day_now: Option<Absence>,
}

/// Something that happened to a dispute.
#[derive(Debug, Serialize, ToSchema)]
pub struct DisputeEntry {
    pub event: DisputeEntryKind,
    /// When, by the server's clock.
    pub at: Time,
    pub actor: Option<Actor>,
    pub how: Option<Settlement>,
    /// The punch that settles it, where another one does.
    pub by_punch: Option<PunchId>,
    /// What was written with it, exactly as typed; null if nothing was, or it was erased. It may
    /// hold markup and marks that turn the direction of writing: show it isolated, as text.
    pub text: Option<String>,
    pub position: Position,
}

/// What happened to a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisputeEntryKind {
    Opened,
    EvidenceAdded,
    Answered,
    Resolved,
    Reopened,
}

impl From<Happened> for DisputeEntry {
    fn from(happened: Happened) -> Self {
        let Happened { event, text, actor, at, position, .. } = happened;
        let (event, how, by_punch) = match event {
            DisputeEvent::Opened { .. } => (DisputeEntryKind::Opened, None, None),
            DisputeEvent::EvidenceAdded { .. } => (DisputeEntryKind::EvidenceAdded, None, None),
            DisputeEvent::Answered { .. } => (DisputeEntryKind::Answered, None, None),
            DisputeEvent::Resolved { how, by_punch, .. } => {
                (DisputeEntryKind::Resolved, Some(how), by_punch)
            }
            DisputeEvent::Reopened { .. } => (DisputeEntryKind::Reopened, None, None),
        };
        Self { event, at, actor, how, by_punch, text, position }
    }
}

/// One dispute, with its evidence and what was written.
#[utoipa::path(
    get, path = "/v1/disputes/{dispute}", tag = "disputes",
    operation_id = "getDispute",
    params(After, ("dispute" = DisputeId, Path, description = "The dispute")),
    responses((status = 200, body = DisputeDetail)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(dispute): InPath<DisputeId>,
    after: After,
) -> Result<Answer<DisputeDetail>, Refusal> {
    after.reached(&app, &explanations::RESTS_ON).await?;
    let pool = &app.pools.reader;
    let mut row = model::one(pool, dispute).await?.ok_or_else(Refusal::not_found)?;
    operator.reaches_site(row.site)?;
    name(&app, &operator, std::slice::from_mut(&mut row)).await?;
    let with_names = operator.sees_names();
    let mut happened = history(pool, &[dispute]).await?;
    if !with_names {
        happened.iter_mut().for_each(|one| one.text = None);
    }
    let evidence = happened.iter().rev().find_map(|one| match &one.event {
        DisputeEvent::EvidenceAdded { evidence } => Some(evidence.clone()),
        _ => None,
    });
    let day_now = match row.day {
        Some(day) => {
            let who = (row.employee, with_names);
            explanations::explain_absence(pool, who, day.date()).await?
        }
        None => None,
    };
    let history = happened.into_iter().map(DisputeEntry::from).collect();
    Ok(Answer(DisputeDetail { dispute: row, history, evidence, day_now }))
}

/// A dispute to be opened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenBody {
    /// A UUIDv7 made by the caller: the idempotency key, for ever.
    pub dispute: DisputeId,
    pub site: SiteId,
    /// Whose hours it is about.
    pub employee: EmployeeId,
    /// The punch that it is about; give this or `day`.
    #[serde(default)]
    pub punch: Option<PunchId>,
    /// The business day that it is about, `YYYY-MM-DD`; give this or `punch`.
    #[serde(default)]
    pub day: Option<Day>,
    pub cause: DisputeCause,
    /// In words; at most 2,000 characters.
    #[serde(default)]
    pub text: String,
}

/// Answer to a dispute that was opened.
#[derive(Debug, Serialize, ToSchema)]
pub struct DisputeOpened {
    pub dispute: DisputeId,
    /// Position of the event that opened it.
    pub position: Position,
}

/// Opens a dispute for somebody: 201, or 200 for the same one again.
#[utoipa::path(
    post, path = "/v1/disputes", tag = "disputes", request_body = OpenBody,
    operation_id = "openDispute",
    responses((status = 201, body = DisputeOpened), (status = 200, body = DisputeOpened)),
    security(("operator_key" = [])),
)]
pub async fn open(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<OpenBody>,
) -> Result<(StatusCode, Answer<DisputeOpened>), Refusal> {
    let OpenBody { dispute, site, employee, punch, day, cause, text } = body;
    operator.reaches_site(site)?;
    if let Some(punch) = punch {
        operator.reaches_punch(&app, punch).await?;
    }
    let asked = Asked { dispute, site, employee, punch, day, cause, text };
    let subject = asked.subject()?;
    let opened = match disputes::standing(&app, &asked, subject).await? {
        Some(stands) => stands,
        None if !worked_at(&app.ledger, employee, site).await? => {
            let detail = "No such person ever worked at this site.";
            return Err(Refusal::field("/employee", "unknown", detail));
        }
        None => {
            let author = operator.author(Some(asked.text.clone()));
            disputes::open(&app, &asked, subject, &author).await?
        }
    };
    let status = if opened.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(DisputeOpened { dispute, position: opened.position })))
}

/// A word to a dispute, or why it is taken up again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DisputeWord {
    /// What is said; 1 to 2,000 characters. The worker is told.
    pub note: String,
    /// How many events the dispute had when the caller looked (`sequence`); when it has more,
    /// nothing is written.
    #[serde(default)]
    pub expected_sequence: Option<u64>,
}

/// Answers a dispute; it waits to be settled still.
#[utoipa::path(
    post, path = "/v1/disputes/{dispute}/answers", tag = "disputes",
    operation_id = "answerDispute",
    params(("dispute" = DisputeId, Path, description = "The dispute")),
    request_body = DisputeWord, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn answer(
    State(app): State<App>,
    operator: Operator,
    InPath(dispute): InPath<DisputeId>,
    Json(body): Json<DisputeWord>,
) -> Result<Answer<Written>, Refusal> {
    let DisputeWord { note, expected_sequence } = body;
    changed(&app, &operator, dispute, (Change::Answer, expected_sequence, note)).await
}

/// Takes a settled dispute up again.
#[utoipa::path(
    post, path = "/v1/disputes/{dispute}/reopening", tag = "disputes",
    operation_id = "reopenDispute",
    params(("dispute" = DisputeId, Path, description = "The dispute")),
    request_body = DisputeWord, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn reopen(
    State(app): State<App>,
    operator: Operator,
    InPath(dispute): InPath<DisputeId>,
    Json(body): Json<DisputeWord>,
) -> Result<Answer<Written>, Refusal> {
    let DisputeWord { note, expected_sequence } = body;
    changed(&app, &operator, dispute, (Change::Reopen, expected_sequence, note)).await
}

/// How a dispute is settled.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolutionBody {
    pub how: Settlement,
    /// The time that shall count, to amend; that of the punch which this adds.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub effective_at: Option<Time>,
    /// The kind that shall count, to amend; that of the punch which this adds.
    #[serde(default)]
    pub kind: Option<PunchKind>,
    /// The punch that settles it; to add and to reassign, and only then. With `effective_at` and
    /// `kind` this adds it, under this UUIDv7 of yours, and with `employee` this reassigns it;
    /// without them it was added or reassigned before.
    #[serde(default)]
    pub by_punch: Option<PunchId>,
    /// Where the punch was made that this adds; where the dispute is about unless given.
    #[serde(default)]
    pub site: Option<SiteId>,
    /// Who made the punch that this reassigns.
    #[serde(default)]
    pub employee: Option<EmployeeId>,
    /// Why, as a code of a ruling; `forgotten` unless given, to add.
    #[serde(default)]
    pub reason: Option<RulingReason>,
    /// Why; 1 to 2,000 characters. The worker is told.
    pub note: String,
    /// How many events the dispute had when the caller looked (`sequence`); when it has more,
    /// nothing is written.
    #[serde(default)]
    pub expected_sequence: Option<u64>,
}

impl ResolutionBody {
    fn check(&self) -> Result<(), Refusal> {
        let wrong =
            |pointer: &str, code, detail: &'static str| Err(Refusal::field(pointer, code, detail));
        let times = self.effective_at.is_some() || self.kind.is_some();
        let is_whole = self.effective_at.is_some() == self.kind.is_some();
        match self.how {
            Settlement::Amend if !times => wrong(
                "/effective_at",
                "missing_field",
                "An amendment gives a time, a kind, or both.",
            ),
            Settlement::Add if !is_whole => wrong(
                "/effective_at",
                "missing_field",
                "A punch that is added has a time and a kind; give both, or name one that was \
                 added before.",
            ),
            how if !matches!(how, Settlement::Amend | Settlement::Add) && times => wrong(
                "/effective_at",
                "invalid_value",
                "Only an amendment or an added punch gives a time or a kind.",
            ),
            how if self.site.is_some() && !(how == Settlement::Add && times) => {
                wrong("/site", "invalid_value", "Only a punch that this adds is given a site.")
            }
            how if self.employee.is_some() && how != Settlement::Reassign => wrong(
                "/employee",
                "invalid_value",
                "Only a punch that is reassigned is given to \
                    somebody.",
            ),
            Settlement::Dismiss if self.reason.is_some() => {
                wrong("/reason", "invalid_value", "Nothing is ruled by this; say why in `note`.")
            }
            how if how.is_by_another_punch() && self.by_punch.is_none() => {
                wrong("/by_punch", "missing_field", "Name the punch that was added or reassigned.")
            }
            how if !how.is_by_another_punch() && self.by_punch.is_some() => {
                wrong("/by_punch", "invalid_value", "Only an added or a reassigned punch is named.")
            }
            _ => Ok(()),
        }
    }
}

/// Settles a dispute; to amend, accept, void, add and reassign rules on the punch in the same
/// write.
#[utoipa::path(
    post, path = "/v1/disputes/{dispute}/resolution", tag = "disputes",
    operation_id = "resolveDispute",
    params(("dispute" = DisputeId, Path, description = "The dispute")),
    request_body = ResolutionBody, responses((status = 200, body = Written)),
    security(("operator_key" = [])),
)]
pub async fn resolve(
    State(app): State<App>,
    operator: Operator,
    InPath(dispute): InPath<DisputeId>,
    Json(body): Json<ResolutionBody>,
) -> Result<Answer<Written>, Refusal> {
    body.check()?;
    operator.settles_dispute(&app, dispute).await?;
    if let Some(punch) = body.by_punch {
        operator.reaches_punch(&app, punch).await?;
    }
    if let Some(site) = body.site {
        operator.reaches_site(site)?;
    }
    if let Some(employee) = body.employee {
        operator.reaches_employee(&app, employee).await?;
    }
    let evidence = evidence_now(&app, dispute).await?;
    let ResolutionBody { how, effective_at, kind, by_punch, site, employee, reason, .. } = body;
    let resolution =
        Resolution { how, effective_at, kind, by_punch, site, employee, reason, evidence };
    let change = Change::Resolve(resolution);
    changed(&app, &operator, dispute, (change, body.expected_sequence, body.note)).await
}

/// What is known now of the day that a dispute is about, if it is about one.
async fn evidence_now(app: &App, dispute: DisputeId) -> Result<Option<Evidence>, Refusal> {
    use punchtrail_domain::dispute::Dispute;
    let loaded = app.ledger.load::<Dispute>(&dispute.to_string()).await?;
    match loaded.aggregate.subject() {
        Some(subject) => disputes::evidence(app, subject).await,
        None => Err(Refusal::not_found()),
    }
}

async fn changed(
    app: &App,
    operator: &Operator,
    dispute: DisputeId,
    (asked, expected, note): (Change, Option<u64>, String),
) -> Result<Answer<Written>, Refusal> {
    let wrong = |detail: String| Refusal::field("/note", "invalid_value", detail);
    if note.trim().is_empty() {
        return Err(wrong("Say why, in at least a word; the worker is told.".to_owned()));
    }
    check_text(&note).map_err(|error| wrong(format!("The note can't be taken: {error}.")))?;
    operator.reaches_dispute(app, dispute).await?;
    let author = operator.author(Some(note));
    match change(&app.ledger, dispute, &asked, expected, &author).await {
        Ok(position) => Ok(Answer(Written { position })),
        Err(error) => Err(disputes::refused(app, error).await),
    }
}
