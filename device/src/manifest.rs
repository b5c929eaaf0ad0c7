//! Walking the manifest: who works here, and the site's policy, page by page.
//!
//! The walk is taken only as a whole. When the roster changes under it, it starts over later; until
//! it ends, the manifest of the walk before stands.

use std::time::Duration;

use punchtrail_protocol::{
    SiteId,
    sealed_photo::PhotoKey,
    wire::{DevicePolicy, ManifestRow},
};

use crate::{
    client::{CallError, Server},
    device::photo_key,
    policy::followed,
};

/// The most people that a device takes on.
pub const ROWS_MAX: usize = 200_000;
/// The most pages of a walk, so that a server which never ends one is left alone.
pub const PAGES_MAX: usize = 2_000;
/// The most text that a walk brings, in bytes: a tenth of a KiB a person is usual.
pub const TEXT_BYTES_MAX: usize = 64 << 20;
/// The longest walk, in milliseconds: nothing is delivered meanwhile.
pub const WALK_MS: u64 = 300_000;

/// A finished walk.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Whose.
    pub site: SiteId,
    pub rows: Vec<ManifestRow>,
    /// The site's policy, within this device's limits.
    pub policy: DevicePolicy,
    pub roster: String,
    /// The key that photos are sealed to from now on; none: as before.
    pub photo_key: Option<PhotoKey>,
}

/// Walks all pages.
///
/// # Errors
/// As the calls went; 409 `roster_changed` when the roster changed meanwhile.
pub async fn walk(server: &Server, site: SiteId) -> Result<Manifest, CallError> {
    let walked = tokio::time::timeout(Duration::from_millis(WALK_MS), pages(server, site)).await;
    walked.unwrap_or_else(|_| {
        Err(CallError::Silent(format!("the manifest took over {} s", WALK_MS / 1_000)))
    })
}

async fn pages(server: &Server, site: SiteId) -> Result<Manifest, CallError> {
    let mut text_bytes = 0;
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    let mut roster: Option<String> = None;
    for _ in 0..PAGES_MAX {
        let page = server.manifest(site, cursor.as_deref()).await?;
        if roster.as_ref().is_some_and(|first| *first != page.roster) {
            return Err(CallError::Refused {
                status: 409,
                code: "roster_changed".to_owned(),
                detail: "the roster changed during the walk".to_owned(),
            });
        }
        text_bytes += page.data.iter().map(text_of).sum::<usize>();
        rows.extend(page.data);
        if rows.len() > ROWS_MAX || text_bytes > TEXT_BYTES_MAX {
            break;
        }
        match page.next_cursor.filter(|_| page.has_more) {
            Some(next) if cursor.as_ref() == Some(&next) => break,
            Some(next) => {
                cursor = Some(next);
                roster = Some(page.roster);
            }
            None => {
                let photo_key = photo_key(page.photo_key.as_deref());
                let policy = followed(page.policy);
                return Ok(Manifest { site, rows, policy, roster: page.roster, photo_key });
            }
        }
    }
    Err(CallError::Senseless { status: 200, detail: "the manifest does not end".to_owned() })
}

fn text_of(row: &ManifestRow) -> usize {
    let pin = row.pin.as_ref().map_or(0, |pin| pin.phc.len());
    let badges: usize = row.badges.iter().chain(&row.badge).map(String::len).sum();
    row.name.len() + badges + pin
}
