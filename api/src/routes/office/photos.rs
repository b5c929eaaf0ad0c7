//! Photos, for people with the right: cleaned of everything that isn't the picture, and each look
//! written down.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderName, header},
};
use punchtrail_infra::photos::reads;
use punchtrail_protocol::{Digest, Time};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::extract::{InPath, Params},
    auth::Operator,
    identity::pictures::{self, Size},
    problem::Refusal,
    state::App,
};

/// How large.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PhotoQuery {
    /// `full` (unless given) or `thumbnail`, at most 160 pixels on its longer side.
    #[param(inline)]
    pub size: Option<Size>,
}

/// A photo of a punch or a reference photo, as a JPEG without metadata. That you looked is written
/// down.
#[utoipa::path(
    get, path = "/v1/photos/{sha256}", tag = "faces",
    operation_id = "getPhoto",
    params(("sha256" = String, Path, description = "Which photo"), PhotoQuery),
    responses((status = 200, body = Vec<u8>, content_type = "image/jpeg")),
    security(("operator_key" = [])),
)]
pub async fn one(
    State(app): State<App>,
    operator: Operator,
    InPath(photo): InPath<Digest>,
    Params(query): Params<PhotoQuery>,
) -> Result<([(HeaderName, &'static str); 4], Vec<u8>), Refusal> {
    operator.may_see_people()?;
    operator.reaches_photo(&app, photo).await?;
    let size = query.size.unwrap_or_default();
    let (actor, request) = (operator.actor(), operator.request());
    let shown = pictures::shown(&app, photo, size, &actor, Some(request)).await?;
    let headers = [
        (header::CONTENT_TYPE, "image/jpeg"),
        // Whoever looks again is written down again, and nothing stays on the way.
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    shown.map(|bytes| (headers, bytes)).ok_or_else(Refusal::not_found)
}

/// A look at a photo.
#[derive(Debug, Serialize, ToSchema)]
pub struct PhotoReadView {
    /// Who looked, as events name an actor.
    pub reader: String,
    /// The request, for the operator's log.
    pub request_id: Option<String>,
    pub at: Time,
}

/// Who looked at a photo.
#[derive(Debug, Serialize, ToSchema)]
pub struct PhotoReads {
    /// The newest first, at most 1,000.
    pub data: Vec<PhotoReadView>,
}

/// Who looked at a photo, and when.
#[utoipa::path(
    get, path = "/v1/photos/{sha256}/reads", tag = "faces",
    operation_id = "listPhotoReads",
    params(("sha256" = String, Path, description = "Which photo")),
    responses((status = 200, body = PhotoReads)), security(("operator_key" = [])),
)]
pub async fn looked(
    State(app): State<App>,
    _operator: Operator,
    InPath(photo): InPath<Digest>,
) -> Result<Answer<PhotoReads>, Refusal> {
    let reads = reads::of(&app.pools.reader, photo).await?;
    let view = |read: reads::PhotoRead| PhotoReadView {
        reader: read.reader,
        request_id: read.request,
        at: read.at,
    };
    Ok(Answer(PhotoReads { data: reads.into_iter().map(view).collect() }))
}
