//! How many checks a machine makes in a second, with everything around the models and without. Run
//! by hand, on an idle machine:
//! `cargo test --release -p punchtrail-vision --test rates -- --ignored --nocapture`.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use punchtrail_testkit::{Faces, PICTURES};
use punchtrail_vision::{Floors, Models, Picture};

const ROUNDS: usize = 4;
const EACH: Duration = Duration::from_secs(3);

#[test]
#[ignore = "measures; asserts nothing"]
fn bare_models_and_whole_checks_a_second() {
    let Some(brought) = Faces::brought() else { return };
    let models = Models::load(&brought.detector, &brought.embedder).unwrap();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let pictures: Vec<Vec<u8>> = PICTURES[1..].iter().map(|name| brought.picture(name)).collect();
    let decoded: Vec<Picture> =
        pictures.iter().map(|bytes| Picture::decode(bytes).unwrap()).collect();
    let prepared: Vec<_> = decoded.iter().map(|picture| models.prepare(picture).unwrap()).collect();
    let floors = Floors::default();
    println!("{threads} threads; a second: bare | look | decode + look | whole / bare");
    for _ in 0..ROUNDS {
        let bare = rate(threads, |i| {
            assert!(models.bare(&prepared[i % prepared.len()]) > 0);
        });
        let look = rate(threads, |i| {
            assert!(models.look(&decoded[i % decoded.len()], &floors, false).embedding.is_some());
        });
        let whole = rate(threads, |i| {
            let picture = Picture::decode(&pictures[i % pictures.len()]).unwrap();
            assert!(models.look(&picture, &floors, false).embedding.is_some());
        });
        println!("{bare:.1} | {look:.1} | {whole:.1} | {:.2}", whole / bare);
    }
}

fn rate(threads: usize, check: impl Fn(usize) + Sync) -> f64 {
    let (next, started) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while started.elapsed() < EACH {
                    check(next.fetch_add(1, Ordering::Relaxed));
                }
            });
        }
    });
    next.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64()
}
