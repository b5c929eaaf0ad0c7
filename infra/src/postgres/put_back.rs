//! The place of a private cluster that isn't there yet, and that a copy is put into: whole, or not
//! at all. Never touches a cluster that is there.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    cluster::Cluster,
    error::PostgresError,
    locks::{FileLock, transition},
    postmaster::RECOVERY_WAIT,
    remove,
};

/// A place for a cluster, held against whoever would start or make one there.
#[derive(Debug)]
pub struct EmptyCluster {
    cluster: Cluster,
    filling: PathBuf,
    _alone: FileLock,
}

impl EmptyCluster {
    /// The place in `data_dir`. What an interrupted attempt left there is removed.
    ///
    /// # Errors
    /// [`PostgresError::NotEmpty`] when a cluster is there.
    pub async fn of(data_dir: &Path) -> Result<Self, PostgresError> {
        let cluster = Cluster::locate(data_dir, &[])?;
        let alone = transition(&cluster.transition_lock, RECOVERY_WAIT).await?;
        if cluster.dir.exists() {
            return Err(PostgresError::NotEmpty { cluster: cluster.dir });
        }
        let filling = cluster.dir.with_extension("restoring");
        remove(&filling)?;
        Ok(Self { cluster, filling, _alone: alone })
    }

    /// The new folder that the copy goes to. What is in it counts for nothing until
    /// [`Self::keep`].
    pub fn filling(&self) -> &Path {
        &self.filling
    }

    /// Makes what was filled in the cluster: its files are the database's user's, and it is synced.
    ///
    /// # Errors
    /// When a file can't be handed over, or what was filled in is no copy of a cluster of ours.
    pub fn keep(self) -> Result<(), PostgresError> {
        let marker = self.filling.join("punchtrail.ready");
        fs::metadata(&marker).map_err(PostgresError::io("find", &marker))?;
        self.hand_over(&self.filling)?;
        sync_all(&self.filling)?;
        let to = &self.cluster.dir;
        fs::rename(&self.filling, to).map_err(PostgresError::io("name", to))?;
        let root = to.parent().unwrap_or(to);
        File::open(root).and_then(|dir| dir.sync_all()).map_err(PostgresError::io("sync", root))
    }

    fn hand_over(&self, path: &Path) -> Result<(), PostgresError> {
        let about = fs::symlink_metadata(path).map_err(PostgresError::io("look at", path))?;
        let mode = if about.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(PostgresError::io("set the mode of", path))?;
        self.cluster.account.own(path)?;
        if about.is_dir() {
            for entry in fs::read_dir(path).map_err(PostgresError::io("read", path))? {
                let entry = entry.map_err(PostgresError::io("read", path))?;
                self.hand_over(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Everything on the disk that this lies on: cheaper than each of thousands of files.
fn sync_all(path: &Path) -> Result<(), PostgresError> {
    let disk = File::open(path).map_err(PostgresError::io("open", path))?;
    rustix::fs::syncfs(disk).map_err(|error| PostgresError::io("sync", path)(error.into()))
}
