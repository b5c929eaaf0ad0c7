//! The demo itself, with a smaller load: it ends well, is fit to read, and leaves nothing behind.

use std::{fs, path::Path, process::Stdio, time::Duration};

use punchtrail_tests::{demo::screen::WIDTH, programs};

const WAIT: Duration = Duration::from_secs(300);
/// A terminal that is a little wider than what the demo needs.
const PAGE_COLUMNS: usize = WIDTH + 4;

#[tokio::test]
async fn every_promise_holds_and_nothing_is_left_behind() {
    let mut command = tokio::process::Command::new(programs::program(programs::DEMO).unwrap());
    command.args(["--exit", "--days", "2", "--seed", "7"]).stdin(Stdio::null()).kill_on_drop(true);
    let run = tokio::time::timeout(WAIT, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    let complained = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}\n{complained}");
    assert!(said.contains("All 20 promises held"), "{said}");
    assert!(!said.contains('\u{1b}'), "colours where nobody sees them");
    for line in said.lines() {
        assert!(line.chars().count() <= PAGE_COLUMNS, "too wide: {line}");
    }

    let words = said.split_whitespace();
    let data = words.clone().find(|word| word.contains("/punchtrail-")).unwrap();
    assert!(!Path::new(data).exists(), "{data} is still there");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let left: Vec<String> = processes
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .filter(|line| line.contains(data))
        .collect();
    assert!(left.is_empty(), "still running: {left:?}");
}
