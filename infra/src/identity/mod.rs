//! Is this the person? The port that checks of a face stand behind, and who stands there.
//!
//! A checker compares one picture with the person's reference photos and says what it found. It
//! never rejects anybody, and what it couldn't find out it says, too: that is no miss.
//!
//! - [`Checkers`]: several in the operator's order; the next is asked when one can't be reached.
//! - [`Local`]: models on the server's own CPU; what they make of reference photos is kept in
//!   [`embeddings`].
//! - [`Rekognition`]: Amazon's service, within a [`Quota`] of calls.
//! - [`ToReview`]: sends everyone to a person.

mod breaker;
pub mod embeddings;
mod local;
mod order;
mod quota;
mod rekognition;
mod review;

use std::io;

use async_trait::async_trait;
use punchtrail_domain::{
    policy::Policy,
    punch::{Comparison, Failing, Floors, Missing, Provider, Quality},
};
use punchtrail_protocol::Digest;

use crate::photos::PhotoStore;

pub use breaker::{FAILURES_MAX, PAUSE_FIRST, PAUSE_MAX};
pub use local::Local;
pub use order::{Checked, Checkers, NoChecker, Passed};
pub use quota::Quota;
pub use rekognition::{
    CALLS_PER_SECOND_DEFAULT, CALLS_PER_SECOND_MAX, Rates, Rekognition, RekognitionError,
    RekognitionOptions, Timeouts,
};
pub use review::ToReview;

/// Someone who can check a picture.
#[async_trait]
pub trait Checker: Send + Sync + 'static {
    /// Which one it is.
    fn provider(&self) -> Provider;

    /// Its model, with its version: at most 64 characters.
    fn model(&self) -> &str;

    /// Compares a picture with a person's reference photos.
    async fn check(&self, asked: &Asked<'_>) -> Answer;
}

/// What is asked of a checker.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The picture's bytes, JPEG or PNG, as the device made them.
    pub picture: &'a [u8],
    pub references: References<'a>,
    pub floors: Floors,
    pub thresholds: Thresholds,
    /// A head covering is expected of this person and no reason for guidance.
    pub covered_head: bool,
}

/// From which similarity on it is a match, for each provider in ten-thousandths of its own scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub rekognition: u32,
    pub local: u32,
}

impl Thresholds {
    /// That of a provider. A review by a person has none that could be reached.
    pub const fn of(self, provider: Provider) -> u32 {
        match provider {
            Provider::Rekognition => self.rekognition,
            Provider::Local => self.local,
            Provider::Review => u32::MAX,
        }
    }
}

impl From<&Policy> for Thresholds {
    fn from(policy: &Policy) -> Self {
        Self {
            rekognition: policy.face_threshold(Provider::Rekognition),
            local: policy.face_threshold(Provider::Local),
        }
    }
}

/// A person's reference photos, read only when they are needed.
#[derive(Clone, Copy)]
pub struct References<'a> {
    /// The newest first; at least one.
    pub photos: &'a [Digest],
    pub store: &'a dyn PhotoStore,
}

impl References<'_> {
    /// A photo's bytes; none if they are gone.
    ///
    /// # Errors
    /// When the store is out of reach.
    pub async fn read(&self, photo: Digest) -> io::Result<Option<Vec<u8>>> {
        self.store.read(&photo).await
    }
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Alike enough.
    Match { quality: Option<Quality>, comparison: Comparison },
    /// A picture that can't be used, or one that was not recognised.
    Miss { quality: Option<Quality>, failing: Failing, comparison: Option<Comparison> },
    /// It could not find out.
    Unavailable(Unavailable),
}

impl Answer {
    /// What it comes to in one word, for metrics: `match`, a kind of miss, or what is missing.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Match { .. } => "match",
            Self::Miss { failing, .. } => failing.miss.as_str(),
            Self::Unavailable(unavailable) => unavailable.missing.as_str(),
        }
    }
}

/// Why a checker could not find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    pub missing: Missing,
    /// Whether it may pass by itself.
    pub passes: bool,
    /// For the operator's log; never holds what a picture shows.
    pub why: String,
}

impl Unavailable {
    /// Whether somebody else may find out: this one is out of reach, at its limit or misconfigured.
    /// Otherwise it is about the picture or the references, and nobody can.
    pub fn is_of_the_checker(&self) -> bool {
        self.passes || self.missing == Missing::Refused
    }
}
