//! Saving what can be read of a damaged database.
//!
//! A new database is made beside the damaged one, of all rows that can be read; once it is whole,
//! the damaged files are moved into a folder of their own, as they are, and the new one takes their
//! place. Nothing of what was found is overwritten or deleted, photos that no row names any more
//! included. A salvage that is cut short is ended by the next; until then nobody else may open the
//! database, since a punch that was recorded in the damaged file now would stay behind there.
//!
//! **Numbers.** A number that was used must not be given out again. Where everything about captures
//! could be read, and the last one is the chain's end, the damage was elsewhere and the chain goes
//! on. Otherwise it ends here: what was saved is delivered under it, and new punches need a new
//! enrolment, whose chain begins at 1 under a name of its own.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use punchtrail_protocol::Time;
use serde::Serialize;
use sqlx::{Connection, SqliteConnection};

use crate::{
    folder::{Folder, FolderError, PhotoFile, sync_dir},
    store::{
        self, StoreError,
        damage::{self, ReadOut},
        identity,
        photos::{self, KeptPhoto},
    },
};

/// How many numbers of punches that can't be read are told.
const NUMBERS_TOLD_MAX: usize = 100;

/// What a salvage saved, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Salvaged {
    /// Where the damaged files are kept; none: nothing was changed.
    pub kept_in: Option<PathBuf>,
    /// Confirmed punches that can be read.
    pub readable: u64,
    /// Of those, the ones that wait to be delivered.
    pub waiting: u64,
    /// Confirmed punches that can't be; null: nobody can know.
    pub unreadable: Option<u64>,
    /// Whether `unreadable` is the number itself, rather than the most that it can be.
    pub exact: bool,
    /// Their numbers on this device, the first hundred.
    pub numbers: Vec<u64>,
    /// Whether people punch here as before; else this folder is to be enrolled anew.
    pub goes_on: bool,
}

/// Why nothing was salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    #[error("the database in {0} is sound: there is nothing to salvage, and nothing was changed")]
    Sound(String),
    #[error("{0}. The damaged file is as it was; run `punchtrail-device salvage` again")]
    Folder(#[from] FolderError),
    #[error("{0}. The damaged file is as it was; run `punchtrail-device salvage` again")]
    Store(#[from] StoreError),
}

impl SalvageError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Sound(_) => "sound",
            Self::Folder(FolderError::Taken { .. } | FolderError::InUse(_)) => "in_use",
            Self::Folder(error) if error.is_full() => "disk_full",
            Self::Store(error) if error.is_full() => "disk_full",
            Self::Folder(_) => "folder",
            Self::Store(_) => "store",
        }
    }
}

impl Salvaged {
    fn of(read: ReadOut) -> Self {
        Self {
            kept_in: None,
            readable: read.captures,
            waiting: read.waiting,
            unreadable: read.unreadable,
            exact: read.exact,
            numbers: read.numbers.into_iter().take(NUMBERS_TOLD_MAX).collect(),
            goes_on: read.whole,
        }
    }
}

/// Says what a salvage of `folder` would save, and changes nothing; also while others work there.
///
/// # Errors
/// When even that can't be found out.
pub async fn look(folder: &Folder, at: Time) -> Result<Salvaged, SalvageError> {
    let mut fresh = store::make(None).await?;
    let read = damage::read_out(&folder.database(), &mut fresh, at).await?;
    Ok(Salvaged::of(read))
}

/// Saves what can be read of `folder`'s database, and keeps the damaged one.
///
/// # Errors
/// [`SalvageError::Sound`] where nothing is damaged.
pub async fn salvage(folder: &Folder, at: Time) -> Result<Salvaged, SalvageError> {
    folder.may_use().map_err(StoreError::from)?;
    if !folder.database().exists() && !folder.salvaged().exists() {
        return Err(StoreError::Empty(folder.path().display().to_string()).into());
    }
    let _agent = folder.lock_agent()?;
    let _alone = folder.lock_use_alone()?;
    let salvaged = match folder.salvaged().exists() {
        true => earlier(folder).await?,
        false => {
            if damage::is_sound(&folder.database()).await {
                return Err(SalvageError::Sound(folder.path().display().to_string()));
            }
            fresh(folder, at).await?
        }
    };
    let kept_in = put_in_place(folder).await?;
    Ok(Salvaged { kept_in: Some(kept_in), ..salvaged })
}

/// Makes the whole new database, under the name that says so.
async fn fresh(folder: &Folder, at: Time) -> Result<Salvaged, SalvageError> {
    let partial = folder.path().join("device.db.partial");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(FolderError::at("can't delete", &partial)(error).into());
        }
        _ => {}
    }
    let mut made = store::make(Some(&partial)).await?;
    let read = damage::read_out(&folder.database(), &mut made, at).await?;
    note_photos(folder, &mut made).await?;
    made.close().await.map_err(StoreError::from)?;
    fs::File::open(&partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&partial, folder.salvaged()))
        .map_err(FolderError::at("can't keep", &partial))?;
    sync_dir(folder.path())?;
    Ok(Salvaged::of(read))
}

/// Photos whose punch was read, and of which only the file is left.
async fn note_photos(folder: &Folder, made: &mut SqliteConnection) -> Result<(), SalvageError> {
    for (identity, digest) in damage::unnoted_photos(made).await? {
        for file in [PhotoFile::Sealed(digest, identity), PhotoFile::Plain(digest)] {
            let path = folder.photo(file);
            let Ok(found) = fs::metadata(&path) else { continue };
            let sealed = matches!(file, PhotoFile::Sealed(..));
            let png = !sealed && fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"\x89PNG"));
            let media = if png { "image/png" } else { "image/jpeg" }.to_owned();
            let photo = KeptPhoto { digest, size_bytes: found.len(), media, sealed };
            photos::add(made, identity, &photo).await?;
            break;
        }
    }
    Ok(())
}

/// What an earlier salvage saved that was cut short afterwards.
async fn earlier(folder: &Folder) -> Result<Salvaged, SalvageError> {
    let mut made = store::open_made(&folder.salvaged()).await?;
    let (readable, waiting) = damage::held(&mut made).await?;
    let current = identity::current(&mut made).await?;
    made.close().await.map_err(StoreError::from)?;
    Ok(Salvaged {
        kept_in: None,
        readable,
        waiting,
        unreadable: match &current {
            Some(identity) if identity.ended => identity.unreadable,
            Some(_) => Some(0),
            None => None,
        },
        exact: false,
        numbers: Vec::new(),
        goes_on: current.is_some_and(|identity| !identity.ended),
    })
}

/// Moves the damaged files away and the new database into their place. The damaged database goes
/// first, then what belongs to it: the new one must never meet another's log.
async fn put_in_place(folder: &Folder) -> Result<PathBuf, SalvageError> {
    let kept = kept_in(folder)?;
    let database = folder.database();
    for suffix in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", database.display()));
        if from.exists() {
            moved(&from, &kept.join(format!("device.db{suffix}")))?;
        }
    }
    let mut made = store::open_made(&folder.salvaged()).await?;
    let named = photos::all(&mut made).await?;
    made.close().await.map_err(StoreError::from)?;
    for entry in fs::read_dir(folder.photos()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<PhotoFile>().is_ok_and(|file| !named.contains(&file)) {
            private_dir(&kept.join("photos"))?;
            moved(&entry.path(), &kept.join("photos").join(name))?;
        }
    }
    sync_dir(&kept)?;
    moved(&folder.salvaged(), &database)?;
    sync_dir(folder.path())?;
    Ok(kept)
}

/// The folder for the damaged files: a new one, or the one that a salvage began to move them to.
fn kept_in(folder: &Folder) -> Result<PathBuf, FolderError> {
    let named = |n: u32| folder.path().join(format!("damaged-{n}"));
    let next = (1..).find(|n| !named(*n).exists()).unwrap_or(u32::MAX);
    let last = Some(next - 1).filter(|n| *n > 0).map(named);
    let begun = last.filter(|last| !last.join("device.db").exists() || !folder.database().exists());
    let kept = begun.unwrap_or_else(|| named(next));
    private_dir(&kept)?;
    sync_dir(folder.path())?;
    Ok(kept)
}

fn private_dir(dir: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(FolderError::at("can't make the folder", dir))
}

fn moved(from: &Path, to: &Path) -> Result<(), FolderError> {
    fs::rename(from, to).map_err(FolderError::at("can't move", from))
}

impl Salvaged {
    /// What it says to who looks after the device.
    pub fn told(&self) -> String {
        let unreadable = match self.unreadable {
            None => "How many confirmed punches can't be read nobody can know".to_owned(),
            Some(count) if self.exact => format!("{count} confirmed punches can't be read"),
            Some(count) => format!("At most {count} confirmed punches can't be read"),
        };
        let numbers = match self.numbers.as_slice() {
            [] => String::new(),
            numbers => {
                let told: Vec<String> = numbers.iter().map(u64::to_string).collect();
                format!(" (numbers {})", told.join(", "))
            }
        };
        format!(
            "{unreadable}{numbers}. {} can be read, of those {} wait to be delivered",
            self.readable, self.waiting
        )
    }
}
