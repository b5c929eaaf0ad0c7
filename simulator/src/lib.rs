//! A fleet of simulated devices, for operators: all of them come back at once, and one sees whether
//! the server, its database and the line bear it, before a Monday morning finds out.
//!
//! Each device drains as one at a door does, by its very
//! [`Route`](punchtrail_device::drain::Route), on a folder, SQLite file and key of its own. First
//! all are enrolled, then they capture offline, then the gate opens: within a second every one of
//! them finds the server again. At the end the files are opened anew and compared with what the
//! server acknowledged.
//!
//! What differs from a door is said in the report: captures are made in bulk (one transaction a
//! device; bytes, chain and signatures are those of single punches), files aren't synced unless
//! asked, a device's file keeps of the manifest only its own people, and a device's contact with
//! the server is written down together with its next batch. Nobody punches while a fleet drains, so
//! between two errands a device's file is closed: [`FILES_MAX`] bounds what is open at once.
//!
//! It must never be aimed at somebody else's server by accident: anything but loopback needs a word
//! of consent in the plan. And it must never count as delivered what a file doesn't say is
//! acknowledged.

mod caller;
mod capture;
mod clock;
mod drain;
mod member;
mod meter;
mod misbehaviour;
pub mod percentiles;
pub mod picture;
mod places;
mod plan;
mod plot;
mod progress;
pub mod report;
mod setup;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use punchtrail_device::{
    client::{AddressError, CallError},
    store::{StoreError, contact, identity, outbox, photos},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    member::Member,
    meter::Meter,
    places::Places,
    report::{Checked, Phases},
};
pub use self::{
    misbehaviour::Misbehaviour,
    places::{FILES_MAX, PHOTOS_AT_ONCE},
    plan::{DEVICES_MAX, PHOTOS_SHARE, PUNCHES_MAX, Pairing, Plan},
    plot::{PlotError, plot},
    progress::Progress,
    report::Report,
};
/// Program and version, as reports carry them; captures and requests carry the device's.
pub const APP: &str = concat!("punchtrail-fleet/", env!("CARGO_PKG_VERSION"));
/// Within how long after the gate opens the last device makes its first call, in milliseconds.
pub const GATE_MS: u64 = 1_000;

/// Why a fleet couldn't run. What its folders hold stays there.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A plan that can't be carried out.
    #[error("{0}. Nothing was done")]
    Plan(String),
    #[error("{0}. Nothing was done")]
    Address(#[from] AddressError),
    /// The server refused the set-up.
    #[error("the fleet can't be set up: {what}: {source}. Nothing was delivered")]
    Setup { what: &'static str, source: CallError },
    #[error("device {index} of the fleet: {source}. What its folder holds is untouched")]
    Store { index: usize, source: StoreError },
    /// A device's folder that belongs elsewhere.
    #[error(
        "{0} is enrolled at another server ({1}). Use another folder for this fleet; nothing was \
         done"
    )]
    Elsewhere(String, String),
    /// Asked to stop before the gate opened.
    #[error("stopped before the gate opened. What was enrolled and captured stays in the folder")]
    Stopped,
    /// A part of the simulator failed.
    #[error("the simulator failed: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// What all devices of a run share.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) plan: Plan,
    pub(crate) places: Places,
    pub(crate) meter: Meter,
}

/// A fleet whose gate is closed still.
struct Prepared {
    fleet: Arc<Fleet>,
    members: Vec<Member>,
    phases: Phases,
}

/// What waits in a fleet that was prepared and not let go.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub devices: usize,
    pub punches: u64,
    /// How long enrolling and capturing took.
    pub phases: Phases,
}

/// Enrols a fleet and lets it capture offline, and leaves it so: a later run with 0 punches
/// delivers.
///
/// # Errors
/// When it couldn't be set up.
pub async fn capture_only(
    plan: Plan,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Waiting, FleetError> {
    let Prepared { members, phases, .. } = prepare(plan, progress, stop).await?;
    let punches = members.iter().map(|member| member.waiting).sum();
    Ok(Waiting { devices: members.len(), punches, phases })
}

/// Runs a fleet from its enrolment to the comparison of its files with the server's answers. `stop`
/// ends the run early; the report then says what still waits.
///
/// # Errors
/// When it couldn't be set up. A server that doesn't take everything is said in the report.
pub async fn run(
    plan: Plan,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Report, FleetError> {
    let Prepared { fleet, members, mut phases } = prepare(plan, progress, stop).await?;
    let timed = Instant::now();
    let members = storm(&fleet, members, progress, stop).await?;
    phases.deliver_s = timed.elapsed().as_secs_f64();

    let timed = Instant::now();
    let checked = check(&fleet, &members, progress).await?;
    phases.check_s = timed.elapsed().as_secs_f64();
    Ok(report::compose(&fleet, &members, checked, phases))
}

/// Everything before the gate opens.
async fn prepare(
    plan: Plan,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Prepared, FleetError> {
    plan.check()?;
    let places = Places::new(plan.memory_mib, plan.is_mixed());
    let fleet = Arc::new(Fleet { places, meter: Meter::new(), plan });
    let mut phases = Phases::default();
    let timed = Instant::now();
    let mut members = setup::enrol(&fleet, progress, stop).await?;
    phases.enrol_s = timed.elapsed().as_secs_f64();
    if fleet.plan.punches > 0 {
        let timed = Instant::now();
        members = capture::offline(&fleet, members, progress, stop).await?;
        phases.capture_s = timed.elapsed().as_secs_f64();
    }
    Ok(Prepared { fleet, members, phases })
}

/// Opens the gate and lets every device drain, until all have or the time is over.
async fn storm(
    fleet: &Arc<Fleet>,
    members: Vec<Member>,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Vec<Member>, FleetError> {
    let outstanding = members.iter().map(|member| member.waiting).sum();
    let photos = members.iter().map(|member| member.photos).sum();
    let gate = tokio::time::Instant::now();
    fleet.meter.open_gate(outstanding, photos);
    let over = stop.child_token();
    let bar = progress.begin("delivering", outstanding);
    let watcher = tokio::spawn(progress::watch(fleet.clone(), bar, over.clone()));
    let deadline = tokio::spawn({
        let (over, deadline) = (over.clone(), fleet.plan.deadline);
        async move {
            tokio::time::sleep(deadline).await;
            over.cancel();
        }
    });
    let mut running = JoinSet::new();
    for mut member in members {
        let (fleet, over) = (fleet.clone(), over.clone());
        running.spawn(async move {
            drain::drain(&mut member, &fleet, gate, &over).await;
            member
        });
    }
    let mut members = Vec::with_capacity(running.len());
    while let Some(member) = running.join_next().await {
        members.push(member?);
    }
    deadline.abort();
    over.cancel();
    watcher.await?;
    members.sort_unstable_by_key(|member| member.index);
    Ok(members)
}

/// Reads every file anew: what waits, and what the server said of the rest.
async fn check(
    fleet: &Arc<Fleet>,
    members: &[Member],
    progress: &Progress,
) -> Result<Checked, FleetError> {
    let bar = progress.begin("checking", members.len() as u64);
    let mut running = JoinSet::new();
    for member in members {
        let (fleet, index, id) = (fleet.clone(), member.index, member.identity.id);
        running.spawn(async move {
            let read = async {
                let visit = fleet.places.visit(&fleet.plan, index, 0).await?;
                let mut db = visit.device.store().read().await?;
                let statuses = outbox::by_status(&mut db, id).await?;
                let contact = contact::of(&mut db, id).await?;
                let identity = identity::by_id(&mut db, id).await?;
                let photos = photos::backlog(&mut db, id).await?;
                drop(db);
                visit.end().await;
                let seq = identity.map_or(0, |identity| identity.seq);
                Ok((statuses, contact.acked_through, seq, photos))
            };
            (index, read.await)
        });
    }
    let mut checked = Checked::default();
    while let Some(read) = running.join_next().await {
        let (index, read) = read?;
        let (statuses, acked_through, seq, photos) =
            read.map_err(|source| FleetError::Store { index, source })?;
        checked.device(index, &statuses, acked_through, seq);
        checked.photos(index, photos);
        bar.inc(1);
    }
    bar.finish();
    checked.discrepancies.sort();
    Ok(checked)
}

fn duration_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
