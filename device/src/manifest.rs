//! Walking the manifest: who works here, and the site's policy, page by page.
//!
//! The walk is taken only as a whole. When the roster changes under it, it starts over later; until
//! it ends, the manifest of the walk before stands.

use punchtrail_protocol::{
    SiteId,
    wire::{BATCH_ITEMS_MAX, DevicePolicy, ManifestRow},
};

use crate::client::{CallError, Server};

/// The most people that a device takes on.
pub const ROWS_MAX: usize = 200_000;
/// The most pages of a walk, so that a server which never ends one is left alone.
pub const PAGES_MAX: usize = 10_000;

/// A finished walk.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub rows: Vec<ManifestRow>,
    /// The site's policy, within this device's limits.
    pub policy: DevicePolicy,
    pub roster: String,
}

/// Walks all pages.
///
/// # Errors
/// As the calls went; 409 `roster_changed` when the roster changed meanwhile.
pub async fn walk(server: &Server, site: SiteId) -> Result<Manifest, CallError> {
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
        rows.extend(page.data);
        if rows.len() > ROWS_MAX {
            break;
        }
        match page.next_cursor.filter(|_| page.has_more) {
            Some(next) => {
                cursor = Some(next);
                roster = Some(page.roster);
            }
            None => {
                return Ok(Manifest {
                    rows,
                    policy: within_limits(page.policy),
                    roster: page.roster,
                });
            }
        }
    }
    Err(CallError::Senseless { status: 200, detail: "the manifest does not end".to_owned() })
}

/// A policy whose numbers can't stop or overrun this device, whatever was set.
fn within_limits(policy: DevicePolicy) -> DevicePolicy {
    DevicePolicy {
        batch_max: policy.batch_max.clamp(1, BATCH_ITEMS_MAX as u32),
        punches_per_minute: policy.punches_per_minute.clamp(1, 100_000),
        reconnect_spread_s: policy.reconnect_spread_s.min(3_600),
        heartbeat_s: policy.heartbeat_s.clamp(1, 86_400),
        ..policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_zeros_still_delivers() {
        let zeros = DevicePolicy {
            batch_max: 0,
            punches_per_minute: 0,
            reconnect_spread_s: u32::MAX,
            heartbeat_s: 0,
            ..DevicePolicy::default()
        };
        let taken = within_limits(zeros);
        assert_eq!((taken.batch_max, taken.punches_per_minute, taken.heartbeat_s), (1, 1, 1));
        assert_eq!(taken.reconnect_spread_s, 3_600);
    }
}
