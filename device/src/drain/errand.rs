//! Doing one errand: the call, and what its answer changes in the store, in one transaction.

use punchtrail_protocol::{
    Digest, Time,
    signing::to_base64url,
    wire::{
        BATCH_BYTES_MAX, BatchItem, BatchRequest, DevicePolicy, Heartbeat, HeartbeatAnswer,
        ItemStatus,
    },
};
use tokio::time::Instant;

use super::lane::{Heard, Need};
use crate::{
    APP,
    client::{BatchOutcome, CallError, Server},
    clock::Moment,
    device::Device,
    manifest,
    store::{
        StoreError, Write,
        contact::{self, Contact},
        identity::{self, Identity},
        outbox::{self, Acknowledgement, Waiting},
        photos, roster,
    },
};

/// Room in a batch's body for what stands around its items, in bytes.
const BATCH_MARGIN_BYTES: usize = 4_096;
/// What stands around an item's two texts, in bytes.
const ITEM_MARGIN_BYTES: usize = 64;

/// Why an errand wasn't done.
#[derive(Debug, thiserror::Error)]
pub enum Setback {
    /// The call.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The store. What the call did may be done; it will be done again, which is safe.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What became of a batch that was sent.
#[derive(Debug)]
pub struct Sent {
    /// Numbers of the items, in their order.
    pub seqs: Vec<u64>,
    /// How long the call took, in milliseconds.
    pub took_ms: u64,
    /// The pause the server asks for, in milliseconds; or why it failed.
    pub outcome: Result<u64, CallError>,
}

/// What became of a photo.
#[derive(Debug)]
pub enum PhotoSent {
    /// The server has it.
    Stored,
    /// Its file is gone or damaged.
    Lost,
    /// The server refused this photo, for what it is.
    Refused(CallError),
}

impl Device {
    /// What `identity` has to deliver, and what is known of its contact; none once it is retired.
    pub(crate) async fn need(
        &self,
        identity: &Identity,
    ) -> Result<Option<(Need, Contact)>, StoreError> {
        let mut db = self.store.read().await?;
        if identity::by_id(&mut db, identity.id).await?.is_none() {
            return Ok(None);
        }
        let waiting = outbox::backlog(&mut db, identity.id).await?.waiting;
        let photos = photos::backlog(&mut db, identity.id).await?.waiting;
        Ok(Some((Need { waiting, photos }, contact::of(&mut db, identity.id).await?)))
    }

    pub(crate) async fn heartbeat(
        &self,
        server: &Server,
        identity: &Identity,
    ) -> Result<Heard, Setback> {
        let (backlog, photo_backlog, seq) = {
            let mut db = self.store.read().await?;
            let seq = identity::by_id(&mut db, identity.id).await?.map_or(identity.seq, |i| i.seq);
            let backlog = outbox::backlog(&mut db, identity.id).await?;
            (backlog, photos::backlog(&mut db, identity.id).await?, seq)
        };
        // Read last: the server takes these clocks for those of the moment it hears them.
        let now = self.now();
        let answer = server
            .heartbeat(&Heartbeat {
                outbox: backlog.waiting,
                photos: photo_backlog.waiting,
                oldest: backlog.oldest,
                seq,
                clock: now.time,
                boot: now.boot,
                uptime_ms: now.uptime_ms,
                app: APP.to_owned(),
            })
            .await?;
        let contact = self.heard(identity, &now, &answer).await?;
        if answer.acked_through > seq {
            tracing::warn!(device = %identity.device, seq, acked_through = answer.acked_through,
                "the server knows later numbers: this folder is an old copy of itself, or has a twin");
        }
        Ok(Heard {
            reported: backlog.waiting > 0 || photo_backlog.waiting > 0,
            roster_differs: contact.roster.as_ref() != Some(&answer.roster),
            next_batch_after_ms: answer.next_batch_after_ms,
        })
    }

    /// Writes down what a heartbeat was answered; gives what was known before.
    pub async fn heard(
        &self,
        identity: &Identity,
        at: &Moment,
        answer: &HeartbeatAnswer,
    ) -> Result<Contact, StoreError> {
        let mut write = self.store.write().await?;
        let contact = contact::of(&mut write, identity.id).await?;
        contact::reached(&mut write, identity.id, at, Some(answer.server_time)).await?;
        self.settle(&mut write, identity, &contact, answer.acked_through, None, answer.server_time)
            .await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(contact)
    }

    /// What follows from any answer that says how far the server holds the chain: a restored server gets
    /// again what it lost, and what it has had for long enough is forgotten.
    async fn settle(
        &self,
        write: &mut Write,
        identity: &Identity,
        contact: &Contact,
        acked_through: u64,
        ledger: Option<u64>,
        server_time: Time,
    ) -> Result<(), StoreError> {
        // A ledger shorter than it was says the same, and also where a hole keeps acked_through low.
        let restored = acked_through < contact.acked_through
            || ledger.is_some_and(|ledger| ledger < contact.ledger);
        if restored {
            let again = outbox::wait_again(write, identity.id, acked_through).await?;
            photos::wait_again(write, identity.id).await?;
            tracing::warn!(device = %identity.device, acked_through, told_before = contact.acked_through,
                again, "the server was restored: what it lost is sent again");
        }
        contact::told(write, identity.id, acked_through, ledger).await?;
        photos::acknowledge(write, identity.id, server_time).await?;
        let window_s = contact
            .policy
            .as_ref()
            .map_or_else(|| DevicePolicy::default().restore_window_s, |p| p.restore_window_s);
        let forgotten = outbox::forget(write, identity.id, server_time, window_s).await?;
        for digest in photos::forget(write, identity.id, server_time, window_s).await? {
            self.folder.forget_photo(digest)?;
        }
        let retired = identity::retire_emptied(write, identity.id).await?;
        if forgotten + retired > 0 {
            tracing::info!(device = %identity.device, forgotten, retired, "the restore window has passed");
        }
        Ok(())
    }

    /// Sends the oldest waiting punches, at most `items_max` and what fits a body.
    pub(crate) async fn deliver(
        &self,
        server: &Server,
        identity: &Identity,
        items_max: usize,
    ) -> Result<Sent, StoreError> {
        let (items, batch) = self.next_batch(identity, items_max).await?;
        let seqs: Vec<u64> = items.iter().map(|item| item.seq).collect();
        if items.is_empty() {
            return Ok(Sent { seqs, took_ms: 0, outcome: Ok(0) });
        }
        let asked_at = Instant::now();
        let answered = server.deliver(identity.site, batch).await;
        let took_ms = asked_at.elapsed().as_millis() as u64;
        let outcome = match answered.and_then(|outcome| matched(&items, outcome)) {
            Ok((acknowledged, outcome)) => {
                self.acknowledge(identity, &acknowledged, &outcome).await?;
                Ok(outcome.next_batch_after_ms)
            }
            Err(error) => Err(error),
        };
        Ok(Sent { seqs, took_ms, outcome })
    }

    /// The oldest waiting punches, at most `items_max` and what fits a body, and that body.
    pub async fn next_batch(
        &self,
        identity: &Identity,
        items_max: usize,
    ) -> Result<(Vec<Waiting>, BatchRequest), StoreError> {
        let waiting = outbox::next(&mut *self.store.read().await?, identity.id, items_max).await?;
        Ok(fitting(waiting))
    }

    /// Writes down what became of each item of a batch.
    pub async fn acknowledge(
        &self,
        identity: &Identity,
        items: &[Acknowledgement],
        outcome: &BatchOutcome,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let mut write = self.store.write().await?;
        let contact = contact::of(&mut write, identity.id).await?;
        contact::reached(&mut write, identity.id, &now, Some(outcome.server_time)).await?;
        let ledger = Some(outcome.ledger);
        // Before the acknowledgements: what this answer acknowledges, the restored server has.
        self.settle(
            &mut write,
            identity,
            &contact,
            outcome.acked_through,
            ledger,
            outcome.server_time,
        )
        .await?;
        outbox::acknowledge(&mut write, identity.id, items, outcome.server_time).await?;
        write.commit().await.map_err(StoreError::from)?;
        for item in items.iter().filter(|item| item.status != ItemStatus::Applied) {
            tracing::info!(device = %identity.device, seq = item.seq, status = ?item.status,
                code = item.code, "acknowledged");
        }
        tracing::info!(device = %identity.device, items = items.len(),
            acked_through = outcome.acked_through, "delivered");
        Ok(())
    }

    /// Sends the next photo; none if none waits.
    pub(crate) async fn deliver_photo(
        &self,
        server: &Server,
        identity: &Identity,
    ) -> Result<Option<PhotoSent>, Setback> {
        let Some(photo) = photos::next(&mut *self.store.read().await?, identity.id).await? else {
            return Ok(None);
        };
        let digest = photo.digest;
        let path = self.folder.photo(digest);
        let whole = tokio::fs::metadata(&path).await.is_ok_and(|m| m.len() == photo.size_bytes);
        if !whole {
            return self.lose_photo(identity, digest).await.map(Some);
        }
        let sent = match server.deliver_photo(digest, &photo.media, &path).await {
            Ok(sent) => sent,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.lose_photo(identity, digest).await.map(Some);
            }
            Err(error) => {
                return Err(StoreError::DiskFailed(format!("{}: {error}", path.display())).into());
            }
        };
        match sent {
            Ok(()) => {
                let now = self.now();
                let mut write = self.store.write().await?;
                photos::stored(&mut write, identity.id, digest).await?;
                contact::reached(&mut write, identity.id, &now, None).await?;
                write.commit().await.map_err(StoreError::from)?;
                tracing::info!(device = %identity.device, photo = %digest, "photo delivered");
                Ok(Some(PhotoSent::Stored))
            }
            Err(error) if concerns_the_content(&error) => {
                let mut write = self.store.write().await?;
                photos::refused(&mut write, identity.id, digest, &error.to_string()).await?;
                write.commit().await.map_err(StoreError::from)?;
                Ok(Some(PhotoSent::Refused(error)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn lose_photo(&self, identity: &Identity, digest: Digest) -> Result<PhotoSent, Setback> {
        let mut write = self.store.write().await?;
        photos::lost(&mut write, identity.id, digest).await?;
        write.commit().await.map_err(StoreError::from)?;
        tracing::error!(device = %identity.device, photo = %digest,
            "the photo's file is gone or damaged; its punch stands without it");
        Ok(PhotoSent::Lost)
    }

    /// Walks the manifest and takes it.
    pub(crate) async fn walk(&self, server: &Server, identity: &Identity) -> Result<(), Setback> {
        let walked = manifest::walk(server, identity.site).await?;
        let now = self.now();
        let mut write = self.store.write().await?;
        roster::replace(&mut write, identity.id, &walked.rows, &walked.policy, &walked.roster)
            .await?;
        contact::reached(&mut write, identity.id, &now, None).await?;
        write.commit().await.map_err(StoreError::from)?;
        tracing::info!(device = %identity.device, employees = walked.rows.len(), "manifest walked");
        Ok(())
    }
}

/// Whether a refusal is about what was sent, not about who sent it: then something smaller, or another,
/// may be taken.
pub fn concerns_the_content(error: &CallError) -> bool {
    matches!(error.refused_with(), Some(400 | 413 | 415 | 422))
}

/// The longest run of `waiting` that fits a body, and that body.
pub fn fitting(waiting: Vec<Waiting>) -> (Vec<Waiting>, BatchRequest) {
    let mut room = BATCH_BYTES_MAX - BATCH_MARGIN_BYTES;
    let mut items = Vec::with_capacity(waiting.len());
    let mut batch = BatchRequest { punches: Vec::with_capacity(waiting.len()) };
    for item in waiting {
        let wire = BatchItem {
            capture: to_base64url(&item.bytes),
            signature: to_base64url(&item.signature),
        };
        let size = wire.capture.len() + wire.signature.len() + ITEM_MARGIN_BYTES;
        if size > room {
            break;
        }
        room -= size;
        batch.punches.push(wire);
        items.push(item);
    }
    (items, batch)
}

/// Results and items in step. An answer about another punch is not an answer to this batch.
pub fn matched(
    items: &[Waiting],
    outcome: BatchOutcome,
) -> Result<(Vec<Acknowledgement>, BatchOutcome), CallError> {
    let mut acknowledged = Vec::with_capacity(items.len());
    for (item, result) in items.iter().zip(&outcome.results) {
        if result.punch.is_some_and(|punch| punch != item.punch) {
            return Err(CallError::Senseless {
                status: 200,
                detail: format!("a result about another punch where number {} stood", item.seq),
            });
        }
        acknowledged.push(Acknowledgement {
            seq: item.seq,
            status: result.status,
            code: result.code.clone(),
        });
    }
    Ok((acknowledged, outcome))
}
