//! Badges that nobody is known to have held when they were read: which punches wait with them, and
//! all of a badge given to a person at once.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::{punch::RulingReason, timecard::CountedAs};
use punchtrail_infra::rulings::{ASSIGNED_TOGETHER_MAX, Assigned, Assigning, Left, assign_many};
use punchtrail_projections::{
    punches::{
        preview::{DayPreview, Outcome, Surroundings},
        timecards,
    },
    rulings::{
        reviews::NAME,
        unknown::{self, OfBadge, UnknownBadge, UnknownPunch},
    },
};
use punchtrail_protocol::{EmployeeId, Position, PunchId, SiteId, Time, capture::BADGE_CHARS_MAX};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{
        after::{After, after as wait_for},
        cursor,
        extract::{Json, Params, page_limit},
        limits::{
            BADGE_PUNCHES_MAX, BADGE_PUNCHES_SEEN_MAX, LEFT_SHOWN_MAX, PAGE_DEFAULT, PAGE_MAX,
            PREVIEW_DAYS_MAX,
        },
        page::Page,
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    routes::note_of,
    state::App,
};

/// Which badges.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BadgeQuery {
    /// Only those that were read at this site.
    pub site: Option<SiteId>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// The badges that punches wait with, in the order of their numbers.
#[utoipa::path(
    get, path = "/v1/unknown-badges", tag = "punches", params(After, BadgeQuery),
    operation_id = "listUnknownBadges",
    responses((status = 200, body = Page<UnknownBadge>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<BadgeQuery>,
) -> Result<Answer<Page<UnknownBadge>>, Refusal> {
    operator.may_see_people()?;
    after.reached(&app, &[NAME]).await?;
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let last = last_badge(&app, &walk, query.cursor.as_deref())?;
    let site = operator.lists_one(query.site)?;
    let found = unknown::badges(&app.pools.reader, site, &last, limit).await?;
    let key = |row: &UnknownBadge| row.badge.clone().into_bytes();
    Ok(Answer(Page::of(&app, &walk, found.rows, found.more, key)))
}

/// The last badge of the page before; an empty one comes before all.
fn last_badge(app: &App, walk: &Walk, cursor: Option<&str>) -> Result<String, Refusal> {
    let Some(text) = cursor else { return Ok(String::new()) };
    let read = cursor::open(text)?;
    let place = walk.prove(&app.deployment, &[], &read)?;
    String::from_utf8(place.to_vec()).map_err(|_| cursor::invalid())
}

/// Whose punches of a badge are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignBadgeBody {
    /// The number, exactly as it was read.
    pub badge: String,
    /// Only punches from then on.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub from: Option<Time>,
    /// Only punches before then.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub until: Option<Time>,
    /// Who made them.
    pub employee: EmployeeId,
    /// Why, as a code: `recognised`, `confirmed`, `other` …
    #[serde(default)]
    pub reason: Option<RulingReason>,
    /// A note on each; at most 2,000 characters.
    #[serde(default)]
    pub note: Option<String>,
    /// Up to where you looked (`as_of` of a preview): punches that changed since stay as they are,
    /// and are reported.
    #[serde(default)]
    pub as_of: Option<Position>,
}

impl AssignBadgeBody {
    fn of_badge(&self) -> Result<OfBadge, Refusal> {
        let Self { badge, from, until, .. } = self;
        if badge.is_empty() || badge.chars().count() > BADGE_CHARS_MAX || badge.contains('\0') {
            let detail = "A badge's number has 1 to 64 characters.";
            return Err(Refusal::field("/badge", "invalid_value", detail));
        }
        if from.zip(*until).is_some_and(|(from, until)| from >= until) {
            let detail = "`until` is later than `from`.";
            return Err(Refusal::field("/until", "invalid_value", detail));
        }
        Ok(OfBadge { badge: badge.clone(), from: *from, until: *until })
    }
}

/// What became of the punches of a badge.
#[derive(Debug, Serialize, ToSchema)]
pub struct BadgeAssigned {
    /// How many are the person's by this.
    pub assigned: usize,
    /// How many were left as they are.
    pub left: usize,
    /// Which, and why; the first 100.
    pub left_as_they_are: Vec<LeftAsItIs>,
    /// Where the last of it stands in the ledger; null if there is nothing.
    pub position: Option<Position>,
    /// Whether more may wait: send the same again, what is done stays done.
    pub has_more: bool,
}

/// A punch that was left as it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeftAsItIs {
    pub punch: PunchId,
    /// Why, as the code of a refusal.
    pub code: &'static str,
    /// The same in words.
    pub detail: &'static str,
}

impl From<(PunchId, Left)> for LeftAsItIs {
    fn from((punch, left): (PunchId, Left)) -> Self {
        let (code, detail) = match left {
            Left::Somebodys => ("already_ruled", "It is somebody else's by now."),
            Left::Out => ("already_ruled", "A person took it out of the count meanwhile."),
            Left::Changed => ("punch_changed", "Something came to be known of it meanwhile."),
        };
        Self { punch, code, detail }
    }
}

/// Gives the punches that wait with a badge to a person, at most 2,000 at once. Each stands alone:
/// one that somebody ruled on meanwhile keeps no other from it.
#[utoipa::path(
    post, path = "/v1/unknown-badges/assign", tag = "punches", request_body = AssignBadgeBody,
    operation_id = "assignUnknownBadge",
    responses((status = 200, body = BadgeAssigned)), security(("operator_key" = [])),
)]
pub async fn assign(
    State(app): State<App>,
    operator: Operator,
    after: After,
    Json(body): Json<AssignBadgeBody>,
) -> Result<Answer<BadgeAssigned>, Refusal> {
    let of = body.of_badge()?;
    let note = note_of(body.note)?.filter(|note| !note.is_empty());
    after.reached(&app, &[NAME]).await?;
    let AssignBadgeBody { employee, reason, as_of, .. } = body;
    let assigning = Assigning { employee, reason, note, as_of };
    let author = operator.author(None);
    let (mut done, mut seen, mut last) = (Assigned::default(), 0, None);
    let has_more = loop {
        let together = u32::try_from(ASSIGNED_TOGETHER_MAX).unwrap_or(u32::MAX);
        let found = unknown::punches(&app.pools.reader, &of, last, together).await?;
        let punches: Vec<PunchId> = found.iter().map(|found| found.punch).collect();
        done.add(assign_many(&app.ledger, &punches, &assigning, &author).await?);
        if punches.len() < ASSIGNED_TOGETHER_MAX {
            break false;
        }
        seen += punches.len();
        last = found.last().map(|found| (found.at, found.punch));
        if done.assigned >= BADGE_PUNCHES_MAX || seen >= BADGE_PUNCHES_SEEN_MAX {
            break true;
        }
    };
    let Assigned { assigned, left, position, .. } = done;
    let shown = left.iter().take(LEFT_SHOWN_MAX).map(|left| (*left).into()).collect();
    let left = left.len();
    Ok(Answer(BadgeAssigned { assigned, left, left_as_they_are: shown, position, has_more }))
}

/// What it would do to a person's hours to give them the punches of a badge.
#[derive(Debug, Serialize, ToSchema)]
pub struct BadgePreview {
    /// How many punches wait.
    pub punches: u64,
    /// How many of them the days are made from: the first 2,000.
    pub previewed: usize,
    /// How many business days are touched by those.
    pub days_touched: usize,
    /// The person's hours on them, now and then; the first 31.
    pub days: Vec<DayPreview>,
    /// Up to where the ledger was looked at: give it to the assignment.
    pub as_of: Position,
}

/// What it would do to a person's hours to give them the punches of a badge; nothing is written.
#[utoipa::path(
    post, path = "/v1/unknown-badges/assign/preview", tag = "punches",
    operation_id = "previewUnknownBadgeAssignment",
    request_body = AssignBadgeBody,
    responses((status = 200, body = BadgePreview)), security(("operator_key" = [])),
)]
pub async fn preview(
    State(app): State<App>,
    _operator: Operator,
    Json(body): Json<AssignBadgeBody>,
) -> Result<Answer<BadgePreview>, Refusal> {
    let of = body.of_badge()?;
    note_of(body.note)?;
    let as_of = app.ledger.seen();
    wait_for(&app, &[NAME], as_of).await?;
    wait_for(&app, &timecards::RESTS_ON, as_of).await?;
    let pool = &app.pools.reader;
    if !punchtrail_infra::people::directory::employee_exists(pool, body.employee).await? {
        return Err(Refusal::field("/employee", "unknown", "There is no such employee."));
    }
    let most = u32::try_from(BADGE_PUNCHES_MAX).unwrap_or(u32::MAX);
    let found = unknown::punches(pool, &of, None, most).await?;
    let outcomes: Vec<Outcome> = found.iter().map(outcome).collect();
    let around = Surroundings::of(pool, body.employee, &outcomes, &[]).await?;
    let mut days = around.preview(&outcomes);
    let days_touched = days.len();
    days.truncate(PREVIEW_DAYS_MAX);
    let punches = unknown::how_many(pool, &of).await?;
    Ok(Answer(BadgePreview { punches, previewed: found.len(), days_touched, days, as_of }))
}

fn outcome(found: &UnknownPunch) -> Outcome {
    let UnknownPunch { punch, site, at, kind } = *found;
    Outcome { punch, site, counted_as: Some(CountedAs::Accepted), effective_at: at, kind }
}
