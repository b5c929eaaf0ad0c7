//! What `./dev` brings for tests besides crates: where it is, and which python runs it.

use std::{
    env,
    path::{Path, PathBuf},
};

/// In order of preference, as in `./dev`.
pub(crate) const PYTHONS: [&str; 2] = ["/usr/bin/python3", "python3"];

/// The folder that a variable names, else where `./dev` puts it in the target directory.
pub fn brought(variable: &str, to: &str) -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match (set(variable), set("CARGO_TARGET_DIR")) {
        (Some(folder), _) => folder.into(),
        (None, Some(target)) => workspace.join(target).join(to),
        (None, None) => workspace.join("target").join(to),
    }
}
