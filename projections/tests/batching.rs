//! The same events give the same tables, however they were cut into batches and whoever applied
//! them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{History, dump, judge, rebuild, settle, start};

#[tokio::test(flavor = "multi_thread")]
async fn any_batching_gives_the_same_tables() {
    for seed in 1..=3 {
        let mut history = History::new(seed).await;
        let running = start(&history.world).await;
        history.steps(120).await;
        judge(&history.world).await;
        settle(&history.world, &running).await;
        running.stop().await;
        let reader = &history.world.pools.reader;
        for model in punchtrail_projections::all() {
            let live = dump(reader, &model).await;
            assert!(!live.is_empty(), "{} has seen something", model.name());
            for batch_events in [1, 2, 7, 1_000] {
                rebuild(&history.world, model.as_ref(), batch_events).await;
                let rebuilt = dump(reader, &model).await;
                assert_eq!(rebuilt, live, "{} with {batch_events} events a batch", model.name());
            }
        }
        history.world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_feed_one_model_and_no_event_counts_twice() {
    let mut history = History::new(7).await;
    let first = start(&history.world).await;
    let second = start(&history.world).await;
    history.steps(60).await;
    settle(&history.world, &second).await;
    first.stop().await;
    history.steps(40).await;
    settle(&history.world, &second).await;
    second.stop().await;
    let reader = &history.world.pools.reader;
    for model in punchtrail_projections::all() {
        let live = dump(reader, &model).await;
        rebuild(&history.world, model.as_ref(), 50).await;
        assert_eq!(dump(reader, &model).await, live, "{}", model.name());
    }
    history.world.close().await;
}
