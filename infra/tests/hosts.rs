//! A database with several hosts, played by two private servers of which one takes writes at a
//! time; and what is waited for at a start.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{path::Path, time::Duration};

use punchtrail_infra::{
    postgres::{PoolSizes, Pools, Postgres, PostgresError, Trouble},
    testing::data_dir,
};
use punchtrail_testkit::{PATIENCE, eventually};
use sqlx::{ConnectOptions, PgConnection};

/// Longer than any test here may take.
const LONG: Duration = Duration::from_secs(600);

/// A server, and a connection on which its writes are forbidden and allowed.
struct Host {
    data: tempfile::TempDir,
    admin: PgConnection,
    postgres: Postgres,
}

impl Host {
    /// One with the schema. Its table tells it from others.
    async fn start(name: &str) -> Self {
        let data = data_dir();
        let postgres = Postgres::open(None, data.path()).await.unwrap();
        postgres.migrate().await.unwrap();
        let mut admin = postgres.owner_options().connect().await.unwrap();
        let named = format!("create table host as select '{name}' as name");
        sqlx::raw_sql(&named).execute(&mut admin).await.unwrap();
        Self { data, admin, postgres }
    }

    fn socket(&self) -> String {
        self.postgres.owner_options().get_socket().unwrap().display().to_string()
    }

    /// Whether its sessions may write from now on, those that there are included.
    async fn take_writes(&mut self, taken: bool) {
        let set = format!(
            "set default_transaction_read_only = off; \
             alter system set default_transaction_read_only = {}",
            if taken { "off" } else { "on" }
        );
        for statement in set.split("; ").chain(["select pg_reload_conf()"]) {
            sqlx::raw_sql(statement).execute(&mut self.admin).await.unwrap();
        }
        eventually("the setting to be taken", PATIENCE, async || {
            let mut fresh = self.postgres.owner_options().connect().await?;
            let now: String = sqlx::query_scalar("show default_transaction_read_only")
                .fetch_one(&mut fresh)
                .await?;
            Ok(((now == "off") == taken).then_some(()))
        })
        .await
        .unwrap();
    }

    async fn close(self) {
        drop(self.admin);
        self.postgres.close().await.unwrap();
        drop(self.data);
    }
}

fn url(hosts: &[&Host]) -> String {
    let sockets: Vec<String> = hosts.iter().map(|host| host.socket()).collect();
    format!(
        "postgres://punchtrail@localhost/punchtrail?sslmode=disable&target_session_attrs=primary\
         &host={}",
        sockets.join(",")
    )
}

async fn pools(postgres: &Postgres) -> Pools {
    postgres.pools(PoolSizes::default()).await.unwrap()
}

/// Where the pools lead: every one of them writes there.
async fn written_to(pools: &Pools) -> Result<String, sqlx::Error> {
    let write = "create temporary table if not exists scratch (n int)";
    sqlx::raw_sql(write).execute(&pools.owner).await?;
    for pool in [&pools.writer, &pools.committer, &pools.reader, &pools.follower] {
        let read_only: String =
            sqlx::query_scalar("show transaction_read_only").fetch_one(pool).await?;
        assert_eq!(read_only, "off");
    }
    sqlx::query_scalar("select name from host").fetch_one(&pools.owner).await
}

async fn becomes(pools: &Pools, name: &str) {
    eventually(format!("writes on {name}"), PATIENCE, async || {
        Ok(written_to(pools).await.is_ok_and(|host| host == name).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_host_that_takes_writes_is_used_also_when_it_becomes_another() {
    let (mut a, mut b) = (Host::start("a").await, Host::start("b").await);
    a.take_writes(false).await;
    let postgres = Postgres::open(Some(&url(&[&a, &b])), Path::new("")).await.unwrap();
    postgres.migrate().await.unwrap();
    let pools = pools(&postgres).await;
    assert_eq!(written_to(&pools).await.unwrap(), "b");

    // Sessions on the old one live on, and are used no more.
    b.take_writes(false).await;
    a.take_writes(true).await;
    becomes(&pools, "a").await;
    assert_eq!(written_to(&pools).await.unwrap(), "a");

    // Nobody: what is asked meanwhile fails with what passes, and it goes on by itself.
    a.take_writes(false).await;
    let nobody = eventually("no writes", PATIENCE, async || Ok(written_to(&pools).await.err()));
    assert_eq!(Trouble::of(&nobody.await.unwrap()), Trouble::Passing);
    b.take_writes(true).await;
    becomes(&pools, "b").await;

    pools.close().await;
    postgres.close().await.unwrap();
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn one_host_is_left_alone_while_it_takes_no_writes_and_used_again_when_it_does() {
    let mut host = Host::start("one").await;
    let postgres = Postgres::open(Some(&url(&[&host])), Path::new("")).await.unwrap();
    let pools = pools(&postgres).await;
    assert_eq!(written_to(&pools).await.unwrap(), "one");
    host.take_writes(false).await;
    let nobody = eventually("no writes", PATIENCE, async || Ok(written_to(&pools).await.err()));
    assert_eq!(Trouble::of(&nobody.await.unwrap()), Trouble::Passing);
    // No connection is lent any more, as no new one may write.
    let lent = eventually("no connection", PATIENCE, async || {
        Ok(sqlx::query("select 1").execute(&pools.committer).await.err())
    });
    assert_eq!(Trouble::of(&lent.await.unwrap()), Trouble::Passing);
    host.take_writes(true).await;
    becomes(&pools, "one").await;
    pools.close().await;
    postgres.close().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn a_start_waits_until_the_database_takes_writes() {
    let mut host = Host::start("late").await;
    host.take_writes(false).await;
    let late = url(&[&host]);
    let PostgresError::NoWriter { found, .. } =
        Postgres::open(Some(&late), Path::new("")).await.unwrap_err()
    else {
        panic!("expected no writer")
    };
    assert!(found.contains("read-only standby"), "{found}");

    let allow = async {
        eventually("it to ask", PATIENCE, async || {
            let asks = "select count(*) from pg_stat_activity \
                 where application_name = 'punchtrail-lookout'";
            let asks: i64 = sqlx::query_scalar(asks).fetch_one(&mut host.admin).await?;
            Ok((asks > 0).then_some(()))
        })
        .await
        .unwrap();
        host.take_writes(true).await;
    };
    let (opened, ()) = tokio::join!(Postgres::open_within(Some(&late), Path::new(""), LONG), allow);
    opened.unwrap().close().await.unwrap();
    host.close().await;
}

#[tokio::test]
async fn what_no_waiting_helps_is_refused_at_once() {
    let host = Host::start("strict").await;
    let elsewhere = data_dir();
    let nowhere = format!(",{}", elsewhere.path().display());
    let good = url(&[&host]);
    for (bad, reason) in [
        (good.replace("/punchtrail?", "/nothing?"), "\"nothing\" does not exist"),
        (good.replace("punchtrail@", "nobody:geheim@"), "\"nobody\" does not exist"),
        (good.replace("/punchtrail?", "/nothing?") + &nowhere, "\"nothing\" does not exist"),
    ] {
        let refused = Postgres::open_within(Some(&bad), Path::new(""), LONG).await.unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains(reason) && !refused.contains("geheim"), "{refused}");
    }
    host.close().await;
}
