//! `ledger verify` against a superuser of the database: an altered row, a row altered together with
//! its leaf hash, the newest rows removed.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use jiff::Timestamp;
use punchtrail_domain::log::leaf::Leaf;
use punchtrail_infra::testing::TestDatabase;
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::PATIENCE;
use punchtrail_tests::{Installation, Shop, cli::Said};
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

/// A row that the superuser goes for.
struct Target {
    position: i64,
    payload: String,
    leaf_hash: Vec<u8>,
}

/// A ledger with punches, signed for; its server is stopped.
struct Scene {
    shop: Shop,
    superuser: PgConnection,
    head: u64,
    database: TestDatabase,
}

impl Scene {
    async fn set() -> Self {
        let database = TestDatabase::new().await;
        let mut shop =
            Shop::open_at(Installation::with_database(database.url()).unwrap()).await.unwrap();
        let mut kiosk = shop.kiosk(shop.server.url()).await.unwrap();
        for kind in [PunchKind::In, PunchKind::Out, PunchKind::BreakStart] {
            let capture = kiosk.capture(shop.employee, kind);
            kiosk.deliver(&[kiosk.item(&capture)]).await.unwrap();
        }
        let head = shop.operator.settled(true, PATIENCE).await.unwrap();
        assert!(shop.server.terminate().await.unwrap().success());
        let superuser = database.owner_options().connect().await.unwrap();
        Self { shop, superuser, head, database }
    }

    async fn verify(&self) -> Said {
        self.shop.cli.run(&["ledger", "verify"]).await.unwrap()
    }

    /// The first capture.
    async fn target(&mut self) -> Target {
        let row = sqlx::query(
            "select position, payload::text, leaf_hash from events \
             where event_type = 'Captured' order by position limit 1",
        )
        .fetch_one(&mut self.superuser)
        .await
        .unwrap();
        Target {
            position: row.get("position"),
            payload: row.get("payload"),
            leaf_hash: row.get("leaf_hash"),
        }
    }

    /// Whoever is the superuser can switch the guards off, and on again so that nobody sees it;
    /// that is what signatures are for.
    async fn guards(&mut self, on: bool) {
        let switch = match on {
            false => "alter table events disable trigger user",
            true => {
                "alter table events enable always trigger events_append_only; \
                 alter table events enable always trigger events_no_truncate"
            }
        };
        sqlx::raw_sql(switch).execute(&mut self.superuser).await.unwrap();
    }

    async fn put(&mut self, position: i64, payload: &str, leaf_hash: &[u8]) {
        self.guards(false).await;
        let update = "update events set payload = $2::json, leaf_hash = $3 where position = $1";
        sqlx::query(update)
            .bind(position)
            .bind(payload)
            .bind(leaf_hash)
            .execute(&mut self.superuser)
            .await
            .unwrap();
        self.guards(true).await;
    }

    /// The leaf hash that the row at `position` has with another payload.
    async fn hash_with(&mut self, position: i64, payload: &str) -> Vec<u8> {
        let row = sqlx::query(
            "select (extract(epoch from recorded_at) * 1000000)::bigint as us, aggregate_type, \
             aggregate_id, sequence, event_type, event_version, metadata::text as metadata \
             from events where position = $1",
        )
        .bind(position)
        .fetch_one(&mut self.superuser)
        .await
        .unwrap();
        let leaf = Leaf {
            position: position.cast_unsigned(),
            recorded_at_us: row.get("us"),
            aggregate_type: row.get("aggregate_type"),
            aggregate_id: row.get("aggregate_id"),
            sequence: row.get::<i64, _>("sequence").cast_unsigned(),
            event_type: row.get("event_type"),
            event_version: row.get("event_version"),
            payload,
            metadata: row.get("metadata"),
        };
        leaf.hash().unwrap().0.to_vec()
    }
}

fn codes(said: &Said) -> Vec<&str> {
    let findings = said.json["findings"].as_array().unwrap();
    findings.iter().filter_map(|finding| finding["code"].as_str()).collect()
}

#[tokio::test]
async fn three_alterations_by_a_superuser_are_found_and_named() {
    let mut scene = Scene::set().await;
    let clean = scene.verify().await;
    assert_eq!(clean.code, 0, "{}", clean.json);
    assert_eq!(clean.json["events"], scene.head);
    let Target { position, payload, leaf_hash } = scene.target().await;
    // Another kind of punch, under the same length and shape.
    let altered = payload.replacen(r#"\"kind\":\"in\""#, r#"\"kind\":\"out\""#, 1);
    assert_ne!(altered, payload);

    // A row.
    scene.put(position, &altered, &leaf_hash).await;
    let said = scene.verify().await;
    assert_eq!((said.code, said.json["first_bad"].as_i64()), (1, Some(position)), "{}", said.json);
    assert!(codes(&said).contains(&"leaf_mismatch"), "{}", said.json);

    // A row and its leaf hash, so that the database agrees with itself.
    let hash = scene.hash_with(position, &altered).await;
    assert_eq!(scene.hash_with(position, &payload).await, leaf_hash, "hashed as the ledger does");
    scene.put(position, &altered, &hash).await;
    let said = scene.verify().await;
    assert_eq!(said.code, 1, "{}", said.json);
    assert!(said.json["first_bad"].as_i64().unwrap() <= position, "{}", said.json);
    assert!(codes(&said).contains(&"root_mismatch"), "{}", said.json);
    assert!(!codes(&said).contains(&"leaf_mismatch"), "{}", said.json);

    // Put back, it is the ledger again.
    scene.put(position, &payload, &leaf_hash).await;
    assert_eq!(scene.verify().await.code, 0);

    // The newest rows, with the head moved back as if they had never been.
    let last = i64::try_from(scene.head).unwrap() - 2;
    scene.guards(false).await;
    sqlx::query("delete from events where position > $1")
        .bind(last)
        .execute(&mut scene.superuser)
        .await
        .unwrap();
    sqlx::query(
        "update ledger_head set position = $1, \
         recorded_at = (select recorded_at from events where position = $1)",
    )
    .bind(last)
    .execute(&mut scene.superuser)
    .await
    .unwrap();
    let said = scene.verify().await;
    assert_eq!(said.code, 1, "{}", said.json);
    assert_eq!(said.json["first_bad"].as_i64(), Some(last + 1), "{}", said.json);
    assert!(codes(&said).contains(&"beyond_head"), "{}", said.json);
    assert!(codes(&said).contains(&"guard_altered"), "the guards are still off: {}", said.json);

    scene.superuser.close().await.unwrap();
    drop(scene.shop);
    scene.database.close().await;
}

#[tokio::test]
async fn the_servers_own_roles_cannot_change_what_is_written() {
    let scene = Scene::set().await;
    let pools = scene.database.pools().await;
    for statement in [
        "update events set payload = '{}'",
        "delete from events",
        "truncate events",
        "alter table events disable trigger user",
    ] {
        for pool in [&pools.writer, &pools.reader] {
            sqlx::query(statement).execute(pool).await.expect_err(statement);
        }
    }
    pools.close().await;
    assert_eq!(scene.verify().await.code, 0, "at {}", Timestamp::now());
    scene.superuser.close().await.unwrap();
    drop(scene.shop);
    scene.database.close().await;
}
