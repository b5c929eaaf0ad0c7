//! Several checkers, in the operator's order.
//!
//! The first that answers decides, whatever it finds: a miss is an answer, and nobody shops for a
//! better one. The next is asked only where one is out of reach, at its limit or refuses to work.
//! One that keeps failing is left alone for a while, so that pictures don't wait for it in vain.

use std::sync::Arc;

use punchtrail_domain::punch::Provider;

use super::{Answer, Asked, Checker, Unavailable, breaker::Breaker};

/// There has to be one at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody is named to check faces; name `review` to send each picture to a person")]
pub struct NoChecker;

/// Checkers in the order in which they are asked.
pub struct Checkers(Vec<Watched>);

/// A checker, and whether it is asked now.
struct Watched {
    checker: Arc<dyn Checker>,
    breaker: Breaker,
}

/// What was found, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub provider: Provider,
    /// Its model, with its version.
    pub model: String,
    /// From which similarity on it was a match for this provider, in ten-thousandths.
    pub threshold: u32,
    /// Where nobody could find out: what the first in the order failed by, and whether any of them
    /// may be able to later.
    pub answer: Answer,
    /// Who was passed over before, in order.
    pub before: Vec<Passed>,
}

/// A checker that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    pub provider: Provider,
    pub unavailable: Unavailable,
    /// Whether it was asked; not if it is left alone for having failed before.
    pub was_asked: bool,
}

impl Checkers {
    /// In this order.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(in_order: Vec<Arc<dyn Checker>>) -> Result<Self, NoChecker> {
        if in_order.is_empty() {
            return Err(NoChecker);
        }
        let watched = |checker| Watched { checker, breaker: Breaker::default() };
        Ok(Self(in_order.into_iter().map(watched).collect()))
    }

    /// Asks one after the other until one answers.
    pub async fn check(&self, asked: &Asked<'_>) -> Checked {
        let mut before = Vec::new();
        for watched in &self.0 {
            match watched.ask(asked).await {
                Ok(answer) => return watched.checked(asked, answer, before),
                Err(passed) => before.push(passed),
            }
        }
        let mut unavailable = before.remove(0).unavailable;
        unavailable.passes |= before.iter().any(|passed| passed.unavailable.passes);
        self.0[0].checked(asked, Answer::Unavailable(unavailable), before)
    }
}

impl Watched {
    async fn ask(&self, asked: &Asked<'_>) -> Result<Answer, Passed> {
        let provider = self.checker.provider();
        let leave = match self.breaker.leave() {
            Ok(leave) => leave,
            Err(missing) => {
                count(provider, "not_asked");
                let unavailable = Unavailable { missing, passes: true, why: LEFT_ALONE.into() };
                return Err(Passed { provider, unavailable, was_asked: false });
            }
        };
        let answer = self.checker.check(asked).await;
        count(provider, answer.outcome());
        match answer {
            Answer::Unavailable(unavailable) if unavailable.is_of_the_checker() => {
                leave.failed(unavailable.missing);
                let Unavailable { missing, ref why, .. } = unavailable;
                tracing::warn!(
                    provider = provider.as_str(),
                    missing = missing.as_str(),
                    %why,
                    "a check of a face did not come about"
                );
                Err(Passed { provider, unavailable, was_asked: true })
            }
            answer => {
                leave.answered();
                Ok(answer)
            }
        }
    }

    fn checked(&self, asked: &Asked<'_>, answer: Answer, before: Vec<Passed>) -> Checked {
        let provider = self.checker.provider();
        Checked {
            provider,
            model: self.checker.model().to_owned(),
            threshold: asked.thresholds.of(provider),
            answer,
            before,
        }
    }
}

/// Why one wasn't asked.
const LEFT_ALONE: &str = "it failed several times in a row and is left alone for a while";

fn count(provider: Provider, outcome: &'static str) {
    let provider = provider.as_str();
    metrics::counter!(
        "punchtrail_face_checks_total", "provider" => provider, "outcome" => outcome
    )
    .increment(1);
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Mutex, PoisonError},
    };

    use async_trait::async_trait;
    use punchtrail_domain::punch::{Comparison, Failing, Floors, Miss, Missing};
    use punchtrail_protocol::{Digest, guidance::Guidance};
    use tokio::time::advance;

    use super::{
        super::{FAILURES_MAX, PAUSE_FIRST, Thresholds, ToReview},
        *,
    };
    use crate::{identity::References, testing::photos::HeldPhotos};

    /// Answers what it was told to, and then always that it can't be reached.
    struct Told(Provider, Mutex<VecDeque<Answer>>, Mutex<u32>);

    impl Told {
        fn that(provider: Provider, answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
            let answers = answers.into_iter().collect();
            Arc::new(Self(provider, Mutex::new(answers), Mutex::new(0)))
        }

        fn asked(&self) -> u32 {
            *self.2.lock().unwrap()
        }
    }

    #[async_trait]
    impl Checker for Told {
        fn provider(&self) -> Provider {
            self.0
        }

        fn model(&self) -> &str {
            self.0.as_str()
        }

        async fn check(&self, _: &Asked<'_>) -> Answer {
            *self.2.lock().unwrap() += 1;
            let mut answers = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            answers.pop_front().unwrap_or_else(|| missing(Missing::Unreachable, true))
        }
    }

    fn missing(missing: Missing, passes: bool) -> Answer {
        Answer::Unavailable(Unavailable { missing, passes, why: "as the test wants it".into() })
    }

    fn miss() -> Answer {
        let failing = Failing { miss: Miss::NoFace, guidance: vec![Guidance::LookAtCamera] };
        Answer::Miss { quality: None, failing, comparison: None }
    }

    fn found() -> Answer {
        let reference = Digest::of(b"reference");
        let comparison = Comparison { reference, similarity: 9_990, threshold: 9_900 };
        Answer::Match { quality: None, comparison }
    }

    async fn check(checkers: &Checkers) -> Checked {
        let floors =
            Floors { brightness_min: 0, brightness_max: 100, sharpness_min: 0, face_px_min: 0 };
        let thresholds = Thresholds { rekognition: 9_900, local: 4_000 };
        let held = HeldPhotos::default();
        let references = References { photos: &[], store: &held };
        let asked = Asked { picture: b"", references, floors, thresholds, covered_head: false };
        checkers.check(&asked).await
    }

    fn in_order(first: &Arc<Told>, second: &Arc<Told>) -> Checkers {
        Checkers::new(vec![first.clone(), second.clone()]).unwrap()
    }

    #[tokio::test]
    async fn the_first_that_answers_decides_also_by_a_miss() {
        for answer in [found(), miss(), missing(Missing::NothingToCompare, false)] {
            let first = Told::that(Provider::Rekognition, [answer.clone()]);
            let second = Told::that(Provider::Local, [found()]);
            let checked = check(&in_order(&first, &second)).await;
            assert_eq!((checked.answer, checked.before), (answer, vec![]));
            assert_eq!((checked.provider, checked.threshold), (Provider::Rekognition, 9_900));
            assert_eq!(second.asked(), 0);
        }
    }

    #[tokio::test]
    async fn the_next_is_asked_where_one_cannot_with_its_own_threshold() {
        let failures = [(Missing::Unreachable, true), (Missing::Throttled, true)];
        for (why, passes) in failures.into_iter().chain([(Missing::Refused, false)]) {
            let first = Told::that(Provider::Rekognition, [missing(why, passes)]);
            let second = Told::that(Provider::Local, [found()]);
            let checked = check(&in_order(&first, &second)).await;
            assert_eq!(checked.answer, found());
            assert_eq!((checked.provider, checked.threshold), (Provider::Local, 4_000));
            assert_eq!(checked.model, "local");
            let [passed] = &checked.before[..] else { panic!("{:?}", checked.before) };
            assert_eq!((passed.provider, passed.was_asked), (Provider::Rekognition, true));
            assert_eq!(passed.unavailable.missing, why);
        }
    }

    #[tokio::test]
    async fn where_nobody_can_the_first_says_why_and_whether_any_may_later() {
        let first = Told::that(Provider::Rekognition, [missing(Missing::Refused, false)]);
        let second = Told::that(Provider::Local, [missing(Missing::Unreachable, true)]);
        let checked = check(&in_order(&first, &second)).await;
        assert_eq!(checked.provider, Provider::Rekognition);
        assert_eq!(checked.answer, missing(Missing::Refused, true));
    }

    #[tokio::test]
    async fn a_review_at_the_end_takes_what_nobody_could_check() {
        let first = Told::that(Provider::Rekognition, []);
        let checkers = Checkers::new(vec![first, Arc::new(ToReview)]).unwrap();
        let checked = check(&checkers).await;
        assert_eq!(checked.provider, Provider::Review);
        let Answer::Unavailable(unavailable) = checked.answer else { panic!() };
        assert_eq!(unavailable.missing, Missing::SentToReview);
        assert!(!unavailable.passes);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_keeps_failing_is_left_alone_and_tried_again_later() {
        let down = (0..FAILURES_MAX).map(|_| missing(Missing::Unreachable, true));
        let first = Told::that(Provider::Rekognition, down.chain([found()]));
        let second = Told::that(Provider::Local, (0..20).map(|_| miss()));
        let checkers = in_order(&first, &second);
        for _ in 0..FAILURES_MAX + 3 {
            assert_eq!(check(&checkers).await.provider, Provider::Local);
        }
        assert_eq!(first.asked(), FAILURES_MAX);
        let passed = check(&checkers).await.before.remove(0);
        assert!(!passed.was_asked && passed.unavailable.passes);
        advance(PAUSE_FIRST).await;
        assert_eq!(check(&checkers).await.provider, Provider::Rekognition);
    }

    #[test]
    fn somebody_has_to_check() {
        assert_eq!(Checkers::new(vec![]).err(), Some(NoChecker));
    }
}
