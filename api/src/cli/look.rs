//! How things and times look to people: names and local times, unless ids and UTC are asked for.
//! JSON has always ids, and times in UTC.

use std::collections::HashMap;

use clap::Args;
use jiff::tz::TimeZone;
use punchtrail_infra::{people::directory, sites};
use punchtrail_protocol::{DeviceId, EmployeeId, SiteId, Time, shown::Shown};

use super::source::Opened;

/// A time in a table: to the minute, and in which zone.
const MINUTE: &str = "%Y-%m-%d %H:%M %Z";
/// Where a second matters.
const SECOND: &str = "%Y-%m-%d %H:%M:%S %Z";
/// What stands where there is nothing.
pub(super) const NONE: &str = "-";

/// How a command shows things and times.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Look {
    /// Show ids instead of names
    #[arg(long, global = true)]
    pub ids: bool,

    /// Show times in UTC, to the millisecond, instead of by local clocks
    #[arg(long, global = true)]
    pub utc: bool,
}

impl Look {
    fn clock(self, at: Time, zone: &TimeZone, format: &str) -> String {
        match self.utc {
            true => at.to_string(),
            false => at.timestamp().to_zoned(zone.clone()).strftime(format).to_string(),
        }
    }

    /// By this machine's clock.
    pub fn here(self, at: Time) -> String {
        self.clock(at, &TimeZone::system(), MINUTE)
    }

    /// The same of what may not be.
    pub fn here_or_none(self, at: Option<Time>) -> String {
        at.map_or_else(|| NONE.to_owned(), |at| self.here(at))
    }
}

/// A cell that may be empty.
pub(super) fn or_none(cell: Option<&str>) -> String {
    cell.map_or_else(|| NONE.to_owned(), str::to_owned)
}

/// Names of all sites with their clocks, and of the people and devices that were asked for.
#[derive(Debug)]
pub(super) struct Names {
    look: Look,
    here: TimeZone,
    sites: HashMap<SiteId, (String, TimeZone)>,
    people: HashMap<EmployeeId, String>,
    devices: HashMap<DeviceId, String>,
}

impl Names {
    /// The sites'.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn of(opened: &Opened) -> anyhow::Result<Self> {
        let sites = sites::list(&opened.pools.reader, opened.ledger.now()).await?;
        let here = TimeZone::system();
        let named = |site: sites::ListedSite| {
            let zone = TimeZone::get(&site.tz).unwrap_or_else(|_| here.clone());
            (site.site, (site.name, zone))
        };
        let sites = sites.into_iter().map(named).collect();
        let look = opened.source.look;
        Ok(Self { look, here, sites, people: HashMap::new(), devices: HashMap::new() })
    }

    /// And these people's.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn with_people(
        mut self,
        opened: &Opened,
        people: impl IntoIterator<Item = EmployeeId>,
    ) -> anyhow::Result<Self> {
        let people: Vec<_> = people.into_iter().collect();
        self.people = directory::employee_names(&opened.pools.reader, &people).await?;
        Ok(self)
    }

    /// And these devices'.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn with_devices(
        mut self,
        opened: &Opened,
        devices: impl IntoIterator<Item = DeviceId>,
    ) -> anyhow::Result<Self> {
        let devices: Vec<_> = devices.into_iter().collect();
        self.devices = directory::device_names(&opened.pools.reader, &devices).await?;
        Ok(self)
    }

    /// What a site is called here.
    pub fn site(&self, site: SiteId) -> String {
        let name = self.sites.get(&site).map(|(name, _)| name.as_str());
        self.called(name, site)
    }

    /// What a person is called here.
    pub fn person(&self, employee: EmployeeId) -> String {
        self.called(self.people.get(&employee).map(String::as_str), employee)
    }

    /// What a device is called here.
    pub fn device(&self, device: DeviceId) -> String {
        self.called(self.devices.get(&device).map(String::as_str), device)
    }

    /// The name unless ids are asked for; of what has none the id.
    fn called(&self, name: Option<&str>, id: impl ToString) -> String {
        match name.filter(|_| !self.look.ids) {
            Some(name) => Shown::new(name).to_string(),
            None => id.to_string(),
        }
    }

    /// The clock of a site, or this machine's.
    pub fn zone(&self, site: Option<SiteId>) -> &TimeZone {
        site.and_then(|site| self.sites.get(&site)).map_or(&self.here, |(_, zone)| zone)
    }

    /// By a site's clock, to the minute.
    pub fn at(&self, site: Option<SiteId>, at: Time) -> String {
        self.look.clock(at, self.zone(site), MINUTE)
    }

    /// By a site's clock, to the second.
    pub fn at_second(&self, site: Option<SiteId>, at: Time) -> String {
        self.look.clock(at, self.zone(site), SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_local_and_says_whose_or_in_utc_exact() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let at: Time = "2026-11-26T18:20:05.123Z".parse().unwrap();
        let local = Look::default();
        assert_eq!(local.clock(at, &berlin, MINUTE), "2026-11-26 19:20 CET");
        assert_eq!(local.clock(at, &berlin, SECOND), "2026-11-26 19:20:05 CET");
        let utc = Look { utc: true, ..local };
        assert_eq!(utc.clock(at, &berlin, MINUTE), "2026-11-26T18:20:05.123Z");
    }
}
