//! Dead letters in SQS: a queue of their own, which can only be looked at by taking.
//!
//! So whoever looks takes all that he shows, and lets go of them again at once; if he dies in
//! between they show again within [`HELD_FOR`]. Two who look at the same moment see each a part.

use std::{collections::HashSet, time::Duration};

use aws_sdk_sqs::types::{Message, QueueAttributeName};
use punchtrail_protocol::PunchId;
use serde::Deserialize;

use super::{
    DEAD_FOR, FAILED_FOR, RECEIVES, SqsQueue, fresh, message, received, sent_at_ms, since, text,
};
use crate::queue::{
    BATCH_MAX, DEAD_SHOWN_MAX, DeadLetter, Letter, PUT_BACK_MAX, PutBack, QueueError, never_done,
};

/// How long dead letters that are looked at are hidden, at most.
const HELD_FOR: Duration = Duration::from_secs(120);
/// How long is waited for more: with less SQS asks only some of its machines.
const MORE_WAIT: Duration = Duration::from_secs(1);
/// The most dead letters that one call looks at. SQS lets 120,000 be in hand.
const LOOKED_AT_MAX: usize = 100_000;

/// What a queue's RedrivePolicy says.
#[derive(Debug)]
pub(super) struct Named {
    /// Of the dead-letter queue.
    pub(super) name: String,
    /// Whose it is.
    pub(super) account: String,
    /// As it is written: SQS takes a number or a text.
    pub(super) receives_max: String,
}

/// Which dead-letter queue a RedrivePolicy names, if it names one.
pub(super) fn named(policy: &str) -> Option<Named> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Policy {
        dead_letter_target_arn: String,
        #[serde(default)]
        max_receive_count: serde_json::Value,
    }
    let policy: Policy = serde_json::from_str(policy).ok()?;
    // arn:aws:sqs:region:account:name
    let mut parts = policy.dead_letter_target_arn.split(':').skip(4).map(str::to_owned);
    let (account, name) = (parts.next()?, parts.next()?);
    let receives_max = match policy.max_receive_count {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Some(Named { name, account, receives_max })
}

impl SqsQueue {
    /// How many are there to be taken or put off, and how many in hand.
    pub(super) async fn count(&self, url: &str) -> Result<(u64, u64), QueueError> {
        use QueueAttributeName as Name;
        let names = [
            Name::ApproximateNumberOfMessages,
            Name::ApproximateNumberOfMessagesDelayed,
            Name::ApproximateNumberOfMessagesNotVisible,
        ];
        let found = self.calls.attributes(url, &names).await?;
        let [due, delayed, in_hand] =
            names.map(|name| found.get(&name).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0));
        Ok((due.saturating_add(delayed), in_hand))
    }

    /// Ten more dead letters, those that were seen already left out; none when there are no more.
    async fn more(&self, seen: &mut HashSet<String>) -> Result<Vec<Message>, QueueError> {
        let mut came = self.calls.receive(&self.dead, BATCH_MAX, MORE_WAIT, HELD_FOR).await?;
        came.retain(|letter| seen.insert(letter.message_id().unwrap_or_default().to_owned()));
        Ok(came)
    }

    /// Lets go of dead letters that were only looked at. If it can't they show later.
    async fn let_go(&self, held: &[String]) {
        let handles = held.iter().map(String::as_str);
        if let Err(error) = self.hide(&self.dead, handles, Duration::ZERO).await {
            tracing::debug!(%error, "dead letters that were looked at stay hidden for a while");
        }
    }

    /// The dead letters, up to so many.
    pub(super) async fn letters(&self, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let limit = limit.min(DEAD_SHOWN_MAX);
        let (mut seen, mut held, mut found) = (HashSet::new(), Vec::new(), Vec::new());
        let looked = async {
            while found.len() < limit {
                let more = self.more(&mut seen).await?;
                if more.is_empty() {
                    break;
                }
                held.extend(more.iter().filter_map(handle));
                found.extend(more.iter().map(shown));
            }
            Ok(())
        };
        let looked = looked.await;
        self.let_go(&held).await;
        found.truncate(limit);
        looked.map(|()| found)
    }

    /// Puts dead letters back in line. Each punch once a call, so that one that dies again
    /// meanwhile doesn't go round for ever.
    pub(super) async fn back(&self, which: PutBack) -> Result<usize, QueueError> {
        let (mut seen, mut held, mut done) = (HashSet::new(), Vec::new(), HashSet::new());
        let put = async {
            while done.len() < PUT_BACK_MAX && seen.len() < LOOKED_AT_MAX {
                let more = self.more(&mut seen).await?;
                if more.is_empty() {
                    break;
                }
                let wanted = |letter: &Message| {
                    let punch = message::read(letter.body().unwrap_or_default()).ok();
                    punch.filter(|punch| {
                        let asked_for = which == PutBack::All || which == PutBack::One(*punch);
                        asked_for && !done.contains(punch)
                    })
                };
                let (go, stay): (Vec<_>, Vec<_>) =
                    more.iter().partition(|letter| wanted(letter).is_some());
                let punches: Vec<_> = go.iter().copied().filter_map(wanted).collect();
                held.extend(stay.into_iter().filter_map(handle));
                self.back_ten(&go, &punches).await?;
                done.extend(punches);
            }
            Ok(())
        };
        let put = put.await;
        self.let_go(&held).await;
        put.map(|()| done.len())
    }

    /// First as new messages in line, then they are deleted here: in between both are there.
    async fn back_ten(&self, letters: &[&Message], punches: &[PunchId]) -> Result<(), QueueError> {
        let sent = self.outgoing(&self.url, fresh(punches)).await?;
        let accepted = sent.all_but(letters);
        let handles = accepted.into_iter().filter_map(|letter| letter.receipt_handle());
        self.delete(&self.dead, handles).await?;
        sent.into_result()
    }
}

fn handle(letter: &Message) -> Option<String> {
    letter.receipt_handle().map(str::to_owned)
}

fn shown(letter: &Message) -> DeadLetter {
    let read = message::read(letter.body().unwrap_or_default());
    let last = || text(letter, FAILED_FOR);
    let reason = match (text(letter, DEAD_FOR), read) {
        (Some(reason), _) => reason,
        // SQS buried it itself.
        (None, Ok(_)) => never_done(last().as_deref()),
        (None, Err(why)) => why.to_owned(),
    };
    // SQS's own count goes on here with each look; what we buried has the one that it had.
    let counted = text(letter, DEAD_FOR).and(text(letter, RECEIVES));
    let id = || letter.message_id().unwrap_or_default().to_owned();
    DeadLetter {
        letter: read.map_or_else(|_| Letter::Foreign(id()), Letter::Punch),
        reason,
        receives: counted.and_then(|count| count.parse().ok()).unwrap_or_else(|| received(letter)),
        age: since(sent_at_ms(letter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_names_a_queue_and_a_number() {
        let arn = "arn:aws:sqs:eu-central-1:123456789012:dead";
        for count in ["5", "\"5\""] {
            let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{count}}}"#);
            let named = named(&policy).unwrap();
            assert_eq!((&*named.account, &*named.name), ("123456789012", "dead"));
            assert_eq!(named.receives_max, "5");
        }
        for other in ["", "{}", r#"{"deadLetterTargetArn":"dead","maxReceiveCount":5}"#] {
            assert!(named(other).is_none(), "{other}");
        }
    }
}
