//! Making a backup, while the server serves.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use punchtrail_protocol::{Digest, OrgId, Position};
use sqlx::{Connection, PgConnection, Row};

use super::{
    BackupError, BackupFolder, CHECKPOINTS, CLUSTER, DUMP, DatabaseKind, Found, KEYS, Manifest,
    PHOTOS, PHOTOS_LIST, PhotosKept, Tell,
    files::{self, blocking},
    manifest::BackedUpFile,
};
use crate::{
    photos::{ListedPhoto, PhotoStore},
    postgres::{Postgres, schema_known},
};

/// The first major version of Postgres that notes what changed.
const SUMMARIES_SINCE: u32 = 17;

/// What is backed up, and how.
pub struct Taking<'a> {
    pub postgres: &'a Postgres,
    /// The URL that it was opened by; none for the private one.
    pub url: Option<&'a str>,
    /// The data directory, for checkpoints and keys.
    pub data_dir: Option<&'a Path>,
    pub photos: Photos,
    /// Whether the private Postgres is written as an archive, too, which is what another version
    /// or another's database can take.
    pub as_dump: bool,
    /// How many backups stay, this one included; none for all.
    pub keep: Option<usize>,
}

/// What becomes of photos.
#[derive(Clone)]
pub enum Photos {
    /// They are copied.
    Copied(Arc<dyn PhotoStore>),
    /// They are listed.
    Listed(Arc<dyn PhotoStore>),
}

/// A backup that was made.
#[derive(Debug)]
pub struct Taken {
    pub found: Found,
    /// Whether only what changed since the one before was read of the cluster.
    pub incremental: bool,
    /// How many of its bytes are shared with the one before.
    pub shared_bytes: u64,
    /// Photos whose bytes aren't what their name says, which were left out.
    pub damaged_photos: u64,
    /// Older backups that were removed.
    pub removed: Vec<String>,
}

/// Makes a backup in `dir`, which is made if it isn't there.
///
/// # Errors
/// See [`BackupError`]. What was written of it is removed then; those that were there are whole.
pub async fn take(dir: &Path, taking: &Taking<'_>, tell: Tell<'_>) -> Result<Taken, BackupError> {
    let mut owner = taking.postgres.owner_connection().await?;
    let org = org(&mut owner).await?.ok_or(BackupError::NoLedger)?;
    let folder = BackupFolder::of(dir, org, taking.data_dir)?;
    let _alone = folder.alone()?;
    for unfinished in folder.unfinished()? {
        files::remove_folder(&dir.join(unfinished))?;
    }
    let former = folder.find(None).ok();
    let name = folder.new_name();
    let making = folder.making(&name);
    let made = make(&making, (taking, org, former), owner, tell).await;
    let Made { manifest, incremental, shared_bytes, damaged_photos } = match made {
        Ok(made) => made,
        Err(error) => {
            // The first error is the one that explains.
            drop(files::remove_folder(&making));
            let full = BackupError::Full { dir: dir.to_owned() };
            return Err(if error.is_full() { full } else { error });
        }
    };
    let path = dir.join(&name);
    files::rename(&making, &path)?;
    let removed = match taking.keep {
        Some(keep) => thin(&folder, keep)?,
        None => Vec::new(),
    };
    let found = Found { name, path, manifest };
    Ok(Taken { found, incremental, shared_bytes, damaged_photos, removed })
}

/// Removes the oldest, but for so many.
fn thin(folder: &BackupFolder, keep: usize) -> Result<Vec<String>, BackupError> {
    let mut names = folder.names()?;
    names.truncate(names.len().saturating_sub(keep.max(1)));
    for name in &names {
        // One that is half removed is no backup.
        let going = folder.making(name);
        files::rename(&folder.path().join(name), &going)?;
        files::remove_folder(&going)?;
    }
    Ok(names)
}

async fn org(owner: &mut PgConnection) -> Result<Option<OrgId>, sqlx::Error> {
    let made = "select to_regclass('deployment') is not null";
    if !sqlx::query_scalar::<_, bool>(made).fetch_one(&mut *owner).await? {
        return Ok(None);
    }
    let org: Option<uuid::Uuid> =
        sqlx::query_scalar("select org from deployment").fetch_optional(owner).await?;
    Ok(org.map(OrgId))
}

struct Made {
    manifest: Manifest,
    incremental: bool,
    shared_bytes: u64,
    damaged_photos: u64,
}

async fn make(
    making: &Path,
    (taking, org, former): (&Taking<'_>, OrgId, Option<Found>),
    mut owner: PgConnection,
    tell: Tell<'_>,
) -> Result<Made, BackupError> {
    files::make_folder(making)?;
    tell("copying keys and checkpoints", 0, 0);
    if let Some(data_dir) = taking.data_dir {
        let (from, to) = (data_dir.to_owned(), making.to_owned());
        blocking(move || copy_keys(&from, &to)).await?;
    }
    tell("copying the database", 0, 0);
    let copied = copy_database(making, taking, former.as_ref(), &mut owner).await?;
    // A connection that is gone by now has done its work.
    drop(owner.close().await);
    let (photos, damaged) = copy_photos(making, &taking.photos, former.as_ref(), tell).await?;
    let (index, shared) = {
        let (folder, former) = (making.to_owned(), former);
        tell("reading what was written", 0, 0);
        blocking(move || index(&folder, former.as_ref())).await?
    };
    let manifest = Manifest {
        format: Manifest::FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        org,
        made_at: Timestamp::now(),
        database: copied.kind,
        postgres: copied.postgres,
        schema: copied.schema,
        head: copied.head,
        head_hash: copied.head_hash,
        epoch: copied.epoch,
        roles: copied.roles,
        photos,
        files: index,
    };
    let (folder, written) = (making.to_owned(), manifest.clone());
    blocking(move || {
        files::sync_disk(&folder)?;
        written.write(&folder)
    })
    .await?;
    let incremental = copied.incremental;
    Ok(Made { manifest, incremental, shared_bytes: shared, damaged_photos: damaged })
}

fn copy_keys(data_dir: &Path, making: &Path) -> Result<(), BackupError> {
    let checkpoints = data_dir.join(CHECKPOINTS);
    if checkpoints.exists() {
        // What a running server is about to write is left out.
        files::copy_folder(&checkpoints, &making.join(CHECKPOINTS), Some("new"))?;
    }
    for key in KEYS.iter().filter(|key| data_dir.join(key).exists()) {
        files::copy(&data_dir.join(key), &making.join(key))?;
    }
    Ok(())
}

/// What is known of the copied database.
struct Copied {
    kind: DatabaseKind,
    postgres: u32,
    schema: i64,
    head: Position,
    head_hash: Option<Digest>,
    epoch: Option<uuid::Uuid>,
    roles: Vec<String>,
    incremental: bool,
}

async fn copy_database(
    making: &Path,
    taking: &Taking<'_>,
    former: Option<&Found>,
    owner: &mut PgConnection,
) -> Result<Copied, BackupError> {
    let kind = match taking.postgres.is_embedded() && !taking.as_dump {
        true => DatabaseKind::Cluster,
        false => DatabaseKind::Dump,
    };
    // What is read now and what the archive holds is one and the same state. The session waits for
    // as long as that takes.
    let begin = "begin isolation level repeatable read read only; \
                 set local idle_in_transaction_session_timeout = 0";
    sqlx::raw_sql(begin).execute(&mut *owner).await?;
    let mut copied = look(owner, kind).await?;
    if copied.schema > schema_known() {
        let ours = schema_known();
        return Err(BackupError::NewerSchema { theirs: copied.schema, ours });
    }
    match kind {
        DatabaseKind::Cluster => {
            let before = match former {
                Some(former) if may_follow(&copied, former, owner).await? => {
                    Some(former.path.join(CLUSTER))
                }
                _ => None,
            };
            // Nobody's rows wait for a copy of files.
            sqlx::raw_sql("commit").execute(&mut *owner).await?;
            let to = making.join(CLUSTER);
            copied.incremental = taking.postgres.copy_cluster(&to, before.as_deref()).await?;
        }
        DatabaseKind::Dump => {
            let export = "select pg_export_snapshot()";
            let snapshot: String = sqlx::query_scalar(export).fetch_one(&mut *owner).await?;
            taking.postgres.dump(taking.url, &snapshot, &making.join(DUMP)).await?;
        }
    }
    Ok(copied)
}

/// Whether a backup is of this cluster's own past, and Postgres can tell what changed since. After
/// a restore the same places of the log are written anew, which Postgres doesn't notice: then the
/// ledger has another epoch, or another event.
async fn may_follow(
    copied: &Copied,
    former: &Found,
    owner: &mut PgConnection,
) -> Result<bool, BackupError> {
    let Manifest { database, postgres, epoch, head, head_hash, .. } = &former.manifest;
    let could = *database == DatabaseKind::Cluster
        && *postgres == copied.postgres
        && copied.postgres >= SUMMARIES_SINCE
        && epoch.is_some()
        && *epoch == copied.epoch;
    if !could {
        return Ok(false);
    }
    let stands: Option<Vec<u8>> =
        sqlx::query_scalar("select leaf_hash from events where position = $1")
            .bind(head.to_db())
            .fetch_optional(owner)
            .await?;
    Ok(stands.is_some_and(|stands| head_hash.is_some_and(|head| head.0[..] == stands[..])))
}

async fn look(owner: &mut PgConnection, kind: DatabaseKind) -> Result<Copied, BackupError> {
    let row = sqlx::query(
        "select head.position, to_jsonb(head) ->> 'epoch' as epoch, \
         (select leaf_hash from events where position = head.position) as hash, \
         (select max(version) from _sqlx_migrations where success) as schema, \
         current_setting('server_version_num')::integer / 10000 as postgres from ledger_head head",
    )
    .fetch_one(&mut *owner)
    .await?;
    let hash: Option<Vec<u8>> = row.try_get("hash")?;
    let epoch: Option<String> = row.try_get("epoch")?;
    let roles: Vec<String> = sqlx::query_scalar(
        "select distinct r.rolname::text from (select relacl as acl from pg_class union all \
         select proacl from pg_proc union all select nspacl from pg_namespace) given \
         cross join lateral aclexplode(given.acl) a join pg_roles r on r.oid = a.grantee \
         where r.rolname not like 'pg\\_%' and r.rolname <> current_user order by 1",
    )
    .fetch_all(&mut *owner)
    .await?;
    Ok(Copied {
        kind,
        postgres: row.try_get::<i32, _>("postgres")?.unsigned_abs(),
        schema: row.try_get::<Option<i64>, _>("schema")?.unwrap_or_default(),
        head: Position::from_db(row.try_get("position")?),
        head_hash: hash.and_then(|hash| hash.try_into().ok()).map(Digest),
        epoch: epoch.and_then(|epoch| epoch.parse().ok()),
        roles,
        incremental: false,
    })
}

async fn copy_photos(
    making: &Path,
    photos: &Photos,
    former: Option<&Found>,
    tell: Tell<'_>,
) -> Result<(PhotosKept, u64), BackupError> {
    let (Photos::Copied(store) | Photos::Listed(store)) = photos;
    let copied = matches!(photos, Photos::Copied(_));
    let (mut kept, mut damaged, mut list) = (PhotosKept::default(), 0, String::new());
    kept.copied = copied;
    for first in 0..=u8::MAX {
        tell("copying photos", first.into(), 256);
        for photo in store.list(first).await.map_err(BackupError::Photos)? {
            if copied {
                match keep_photo(making, store.as_ref(), former, photo).await? {
                    Kept::Yes => {}
                    // Erased since it was listed.
                    Kept::Gone => continue,
                    Kept::Damaged => {
                        damaged += 1;
                        continue;
                    }
                }
            }
            kept.count += 1;
            kept.bytes += photo.bytes;
            list.push_str(&format!("{} {}\n", photo.photo, photo.bytes));
        }
    }
    let path = making.join(PHOTOS_LIST);
    blocking(move || files::write(&path, list.as_bytes())).await?;
    Ok((kept, damaged))
}

enum Kept {
    Yes,
    Gone,
    Damaged,
}

/// Where a backup has a photo.
pub(super) fn photo_in(backup: &Path, photo: &Digest) -> PathBuf {
    let digits = photo.to_string();
    let (folder, name) = digits.split_at(2);
    backup.join(PHOTOS).join(folder).join(name)
}

async fn keep_photo(
    making: &Path,
    store: &dyn PhotoStore,
    former: Option<&Found>,
    listed: ListedPhoto,
) -> Result<Kept, BackupError> {
    let to = photo_in(making, &listed.photo);
    let before = former.map(|found| photo_in(&found.path, &listed.photo));
    let target = to.clone();
    let linked = blocking(move || {
        files::make_folder(target.parent().unwrap_or(&target))?;
        let before =
            before.filter(|path| fs::metadata(path).is_ok_and(|it| it.len() == listed.bytes));
        Ok(before.is_some_and(|before| fs::hard_link(before, &target).is_ok()))
    })
    .await?;
    if linked {
        return Ok(Kept::Yes);
    }
    let Some(bytes) = store.read(&listed.photo).await.map_err(BackupError::Photos)? else {
        return Ok(Kept::Gone);
    };
    if Digest::of(&bytes) != listed.photo {
        return Ok(Kept::Damaged);
    }
    blocking(move || files::write(&to, &bytes)).await?;
    Ok(Kept::Yes)
}

/// Every file but photos, with its digest. One that the backup before has, too, becomes the same.
fn index(making: &Path, former: Option<&Found>) -> Result<(Vec<BackedUpFile>, u64), BackupError> {
    let mut before: HashMap<(Digest, u64), PathBuf> = HashMap::new();
    if let Some(found) = former {
        for file in &found.manifest.files {
            before.insert((file.sha256, file.bytes), found.path.join(&file.path));
        }
    }
    let (mut index, mut shared) = (Vec::new(), 0);
    for relative in files::below(making)? {
        let Some(path) = relative.to_str() else {
            let what = "its name isn't UTF-8".to_owned();
            return Err(BackupError::Unreadable { name: relative.display().to_string(), what });
        };
        let full = making.join(&relative);
        if relative.starts_with(PHOTOS) {
            continue;
        }
        files::make_private(&full)?;
        let (bytes, sha256) = files::digest(&full)?;
        let same = before.get(&(sha256, bytes)).filter(|_| bytes > 0);
        // What rotted meanwhile must not take the place of what is whole.
        let same = same.filter(|same| files::digest(same).is_ok_and(|it| it == (bytes, sha256)));
        if same.is_some_and(|same| files::link_instead(same, &full)) {
            shared += bytes;
        }
        index.push(BackedUpFile { path: path.to_owned(), bytes, sha256 });
    }
    Ok((index, shared))
}
