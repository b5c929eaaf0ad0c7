//! The operating-system user that Postgres runs as.
//!
//! Postgres refuses to run as root, so a Punchtrail started as root lets it run as `postgres`,
//! else `nobody`, or as whoever already owns the cluster. Everybody else runs it as themselves.
//! Never changes who we are: only the child switches.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::error::PostgresError;

const ROOT: u32 = 0;
/// In order of preference.
const UNPRIVILEGED: &[&str] = &["postgres", "nobody"];

/// Who runs the database's programs and owns its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
    /// Whether that is another than this process's user.
    switched: bool,
}

impl Account {
    /// The account for the cluster in `cluster`, which need not exist.
    ///
    /// # Errors
    /// [`PostgresError::OwnedByOther`] or [`PostgresError::NoUnprivilegedUser`].
    pub fn for_cluster(cluster: &Path) -> Result<Self, PostgresError> {
        let me = rustix::process::geteuid().as_raw();
        let my_group = rustix::process::getegid().as_raw();
        let owner = fs::metadata(cluster).ok().filter(|found| found.uid() != ROOT);
        match owner {
            Some(owner) if me == ROOT => {
                let (uid, gid) = (owner.uid(), owner.gid());
                let name = name_of(uid).unwrap_or_else(|| uid.to_string());
                Ok(Self { name, uid, gid, switched: true })
            }
            Some(owner) if owner.uid() != me => Err(PostgresError::OwnedByOther {
                path: cluster.to_owned(),
                owner: owner.uid(),
                me,
            }),
            None if me == ROOT => UNPRIVILEGED
                .iter()
                .find_map(|name| {
                    let (uid, gid) = ids_of(name)?;
                    Some(Self { name: (*name).to_owned(), uid, gid, switched: true })
                })
                .ok_or(PostgresError::NoUnprivilegedUser),
            _ => {
                let name = name_of(me).unwrap_or_else(|| me.to_string());
                Ok(Self { name, uid: me, gid: my_group, switched: false })
            }
        }
    }

    /// The user's name, or its id where it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Lets `command` run as this user; std also drops the supplementary groups.
    pub fn run(&self, command: &mut Command) {
        if self.switched {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives it a file or directory.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(&self, path: &Path) -> Result<(), PostgresError> {
        if self.switched {
            chown(path, Some(self.uid), Some(self.gid))
                .map_err(PostgresError::io("hand over to the database's user", path))?;
        }
        Ok(())
    }

    /// Tries what Postgres will need: to run `program` with `dir` as its directory. Only a real
    /// try knows of access lists and mounts; the mode bits are read to name the culprit.
    ///
    /// # Errors
    /// [`PostgresError::NotSearchable`] or [`PostgresError::NotRunnable`].
    pub fn check_reaches(&self, dir: &Path, program: &Path) -> Result<(), PostgresError> {
        let mut trial = Command::new(program);
        trial.arg("--version").current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
        self.run(&mut trial);
        let Err(source) = trial.status() else { return Ok(()) };
        if source.kind() == ErrorKind::PermissionDenied {
            for wanted in [dir, program] {
                if let Some(blocking) = self.blocked_at(wanted) {
                    return Err(PostgresError::NotSearchable {
                        user: self.name.clone(),
                        blocking,
                        wanted: wanted.to_owned(),
                    });
                }
            }
        }
        Err(PostgresError::NotRunnable {
            program: program.to_owned(),
            user: self.name.clone(),
            source,
        })
    }

    /// The first directory from the root whose mode bits don't let this user through.
    fn blocked_at(&self, path: &Path) -> Option<PathBuf> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        ancestors
            .into_iter()
            .find(|dir| {
                fs::metadata(dir).is_ok_and(|found| found.is_dir() && !self.may_search(&found))
            })
            .map(Path::to_owned)
    }

    fn may_search(&self, dir: &fs::Metadata) -> bool {
        let bit = match dir {
            dir if dir.uid() == self.uid => 0o100,
            dir if dir.gid() == self.gid => 0o010,
            _ => 0o001,
        };
        dir.mode() & bit != 0
    }
}

fn passwd() -> String {
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// User and group id of a name in `passwd(5)`.
fn ids_of(name: &str) -> Option<(u32, u32)> {
    ids_in(&passwd(), name)
}

fn ids_in(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (found && uid != ROOT).then_some((uid, gid))
    })
}

fn name_of(uid: u32) -> Option<String> {
    passwd().lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn reads_passwd_lines_and_never_takes_root() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104:,,,:/var:/bin/bash\n\
                      toor:x:0:0::/:/bin/sh\nbroken\n";
        assert_eq!(ids_in(passwd, "postgres"), Some((101, 104)));
        assert_eq!(ids_in(passwd, "toor"), None);
        assert_eq!(ids_in(passwd, "nobody"), None);
    }

    #[test]
    fn names_the_directory_that_blocks_the_way() {
        let top = tempfile::tempdir().unwrap();
        let closed = top.path().join("closed");
        let inner = closed.join("inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account { name: "stranger".into(), uid: 65533, gid: 65533, switched: true };
        assert_eq!(stranger.blocked_at(&inner), Some(closed.clone()));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(stranger.blocked_at(&inner), None);
    }
}
