//! Finds the installed PostgreSQL server programs.
//!
//! A cluster can only be opened by the major version that wrote it, so an existing one decides
//! which programs are taken; a new one gets the newest. Never downloads anything.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::error::PostgresError;

/// Where distributions put one folder a major version, each with a `bin` in it.
const VERSION_ROOTS: &[&str] = &["/usr/lib/postgresql", "/usr/local/lib/postgresql"];

/// A folder with a working `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

impl Binaries {
    /// The newest that are installed here, for a cluster that isn't there yet.
    ///
    /// # Errors
    /// [`PostgresError::NoBinaries`] or [`PostgresError::BinDirUnusable`].
    pub fn newest() -> Result<Self, PostgresError> {
        find(&Places::from_environment(), Path::new(""), None)
    }

    /// The full path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Where to look, so that a test can look elsewhere than this machine does.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// `PG_BIN_DIR`: when set, the only place.
    pub bin_dir: Option<PathBuf>,
    pub path: Option<OsString>,
    /// Folders of folders by version.
    pub version_roots: Vec<PathBuf>,
}

impl Places {
    /// This process's environment.
    pub fn from_environment() -> Self {
        Self {
            bin_dir: std::env::var_os("PG_BIN_DIR")
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from),
            path: std::env::var_os("PATH"),
            version_roots: VERSION_ROOTS.iter().map(PathBuf::from).collect(),
        }
    }

    fn folders(&self) -> Vec<PathBuf> {
        let on_path = self.path.iter().flat_map(std::env::split_paths);
        let installed = self.version_roots.iter().flat_map(|root| {
            fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"))
        });
        let mut folders = Vec::new();
        for folder in on_path.chain(installed) {
            // Debian's PATH entries may be links into the versioned folder: one is enough.
            let real = fs::canonicalize(folder.join("postgres"))
                .ok()
                .and_then(|program| program.parent().map(Path::to_owned));
            for folder in real.into_iter().chain([folder]) {
                if has_programs(&folder) && !folders.contains(&folder) {
                    folders.push(folder);
                    break;
                }
            }
        }
        folders
    }
}

fn has_programs(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("postgres").is_file()
}

/// The programs for `cluster` when it exists (`needed` is its major version), else the newest.
///
/// # Errors
/// [`PostgresError::NoBinaries`], [`PostgresError::BinDirUnusable`] or
/// [`PostgresError::NoMatchingVersion`].
pub(super) fn find(
    places: &Places,
    cluster: &Path,
    needed: Option<u32>,
) -> Result<Binaries, PostgresError> {
    let found = match &places.bin_dir {
        Some(dir) => {
            let binaries =
                probe(dir).ok_or_else(|| PostgresError::BinDirUnusable { dir: dir.clone() })?;
            vec![binaries]
        }
        None => places.folders().iter().filter_map(|folder| probe(folder)).collect(),
    };
    choose(found, cluster, needed)
}

fn choose(
    found: Vec<Binaries>,
    cluster: &Path,
    needed: Option<u32>,
) -> Result<Binaries, PostgresError> {
    let Some(newest) = found.iter().max_by_key(|binaries| binaries.major) else {
        return Err(PostgresError::NoBinaries);
    };
    let Some(needed) = needed else { return Ok(newest.clone()) };
    if let Some(matching) = found.iter().find(|binaries| binaries.major == needed) {
        return Ok(matching.clone());
    }
    let mut majors: Vec<u32> = found.iter().map(|binaries| binaries.major).collect();
    majors.sort_unstable();
    majors.dedup();
    Err(PostgresError::NoMatchingVersion {
        cluster: cluster.to_owned(),
        needed,
        found: majors.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    })
}

/// The newest folder that holds this program, which may stand without a server's.
pub(super) fn newest_with(places: &Places, program: &str) -> Option<Binaries> {
    let in_roots = places.version_roots.iter().flat_map(|root| {
        fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"))
    });
    let on_path = places.path.iter().flat_map(std::env::split_paths);
    let folders: Vec<PathBuf> = match &places.bin_dir {
        Some(dir) => vec![dir.clone()],
        None => on_path.chain(in_roots).collect(),
    };
    let found = folders.into_iter().filter_map(|dir| {
        let output = Command::new(dir.join(program)).arg("--version").output().ok()?;
        let major = major_version(std::str::from_utf8(&output.stdout).ok()?)?;
        Some(Binaries { dir, major })
    });
    found.max_by_key(|binaries| binaries.major)
}

fn probe(folder: &Path) -> Option<Binaries> {
    if !has_programs(folder) {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let major = major_version(std::str::from_utf8(&output.stdout).ok()?)?;
    Some(Binaries { dir: folder.to_owned(), major })
}

/// The major version in what `postgres --version` prints: `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major_version(printed: &str) -> Option<u32> {
    let version = printed.split_once("(PostgreSQL)")?.1.trim_start();
    leading_number(version)
}

/// The major version in a cluster's `PG_VERSION` file.
pub(super) fn cluster_version(cluster: &Path) -> Option<u32> {
    leading_number(fs::read_to_string(cluster.join("PG_VERSION")).ok()?.trim())
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(dir: &str, major: u32) -> Binaries {
        Binaries { dir: dir.into(), major }
    }

    #[test]
    fn reads_the_versions_that_servers_print() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(major_version(debian), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 19beta2\n"), Some(19));
        assert_eq!(major_version("mysqld 9.1"), None);
    }

    #[test]
    fn a_new_cluster_gets_the_newest_and_an_old_one_its_own() {
        let found = || vec![at("/a", 15), at("/b", 18), at("/c", 16)];
        let dir = Path::new("/data");
        assert_eq!(choose(found(), dir, None).unwrap(), at("/b", 18));
        assert_eq!(choose(found(), dir, Some(15)).unwrap(), at("/a", 15));
        let refused = choose(found(), dir, Some(14)).unwrap_err().to_string();
        assert!(refused.contains("written by PostgreSQL 14"), "{refused}");
        assert!(refused.contains("only 15, 16, 18 is installed"), "{refused}");
        assert!(refused.contains("apt-get install postgresql-14"), "{refused}");
    }

    #[test]
    fn a_machine_without_postgres_is_told_how_to_install_it_in_one_sentence() {
        let empty = tempfile::tempdir().unwrap();
        let places = Places {
            bin_dir: None,
            path: Some(empty.path().into()),
            version_roots: vec![empty.path().into()],
        };
        let refused = find(&places, Path::new("/data"), None).unwrap_err().to_string();
        assert!(refused.contains("`apt-get install postgresql`"), "{refused}");
        assert!(!refused.contains(". "), "one sentence: {refused}");
    }

    #[test]
    fn a_wrong_pg_bin_dir_is_named_and_nothing_else_is_taken() {
        let empty = tempfile::tempdir().unwrap();
        let places = Places { bin_dir: Some(empty.path().into()), ..Places::from_environment() };
        let refused = find(&places, Path::new("/data"), None).unwrap_err().to_string();
        assert!(refused.contains(&format!("PG_BIN_DIR is {}", empty.path().display())));
    }
}
