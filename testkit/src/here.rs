//! What this machine doesn't allow.

use std::{
    ffi::OsStr,
    fmt::Display,
    io::{Write, stderr},
    path::{Path, PathBuf},
};

/// Says that the test can't run here; it then returns. Under `CI` it fails: what must hold before a
/// change lands isn't to be left out because of the machine.
///
/// # Panics
/// If the variable `CI` is set.
#[track_caller]
pub fn not_run(why: impl Display) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Past the harness, which keeps to itself what a test that passes has printed.
    let _ = writeln!(stderr(), "NOT RUN: {why} ({test})");
    let ci = std::env::var_os("CI");
    assert!(!is_set(ci.as_deref()), "it can't run here, and under CI it has to: {why}");
}

/// Where `./dev` brought something to: the folder that the variable names, or that one in the
/// target directory.
pub fn brought(variable: &str, folder: &str) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match (set(variable), set("CARGO_TARGET_DIR")) {
        (Some(folder), _) => folder.into(),
        (None, Some(target)) => workspace.join(target).join(folder),
        (None, None) => workspace.join("target").join(folder),
    }
}

/// As for `./dev`: empty is as good as none.
fn is_set(variable: Option<&OsStr>) -> bool {
    variable.is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_none() {
        assert!(is_set(Some(OsStr::new("true"))));
        assert!(!is_set(Some(OsStr::new(""))) && !is_set(None));
    }
}
