//! Capturing offline: what a site's people did while the line was down.
//!
//! A door commits each punch by itself, and waits for the disk. A million and a half of those would
//! take hours here, so a device's captures of a run go into one transaction. Everything else is the
//! same: numbers, chain, bytes, signatures and rows.

use std::{collections::BTreeMap, io::Write as _, os::unix::fs::OpenOptionsExt as _, sync::Arc};

use futures::{StreamExt, stream};
use punchtrail_device::{
    APP,
    capture::{record, signed},
    client::Server,
    device::Device,
    manifest::{self, Manifest},
    store::{
        StoreError, Write, contact, identity, outbox,
        photos::{self, KeptPhoto},
        roster,
    },
};
use punchtrail_protocol::{
    Digest, SiteId,
    capture::{Capture, IdentifiedBy, PunchKind},
    sealed_photo::{PhotoKey, seal},
    wire::ManifestRow,
};
use rand::RngExt;
use tokio_util::sync::CancellationToken;

use crate::{
    Fleet, FleetError, Plan,
    member::{Member, STALE},
    picture::first_frame,
    progress::Progress,
    setup::patiently,
};

/// The most people who punch at one device.
const PEOPLE_PER_DEVICE_MAX: usize = 50;
/// What a first frame is.
const MEDIA: &str = "image/jpeg";
/// Devices that capture at a time: as many as there are places for their files, more wait.
const CAPTURE_AT_ONCE: usize = 8;

/// Walks each site's manifest once, shares its people among the site's devices, and lets them
/// punch.
pub(crate) async fn offline(
    fleet: &Arc<Fleet>,
    members: Vec<Member>,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Vec<Member>, FleetError> {
    let rosters = Arc::new(walk(fleet, &members).await?);
    let bar = progress.begin("capturing offline", (members.len() * fleet.plan.punches) as u64);
    let mut devices: BTreeMap<SiteId, usize> = BTreeMap::new();
    let mut placed = Vec::with_capacity(members.len());
    for member in members {
        let there = devices.entry(member.identity.site).or_default();
        placed.push((*there, member));
        *there += 1;
    }
    let mut capturing = stream::iter(placed)
        .map(|(nth, mut member)| {
            let (fleet, rosters, bar) = (fleet.clone(), rosters.clone(), bar.clone());
            let of = devices.get(&member.identity.site).copied().unwrap_or(1);
            tokio::spawn(async move {
                if let Some(roster) = rosters.get(&member.identity.site) {
                    let people = share(&roster.rows, nth, of);
                    let punched = punch(&fleet, &mut member, roster, people).await;
                    punched.map_err(|source| FleetError::Store { index: member.index, source })?;
                }
                bar.inc(fleet.plan.punches as u64);
                Ok::<_, FleetError>(member)
            })
        })
        .buffer_unordered(CAPTURE_AT_ONCE);
    let mut ready = Vec::new();
    while let Some(member) = capturing.next().await {
        ready.push(member??);
        if stop.is_cancelled() {
            return Err(FleetError::Stopped);
        }
    }
    drop(capturing);
    bar.finish();
    ready.sort_unstable_by_key(|member| member.index);
    Ok(ready)
}

/// Each site's manifest, walked once by the first of its devices.
async fn walk(fleet: &Fleet, members: &[Member]) -> Result<BTreeMap<SiteId, Manifest>, FleetError> {
    let mut rosters = BTreeMap::new();
    let mut dice = fleet.plan.dice(usize::MAX - 1);
    for member in members {
        let site = member.identity.site;
        if rosters.contains_key(&site) {
            continue;
        }
        let server = Server::at(&fleet.plan.server)?.with_token(&member.identity.token)?;
        let walked = patiently(&mut dice, || manifest::walk(&server, site)).await;
        let mut walked = walked
            .map_err(|source| FleetError::Setup { what: "walking the site's manifest", source })?;
        if walked.rows.is_empty() {
            return Err(FleetError::Plan(format!(
                "site {site} has nobody on its manifest: hire people there first, so that the \
                 punches are somebody's"
            )));
        }
        walked.rows.sort_unstable_by_key(|row| row.employee);
        rosters.insert(site, walked);
    }
    Ok(rosters)
}

/// The people of the `nth` of `of` devices: a part of its own where there are enough people, else
/// one whom it shares.
fn share(rows: &[ManifestRow], nth: usize, of: usize) -> &[ManifestRow] {
    if rows.is_empty() {
        return rows;
    }
    if rows.len() < of {
        let one = nth % rows.len();
        return &rows[one..=one];
    }
    let (from, until) = (nth * rows.len() / of, (nth + 1) * rows.len() / of);
    &rows[from..until.min(from + PEOPLE_PER_DEVICE_MAX)]
}

/// Lets `people` punch at the member's device, in and out in turn, spread over the time offline.
async fn punch(
    fleet: &Fleet,
    member: &mut Member,
    roster: &Manifest,
    people: &[ManifestRow],
) -> Result<(), StoreError> {
    let plan = &fleet.plan;
    let visit = fleet.places.visit(plan, member.index, member.behaviour.clock_off_s).await?;
    member.take_roster(&visit.device, roster, people).await?;
    if !people.is_empty() {
        let mut write = visit.device.store().write().await?;
        let mut current = identity::current(&mut write)
            .await?
            .ok_or_else(|| StoreError::unreadable("the device's identity"))?;
        let start = current.clone();
        let key = contact::of(&mut write, current.id).await?.photo_key;
        let without_photo = plan.without_photo();
        let mut captures = Vec::with_capacity(plan.punches);
        for nth in 0..plan.punches {
            let mut capture = one(&visit.device, member, &current, people, nth, plan);
            if nth >= without_photo {
                let frame = first_frame(capture.punch);
                capture.photo =
                    Some(keep(&visit.device, &mut write, &current, frame, key, plan).await?);
            }
            let made = signed(&current, capture)?;
            current.seq = made.capture.seq;
            current.head = Digest::of(&made.bytes);
            captures.push(made);
        }
        record(&mut write, &start, &captures).await?;
        write.commit().await?;
        member.identity.seq = current.seq;
        member.identity.head = current.head;
    }
    let mut db = visit.device.store().read().await?;
    let backlog = outbox::backlog(&mut db, member.identity.id).await?;
    (member.waiting, member.oldest) = (backlog.waiting, backlog.oldest);
    member.photos = photos::backlog(&mut db, member.identity.id).await?.waiting;
    drop(db);
    visit.end().await;
    Ok(())
}

/// Keeps a first frame as a door does, sealed where the server gave a key; but it waits for the
/// disk only if the fleet does.
async fn keep(
    device: &Device,
    write: &mut Write,
    identity: &identity::Identity,
    frame: Vec<u8>,
    key: Option<PhotoKey>,
    plan: &Plan,
) -> Result<Digest, StoreError> {
    let digest = Digest::of(&frame);
    let bytes = match &key {
        Some(key) => seal(key, &frame).map_err(StoreError::unreadable)?,
        None => frame,
    };
    let (size_bytes, media) = (bytes.len() as u64, MEDIA.to_owned());
    let photo = KeptPhoto { digest, size_bytes, media, sealed: key.is_some() };
    photos::add(write, identity.id, &photo).await?;
    let (folder, synced, file) = (device.folder().clone(), plan.synced, photo.file(identity.id));
    let writing = tokio::task::spawn_blocking(move || {
        if synced {
            return folder.keep_photo(file, &bytes).map_err(StoreError::from);
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let path = folder.photo(file);
        let written = options.open(&path).and_then(|mut file| file.write_all(&bytes));
        written.map_err(|error| StoreError::DiskFailed(format!("{}: {error}", path.display())))
    });
    writing.await.map_err(StoreError::unreadable)??;
    Ok(digest)
}

fn one(
    device: &Device,
    member: &mut Member,
    current: &identity::Identity,
    people: &[ManifestRow],
    nth: usize,
    plan: &Plan,
) -> Capture {
    let now = device.now();
    let slot = plan.offline.as_secs_f64() / plan.punches as f64;
    let before_s = slot * ((plan.punches - nth) as f64 - member.dice.random::<f64>());
    let before_ms = (before_s * 1_000.0) as u64;
    let captured_at = now.time.plus_millis(-(before_ms as i64));
    Capture {
        v: 1,
        punch: device.punch_id(captured_at),
        org: current.org,
        site: current.site,
        device: current.device,
        employee: Some(people[nth % people.len()].employee),
        badge: None,
        kind: if (nth / people.len()).is_multiple_of(2) { PunchKind::In } else { PunchKind::Out },
        captured_at,
        utc_offset_s: now.utc_offset_s,
        tz: now.tz,
        seq: current.seq + 1,
        prev: current.head,
        boot: now.boot,
        uptime_ms: now.uptime_ms.saturating_sub(before_ms),
        identified_by: IdentifiedBy::Badge,
        photo: None,
        offline: true,
        app: APP.to_owned(),
    }
}

impl Member {
    /// Puts its people, the policy and the roster's version into the device's file, as a walk of it
    /// would; a stale one gets a version that no server knows.
    async fn take_roster(
        &mut self,
        device: &Device,
        roster: &Manifest,
        people: &[ManifestRow],
    ) -> Result<(), StoreError> {
        let version = if self.behaviour.stale_roster { STALE } else { roster.roster.as_str() };
        self.people = people.iter().map(|row| row.employee).collect();
        self.policy = roster.policy.clone();
        self.roster = Some(version.to_owned());
        let mut write = device.store().write().await?;
        let of = (self.identity.id, self.identity.site);
        roster::replace(&mut write, of, people, &roster.policy, version).await?;
        Ok(write.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use punchtrail_protocol::EmployeeId;
    use uuid::Uuid;

    use super::*;

    fn rows(count: usize) -> Vec<ManifestRow> {
        (0..count)
            .map(|n| ManifestRow {
                employee: EmployeeId(Uuid::from_u128(n as u128)),
                badge: None,
                badges: Vec::new(),
                name: String::new(),
                pin: None,
                face: false,
                last_kind: None,
            })
            .collect()
    }

    #[test]
    fn people_are_shared_out_so_that_no_two_devices_have_the_same_where_there_are_enough() {
        for (people, devices) in [(10, 10), (11, 4), (7, 3), (5, 1)] {
            let rows = rows(people);
            let shared: Vec<_> = (0..devices).flat_map(|nth| share(&rows, nth, devices)).collect();
            assert_eq!(shared.len(), people);
        }
        let two = rows(2);
        assert!((0..9).all(|nth| share(&two, nth, 9).len() == 1));
        assert_eq!(share(&rows(1_000), 0, 1).len(), PEOPLE_PER_DEVICE_MAX);
    }
}
