//! How a simulated device carries its errands out: as one at a door does, but for its files, which
//! are open only while they are read or written; what that would open them for in vain is kept in
//! memory. Every call is counted, and goes wrong where the device is told to misbehave.

use punchtrail_device::{
    client::{BatchOutcome, CallError, Server},
    clock::{Clock, Moment},
    drain::{
        Account, Batch, Courier, News, Setback,
        courier::PhotoSent,
        lane::{Errand, Need},
    },
    folder::Folder,
    obey::Obeyed,
    store::{
        StoreError, commands, contact,
        failures::{Failure, Purpose},
        identity::Identity,
        outbox::{self, Waiting},
        photos::{self, KeptPhoto},
    },
};
use punchtrail_protocol::{
    Digest, SiteId,
    wire::{BatchRequest, HeartbeatAnswer, ItemStatus},
};
use rand::RngExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Fleet,
    clock::SimulatedClock,
    member::Member,
    meter::measured,
    misbehaviour::{DUPLICATES_SHARE, garbage},
    places::Visit,
};

/// Punches of the next batch that are read together with writing down the last one's answer, so
/// that a slice of a drain at the policy's rate opens the file once and not twice.
const READ_AHEAD_MAX: usize = 32;

/// A device of the fleet while the gate is open.
pub struct Caller<'a> {
    pub member: &'a mut Member,
    fleet: &'a Fleet,
    /// Whether its last errand failed.
    failing: bool,
    clock: SimulatedClock,
    /// What a heartbeat was answered and isn't written down yet: the next batch's answer will say
    /// the same anew.
    unwritten: Option<News>,
    read_ahead: Vec<Waiting>,
    /// The next photo, read when the last one's fate was written down.
    photo_ahead: Option<KeptPhoto>,
    /// Room for the batch on its way.
    room: Option<OwnedSemaphorePermit>,
    /// The last failure since the last success, and whether the server itself said no.
    last_failure: Option<(Failure, bool)>,
}

impl<'a> Caller<'a> {
    /// One that hasn't called yet.
    pub fn new(member: &'a mut Member, fleet: &'a Fleet) -> Self {
        let clock = SimulatedClock::off_by(member.behaviour.clock_off_s);
        let (unwritten, read_ahead, photo_ahead) = (None, Vec::new(), None);
        let (failing, room, last_failure) = (false, None, None);
        Self {
            member,
            fleet,
            failing,
            clock,
            unwritten,
            read_ahead,
            photo_ahead,
            room,
            last_failure,
        }
    }

    /// What it knows of itself without a look into its files: nobody punches while a fleet drains.
    pub fn known(&self) -> Account {
        let Member { waiting, photos, commands, oldest, ref identity, .. } = *self.member;
        let policy = self.member.followed(&self.fleet.plan);
        let (need, seq) = (Need { waiting, photos, commands, ..Need::default() }, identity.seq);
        let Member { epoch, ref roster, ref anchor, .. } = *self.member;
        let (site, roster, anchor) = (identity.site, roster.clone(), anchor.clone());
        Account { need, oldest, seq, policy, site, roster, epoch, anchor, current: true }
    }

    /// Notes how its last errand went.
    pub fn note(&mut self, done: &Result<(), Setback>) {
        self.failing = done.is_err();
        match done {
            Ok(()) => self.last_failure = None,
            Err(Setback::Call(_)) => {}
            Err(Setback::Store(error)) => {
                self.fleet.meter.count(|tally| tally.store_failures += 1);
                tracing::warn!(index = self.member.index, %error, "a device's folder refused");
            }
        }
    }

    /// Makes `status` of a device that didn't finish say why.
    pub async fn leave_failure(&mut self) -> Result<(), StoreError> {
        let Some((failure, reached)) = self.last_failure.take() else { return Ok(()) };
        self.enter(News::Failed { failure, reached, hold_ms: 0 }, false).await
    }

    /// Opens its files, writes down what wasn't yet and `news`, and counts anew what waits.
    async fn enter(&mut self, news: News, reads_ahead: bool) -> Result<(), StoreError> {
        let mut visit = self.visit().await?;
        let Member { ref identity, ref mut waiting, ref mut photos, ref mut oldest, .. } =
            *self.member;
        for news in self.unwritten.take().into_iter().chain([news]) {
            visit.device.write_down(identity, news).await?;
        }
        let mut db = visit.device.store().read().await?;
        let backlog = outbox::backlog(&mut db, identity.id).await?;
        (*waiting, *oldest) = (backlog.waiting, backlog.oldest);
        *photos = photos::backlog(&mut db, identity.id).await?.waiting;
        if reads_ahead && *waiting > 0 {
            self.read_ahead = outbox::next(&mut db, identity.id, READ_AHEAD_MAX).await?;
        }
        drop(db);
        visit.end().await;
        Ok(())
    }

    /// Makes a call and counts it. A deaf device doesn't hear how long it should wait.
    async fn counted<T>(
        &self,
        errand: Errand,
        retry: bool,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let answered = measured(&self.fleet.meter, errand, retry, call).await;
        answered.map_err(|error| match error {
            CallError::Busy { code, detail, .. } if self.member.behaviour.ignore_retry_after => {
                CallError::Busy { code, detail, retry_after: None }
            }
            heard => heard,
        })
    }

    /// The photo that is sent next.
    async fn next_photo(&mut self) -> Result<Option<KeptPhoto>, StoreError> {
        if self.photo_ahead.is_some() {
            return Ok(self.photo_ahead.take());
        }
        let visit = self.visit().await?;
        let mut db = visit.device.store().read().await?;
        let next = photos::next(&mut db, self.member.identity.id).await?;
        drop(db);
        visit.end().await;
        Ok(next)
    }

    /// Sends a photo, with nothing open but its file; none if that is gone or damaged.
    async fn put(
        &self,
        server: &Server,
        photo: &KeptPhoto,
    ) -> Result<Option<Result<(), CallError>>, StoreError> {
        let Fleet { places, plan, .. } = self.fleet;
        let _place = places.photo().await?;
        let path = Folder::at(plan.folder(self.member.index));
        let path = path.photo(photo.file(self.member.identity.id));
        let whole = tokio::fs::metadata(&path).await.is_ok_and(|m| m.len() == photo.size_bytes);
        if !whole {
            return Ok(None);
        }
        let call = async {
            match server.deliver_photo(photo.digest, photo.content_type(), &path).await {
                Ok(answered) => answered.map(Ok),
                Err(error) => Ok(Err(error)),
            }
        };
        match self.counted(Errand::Photo, self.failing, call).await {
            Ok(Ok(())) => Ok(Some(Ok(()))),
            Ok(Err(error)) => Err(StoreError::DiskFailed(format!("{}: {error}", path.display()))),
            Err(error) => Ok(Some(Err(error))),
        }
    }

    /// Writes down what became of a photo, and reads which is next.
    async fn settle(&mut self, photo: Digest, fate: Fate<'_>) -> Result<(), StoreError> {
        let (visit, id, now) = (self.visit().await?, self.member.identity.id, self.now());
        let mut write = visit.device.store().write().await?;
        match fate {
            Fate::Stored => {
                photos::stored(&mut write, id, photo).await?;
                contact::reached(&mut write, id, Purpose::Photos, &now, None).await?;
            }
            Fate::Refused(error) => {
                photos::refused(&mut write, id, photo, &error.to_string()).await?;
            }
            Fate::Stalled => photos::stalled(&mut write, id, photo).await?,
            Fate::Lost => photos::lost(&mut write, id, photo).await?,
        }
        write.commit().await?;
        let mut db = visit.device.store().read().await?;
        self.member.photos = photos::backlog(&mut db, id).await?.waiting;
        if self.member.photos > 0 {
            self.photo_ahead = photos::next(&mut db, id).await?;
        }
        drop(db);
        visit.end().await;
        Ok(())
    }

    /// Opens its files.
    async fn visit(&self) -> Result<Visit, StoreError> {
        let Fleet { places, plan, .. } = self.fleet;
        places.visit(plan, self.member.index, self.member.behaviour.clock_off_s).await
    }
}

/// What became of a photo.
enum Fate<'a> {
    Stored,
    Refused(&'a CallError),
    /// Nothing sensible came back.
    Stalled,
    Lost,
}

impl Courier for Caller<'_> {
    fn now(&self) -> Moment {
        self.clock.read()
    }

    fn roll(&mut self) -> f64 {
        self.member.dice.random()
    }

    async fn account(&mut self, _: &Identity) -> Result<Option<Account>, StoreError> {
        Ok(Some(self.known()))
    }

    async fn next_batch(&mut self, of: &Identity, items_max: usize) -> Result<Batch, StoreError> {
        let (places, behaviour) = (&self.fleet.places, self.member.behaviour);
        let expected = items_max.min(usize::try_from(self.member.waiting).unwrap_or(items_max));
        let room = places.body(&behaviour, expected).await?;
        let mut ahead = std::mem::take(&mut self.read_ahead);
        let batch = if ahead.len() >= expected.max(1) {
            ahead.truncate(expected);
            Batch::fitting(ahead)
        } else {
            let _leave = places.reading(&behaviour).await?;
            let mut visit = self.visit().await?;
            let batch = visit.device.next_batch(of, expected).await?;
            visit.end().await;
            batch
        };
        match batch.items.is_empty() {
            true => self.member.waiting = 0,
            false => self.room = Some(room),
        }
        Ok(batch)
    }

    async fn write_down(&mut self, _: &Identity, news: News) -> Result<(), StoreError> {
        let before = self.member.waiting;
        match news {
            News::Failed { failure, reached, .. } => self.last_failure = Some((failure, reached)),
            News::Heard(_, ref answer, _)
                if answer.acked_through == self.member.acked_through
                    && answer.site.is_none_or(|site| site == self.member.identity.site)
                    && !self.member.hears_of_another_history(&answer.history) =>
            {
                self.member.hear(&answer.history);
                self.unwritten = Some(news);
            }
            News::Heard(_, HeartbeatAnswer { acked_through, site, ref history, .. }, _) => {
                self.member.hear(history);
                self.unwritten = None;
                self.enter(news, false).await?;
                self.member.acked_through = acked_through;
                self.member.identity.site = site.unwrap_or(self.member.identity.site);
            }
            News::Delivered(_, BatchOutcome { acked_through, ref history, .. }, _) => {
                self.member.hear(history);
                self.unwritten = None;
                self.enter(news, !self.member.behaviour.no_throttle).await?;
                self.member.acked_through = acked_through;
                self.fleet.meter.acknowledged(before.saturating_sub(self.member.waiting));
            }
            News::Walked(mut manifest) => {
                manifest.rows.retain(|row| self.member.people.contains(&row.employee));
                let (policy, roster) = (manifest.policy.clone(), Some(manifest.roster.clone()));
                self.enter(News::Walked(manifest), false).await?;
                (self.member.policy, self.member.roster) = (policy, roster);
            }
            News::RefusedAlone(_) | News::SiteRefused(_) => self.enter(news, false).await?,
        }
        Ok(())
    }

    async fn call<T>(
        &mut self,
        errand: Errand,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        self.counted(errand, self.failing, call).await
    }

    /// With what a misbehaving device adds; gives the outcome of its own items.
    async fn deliver(
        &mut self,
        server: &Server,
        site: SiteId,
        mut batch: BatchRequest,
    ) -> Result<BatchOutcome, CallError> {
        let room = self.room.take();
        let (meter, behaviour) = (&self.fleet.meter, self.member.behaviour);
        let items = batch.punches.len();
        if behaviour.garbage {
            let extra = garbage(items, &self.member.identity.key, &mut self.member.dice);
            meter.count(|tally| tally.garbage_sent += extra.len() as u64);
            batch.punches.extend(extra);
        }
        let twice = behaviour.duplicates && self.member.dice.random_bool(DUPLICATES_SHARE);
        let copy = twice.then(|| batch.clone());
        meter.count(|tally| tally.items_sent += items as u64);
        let errand = Errand::Batch(items);
        let call = server.deliver(site, batch);
        let mut outcome = self.counted(errand, self.failing, call).await?;
        if let Some(copy) = copy {
            meter.count(|tally| {
                tally.items_sent += items as u64;
                tally.batches_twice += 1;
            });
            let again = self.counted(errand, false, server.deliver(site, copy)).await;
            outcome = again.unwrap_or(outcome);
        }
        drop(room);
        let garbage = outcome.results.split_off(items.min(outcome.results.len()));
        let taken = garbage.iter().filter(|item| item.status != ItemStatus::Quarantined).count();
        meter.count(|tally| tally.garbage_taken += taken as u64);
        Ok(outcome)
    }

    /// As a device at a door does, its files open meanwhile: commands are few.
    async fn commands(
        &mut self,
        server: &Server,
        of: &Identity,
        asks: bool,
    ) -> Result<Obeyed, Setback> {
        let mut visit = self.visit().await?;
        let call = async {
            match visit.device.commands(server, of, asks).await {
                Ok(obeyed) => Ok(Ok(obeyed)),
                Err(Setback::Call(error)) => Err(error),
                Err(Setback::Store(error)) => Ok(Err(error)),
            }
        };
        let obeyed = self.counted(Errand::Commands, self.failing, call).await;
        let mut db = visit.device.store().read().await?;
        let left = commands::open(&mut db, of.id).await?;
        drop(db);
        visit.end().await;
        self.member.commands = left;
        Ok(obeyed??)
    }

    /// As a device at a door does, but that nothing else is open meanwhile: a photo may take long.
    async fn photo(&mut self, server: &Server, _: &Identity) -> Result<Option<PhotoSent>, Setback> {
        let Some(photo) = self.next_photo().await? else {
            self.member.photos = 0;
            return Ok(None);
        };
        let digest = photo.digest;
        match self.put(server, &photo).await? {
            None => {
                self.settle(digest, Fate::Lost).await?;
                Ok(Some(PhotoSent::Lost))
            }
            Some(Ok(())) => {
                self.settle(digest, Fate::Stored).await?;
                self.fleet.meter.photo_put();
                Ok(Some(PhotoSent::Stored))
            }
            Some(Err(error)) if error.concerns_the_content() => {
                self.settle(digest, Fate::Refused(&error)).await?;
                Ok(Some(PhotoSent::Refused(error)))
            }
            Some(Err(error)) => {
                if matches!(error, CallError::Silent(_) | CallError::Senseless { .. }) {
                    self.settle(digest, Fate::Stalled).await?;
                }
                Err(error.into())
            }
        }
    }
}
