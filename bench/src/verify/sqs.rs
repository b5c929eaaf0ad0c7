//! Calls to SQS for so many messages, sent, received and deleted as the server does it, against
//! Moto. What it counts is what Amazon would count; how long it takes says nothing.

use std::time::Duration;

use anyhow::{Context, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::{Client, config::Credentials, types::QueueAttributeName};
use punchtrail_infra::queue::{BATCH_MAX, Queue, RECEIVES_MAX, Receipt, Sqs, SqsQueue};
use punchtrail_protocol::PunchId;
use punchtrail_testkit::Moto;
use serde::Serialize;
use uuid::Uuid;

use super::say;

/// How long a receive waits for a first message.
const WAIT: Duration = Duration::from_secs(5);
/// Moto is slow: how long a call may be silent, and how long what was taken is hidden.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const VISIBLE_FOR: Duration = Duration::from_secs(600);
/// Receives in a row that may bring nothing.
const EMPTY_MAX: usize = 5;

/// Requests to SQS, each try counted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Calls {
    pub messages: usize,
    pub send: u64,
    pub receive: u64,
    pub delete: u64,
}

impl Calls {
    /// All of them, for a thousand messages.
    pub fn per_thousand(&self) -> f64 {
        (self.send + self.receive + self.delete) as f64 * 1_000.0 / self.messages.max(1) as f64
    }
}

/// Measures it; none where there is no Moto, which is then said.
pub async fn measure(messages: usize) -> anyhow::Result<Option<Calls>> {
    let Some(moto) = Moto::start() else {
        say("sqs is left out: there is no Moto here, `./dev setup` brings it");
        return Ok(None);
    };
    let config = config(&moto.url()).await;
    let url = made(&Client::new(&config)).await?;
    let settings = Sqs { visible_for: VISIBLE_FOR, answer_max: ANSWER_MAX, ..Sqs::at(url) };
    let queue = SqsQueue::open(&config, settings).await?;
    let punches: Vec<PunchId> = (0..messages).map(|_| PunchId(Uuid::now_v7())).collect();

    let opened = queue.calls();
    queue.send(&punches).await?;
    let mut calls = Calls { messages, send: queue.calls() - opened, receive: 0, delete: 0 };
    let (mut done, mut empty) = (0, 0);
    while done < messages {
        let before = queue.calls();
        let taken = queue.receive(BATCH_MAX, WAIT).await?;
        calls.receive += queue.calls() - before;
        empty = if taken.is_empty() { empty + 1 } else { 0 };
        ensure!(empty < EMPTY_MAX, "only {done} of {messages} messages come out of the queue");
        let before = queue.calls();
        let receipts: Vec<Receipt> = taken.into_iter().map(|taken| taken.receipt).collect();
        queue.done(&receipts).await?;
        calls.delete += queue.calls() - before;
        done += receipts.len();
    }
    Ok(Some(calls))
}

async fn config(endpoint: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .load()
        .await
}

/// A queue with its dead letters.
async fn made(client: &Client) -> anyhow::Result<String> {
    let dead = client.create_queue().queue_name("bench-dead").send().await?;
    let dead = dead.queue_url.context("a queue has an address")?;
    let arn = QueueAttributeName::QueueArn;
    let about = client.get_queue_attributes().queue_url(dead).attribute_names(arn.clone());
    let about = about.send().await?.attributes.unwrap_or_default();
    let arn = about.get(&arn).context("a queue has a name")?;
    let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{RECEIVES_MAX}}}"#);
    let queue = client
        .create_queue()
        .queue_name("bench")
        .attributes(QueueAttributeName::RedrivePolicy, policy);
    queue.send().await?.queue_url.context("a queue has an address")
}
