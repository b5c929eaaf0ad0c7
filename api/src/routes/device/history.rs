//! What a device is told of the ledger's history, and what comes back of it: by it a server whose
//! database went back is noticed, whoever of its nodes remembers.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::Response,
};
use punchtrail_domain::epoch::Anchor;
use punchtrail_infra::ledger::Recollection;
use punchtrail_protocol::{
    Digest, EpochId, Position,
    wire::{
        ANCHOR_CHARS_MAX, EPOCH_HEADER, EPOCHS_TOLD_MAX, EpochBegun, LEDGER_HEADER, LedgerHistory,
    },
};
use uuid::Uuid;

use crate::{problem::Refusal, seal, state::App};

const PURPOSE: &str = "punchtrail.anchor.v1";
/// An epoch, a position and a leaf hash.
const CONTENT_BYTES: usize = 16 + 8 + 32;

/// The history as it is now.
pub(super) fn told(app: &App) -> LedgerHistory {
    let begun = |(epoch, after)| EpochBegun { epoch, after };
    let mut epochs: Vec<_> =
        app.ledger.history().epochs().rev().take(EPOCHS_TOLD_MAX).map(begun).collect();
    epochs.reverse();
    let content = written(app.ledger.newest());
    LedgerHistory { epochs, anchor: seal::seal(&app.deployment, PURPOSE, &content) }
}

/// Says on every answer to a device, refusals too, where the ledger stands. Strangers aren't told.
pub(crate) async fn on_every_answer(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        return response;
    }
    let Recollection { epoch, anchor } = app.ledger.newest();
    if let Ok(epoch) = HeaderValue::from_str(&epoch.to_string()) {
        response.headers_mut().insert(EPOCH_HEADER, epoch);
        response.headers_mut().insert(LEDGER_HEADER, HeaderValue::from(anchor.position.0));
    }
    response
}

/// What this device was told; none where it wasn't told here, which says nothing: it is given
/// another anchor.
///
/// # Errors
/// When it can't be an anchor.
pub(super) fn remembered(app: &App, anchor: Option<&str>) -> Result<Option<Recollection>, Refusal> {
    let Some(anchor) = anchor else { return Ok(None) };
    if anchor.len() > ANCHOR_CHARS_MAX {
        return Err(Refusal::field("/anchor", "invalid_value", "`anchor` is as it was given."));
    }
    Ok(seal::open(&app.deployment, PURPOSE, anchor).and_then(|content| read(&content)))
}

fn written(Recollection { epoch, anchor }: Recollection) -> [u8; CONTENT_BYTES] {
    let mut content = [0; CONTENT_BYTES];
    content[..16].copy_from_slice(epoch.uuid().as_bytes());
    content[16..24].copy_from_slice(&anchor.position.0.to_be_bytes());
    content[24..].copy_from_slice(&anchor.leaf_hash.0);
    content
}

fn read(content: &[u8]) -> Option<Recollection> {
    let (epoch, rest) = content.split_first_chunk::<16>()?;
    let (position, rest) = rest.split_first_chunk::<8>()?;
    let leaf_hash = Digest(rest.try_into().ok()?);
    let position = Position(u64::from_be_bytes(*position));
    let epoch = EpochId(Uuid::from_bytes(*epoch));
    Some(Recollection { epoch, anchor: Anchor { position, leaf_hash } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_back() {
        let told = Recollection {
            epoch: EpochId(Uuid::from_u128(7)),
            anchor: Anchor { position: Position(1 << 40), leaf_hash: Digest::of(b"leaf") },
        };
        assert_eq!(read(&written(told)), Some(told));
        assert_eq!(read(&written(told)[1..]), None);
    }
}
