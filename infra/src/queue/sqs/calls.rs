//! Calls to SQS: each bounded, counted and, if it may help, tried again.
//!
//! The SDK tries a whole call again, three times in all with full jitter and within a budget. What
//! it doesn't see is a call that succeeded for some of its ten: those that SQS itself is to blame
//! for are sent again here.

use std::{
    collections::HashMap,
    error::Error,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_sqs::{
    Client,
    config::{
        self, ConfigBag, Intercept, RuntimeComponents,
        interceptors::BeforeTransmitInterceptorContextRef, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::{BoxError, ProvideErrorMetadata, SdkError},
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
        DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName, QueueAttributeName,
        SendMessageBatchRequestEntry,
    },
};
use futures::{StreamExt, TryStreamExt, stream};

use super::{super::BATCH_MAX, seconds};
use crate::queue::QueueError;

/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How often a call is tried.
const TRIES: u32 = 3;
/// How often what failed of a batch is sent, the first time counted.
const BATCH_TRIES: u32 = 3;
/// The longest pause before it is sent again: a random part of it, twice as long each time.
const BATCH_PAUSE: Duration = Duration::from_millis(200);
/// Batches under way at once for one caller.
const BATCHES_AT_ONCE: usize = 4;

/// What SQS is asked, in its own words.
const ACTIONS: [&str; 6] = [
    "SendMessageBatch",
    "ReceiveMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibilityBatch",
    "GetQueueAttributes",
    "GetQueueUrl",
];

/// Codes of refusals that pass, though they blame the sender.
const PASSING_CODES: [&str; 4] =
    ["RequestThrottled", "ThrottlingException", "OverLimit", "KmsThrottled"];

/// SQS, and how it is asked.
#[derive(Debug)]
pub(super) struct Calls {
    client: Client,
    answer_max: Duration,
    sent: Arc<AtomicU64>,
}

/// Counts each request of a call, those that are tried again, too.
#[derive(Debug)]
struct Counted {
    action: &'static str,
    sent: Arc<AtomicU64>,
}

impl Intercept for Counted {
    fn name(&self) -> &'static str {
        "punchtrail-calls"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("punchtrail_sqs_calls_total", "action" => self.action).increment(1);
        Ok(())
    }
}

/// Entries of a batch, and the call that takes ten of them.
pub(super) trait Batched: Clone + Send + Sync {
    /// Its name.
    const ACTION: &'static str;

    /// Its place among all that are given at once.
    fn id(&self) -> &str;

    /// Makes the call; which of them SQS left.
    fn call(
        calls: &Calls,
        url: &str,
        entries: Vec<Self>,
    ) -> impl Future<Output = Result<Vec<BatchResultErrorEntry>, QueueError>> + Send;
}

macro_rules! batched {
    ($entry:ident, $action:literal, $call:ident) => {
        impl Batched for $entry {
            const ACTION: &'static str = $action;

            fn id(&self) -> &str {
                self.id()
            }

            async fn call(
                calls: &Calls,
                url: &str,
                entries: Vec<Self>,
            ) -> Result<Vec<BatchResultErrorEntry>, QueueError> {
                let call = calls.client.$call().queue_url(url).set_entries(Some(entries));
                let call = call.customize().interceptor(calls.counted($action));
                let answer = call.send().await.map_err(refused($action))?;
                Ok(answer.failed)
            }
        }
    };
}

batched!(SendMessageBatchRequestEntry, "SendMessageBatch", send_message_batch);
batched!(DeleteMessageBatchRequestEntry, "DeleteMessageBatch", delete_message_batch);
batched!(
    ChangeMessageVisibilityBatchRequestEntry,
    "ChangeMessageVisibilityBatch",
    change_message_visibility_batch
);

/// What SQS left of what it was given in batches.
#[derive(Debug)]
pub(super) struct Refused {
    action: &'static str,
    left: Vec<BatchResultErrorEntry>,
}

impl Refused {
    fn at(entry: &BatchResultErrorEntry) -> Option<usize> {
        entry.id().parse().ok()
    }

    /// Those of what was given that SQS took.
    pub(super) fn all_but<'a, T>(&self, given: &'a [T]) -> Vec<&'a T> {
        let left: Vec<_> = self.left.iter().filter_map(Self::at).collect();
        let taken = given.iter().enumerate().filter(|(at, _)| !left.contains(at));
        taken.map(|(_, one)| one).collect()
    }

    /// The places of those that it left by our own fault: the receipt is of no use any more, say.
    pub(super) fn ours(&self) -> Vec<usize> {
        self.left.iter().filter(|entry| entry.sender_fault()).filter_map(Self::at).collect()
    }

    /// Nothing, when all were taken.
    pub(super) fn into_result(self) -> Result<(), QueueError> {
        let Some(one) = self.left.first() else { return Ok(()) };
        Err(QueueError::Partly {
            action: self.action,
            failed: self.left.len(),
            reason: format!("{} {}", one.code(), one.message().unwrap_or_default()),
            passes: self.left.iter().any(|entry| !entry.sender_fault()),
        })
    }

    /// The same, when it doesn't matter that some are ours no more.
    pub(super) fn but_for_ours(mut self) -> Result<(), QueueError> {
        self.left.retain(|entry| !entry.sender_fault());
        self.into_result()
    }
}

impl Calls {
    pub(super) fn new(config: &SdkConfig, answer_max: Duration) -> Self {
        let config = config::Builder::from(config)
            .timeout_config(timeouts(answer_max))
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
            .build();
        // They are there from the start, so that an alarm needn't mind one that is missing.
        for action in ACTIONS {
            metrics::counter!("punchtrail_sqs_calls_total", "action" => action).absolute(0);
        }
        Self { client: Client::from_conf(config), answer_max, sent: Arc::default() }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn counted(&self, action: &'static str) -> Counted {
        Counted { action, sent: Arc::clone(&self.sent) }
    }

    /// Gives SQS all of these, in tens, some at once, and those that it left by its own fault
    /// again.
    ///
    /// # Errors
    /// When a call failed as a whole, also after it was tried again.
    pub(super) async fn batched<E: Batched>(
        &self,
        url: &str,
        entries: Vec<E>,
    ) -> Result<Refused, QueueError> {
        let tens: Vec<Vec<E>> = entries.chunks(BATCH_MAX).map(<[E]>::to_vec).collect();
        let calls = tens.into_iter().map(|ten| self.batch(url, ten));
        let left: Vec<Vec<_>> =
            stream::iter(calls).buffer_unordered(BATCHES_AT_ONCE).try_collect().await?;
        Ok(Refused { action: E::ACTION, left: left.into_iter().flatten().collect() })
    }

    async fn batch<E: Batched>(
        &self,
        url: &str,
        mut entries: Vec<E>,
    ) -> Result<Vec<BatchResultErrorEntry>, QueueError> {
        let (mut left, mut pause) = (Vec::new(), BATCH_PAUSE);
        for tried in 1.. {
            let failed = E::call(self, url, entries.clone()).await?;
            let (ours, theirs): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(BatchResultErrorEntry::sender_fault);
            left.extend(ours);
            if theirs.is_empty() || tried == BATCH_TRIES {
                left.extend(theirs);
                break;
            }
            entries.retain(|entry| theirs.iter().any(|failed| failed.id() == entry.id()));
            tokio::time::sleep(pause.mul_f64(rand::random())).await;
            pause *= 2;
        }
        Ok(left)
    }

    /// Takes messages, and waits for the first.
    ///
    /// # Errors
    /// When SQS refuses, or doesn't answer.
    pub(super) async fn receive(
        &self,
        url: &str,
        max: usize,
        wait: Duration,
        visible_for: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        let action = "ReceiveMessage";
        // A long poll is silent for as long as it waits.
        let patient = timeouts(self.answer_max + wait);
        self.client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(max as i32)
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(visible_for))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_attribute_names("All")
            .customize()
            .config_override(config::Config::builder().timeout_config(patient))
            .interceptor(self.counted(action))
            .send()
            .await
            .map(|answer| answer.messages.unwrap_or_default())
            .map_err(refused(action))
    }

    /// What a queue is like.
    ///
    /// # Errors
    /// When SQS refuses, or doesn't answer.
    pub(super) async fn attributes(
        &self,
        url: &str,
        names: &[QueueAttributeName],
    ) -> Result<HashMap<QueueAttributeName, String>, QueueError> {
        let action = "GetQueueAttributes";
        self.client
            .get_queue_attributes()
            .queue_url(url)
            .set_attribute_names(Some(names.to_vec()))
            .customize()
            .interceptor(self.counted(action))
            .send()
            .await
            .map(|answer| answer.attributes.unwrap_or_default())
            .map_err(refused(action))
    }

    /// Where a queue of that name is.
    ///
    /// # Errors
    /// When SQS refuses, or doesn't answer.
    pub(super) async fn url_of(&self, name: &str, account: &str) -> Result<String, QueueError> {
        let action = "GetQueueUrl";
        let answer = self
            .client
            .get_queue_url()
            .queue_name(name)
            .queue_owner_aws_account_id(account)
            .customize()
            .interceptor(self.counted(action))
            .send()
            .await
            .map_err(refused(action))?;
        answer.queue_url.ok_or_else(|| malformed(action, "SQS said no URL"))
    }
}

/// All tries together may take twice as long as one: one that is silent, and one more.
fn timeouts(answer_max: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_MAX.min(answer_max))
        .operation_attempt_timeout(answer_max)
        .operation_timeout(answer_max * 2)
        .build()
}

/// For `map_err`: a call that failed as a whole.
fn refused<E, R>(action: &'static str) -> impl FnOnce(SdkError<E, R>) -> QueueError
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    move |error| {
        let service = error.as_service_error();
        let code = service.and_then(ProvideErrorMetadata::code);
        let reason = match (code, service.and_then(ProvideErrorMetadata::message)) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => causes(&error),
        };
        let passes = code.is_none_or(|code| {
            PASSING_CODES.contains(&code)
                || code.contains("Internal")
                || code.contains("Unavailable")
        });
        QueueError::Sqs { action, reason, passes }
    }
}

/// For `map_err`: what can't be asked, or isn't an answer.
pub(super) fn malformed(action: &'static str, why: impl ToString) -> QueueError {
    QueueError::Sqs { action, reason: why.to_string(), passes: false }
}

/// What an error says, and what lies behind it.
fn causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        said.push_str(": ");
        said.push_str(&behind.to_string());
        cause = behind.source();
    }
    said
}
