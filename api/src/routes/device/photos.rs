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
use punchtrail_projections::punches::photos::{erased, named};
use punchtrail_protocol::{
    Digest,
    sealed_photo::{SEALED_PHOTO_OVERHEAD_BYTES, SEALED_PHOTO_TYPE, open},
    wire::PHOTO_BYTES_MAX,
};

use crate::{
    ask::extract::{InPath, Line, content_length, media_type, next_chunk, too_large, too_slow},
    auth::DeliveringDevice,
    identity::arrivals,
    problem::{Code, Refusal},
    state::App,
    upkeep,
};

const JPEG: &[u8] = b"\xff\xd8\xff";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Takes a photo, JPEG or PNG, at most 5 MiB; or one sealed to this server's key, 48 bytes larger.
/// Before or after its punch.
#[utoipa::path(
    put, path = "/v1/photos/{sha256}", tag = "sync",
    operation_id = "putPhoto",
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
    let form = announced(&parts.headers)?;
    has_room(&app, device.access()).await?;
    let line = Line::of(&parts);
    let coming = receive(&app, photo, body, form, &line);
    let (upload, length_bytes) =
        tokio::time::timeout(app.door.timeouts.photo, coming).await.map_err(|_| too_slow())??;
    line.wait_for_permit().await?;
    if upload.digest() == photo && !erased(&app.pools.reader, &[photo]).await?.is_empty() {
        // It was here, and is to be gone: the device is told that it need not come again.
        return Ok(StatusCode::OK);
    }
    if upload.digest() == photo && named(&app.pools.reader, &[photo]).await?.is_empty() {
        // Before it is kept, so that none is kept that nobody knows of.
        loose::note(app.ledger.pool(), photo, device.id(), length_bytes).await?;
    }
    let is_new = keep(upload, photo).await?;
    arrivals::came(&app, photo).await?;
    Ok(if is_new { StatusCode::CREATED } else { StatusCode::OK })
}

/// How a photo comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// Sealed to this server's key.
    Sealed,
}

impl Form {
    const fn bytes_max(self) -> usize {
        match self {
            Self::Plain => PHOTO_BYTES_MAX,
            Self::Sealed => PHOTO_BYTES_MAX + SEALED_PHOTO_OVERHEAD_BYTES,
        }
    }
}

/// What the head of the request says of the body.
fn announced(headers: &axum::http::HeaderMap) -> Result<Form, Refusal> {
    let form = match media_type(headers).as_deref() {
        Some(SEALED_PHOTO_TYPE) => Form::Sealed,
        None | Some("image/jpeg" | "image/png" | "application/octet-stream") => Form::Plain,
        Some(_) => return Err(not_an_image()),
    };
    match content_length(headers) {
        Some(length) if length > form.bytes_max() => Err(too_large(form.bytes_max())),
        _ => Ok(form),
    }
}

/// Writes the photo away as it comes; one that is kept already is only checked. One that was sealed
/// is opened first, and held in memory until then.
async fn receive(
    app: &App,
    photo: Digest,
    mut body: Body,
    form: Form,
    line: &Line,
) -> Result<(Box<dyn PhotoUpload>, u64), Refusal> {
    let mut upload =
        app.photos.begin(photo).await.map_err(|error| Refusal::photo_not_kept(&error))?;
    let mut held = app.body(line.standing());
    let (mut start, mut length_bytes) = (Vec::with_capacity(PNG.len()), 0);
    while let Some(chunk) = next_chunk(&mut body, app.door.timeouts.silence).await? {
        length_bytes += chunk.len();
        if length_bytes > form.bytes_max() {
            return Err(too_large(form.bytes_max()));
        }
        match form {
            Form::Sealed => held.push(&chunk)?,
            Form::Plain => {
                start.extend(chunk.iter().take(PNG.len() - start.len()));
                upload.write(&chunk).await.map_err(|error| Refusal::photo_not_kept(&error))?;
            }
        }
    }
    if form == Form::Sealed {
        let secret = app.photo_secret.clone();
        let opened = app.on_a_core(move || open(&secret, held.bytes())).await?;
        let opened = opened.map_err(|_| not_sealed_to_this())?;
        start.extend(opened.iter().take(PNG.len()));
        length_bytes = opened.len();
        upload.write(&opened).await.map_err(|error| Refusal::photo_not_kept(&error))?;
    }
    if !start.starts_with(JPEG) && !start.starts_with(PNG) {
        return Err(not_an_image());
    }
    Ok((upload, length_bytes as u64))
}

fn not_sealed_to_this() -> Refusal {
    Refusal::new(
        Code::Invalid,
        "The sealed photo doesn't open: it was sealed to another key, cut off or altered. Nothing \
         was kept. Send it as it was sealed; `photo_key` of the manifest is this server's key.",
    )
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
        return Err(Refusal::another_digest());
    }
    upload.keep().await.map_err(|error| Refusal::photo_not_kept(&error))
}

fn not_an_image() -> Refusal {
    Refusal::new(Code::UnsupportedMediaType, "A photo is a JPEG or a PNG. Nothing was kept.")
}
