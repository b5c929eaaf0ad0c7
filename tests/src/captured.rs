//! What the ledger has of captures, read over HTTP, for holding it against what devices have.

use std::collections::BTreeMap;

use anyhow::Context;
use punchtrail_protocol::Digest;
use serde_json::Value;

use crate::file::Kept;

/// A capture in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub position: u64,
    pub punch: String,
    pub device: String,
    /// Its number on that device.
    pub seq: u64,
    /// The digest of the bytes that the device signed.
    pub digest: Digest,
}

impl Captured {
    /// Whether this is what a device keeps as `kept`.
    pub fn is(&self, kept: &Kept) -> bool {
        self.punch == kept.punch && self.seq == kept.seq && self.digest == kept.digest
    }
}

/// The captures among `events`, in the ledger's order.
///
/// # Errors
/// When one can't be read.
pub fn captures(events: &[Value]) -> anyhow::Result<Vec<Captured>> {
    events.iter().filter(|event| event["event_type"] == "Captured").map(captured).collect()
}

fn captured(event: &Value) -> anyhow::Result<Captured> {
    let payload: Value = serde_json::from_str(event["payload"].as_str().unwrap_or_default())?;
    let signed = payload["Captured"]["capture"].as_str().context("a capture's text")?;
    let capture: Value = serde_json::from_str(signed)?;
    let text = |field: &str| capture[field].as_str().unwrap_or_default().to_owned();
    Ok(Captured {
        position: event["position"].as_u64().context("an event's position")?,
        punch: text("punch"),
        device: text("device"),
        seq: capture["seq"].as_u64().context("a capture's number")?,
        digest: Digest::of(signed.as_bytes()),
    })
}

/// The first position that is missing or not in its place; none when the order is dense from 1.
pub fn hole(events: &[Value]) -> Option<u64> {
    (1u64..).zip(events).find(|(n, event)| event["position"].as_u64() != Some(*n)).map(|(n, _)| n)
}

/// What is there more than once: punches, or numbers of a device.
pub fn twice(captures: &[Captured]) -> Vec<String> {
    let mut times = BTreeMap::<String, u32>::new();
    for capture in captures {
        *times.entry(format!("punch {}", capture.punch)).or_default() += 1;
        let number = format!("number {} of device {}", capture.seq, capture.device);
        *times.entry(number).or_default() += 1;
    }
    times.into_iter().filter(|(_, times)| *times > 1).map(|(what, _)| what).collect()
}
