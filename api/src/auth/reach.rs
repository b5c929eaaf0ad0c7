//! What a caller who has sites of their own gets to see: of objects those of their sites, and of
//! the rest that they aren't there (404). Whoever has all sites is never asked for, and costs
//! nothing.

use punchtrail_domain::{dispute::Dispute, punch::Punch};
use punchtrail_infra::{devices, rulings::disputes::worked_at_one_of};
use punchtrail_projections::{people::employees, punches::photos, rulings::quarantine};
use punchtrail_protocol::{DeviceId, Digest, DisputeId, EmployeeId, PunchId, SiteId};

use super::Operator;
use crate::{problem::Refusal, state::App};

/// Of which sites a list is: the one that was asked for, and those it has to be within.
pub type Listed<'a> = (Option<SiteId>, Option<&'a [SiteId]>);

fn there(is_there: bool) -> Result<(), Refusal> {
    if is_there { Ok(()) } else { Err(Refusal::not_found()) }
}

impl Operator {
    /// That a site is one of theirs.
    ///
    /// # Errors
    /// 404 when it isn't.
    pub fn reaches_site(&self, site: SiteId) -> Result<(), Refusal> {
        there(self.sites().is_none_or(|sites| sites.contains(&site)))
    }

    /// Of which sites a list is that they ask for: one, or all that are theirs. Of one site alone
    /// is what is read most, and indexed by it.
    ///
    /// # Errors
    /// 404 when the site isn't theirs.
    pub fn lists(&self, asked: Option<SiteId>) -> Result<Listed<'_>, Refusal> {
        let Some(sites) = self.sites() else { return Ok((asked, None)) };
        match (asked, sites) {
            (Some(site), _) => self.reaches_site(site).map(|()| (Some(site), None)),
            (None, [site]) => Ok((Some(*site), None)),
            (None, sites) => Ok((None, Some(sites))),
        }
    }

    /// The same of what is told of one site or of all: whoever has several names one of them.
    ///
    /// # Errors
    /// 404 when the site isn't theirs, 422 when none is named.
    pub fn lists_one(&self, asked: Option<SiteId>) -> Result<Option<SiteId>, Refusal> {
        match self.lists(asked)? {
            (site, None) => Ok(site),
            (_, Some(_)) => Err(Refusal::field("site", "missing_field", "Name one of your sites.")),
        }
    }

    /// That a punch was made at a site of theirs.
    ///
    /// # Errors
    /// 404 when it wasn't, or there is none.
    pub async fn reaches_punch(&self, app: &App, punch: PunchId) -> Result<(), Refusal> {
        let Some(sites) = self.sites() else { return Ok(()) };
        let punch = app.ledger.load::<Punch>(&punch.to_string()).await?.aggregate;
        there(punch.site().is_some_and(|site| sites.contains(&site)))
    }

    /// That somebody works at a site of theirs, or did.
    ///
    /// # Errors
    /// 404 when they never did, or there is nobody of that id.
    pub async fn reaches_employee(&self, app: &App, employee: EmployeeId) -> Result<(), Refusal> {
        let Some(sites) = self.sites() else { return Ok(()) };
        there(worked_at_one_of(&app.ledger, employee, sites).await?)
    }

    /// That somebody works at a site of theirs now: they are theirs to change.
    ///
    /// # Errors
    /// 404 when they don't, or there is nobody of that id.
    pub async fn answers_for(&self, app: &App, employee: EmployeeId) -> Result<(), Refusal> {
        let Some(own) = self.sites() else { return Ok(()) };
        let found = employees::one(&app.pools.reader, employee).await?;
        there(found.is_some_and(|row| row.sites.iter().any(|site| own.contains(site))))
    }

    /// That a device ever served a site of theirs: what it delivered there is theirs to see.
    ///
    /// # Errors
    /// 404 when it never did, or there is none of that id.
    pub async fn reaches_device(&self, app: &App, device: DeviceId) -> Result<(), Refusal> {
        let Some(own) = self.sites() else { return Ok(()) };
        let sites = devices::sites_of(&app.pools.reader, device).await?;
        there(sites.iter().any(|site| own.contains(site)))
    }

    /// That a device serves a site of theirs now: it is theirs to command.
    ///
    /// # Errors
    /// 404 when it doesn't, or there is none of that id.
    pub async fn commands_device(&self, app: &App, device: DeviceId) -> Result<(), Refusal> {
        let Some(own) = self.sites() else { return Ok(()) };
        let sites = devices::sites_of(&app.pools.reader, device).await?;
        there(sites.last().is_some_and(|site| own.contains(site)))
    }

    /// That a quarantined item came from a device that ever served a site of theirs.
    ///
    /// # Errors
    /// 404 when it didn't, or there is none of that id.
    pub async fn reaches_item(&self, app: &App, item: Digest) -> Result<(), Refusal> {
        if self.sites().is_none() {
            return Ok(());
        }
        let found = quarantine::one(&app.pools.reader, item).await?;
        let device = found.ok_or_else(Refusal::not_found)?.device;
        self.reaches_device(app, device).await
    }

    /// That a dispute is of a site of theirs.
    ///
    /// # Errors
    /// 404 when it isn't, or there is none of that id.
    pub async fn reaches_dispute(&self, app: &App, dispute: DisputeId) -> Result<(), Refusal> {
        let Some(sites) = self.sites() else { return Ok(()) };
        let dispute = app.ledger.load::<Dispute>(&dispute.to_string()).await?.aggregate;
        there(dispute.subject().is_some_and(|subject| sites.contains(&subject.site)))
    }

    /// The same, and that the punch that it is about is of a site of theirs as well: to settle it
    /// may rule on that.
    ///
    /// # Errors
    /// As above.
    pub async fn settles_dispute(&self, app: &App, dispute: DisputeId) -> Result<(), Refusal> {
        if self.sites().is_none() {
            return Ok(());
        }
        self.reaches_dispute(app, dispute).await?;
        let dispute = app.ledger.load::<Dispute>(&dispute.to_string()).await?.aggregate;
        match dispute.subject().and_then(|subject| subject.about.punch()) {
            Some(punch) => self.reaches_punch(app, punch).await,
            None => Ok(()),
        }
    }

    /// That a photo is of a punch at a site of theirs, or a reference photo of somebody there.
    ///
    /// # Errors
    /// 404 when it isn't.
    pub async fn reaches_photo(&self, app: &App, photo: Digest) -> Result<(), Refusal> {
        let Some(sites) = self.sites() else { return Ok(()) };
        there(photos::is_of_sites(&app.pools.reader, photo, sites).await?)
    }
}
