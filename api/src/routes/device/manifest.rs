//! A site's roster for its devices: the manifest, and the search in it.
//!
//! A walk of the manifest sees one version of the roster or none: the cursor carries the version
//! that the walk began with, and a page of another one is refused.

use axum::{Json as Answer, extract::State};
use punchtrail_domain::site::Site;
use punchtrail_projections::people::roster;
use punchtrail_protocol::{
    EmployeeId, SiteId,
    wire::{DevicePolicy, FoundEmployee, FoundEmployees, ManifestPage, ManifestRow},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    ask::{
        after::After,
        cursor,
        extract::{InPath, Params, page_limit, searchable},
        limits::{MANIFEST_PAGE_DEFAULT, PAGE_MAX},
        walk::Walk,
    },
    auth::ReadingDevice,
    problem::{Code, Refusal},
    quota::Counted,
    state::App,
};

/// Which page of a manifest.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ManifestQuery {
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 500 unless given.
    pub limit: Option<u32>,
}

/// The people of a site, and its policy.
#[utoipa::path(
    get, path = "/v1/sites/{site}/manifest", tag = "sync",
    operation_id = "getManifest",
    params(After, ("site" = SiteId, Path, description = "The device's site"), ManifestQuery),
    responses((status = 200, body = ManifestPage)), security(("device_token" = [])),
)]
pub async fn manifest(
    State(app): State<App>,
    device: ReadingDevice,
    InPath(site): InPath<SiteId>,
    after: After,
    walk: Walk,
    Params(query): Params<ManifestQuery>,
) -> Result<Answer<ManifestPage>, Refusal> {
    device.serves(site)?;
    let limit = page_limit(query.limit, MANIFEST_PAGE_DEFAULT, PAGE_MAX)?;
    after.reached(&app, &roster::RESTS_ON).await?;
    let place = query.cursor.as_deref().map(|text| Place::read(&app, &walk, text)).transpose()?;
    let found =
        roster::manifest(&app.pools.reader, site, place.as_ref().map(|p| p.at), limit).await?;
    if place.is_some_and(|place| place.begun_with != found.version.as_bytes()) {
        return Err(changed());
    }
    page(&app, &walk, site, found).await.map(Answer)
}

/// Where a walk stands, and the version of the roster that it was begun with.
struct Place {
    at: EmployeeId,
    begun_with: Vec<u8>,
}

impl Place {
    fn read(app: &App, walk: &Walk, text: &str) -> Result<Self, Refusal> {
        let read = cursor::open(text)?;
        let place = walk.prove(&app.deployment, &[], &read)?;
        let (employee, begun_with) = place.split_first_chunk::<16>().ok_or_else(cursor::invalid)?;
        let at = EmployeeId(uuid::Uuid::from_bytes(*employee));
        Ok(Self { at, begun_with: begun_with.to_vec() })
    }
}

fn changed() -> Refusal {
    Refusal::new(
        Code::RosterChanged,
        "The roster has changed since this walk began. Keep what you have and start over without a \
         cursor.",
    )
}

async fn page(
    app: &App,
    walk: &Walk,
    site: SiteId,
    found: roster::ManifestPage,
) -> Result<ManifestPage, Refusal> {
    let loaded = app.ledger.load::<Site>(&site.to_string()).await?.aggregate;
    let roster::ManifestPage { version, people } = found;
    let next_cursor = people.rows.last().filter(|_| people.more).map(|last| {
        let place = [last.employee.0.as_bytes(), version.as_bytes()].concat();
        walk.cursor(&app.deployment, &[], &place)
    });
    let policy = loaded.rules().policy_at(app.ledger.now());
    let row = |row: ManifestRow| ManifestRow { face: policy.takes_photos_of(row.face), ..row };
    Ok(ManifestPage {
        data: people.rows.into_iter().map(row).collect(),
        policy: DevicePolicy::from(policy),
        roster: version,
        photo_key: Some(app.photo_secret.key().to_string()),
        next_cursor,
        has_more: people.more,
    })
}

/// Whom to find.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// A name or badge as typed, 1 to 64 characters.
    pub q: String,
}

/// The people of a site whom a text may mean, best first.
#[utoipa::path(
    get, path = "/v1/sites/{site}/employees", tag = "sync",
    operation_id = "searchSiteEmployees",
    params(After, ("site" = SiteId, Path, description = "The device's site"), SearchQuery),
    responses((status = 200, body = FoundEmployees)), security(("device_token" = [])),
)]
pub async fn search(
    State(app): State<App>,
    device: ReadingDevice,
    _: Counted,
    InPath(site): InPath<SiteId>,
    after: After,
    Params(query): Params<SearchQuery>,
) -> Result<Answer<FoundEmployees>, Refusal> {
    device.serves(site)?;
    searchable(&query.q)?;
    after.reached(&app, &roster::RESTS_ON).await?;
    let loaded = app.ledger.load::<Site>(&site.to_string()).await?.aggregate;
    let policy = loaded.rules().policy_at(app.ledger.now());
    let found = roster::search(&app.pools.reader, site, &query.q).await?;
    let face = |row: &FoundEmployee| policy.takes_photos_of(row.face);
    let data = found.into_iter().map(|row| FoundEmployee { face: face(&row), ..row }).collect();
    Ok(Answer(FoundEmployees { data }))
}
