//! Opening disputes: what holds for a device and for people alike. Texts are checked here, and
//! never stand in a refusal or a log.

use punchtrail_domain::{
    dispute::{Evidence, Subject},
    log::recorded::Actor,
};
use punchtrail_infra::{
    access::keys,
    people::directory,
    rulings::disputes::{self, ChangeError, Opened, Opening},
    rulings::{Author, Fault, RuleError, notes::Note},
};
use punchtrail_projections::explanations;
use punchtrail_protocol::{
    DisputeId, EmployeeId, PunchId, SiteId,
    dispute::{About, Day, DisputeCause, DisputeState, check_text},
    shown::Shown,
};

use crate::{
    problem::{Code, Refusal, sentence},
    state::App,
};

/// How much of a name stands in a refusal.
const NAME_SHOWN_CHARS_MAX: usize = 64;

/// A dispute as it was asked for.
#[derive(Debug)]
pub struct Asked {
    pub dispute: DisputeId,
    pub site: SiteId,
    pub employee: EmployeeId,
    pub punch: Option<PunchId>,
    pub day: Option<Day>,
    pub cause: DisputeCause,
    pub text: String,
}

impl Asked {
    /// What is disputed, by every rule that needs no look at anything.
    ///
    /// # Errors
    /// With the field at fault.
    pub fn subject(&self) -> Result<Subject, Refusal> {
        let wrong =
            |pointer: &str, detail: &'static str| Refusal::field(pointer, "invalid_value", detail);
        if !self.dispute.is_v7() {
            return Err(wrong("/dispute", "A dispute's id is a UUID of version 7."));
        }
        check_text(&self.text).map_err(|error| {
            let detail = format!("The text can't be taken: {error}. Nothing was kept.");
            Refusal::field("/text", "invalid_value", detail)
        })?;
        let about = match (self.punch, self.day) {
            (Some(punch), None) => About::Punch(punch),
            (None, Some(day)) => About::Day(day),
            _ => return Err(wrong("/punch", "Give `punch` or `day`, exactly one of the two.")),
        };
        let Self { site, employee, cause, .. } = *self;
        if !cause.fits(about) {
            return Err(wrong(
                "/cause",
                "A missing punch is about a day; a wrong time, a wrong kind, one that isn't mine \
                 and a rejected one are about a punch.",
            ));
        }
        Ok(Subject { site, employee, about, cause })
    }

    /// The text as its author's note; none if it is empty.
    pub fn note(&self) -> Option<Note> {
        Some(self.text.clone()).filter(|text| !text.is_empty()).map(Note::new)
    }
}

/// The dispute that stands already, if it is the same.
///
/// # Errors
/// When another one stands under its id.
pub async fn standing(
    app: &App,
    asked: &Asked,
    subject: Subject,
) -> Result<Option<Opened>, Refusal> {
    let opening = Opening { dispute: asked.dispute, subject, evidence: None };
    Ok(disputes::opened(&app.ledger, &opening, &asked.text).await?)
}

/// Opens a dispute, with what is known of its day.
///
/// # Errors
/// When its day has not begun, or the ledger does not take it.
pub async fn open(
    app: &App,
    asked: &Asked,
    subject: Subject,
    author: &Author,
) -> Result<Opened, Refusal> {
    begun(app, subject).await?;
    let evidence = evidence(app, &subject).await?;
    let opening = Opening { dispute: asked.dispute, subject, evidence };
    Ok(disputes::open(&app.ledger, &opening, &asked.text, author).await?)
}

/// That the day has begun where it is disputed.
async fn begun(app: &App, subject: Subject) -> Result<(), Refusal> {
    let Some(day) = subject.about.day() else { return Ok(()) };
    if disputes::has_begun(&app.ledger, subject.site, day).await? {
        return Ok(());
    }
    Err(Refusal::field(
        "/day",
        "invalid_value",
        "The day has not begun yet where the dispute is about. Nothing was kept; send it again \
         once it has.",
    ))
}

/// What is known of the day that a dispute is about; none if it is about a punch.
///
/// # Errors
/// When it can't be read now.
pub async fn evidence(app: &App, subject: &Subject) -> Result<Option<Evidence>, Refusal> {
    let Some(day) = subject.about.day() else { return Ok(None) };
    Ok(explanations::evidence(&app.pools.reader, subject.employee, day).await?)
}

/// The refusal of a change, naming whoever was there first.
pub async fn refused(app: &App, error: ChangeError) -> Refusal {
    match error {
        error @ ChangeError::Own => Refusal::new(Code::OwnRecord, sentence(&error)),
        ChangeError::Dispute(error) => error.into(),
        // A dispute's settlement has its own names for what a punch is added with.
        ChangeError::Punch(RuleError::AtFault(fault @ Fault::InFuture { .. })) => {
            Refusal::field("/effective_at", "invalid_value", sentence(&fault))
        }
        ChangeError::Punch(RuleError::AtFault(fault @ Fault::NotV7)) => {
            Refusal::field("/by_punch", "invalid_value", sentence(&fault))
        }
        ChangeError::Punch(error) => error.into(),
        ChangeError::AlreadyRuled { by, at, state } => {
            let who = match who(app, by.as_ref()).await {
                Ok(who) => who,
                Err(refusal) => return refusal,
            };
            let did = match state {
                DisputeState::Open => "opened it",
                DisputeState::Answered => "answered it",
                DisputeState::Resolved => "settled it",
                DisputeState::Reopened => "took it up again",
            };
            let what = format!(
                "{who} {did} at {at}, so it isn't what you saw. Nothing of this was written; look \
                 at it again."
            );
            Refusal::new(Code::AlreadyRuled, what)
        }
    }
}

/// Whoever caused something, by a name where there is one.
async fn who(app: &App, actor: Option<&Actor>) -> Result<String, Refusal> {
    let pool = &app.pools.reader;
    let name = match actor {
        Some(Actor::Key(id) | Actor::User(id)) => {
            keys::operator_names(pool, &[*id]).await?.remove(id)
        }
        Some(Actor::Device(id)) => directory::device_names(pool, &[*id]).await?.remove(id),
        _ => None,
    };
    Ok(match (name, actor) {
        (Some(name), _) => format!("“{}”", Shown::new(&name).within(NAME_SHOWN_CHARS_MAX)),
        (None, Some(actor)) => actor.to_string(),
        (None, None) => "Somebody".to_owned(),
    })
}
