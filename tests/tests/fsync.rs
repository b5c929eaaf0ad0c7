//! Under strace: what was confirmed is on disk. A completed fsync or fdatasync stands between a
//! punch and its confirmation on the device, and between a batch and its 200 on the server's
//! Postgres.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use punchtrail_protocol::capture::PunchKind;
use punchtrail_testkit::{PATIENCE, eventually, not_run};
use punchtrail_tests::{Shop, agent::Punch, process::Process, programs::refusal, shop::BADGES};

/// How the acknowledgement begins.
const ANSWER: &str = "HTTP/1.1 200 OK";
const TRACE_WAIT: Duration = Duration::from_secs(60);

/// A system call, where it returned; one that was interrupted also where it began, without a
/// result.
#[derive(Debug, Clone)]
struct Call {
    /// The call's text: name, arguments, and what it returned.
    text: String,
}

impl Call {
    /// Whether a sync of a file whose path contains `file` has succeeded here.
    fn synced(&self, file: &str) -> bool {
        let is_sync = self.text.starts_with("fsync(") || self.text.starts_with("fdatasync(");
        is_sync && self.text.contains(file) && self.text.ends_with("= 0")
    }

    /// Whether bytes were written to a file whose path contains `file`.
    fn wrote(&self, file: &str) -> bool {
        let names = ["write(", "writev(", "pwrite64(", "pwritev("];
        names.iter().any(|name| self.text.starts_with(name))
            && self.text.split(',').next().is_some_and(|first| first.contains(file))
    }

    fn says(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

/// The calls of a trace, interrupted lines put together again where they were resumed.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun = std::collections::HashMap::<&str, String>::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(head) = rest.strip_suffix("<unfinished ...>") {
            // What it says may have been heard before it is known to have returned.
            calls.push(Call { text: head.trim_end().to_owned() });
            begun.insert(pid, head.trim_end().to_owned());
        } else if rest.starts_with("<... ") {
            let tail = rest.split_once("resumed>").map_or("", |(_, tail)| tail);
            let head = begun.remove(pid).unwrap_or_default();
            calls.push(Call { text: format!("{head}{tail}") });
        } else {
            calls.push(Call { text: rest.to_owned() });
        }
    }
    calls
}

fn strace(out: &Path, what: &str) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "64", "-e", &format!("trace={what}"), "-o"]).arg(out);
    strace
}

/// Why nothing can be traced here; none if something can.
async fn untraceable() -> Option<String> {
    refusal(tokio::process::Command::new("strace").args(["-o", "/dev/null", "true"])).await
}

#[test]
fn a_trace_is_put_together_where_calls_were_interrupted() {
    let trace = "7 write(3</d/db-wal>, \"x\", 1) = 1\n\
                 7 fdatasync(3</d/db-wal> <unfinished ...>\n\
                 8 read(5</e>, \"\", 9) = 0\n\
                 7 <... fdatasync resumed>) = 0\n\
                 9 fsync(4</d/db-wal>) = -1 EIO (Input/output error)\n";
    let calls = calls(trace);
    assert!(calls[0].wrote("db-wal") && !calls[0].synced("db-wal"));
    assert!(calls[1].says("fdatasync(") && !calls[1].synced("db-wal"), "it has only begun");
    assert!(calls[2].says("read(5"));
    assert!(calls[3].synced("db-wal") && !calls[3].synced("other"));
    assert!(!calls[4].synced("db-wal"), "a sync that failed is none");
}

#[tokio::test]
async fn a_punch_is_confirmed_only_after_it_was_synced() {
    if let Some(why) = untraceable().await {
        return not_run(why);
    }
    let shop = Shop::open().await.unwrap();
    let agent = shop.agent(shop.server.url()).await.unwrap();
    let punch = Punch { badge: BADGES[0], kind: PunchKind::In, pin: None, then: None };
    let plain = agent.punch_command(&punch).unwrap();
    let out = agent.dir().with_extension("strace");
    let mut traced = strace(&out, "fsync,fdatasync,write,writev,pwrite64,pwritev");
    traced.arg(plain.get_program()).args(plain.get_args());
    traced.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = tokio::process::Command::from(traced).output().await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let confirmation: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(agent.kept().await.unwrap()[0].punch, confirmation["punch"]);

    let calls = calls(&fs::read_to_string(&out).unwrap());
    let confirmed = calls.iter().position(|call| call.says(r#""{\"punch\""#)).unwrap();
    let before = &calls[..confirmed];
    let wal = "device.db-wal";
    let written = before.iter().rposition(|call| call.wrote(wal)).expect("the capture's write");
    assert!(
        before[written..].iter().any(|call| call.synced(wal)),
        "no completed sync between the last write and the confirmation: {before:#?}"
    );
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    })
    .collect()
}

/// strace on running processes, attached to all of them; none where it may only trace what it
/// starts.
async fn attached(pids: &[u32], out: &Path) -> anyhow::Result<Option<Process>> {
    let mut command =
        strace(out, "fsync,fdatasync,pwrite64,pwritev,read,recvfrom,write,writev,sendto");
    for pid in pids {
        command.args(["-p", &pid.to_string()]);
    }
    let log = out.with_extension("strace.log");
    let mut strace = Process::start("strace", command, &log)?;
    let attached = eventually("strace to be attached", TRACE_WAIT, async || {
        let runs = strace.runs()?;
        let said = fs::read_to_string(&log)?;
        if !runs {
            ensure!(said.contains("Operation not permitted"), "strace ended: {said}");
            return Ok(Some(false));
        }
        Ok(pids.iter().all(|pid| said.contains(&format!("Process {pid} attached"))).then_some(true))
    })
    .await?;
    Ok(attached.then_some(strace))
}

#[tokio::test]
async fn a_batch_is_acknowledged_only_after_postgres_synced_it() {
    if let Some(why) = untraceable().await {
        return not_run(why);
    }
    let mut shop = Shop::open().await.unwrap();
    let mut kiosk = shop.kiosk(shop.server.url()).await.unwrap();
    let capture = kiosk.capture(shop.employee, PunchKind::In);
    shop.operator.settled(true, PATIENCE).await.unwrap();

    let data = shop.server.installation().data.clone();
    let postmaster = data.postmaster().unwrap().as_raw_nonzero().get().cast_unsigned();
    let mut pids = vec![shop.server.process().id(), postmaster];
    pids.extend(children(postmaster));
    let out: PathBuf = data.path().join("server.strace");
    let Some(mut strace) = attached(&pids, &out).await.unwrap() else {
        return not_run("strace may not attach to what it hasn't started");
    };
    let answer = kiosk.deliver(&[kiosk.item(&capture)]).await.unwrap();
    assert_eq!(answer.results.len(), 1);
    // The answer is heard a moment before it is noted down.
    eventually("the answer to be in the trace", TRACE_WAIT, async || {
        Ok(fs::read_to_string(&out)?.contains(ANSWER).then_some(()))
    })
    .await
    .unwrap();
    strace.terminate(TRACE_WAIT).await.unwrap();

    let calls = calls(&fs::read_to_string(&out).unwrap());
    let path = format!("POST {}", kiosk.batch_path());
    let asked = calls.iter().position(|call| call.says(&path[..40])).context("the batch").unwrap();
    let answered = calls[asked..].iter().position(|call| call.says(ANSWER));
    let between = &calls[asked..asked + answered.expect("its 200")];
    let written = between.iter().position(|call| call.wrote("/pg_wal/")).expect("its WAL");
    assert!(
        between[written..].iter().any(|call| call.synced("/pg_wal/")),
        "no completed sync of the WAL between the batch and its 200: {between:#?}"
    );
}
