//! Amazon Rekognition, asked about one picture.
//!
//! `DetectFaces` says whether there is one face that can be compared, and else what the worker can
//! do about it; `CompareFaces` then holds it against each reference photo, the newest first, until
//! one is like it. Both are stateless: nothing is kept at Amazon by these two actions, and no
//! collection of faces is ever made. Sent are the picture and reference photos, and nothing that
//! names anybody.
//!
//! It must never ask for what is no business of a punch clock: age, gender, emotions, beard.

mod error;
mod face;
mod picture;
mod throttling;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_rekognition::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    operation::{compare_faces::CompareFacesError, detect_faces::DetectFacesError},
    primitives::Blob,
    types::{Attribute, CompareFacesMatch, Image, QualityFilter},
};
use punchtrail_domain::punch::{Comparison, Failing, Miss, Missing, Provider, Quality};
use punchtrail_protocol::guidance::Guidance;

use self::{error::Failed, face::Face, throttling::Throttling};
use super::{Answer, Asked, Checker, Quota, Unavailable};

/// How many calls a second are made of each action, unless told otherwise. What an account is
/// allowed stands in its Service Quotas, by action and region.
pub const CALLS_PER_SECOND_DEFAULT: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// The most calls a second that can be asked for.
pub const CALLS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
/// How often a call is tried in all, with a random pause between, as the SDK does it.
const TRIES_MAX: u32 = 3;
/// The region's endpoints say no more of the model than the API's version.
const MODEL: &str = "Rekognition API 2016-06-27";
/// What is asked of a face beside where it is, how clear and how turned; nothing else, ever.
const ATTRIBUTES: [Attribute; 4] =
    [Attribute::Default, Attribute::EyesOpen, Attribute::FaceOccluded, Attribute::Sunglasses];

/// How Rekognition is reached.
#[derive(Debug, Clone)]
pub struct RekognitionOptions {
    /// The region; none to find it where the SDK does: environment, profile, the machine.
    pub region: Option<String>,
    /// The most calls a second of each of the two actions, from 1 to [`CALLS_PER_SECOND_MAX`].
    pub calls_per_second: NonZeroU32,
    pub timeouts: Timeouts,
}

impl Default for RekognitionOptions {
    fn default() -> Self {
        Self {
            region: None,
            calls_per_second: CALLS_PER_SECOND_DEFAULT,
            timeouts: Timeouts::default(),
        }
    }
}

/// How long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For one try of a call.
    pub attempt: Duration,
    /// For a call with all its tries.
    pub operation: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            attempt: Duration::from_secs(10),
            operation: Duration::from_secs(25),
        }
    }
}

/// Calls a second, of each action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    pub detect_faces: f64,
    pub compare_faces: f64,
}

/// Why Rekognition can't be used at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RekognitionError {
    #[error(
        "no AWS region is set; give --aws-region or AWS_REGION, one that offers \
         Rekognition and in which pictures of your staff may be looked at"
    )]
    NoRegion,
    #[error("--rekognition-calls-per-second can be {CALLS_PER_SECOND_MAX} at most")]
    TooManyCalls,
}

/// Amazon Rekognition. Cheap to share; the limit to the rate of calls is one for each of these.
#[derive(Debug)]
pub struct Rekognition {
    client: Client,
    detecting: Arc<Quota>,
    comparing: Arc<Quota>,
}

impl Rekognition {
    /// Finds region, credentials and endpoint as the SDK does, and calls nobody yet.
    ///
    /// # Errors
    /// If no region can be found, or the options are out of range.
    pub async fn connect(options: RekognitionOptions) -> Result<Self, RekognitionError> {
        let loader = aws_config::defaults(BehaviorVersion::latest());
        let loader = match options.region.clone() {
            Some(region) => loader.region(Region::new(region)),
            None => loader,
        };
        Self::with(&loader.load().await, &options)
    }

    /// The same with region, credentials and endpoint as given. A region in the options wins.
    ///
    /// # Errors
    /// As [`Rekognition::connect`].
    pub fn with(
        config: &SdkConfig,
        options: &RekognitionOptions,
    ) -> Result<Self, RekognitionError> {
        let region = options.region.clone().map(Region::new).or_else(|| config.region().cloned());
        let region = region.ok_or(RekognitionError::NoRegion)?;
        if options.calls_per_second > CALLS_PER_SECOND_MAX {
            return Err(RekognitionError::TooManyCalls);
        }
        let Timeouts { connect, attempt, operation } = options.timeouts;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(connect)
            .operation_attempt_timeout(attempt)
            .operation_timeout(operation)
            .build();
        let config = aws_sdk_rekognition::config::Builder::from(config)
            .region(region)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES_MAX))
            .build();
        let quota = || Arc::new(Quota::new(options.calls_per_second));
        Ok(Self { client: Client::from_conf(config), detecting: quota(), comparing: quota() })
    }

    /// How many calls a second are made of each action now: fewer than configured for a while after
    /// one was throttled.
    pub fn rates(&self) -> Rates {
        Rates {
            detect_faces: self.detecting.per_second(),
            compare_faces: self.comparing.per_second(),
        }
    }

    /// The faces on a picture.
    async fn detect(&self, picture: &[u8]) -> Result<Vec<Face>, Failed> {
        self.detecting.turn().await;
        let answer = self
            .client
            .detect_faces()
            .image(image(picture))
            .set_attributes(Some(ATTRIBUTES.to_vec()))
            .customize()
            .interceptor(Throttling::<DetectFacesError>::of(&self.detecting))
            .send()
            .await
            .map_err(|error| Failed::of("DetectFaces", &error))?;
        let faces = answer.face_details().iter().map(Face::read).collect::<Option<_>>();
        faces.ok_or_else(|| Failed::malformed("DetectFaces"))
    }

    /// How alike the face on a reference photo and the largest on the picture are, in
    /// ten-thousandths. Never somebody's in the background: who stands behind is not who punches.
    async fn compare(&self, reference: &[u8], picture: &[u8]) -> Result<u32, Failed> {
        self.comparing.turn().await;
        let answer = self
            .client
            .compare_faces()
            .source_image(image(reference))
            .target_image(image(picture))
            // All faces are told, however unlike, so that how close it was can be looked at.
            .similarity_threshold(0.0)
            .quality_filter(QualityFilter::None)
            .customize()
            .interceptor(Throttling::<CompareFacesError>::of(&self.comparing))
            .send()
            .await
            .map_err(|error| Failed::of("CompareFaces", &error))?;
        let largest = answer.face_matches().iter().max_by(|a, b| width(a).total_cmp(&width(b)));
        let Some(largest) = largest else { return Ok(0) };
        let similarity = largest.similarity.filter(|similarity| (0.0..=100.0).contains(similarity));
        let similarity = similarity.ok_or_else(|| Failed::malformed("CompareFaces"))?;
        Ok((similarity * 100.0).round() as u32)
    }

    async fn find(&self, asked: &Asked<'_>) -> Result<Answer, Unavailable> {
        let Some(width_px) = picture::width_px(asked.picture) else { return Ok(unreadable()) };
        let faces = match self.detect(asked.picture).await {
            Ok(faces) => faces,
            Err(Failed::Image(why)) => {
                tracing::info!(%why, "Rekognition can't read a picture");
                return Ok(unreadable());
            }
            Err(Failed::Unavailable(unavailable)) => return Err(unavailable),
        };
        let quality = match face::clear(&faces, width_px, asked) {
            Ok(quality) => quality,
            Err((quality, failing)) => {
                return Ok(Answer::Miss { quality, failing, comparison: None });
            }
        };
        let comparison = self.closest(asked).await?;
        Ok(judged(quality, comparison))
    }

    /// The comparison with the first reference photo that is like the picture, else the closest.
    async fn closest(&self, asked: &Asked<'_>) -> Result<Comparison, Unavailable> {
        let threshold = asked.thresholds.of(Provider::Rekognition);
        let mut closest: Option<Comparison> = None;
        for &reference in asked.references.photos {
            let read = asked.references.read(reference).await.map_err(|error| Unavailable {
                missing: Missing::Unreachable,
                passes: true,
                why: format!("a reference photo can't be read: {error}"),
            })?;
            let Some(bytes) = read else { continue };
            let similarity = match self.compare(&bytes, asked.picture).await {
                Ok(similarity) => similarity,
                Err(Failed::Image(why)) => {
                    tracing::warn!(%reference, %why, "a reference photo can't be compared with");
                    continue;
                }
                Err(Failed::Unavailable(unavailable)) => return Err(unavailable),
            };
            if closest.is_none_or(|before| similarity > before.similarity) {
                closest = Some(Comparison { reference, similarity, threshold });
            }
            if similarity >= threshold {
                break;
            }
        }
        closest.ok_or_else(|| Unavailable {
            missing: Missing::NothingToCompare,
            passes: false,
            why: "no reference photo of the person can be compared with".into(),
        })
    }
}

#[async_trait]
impl Checker for Rekognition {
    fn provider(&self) -> Provider {
        Provider::Rekognition
    }

    fn model(&self) -> &str {
        MODEL
    }

    async fn check(&self, asked: &Asked<'_>) -> Answer {
        self.find(asked).await.unwrap_or_else(Answer::Unavailable)
    }
}

fn image(bytes: &[u8]) -> Image {
    Image::builder().bytes(Blob::new(bytes)).build()
}

fn width(compared: &CompareFacesMatch) -> f32 {
    let face = compared.face().and_then(|face| face.bounding_box());
    face.and_then(|face| face.width).unwrap_or_default()
}

/// A picture that nobody can read. There is nothing that the worker could do about it.
fn unreadable() -> Answer {
    let failing = Failing { miss: Miss::Unreadable, guidance: Vec::new() };
    Answer::Miss { quality: None, failing, comparison: None }
}

fn judged(quality: Quality, comparison: Comparison) -> Answer {
    if comparison.similarity >= comparison.threshold {
        return Answer::Match { quality: Some(quality), comparison };
    }
    let failing = Failing { miss: Miss::Mismatch, guidance: vec![Guidance::ManagerWillLook] };
    Answer::Miss { quality: Some(quality), failing, comparison: Some(comparison) }
}
