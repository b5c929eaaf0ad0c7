//! Pictures as people see them: decoded, cleaned of everything that isn't the picture, and each
//! look written down before it is granted.

use punchtrail_domain::log::recorded::Actor;
use punchtrail_infra::photos::reads;
use punchtrail_protocol::Digest;
use punchtrail_vision::{Picture, PictureError};

use crate::{
    problem::{Code, Refusal},
    state::App,
};

/// How large a picture is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// As it was taken.
    #[default]
    Full,
    /// At most 160 pixels on its longer side.
    Thumbnail,
}

/// A picture to be shown, a JPEG without metadata; none if its bytes aren't kept.
///
/// # Errors
/// When the look can't be written down, the store is out of reach, or it is no picture.
pub async fn shown(
    app: &App,
    photo: Digest,
    size: Size,
    reader: &Actor,
    request: Option<&str>,
) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(bytes) =
        app.photos.read(&photo).await.map_err(|error| {
            Refusal::photo_store(&error, "The photo can't be read now. Ask again.")
        })?
    else {
        return Ok(None);
    };
    reads::note(app.ledger.pool(), photo, reader, request).await?;
    let picture = app.on_a_core(move || {
        Picture::decode(&bytes).map(|picture| match size {
            Size::Full => picture.cleaned(),
            Size::Thumbnail => picture.thumbnail(),
        })
    });
    picture.await?.map(Some).map_err(|error| no_picture(&error))
}

/// The refusal of bytes that are no picture.
pub fn no_picture(error: &PictureError) -> Refusal {
    Refusal::new(Code::Invalid, format!("This can't be read as a picture: {error}."))
}
