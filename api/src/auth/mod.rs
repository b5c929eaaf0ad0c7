//! Who asks: a device by its token, an operator by a key; one look-up a request.
//!
//! No token, a garbled one and nobody's get the same 401, so that nothing can be learned by trying.
//! A token of the other kind is known, and forbidden. A handler takes the one it needs as an
//! argument, and can't be reached without.

pub mod keys;

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use punchtrail_domain::{log::recorded::Actor, punch::PunchError};
use punchtrail_infra::{
    access::credentials::{self, DeviceAccess, OperatorKey},
    ledger::Ledger,
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

/// An operator.
#[derive(Debug)]
pub struct Operator {
    key: OperatorKey,
    request: RequestId,
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
        Actor::Key(self.key.id)
    }

    /// The request, for the log.
    pub fn request(&self) -> &str {
        self.request.as_str()
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
        Author {
            actor: self.actor(),
            employee: self.key.employee,
            request: Some(self.request.to_string()),
            note: note.filter(|text| !text.is_empty()).map(Note::new),
        }
    }

    /// The metadata of what it causes.
    pub fn metadata(&self) -> punchtrail_infra::ledger::Metadata {
        punchtrail_infra::ledger::Metadata::new(self.actor()).with_request(self.request.as_str())
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
            let operator = credentials::operator_of_key(&pool, &token).await?;
            Ok(operator.map(|_| Standing::Known))
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
    match credentials::operator_of_key(pool, token).await? {
        Some(_) => Err(wrong_kind()),
        None => Err(nobody(app, token)),
    }
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
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let token = bearer(&parts.headers)?;
        if let Some(key) = app.keys.operator(&app.ledger, token).await? {
            let request = parts.extensions.get::<RequestId>().ok_or_else(Refusal::internal)?;
            return Ok(Self { key, request: request.clone() });
        }
        match credentials::device_of_token(app.ledger.pool(), token).await? {
            Some(_) => Err(wrong_kind()),
            None => Err(nobody(app, token)),
        }
    }
}
