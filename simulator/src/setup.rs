//! Before the storm: every device is enrolled, by codes made with an operator's key or given.
//!
//! The set-up is no part of what is tested, so it is gentle: a few calls at a time, and a busy
//! server is waited for.

use std::{future::Future, sync::Arc, sync::Mutex};

use futures::{StreamExt, stream};
use punchtrail_device::{
    backoff::Backoff,
    client::{CallError, Server},
    device::{Device, EnrollError},
    store::{StoreError, contact, identity::Identity, outbox, photos, roster},
};
use punchtrail_protocol::SiteId;
use rand::{RngExt, rngs::StdRng};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Fleet, FleetError,
    member::{Member, STALE},
    misbehaviour::{Behaviour, clock_off_s},
    places::options,
    plan::Pairing,
    progress::Progress,
};

/// Devices that are enrolled at a time.
const ENROL_AT_ONCE: usize = 8;
/// Tries of a call of the set-up before it fails.
const TRIES_MAX: u32 = 12;
/// The longest pause between those tries that the simulator chooses itself, in milliseconds.
const PAUSE_MAX_MS: u64 = 15_000;
/// Tells the choice of who misbehaves from the choice of whose roster is stale.
const SALT_MISBEHAVE: u64 = 0x6d69_7362;
const SALT_STALE: u64 = 0x7374_616c;

/// Makes or opens every device of the fleet.
pub(crate) async fn enrol(
    fleet: &Arc<Fleet>,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Vec<Member>, FleetError> {
    let plan = &fleet.plan;
    let server = Server::at(&plan.server)?;
    let codes = Codes::of(&plan.pairing, &server)?;
    let misbehaving = match plan.misbehaviours.is_empty() {
        true => vec![false; plan.devices],
        false => plan.chosen(plan.share, SALT_MISBEHAVE),
    };
    let stale = plan.chosen(plan.stale_rosters, SALT_STALE);
    let bar = progress.begin("enrolling", plan.devices as u64);
    let mut joining = stream::iter(0..plan.devices)
        .map(|index| {
            let (codes, bar, server) = (&codes, &bar, &server);
            let wrong: &[_] = if misbehaving[index] { &plan.misbehaviours } else { &[] };
            let mut behaviour = Behaviour::of(wrong);
            behaviour.stale_roster = stale[index];
            async move {
                let mut dice = plan.dice(index);
                if behaviour.wrong_clock {
                    behaviour.clock_off_s = clock_off_s(&mut dice);
                }
                let member = join(fleet, server, codes, index, behaviour, dice).await;
                bar.inc(1);
                member
            }
        })
        .buffer_unordered(ENROL_AT_ONCE);
    let mut members = Vec::with_capacity(plan.devices);
    while let Some(member) = joining.next().await {
        members.push(member?);
        if stop.is_cancelled() {
            return Err(FleetError::Stopped);
        }
    }
    drop(joining);
    bar.finish();
    members.sort_unstable_by_key(|member| member.index);
    Ok(members)
}

/// Where the next device's code comes from.
enum Codes {
    Made { operator: Box<Server>, sites: Vec<SiteId> },
    Given(Mutex<Vec<String>>),
}

impl Codes {
    fn of(pairing: &Pairing, server: &Server) -> Result<Self, FleetError> {
        Ok(match pairing {
            Pairing::Operator { key, sites } => Self::Made {
                operator: Box::new(server.clone().with_token(key)?),
                sites: sites.clone(),
            },
            Pairing::Codes(codes) => Self::Given(Mutex::new(codes.iter().rev().cloned().collect())),
        })
    }

    async fn next(&self, index: usize, dice: &mut StdRng) -> Result<String, FleetError> {
        match self {
            Self::Made { operator, sites } => {
                let site = sites[index % sites.len()];
                let failed = |source| FleetError::Setup { what: "making a pairing code", source };
                patiently(dice, || operator.pairing_code(site)).await.map_err(failed)
            }
            Self::Given(codes) => {
                let next = codes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
                next.ok_or_else(|| {
                    FleetError::Plan(
                        "there are fewer pairing codes than devices to enrol".to_owned(),
                    )
                })
            }
        }
    }
}

async fn join(
    fleet: &Arc<Fleet>,
    server: &Server,
    codes: &Codes,
    index: usize,
    behaviour: Behaviour,
    mut dice: StdRng,
) -> Result<Member, FleetError> {
    let plan = &fleet.plan;
    let failed = |source: StoreError| FleetError::Store { index, source };
    let _place = fleet.places.file().await.map_err(failed)?;
    let folder = plan.folder(index);
    let device =
        Device::create(&folder, options(plan, behaviour.clock_off_s)).await.map_err(failed)?;
    let identity = match device.identity().await.map_err(failed)? {
        Some(identity) if identity.server == server.address() => identity,
        Some(identity) if plan.moved => {
            Identity { server: server.address().to_owned(), ..identity }
        }
        Some(identity) => {
            return Err(FleetError::Elsewhere(folder.display().to_string(), identity.server));
        }
        None => become_one(&device, plan.server.as_str(), codes, index, &mut dice).await?,
    };
    let member = known(&device, identity, index, behaviour, dice).await.map_err(failed)?;
    device.close().await;
    Ok(member)
}

/// A device of the fleet as its file knows it.
async fn known(
    device: &Device,
    identity: Identity,
    index: usize,
    behaviour: Behaviour,
    dice: StdRng,
) -> Result<Member, StoreError> {
    let mut db = device.store().read().await?;
    let backlog = outbox::backlog(&mut db, identity.id).await?;
    let photos = photos::backlog(&mut db, identity.id).await?.waiting;
    let contact = contact::of(&mut db, identity.id).await?;
    let stale = behaviour.stale_roster.then(|| STALE.to_owned());
    Ok(Member {
        index,
        waiting: backlog.waiting,
        photos,
        oldest: backlog.oldest,
        behaviour,
        people: roster::employees(&mut db, identity.id).await?,
        policy: contact.policy.unwrap_or_default(),
        roster: stale.or(contact.roster),
        acked_through: contact.acked_through,
        commands: 0,
        epoch: contact.epoch,
        anchor: contact.anchor,
        identity,
        drained: None,
        finished: false,
        dice,
    })
}

/// Enrols. A code whose answer got lost may be used up, so each try has one of its own.
async fn become_one(
    device: &Device,
    server: &str,
    codes: &Codes,
    index: usize,
    dice: &mut StdRng,
) -> Result<Identity, FleetError> {
    let agent =
        device.lock_agent().map_err(|source| FleetError::Store { index, source: source.into() })?;
    let name = format!("Fleet {index:05}");
    let mut backoff = Backoff::new(PAUSE_MAX_MS, Instant::now());
    let mut tries = 0;
    loop {
        let code = codes.next(index, dice).await?;
        tries += 1;
        match device.enroll(&agent, server, &code, &name).await {
            Ok(identity) => return Ok(identity),
            Err(EnrollError::Call(error)) if tries < TRIES_MAX && passing(&error) => {
                sleep_until(backoff.failed(error.retry_after(), dice.random(), Instant::now()))
                    .await;
            }
            Err(EnrollError::Call(source)) => {
                return Err(FleetError::Setup { what: "enrolling a device", source });
            }
            Err(EnrollError::Store(source)) => return Err(FleetError::Store { index, source }),
            Err(other) => return Err(FleetError::Plan(other.to_string())),
        }
    }
}

/// Calls until it is answered, at most [`TRIES_MAX`] times, with the pauses of a device.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, CallError>>>(
    dice: &mut StdRng,
    call: impl Fn() -> F,
) -> Result<T, CallError> {
    let mut backoff = Backoff::new(PAUSE_MAX_MS, Instant::now());
    let mut tries = 0;
    loop {
        tries += 1;
        match call().await {
            Err(error) if tries < TRIES_MAX && passing(&error) => {
                let again = backoff.failed(error.retry_after(), dice.random(), Instant::now());
                sleep_until(again).await;
            }
            ended => return ended,
        }
    }
}

/// Whether another try may go better.
fn passing(error: &CallError) -> bool {
    match error {
        CallError::Busy { .. } | CallError::Unreachable(_) | CallError::Silent(_) => true,
        CallError::Refused { code, .. } => code == "roster_changed",
        CallError::Senseless { status, .. } => *status >= 500,
    }
}
