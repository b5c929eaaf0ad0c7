//! What waits for a person's ruling: the list, and all that it takes to rule on one.

use std::collections::HashMap;

use axum::{Json as Answer, extract::State};
use jiff::SignedDuration;
use punchtrail_domain::{
    employee::Employee,
    explanation::{Step, Verification, What, reason_in_words},
    punch::{Anomaly, Check, Comparison, Picture, Punch},
};
use punchtrail_projections::{
    engine::page::Order,
    punches::{
        PunchView,
        preview::{DayPreview, Outcome},
        timecards,
        timeline::{self, Filter as Around},
    },
    rulings::reviews::{self, Filter, Review},
    sites,
};
use punchtrail_protocol::{
    Digest, EmployeeId, PunchId, SiteId, Time, guidance::Guidance, vocabulary::Reason,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    persons::{PersonDays, days_of},
    punches, rulings,
};
use crate::{
    ask::{
        after::After,
        extract::{InPath, Params, page_limit},
        limits::{PAGE_DEFAULT, PAGE_MAX},
        page::{Page, place},
        walk::Walk,
    },
    auth::Operator,
    problem::Refusal,
    state::App,
};

/// How far around a punch the same person's others are shown.
const NEIGHBOURS_WITHIN: SignedDuration = SignedDuration::from_hours(24);
/// The most of them on each side.
const NEIGHBOURS_MAX: u32 = 10;

/// Which reviews.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReviewQuery {
    pub site: Option<SiteId>,
    pub employee: Option<EmployeeId>,
    /// Only those that are referred for this reason, and perhaps others.
    #[param(inline)]
    pub reason: Option<Reason>,
    /// Only those referred before then.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub before: Option<Time>,
    /// Only those that were escalated (`true`), or only those that weren't (`false`).
    pub escalated: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

/// A punch that waits for a ruling.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReviewView {
    #[serde(flatten)]
    pub punch: PunchView,
    /// Give it as `expected_sequence` with the ruling.
    pub sequence: u64,
    /// Why it waits, in words.
    pub doubts: Vec<DoubtView>,
    /// Since when it waits, by the server's clock.
    pub referred_at: Time,
    /// When it is escalated if nobody has ruled, as the site's policy has it now.
    pub due_at: Time,
    /// When it was escalated, if it was.
    pub escalated_at: Option<Time>,
}

/// Why a punch waits.
#[derive(Debug, Serialize, ToSchema)]
pub struct DoubtView {
    pub code: Reason,
    /// The code in words, in English.
    pub text: String,
}

/// The punches that wait for a ruling, those that wait longest first.
#[utoipa::path(
    get, path = "/v1/reviews", tag = "reviews", params(After, ReviewQuery),
    operation_id = "listReviews",
    responses((status = 200, body = Page<ReviewView>)), security(("operator_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    after: After,
    walk: Walk,
    Params(query): Params<ReviewQuery>,
) -> Result<Answer<Page<ReviewView>>, Refusal> {
    after.reached(&app, &[reviews::NAME, timeline::NAME]).await?;
    let limit = page_limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let place = place(&app, &walk, query.cursor.as_deref())?;
    let (site, within) = operator.lists(query.site)?;
    let ReviewQuery { employee, reason, before, escalated, .. } = query;
    let filter = Filter { site, within, employee, reason, before, escalated };
    let found = reviews::list(&app.pools.reader, &filter, place, limit).await?;
    let next = found.rows.last().map(Review::place);
    let rows = shown(&app, &operator, found.rows).await?;
    // A row may be left out; the place is that of the last one read.
    let mut page = Page::of(&app, &walk, rows, false, |_| []);
    if let Some(next) = next.filter(|_| found.more) {
        page.next_cursor = Some(walk.cursor(&app.deployment, &[], &next));
        page.has_more = true;
    }
    Ok(Answer(page))
}

/// The reviews with their punches. One whose punch the timeline doesn't have yet is left to the
/// next look.
async fn shown(
    app: &App,
    operator: &Operator,
    found: Vec<Review>,
) -> Result<Vec<ReviewView>, Refusal> {
    let ids: Vec<PunchId> = found.iter().map(|review| review.punch).collect();
    let mut views = timeline::several(&app.pools.reader, &ids).await?;
    punches::name(app, operator, &mut views).await?;
    let mut views: HashMap<PunchId, PunchView> =
        views.into_iter().map(|view| (view.punch, view)).collect();
    let deadlines = deadlines(app).await?;
    let view = |review: Review| {
        let punch = views.remove(&review.punch)?;
        let within = deadlines.get(&review.site).copied().unwrap_or_default();
        Some(ReviewView {
            punch,
            sequence: review.sequence,
            doubts: review.reasons.into_iter().map(doubt).collect(),
            referred_at: review.referred_at,
            due_at: review.referred_at.plus_millis(i64::from(within) * 1_000),
            escalated_at: review.escalated_at,
        })
    };
    Ok(found.into_iter().filter_map(view).collect())
}

fn doubt(code: Reason) -> DoubtView {
    DoubtView { code, text: reason_in_words(code.as_str()) }
}

/// Within how many seconds each site wants reviews ruled on.
async fn deadlines(app: &App) -> Result<HashMap<SiteId, u32>, Refusal> {
    let policies = sites::policies(&app.pools.reader, app.ledger.now()).await?;
    Ok(policies.into_iter().map(|(site, policy)| (site, policy.review_deadline_s)).collect())
}

/// Whose counts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CountsQuery {
    pub site: Option<SiteId>,
}

/// How many wait.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReviewCounts {
    /// Punches that wait.
    pub open: u64,
    /// For each reason; a punch that waits for two is in both.
    pub by_reason: Vec<ReasonCount>,
}

/// How many wait for a reason.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReasonCount {
    pub reason: Reason,
    pub open: u64,
}

/// How many punches wait for a ruling, by reason.
#[utoipa::path(
    get, path = "/v1/reviews/counts", tag = "reviews", params(After, CountsQuery),
    operation_id = "countReviews",
    responses((status = 200, body = ReviewCounts)), security(("operator_key" = [])),
)]
pub async fn counts(
    State(app): State<App>,
    operator: Operator,
    after: After,
    Params(query): Params<CountsQuery>,
) -> Result<Answer<ReviewCounts>, Refusal> {
    after.reached(&app, &[reviews::NAME]).await?;
    let (site, within) = operator.lists(query.site)?;
    let sites = site.as_ref().map(std::slice::from_ref).or(within);
    let counts = reviews::counts(&app.pools.reader, sites).await?;
    let count = |(reason, open)| ReasonCount { reason, open };
    let by_reason = counts.by_reason.into_iter().map(count).collect();
    Ok(Answer(ReviewCounts { open: counts.open, by_reason }))
}

/// Everything that it takes to rule on a punch.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReviewDetail {
    #[serde(flatten)]
    pub review: ReviewView,
    /// What happened to it, in sentences.
    pub sentences: Vec<String>,
    /// The punch's pictures, the earliest first.
    pub pictures: Vec<PictureView>,
    /// Reference photos of the worker that stand now, the newest last.
    #[schema(value_type = Vec<String>)]
    pub references: Vec<Digest>,
    /// The same worker's punches within a day of it, and those of the candidates, in order of time.
    pub neighbours: Vec<PunchView>,
    /// What each ruling would do to the hours of its days.
    pub previews: Previews,
    /// Those who may have made it, where that is doubtful: whom it was recorded of, and who held
    /// the badge. What it would do to the hours of each if it were found to be theirs.
    pub candidates: Vec<Candidate>,
}

/// Somebody who may have made a punch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Candidate {
    pub why: CandidateWhy,
    #[serde(flatten)]
    pub person: PersonDays,
}

/// Why somebody may have made a punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CandidateWhy {
    /// The device knew the worker as them.
    Recorded,
    /// They held the badge when the punch was made.
    HeldBadge,
}

/// A picture of a punch.
#[derive(Debug, Serialize, ToSchema)]
pub struct PictureView {
    /// 0 for the capture's own frame.
    pub attempt: u32,
    /// To be had from `/v1/photos`.
    #[schema(value_type = String)]
    pub photo: Digest,
    /// Whether its bytes are here to be looked at.
    pub is_kept: bool,
    /// Who checked it, by which measures; null before a check.
    pub check: Option<Check>,
    /// What it came to beside a reference photo; null where nothing was compared.
    pub comparison: Option<Comparison>,
    /// What the worker was told.
    pub guidance: Vec<Guidance>,
}

/// What each ruling would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Previews {
    pub accept: Vec<DayPreview>,
    pub reject: Vec<DayPreview>,
    /// Null where the server knows no other time.
    pub use_server_time: Option<ServerTimePreview>,
}

/// What it would do to let the time by the server's clock count.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerTimePreview {
    /// The time that would count.
    pub effective_at: Time,
    pub days: Vec<DayPreview>,
}

/// Everything that it takes to rule on one punch; 404 `not_found` if it doesn't wait for a ruling.
#[utoipa::path(
    get, path = "/v1/reviews/{punch}", tag = "reviews",
    operation_id = "getReview",
    params(After, ("punch" = PunchId, Path, description = "The punch")),
    responses((status = 200, body = ReviewDetail)), security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    after: After,
) -> Result<Answer<ReviewDetail>, Refusal> {
    after.reached(&app, &[reviews::NAME, timeline::NAME]).await?;
    after.reached(&app, &timecards::RESTS_ON).await?;
    let found = reviews::one(&app.pools.reader, punch).await?.ok_or_else(Refusal::not_found)?;
    operator.reaches_site(found.site)?;
    let review = shown(&app, &operator, vec![found]).await?.pop();
    let review = review.ok_or_else(Refusal::not_found)?;
    let loaded = app.ledger.load::<Punch>(&punch.to_string()).await?.aggregate;
    let explanation = app.explanations.explain(punch, operator.sees_names()).await?;
    let explanation = explanation.ok_or_else(Refusal::not_found)?;
    let candidates = candidates(&app, &operator, &review.punch, &loaded).await?;
    let (neighbours, references) = around(&app, &operator, &review.punch, &candidates).await?;
    let previews = previews(&app, &review.punch, &loaded).await?;
    let steps = &explanation.steps;
    let pictures = loaded.pictures().attempts().iter();
    let pictures = pictures.map(|(attempt, picture)| picture_view(*attempt, picture, steps));
    let pictures = pictures.collect();
    Ok(Answer(ReviewDetail {
        review,
        sentences: explanation.sentences,
        pictures,
        references,
        neighbours,
        previews,
        candidates,
    }))
}

fn picture_view(attempt: u32, picture: &Picture, steps: &[Step]) -> PictureView {
    let found = steps.iter().rev().find_map(|step| match &step.what {
        What::Verified(Verification::Matched { check, comparison })
            if check.check.attempt == attempt =>
        {
            Some((check.check.clone(), Some(*comparison), Vec::new()))
        }
        What::Verified(Verification::Missed { check, guidance, comparison, .. })
            if check.check.attempt == attempt =>
        {
            Some((check.check.clone(), *comparison, guidance.clone()))
        }
        _ => None,
    });
    let (check, comparison, guidance) = match found {
        Some((check, comparison, guidance)) => (Some(check), comparison, guidance),
        None => (None, None, Vec::new()),
    };
    PictureView {
        attempt,
        photo: picture.photo,
        is_kept: picture.received_at.is_some() && picture.erased.is_none(),
        check,
        comparison,
        guidance,
    }
}

/// Those who may have made a punch of which the badge was somebody else's by then.
async fn candidates(
    app: &App,
    operator: &Operator,
    view: &PunchView,
    punch: &Punch,
) -> Result<Vec<Candidate>, Refusal> {
    let other = |anomaly: &Anomaly| match anomaly {
        Anomaly::OtherHolder { holder } => Some(*holder),
        _ => None,
    };
    let Some(holder) = punch.anomalies().iter().find_map(other) else { return Ok(Vec::new()) };
    let recorded = view.employee.map(|who| (CandidateWhy::Recorded, who));
    let held = holder.map(|who| (CandidateWhy::HeldBadge, who));
    let mut candidates = Vec::with_capacity(2);
    for (why, who) in recorded.into_iter().chain(held) {
        let person = days_of(app, operator, who, (view, Outcome::found(view))).await?;
        candidates.push(Candidate { why, person });
    }
    Ok(candidates)
}

/// The same worker's punches around one, with those of the candidates, and the photos that pictures
/// of the worker are compared with.
async fn around(
    app: &App,
    operator: &Operator,
    view: &PunchView,
    candidates: &[Candidate],
) -> Result<(Vec<PunchView>, Vec<Digest>), Refusal> {
    let mut people: Vec<EmployeeId> = view.employee.into_iter().collect();
    people.extend(candidates.iter().map(|candidate| candidate.person.employee));
    people.sort_unstable();
    people.dedup();
    let mut neighbours = Vec::new();
    for who in people {
        neighbours.extend(neighbours_of(app, operator, view, who).await?);
    }
    neighbours.sort_by_key(|row| (row.effective_at, row.punch));
    punches::name(app, operator, &mut neighbours).await?;
    let references = match view.employee {
        Some(employee) => {
            let person = app.ledger.load::<Employee>(&employee.to_string()).await?.aggregate;
            person.biometrics().references().to_vec()
        }
        None => Vec::new(),
    };
    Ok((neighbours, references))
}

/// A person's punches around one.
async fn neighbours_of(
    app: &App,
    operator: &Operator,
    view: &PunchView,
    employee: EmployeeId,
) -> Result<Vec<PunchView>, Refusal> {
    let within_ms = i64::try_from(NEIGHBOURS_WITHIN.as_millis()).unwrap_or(i64::MAX);
    let mut neighbours = Vec::new();
    let (site, within) = operator.lists(None)?;
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let (from, to) = match order {
            Order::NewestFirst => (view.effective_at.plus_millis(-within_ms), view.effective_at),
            Order::OldestFirst => {
                (view.effective_at, view.effective_at.plus_millis(within_ms.saturating_add(1)))
            }
        };
        let filter = Around {
            employee: Some(employee),
            site,
            within,
            from: Some(from),
            to: Some(to),
            ..Around::default()
        };
        let found =
            timeline::list(&app.pools.reader, &filter, order, None, NEIGHBOURS_MAX + 1).await?;
        neighbours.extend(found.rows.into_iter().filter(|row| row.punch != view.punch));
    }
    Ok(neighbours)
}

async fn previews(app: &App, view: &PunchView, punch: &Punch) -> Result<Previews, Refusal> {
    let server_time = punch.server_time();
    let mut outcomes = vec![Outcome::accepted(view), Outcome::out(view)];
    outcomes.extend(
        server_time.map(|effective_at| Outcome { effective_at, ..Outcome::accepted(view) }),
    );
    let mut days = rulings::days(app, view, &outcomes).await?.into_iter();
    let mut next = || days.next().unwrap_or_default();
    Ok(Previews {
        accept: next(),
        reject: next(),
        use_server_time: server_time
            .map(|effective_at| ServerTimePreview { effective_at, days: next() }),
    })
}
