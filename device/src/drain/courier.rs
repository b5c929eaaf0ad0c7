//! What a route asks of whom it works for: how its folder is read and written, and how its server
//! is called.
//!
//! A device at a door has its folder open all the time and calls as it is
//! ([`Device`](crate::Device)). The simulator's thousands open theirs for the length of one reading
//! or one writing, count every call, and misbehave when told to. When what is done, and what
//! follows, is [`Route`](super::Route)'s alone.

use punchtrail_protocol::{
    EpochId, PunchId, SiteId, Time,
    signing::to_base64url,
    wire::{BATCH_BYTES_MAX, BatchItem, BatchRequest, DevicePolicy, HeartbeatAnswer},
};

use super::lane::{Errand, Need};
use crate::{
    client::{BatchOutcome, CALL_MS, CallError, Server},
    clock::Moment,
    manifest::Manifest,
    obey::Obeyed,
    store::{
        StoreError,
        failures::Failure,
        identity::Identity,
        outbox::{Acknowledgement, Waiting},
    },
};

/// Room in a batch's body for what stands around its items, in bytes.
const BATCH_MARGIN_BYTES: usize = 4_096;
/// What stands around an item's two texts, in bytes.
const ITEM_MARGIN_BYTES: usize = 64;

/// Where an identity stands, by its folder.
#[derive(Debug, Clone)]
pub struct Account {
    pub need: Need,
    /// When the first of the waiting punches was captured, by the device's clock.
    pub oldest: Option<Time>,
    pub seq: u64,
    /// The policy as this device follows it.
    pub policy: DevicePolicy,
    /// Where it is, by what the server said last.
    pub site: SiteId,
    /// Version of that site's manifest that is held.
    pub roster: Option<String>,
    /// The ledger's epoch when last told.
    pub epoch: Option<EpochId>,
    /// What the server said last of its ledger under its seal.
    pub anchor: Option<String>,
    /// Whether people punch as this identity: only then is its manifest walked.
    pub current: bool,
}

/// Punches of one site on their way. Of the captures only the body has the bytes, and it is gone
/// once it is sent.
#[derive(Debug)]
pub struct Batch {
    /// Under which they were made; none where there are none.
    pub site: Option<SiteId>,
    /// Each item's number and punch, in the body's order.
    pub items: Vec<(u64, PunchId)>,
    pub request: BatchRequest,
}

impl Batch {
    /// The longest run of `waiting` that is of one site and fits a body.
    pub fn fitting(waiting: Vec<Waiting>) -> Self {
        let mut room = BATCH_BYTES_MAX - BATCH_MARGIN_BYTES;
        let mut batch = Self {
            site: waiting.first().map(|item| item.site),
            items: Vec::with_capacity(waiting.len()),
            request: BatchRequest { punches: Vec::with_capacity(waiting.len()) },
        };
        for item in waiting {
            let wire = BatchItem {
                capture: to_base64url(&item.bytes),
                signature: to_base64url(&item.signature),
            };
            let size = wire.capture.len() + wire.signature.len() + ITEM_MARGIN_BYTES;
            if size > room || batch.site != Some(item.site) {
                break;
            }
            room -= size;
            batch.request.punches.push(wire);
            batch.items.push((item.seq, item.punch));
        }
        batch
    }
}

/// What the head of an answer said of the ledger, beside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The ledger's head, if it was told.
    pub ledger: Option<u64>,
    /// Whether a head named another epoch than this device knows, and no heartbeat has said yet
    /// where the histories parted: nothing is forgotten then.
    pub doubted: bool,
}

/// What a route learned that the folder has to know.
#[derive(Debug)]
pub enum News {
    /// What a heartbeat, made at this moment, was answered.
    Heard(Moment, HeartbeatAnswer, Head),
    Walked(Manifest),
    /// What became of each item of a batch.
    Delivered(Vec<Acknowledgement>, BatchOutcome, Head),
    /// The capture of this number failed when it was sent alone: others go first.
    RefusedAlone(u64),
    /// The server takes none of this site's now: others go first.
    SiteRefused(SiteId),
    Failed {
        failure: Failure,
        /// Whether the server itself said no.
        reached: bool,
        /// No try follows within so many milliseconds, also after a restart.
        hold_ms: u64,
    },
}

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

/// What became of an attachment or a dispute.
#[derive(Debug)]
pub enum RecordSent {
    /// The server has it.
    Taken,
    /// The server doesn't take it now, as one whose punch it doesn't know: others go first.
    PutOff(CallError),
    /// The server will never take it; people are told.
    Failed(CallError),
}

/// Carries out what a route decides.
#[expect(async_fn_in_trait, reason = "those who spawn one know which it is")]
pub trait Courier {
    /// All clocks, now.
    fn now(&self) -> Moment;

    /// A roll from 0 to 1.
    fn roll(&mut self) -> f64;

    /// How long a call may take, in milliseconds.
    fn call_ms(&self) -> u64 {
        CALL_MS
    }

    /// Where `identity` stands; none once it is retired.
    async fn account(&mut self, identity: &Identity) -> Result<Option<Account>, StoreError>;

    /// The oldest waiting punches, at most `items_max` and what fits a body.
    async fn next_batch(&mut self, of: &Identity, items_max: usize) -> Result<Batch, StoreError>;

    /// Writes news down as a whole, or refuses and nothing of it is.
    async fn write_down(&mut self, identity: &Identity, news: News) -> Result<(), StoreError>;

    /// Makes a call of `errand`.
    async fn call<T>(
        &mut self,
        _errand: Errand,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        call.await
    }

    /// Delivers a batch.
    async fn deliver(
        &mut self,
        server: &Server,
        site: SiteId,
        batch: BatchRequest,
    ) -> Result<BatchOutcome, CallError> {
        let errand = Errand::Batch(batch.punches.len());
        self.call(errand, server.deliver(site, batch)).await
    }

    /// Acts on commands that are kept. Then tells the result of one, if one waits for that; else,
    /// if `asks`, asks the server for commands, keeps them and acts on them.
    async fn commands(&mut self, _: &Server, _: &Identity, _asks: bool) -> Result<Obeyed, Setback> {
        Ok(Obeyed { asked: true, ..Obeyed::default() })
    }

    /// Delivers the next attachment and writes down what became of it; none where there is none.
    async fn attachment(
        &mut self,
        _: &Server,
        _: &Identity,
    ) -> Result<Option<RecordSent>, Setback> {
        Ok(None)
    }

    /// Delivers the next dispute and writes down what became of it; none where there is none.
    async fn dispute(&mut self, _: &Server, _: &Identity) -> Result<Option<RecordSent>, Setback> {
        Ok(None)
    }

    /// Delivers the next photo and writes down what became of it; none where there is none.
    async fn photo(&mut self, _: &Server, _: &Identity) -> Result<Option<PhotoSent>, Setback> {
        Ok(None)
    }
}
