//! Local checks a second on all cores, beside the models alone on what was made ready for them.
//!
//! Three rows in turn, on the same pictures in the same run:
//!
//! - `bare`: detector and embedder, once each, a picture; decoded, scaled and cropped before.
//! - `steps`: the steps of a check by the library alone: decode, look, compare with one reference.
//! - `local`: the server's own checker, with its cache of references in the run's Postgres.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use punchtrail_domain::policy::Policy;
use punchtrail_infra::{
    identity::{Answer, Asked, Checker, Local, References, Thresholds, embeddings::Embeddings},
    photos::{PhotoFolder, PhotoStore},
    queue::BATCH_MAX,
    threads::Threads,
};
use punchtrail_protocol::Digest;
use punchtrail_simulator::percentiles::of_sorted;
use punchtrail_testkit::Faces;
use punchtrail_vision::{Embedding, Floors, Models, Picture, Prepared};
use serde::Serialize;

use super::{
    Options,
    pictures::{self, Frame},
    say,
};
use crate::{database::Cluster, report::rate};

/// How the pictures come, by name.
const SIZES: [&str; 2] = ["as they are", "1280 x 960"];

/// All of it.
#[derive(Debug, Serialize)]
pub struct Checks {
    /// How many of `bare` and `steps` ran at a time; `local` sees to that itself.
    pub threads: usize,
    pub sizes: Vec<OfSize>,
}

/// The rows of one size of pictures.
#[derive(Debug, Serialize)]
pub struct OfSize {
    pub size: &'static str,
    pub pictures: usize,
    /// Of all of them, on average.
    pub picture_bytes: usize,
    /// What the checks of these pictures come to.
    pub outcomes: BTreeMap<&'static str, usize>,
    pub bare: Rates,
    pub steps: Rates,
    pub local: Rates,
}

/// Pictures a second, of all rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rates {
    pub best: f64,
    pub median: f64,
}

impl Rates {
    fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |share| of_sorted(&rounds, share).unwrap_or_default();
        Self { best: at(1.0), median: at(0.5) }
    }

    /// These by those.
    pub fn by(self, of: Self) -> Self {
        Self { best: self.best / of.best, median: self.median / of.median }
    }
}

/// Pictures of one size, and what they are checked with.
struct Desk {
    models: Arc<Models>,
    checker: Local,
    store: PhotoFolder,
    frames: Vec<Frame>,
    prepared: Vec<Prepared>,
    /// What the library makes of each frame's reference.
    known: Vec<Embedding>,
    references: Vec<Digest>,
}

/// Measures it.
pub async fn measure(
    cluster: &Cluster,
    faces: &Faces,
    options: &Options,
) -> anyhow::Result<Checks> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let models = Arc::new(Models::load(&faces.detector, &faces.embedder)?);
    let database = cluster.database().await?;
    let folder = tempfile::tempdir()?;
    let mut sizes = Vec::new();
    let all = [pictures::as_they_are(faces), pictures::at_a_kiosk(faces)?];
    for (size, frames) in SIZES.into_iter().zip(all) {
        let store = PhotoFolder::open(folder.path().join("photos")).await?;
        let embeddings = Embeddings::of(database.pools.writer.clone(), folder.path()).await?;
        let checker = Local::new(Arc::clone(&models), embeddings, Threads::of_cores("look")?);
        let desk = Desk::set(faces, Arc::clone(&models), checker, store, frames).await?;
        sizes.push(Arc::new(desk).all_rows(size, threads, options).await?);
    }
    cluster.discard(database).await?;
    Ok(Checks { threads, sizes })
}

impl Desk {
    async fn set(
        faces: &Faces,
        models: Arc<Models>,
        checker: Local,
        store: PhotoFolder,
        frames: Vec<Frame>,
    ) -> anyhow::Result<Self> {
        let (mut prepared, mut known, mut references) = (Vec::new(), Vec::new(), Vec::new());
        for frame in &frames {
            let ready = models.prepare(&Picture::decode(&frame.bytes)?);
            prepared.push(ready.context("there is no face in one of the pictures")?);
            let bytes = faces.picture(frame.reference);
            let look = models.look(&Picture::decode(&bytes)?, &Floors::default(), true);
            known.push(look.embedding.context("a reference can't be compared with")?);
            let photo = Digest::of(&bytes);
            store.put(photo, &bytes).await?;
            references.push(photo);
        }
        Ok(Self { models, checker, store, frames, prepared, known, references })
    }

    async fn all_rows(
        self: Arc<Self>,
        size: &'static str,
        threads: usize,
        options: &Options,
    ) -> anyhow::Result<OfSize> {
        let outcomes = self.outcomes().await?;
        let round = Duration::from_secs(options.round_s);
        let (mut bare, mut steps, mut local) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..options.rounds {
            // Another row begins each round, so that none always comes after the same.
            for turn in 0..3 {
                match (number + turn) % 3 {
                    0 => bare.push(self.on_all(threads, round, Self::bare).await?),
                    1 => steps.push(self.on_all(threads, round, Self::steps).await?),
                    _ => local.push(self.by_the_checker(round).await?),
                }
            }
            say(&format!("checks, {size}: round {} of {}", number + 1, options.rounds));
        }
        let bytes: usize = self.frames.iter().map(|frame| frame.bytes.len()).sum();
        Ok(OfSize {
            size,
            pictures: self.frames.len(),
            picture_bytes: bytes / self.frames.len().max(1),
            outcomes,
            bare: Rates::of(bare),
            steps: Rates::of(steps),
            local: Rates::of(local),
        })
    }

    /// What each picture comes to, which also fills the cache of references.
    async fn outcomes(&self) -> anyhow::Result<BTreeMap<&'static str, usize>> {
        let mut outcomes = BTreeMap::new();
        for nth in 0..self.frames.len() {
            let answer = self.check(nth).await;
            let able = !matches!(answer, Answer::Unavailable(_));
            ensure!(able, "a picture can't be checked: {answer:?}");
            *outcomes.entry(answer.outcome()).or_default() += 1;
        }
        Ok(outcomes)
    }

    fn bare(&self, nth: usize) {
        let numbers = self.models.bare(&self.prepared[nth]);
        std::hint::black_box(numbers);
    }

    fn steps(&self, nth: usize) {
        let floors = Policy::default().face_floors();
        let floors = Floors {
            brightness_min: floors.brightness_min,
            brightness_max: floors.brightness_max,
            sharpness_min: floors.sharpness_min,
            face_px_min: floors.face_px_min,
        };
        let picture = Picture::decode(&self.frames[nth].bytes);
        let look = picture.map(|picture| self.models.look(&picture, &floors, false));
        let embedding = look.ok().and_then(|look| look.embedding);
        let similarity = embedding.map(|found| found.similarity(&self.known[nth]));
        std::hint::black_box(similarity);
    }

    async fn check(&self, nth: usize) -> Answer {
        let policy = Policy::default();
        let photos = std::slice::from_ref(&self.references[nth]);
        let asked = Asked {
            picture: &self.frames[nth].bytes,
            references: References { photos, store: &self.store },
            floors: policy.face_floors(),
            thresholds: Thresholds::from(&policy),
            covered_head: false,
        };
        self.checker.check(&asked).await
    }

    /// How many a second on so many threads at once.
    async fn on_all(
        self: &Arc<Self>,
        threads: usize,
        round: Duration,
        work: fn(&Self, usize),
    ) -> anyhow::Result<f64> {
        let desk = Arc::clone(self);
        let measuring = tokio::task::spawn_blocking(move || {
            let (started, done) = (Instant::now(), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        while started.elapsed() < round {
                            let nth = done.fetch_add(1, Ordering::Relaxed);
                            work(&desk, nth % desk.frames.len());
                        }
                    });
                }
            });
            rate(done.into_inner(), started)
        });
        Ok(measuring.await?)
    }

    /// How many a second by the checker, asked for as many at once as a server takes from its
    /// queue.
    async fn by_the_checker(self: &Arc<Self>, round: Duration) -> anyhow::Result<f64> {
        let (started, done) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
        let asking = (0..BATCH_MAX).map(|_| {
            let (desk, done) = (Arc::clone(self), Arc::clone(&done));
            tokio::spawn(async move {
                while started.elapsed() < round {
                    let nth = done.fetch_add(1, Ordering::Relaxed);
                    std::hint::black_box(desk.check(nth % desk.frames.len()).await);
                }
            })
        });
        try_join_all(asking).await?;
        Ok(rate(done.load(Ordering::Relaxed), started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_and_median_are_of_the_rounds() {
        let rates = Rates::of(vec![3.0, 9.0, 5.0]);
        assert_eq!(rates, Rates { best: 9.0, median: 5.0 });
        let half = Rates { best: 4.5, median: 5.0 };
        assert_eq!(half.by(rates), Rates { best: 0.5, median: 1.0 });
    }
}
