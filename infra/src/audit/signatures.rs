//! Signatures of captures, checked many at once, off the threads that serve.

use std::{collections::HashMap, sync::Arc};

use punchtrail_protocol::{
    DeviceId,
    signing::{PublicKey, Signature},
};
use tokio::task::JoinSet;

use super::{
    AuditError,
    report::{Finding, FindingCode, Findings},
};

/// How many signatures of one device are checked together. More make a batch hardly cheaper.
const BATCH_SIGNATURES: usize = 256;
/// How many signatures wait at most, so that those of one device come together.
pub(super) const WAITING_SIGNATURES_MAX: usize = 8_192;

/// The keys that devices enrolled with, and where.
pub(super) type Keys = HashMap<DeviceId, (u64, PublicKey)>;

/// Bytes that a device signed, as an event says.
#[derive(Debug)]
pub(super) struct Signed {
    pub position: u64,
    pub device: DeviceId,
    /// The DSSE type that it was signed under.
    pub kind: &'static str,
    pub body: Vec<u8>,
    pub signature: Signature,
}

/// Checks every signature under the key that its device had enrolled with before.
///
/// # Errors
/// When the process is going down.
pub(super) async fn check(
    signed: Vec<Signed>,
    keys: &Keys,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    let mut by_device: HashMap<(DeviceId, &str), Vec<Signed>> = HashMap::new();
    for one in signed {
        match keys.get(&one.device) {
            Some((enrolled, _)) if *enrolled < one.position => {
                by_device.entry((one.device, one.kind)).or_default().push(one);
            }
            _ => findings.add(Finding::at(
                one.position,
                FindingCode::BadSignature,
                format!("device {} had not enrolled before this came", one.device),
            )),
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running = JoinSet::new();
    for ((device, kind), signed) in by_device {
        let Some((_, key)) = keys.get(&device) else { continue };
        let (key, signed) = (*key, Arc::new(signed));
        for start in (0..signed.len()).step_by(BATCH_SIGNATURES) {
            if running.len() >= cores {
                collect(running.join_next().await, findings)?;
            }
            let signed = Arc::clone(&signed);
            running.spawn_blocking(move || {
                let end = signed.len().min(start + BATCH_SIGNATURES);
                bad(&key, kind, &signed[start..end])
            });
        }
    }
    while !running.is_empty() {
        collect(running.join_next().await, findings)?;
    }
    Ok(())
}

fn bad(key: &PublicKey, kind: &str, signed: &[Signed]) -> Vec<Finding> {
    let items: Vec<(&[u8], Signature)> =
        signed.iter().map(|one| (one.body.as_slice(), one.signature)).collect();
    let valid = key.verify_all(kind, &items);
    signed
        .iter()
        .zip(valid)
        .filter(|(_, valid)| !valid)
        .map(|(one, _)| {
            Finding::at(
                one.position,
                FindingCode::BadSignature,
                format!("it isn't signed by the key that device {} enrolled", one.device),
            )
        })
        .collect()
}

fn collect(
    ended: Option<Result<Vec<Finding>, tokio::task::JoinError>>,
    findings: &mut Findings,
) -> Result<(), AuditError> {
    if let Some(found) = ended {
        found.map_err(|_| AuditError::Stopped)?.into_iter().for_each(|one| findings.add(one));
    }
    Ok(())
}
