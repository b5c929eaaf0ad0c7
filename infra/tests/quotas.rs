//! The sliding window against an exact log of calls, and many callers at once.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use futures::future::join_all;
use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_oneof},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use punchtrail_infra::{
    quotas::{BUCKET_S, Blocks, Quota, forget},
    testing::{TestDatabase, sqlx},
};

const DAY_S: i64 = 86_400;
const START_S: i64 = 1_790_000_123;
const RUNS: usize = 40;

/// Calls at these times, in seconds after one another: bursts, minutes, and near a day.
fn pauses() -> impl Strategy<Value = Vec<i64>> {
    let pause = prop_oneof![
        4 => 0_i64..5,
        3 => 0_i64..2_000,
        2 => 0_i64..20_000,
        1 => 84_000_i64..90_000,
    ];
    vec(pause, 1..120)
}

/// An exact log of what was let in.
struct Log(Vec<i64>);

impl Log {
    /// Calls within (`at` − a day − `slack`, `at`].
    fn within(&self, at: i64, slack: i64) -> usize {
        self.0.iter().filter(|&&made| made > at - DAY_S - slack && made <= at).count()
    }
}

#[tokio::test]
async fn no_window_has_more_and_nobody_waits_longer_than_ten_minutes_beyond() {
    let database = TestDatabase::new().await;
    let pools = database.pools().await;
    let mut runner = TestRunner::deterministic();
    let strategy = (pauses(), 1_u32..9, any::<u16>());
    for run in 0..RUNS {
        let (pauses, most, offset) = strategy.new_tree(&mut runner).unwrap().current();
        let (quota, caller) = (Quota::a_day("test", most), format!("caller {run}"));
        let (mut at, mut log) = (START_S + i64::from(offset), Log(Vec::new()));
        for pause in pauses {
            at += pause;
            let count = quota.count_at(&pools.writer, &caller, at).await.unwrap();
            assert_eq!(count.now_s, at);
            if count.is_granted() {
                assert!(log.within(at, 0) < most as usize, "one too many at {at}: {:?}", log.0);
                log.0.push(at);
                assert_eq!(count.left > 0, count.fits_s == at, "{count:?}");
                continue;
            }
            // An exact log refuses it, too, or has let it in for ten minutes at most.
            let slack = i64::from(BUCKET_S);
            assert!(log.within(at, slack) >= most as usize, "refused at {at}: {:?}", log.0);
            assert!(count.fits_s > at && count.fits_s <= at + DAY_S + slack, "{count:?}");
            // It fits when it was said to, and not a second earlier.
            let early = quota.count_at(&pools.writer, &caller, count.fits_s - 1).await.unwrap();
            assert!(!early.is_granted(), "{count:?} {early:?}");
            if pause % 3 == 0 {
                at = count.fits_s;
                assert!(quota.count_at(&pools.writer, &caller, at).await.unwrap().is_granted());
                assert!(log.within(at, 0) < most as usize);
                log.0.push(at);
            }
        }
        let counts: Vec<i32> =
            sqlx::query_scalar("select counts from call_windows where caller = $1")
                .bind(&caller)
                .fetch_one(&pools.writer)
                .await
                .unwrap();
        assert!(counts.len() <= 145, "{}", counts.len());
    }
    pools.close().await;
    database.close().await;
}

#[tokio::test]
async fn a_clock_that_goes_back_lets_in_no_more() {
    let database = TestDatabase::new().await;
    let pools = database.pools().await;
    let quota = Quota::a_day("test", 2);
    let count = async |at| quota.count_at(&pools.writer, "who", at).await.unwrap();
    assert!(count(START_S).await.is_granted());
    assert!(count(START_S - 3_600).await.is_granted());
    let refused = count(START_S - 3_600).await;
    assert!(!refused.is_granted());
    assert!(!count(START_S + DAY_S - 1).await.is_granted());
    assert!(count(START_S + DAY_S + i64::from(BUCKET_S)).await.is_granted());
    pools.close().await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_on_two_nodes_as_many_are_let_in_as_may_be() {
    let database = TestDatabase::new().await;
    let [one, other] = [database.pools().await, database.pools().await];
    let quota = Quota::a_day("test", 30);
    let calls = (0..100).map(|n| {
        let writer = if n % 2 == 0 { &one.writer } else { &other.writer };
        async move { quota.count(writer, "who").await.unwrap() }
    });
    let counts = join_all(calls).await;
    assert_eq!(counts.iter().filter(|count| count.is_granted()).count(), 30);
    let refused = counts.iter().find(|count| !count.is_granted()).unwrap();
    assert_eq!(refused.left, 0);
    assert!(refused.wait_s() > 0 && refused.wait_s() <= 86_400 + u64::from(BUCKET_S));
    // To look counts nothing, and another caller has all.
    let look = quota.look(&one.writer, "other").await.unwrap();
    assert_eq!((look.left, look.is_granted()), (30, false));
    assert!(quota.count(&other.writer, "other").await.unwrap().is_granted());
    assert_eq!(quota.look(&one.writer, "who").await.unwrap().left, 0);
    // Who is counted by blocks never gets more, either.
    let quota = Quota::an_hour("blocks", 1_000);
    let blocks = [Blocks::new(quota), Blocks::new(quota)];
    let mut granted = 0;
    for n in 0..1_100 {
        let node = n % 2;
        let count = blocks[node].count(&one.writer, "who").await.unwrap();
        granted += usize::from(count.is_granted());
    }
    assert_eq!(granted, 1_000);
    // What is over is swept.
    sqlx::query("update call_windows set over_at = now() - interval '1 s' where kind = 'test'")
        .execute(&one.writer)
        .await
        .unwrap();
    forget(&one.writer).await.unwrap();
    let kinds: Vec<String> =
        sqlx::query_scalar("select kind from call_windows").fetch_all(&one.writer).await.unwrap();
    assert_eq!(kinds, ["blocks"]);
    one.close().await;
    other.close().await;
    database.close().await;
}
