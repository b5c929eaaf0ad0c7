//! Whether the comparison of devices' files with the ledger, which other tests rest on, finds what
//! isn't as it should be.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_infra::testing::TestDatabase;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_tests::{
    Agent, Installation, Shop, agent::Punch, compare, comparison::Comparison, shop::BADGES,
};
use sqlx::PgPool;

/// Deletes the first capture, changes the second, repeats the third.
const TAMPER: &str = "alter table events disable trigger user;
    delete from events where position = (select min(position) from events where event_type = \
    'Captured');
    update events set payload = '{\"Captured\":{\"capture\":\"{}\"}}'
        where position = (select min(position) from events where event_type = 'Captured');
    insert into events select aggregate_type, aggregate_id, 99, event_type, event_version, \
    payload, metadata,
            position + 1000, recorded_at, leaf_hash
        from events where event_type = 'Captured' order by position offset 1 limit 1;";

async fn punch(agent: &Agent, times: usize) {
    for _ in 0..times {
        let punch = Punch { badge: BADGES[0], kind: PunchKind::In, pin: None, then: None };
        agent.punch(&punch).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_missing_repeated_altered_or_foreign_is_counted() {
    let database = TestDatabase::new().await;
    let shop = Shop::open_at(Installation::with_database(database.url()).unwrap()).await.unwrap();
    let agent = shop.agent(shop.server.url()).await.unwrap();
    let other = shop.agent(shop.server.url()).await.unwrap();
    let pool = PgPool::connect(database.url()).await.unwrap();
    let folders = [agent.dir().to_owned(), other.dir().to_owned()];
    punch(&agent, 5).await;
    assert_eq!(agent.sync().await.unwrap()["complete"], true);
    let fine = compare(&folders, &pool).await.unwrap();
    fine.is_complete().unwrap();
    assert_eq!((fine.captures, fine.head), (5, shop.operator.head().await.unwrap()));

    punch(&other, 2).await;
    let waiting = compare(&folders, &pool).await.unwrap();
    waiting.holds().unwrap();
    waiting.is_complete().unwrap_err();
    assert_eq!((waiting.waiting, waiting.unsent.values().sum::<u64>()), (2, 2));

    let without = compare(&folders[1..], &pool).await.unwrap();
    assert_eq!((without.captures, without.foreign), (2, 5));

    sqlx::raw_sql(TAMPER).execute(&pool).await.unwrap();
    let tampered = compare(&folders, &pool).await.unwrap();
    tampered.holds().unwrap_err();
    let Comparison { lost, twice, other_bytes, foreign, holes, .. } = tampered;
    assert_eq!((lost, twice, other_bytes, foreign), (1, 1, 1, 0));
    assert!(holes > 0);
    pool.close().await;
    drop(shop);
    database.close().await;
}
