//! The queue in Amazon SQS: a standard queue and its dead-letter queue.
//!
//! What a message can't carry in its body, which names the punch alone, it carries as attributes:
//! how often it was taken before, since when it waits, what was last said of why it failed. SQS
//! counts each receive, also of what is then put off, and its count can't be turned back. So what
//! goes back in line goes as a **new** message with the count that it should have, and the old one
//! is deleted once the new one is accepted: in between both are there, which is twice and harmless.
//! Only what a holder that died leaves behind is counted by SQS itself, and added.
//!
//! Dead letters are buried by us, with their reason; SQS's own redrive buries what nobody comes to
//! bury. They last as long as their queue's retention, 14 days at most.

mod calls;
mod dead;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig, meta::region::RegionProviderChain};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
    MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use punchtrail_protocol::PunchId;

use self::calls::{Calls, Refused, malformed};
use super::{
    BATCH_MAX, DeadLetter, Depth, LATER_MAX, PutBack, Queue, QueueError, RECEIVES_MAX, Receipt,
    Taken, VISIBLE_FOR, WAIT_MAX, kept, message, never_done,
};

/// The fewest and the most receives after which SQS may bury a message itself: sooner, a restart
/// at the wrong moment would do; later, it would hardly ever.
const REDRIVE_RECEIVES: [u32; 2] = [3, 100];
/// How long a call may be silent.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// What SQS hides a message for at most.
const VISIBLE_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// Attributes of our messages. A queue's own are told apart by their names: SQS's are in capitals.
const RECEIVES: &str = "receives";
const SENT_AT: &str = "sent_at_ms";
/// Why it failed the last time.
const FAILED_FOR: &str = "failed_for";
/// Why it is dead.
const DEAD_FOR: &str = "dead_for";

/// Which queue, and how it is used.
#[derive(Debug, Clone)]
pub struct Sqs {
    /// `https://sqs.<region>.amazonaws.com/<account>/<name>`.
    pub url: String,
    /// How long what is taken is hidden from others, in whole seconds, [`VISIBLE_FOR`] by default.
    pub visible_for: Duration,
    /// How long a try of a call may be silent, 5 s by default. A long poll may be for as long more
    /// as it waits. A call has three tries.
    pub answer_max: Duration,
}

impl Sqs {
    /// With the usual times.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), visible_for: VISIBLE_FOR, answer_max: ANSWER_MAX }
    }
}

/// Where AWS is and who we are there, by the SDK's own chain: variables (`AWS_ACCESS_KEY_ID` …,
/// `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_SQS`), profiles, web identity, container, machine. The
/// region is `region`, or the one in the queue's URL, or the chain's.
pub async fn aws(region: Option<String>, queue_url: &str) -> SdkConfig {
    let region = region.or_else(|| region_of(queue_url)).map(Region::new);
    let region = RegionProviderChain::first_try(region).or_default_provider();
    aws_config::defaults(BehaviorVersion::latest()).region(region).load().await
}

fn region_of(url: &str) -> Option<String> {
    let host = url.split_once("://")?.1.split('/').next()?;
    let region = host.strip_prefix("sqs.")?.split_once(".amazonaws.com")?.0;
    Some(region.to_owned())
}

/// The queue in SQS.
#[derive(Debug)]
pub struct SqsQueue {
    calls: Calls,
    /// Of the queue.
    url: String,
    /// Of its dead-letter queue.
    dead: String,
    visible_for: Duration,
    /// How long the oldest had waited that was taken since the depth was last asked for.
    oldest: Mutex<Option<Duration>>,
}

/// A message of ours, as it is written.
struct Outgoing {
    body: String,
    delay: Duration,
    attributes: HashMap<String, MessageAttributeValue>,
}

impl SqsQueue {
    /// Looks at the queue, and finds its dead letters.
    ///
    /// # Errors
    /// When it can't be reached, or isn't made as it should be.
    pub async fn open(config: &SdkConfig, settings: Sqs) -> Result<Self, QueueError> {
        let Sqs { url, visible_for, answer_max } = settings;
        if url.ends_with(".fifo") {
            return Err(QueueError::Fifo { url });
        }
        let calls = Calls::new(config, answer_max);
        let policy = calls.attributes(&url, &[QueueAttributeName::RedrivePolicy]).await?;
        let policy = policy.get(&QueueAttributeName::RedrivePolicy);
        let Some(dead) = policy.and_then(|policy| dead::named(policy)) else {
            return Err(QueueError::NoDeadLetters { url });
        };
        let [least, most] = REDRIVE_RECEIVES;
        if !dead.receives_max.parse().is_ok_and(|count| (least..=most).contains(&count)) {
            let found = dead.receives_max;
            return Err(QueueError::OddReceives { url, found, least, most });
        }
        let dead = calls.url_of(&dead.name, &dead.account).await?;
        let visible_for = visible_for.clamp(Duration::from_secs(1), VISIBLE_MAX);
        Ok(Self { calls, url, dead, visible_for, oldest: Mutex::default() })
    }

    /// How many requests were sent to SQS so far, those that were tried again counted each time.
    pub fn calls(&self) -> u64 {
        self.calls.sent()
    }

    /// Puts these in line, each for its receipt, and then deletes what they came from.
    async fn replace(&self, taken: &[Receipt], new: Vec<Outgoing>) -> Result<(), QueueError> {
        let sent = self.outgoing(&self.url, new).await?;
        let accepted = sent.all_but(taken);
        self.delete(&self.url, accepted.iter().map(|receipt| &*receipt.handle)).await?;
        sent.into_result()
    }

    /// Buries these, each with its reason.
    async fn bury(&self, taken: &[(&Receipt, String)]) -> Result<(), QueueError> {
        let new = taken.iter().map(|(receipt, reason)| Outgoing {
            body: message::written(receipt.punch),
            delay: Duration::ZERO,
            attributes: attributes(receipt.receives, receipt.sent_at_ms, Some((DEAD_FOR, reason))),
        });
        let sent = self.outgoing(&self.dead, new.collect()).await?;
        let receipts: Vec<Receipt> = taken.iter().map(|(receipt, _)| (*receipt).clone()).collect();
        let accepted = sent.all_but(&receipts);
        for Receipt { punch, .. } in &accepted {
            tracing::warn!(%punch, "a check is given up; it is among the dead letters");
        }
        self.delete(&self.url, accepted.iter().map(|receipt| &*receipt.handle)).await?;
        sent.into_result()
    }

    /// Buries somebody else's message as it is. What can't be buried comes again, until SQS buries
    /// it itself.
    async fn bury_foreign(&self, foreign: &Message, why: &str) {
        let id = foreign.message_id().unwrap_or_default();
        tracing::warn!(message = id, why, "somebody else's message is in the queue of checks");
        let letter = Outgoing {
            body: foreign.body().unwrap_or_default().to_owned(),
            delay: Duration::ZERO,
            attributes: attributes(received(foreign), sent_at_ms(foreign), Some((DEAD_FOR, why))),
        };
        let buried = async {
            self.outgoing(&self.dead, vec![letter]).await?.into_result()?;
            self.delete(&self.url, foreign.receipt_handle()).await
        };
        if let Err(error) = buried.await {
            tracing::warn!(message = id, %error, "it stays there for now");
        }
    }

    async fn outgoing(&self, url: &str, new: Vec<Outgoing>) -> Result<Refused, QueueError> {
        let entry = |(id, Outgoing { body, delay, attributes }): (usize, Outgoing)| {
            SendMessageBatchRequestEntry::builder()
                .id(id.to_string())
                .message_body(body)
                .delay_seconds(seconds(delay.min(LATER_MAX)))
                .set_message_attributes(Some(attributes).filter(|some| !some.is_empty()))
                .build()
                .map_err(|error| malformed("SendMessageBatch", error))
        };
        let entries = new.into_iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        self.calls.batched(url, entries).await
    }

    /// One that SQS refuses to delete isn't held any more: somebody else has it, or had.
    async fn delete<'a>(
        &self,
        url: &str,
        handles: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), QueueError> {
        let entry = |(id, handle): (usize, &str)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(id.to_string())
                .receipt_handle(handle)
                .build()
                .map_err(|error| malformed("DeleteMessageBatch", error))
        };
        let entries = handles.into_iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        self.calls.batched(url, entries).await?.but_for_ours()
    }

    /// Hides what is in hand for so long from now. Which of them, by their places, aren't held.
    async fn hide<'a>(
        &self,
        url: &str,
        handles: impl IntoIterator<Item = &'a str>,
        visible_for: Duration,
    ) -> Result<Vec<usize>, QueueError> {
        let entry = |(id, handle): (usize, &str)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(id.to_string())
                .receipt_handle(handle)
                .visibility_timeout(seconds(visible_for))
                .build()
                .map_err(|error| malformed("ChangeMessageVisibilityBatch", error))
        };
        let entries = handles.into_iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>()?;
        let refused = self.calls.batched(url, entries).await?;
        let lost = refused.ours();
        refused.but_for_ours()?;
        Ok(lost)
    }

    fn saw(&self, waited: Duration) {
        let mut oldest = self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        *oldest = (*oldest).max(Some(waited));
    }

    /// What came, by what is to be done with it: to be handled; to be buried.
    async fn sorted(&self, came: Vec<Message>) -> Result<Vec<Taken>, QueueError> {
        let (mut taken, mut lost) = (Vec::new(), Vec::new());
        for came in came {
            match read(&came) {
                Err(why) => self.bury_foreign(&came, why).await,
                Ok(one) if one.receives > RECEIVES_MAX => lost.push(one.receipt),
                Ok(one) => {
                    self.saw(one.waited);
                    taken.push(one);
                }
            }
        }
        let lost: Vec<_> =
            lost.iter().map(|one: &Receipt| (one, never_done(one.last.as_deref()))).collect();
        if let Err(error) = self.bury(&lost).await {
            tracing::warn!(%error, "checks that nobody finished can't be given up now");
        }
        Ok(taken)
    }
}

/// Messages of punches that wait from now on.
fn fresh(punches: &[PunchId]) -> Vec<Outgoing> {
    let new = |punch: &PunchId| Outgoing {
        body: message::written(*punch),
        delay: Duration::ZERO,
        attributes: HashMap::new(),
    };
    punches.iter().map(new).collect()
}

/// What our messages carry beside the body.
fn attributes(
    receives: u32,
    sent_at_ms: i64,
    reason: Option<(&str, &str)>,
) -> HashMap<String, MessageAttributeValue> {
    let number = |name: &str, value: String| (name.to_owned(), value, "Number");
    [number(RECEIVES, receives.to_string()), number(SENT_AT, sent_at_ms.to_string())]
        .into_iter()
        .chain(reason.map(|(name, reason)| (name.to_owned(), kept(reason), "String")))
        .filter_map(|(name, value, kind)| {
            let value =
                MessageAttributeValue::builder().data_type(kind).string_value(value).build();
            value.ok().map(|value| (name, value))
        })
        .collect()
}

fn text(message: &Message, name: &str) -> Option<String> {
    message.message_attributes()?.get(name)?.string_value().map(str::to_owned)
}

fn system(message: &Message, name: &MessageSystemAttributeName) -> Option<i64> {
    message.attributes()?.get(name)?.parse().ok()
}

/// How often it was taken: before it was written anew, and since.
fn received(message: &Message) -> u32 {
    let before = text(message, RECEIVES).and_then(|count| count.parse::<u32>().ok());
    let since = system(message, &MessageSystemAttributeName::ApproximateReceiveCount);
    let since = since.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
    before.unwrap_or_default().saturating_add(since)
}

/// When it was first sent.
fn sent_at_ms(message: &Message) -> i64 {
    text(message, SENT_AT)
        .and_then(|at| at.parse().ok())
        .or_else(|| system(message, &MessageSystemAttributeName::SentTimestamp))
        .unwrap_or_default()
}

/// How long ago that was, by this machine's clock; no time when it lies ahead.
fn since(at_ms: i64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(u64::try_from(at_ms).unwrap_or_default()))
}

/// Whole seconds, as SQS counts, no shorter than they are.
fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i32::try_from(whole).unwrap_or(i32::MAX)
}

fn read(came: &Message) -> Result<Taken, &'static str> {
    let punch = message::read(came.body().unwrap_or_default())?;
    let handle = came.receipt_handle().ok_or("it can't be held")?.to_owned();
    let (receives, sent_at_ms) = (received(came), sent_at_ms(came));
    let last = text(came, FAILED_FOR);
    let receipt = Receipt { punch, handle, receives, sent_at_ms, last };
    Ok(Taken { punch, receives, waited: since(sent_at_ms), receipt })
}

#[async_trait]
impl Queue for SqsQueue {
    async fn send(&self, punches: &[PunchId]) -> Result<(), QueueError> {
        self.outgoing(&self.url, fresh(punches)).await?.into_result()
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Taken>, QueueError> {
        let max = max.clamp(1, BATCH_MAX);
        let came = self.calls.receive(&self.url, max, wait.min(WAIT_MAX), self.visible_for).await?;
        self.sorted(came).await
    }

    async fn extend(&self, taken: &[Receipt]) -> Result<Vec<PunchId>, QueueError> {
        let handles = taken.iter().map(|receipt| &*receipt.handle);
        let lost = self.hide(&self.url, handles, self.visible_for).await?;
        Ok(lost.into_iter().filter_map(|at| taken.get(at)).map(Receipt::punch).collect())
    }

    async fn done(&self, taken: &[Receipt]) -> Result<(), QueueError> {
        self.delete(&self.url, taken.iter().map(|receipt| &*receipt.handle)).await
    }

    async fn later(&self, taken: &[Receipt], after: Duration) -> Result<(), QueueError> {
        let new = taken.iter().map(|receipt| Outgoing {
            body: message::written(receipt.punch),
            delay: after,
            attributes: attributes(
                receipt.receives.saturating_sub(1),
                receipt.sent_at_ms,
                receipt.last.as_deref().map(|last| (FAILED_FOR, last)),
            ),
        });
        self.replace(taken, new.collect()).await
    }

    async fn failed(
        &self,
        taken: &[Receipt],
        after: Duration,
        reason: &str,
    ) -> Result<(), QueueError> {
        let (lost, back): (Vec<_>, Vec<_>) =
            taken.iter().cloned().partition(|receipt| receipt.receives >= RECEIVES_MAX);
        let new = back.iter().map(|receipt| Outgoing {
            body: message::written(receipt.punch),
            delay: after,
            attributes: attributes(
                receipt.receives,
                receipt.sent_at_ms,
                Some((FAILED_FOR, reason)),
            ),
        });
        let replaced = self.replace(&back, new.collect()).await;
        self.give_up(&lost, reason).await.and(replaced)
    }

    async fn give_up(&self, taken: &[Receipt], reason: &str) -> Result<(), QueueError> {
        let with_reason: Vec<_> =
            taken.iter().map(|receipt| (receipt, reason.to_owned())).collect();
        self.bury(&with_reason).await
    }

    async fn depth(&self) -> Result<Depth, QueueError> {
        let (line, dead) = tokio::try_join!(self.count(&self.url), self.count(&self.dead))?;
        let oldest = self.oldest.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Depth { waiting: line.0, in_hand: line.1, dead: dead.0 + dead.1, oldest })
    }

    async fn dead(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.letters(limit).await
    }

    async fn put_back(&self, which: PutBack) -> Result<usize, QueueError> {
        self.back(which).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_stands_in_the_queues_url() {
        let of = |url: &str| region_of(url);
        let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/checks";
        assert_eq!(of(url).as_deref(), Some("eu-central-1"));
        let china = "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/checks";
        assert_eq!(of(china).as_deref(), Some("cn-north-1"));
        for other in ["http://127.0.0.1:9324/123456789012/checks", "checks", ""] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_region_that_is_given_comes_before_the_urls() {
        let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/checks";
        let region = async |given: Option<&str>| {
            aws(given.map(str::to_owned), url).await.region().map(ToString::to_string)
        };
        assert_eq!(region(None).await.as_deref(), Some("eu-central-1"));
        assert_eq!(region(Some("eu-west-3")).await.as_deref(), Some("eu-west-3"));
    }

    #[test]
    fn seconds_are_whole_and_no_shorter() {
        let of = |millis| seconds(Duration::from_millis(millis));
        assert_eq!([of(0), of(1), of(1_000), of(1_001)], [0, 1, 1, 2]);
        assert_eq!(seconds(Duration::MAX), i32::MAX);
    }
}
