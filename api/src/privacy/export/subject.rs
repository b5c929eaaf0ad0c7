//! The person themselves: the directory's entry, what they agreed to, holds, and notes about them.

use std::collections::BTreeMap;

use punchtrail_domain::{
    AggregateType, Event,
    employee::{Employee, EmployeeEvent, Supervised},
};
use punchtrail_infra::{
    ledger::streams,
    people::{
        badges::{self, HeldBadge},
        directory, faces,
    },
    rulings::notes::{self, KeptNote},
};
use punchtrail_projections::{
    people::employees::{self, EmployeeView},
    privacy::held::{self, NamedNote},
};
use punchtrail_protocol::{Digest, EmployeeId, SiteId, Time};
use serde::Serialize;

use super::{Export, ExportError};

/// Who it is, and what they agreed to.
#[derive(Serialize)]
pub(super) struct Subject {
    #[serde(flatten)]
    pub person: EmployeeView,
    /// Every badge that they hold or held, and when.
    pub badges_held: Vec<HeldBadge>,
    /// Names of the sites where they work.
    pub site_names: BTreeMap<SiteId, String>,
    pub head_covering_expected: bool,
    pub consents: Vec<Consented>,
    /// What pictures of them are compared with.
    pub references: Vec<Digest>,
    /// When everything of their face was erased last.
    pub face_erased_at: Option<Time>,
    pub holds: Vec<Held>,
}

/// They agreed that their face is compared, or no longer do.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "consent")]
pub(super) enum Consented {
    Given { notice: String, language: String, at: Time, place: Supervised },
    Withdrawn { at: Time },
}

/// A legal hold was placed or lifted.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "hold")]
pub(super) enum Held {
    Placed { at: Time },
    Lifted { at: Time },
}

/// A note about the person, and the event that it belongs to.
#[derive(Serialize)]
pub(super) struct Noted {
    #[serde(flatten)]
    pub named: NamedNote,
    /// Who wrote it, as events name an actor; none if it was erased.
    pub author: Option<String>,
    pub body: Option<String>,
}

impl Export<'_> {
    pub(super) async fn subject(&self, employee: EmployeeId) -> Result<Subject, ExportError> {
        let known = self.ledger.load::<Employee>(&employee.to_string()).await?.aggregate;
        let pool = &self.pools.reader;
        let person = employees::one(pool, employee).await?;
        let person = person.filter(|one| one.erased_at.is_none()).ok_or(ExportError::Unknown)?;
        let (mut consents, mut holds) = (Vec::new(), Vec::new());
        for event in streams(pool, AggregateType::Employee, &[employee.to_string()]).await? {
            let Event::Employee(_, event) = event.event().map_err(ledger_error)? else { continue };
            match event {
                EmployeeEvent::BiometricConsentGiven { notice, language, given_at, place } => {
                    consents.push(Consented::Given { notice, language, at: given_at, place });
                }
                EmployeeEvent::BiometricConsentWithdrawn { at } => {
                    consents.push(Consented::Withdrawn { at });
                }
                EmployeeEvent::LegalHoldPlaced { at, .. } => holds.push(Held::Placed { at }),
                EmployeeEvent::LegalHoldLifted { at, .. } => holds.push(Held::Lifted { at }),
                _ => {}
            }
        }
        let site_names = directory::site_names(pool, &person.sites).await?.into_iter().collect();
        let held = badges::list(self.ledger, employee).await?;
        Ok(Subject {
            person,
            badges_held: held.unwrap_or_default(),
            site_names,
            head_covering_expected: faces::covers_head(pool, employee).await?,
            consents,
            references: known.biometrics().references().to_vec(),
            face_erased_at: known.biometrics().erased_at(),
            holds,
        })
    }

    pub(super) async fn notes(&self, employee: EmployeeId) -> Result<Vec<Noted>, ExportError> {
        let named = held::notes(&self.pools.reader, employee).await?;
        let digests: Vec<Digest> = named.iter().map(|note| note.digest).collect();
        let mut kept = notes::kept(&self.pools.reader, &digests).await?;
        let noted = |named: NamedNote| {
            let note = kept.remove(&named.digest);
            let (author, body) = note.map(|KeptNote { author, body }| (author, body)).unzip();
            Noted { named, author, body }
        };
        Ok(named.into_iter().map(noted).collect())
    }
}

fn ledger_error(error: punchtrail_domain::aggregate::Undecodable) -> ExportError {
    ExportError::Read(error.into())
}
