//! Putting a backup back where nothing is.

use std::{fs, io::ErrorKind, path::Path};

use punchtrail_protocol::{Digest, Position};
use sqlx::{Connection, PgConnection};

use super::{
    BackupError, CHECKPOINTS, CLUSTER, DUMP, DatabaseKind, Found, KEYS, Tell,
    files::{self, blocking},
    take::photo_in,
    verify::{self, Verified},
};
use crate::{
    audit::checkpoint::Folder,
    photos::PhotoStore,
    postgres::{EmptyCluster, Postgres, PostgresError, schema_known},
};

/// In the data directory: the backup that is being put back, until all is said in the ledger.
const UNDER_WAY: &str = "restoring";

/// Where a backup goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub data_dir: &'a Path,
    /// A database of one's own, which holds nothing; else a private Postgres in the directory.
    pub url: Option<&'a str>,
}

/// What was put back, but for photos.
#[derive(Debug)]
pub struct Restored {
    /// Whether the data directory had checkpoints of this ledger, which stay: they are newer.
    pub kept_checkpoints: bool,
    /// What was read of the backup; none where an interrupted restore went on.
    pub verified: Option<Verified>,
}

/// Puts database, checkpoints and keys back. All of the backup is read before, and whatever would
/// be written over is refused; the database comes last. What is interrupted goes on when it is
/// asked for again, until [`said`]. Says nothing yet in the ledger.
///
/// # Errors
/// See [`BackupError`]. Nothing that was there is changed.
pub async fn put_back(
    found: &Found,
    target: Target<'_>,
    tell: Tell<'_>,
) -> Result<Restored, BackupError> {
    let Found { name, path, manifest } = found;
    if manifest.schema > schema_known() {
        let known = schema_known();
        let what = format!("its schema is {}, and {known} is known here", manifest.schema);
        return Err(BackupError::Newer { name: name.clone(), what });
    }
    if manifest.database == DatabaseKind::Cluster && target.url.is_some() {
        return Err(BackupError::Cluster { name: name.clone() });
    }
    let kept_checkpoints = has_checkpoints(target.data_dir, found)?;
    let mark = target.data_dir.join(UNDER_WAY);
    let goes_on = fs::read_to_string(&mark).is_ok_and(|under_way| under_way == *name);
    match is_empty(found, target, goes_on).await {
        Err(BackupError::Tables { .. } | BackupError::Postgres(PostgresError::NotEmpty { .. }))
            if goes_on =>
        {
            return Ok(Restored { kept_checkpoints, verified: None });
        }
        empty => empty?,
    }
    let verified = verify::verify(found, tell).await?.whole(name)?;
    tell("copying keys and checkpoints", 0, 0);
    let (from, to, name) = (path.clone(), target.data_dir.to_owned(), name.clone());
    blocking(move || {
        files::write_surely(&to.join(UNDER_WAY), name.as_bytes())?;
        copy_keys(&from, &to)
    })
    .await?;
    tell("putting the database back", 0, 0);
    match manifest.database {
        DatabaseKind::Cluster => {
            let place = EmptyCluster::of(target.data_dir).await?;
            let (from, to) = (path.join(CLUSTER), place.filling().to_owned());
            blocking(move || files::copy_folder(&from, &to, None)).await?;
            blocking(move || Ok(place.keep()?)).await?;
        }
        DatabaseKind::Dump => {
            let postgres = Postgres::open(target.url, target.data_dir).await?;
            let put = postgres.put_dump_back(target.url, &path.join(DUMP), &manifest.roles).await;
            postgres.close().await?;
            put?;
        }
    }
    Ok(Restored { kept_checkpoints, verified: Some(verified) })
}

/// All that a restore has to say is in the ledger and beside it: it isn't gone on with any more.
///
/// # Errors
/// When the mark can't be removed.
pub fn said(data_dir: &Path) -> Result<(), BackupError> {
    let mark = data_dir.join(UNDER_WAY);
    match fs::remove_file(&mark) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(BackupError::io("remove", &mark)),
    }
}

/// That nothing is where the database goes. A private cluster into which an interrupted restore was
/// about to put a dump is looked into.
async fn is_empty(found: &Found, target: Target<'_>, goes_on: bool) -> Result<(), BackupError> {
    let cluster = target.data_dir.join("postgres/cluster");
    if target.url.is_none() {
        if !cluster.exists() {
            return Ok(());
        }
        if !goes_on || found.manifest.database == DatabaseKind::Cluster {
            return Err(PostgresError::NotEmpty { cluster }.into());
        }
    }
    let postgres = Postgres::open(target.url, target.data_dir).await?;
    let empty = async {
        let mut owner = postgres.owner_connection().await?;
        has_no_tables(&mut owner, found, target.url.is_some()).await
    };
    let empty = empty.await;
    postgres.close().await?;
    empty
}

/// Whether the directory has checkpoints of this ledger.
fn has_checkpoints(data_dir: &Path, found: &Found) -> Result<bool, BackupError> {
    let other = || BackupError::OtherCheckpoints { dir: data_dir.join(CHECKPOINTS) };
    let Some(folder) = Folder::existing(data_dir, found.manifest.org)? else { return Ok(false) };
    match folder.latest() {
        Ok(latest) => Ok(latest.is_some()),
        Err(crate::audit::checkpoint::FolderError::Damaged { .. }) => Err(other()),
        Err(error) => Err(error.into()),
    }
}

fn copy_keys(backup: &Path, data_dir: &Path) -> Result<(), BackupError> {
    if backup.join(CHECKPOINTS).exists() {
        files::copy_folder(&backup.join(CHECKPOINTS), &data_dir.join(CHECKPOINTS), None)?;
    }
    for key in KEYS.iter().filter(|key| backup.join(key).exists()) {
        files::copy(&backup.join(key), &data_dir.join(key))?;
    }
    files::sync_disk(data_dir)
}

/// That a database holds nothing; of one's own, that who had rights in the backup is there.
async fn has_no_tables(
    owner: &mut PgConnection,
    found: &Found,
    is_own: bool,
) -> Result<(), BackupError> {
    let tables: i64 = sqlx::query_scalar(
        "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') \
         and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'",
    )
    .fetch_one(&mut *owner)
    .await?;
    if tables > 0 {
        return Err(BackupError::Tables { tables });
    }
    if !is_own {
        return Ok(());
    }
    let ours = [crate::postgres::roles::WRITER, crate::postgres::roles::READER];
    let others: Vec<&str> = found.manifest.roles.iter().map(String::as_str).collect();
    let missing: Vec<String> = sqlx::query_scalar(
        "select name from unnest($1::text[]) name where name <> all($2::text[]) \
         and not exists (select from pg_roles where rolname = name)",
    )
    .bind(&others)
    .bind(ours.as_slice())
    .fetch_all(owner)
    .await?;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(BackupError::Roles { roles: missing.join(", ") }),
    }
}

impl Found {
    /// That a database is the one that was backed up, up to where the backup says; and where it
    /// ends.
    ///
    /// # Errors
    /// [`BackupError::NotIt`] when it isn't.
    pub async fn is_in(&self, postgres: &Postgres) -> Result<Position, BackupError> {
        let mut owner = postgres.owner_connection().await?;
        let org: Option<uuid::Uuid> =
            sqlx::query_scalar("select org from deployment").fetch_optional(&mut owner).await?;
        let (head, hash): (i64, Option<Vec<u8>>) = sqlx::query_as(
            "select position, (select leaf_hash from events where position = $1) from ledger_head",
        )
        .bind(self.manifest.head.to_db())
        .fetch_one(&mut owner)
        .await?;
        owner.close().await?;
        let not_it = |what: &str| BackupError::NotIt { name: self.name.clone(), what: what.into() };
        let hash = hash.and_then(|hash| hash.try_into().ok()).map(Digest);
        match org {
            Some(org) if org == self.manifest.org.0 => {}
            _ => return Err(not_it("it is another organisation's")),
        }
        if hash != self.manifest.head_hash {
            return Err(not_it("another event stands where it should end"));
        }
        Ok(Position::from_db(head))
    }
}

/// Puts those photos back that the store lacks: how many, and how many it lacks still, because the
/// backup only lists them.
///
/// # Errors
/// When a photo can't be read or kept.
pub async fn put_photos_back(
    found: &Found,
    store: &dyn PhotoStore,
    tell: Tell<'_>,
) -> Result<(u64, u64), BackupError> {
    let (mut put, mut lacking) = (0, 0);
    let photos = verify::photos(found)?;
    for (done, (photo, _)) in (0..).zip(&photos) {
        tell("putting photos back", done, photos.len() as u64);
        if store.has(photo).await.map_err(BackupError::Photos)? {
            continue;
        }
        if !found.manifest.photos.copied {
            lacking += 1;
            continue;
        }
        let path = photo_in(&found.path, photo);
        let from = path.clone();
        let bytes =
            blocking(move || fs::read(&from).map_err(BackupError::io("read", &from))).await?;
        store.put(*photo, &bytes).await.map_err(BackupError::Photos)?;
        put += 1;
    }
    Ok((put, lacking))
}
