//! Sites, as an operator looks after them: added under a name of their own, found by it, listed.
//!
//! A site's zone and policy are in the ledger; its name stands beside it, in the directory.

use std::collections::HashMap;

use jiff::civil::Date;
use punchtrail_domain::{
    AggregateType, Event,
    policy::Policy,
    site::{Site, SiteCommand, SiteError, SiteRules},
    timecard::{Rules, business_day},
};
use punchtrail_protocol::{Position, SiteId, Time, spelling::normal};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::{
    ledger::{self, AppendError, ExecuteError, Ledger, Metadata, ReadError, SideWrite},
    people::directory,
    postgres::Pool,
};

/// The longest name of a site, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// A site's name as it is kept.
///
/// # Errors
/// What is wrong with it.
pub fn name(text: &str) -> Result<String, &'static str> {
    let text = normal(text.trim());
    if !(1..=NAME_CHARS_MAX).contains(&text.chars().count()) || text.chars().any(char::is_control) {
        return Err("a name has 1 to 64 characters and no control character");
    }
    if text.parse::<SiteId>().is_ok() {
        return Err("a name that looks like an id would be mistaken for one");
    }
    Ok(text)
}

/// A site as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedSite {
    pub site: SiteId,
    pub name: String,
    pub tz: String,
}

/// Why a site was not added. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum AddSiteError {
    /// Another site has the name.
    #[error("there is a site of that name already")]
    NameTaken,
    /// The site refuses its zone, or the ledger did not take it.
    #[error(transparent)]
    Ledger(ExecuteError<SiteError>),
}

impl From<ExecuteError<SiteError>> for AddSiteError {
    fn from(error: ExecuteError<SiteError>) -> Self {
        match error {
            ExecuteError::Append(AppendError::Side(sqlx::Error::Database(error)))
                if error.is_unique_violation() =>
            {
                Self::NameTaken
            }
            error => Self::Ledger(error),
        }
    }
}

/// Makes a site known under a name; where its last event stands.
///
/// # Errors
/// See [`AddSiteError`].
pub async fn add(
    ledger: &Ledger,
    site: SiteId,
    name: &str,
    tz: String,
    metadata: &Metadata,
) -> Result<Position, AddSiteError> {
    let side = || {
        let name = name.to_owned();
        Some(SideWrite::new(move |connection| {
            let name = name.clone();
            Box::pin(async move { directory::put_site(connection, site, &name).await })
        }))
    };
    let command = SiteCommand::Register { tz };
    let executed = ledger.execute_with::<Site>(&site.to_string(), command, metadata, side).await?;
    Ok(executed.position)
}

/// The site of that name or id; none when there is none.
///
/// # Errors
/// When the database is out of reach.
pub async fn named(
    executor: impl PgExecutor<'_>,
    name: &str,
) -> Result<Option<SiteId>, sqlx::Error> {
    let id = name.parse::<SiteId>().ok().map(SiteId::uuid);
    let found: Option<Uuid> =
        sqlx::query_scalar("select site from site_directory where site = $1 or name = $2")
            .bind(id)
            .bind(normal(name.trim()))
            .fetch_optional(executor)
            .await?;
    Ok(found.map(SiteId))
}

/// From when on something holds that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// A policy since ever where the site never had one of its own; all else from today on.
    Unsaid,
    /// From the first moment that there was.
    Ever,
    Day(Date),
}

impl Since {
    /// The first day that a policy holds on, at a site as it is; none: since ever.
    pub fn of_policy(self, rules: &SiteRules, now: Time) -> Option<Date> {
        match self {
            Self::Unsaid if rules.policies().is_empty() => None,
            since => since.of_zone(rules, now),
        }
    }

    /// The first day that a zone holds on; none: since ever.
    pub fn of_zone(self, rules: &SiteRules, now: Time) -> Option<Date> {
        match self {
            Self::Unsaid => Some(business_day(now, &Rules::of_site(rules))),
            Self::Ever => None,
            Self::Day(day) => Some(day),
        }
    }
}

/// What was set.
#[derive(Debug, Clone)]
pub struct Set {
    /// Where the site's last event stands.
    pub position: Position,
    /// From when on it holds; none: since ever.
    pub from: Option<Date>,
    /// What the site's rules are now.
    pub rules: SiteRules,
}

/// Sets a site's policy, made from the site's rules and the day from which it shall hold.
///
/// # Errors
/// When the site isn't known, the policy is out of range or `make` fails, or the ledger didn't take
/// it.
pub async fn set_policy<E: From<ExecuteError<SiteError>>>(
    ledger: &Ledger,
    site: SiteId,
    since: Since,
    metadata: &Metadata,
    make: impl FnOnce(&SiteRules, Option<Date>) -> Result<Policy, E>,
) -> Result<Set, E> {
    let id = site.to_string();
    let loaded = ledger.load::<Site>(&id).await.map_err(ExecuteError::Load)?;
    let rules = loaded.aggregate.rules();
    let from = since.of_policy(rules, ledger.now());
    let policy = make(rules, from)?;
    let command = SiteCommand::ChangePolicy { policy, from };
    let done = ledger.execute::<Site>(&id, command, metadata).await?;
    Ok(Set { position: done.position, from, rules: done.aggregate.rules().clone() })
}

/// Sets a site's zone.
///
/// # Errors
/// When the site or the zone isn't known, or the ledger didn't take it.
pub async fn set_zone(
    ledger: &Ledger,
    site: SiteId,
    tz: String,
    since: Since,
    metadata: &Metadata,
) -> Result<Set, ExecuteError<SiteError>> {
    let id = site.to_string();
    let loaded = ledger.load::<Site>(&id).await.map_err(ExecuteError::Load)?;
    let from = since.of_zone(loaded.aggregate.rules(), ledger.now());
    let command = SiteCommand::ChangeZone { tz, from };
    let done = ledger.execute::<Site>(&id, command, metadata).await?;
    Ok(Set { position: done.position, from, rules: done.aggregate.rules().clone() })
}

/// The rules that a site would have with another zone, and from when on; nothing is written.
///
/// # Errors
/// When the site or the zone isn't known.
pub async fn with_zone(
    ledger: &Ledger,
    site: SiteId,
    tz: String,
    since: Since,
) -> Result<(SiteRules, Option<Date>), ExecuteError<SiteError>> {
    let loaded = ledger.load::<Site>(&site.to_string()).await.map_err(ExecuteError::Load)?;
    let site = loaded.aggregate;
    let mut rules = site.rules().clone();
    let from = since.of_zone(&rules, ledger.now());
    let events = site.decide(SiteCommand::ChangeZone { tz, from });
    events.map_err(ExecuteError::Refused)?.iter().for_each(|event| rules.evolve(event));
    Ok((rules, from))
}

/// Every site, by name, with the zone that holds at `now`.
///
/// # Errors
/// When the database is out of reach, or a site's events can't be read by this program.
pub async fn list(pool: &Pool, now: Time) -> Result<Vec<ListedSite>, ReadError> {
    let sites: Vec<(Uuid, String)> =
        sqlx::query_as("select site, name from site_directory order by name, site")
            .fetch_all(pool)
            .await?;
    let ids: Vec<String> = sites.iter().map(|(site, _)| site.to_string()).collect();
    let mut rules: HashMap<SiteId, SiteRules> = HashMap::new();
    for event in ledger::streams(pool, AggregateType::Site, &ids).await? {
        if let Event::Site(site, event) = event.event()? {
            rules.entry(site).or_default().evolve(&event);
        }
    }
    let listed = |(site, name)| {
        let site = SiteId(site);
        let tz = rules.get(&site).and_then(|rules| rules.zone_at(now)).unwrap_or_default();
        ListedSite { site, name, tz: tz.to_owned() }
    };
    Ok(sites.into_iter().map(listed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn a_site_is_found_by_name_and_id_and_its_name_is_its_own() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let ledger = Ledger::open(pools.writer.clone()).await.unwrap();
        let [mill, other] = [1, 2].map(|n| SiteId(Uuid::from_u128(n)));
        let add = async |site, name, tz: &str| {
            add(&ledger, site, name, tz.to_owned(), &Metadata::default()).await
        };
        add(mill, "Mill", "Europe/Berlin").await.unwrap();
        assert!(matches!(add(other, "Mill", "UTC").await, Err(AddSiteError::NameTaken)));
        let refused = add(other, "Moon", "Moon/Base").await;
        assert!(matches!(refused, Err(AddSiteError::Ledger(ExecuteError::Refused(_)))));
        assert_eq!(named(&pools.writer, "Mill").await.unwrap(), Some(mill));
        assert_eq!(named(&pools.writer, &mill.to_string()).await.unwrap(), Some(mill));
        assert_eq!(named(&pools.writer, "Moon").await.unwrap(), None);
        let (name, tz) = ("Mill".to_owned(), "Europe/Berlin".to_owned());
        let listed = list(&pools.writer, ledger.now()).await.unwrap();
        assert_eq!(listed, [ListedSite { site: mill, name, tz }]);
        ledger.close().await;
        pools.close().await;
        database.close().await;
    }
}
