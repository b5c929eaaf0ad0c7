//! Errands of a device at a door: its folder is open all the time, and each answer is settled there
//! in one transaction.

use punchtrail_protocol::{
    CommandId, DeviceId, Digest, Time,
    command::COMMANDS_GIVEN_MAX,
    signing::to_base64url,
    wire::{
        AttachmentRequest, CommandResult, DevicePolicy, HeartbeatAnswer, ItemStatus, LedgerHistory,
    },
};

use super::{
    courier::{Account, Batch, Courier, Head, News, PhotoSent, RecordSent, Setback},
    lane::Need,
};
use crate::{
    client::{BatchOutcome, CallError, Server},
    clock::Moment,
    device::Device,
    manifest::Manifest,
    obey::Obeyed,
    store::{
        StoreError, Write,
        attachments::{self, WaitingAttachment},
        commands::{self, Outcome},
        contact::{self, Contact},
        disputes::{self, WaitingDispute},
        failures::{self, Purpose},
        identity::{self, Identity},
        outbox::{self, AckedAt, Doubtful},
        passed::{self, Until},
        photos, roster,
    },
};

impl Courier for Device {
    fn now(&self) -> Moment {
        Self::now(self)
    }

    fn roll(&mut self) -> f64 {
        Self::roll(self)
    }

    fn call_ms(&self) -> u64 {
        self.options.call_ms
    }

    async fn account(&mut self, identity: &Identity) -> Result<Option<Account>, StoreError> {
        let mut db = self.store.read().await?;
        let identities = identity::all(&mut db).await?;
        let Some(&Identity { id, seq, site, .. }) =
            identities.iter().find(|one| one.id == identity.id)
        else {
            return Ok(None);
        };
        let backlog = outbox::backlog(&mut db, id).await?;
        let attachments = attachments::backlog(&mut db, id).await?.ready;
        let disputes = disputes::backlog(&mut db, id).await?.waiting;
        let photos = photos::backlog(&mut db, id).await?.waiting;
        let commands = commands::open(&mut db, id).await?;
        let contact = contact::of(&mut db, id).await?;
        Ok(Some(Account {
            need: Need { waiting: backlog.waiting, attachments, disputes, photos, commands },
            oldest: backlog.oldest,
            seq,
            policy: self.policy(&contact),
            site,
            roster: contact.roster,
            epoch: contact.epoch,
            anchor: contact.anchor,
            current: identities.last().is_some_and(|last| last.id == id && !last.ended),
        }))
    }

    async fn next_batch(&mut self, of: &Identity, items_max: usize) -> Result<Batch, StoreError> {
        let mut db = self.store.read().await?;
        Ok(Batch::fitting(outbox::next(&mut db, of.id, items_max).await?))
    }

    async fn write_down(&mut self, identity: &Identity, news: News) -> Result<(), StoreError> {
        let (id, now) = (identity.id, self.now());
        let mut write = self.store.write().await?;
        match &news {
            News::Heard(at, answer, head) => {
                let HeartbeatAnswer { server_time, acked_through, ref history, .. } = *answer;
                let told = Told { acked_through, ledger: None, history, head: *head, server_time };
                if let Some(site) = answer.site
                    && let Some(from) = identity::moved(&mut write, id, site).await?
                {
                    let device = identity.device;
                    tracing::warn!(%device, %from, to = %site, "this device was moved");
                }
                // Before the identity may be retired.
                let roster = contact::of(&mut write, id).await?.roster;
                if roster.as_ref() == Some(&answer.roster) {
                    failures::clear(&mut write, id, Purpose::Manifest).await?;
                }
                self.settle(&mut write, identity, told, at).await?;
                contact::reached(&mut write, id, Purpose::Heartbeat, at, Some(server_time)).await?;
            }
            News::Walked(Manifest { site, rows, policy, roster, photo_key }) => {
                roster::replace(&mut write, (id, *site), rows, policy, roster).await?;
                if let Some(key) = photo_key {
                    contact::told_photo_key(&mut write, id, key).await?;
                }
                contact::reached(&mut write, id, Purpose::Manifest, &now, None).await?;
            }
            News::Delivered(items, outcome, head) => {
                let BatchOutcome { acked_through, ledger, server_time, ref history, .. } = *outcome;
                let (ledger, head) = (Some(ledger), *head);
                let told = Told { acked_through, ledger, history, head, server_time };
                // Before the acknowledgements: what this answer acknowledges, the restored server
                // has.
                let passed_ms = self.settle(&mut write, identity, told, &now).await?;
                let at = AckedAt { server: server_time, passed_ms, ledger };
                outbox::acknowledge(&mut write, id, items, at).await?;
                contact::reached(&mut write, id, Purpose::Punches, &now, Some(server_time)).await?;
            }
            News::SiteRefused(site) => outbox::site_refused(&mut write, id, *site).await?,
            News::RefusedAlone(seq) => outbox::refused_alone(&mut write, id, *seq).await?,
            News::Failed { failure, reached, hold_ms } => {
                contact::failed(&mut write, id, &now, *reached, failure, *hold_ms).await?;
            }
        }
        write.commit().await?;
        news.log(identity.device);
        Ok(())
    }

    async fn commands(
        &mut self,
        server: &Server,
        identity: &Identity,
        asks: bool,
    ) -> Result<Obeyed, Setback> {
        let mut obeyed = Obeyed::default();
        while self.obey(identity, &mut obeyed).await? {}
        let result = commands::next_to_tell(&mut *self.store.read().await?, identity.id).await?;
        if let Some((command, outcome)) = result {
            self.tell(server, identity, command, outcome).await?;
            return Ok(obeyed);
        }
        if !asks {
            return Ok(obeyed);
        }
        let given = match server.commands().await {
            // What a server without commands says.
            Err(error) if matches!(error.refused_with(), Some(404 | 405)) => Vec::new(),
            given => given?,
        };
        let now = self.now();
        let mut write = self.store.write().await?;
        commands::take(&mut write, identity.id, &given).await?;
        contact::reached(&mut write, identity.id, Purpose::Commands, &now, None).await?;
        write.commit().await.map_err(StoreError::from)?;
        obeyed = Obeyed { asked: true, more: given.len() >= COMMANDS_GIVEN_MAX, ..obeyed };
        while self.obey(identity, &mut obeyed).await? {}
        Ok(obeyed)
    }

    async fn attachment(
        &mut self,
        server: &Server,
        identity: &Identity,
    ) -> Result<Option<RecordSent>, Setback> {
        let next = attachments::next(&mut *self.store.read().await?, identity.id).await?;
        let Some(WaitingAttachment { id, punch, attempt, bytes, signature }) = next else {
            return Ok(None);
        };
        let record = to_base64url(&bytes);
        let request = AttachmentRequest { record, signature: to_base64url(&signature) };
        let answered = server.attach(punch, &request).await;
        let mut write = self.store.write().await?;
        let (device, sent) = (
            identity.device,
            match answered {
                Ok(answer) => {
                    attachments::taken(&mut write, id, answer).await?;
                    let now = self.now();
                    contact::reached(&mut write, identity.id, Purpose::Attachments, &now, None)
                        .await?;
                    RecordSent::Taken
                }
                Err(error) if is_final(&error) => {
                    attachments::failed(&mut write, id, error.code(), &error.to_string()).await?;
                    RecordSent::Failed(error)
                }
                // Also what a server without attachments says.
                Err(error) if is_about_one(&error) => {
                    attachments::put_off(&mut write, id, &error.to_string()).await?;
                    RecordSent::PutOff(error)
                }
                Err(error) => {
                    // As a photo: whoever breaks the line, or the server, goes behind the others.
                    if matches!(error, CallError::Silent(_) | CallError::Senseless { .. }) {
                        attachments::put_off(&mut write, id, &error.to_string()).await?;
                        write.commit().await.map_err(StoreError::from)?;
                    }
                    return Err(error.into());
                }
            },
        );
        write.commit().await.map_err(StoreError::from)?;
        match &sent {
            RecordSent::Failed(error) => tracing::error!(%device, %punch, attempt, %error,
                "the server won't take this picture; its punch stands"),
            sent => tracing::info!(%device, %punch, attempt, ?sent, "another picture sent"),
        }
        Ok(Some(sent))
    }

    async fn dispute(
        &mut self,
        server: &Server,
        identity: &Identity,
    ) -> Result<Option<RecordSent>, Setback> {
        let next = disputes::next(&mut *self.store.read().await?, identity.id).await?;
        let Some(WaitingDispute { id, site, request }) = next else { return Ok(None) };
        let answered = server.dispute(site, &request).await;
        let mut write = self.store.write().await?;
        let sent = match answered {
            Ok(answer) => {
                disputes::taken(&mut write, id, answer).await?;
                let now = self.now();
                contact::reached(&mut write, identity.id, Purpose::Disputes, &now, None).await?;
                RecordSent::Taken
            }
            // Another one stands under its id, which only a broken device makes twice.
            Err(error) if error.code() == "conflict" => {
                disputes::failed(&mut write, id, error.code(), &error.to_string()).await?;
                RecordSent::Failed(error)
            }
            // Whatever else a server says of it, it may say otherwise later: a person is known
            // then, a day has begun, others were settled. A worker's word is never dropped.
            Err(error) if is_about_one(&error) => {
                disputes::put_off(&mut write, id, error.code(), &error.to_string()).await?;
                RecordSent::PutOff(error)
            }
            Err(error) => {
                if matches!(error, CallError::Silent(_) | CallError::Senseless { .. }) {
                    disputes::put_off(&mut write, id, error.code(), &error.to_string()).await?;
                    write.commit().await.map_err(StoreError::from)?;
                }
                return Err(error.into());
            }
        };
        write.commit().await.map_err(StoreError::from)?;
        let (device, dispute) = (identity.device, request.dispute);
        match &sent {
            RecordSent::Failed(error) => tracing::error!(%device, %dispute, %error,
                "the server won't take this dispute; it is kept here for people to see"),
            sent => tracing::info!(%device, %dispute, ?sent, "dispute sent"),
        }
        Ok(Some(sent))
    }

    async fn photo(
        &mut self,
        server: &Server,
        identity: &Identity,
    ) -> Result<Option<PhotoSent>, Setback> {
        let Some(photo) = photos::next(&mut *self.store.read().await?, identity.id).await? else {
            return Ok(None);
        };
        let digest = photo.digest;
        let path = self.folder.photo(photo.file(identity.id));
        let whole = tokio::fs::metadata(&path).await.is_ok_and(|m| m.len() == photo.size_bytes);
        if !whole {
            return self.lose_photo(identity, digest).await.map(Some);
        }
        let sent = match server.deliver_photo(digest, photo.content_type(), &path).await {
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
                contact::reached(&mut write, identity.id, Purpose::Photos, &now, None).await?;
                write.commit().await.map_err(StoreError::from)?;
                tracing::info!(device = %identity.device, photo = %digest, "photo delivered");
                Ok(Some(PhotoSent::Stored))
            }
            Err(error) if error.concerns_the_content() => {
                let mut write = self.store.write().await?;
                photos::refused(&mut write, identity.id, digest, &error.to_string()).await?;
                write.commit().await.map_err(StoreError::from)?;
                Ok(Some(PhotoSent::Refused(error)))
            }
            Err(error) => {
                // Whoever breaks the line, or the server, goes behind those that may not. A server
                // that is busy, or isn't there, says nothing of this photo.
                if matches!(error, CallError::Silent(_) | CallError::Senseless { .. }) {
                    let mut write = self.store.write().await?;
                    photos::stalled(&mut write, identity.id, digest).await?;
                    write.commit().await.map_err(StoreError::from)?;
                }
                Err(error.into())
            }
        }
    }
}

/// Whether a refusal of an attachment will be the same next time.
fn is_final(error: &CallError) -> bool {
    matches!(
        (error.refused_with(), error.code()),
        (Some(409), "conflict")
            | (Some(422), "bad_signature" | "invalid")
            | (Some(403), "forbidden")
    )
}

/// Whether a refusal is about this one record, or about all such: a server without them.
fn is_about_one(error: &CallError) -> bool {
    error.concerns_the_content() || matches!(error.refused_with(), Some(403..=405 | 409))
}

/// What an answer says of the ledger.
#[derive(Clone, Copy)]
struct Told<'a> {
    acked_through: u64,
    ledger: Option<u64>,
    history: &'a Option<LedgerHistory>,
    head: Head,
    server_time: Time,
}

impl Device {
    /// The policy as this device follows it.
    pub(super) fn policy(&self, contact: &Contact) -> DevicePolicy {
        let mut policy = contact.policy.clone().unwrap_or_default();
        let cap_s = self.options.spread_cap_s.unwrap_or(u32::MAX);
        policy.reconnect_spread_s = policy.reconnect_spread_s.min(cap_s);
        policy
    }

    /// What follows from any answer that says how far the server holds the chain: a restored server
    /// gets again what it lost, and what it has had for long enough, by every clock, is forgotten.
    /// Gives the time that has surely passed.
    async fn settle(
        &self,
        write: &mut Write,
        identity: &Identity,
        Told { acked_through, ledger, history, head, server_time }: Told<'_>,
        at: &Moment,
    ) -> Result<u64, StoreError> {
        let contact = contact::of(write, identity.id).await?;
        let known = history.as_ref().zip(contact.epoch);
        let parted = known.and_then(|(history, epoch)| history.parted_after(epoch));
        // A ledger shorter than it was says the same, and also where a hole keeps acked_through
        // low; from a server that doesn't tell its history.
        let restored = acked_through < contact.acked_through
            || ledger.is_some_and(|ledger| ledger < contact.ledger);
        let doubtful = match parted {
            Some(after) => Some(Doubtful::Ledger(after.0)),
            None => restored.then_some(Doubtful::Number(acked_through)),
        };
        if let Some(doubtful) = doubtful {
            let again = outbox::wait_again(write, identity.id, doubtful).await?;
            attachments::wait_again(write, identity.id, doubtful).await?;
            disputes::wait_again(write, identity.id, doubtful).await?;
            photos::wait_again(write, identity.id, doubtful).await?;
            let (device, told_before) = (identity.device, contact.acked_through);
            tracing::warn!(
                %device, acked_through, told_before, ?doubtful, again,
                "the server's database went back: what it lost is sent again"
            );
        }
        contact::told(write, identity.id, acked_through, ledger).await?;
        if let Some(history) = history {
            contact::told_history(write, identity.id, history).await?;
        }
        let passed_ms = passed::read(write, identity.id, at, server_time).await?;
        let now = AckedAt { server: server_time, passed_ms, ledger: ledger.max(head.ledger) };
        attachments::acknowledge(write, identity.id, now).await?;
        disputes::acknowledge(write, identity.id, now).await?;
        photos::acknowledge(write, identity.id, now).await?;
        outbox::count_from(write, identity.id, now).await?;
        if head.doubted {
            return Ok(passed_ms);
        }
        let window_s = contact
            .policy
            .as_ref()
            .map_or_else(|| DevicePolicy::default().restore_window_s, |p| p.restore_window_s);
        let until = Until::before(server_time, passed_ms, window_s);
        let forgotten = outbox::forget(write, identity.id, until).await?;
        attachments::forget(write, identity.id, until).await?;
        commands::forget(write, identity.id, (server_time, until.server)).await?;
        disputes::forget(write, identity.id, until).await?;
        for file in photos::forget(write, identity.id, until).await? {
            self.folder.forget_photo(file)?;
        }
        let retired = identity::retire_emptied(write, identity.id).await?;
        if forgotten + retired > 0 {
            tracing::info!(device = %identity.device, forgotten, retired, "the restore window has \
                passed");
        }
        Ok(passed_ms)
    }

    /// Tells what became of a command. What the server will never take it needn't hear again.
    async fn tell(
        &self,
        server: &Server,
        identity: &Identity,
        command: CommandId,
        Outcome { status, detail }: Outcome,
    ) -> Result<(), Setback> {
        match server.finish(command, &CommandResult { status, detail }).await {
            Err(error)
                if error.concerns_the_content()
                    || matches!(error.refused_with(), Some(404 | 405 | 409)) =>
            {
                tracing::warn!(device = %identity.device, %command, %error,
                    "the server wants no result of this command");
            }
            told => told?,
        }
        let now = self.now();
        let mut write = self.store.write().await?;
        commands::told(&mut write, identity.id, command).await?;
        contact::reached(&mut write, identity.id, Purpose::Commands, &now, None).await?;
        Ok(write.commit().await.map_err(StoreError::from)?)
    }

    async fn lose_photo(&self, identity: &Identity, digest: Digest) -> Result<PhotoSent, Setback> {
        let mut write = self.store.write().await?;
        photos::lost(&mut write, identity.id, digest).await?;
        write.commit().await.map_err(StoreError::from)?;
        tracing::error!(device = %identity.device, photo = %digest,
            "the photo's file is gone or damaged; its punch stands without it");
        Ok(PhotoSent::Lost)
    }
}

impl News {
    fn log(&self, device: DeviceId) {
        match self {
            Self::Walked(Manifest { rows, .. }) => {
                tracing::info!(%device, employees = rows.len(), "manifest walked");
            }
            Self::Delivered(items, BatchOutcome { acked_through, .. }, _) => {
                for item in items.iter().filter(|item| item.status != ItemStatus::Applied) {
                    tracing::info!(%device, seq = item.seq, status = ?item.status,
                        code = item.code, "acknowledged");
                }
                tracing::info!(%device, items = items.len(), acked_through, "delivered");
            }
            _ => {}
        }
    }
}
