//! Who asks: a device by its token, an operator by a key or a session; one look-up a request.
//!
//! No token, a garbled one and nobody's get the same 401, so that nothing can be learned by trying.
//! A token of the other kind is known, and forbidden. A handler takes the one it needs as an
//! argument, and can't be reached without; what an operator may call is settled before that
//! ([`check`]), by the one table of who may call what ([`table`]).

pub mod check;
pub mod cookies;
pub mod known_keys;
pub mod origin;
pub mod reach;
pub mod table;

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use punchtrail_domain::{log::recorded::Actor, punch::PunchError};
use punchtrail_infra::{
    access::{
        credentials::{self, DeviceAccess},
        keys::{self, OperatorKey},
        roles::Role,
        sessions::{self, SignedIn},
        trail::Doer,
    },
    ledger::Ledger,
    people::PeopleError,
    postgres::{DatabaseError, Pool},
    rulings::{Author, notes::Note},
};
use punchtrail_protocol::{DeviceId, EmployeeId, SiteId};

use crate::{
    door::{
        envelope::RequestId,
        gate::{Gate, Standing, bearer},
    },
    problem::{Code, Refusal},
    state::App,
};

/// A device, revoked or not: it may deliver.
#[derive(Debug)]
pub struct DeliveringDevice(DeviceAccess);

/// A device that is not revoked: it may read, too.
#[derive(Debug)]
pub struct ReadingDevice(DeviceAccess);

/// An operator: somebody who is signed in, or whoever has a key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Operator(Arc<Caller>);

#[derive(Debug)]
struct Caller {
    of: Who,
    request: RequestId,
    address: IpAddr,
}

#[derive(Debug)]
enum Who {
    Key(Arc<OperatorKey>),
    User(SignedIn),
}

impl DeliveringDevice {
    /// What was found of it.
    pub fn access(&self) -> &DeviceAccess {
        &self.0
    }

    /// The device.
    pub fn id(&self) -> DeviceId {
        self.0.device
    }

    /// The site that it delivers for.
    ///
    /// # Errors
    /// 404 when the device was never assigned to it.
    pub fn delivers_for(&self, site: SiteId) -> Result<(), Refusal> {
        if self.0.sites.contains(&site) { Ok(()) } else { Err(Refusal::not_found()) }
    }

    /// Its present site.
    ///
    /// # Errors
    /// 404 when it has none.
    pub fn present_site(&self) -> Result<SiteId, Refusal> {
        self.0.sites.last().copied().ok_or_else(Refusal::not_found)
    }
}

impl ReadingDevice {
    /// The device.
    pub fn id(&self) -> DeviceId {
        self.0.device
    }

    /// That it serves the site now: a device that was moved reads nothing more of the people it
    /// left.
    ///
    /// # Errors
    /// 404 when it doesn't.
    pub fn serves(&self, site: SiteId) -> Result<(), Refusal> {
        if self.0.sites.last() == Some(&site) { Ok(()) } else { Err(Refusal::not_found()) }
    }
}

impl Operator {
    /// As events name it.
    pub fn actor(&self) -> Actor {
        match &self.0.of {
            Who::Key(key) => Actor::Key(key.id),
            Who::User(user) => Actor::User(user.user.0),
        }
    }

    /// The request, for the log.
    pub fn request(&self) -> &str {
        self.0.request.as_str()
    }

    /// As the trail names it, with where it asks from.
    pub fn doer(&self) -> Doer {
        Doer {
            actor: Some(self.actor()),
            address: Some(self.0.address),
            request: Some(self.request().to_owned()),
        }
    }

    /// Who is signed in.
    ///
    /// # Errors
    /// 403 for a key, which is nobody.
    pub fn user(&self) -> Result<&SignedIn, Refusal> {
        match &self.0.of {
            Who::User(user) => Ok(user),
            Who::Key(_) => Err(wrong_kind()),
        }
    }

    /// Their sites; none for whoever has all.
    pub fn sites(&self) -> Option<&[SiteId]> {
        match &self.0.of {
            Who::Key(key) => key.sites.as_deref(),
            Who::User(user) => user.role.has_sites().then_some(user.sites.as_slice()),
        }
    }

    /// Whether they see workers' names, and what was written about them.
    pub fn sees_names(&self) -> bool {
        match &self.0.of {
            Who::Key(key) => match &key.scopes {
                Some(scopes) => scopes.iter().any(|scope| scope == table::NAMES_SCOPE),
                None => true,
            },
            Who::User(user) => user.role != Role::Auditor || user.is_granted_names,
        }
    }

    /// That they may see what shows people as they are: photos, texts.
    ///
    /// # Errors
    /// 403 when they may not.
    pub fn may_see_people(&self) -> Result<(), Refusal> {
        match self.sees_names() {
            true => Ok(()),
            false => Err(Refusal::new(
                Code::Forbidden,
                "Names, photos and texts about people are shown to an auditor by an admin's grant \
                 only, and to a key by the scope names:read.",
            )),
        }
    }

    /// Why something about a person wasn't done, without who it is whom they may not know of.
    pub fn told(&self, error: PeopleError) -> PeopleError {
        match error {
            PeopleError::Held { number, mut holder } => {
                if self.sites().is_some() || !self.sees_names() {
                    holder.name = None;
                }
                if self.sites().is_some() {
                    holder.employee = None;
                }
                PeopleError::Held { number, holder }
            }
            error => error,
        }
    }

    /// That it isn't themselves whom an operator decides on.
    ///
    /// # Errors
    /// 403 `own_record` when it is.
    pub fn decides_on(&self, employee: EmployeeId) -> Result<(), Refusal> {
        self.author(None).may_rule_on::<PunchError>(Some(employee)).map_err(Refusal::from)
    }

    /// As the author of a ruling.
    pub fn author(&self, note: Option<String>) -> Author {
        let employee = match &self.0.of {
            Who::Key(key) => key.employee,
            Who::User(user) => user.employee,
        };
        Author {
            actor: self.actor(),
            employee,
            request: Some(self.request().to_owned()),
            note: note.filter(|text| !text.is_empty()).map(Note::new),
        }
    }

    /// The metadata of what it causes.
    pub fn metadata(&self) -> punchtrail_infra::ledger::Metadata {
        punchtrail_infra::ledger::Metadata::new(self.actor()).with_request(self.request())
    }
}

fn wrong_kind() -> Refusal {
    Refusal::new(Code::Forbidden, "This token is good, but not for this.")
}

/// The gate before the lines: a device or an operator of this deployment.
pub fn gate(ledger: &Ledger) -> Gate {
    let pool = ledger.pool().clone();
    Gate::new(Arc::new(move |token| {
        let pool = pool.clone();
        Box::pin(async move {
            if let Some(access) = credentials::device_of_token(&pool, &token).await? {
                return Ok(Some(standing(&access)));
            }
            let is_known = is_a_person(&pool, &token).await?;
            Ok(is_known.then_some(Standing::Known))
        })
    }))
}

fn standing(access: &DeviceAccess) -> Standing {
    if access.revoked { Standing::Revoked } else { Standing::Known }
}

async fn device(app: &App, headers: &HeaderMap) -> Result<DeviceAccess, Refusal> {
    let (token, pool) = (bearer(headers)?, app.ledger.pool());
    if let Some(access) = credentials::device_of_token(pool, token).await? {
        app.door.gate.found(token, Some(standing(&access)));
        return Ok(access);
    }
    match is_a_person(pool, token).await? {
        true => Err(wrong_kind()),
        false => Err(nobody(app, token)),
    }
}

/// Whether a token is a person's: a key, or a session.
async fn is_a_person(pool: &Pool, token: &str) -> Result<bool, DatabaseError> {
    Ok(keys::operator_of_key(pool, token).await?.is_some()
        || sessions::signed_in(pool, token).await?.is_some())
}

fn nobody(app: &App, token: &str) -> Refusal {
    app.door.gate.found(token, None);
    Refusal::unauthenticated()
}

impl FromRequestParts<App> for DeliveringDevice {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        device(app, &parts.headers).await.map(Self)
    }
}

impl FromRequestParts<App> for ReadingDevice {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let access = device(app, &parts.headers).await?;
        if access.revoked {
            return Err(Refusal::new(
                Code::DeviceRevoked,
                "This device was revoked. It may still deliver what it holds, and reads nothing \
                 more; enrol it anew to use it.",
            ));
        }
        // For what is counted by it (`crate::quota`).
        parts.extensions.insert(access.device);
        Ok(Self(access))
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Refusal;
    /// As the check before the handler found it; a route without that check is nobody's.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(wrong_kind)
    }
}
