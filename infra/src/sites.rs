//! Sites, as an operator looks after them: added under a name of their own, found by it, listed.
//!
//! A site's zone and policy are in the ledger; its name stands beside it, in the directory.

use std::collections::HashMap;

use punchtrail_domain::{
    AggregateType, Event,
    site::{Site, SiteCommand, SiteError, SiteEvent},
};
use punchtrail_protocol::{Position, SiteId, spelling::normal};
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::{
    ledger::{self, AppendError, ExecuteError, Ledger, Metadata, ReadError, SideWrite},
    people::directory,
    postgres::Pool,
};

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
            .bind(normal(name))
            .fetch_optional(executor)
            .await?;
    Ok(found.map(SiteId))
}

/// Every site, by name.
///
/// # Errors
/// When the database is out of reach, or a site's events can't be read by this program.
pub async fn list(pool: &Pool) -> Result<Vec<ListedSite>, ReadError> {
    let sites: Vec<(Uuid, String)> =
        sqlx::query_as("select site, name from site_directory order by name, site")
            .fetch_all(pool)
            .await?;
    let ids: Vec<String> = sites.iter().map(|(site, _)| site.to_string()).collect();
    let mut zones = HashMap::new();
    for event in ledger::streams(pool, AggregateType::Site, &ids).await? {
        if let Event::Site(site, SiteEvent::Registered { tz }) = event.event()? {
            zones.insert(site, tz);
        }
    }
    let listed = |(site, name)| {
        let site = SiteId(site);
        ListedSite { site, name, tz: zones.remove(&site).unwrap_or_default() }
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
        let listed = list(&pools.writer).await.unwrap();
        assert_eq!(listed, [ListedSite { site: mill, name, tz }]);
        ledger.close().await;
        pools.close().await;
        database.close().await;
    }
}
