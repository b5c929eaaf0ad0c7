//! The local check: models on the server's own CPU. A picture leaves this machine for nobody.

use std::sync::Arc;

use async_trait::async_trait;
use punchtrail_domain::punch::{Comparison, Failing, Miss, Missing, Provider, Quality};
use punchtrail_protocol::{Digest, guidance::Guidance};
use punchtrail_vision::{Embedding, Floors, Look, MODEL, Models, Picture, PictureError};

use super::{Answer, Asked, Checker, Unavailable, embeddings::Embeddings};
use crate::threads::Threads;

/// Ten-thousandths in one.
const ONE: f32 = 10_000.0;

/// Checks by the local models, no more at once than there are cores.
pub struct Local {
    models: Arc<Models>,
    embeddings: Embeddings,
    cores: Threads,
}

impl Local {
    /// With these models; what they make of reference photos is kept in `embeddings`.
    pub fn new(models: Arc<Models>, embeddings: Embeddings, cores: Threads) -> Self {
        Self { models, embeddings, cores }
    }

    /// Looks at a picture away from the threads that serve.
    async fn look(
        &self,
        bytes: Vec<u8>,
        floors: Floors,
        covered_head: bool,
    ) -> Result<Result<Look, PictureError>, Unavailable> {
        let models = Arc::clone(&self.models);
        let looking = self.cores.run(move || {
            Picture::decode(&bytes).map(|picture| models.look(&picture, &floors, covered_head))
        });
        looking.await.map_err(away)
    }

    /// What the model makes of a reference photo; none if nothing can be compared with it.
    async fn reference(
        &self,
        asked: &Asked<'_>,
        photo: Digest,
    ) -> Result<Option<Embedding>, Unavailable> {
        let kept = self.embeddings.get(photo, MODEL).await.map_err(away)?;
        if let Some(embedding) = kept.and_then(|kept| Embedding::from_bytes(&kept).ok()) {
            return Ok(Some(embedding));
        }
        let Some(bytes) = asked.references.read(photo).await.map_err(away)? else {
            return Ok(None);
        };
        let made = self.look(bytes, Floors::default(), true).await?.ok();
        let Some(embedding) = made.and_then(|look| look.embedding) else {
            tracing::warn!(%photo, "no face is found on a reference photo; it is passed over");
            return Ok(None);
        };
        self.embeddings.put(photo, MODEL, &embedding.to_bytes()).await.map_err(away)?;
        Ok(Some(embedding))
    }

    /// The reference photo that it comes closest to, the first match if there is one.
    async fn compare(
        &self,
        asked: &Asked<'_>,
        found: &Embedding,
    ) -> Result<Option<Comparison>, Unavailable> {
        let threshold = asked.thresholds.of(Provider::Local);
        let mut closest: Option<Comparison> = None;
        for &reference in asked.references.photos {
            let Some(known) = self.reference(asked, reference).await? else { continue };
            let similarity = (found.similarity(&known).clamp(0.0, 1.0) * ONE).round() as u32;
            if closest.is_none_or(|closest| similarity > closest.similarity) {
                closest = Some(Comparison { reference, similarity, threshold });
            }
            if similarity >= threshold {
                break;
            }
        }
        Ok(closest)
    }

    async fn answer(&self, asked: &Asked<'_>) -> Result<Answer, Unavailable> {
        let floors = Floors {
            brightness_min: asked.floors.brightness_min,
            brightness_max: asked.floors.brightness_max,
            sharpness_min: asked.floors.sharpness_min,
            face_px_min: asked.floors.face_px_min,
        };
        let miss = |miss, guidance, quality| {
            let failing = Failing { miss, guidance };
            Ok(Answer::Miss { quality, failing, comparison: None })
        };
        let look = match self.look(asked.picture.to_vec(), floors, asked.covered_head).await? {
            Ok(look) => look,
            Err(error) => {
                tracing::info!(%error, "a picture can't be read");
                return miss(Miss::Unreadable, vec![Guidance::ManagerWillLook], None);
            }
        };
        let quality = look.quality.map(|found| Quality {
            brightness: found.brightness,
            sharpness: found.sharpness,
            face_px: found.face_px,
        });
        let embedding = match look.embedding {
            Some(embedding) if look.guidance.is_empty() => embedding,
            _ => {
                let kind = match look.guidance.first() {
                    _ if look.faces.is_empty() => Miss::NoFace,
                    Some(Guidance::OnePerson) => Miss::SeveralFaces,
                    _ => Miss::Unclear,
                };
                return miss(kind, look.guidance, quality);
            }
        };
        let comparison = self.compare(asked, &embedding).await?.ok_or_else(|| Unavailable {
            missing: Missing::NothingToCompare,
            passes: false,
            why: "no reference photo can be compared with".to_owned(),
        })?;
        if comparison.similarity >= comparison.threshold {
            return Ok(Answer::Match { quality, comparison });
        }
        let failing = Failing { miss: Miss::Mismatch, guidance: vec![Guidance::ManagerWillLook] };
        Ok(Answer::Miss { quality, failing, comparison: Some(comparison) })
    }
}

fn away(error: impl std::fmt::Display) -> Unavailable {
    Unavailable { missing: Missing::Unreachable, passes: true, why: error.to_string() }
}

#[async_trait]
impl Checker for Local {
    fn provider(&self) -> Provider {
        Provider::Local
    }

    fn model(&self) -> &str {
        MODEL
    }

    async fn check(&self, asked: &Asked<'_>) -> Answer {
        self.answer(asked).await.unwrap_or_else(Answer::Unavailable)
    }
}
