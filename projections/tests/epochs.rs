//! The database goes back under the read models: they follow what is there, and show what a
//! rebuild would.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{History, World, dump_all, judge, rebuild_all, settle, start};
use punchtrail_infra::testing::saved::{Back, Saved};
use punchtrail_testkit::{PATIENCE, eventually};

async fn noticed(world: &World) {
    eventually("the node to notice", PATIENCE, async || {
        Ok((world.ledger.history().epochs().count() == 2).then_some(()))
    })
    .await
    .unwrap();
}

async fn they_follow_what_is_there(back: Back) {
    let mut history = History::new(7).await;
    let running = start(&history.world).await;
    history.steps(40).await;
    judge(&history.world).await;
    settle(&history.world, &running).await;
    let saved = Saved::of(history.world.database.url()).await;
    history.steps(30).await;
    judge(&history.world).await;
    settle(&history.world, &running).await;
    saved.put_back(back).await;
    noticed(&history.world).await;
    // What happens now rests on what is there.
    judge(&history.world).await;
    history.steps(40).await;
    judge(&history.world).await;
    settle(&history.world, &running).await;
    let live = dump_all(&history.world.pools.reader).await;
    running.stop().await;
    rebuild_all(&history.world).await;
    let rebuilt = dump_all(&history.world.pools.reader).await;
    assert_eq!(live, rebuilt);
    history.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_follow_a_database_that_was_put_back() {
    they_follow_what_is_there(Back::Whole).await;
}

/// The models stand at events that are gone: they are filled anew.
#[tokio::test(flavor = "multi_thread")]
async fn so_they_do_when_they_were_not_put_back_with_it() {
    they_follow_what_is_there(Back::AllButReadModels).await;
}
