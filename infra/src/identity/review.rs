//! No checker at all: each picture goes to a person.

use async_trait::async_trait;
use punchtrail_domain::punch::{Missing, Provider};

use super::{Answer, Asked, Checker, Unavailable};

/// Sends everyone to a person. It looks at no picture.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToReview;

#[async_trait]
impl Checker for ToReview {
    fn provider(&self) -> Provider {
        Provider::Review
    }

    fn model(&self) -> &str {
        "a person"
    }

    async fn check(&self, _: &Asked<'_>) -> Answer {
        Answer::Unavailable(Unavailable {
            missing: Missing::SentToReview,
            passes: false,
            why: "each picture goes to a person here".into(),
        })
    }
}
