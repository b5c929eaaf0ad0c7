//! The databases that tests get: each its own, all migrated, none left behind.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use punchtrail_infra::testing::TestDatabase;
use punchtrail_testkit::{PATIENCE, eventually};
use sqlx::{ConnectOptions, Connection, PgConnection};

#[tokio::test]
async fn each_test_has_its_own_migrated_database() {
    let (first, second) = futures::join!(TestDatabase::new(), TestDatabase::new());
    let pools = first.pools().await;
    sqlx::raw_sql("create table only_here (n int)").execute(&pools.owner).await.unwrap();
    let elsewhere = second.pools().await;
    let found: Option<String> = sqlx::query_scalar("select to_regclass('only_here')::text")
        .fetch_one(&elsewhere.owner)
        .await
        .unwrap();
    assert_eq!(found, None);
    let migrated: bool = sqlx::query_scalar("select to_regclass('events') is not null")
        .fetch_one(&elsewhere.owner)
        .await
        .unwrap();
    assert!(migrated);
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_dropped_one_is_gone() {
    let watching = TestDatabase::new().await;
    let gone = TestDatabase::new().await;
    let name = gone.owner_options().get_database().unwrap().to_owned();
    // Pools that are still open must not keep it.
    let _pools = gone.pools().await;
    drop(gone);
    let mut connection = watching.owner_options().connect().await.unwrap();
    assert!(!exists(&mut connection, &name).await);
    connection.close().await.unwrap();
    watching.close().await;
}

#[tokio::test]
async fn what_a_killed_test_left_is_dropped() {
    let first = TestDatabase::new().await;
    // Nobody holds a lock for it, as if its process had been killed.
    let leftover = format!("test_leftover_{}", std::process::id());
    let mut connection = first.owner_options().connect().await.unwrap();
    sqlx::raw_sql(&format!("create database {leftover} template template0"))
        .execute(&mut connection)
        .await
        .unwrap();
    let second = TestDatabase::new().await;
    // Another test process may be the one that is dropping it.
    eventually(format!("{leftover} to be dropped"), PATIENCE, async || {
        Ok((!exists(&mut connection, &leftover).await).then_some(()))
    })
    .await
    .unwrap();
    let used = first.owner_options().get_database().unwrap();
    assert!(exists(&mut connection, used).await, "one in use stays");
    connection.close().await.unwrap();
    first.close().await;
    second.close().await;
}

async fn exists(connection: &mut PgConnection, database: &str) -> bool {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(database)
        .fetch_one(connection)
        .await
        .unwrap()
}
