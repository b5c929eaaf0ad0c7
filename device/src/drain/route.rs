//! One identity on its way to its server: what is due, doing it, and what follows from how it went.
//!
//! Everything about that is decided here and in [`lane`](super::lane), the same for a device at a
//! door and for a simulated one; a [`Courier`] carries it out.

use std::time::Duration;

use punchtrail_protocol::{
    PunchId, Time,
    signing::{RETURN_TYPE, sign},
    wire::{DevicePolicy, Heartbeat, ItemStatus, LedgerHistory, ReturnRequest},
};
use tokio::time::Instant;

use super::{
    courier::{Account, Batch, Courier, Head, News, PhotoSent, RecordSent, Setback},
    lane::{Errand, Heard, Lane, Need, Next, Pace},
};
use crate::{
    APP,
    backoff::TRY_FLOOR_MS,
    client::{BatchOutcome, CallError, Server},
    manifest,
    store::{StoreError, failures::Failure, identity::Identity, outbox::Acknowledgement},
};

/// Ceiling of the wait before a walk of the manifest starts over when the roster changed under it,
/// in milliseconds.
const WALK_AGAIN_MS: u64 = 10_000;

/// An identity on its way to its server.
pub struct Route<C> {
    pub(super) identity: Identity,
    /// Who carries its errands out.
    pub courier: C,
    /// When to do what.
    pub lane: Lane,
    pub(super) punches_delivered: u64,
    pub(super) attachments_delivered: u64,
    pub(super) disputes_delivered: u64,
    pub(super) photos_delivered: u64,
    /// Whether an answer named another epoch of the ledger than is known, and no heartbeat has said
    /// yet where the histories parted.
    doubted: bool,
    /// Made at the first call; making it fails where the machine has no root certificates.
    server: Option<Server>,
}

impl<C: Courier> Route<C> {
    /// A route that nobody has gone yet, and nobody goes before `ready_at`. `cap_ms` bounds the
    /// waits between tries that the device chooses itself.
    pub fn new(
        identity: Identity,
        courier: C,
        policy: &DevicePolicy,
        cap_ms: u64,
        ready_at: Instant,
    ) -> Self {
        let lane = Lane::new(identity.device, policy, cap_ms, ready_at, Instant::now());
        Self {
            identity,
            courier,
            lane,
            punches_delivered: 0,
            attachments_delivered: 0,
            disputes_delivered: 0,
            photos_delivered: 0,
            doubted: false,
            server: None,
        }
    }

    /// Where the identity stands; none once it is retired.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn account(&mut self) -> Result<Option<Account>, StoreError> {
        self.courier.account(&self.identity).await
    }

    /// What to do now.
    pub fn next(&mut self, account: &Account, pace: Pace) -> Next {
        self.lane.next(account.need, &account.policy, pace, Instant::now())
    }

    /// Whether nothing waits, and the server has heard so.
    pub fn settled(&self, account: &Account) -> bool {
        account.need == Need::default() && self.lane.in_contact() && !self.lane.reports_backlog()
    }

    /// Does `errand`, and sees to it that a pause follows if it fails. Dropping this is safe: what
    /// isn't written down is done again.
    ///
    /// # Errors
    /// How it failed. Nothing is lost by it.
    pub async fn perform(&mut self, errand: Errand, account: &Account) -> Result<(), Setback> {
        let done = match self.server() {
            Ok(server) => {
                server.listen(account.epoch);
                let done = self.attempt(&server, errand, account).await;
                if let Some(other) = server.heads().other_epoch
                    && self.account().await?.is_some_and(|known| known.epoch != Some(other))
                {
                    self.doubt(errand);
                }
                done
            }
            Err(error) => Err(error.into()),
        };
        match &done {
            Ok(()) => {}
            Err(Setback::Call(error)) => self.note(errand, error, &account.policy).await?,
            // The call may have been answered; without this, a full disk would make it a tight
            // loop.
            Err(Setback::Store(_)) => {
                self.lane.store_failed(self.courier.roll(), Instant::now());
            }
        }
        done
    }

    /// The ledger is in another epoch than is known: a heartbeat has to say where the histories
    /// parted, and until then nothing is forgotten.
    fn doubt(&mut self, errand: Errand) {
        let device = self.identity.device;
        tracing::warn!(%device, ?errand, "an answer names another epoch of the server's ledger");
        self.doubted = true;
        // A heartbeat whose own head differs from what it says is followed by another at its
        // interval, not at once, or that would never end.
        if errand != Errand::Heartbeat {
            self.lane.heartbeat_now(Instant::now());
        }
    }

    /// What the heads of an errand's answers said, beside the history in its body.
    fn head(&self, server: &Server, account: &Account, history: &Option<LedgerHistory>) -> Head {
        let heads = server.heads();
        let known = history.as_ref().and_then(LedgerHistory::current).or(account.epoch);
        let doubted = heads.other_epoch.is_some_and(|other| known != Some(other));
        Head { ledger: heads.ledger, doubted }
    }

    fn server(&mut self) -> Result<Server, CallError> {
        if let Some(server) = &self.server {
            return Ok(server.clone());
        }
        let server = Server::with_patience(&self.identity.server, self.courier.call_ms())
            .and_then(|server| server.with_token(&self.identity.token))
            .map_err(|error| CallError::Unreachable(error.to_string()))?;
        Ok(self.server.insert(server).clone())
    }

    async fn attempt(
        &mut self,
        server: &Server,
        errand: Errand,
        account: &Account,
    ) -> Result<(), Setback> {
        match errand {
            Errand::Heartbeat => self.beat(server, account).await,
            Errand::Walk => {
                let manifest =
                    self.courier.call(errand, manifest::walk(server, account.site)).await?;
                self.courier.write_down(&self.identity, News::Walked(manifest)).await?;
                if let Some(account) = self.account().await? {
                    self.lane.walked(&account.policy, Instant::now());
                }
                Ok(())
            }
            Errand::Commands => {
                let asks = self.lane.commands_due();
                let obeyed = self.courier.commands(server, &self.identity, asks).await?;
                self.lane.commands_answered(obeyed, Instant::now());
                Ok(())
            }
            Errand::Batch(items_max) => self.deliver(server, items_max, account).await,
            Errand::Attachment => match self.courier.attachment(server, &self.identity).await? {
                Some(RecordSent::Taken) => {
                    self.attachments_delivered += 1;
                    self.lane.attachment_answered(Instant::now());
                    Ok(())
                }
                Some(RecordSent::PutOff(error) | RecordSent::Failed(error)) => {
                    self.lane.attachment_refused(self.courier.roll(), Instant::now());
                    Err(error.into())
                }
                None => Ok(()),
            },
            Errand::Dispute => match self.courier.dispute(server, &self.identity).await? {
                Some(RecordSent::Taken) => {
                    self.disputes_delivered += 1;
                    self.lane.dispute_answered(Instant::now());
                    Ok(())
                }
                Some(RecordSent::PutOff(error) | RecordSent::Failed(error)) => {
                    self.lane.dispute_refused(self.courier.roll(), Instant::now());
                    Err(error.into())
                }
                None => Ok(()),
            },
            Errand::Photo => match self.courier.photo(server, &self.identity).await? {
                Some(PhotoSent::Stored) => {
                    self.photos_delivered += 1;
                    self.lane.photo_answered(Instant::now());
                    Ok(())
                }
                Some(PhotoSent::Refused(error)) => {
                    self.lane.photo_refused(self.courier.roll(), Instant::now());
                    Err(error.into())
                }
                Some(PhotoSent::Lost) | None => Ok(()),
            },
        }
    }

    async fn beat(&mut self, server: &Server, account: &Account) -> Result<(), Setback> {
        let Account { need, oldest, seq, policy, site, roster, anchor, current, .. } = account;
        let now = self.courier.now();
        let heartbeat = Heartbeat {
            outbox: need.waiting,
            photos: need.photos,
            oldest: *oldest,
            seq: *seq,
            clock: now.time,
            boot: now.boot,
            uptime_ms: now.uptime_ms,
            app: APP.to_owned(),
            anchor: anchor.clone(),
        };
        let answer = self.courier.call(Errand::Heartbeat, server.heartbeat(&heartbeat)).await;
        if let Err(error) = &answer
            && error.refused_with() == Some(401)
        {
            self.come_back(server).await?;
        }
        let answer = answer?;
        if answer.acked_through > *seq {
            let (device, acked_through) = (self.identity.device, answer.acked_through);
            tracing::warn!(%device, seq, acked_through,
                "the server knows later numbers: this folder is an old copy of itself, or has a \
                 twin");
        }
        let moved = answer.site.is_some_and(|told| told != *site);
        let heard = Heard {
            reported: need.any(),
            next_batch_after_ms: answer.next_batch_after_ms,
            roster_differs: *current && (moved || roster.as_ref() != Some(&answer.roster)),
            commands: answer.commands,
        };
        // It settles an earlier doubt, unless its own head says otherwise.
        let head = self.head(server, account, &answer.history);
        self.courier.write_down(&self.identity, News::Heard(now, answer, head)).await?;
        self.doubted = head.doubted;
        let roll = self.courier.roll();
        self.lane.heartbeat_answered(heard, policy, roll, Instant::now());
        Ok(())
    }

    /// The server doesn't know this device. If its database went back to before the enrolment, what
    /// it sealed then makes it known again; the next heartbeat finds out.
    async fn come_back(&mut self, server: &Server) -> Result<(), CallError> {
        let Identity { certificate: Some(certificate), key, device, .. } = &self.identity else {
            return Ok(());
        };
        let proof = sign(key, RETURN_TYPE, certificate.as_bytes()).to_string();
        let request = ReturnRequest { certificate: certificate.clone(), proof };
        let device = *device;
        match self.courier.call(Errand::Heartbeat, server.come_back(&request)).await {
            Ok(_) => {
                tracing::warn!(%device, "the server didn't know this device, and does again");
                Ok(())
            }
            // It says no more than that the device isn't known.
            Err(error) if error.refused_with().is_some() => {
                tracing::warn!(%device, %error, "the server doesn't know this device");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn deliver(
        &mut self,
        server: &Server,
        items_max: usize,
        account: &Account,
    ) -> Result<(), Setback> {
        let Batch { site, items, request } =
            self.courier.next_batch(&self.identity, items_max).await?;
        let Some(site) = site else { return Ok(()) };
        let asked_at = Instant::now();
        let answered = self.courier.deliver(server, site, request).await;
        let took_ms = asked_at.elapsed().as_millis() as u64;
        let matched = answered.and_then(|outcome| Ok((matched(&items, &outcome)?, outcome)));
        match matched {
            Ok((acknowledged, outcome)) => {
                let next_after_ms = outcome.next_batch_after_ms;
                let mut head = self.head(server, account, &outcome.history);
                head.doubted |= self.doubted;
                let news = News::Delivered(acknowledged, outcome, head);
                self.courier.write_down(&self.identity, news).await?;
                self.punches_delivered += items.len() as u64;
                let now = Instant::now();
                let policy = &account.policy;
                self.lane.batch_answered(items.len(), took_ms, next_after_ms, policy, now);
                Ok(())
            }
            // Those of the present site needn't wait for those of another.
            Err(error) if error.refused_with() == Some(404) && site != account.site => {
                self.courier.write_down(&self.identity, News::SiteRefused(site)).await?;
                Err(error.into())
            }
            Err(error) => self.batch_failed(&items, took_ms, error).await,
        }
    }

    /// A batch refused for its content, or that the server failed at, is halved; one item refused
    /// alone steps behind the others. So it is with one that gets no sensible answer again and
    /// again while the server is there.
    async fn batch_failed(
        &mut self,
        items: &[(u64, PunchId)],
        took_ms: u64,
        error: CallError,
    ) -> Result<(), Setback> {
        let alone = match error {
            CallError::Silent(_) | CallError::Senseless { .. } | CallError::Unreachable(_) => {
                self.lane.batch_unanswered(items.len(), took_ms)
            }
            _ => false,
        };
        if error.may_concern_the_content() || alone {
            if self.lane.split(items.len(), Instant::now()) {
                tracing::warn!(device = %self.identity.device, items = items.len(), %error,
                    "batch refused; halves are tried");
                return Ok(());
            }
            if let [(seq, _)] = items {
                self.courier.write_down(&self.identity, News::RefusedAlone(*seq)).await?;
            }
        }
        Err(error.into())
    }

    /// Chooses the pause after a failed call, and has both written down.
    async fn note(
        &mut self,
        errand: Errand,
        error: &CallError,
        policy: &DevicePolicy,
    ) -> Result<(), StoreError> {
        let now = Instant::now();
        let floor = now + Duration::from_millis(TRY_FLOOR_MS);
        let next_at = match errand {
            // Already paced, and no reason to hold up the rest.
            Errand::Photo if error.concerns_the_content() => floor,
            Errand::Attachment | Errand::Dispute
                if matches!(
                    error.refused_with(),
                    Some(400 | 403..=405 | 409 | 413 | 415 | 422)
                ) =>
            {
                floor
            }
            Errand::Walk if error.refused_with().is_some() => {
                // The roster changed meanwhile: soon again. Anything else won't change so soon.
                let within_ms = match error.refused_with() {
                    Some(409) => WALK_AGAIN_MS,
                    _ => u64::from(policy.heartbeat_s) * 1_000,
                };
                let roll = self.courier.roll();
                let wait_ms = within_ms / 2 + (roll * (within_ms / 2) as f64) as u64;
                self.lane.walk_refused(floor + Duration::from_millis(wait_ms));
                floor
            }
            _ => self.lane.failed(errand, error, self.courier.roll(), now),
        };
        tracing::warn!(device = %self.identity.device, ?errand, %error,
            wait_ms = (next_at - now).as_millis() as u64, "not done; trying again later");
        // Held across processes: what the server asked for, else the floor, which a person's next
        // `sync` waits out in a second.
        let asked = error.retry_after().map_or(floor, |_| next_at);
        let failed = News::Failed {
            failure: failure(errand, error, self.courier.now().time),
            reached: error.reached(),
            hold_ms: (asked - now).as_millis() as u64,
        };
        self.courier.write_down(&self.identity, failed).await
    }
}

/// A failure at `at`, in words.
pub(super) fn failure(errand: Errand, error: &CallError, at: Time) -> Failure {
    let (code, text) = (error.code().to_owned(), error.to_string());
    Failure { purpose: errand.purpose(), at, code, text, times: 1 }
}

/// Results in step with items. An answer about another punch is not an answer to this batch.
fn matched(
    items: &[(u64, PunchId)],
    outcome: &BatchOutcome,
) -> Result<Vec<Acknowledgement>, CallError> {
    let in_step = items.iter().zip(&outcome.results);
    in_step
        .map(|(&(seq, punch), result)| match result.punch {
            // Only of what can't be read is the punch unknown.
            None if result.status != ItemStatus::Quarantined => Err(CallError::Senseless {
                status: 200,
                detail: format!("a result about no punch where number {seq} stood"),
            }),
            Some(other) if other != punch => Err(CallError::Senseless {
                status: 200,
                detail: format!("a result about another punch where number {seq} stood"),
            }),
            _ => Ok(Acknowledgement { seq, status: result.status, code: result.code.clone() }),
        })
        .collect()
}
