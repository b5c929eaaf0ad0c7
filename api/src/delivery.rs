//! A batch on its way into the ledger: each item is read in the protocol's order of checks, and becomes
//! a capture or goes to quarantine. Nothing here refuses an item, and nothing is decided here that
//! depends on what the ledger holds: duplicates, conflicts and forks are settled there.
//!
//! Signatures are checked together, away from the threads that serve requests, and no more batches at
//! once than there are cores.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use punchtrail_domain::{log::recorded::Actor, punch::Clock};
use punchtrail_infra::{
    access::credentials::DeviceAccess,
    devices::reports::{self, BootReport},
    ledger::{Delivery, DeliveryItem, DeliveryOutcome, Metadata},
};
use punchtrail_protocol::{
    BootId, Digest, OrgId, PunchId, SiteId, Time,
    capture::{CAPTURE_BYTES_MAX, Capture, CaptureError, CaptureText, Fragment},
    signing::{CAPTURE_TYPE, PublicKey, Signature, from_base64url},
    vocabulary::QuarantineCode,
    wire::{BatchAnswer, BatchItem, ItemResult, ItemStatus},
};

use crate::{door::envelope::RequestId, metrics, problem::Refusal, state::App};

/// The longest text that encodes a capture of the largest size, in characters.
const CAPTURE_CHARS_MAX: usize = (CAPTURE_BYTES_MAX * 4).div_ceil(3);

/// Takes a batch.
///
/// # Errors
/// Busy when the ledger can't take it now.
pub async fn take(
    app: &App,
    access: &DeviceAccess,
    request: &RequestId,
    items: Vec<BatchItem>,
) -> Result<BatchAnswer, Refusal> {
    let received_at = Time::from(jiff::Timestamp::now());
    let read = read_apart(app, access, items).await?;
    let mut boots: Vec<_> = read.iter().filter_map(Read::boot).map(BootId::uuid).collect();
    boots.sort_unstable();
    boots.dedup();
    let known = reports::boots(app.ledger.pool(), access.device, &boots).await?;
    let named: Vec<_> = read.iter().map(Read::named).collect();
    let faults: Vec<_> = read.iter().map(Read::fault).collect();
    let items = read.into_iter().map(|item| item.prepare(access, received_at, &known)).collect();
    let metadata = Metadata::new(Actor::Device(access.device)).with_request(request.as_str());
    let delivery = Delivery { device: access.device, received_at, metadata, items };
    let outcome = app.ledger.deliver(delivery).await?;
    Ok(answer(outcome, named, faults))
}

async fn read_apart(
    app: &App,
    access: &DeviceAccess,
    items: Vec<BatchItem>,
) -> Result<Vec<Read>, Refusal> {
    let _turn = app.verifying.acquire().await.map_err(|_| Refusal::internal())?;
    let (key, org, sites, device) =
        (access.key, app.deployment.org, access.sites.clone(), access.device);
    let reading = tokio::task::spawn_blocking(move || {
        let rules = Rules { key, org, sites: &sites, device };
        rules.read_all(items)
    });
    reading.await.map_err(|error| {
        tracing::error!(%error, "reading a batch broke off");
        Refusal::internal()
    })
}

/// What a device's items are held against.
struct Rules<'a> {
    key: PublicKey,
    org: OrgId,
    sites: &'a [SiteId],
    device: punchtrail_protocol::DeviceId,
}

/// An item that was read.
struct Read {
    raw: BatchItem,
    found: Found,
}

enum Found {
    Capture { text: CaptureText, signature: Signature, said: Said },
    Fault { code: QuarantineCode, detail: String, fragment: Fragment, held: Held },
}

/// What of a capture its answer and its clock rest on.
#[derive(Clone, Copy)]
struct Said {
    punch: PunchId,
    seq: u64,
    prev: Digest,
    boot: BootId,
    captured_at: Time,
    uptime_ms: u64,
}

impl From<&Capture> for Said {
    fn from(capture: &Capture) -> Self {
        let Capture { punch, seq, prev, boot, captured_at, uptime_ms, .. } = *capture;
        Self { punch, seq, prev, boot, captured_at, uptime_ms }
    }
}

/// The number, digest and predecessor of what a device's valid signature covers.
type Held = Option<(u64, Digest, Digest)>;

/// An item's two texts in binary, its signature not yet checked.
type Decoded = Result<(Vec<u8>, Signature), (QuarantineCode, &'static str)>;

fn decode(item: &BatchItem) -> Decoded {
    if item.capture.len() > CAPTURE_CHARS_MAX {
        return Err((QuarantineCode::TooLarge, "The capture has more than 4,096 bytes."));
    }
    let encoding = QuarantineCode::BadEncoding;
    let bytes = URL_SAFE_NO_PAD
        .decode(&item.capture)
        .map_err(|_| (encoding, "The capture is not base64url without padding."))?;
    if bytes.len() > CAPTURE_BYTES_MAX {
        return Err((QuarantineCode::TooLarge, "The capture has more than 4,096 bytes."));
    }
    let signature = from_base64url(&item.signature)
        .map(Signature)
        .ok_or((encoding, "The signature is not 64 bytes in base64url without padding."))?;
    Ok((bytes, signature))
}

impl Rules<'_> {
    fn read_all(&self, items: Vec<BatchItem>) -> Vec<Read> {
        let decoded: Vec<Decoded> = items.iter().map(decode).collect();
        let signed: Vec<(&[u8], Signature)> = decoded
            .iter()
            .filter_map(|item| {
                item.as_ref().ok().map(|(bytes, signature)| (&bytes[..], *signature))
            })
            .collect();
        let mut valid = self.key.verify_all(CAPTURE_TYPE, &signed).into_iter();
        drop(signed);
        items
            .into_iter()
            .zip(decoded)
            .map(|(raw, decoded)| {
                let found = match decoded {
                    Err((code, detail)) => {
                        let (detail, fragment) = (detail.to_owned(), Fragment::default());
                        Found::Fault { code, detail, fragment, held: None }
                    }
                    Ok((bytes, signature)) if valid.next() == Some(true) => {
                        self.read_signed(bytes, signature)
                    }
                    Ok((bytes, _)) => Found::Fault {
                        code: QuarantineCode::BadSignature,
                        detail: "The signature does not verify under this device's key.".to_owned(),
                        fragment: Fragment::of(&bytes),
                        held: None,
                    },
                };
                Read { raw, found }
            })
            .collect()
    }

    fn read_signed(&self, bytes: Vec<u8>, signature: Signature) -> Found {
        let fault = |code, detail: String, bytes: &[u8]| {
            let fragment = Fragment::of(bytes);
            let prev = fragment.prev.unwrap_or(Digest::ZERO);
            let held = fragment.seq.map(|seq| (seq, Digest::of(bytes), prev));
            Found::Fault { code, detail, fragment, held }
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => CaptureText::from(text),
            Err(error) => {
                let detail = "The capture can't be taken: it is not UTF-8.";
                return fault(QuarantineCode::BadCapture, detail.to_owned(), error.as_bytes());
            }
        };
        let bytes = text.as_str().as_bytes();
        let capture = match text.capture() {
            Ok(capture) => capture,
            Err(error) => {
                let code = match error {
                    CaptureError::TooLarge(_) => QuarantineCode::TooLarge,
                    CaptureError::Bad(_) => QuarantineCode::BadCapture,
                    CaptureError::UnknownVersion(_) => QuarantineCode::UnknownVersion,
                };
                return fault(code, format!("The capture can't be taken: {error}."), bytes);
            }
        };
        if capture.device != self.device {
            let detail = "The capture names another device than the one that sent it.";
            return fault(QuarantineCode::WrongDevice, detail.to_owned(), bytes);
        }
        if capture.org != self.org || !self.sites.contains(&capture.site) {
            let detail =
                "The capture names another organisation, or a site that this device never served.";
            return fault(QuarantineCode::WrongSite, detail.to_owned(), bytes);
        }
        let said = capture.into();
        Found::Capture { text, signature, said }
    }
}

impl Read {
    fn boot(&self) -> Option<BootId> {
        match &self.found {
            Found::Capture { said, .. } => Some(said.boot),
            Found::Fault { .. } => None,
        }
    }

    /// Punch id and number, as far as they can be told to the device.
    fn named(&self) -> (Option<PunchId>, Option<u64>) {
        match &self.found {
            Found::Capture { said, .. } => (Some(said.punch), Some(said.seq)),
            Found::Fault { fragment, .. } => (fragment.punch, fragment.seq),
        }
    }

    fn fault(&self) -> Option<String> {
        match &self.found {
            Found::Capture { .. } => None,
            Found::Fault { detail, .. } => Some(detail.clone()),
        }
    }

    fn prepare(
        self,
        access: &DeviceAccess,
        received_at: Time,
        boots: &HashMap<BootId, BootReport>,
    ) -> DeliveryItem {
        match self.found {
            Found::Fault { code, fragment, held, .. } => {
                DeliveryItem::quarantine(self.raw, code, fragment.punch, held)
            }
            Found::Capture { text, signature, said } => {
                let clock = boots
                    .get(&said.boot)
                    .map_or(Clock::Unknown, |b| b.clock_at(said.captured_at, said.uptime_ms));
                DeliveryItem::capture(
                    self.raw,
                    text,
                    signature,
                    said.punch,
                    said.seq,
                    said.prev,
                    access.device,
                    received_at,
                    clock,
                )
            }
        }
    }
}

const KEPT: &str = "It is kept where a manager sees it and can admit it.";
const IN_CONFLICT: &str =
    "Other bytes came under this punch's id before. Those stand; these are kept as evidence.";

fn answer(
    outcome: DeliveryOutcome,
    named: Vec<(Option<PunchId>, Option<u64>)>,
    faults: Vec<Option<String>>,
) -> BatchAnswer {
    let results: Vec<ItemResult> = outcome
        .items
        .iter()
        .zip(named.into_iter().zip(faults))
        .map(|(item, ((punch, seq), fault))| {
            let detail = match item.status {
                ItemStatus::Applied | ItemStatus::Duplicate => None,
                ItemStatus::Conflict => Some(IN_CONFLICT.to_owned()),
                ItemStatus::Quarantined => Some(match fault {
                    Some(fault) => format!("{fault} {KEPT}"),
                    None => KEPT.to_owned(),
                }),
            };
            let (status, position, code) = (item.status, item.position, item.code);
            ItemResult { punch, seq, status, position, code, detail }
        })
        .collect();
    count(&results);
    BatchAnswer {
        results,
        acked_through: outcome.acked_through,
        ledger: outcome.head,
        server_time: jiff::Timestamp::now().into(),
        next_batch_after_ms: 0,
    }
}

fn count(results: &[ItemResult]) {
    for (status, name) in [
        (ItemStatus::Applied, "applied"),
        (ItemStatus::Duplicate, "duplicate"),
        (ItemStatus::Conflict, "conflict"),
        (ItemStatus::Quarantined, "quarantined"),
    ] {
        let count = results.iter().filter(|result| result.status == status).count();
        if count > 0 {
            metrics::items(name, count as u64);
        }
    }
}
