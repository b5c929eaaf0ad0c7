//! Read models against what the ledger's events make of them, beside a node that feeds them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{History, dump_all, judge, settle, start};
use punchtrail_infra::audit::{Claims, Finding, FindingCode, audit};
use punchtrail_projections::engine::compare::{Comparison, compare, look};

async fn compared(history: &History) -> Comparison {
    let (models, world) = (punchtrail_projections::all(), &history.world);
    let feed = world.ledger.feed();
    compare(&models, &world.pools.reader, &feed, &mut |_, _| {}).await.unwrap()
}

async fn looked(history: &History) -> Vec<Finding> {
    look(&punchtrail_projections::all(), &history.world.pools.reader).await.unwrap()
}

async fn edit(history: &History, statement: &str) {
    sqlx::raw_sql(statement).execute(&history.world.pools.owner).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_altered_in_a_read_model_is_found_and_nothing_else() {
    let mut history = History::new(11).await;
    assert!(looked(&history).await.is_empty(), "before the first node ran");
    let running = start(&history.world).await;
    history.steps(150).await;
    judge(&history.world).await;
    settle(&history.world, &running).await;
    let reader = &history.world.pools.reader;
    let live = dump_all(reader).await;
    let compared_now = compared(&history).await;
    assert_eq!((compared_now.findings, compared_now.left_out), (vec![], Vec::<String>::new()));
    assert_eq!(compared_now.models.len(), punchtrail_projections::all().len());
    assert_eq!(dump_all(reader).await, live);
    let left: i64 = sqlx::query_scalar(
        "select count(*) from pg_class where relname like '%\\_0' or relpersistence = 't'",
    )
    .fetch_one(&history.world.pools.owner)
    .await
    .unwrap();
    assert_eq!(left, 0, "nothing stays behind");
    running.stop().await;

    let (mut tables, owner) = (0, &history.world.pools.owner);
    for model in punchtrail_projections::all() {
        for base in model.tables() {
            let table = format!("read.\"{base}_1\"");
            let columns: Vec<(String, String)> = sqlx::query_as(
                "select quote_ident(column_name), data_type::text from information_schema.columns \
                 where table_schema = 'read' and table_name = $1 and is_generated = 'NEVER'",
            )
            .bind(format!("{base}_1"))
            .fetch_all(owner)
            .await
            .unwrap();
            let (column, kind) = columns
                .iter()
                .find(|(_, kind)| kind == "bigint" || kind == "uuid")
                .cloned()
                .expect("every table has a place or an id");
            let other = if kind == "uuid" { "gen_random_uuid()" } else { "7777" };
            let columns: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            let columns = columns.join(", ");
            let keep = format!("create table public.kept as select {columns} from {table}");
            let back = format!(
                "truncate {table}; insert into {table} ({columns}) table public.kept; \
                 drop table public.kept"
            );
            let first = format!("ctid = (select min(ctid) from {table})");
            let rows: i64 = sqlx::query_scalar(&format!("select count(*) from {table}"))
                .fetch_one(owner)
                .await
                .unwrap();
            if rows == 0 {
                continue;
            }
            tables += 1;
            let altered = format!("update {table} set {column} = {other} where {first}");
            for change in [format!("delete from {table} where {first}"), altered] {
                edit(&history, &format!("{keep}; {change}")).await;
                let altered = compared(&history).await;
                assert_eq!(altered.findings.len(), 1, "{change}: {altered:?}");
                assert_eq!(altered.findings[0].code, FindingCode::ModelAltered);
                assert!(altered.findings[0].what.contains(&table), "{altered:?}");
                edit(&history, &back).await;
            }
        }
    }
    assert!(tables > 10, "only {tables} tables have rows");
    assert_eq!(dump_all(reader).await, live);
    history.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_places_are_looked_at_without_filling_anything() {
    let mut history = History::new(12).await;
    let running = start(&history.world).await;
    history.steps(20).await;
    settle(&history.world, &running).await;
    running.stop().await;
    assert_eq!(looked(&history).await, []);
    for (change, code, back) in [
        (
            "create or replace view read.sites as select * from read.sites_1 where rules is null",
            FindingCode::ModelAltered,
            "create or replace view read.sites as select * from read.sites_1",
        ),
        (
            "drop view read.sites",
            FindingCode::ModelAltered,
            "create view read.sites as select * from read.sites_1",
        ),
        (
            "update read.projections set position = position + 1000 where name = 'sites'",
            FindingCode::PlaceAltered,
            "update read.projections set position = position - 1000 where name = 'sites'",
        ),
        (
            "update read.projections set live = false where name = 'sites'",
            FindingCode::ModelAltered,
            "update read.projections set live = true where name = 'sites'",
        ),
    ] {
        edit(&history, change).await;
        let found = looked(&history).await;
        assert_eq!(found.len(), 1, "{change}: {found:?}");
        assert_eq!(found[0].code, code, "{change}");
        edit(&history, back).await;
    }
    // Another version's model is told of, and is no finding.
    edit(&history, "update read.projections set version = 900 where name = 'sites'").await;
    let compared = compared(&history).await;
    assert_eq!((compared.findings.len(), compared.left_out.len()), (0, 1));
    assert!(compared.left_out[0].contains("version 900"), "{compared:?}");
    history.world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_node_at_work_nothing_is_found() {
    let mut history = History::new(13).await;
    let running = start(&history.world).await;
    history.steps(60).await;
    for _ in 0..4 {
        let (models, world) = (punchtrail_projections::all(), &history.world);
        let (reader, feed) = (world.pools.reader.clone(), world.ledger.feed());
        let comparing =
            tokio::spawn(
                async move { compare(&models, &reader, &feed, &mut |_, _| {}).await.unwrap() },
            );
        history.steps(30).await;
        let compared = comparing.await.unwrap();
        assert_eq!((compared.findings, compared.left_out), (vec![], Vec::<String>::new()));
    }
    running.stop().await;
    history.world.close().await;
}

/// The histories break every rule that a real one may break, and are intact all the same.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happened_is_no_tampering() {
    for seed in 21..=24 {
        let mut history = History::new(seed).await;
        for steps in [50, 1, 90, 40] {
            history.steps(steps).await;
            if steps != 40 {
                judge(&history.world).await;
            }
            let report =
                audit(&history.world.pools.writer, Claims::none(""), &|_| {}).await.unwrap();
            let of_the_world = |finding: &&Finding| {
                // Its devices were enrolled by hand, without access, for no deployment.
                !matches!(
                    finding.code,
                    FindingCode::AccessAltered
                        | FindingCode::SitesAltered
                        | FindingCode::DeploymentAltered
                )
            };
            let found: Vec<_> = report.findings.iter().filter(of_the_world).collect();
            assert!(found.is_empty(), "seed {seed}: {found:?}");
        }
        history.world.close().await;
    }
}
