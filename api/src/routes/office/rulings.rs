//! What people rule on punches: one at a time, with what it would do to the hours first, or up to a
//! hundred at once for one reason.

use axum::{Json as Answer, extract::State};
use jiff::civil::Date;
use punchtrail_domain::{
    punch::{Punch, PunchCommand, PunchError, RejectionReason, RulingReason},
    timecard::CountedAs,
};
use punchtrail_infra::{
    ledger::ExecuteError,
    rulings::{self, Author, Fault, RuleError, Ruled},
};
use punchtrail_projections::punches::{
    PunchView,
    preview::{DayPreview, Outcome, Surroundings},
    timecards::{self, TimecardsError},
    timeline,
};
use punchtrail_protocol::{
    Digest, Position, PunchId, Time, capture::PunchKind, vocabulary::Reason,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ask::{
        after::After,
        extract::{InPath, Json},
        limits::BULK_RULINGS_MAX,
    },
    auth::Operator,
    problem::Refusal,
    routes::note_of,
    state::App,
};

/// What a person rules. Any ruling, also that a punch is voided, is undone by another; both stay in
/// the punch's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RulingKind {
    Accept,
    Reject,
    /// Another time or kind counts. A referred punch is accepted by it.
    Amend,
    /// The time counts that it had by the server's clock, where the device's is known to have been
    /// wrong.
    UseServerTime,
    /// It is taken out of the count, a double tap for one.
    Void,
}

/// A ruling on a punch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RulingBody {
    pub decision: RulingKind,
    /// Why, as a code; needed to reject. To reject: `wrong_person`, `duplicate`, `wrong_time`,
    /// `not_present`, `other`. Else: `confirmed`, `recognised`, `clock_wrong`, `wrong_time`,
    /// `wrong_kind`, `duplicate`, `test`, `wrong_person`, `forgotten`, `no_device`, `mistake`,
    /// `other`.
    #[serde(default)]
    pub reason: Option<String>,
    /// The time that shall count; only to amend.
    #[serde(default, deserialize_with = "crate::ask::time::read_if_any")]
    pub effective_at: Option<Time>,
    /// The kind that shall count; only to amend.
    #[serde(default)]
    pub kind: Option<PunchKind>,
    /// The punch's sequence when you looked; then nothing is ruled if something came since.
    #[serde(default)]
    pub expected_sequence: Option<u64>,
    /// A note for whoever reads the explanation; at most 2,000 characters.
    #[serde(default)]
    pub note: Option<String>,
}

/// Answer to a ruling.
#[derive(Debug, Serialize, ToSchema)]
pub struct RulingMade {
    /// Where it stands in the ledger: give it to a read as `Punchtrail-After`.
    pub position: Position,
    /// The punch's newest sequence, for the next ruling.
    pub sequence: u64,
    /// The business days that it is about, at the punch's site: two where a new time is another
    /// day's.
    #[schema(value_type = Vec<String>)]
    pub days: Vec<Date>,
}

impl From<Ruled> for RulingMade {
    fn from(Ruled { position, sequence, days }: Ruled) -> Self {
        Self { position, sequence, days }
    }
}

/// Rules on a punch.
#[utoipa::path(
    post, path = "/v1/punches/{punch}/decision", tag = "punches",
    operation_id = "decidePunch",
    params(("punch" = PunchId, Path, description = "The punch")),
    request_body = RulingBody, responses((status = 200, body = RulingMade)),
    security(("operator_key" = [])),
)]
pub async fn decide(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    Json(body): Json<RulingBody>,
) -> Result<Answer<RulingMade>, Refusal> {
    let ruling = Ruling::of(&body)?;
    operator.reaches_punch(&app, punch).await?;
    let author = operator.author(note_of(body.note)?);
    let command = |note| ruling.command(note);
    let ruled = rulings::rule(&app.ledger, punch, &author, body.expected_sequence, command).await?;
    Ok(Answer(ruled.into()))
}

/// What a ruling would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct RulingPreview {
    /// The days whose hours it changes, and the punch's own, in order.
    pub days: Vec<DayPreview>,
}

/// What a ruling would do to the hours of its days; nothing is written.
#[utoipa::path(
    post, path = "/v1/punches/{punch}/decision/preview", tag = "punches",
    operation_id = "previewPunchDecision",
    params(("punch" = PunchId, Path, description = "The punch")),
    request_body = RulingBody, responses((status = 200, body = RulingPreview)),
    security(("operator_key" = [])),
)]
pub async fn preview(
    State(app): State<App>,
    operator: Operator,
    InPath(punch): InPath<PunchId>,
    after: After,
    Json(body): Json<RulingBody>,
) -> Result<Answer<RulingPreview>, Refusal> {
    after.reached(&app, &timecards::RESTS_ON).await?;
    after.reached(&app, &[timeline::NAME]).await?;
    let ruling = Ruling::of(&body)?;
    if let Ruling::Amend { at: Some(at), .. } = ruling {
        has_come(&app, "effective_at", at)?;
    }
    let view = timeline::one(&app.pools.reader, punch).await?.ok_or_else(Refusal::not_found)?;
    operator.reaches_site(view.site)?;
    let outcome = ruling.outcome(&app, &view).await?;
    let days = days(&app, &view, &[outcome]).await?;
    Ok(Answer(RulingPreview { days: days.into_iter().flatten().collect() }))
}

/// That a time which a person would set has come, by the server's clock.
pub(super) fn has_come(app: &App, field: &'static str, at: Time) -> Result<(), Refusal> {
    let now = app.ledger.now();
    if at <= now {
        return Ok(());
    }
    Err(RuleError::<PunchError>::AtFault(Fault::InFuture { field, now }).into())
}

/// The days that each of these outcomes changes; none of a punch that is nobody's.
pub(super) async fn days(
    app: &App,
    view: &PunchView,
    outcomes: &[Outcome],
) -> Result<Vec<Vec<DayPreview>>, TimecardsError> {
    let Some(employee) = view.employee else { return Ok(vec![Vec::new(); outcomes.len()]) };
    let pool = &app.pools.reader;
    let around = Surroundings::of(pool, employee, outcomes, &[view.effective_at]).await?;
    Ok(outcomes.iter().map(|outcome| around.preview(&[*outcome])).collect())
}

/// A ruling whose parts belong together.
#[derive(Debug, Clone, Copy)]
enum Ruling {
    Accept { reason: Option<RulingReason> },
    Reject { reason: RejectionReason },
    Amend { at: Option<Time>, kind: Option<PunchKind>, reason: Option<RulingReason> },
    UseServerTime,
    Void { reason: Option<RulingReason> },
}

impl Ruling {
    fn of(body: &RulingBody) -> Result<Self, Refusal> {
        let amends = body.effective_at.is_some() || body.kind.is_some();
        if amends && body.decision != RulingKind::Amend {
            let detail = "Only an amendment gives a time or a kind.";
            return Err(Refusal::field("/effective_at", "invalid_value", detail));
        }
        Ok(match body.decision {
            RulingKind::Accept => Self::Accept { reason: reason(body)? },
            RulingKind::Reject => Self::Reject {
                reason: reason(body)?.ok_or_else(|| {
                    Refusal::field("/reason", "missing_field", "A rejection needs a reason.")
                })?,
            },
            RulingKind::Amend if !amends => {
                let detail = "An amendment gives a time, a kind, or both.";
                return Err(Refusal::field("/effective_at", "missing_field", detail));
            }
            RulingKind::Amend => {
                Self::Amend { at: body.effective_at, kind: body.kind, reason: reason(body)? }
            }
            RulingKind::UseServerTime if body.reason.is_some() => {
                let detail = "That the clock was wrong is reason enough; leave it out.";
                return Err(Refusal::field("/reason", "invalid_value", detail));
            }
            RulingKind::UseServerTime => Self::UseServerTime,
            RulingKind::Void => Self::Void { reason: reason(body)? },
        })
    }

    fn command(self, note: Option<Digest>) -> PunchCommand {
        match self {
            Self::Accept { reason } => PunchCommand::Accept { reason, note },
            Self::Reject { reason } => PunchCommand::Reject { reason, note },
            Self::Amend { at, kind, reason } => {
                PunchCommand::Amend { effective_at: at, kind, reason, note }
            }
            Self::UseServerTime => PunchCommand::UseServerTime { note },
            Self::Void { reason } => PunchCommand::Void { reason, note },
        }
    }

    /// What the punch would count as.
    async fn outcome(self, app: &App, view: &PunchView) -> Result<Outcome, Refusal> {
        let as_it_stands = Outcome {
            counted_as: match view.standing {
                standing if !standing.counts() => None,
                _ => Some(CountedAs::Accepted),
            },
            ..Outcome::accepted(view)
        };
        Ok(match self {
            Self::Accept { .. } => Outcome::accepted(view),
            Self::Reject { .. } | Self::Void { .. } => Outcome::out(view),
            Self::Amend { at, kind, .. } => Outcome {
                effective_at: at.unwrap_or(view.effective_at),
                kind: kind.unwrap_or(view.kind),
                ..as_it_stands
            },
            Self::UseServerTime => {
                let loaded = app.ledger.load::<Punch>(&view.punch.to_string()).await?;
                let no_other = || Refusal::from(ExecuteError::Refused(PunchError::NoOtherTime));
                let effective_at = loaded.aggregate.server_time().ok_or_else(no_other)?;
                has_come(app, "decision", effective_at)?;
                Outcome { effective_at, ..as_it_stands }
            }
        })
    }
}

/// The reason, of those that such a ruling can have.
fn reason<R: std::str::FromStr>(body: &RulingBody) -> Result<Option<R>, Refusal> {
    let Some(code) = &body.reason else { return Ok(None) };
    code.parse().map(Some).map_err(|_| {
        let detail = "`reason` is none that such a ruling can have.";
        Refusal::field("/reason", "invalid_value", detail)
    })
}

/// Many punches, accepted at once.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkBody {
    /// The one reason for which all of them are referred; never `face_mismatch`.
    pub referred_for: Reason,
    /// 1 to 100, no two alike.
    pub items: Vec<BulkItem>,
    /// Why, as a code, as in a single ruling.
    #[serde(default)]
    pub reason: Option<RulingReason>,
    /// A note on each; at most 2,000 characters.
    #[serde(default)]
    pub note: Option<String>,
}

/// One of them, as you saw it.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkItem {
    pub punch: PunchId,
    /// The punch's sequence when you looked.
    pub expected_sequence: u64,
}

/// What became of each, in the order asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkRuled {
    pub data: Vec<BulkResult>,
}

/// What became of one.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkResult {
    pub punch: PunchId,
    /// Whether it is accepted by this.
    pub accepted: bool,
    /// Where the ruling stands in the ledger; null if there is none.
    pub position: Option<Position>,
    /// Why not, as the code of a refusal.
    pub code: Option<&'static str>,
    /// The same in words.
    pub detail: Option<String>,
}

/// Accepts punches that are referred for one and the same reason. Each stands alone: one that can't
/// be accepted keeps no other from it.
#[utoipa::path(
    post, path = "/v1/reviews/accept", tag = "reviews",
    operation_id = "acceptReviews",
    request_body = BulkBody, responses((status = 200, body = BulkRuled)),
    security(("operator_key" = [])),
)]
pub async fn accept_many(
    State(app): State<App>,
    operator: Operator,
    Json(body): Json<BulkBody>,
) -> Result<Answer<BulkRuled>, Refusal> {
    body.check()?;
    let note = note_of(body.note.clone())?;
    let mut data = Vec::with_capacity(body.items.len());
    for item in &body.items {
        // A note of its own for each: no two events share one.
        let author = operator.author(note.clone());
        let accepted = async {
            operator.reaches_punch(&app, item.punch).await?;
            accept_one(&app, &author, &body, *item).await
        };
        data.push(match accepted.await {
            Ok(ruled) => BulkResult {
                punch: item.punch,
                accepted: true,
                position: Some(ruled.position),
                code: None,
                detail: None,
            },
            Err(refusal) if refusal.code().status().is_server_error() => return Err(refusal),
            Err(refusal) => BulkResult {
                punch: item.punch,
                accepted: false,
                position: None,
                code: Some(refusal.code().as_str()),
                detail: Some(refusal.detail().to_owned()),
            },
        });
    }
    Ok(Answer(BulkRuled { data }))
}

impl BulkBody {
    fn check(&self) -> Result<(), Refusal> {
        if self.referred_for == Reason::FaceMismatch {
            let detail = "A face that was not recognised is looked at one by one.";
            return Err(Refusal::field("/referred_for", "invalid_value", detail));
        }
        let mut punches: Vec<PunchId> = self.items.iter().map(|item| item.punch).collect();
        punches.sort_unstable();
        punches.dedup();
        if punches.len() != self.items.len() || !(1..=BULK_RULINGS_MAX).contains(&punches.len()) {
            let detail = "`items` has 1 to 100 punches, no two alike.";
            return Err(Refusal::field("/items", "invalid_value", detail));
        }
        Ok(())
    }
}

async fn accept_one(
    app: &App,
    author: &Author,
    body: &BulkBody,
    item: BulkItem,
) -> Result<Ruled, Refusal> {
    let loaded = app.ledger.load::<Punch>(&item.punch.to_string()).await?;
    // Whoever came first is named before what follows from it.
    let alone = loaded.sequence != item.expected_sequence
        || loaded.aggregate.referred_for() == [body.referred_for];
    if !alone {
        return Err(Refusal::new(
            crate::problem::Code::Conflict,
            "It isn't referred for that reason alone; nothing was changed. Look at it by itself.",
        ));
    }
    let command = |note| PunchCommand::Accept { reason: body.reason, note };
    let expected = Some(item.expected_sequence);
    rulings::rule(&app.ledger, item.punch, author, expected, command)
        .await
        .map_err(|error: RuleError<_>| error.into())
}
