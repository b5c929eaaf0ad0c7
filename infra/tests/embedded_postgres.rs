//! The embedded Postgres with real processes: started, shared, killed, adopted, refused.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use punchtrail_infra::{
    postgres::{Pool, PoolSizes, Postgres, PostgresError, ServeLock},
    testing::data_dir,
};
use punchtrail_testkit::{PATIENCE, eventually, not_run};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sqlx::{ConnectOptions, Connection, PgConnection};

/// Set for the copy of this test binary that plays another process of ours.
const CHILD_DIR: &str = "PUNCHTRAIL_TEST_CHILD_DIR";

/// Waits until `ready`, or fails the test.
async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    eventually(what, PATIENCE, async || Ok(ready().await.then_some(()))).await.unwrap();
}

fn cluster(data: &Path) -> PathBuf {
    data.join("postgres/cluster")
}

fn postmaster(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(cluster(data).join("postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.parse().ok()?)
}

/// Whether it is alive; one that only waits to be reaped isn't.
fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let zombie = stat.is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('Z'));
    test_kill_process(pid).is_ok() && !zombie
}

async fn connect(postgres: &Postgres) -> PgConnection {
    postgres.owner_options().connect().await.unwrap()
}

async fn write_row(postgres: &Postgres) {
    let mut connection = connect(postgres).await;
    sqlx::raw_sql("create table if not exists kept (n int); insert into kept values (1)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn rows(postgres: &Postgres) -> i64 {
    let mut connection = connect(postgres).await;
    let count = sqlx::query_scalar("select count(*) from kept").fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    count.unwrap()
}

#[tokio::test]
async fn starts_keeps_its_rows_and_stops() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    assert!(postgres.is_embedded());
    write_row(&postgres).await;
    let first = postmaster(data.path()).unwrap();
    postgres.close().await.unwrap();
    assert!(!lives(first), "the last user stops it");

    let postgres = Postgres::open(None, data.path()).await.unwrap();
    assert_eq!(rows(&postgres).await, 1);
    assert!(postgres.bin_dir().unwrap().join("initdb").exists());
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn is_private_durable_and_checksummed() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    let mut connection = connect(&postgres).await;
    for (setting, expected) in [
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
    ] {
        let value: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(value, expected, "{setting}");
    }
    connection.close().await.unwrap();
    // The address of the other programs leads to the same place.
    let url = postgres.embedded_url().unwrap();
    let again = Postgres::open(Some(&url), data.path()).await.unwrap();
    assert!(!again.is_embedded());
    again.close().await.unwrap();
    assert!(lives(postmaster(data.path()).unwrap()), "a URL's user doesn't stop it");
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn comes_back_by_itself_when_the_server_is_killed() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    postgres.migrate().await.unwrap();
    write_row(&postgres).await;
    let pools = postgres.pools(PoolSizes::default()).await.unwrap();
    assert_eq!(count(&pools.owner).await.unwrap(), 1);

    let killed = postmaster(data.path()).unwrap();
    kill_process(killed, Signal::KILL).unwrap();
    until("the pool works again", async || {
        postmaster(data.path()) != Some(killed) && count(&pools.owner).await.is_ok()
    })
    .await;
    assert_eq!(count(&pools.owner).await.unwrap(), 1, "nothing committed is lost");
    pools.close().await;
    postgres.close().await.unwrap();
}

async fn count(pool: &Pool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select count(*) from kept").fetch_one(pool).await
}

#[tokio::test]
async fn recovers_when_all_were_killed() {
    let data = data_dir();
    let mut child = Other::start(data.path());
    let killed = postmaster(data.path()).unwrap();
    child.kill();
    // Nobody of ours is left to start it again.
    kill_process(killed, Signal::KILL).unwrap();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    assert_ne!(postmaster(data.path()), Some(killed));
    assert_eq!(rows(&postgres).await, 1);
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn adopts_the_server_of_a_process_that_was_killed() {
    let data = data_dir();
    let mut child = Other::start(data.path());
    let server = postmaster(data.path()).unwrap();
    child.kill();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    assert_eq!(postmaster(data.path()), Some(server), "it is the same server");
    assert_eq!(rows(&postgres).await, 1);
    postgres.close().await.unwrap();
    until("the adopted server is gone", async || !lives(server)).await;
}

#[tokio::test]
async fn two_processes_share_it_and_the_last_one_stops_it() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    let child = Other::start(data.path());
    let server = postmaster(data.path()).unwrap();
    postgres.close().await.unwrap();
    assert!(lives(server), "the other process still uses it");
    let again = Postgres::open(None, data.path()).await.unwrap();
    assert_eq!(postmaster(data.path()), Some(server));
    child.leave();
    assert!(lives(server), "we still use it");
    again.close().await.unwrap();
    assert!(!lives(server));
}

#[tokio::test]
async fn many_start_at_once() {
    let data = data_dir();
    let opened = futures::future::join_all((0..6).map(|_| async {
        let postgres = Postgres::open(None, data.path()).await.unwrap();
        postgres.migrate().await.unwrap();
        postgres
    }))
    .await;
    let server = postmaster(data.path()).unwrap();
    for postgres in opened {
        assert!(lives(server));
        postgres.close().await.unwrap();
    }
    assert!(!lives(server));
}

#[tokio::test]
async fn an_interrupted_creation_is_done_again() {
    let data = data_dir();
    fs::create_dir_all(cluster(data.path())).unwrap();
    fs::write(cluster(data.path()).join("PG_VERSION"), "15\n").unwrap();
    fs::write(cluster(data.path()).join("half"), "written").unwrap();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    write_row(&postgres).await;
    assert!(!cluster(data.path()).join("half").exists());
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn a_process_killed_while_it_creates_the_cluster_is_followed_by_another() {
    let data = data_dir();
    let mut first = Other::spawn(data.path());
    until("the creation is under way", async || cluster(data.path()).join("base").exists()).await;
    first.kill().unwrap();
    first.wait().unwrap();
    // Its initdb may still be at work: it must neither be disturbed nor disturb.
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    write_row(&postgres).await;
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn a_cluster_with_databases_is_never_removed() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    write_row(&postgres).await;
    postgres.close().await.unwrap();
    let marker = cluster(data.path()).join("punchtrail.ready");
    fs::remove_file(&marker).unwrap();
    let refused = Postgres::open(None, data.path()).await.unwrap_err();
    assert!(matches!(refused, PostgresError::UnmarkedCluster { .. }), "{refused}");
    fs::write(&marker, "").unwrap();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    assert_eq!(rows(&postgres).await, 1);
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_with_a_long_path_works() {
    let data = data_dir();
    let deep = data.path().join("d".repeat(60)).join("e".repeat(60));
    let postgres = Postgres::open(None, &deep).await.unwrap();
    let socket_dir = postgres.owner_options().get_socket().unwrap().clone();
    assert!(socket_dir.starts_with("/tmp/"), "{}", socket_dir.display());
    write_row(&postgres).await;
    postgres.close().await.unwrap();
    fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_closed_parent_is_named() {
    if !rustix::process::geteuid().is_root() {
        return not_run("only root runs Postgres as another user");
    }
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let refused = Postgres::open(None, &closed.path().join("data")).await.unwrap_err();
    let blocking = fs::canonicalize(closed.path()).unwrap();
    let remedy = format!("`chmod o+x {}`", blocking.display());
    assert!(refused.to_string().contains(&remedy), "{refused}");
}

#[tokio::test]
async fn databases_that_could_forget_are_refused() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    let url = postgres.embedded_url().unwrap();
    let bin_dir = postgres.bin_dir().unwrap();
    postgres.close().await.unwrap();

    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let own = OwnServer::start(&bin_dir, data.path(), &format!("{setting}=off"), &url).await;
        let refused = Postgres::open(Some(&url), data.path()).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("{setting} = off")), "{refused}");
        assert!(refused.contains(&format!("alter system set {setting} = on")), "{refused}");
        // Adopted instead of started, it is refused as well.
        let refused = Postgres::open(None, data.path()).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("{setting} = off")), "{refused}");
        own.stop().await;
    }
}

#[tokio::test]
async fn a_setting_turned_off_later_stops_new_connections() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    postgres.migrate().await.unwrap();
    let pools = postgres.pools(PoolSizes::default()).await.unwrap();
    sqlx::raw_sql("alter role punchtrail set synchronous_commit = off")
        .execute(&pools.owner)
        .await
        .unwrap();
    let refused = sqlx::raw_sql("select 1").execute(&pools.writer).await;
    assert!(refused.is_err(), "a connection of a pool is checked when it opens");
    let refused = postgres.pools(PoolSizes::default()).await.unwrap_err().to_string();
    assert!(refused.contains("synchronous_commit = off"), "{refused}");
    pools.close().await;
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn pools_work_under_their_roles_and_limits() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    postgres.migrate().await.unwrap();
    let pools = postgres.pools(PoolSizes::default()).await.unwrap();
    for (pool, role) in [
        (&pools.writer, "punchtrail_writer"),
        (&pools.reader, "punchtrail_reader"),
        (&pools.owner, "punchtrail"),
    ] {
        let seen: (String, String, String) = sqlx::query_as(
            "select current_user::text, current_setting('lock_timeout'), \
             current_setting('TimeZone')",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        assert_eq!((seen.0.as_str(), seen.2.as_str()), (role, "UTC"));
        assert_ne!(seen.1, "0");
    }
    pools.close().await;
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn a_user_without_the_right_is_told_what_to_have_run() {
    let data = data_dir();
    let postgres = Postgres::open(None, data.path()).await.unwrap();
    let mut admin = connect(&postgres).await;
    for statement in [
        "create role clerk login",
        "create database clerks owner clerk encoding 'UTF8' template template0",
    ] {
        sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    }
    let url = postgres
        .embedded_url()
        .unwrap()
        .replace("punchtrail@", "clerk@")
        .replace("/punchtrail?", "/clerks?");
    let clerks = Postgres::open(Some(&url), data.path()).await.unwrap();
    let PostgresError::Roles { sql, .. } = clerks.migrate().await.unwrap_err() else {
        panic!("expected the missing rights")
    };
    assert!(sql.contains("to \"clerk\""), "{sql}");
    // What it says is what helps.
    sqlx::raw_sql(&sql).execute(&mut admin).await.unwrap();
    clerks.migrate().await.unwrap();
    let pools = clerks.pools(PoolSizes::default()).await.unwrap();
    pools.close().await;
    admin.close().await.unwrap();
    postgres.close().await.unwrap();
}

#[test]
fn a_second_server_on_a_directory_is_refused_at_once() {
    let data = data_dir();
    let held = ServeLock::acquire(data.path()).unwrap();
    let refused = ServeLock::acquire(data.path()).unwrap_err().to_string();
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    assert!(refused.contains(&data.path().display().to_string()), "{refused}");
    drop(held);
    ServeLock::acquire(data.path()).unwrap();
}

#[tokio::test]
async fn urls_that_lead_nowhere_are_explained_without_the_password() {
    let nowhere = data_dir();
    let url = format!("postgres://u:geheim@localhost/db?host={}", nowhere.path().display());
    for url in [url.as_str(), "postgres://u:geheim@localhost:notaport/db"] {
        let refused = Postgres::open(Some(url), nowhere.path()).await.unwrap_err().to_string();
        assert!(!refused.contains("geheim"), "{refused}");
    }
}

/// A Postgres that somebody else runs, with a setting of theirs.
struct OwnServer(Child);

impl OwnServer {
    async fn start(bin_dir: &Path, data: &Path, setting: &str, url: &str) -> Self {
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(cluster(data)).unwrap();
        let mut command = Command::new(bin_dir.join("postgres"));
        command.arg("-D").arg(cluster(data)).arg("-k").arg(data.join("postgres/socket"));
        command.args(["-c", "listen_addresses=", "-c", setting]);
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if rustix::process::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let server = Self(command.spawn().unwrap());
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        until("the other server answers", async || options.connect().await.is_ok()).await;
        server
    }

    async fn stop(mut self) {
        // Opening and refusing it may have stopped it already, as its last user.
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        if self.0.try_wait().unwrap().is_none() {
            kill_process(pid, Signal::INT).unwrap();
        }
        until("the other server is gone", async || self.0.try_wait().unwrap().is_some()).await;
    }
}

/// Another process of ours that uses a data directory: this test binary, running only
/// [`as_another_process`].
struct Other {
    child: Child,
    // Closing it would make the other process fail when its test harness prints.
    stdout: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Other {
    fn spawn(data: &Path) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["as_another_process", "--exact", "--nocapture"])
            .env(CHILD_DIR, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn start(data: &Path) -> Self {
        let mut child = Self::spawn(data);
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = stdout.by_ref().map_while(Result::ok).any(|line| line.contains("opened"));
        assert!(ready, "the other process opened the database");
        Self { child, stdout }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn leave(mut self) {
        let mut stdin = self.child.stdin.take().unwrap();
        stdin.write_all(b"leave\n").unwrap();
        drop(stdin);
        drop(self.stdout.by_ref().last());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Plays the other process when [`Other`] asks for it.
#[tokio::test]
async fn as_another_process() {
    let Some(data) = std::env::var_os(CHILD_DIR) else { return };
    let postgres = Postgres::open(None, Path::new(&data)).await.unwrap();
    write_row(&postgres).await;
    println!("opened");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    if line.starts_with("leave") {
        postgres.close().await.unwrap();
    }
}
