//! What devices deliver: photos, by the digest of their bytes.

use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
};
use punchtrail_infra::{
    access::credentials::DeviceAccess,
    photos::{
        PhotoUpload,
        loose::{self, LOOSE_BYTES_MAX, LOOSE_OF_REVOKED_MAX, LOOSE_PHOTOS_MAX},
    },
};
use punchtrail_projections::punches::photos::named;
use punchtrail_protocol::{Digest, wire::PHOTO_BYTES_MAX};

use crate::{
    ask::extract::{InPath, Line, content_length, media_type, next_chunk, too_large, too_slow},
    auth::DeliveringDevice,
    problem::{Code, Refusal},
    state::App,
    upkeep,
};

const JPEG: &[u8] = b"\xff\xd8\xff";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Takes a photo, JPEG or PNG, at most 5 MiB. Before or after its punch.
#[utoipa::path(
    put, path = "/v1/photos/{sha256}", tag = "sync",
    params(("sha256" = String, Path, description = "SHA-256 of the bytes, 64 lower-case hex \
        digits")),
    request_body(content = Vec<u8>, content_type = "image/jpeg"),
    responses((status = 201, description = "New"), (status = 200, description = "There already")),
    security(("device_token" = [])),
)]
pub async fn put(
    State(app): State<App>,
    device: DeliveringDevice,
    InPath(photo): InPath<Digest>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    announced(&parts.headers)?;
    has_room(&app, device.access()).await?;
    let coming = receive(&app, photo, body);
    let (upload, length_bytes) =
        tokio::time::timeout(app.door.timeouts.photo, coming).await.map_err(|_| too_slow())??;
    Line::of(&parts).wait_for_permit().await?;
    if upload.digest() == photo && named(&app.pools.reader, &[photo]).await?.is_empty() {
        // Before it is kept, so that none is kept that nobody knows of.
        loose::note(app.ledger.pool(), photo, device.id(), length_bytes).await?;
    }
    let is_new = keep(upload, photo).await?;
    Ok(if is_new { StatusCode::CREATED } else { StatusCode::OK })
}

/// What the head of the request says of the body.
fn announced(headers: &axum::http::HeaderMap) -> Result<(), Refusal> {
    let is_image = |kind: String| {
        matches!(kind.as_str(), "image/jpeg" | "image/png" | "application/octet-stream")
    };
    if !media_type(headers).is_none_or(is_image) {
        return Err(not_an_image());
    }
    match content_length(headers) {
        Some(length) if length > PHOTO_BYTES_MAX => Err(too_large(PHOTO_BYTES_MAX)),
        _ => Ok(()),
    }
}

/// Writes the photo away as it comes; one that is kept already is only checked.
async fn receive(
    app: &App,
    photo: Digest,
    mut body: Body,
) -> Result<(Box<dyn PhotoUpload>, u64), Refusal> {
    let mut upload = app.photos.begin(photo).await.map_err(|error| store_failed(&error))?;
    let (mut start, mut length_bytes) = (Vec::with_capacity(PNG.len()), 0);
    while let Some(chunk) = next_chunk(&mut body, app.door.timeouts.silence).await? {
        length_bytes += chunk.len();
        start.extend(chunk.iter().take(PNG.len() - start.len()));
        if length_bytes > PHOTO_BYTES_MAX {
            return Err(too_large(PHOTO_BYTES_MAX));
        }
        upload.write(&chunk).await.map_err(|error| store_failed(&error))?;
    }
    if !start.starts_with(JPEG) && !start.starts_with(PNG) {
        return Err(not_an_image());
    }
    Ok((upload, length_bytes as u64))
}

/// That the device may have one more photo kept that no punch names.
async fn has_room(app: &App, access: &DeviceAccess) -> Result<(), Refusal> {
    let photos_max = if access.revoked { LOOSE_OF_REVOKED_MAX } else { LOOSE_PHOTOS_MAX };
    let is_full = async || -> Result<bool, Refusal> {
        let (photos, bytes) = loose::of_device(app.ledger.pool(), access.device).await?;
        Ok(photos >= photos_max || bytes >= LOOSE_BYTES_MAX)
    };
    if !is_full().await? {
        return Ok(());
    }
    upkeep::forget_named(app, access.device).await?;
    if is_full().await? {
        return Err(Refusal::busy(
            "Too many photos of this device are kept that none of its punches names. This one was \
             not taken; deliver the punches first, and then send it again.",
        ));
    }
    Ok(())
}

async fn keep(upload: Box<dyn PhotoUpload>, photo: Digest) -> Result<bool, Refusal> {
    if upload.digest() != photo {
        return Err(Refusal::new(
            Code::DigestMismatch,
            "The bytes that came have another digest. Nothing was kept; send the photo again.",
        ));
    }
    upload.keep().await.map_err(|error| store_failed(&error))
}

fn not_an_image() -> Refusal {
    Refusal::new(Code::UnsupportedMediaType, "A photo is a JPEG or a PNG. Nothing was kept.")
}

fn store_failed(error: &std::io::Error) -> Refusal {
    tracing::error!(%error, "the photo store failed");
    Refusal::busy("The photo can't be kept now. Send it again.")
}
