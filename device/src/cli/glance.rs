//! Local measures of a picture: the same as the server's, on the device's own CPU. Without models
//! the device says nothing by itself, and asks the server.

use std::path::{Path, PathBuf};

use anyhow::Context;
use punchtrail_device::glance::Glance;
use punchtrail_protocol::guidance::Guidance;
use punchtrail_vision::{DETECTOR_FILE, EMBEDDER_FILE, Floors, Models, Picture};

/// Looks with the models in a folder, which are loaded for each look: a press comes now and then,
/// and the models are large.
pub(super) struct LocalGlance(pub PathBuf);

impl Glance for LocalGlance {
    fn guidance(&self, photo: &[u8]) -> Vec<Guidance> {
        let looked = models(&self.0).and_then(|models| {
            let picture = Picture::decode(photo)?;
            // What is expected of a person's head is none of the device's business, so nobody is
            // asked here to take anything off it.
            Ok(models.look(&picture, &Floors::default(), true).guidance)
        });
        looked.unwrap_or_else(|error| {
            tracing::warn!(error = %format!("{error:#}"), "a picture can't be looked at here");
            Vec::new()
        })
    }
}

fn models(folder: &Path) -> anyhow::Result<Models> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).with_context(|| path.display().to_string())
    };
    Ok(Models::load(&read(DETECTOR_FILE)?, &read(EMBEDDER_FILE)?)?)
}
