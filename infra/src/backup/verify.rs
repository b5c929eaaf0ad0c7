//! Whether a backup is what was written: every file and every photo is read.

use std::{collections::HashSet, fs};

use punchtrail_protocol::Digest;

use super::{
    BackupError, DUMP, DatabaseKind, Found, PHOTOS, PHOTOS_LIST, Tell,
    files::{self, blocking},
    manifest,
    take::photo_in,
};
use crate::postgres::Postgres;

/// How many faults are told one by one.
const FAULTS_MAX: usize = 20;

/// What a look at every byte of a backup came to.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    pub files: u64,
    pub photos: u64,
    pub bytes: u64,
    /// What is wrong; the first of it.
    pub faults: Vec<String>,
    /// How much more is.
    pub more: usize,
}

impl Verified {
    fn fault(&mut self, what: String) {
        match self.faults.len() < FAULTS_MAX {
            true => self.faults.push(what),
            false => self.more += 1,
        }
    }

    /// Nothing, if it is whole.
    pub(super) fn whole(self, name: &str) -> Result<Self, BackupError> {
        match self.faults.first() {
            None => Ok(self),
            Some(first) => Err(BackupError::Damaged {
                name: name.to_owned(),
                first: first.clone(),
                more: self.faults.len() - 1 + self.more,
            }),
        }
    }
}

/// Reads all of a backup.
///
/// # Errors
/// When it can't be read; what is wrong with it is in [`Verified::faults`].
pub async fn verify(found: &Found, tell: Tell<'_>) -> Result<Verified, BackupError> {
    let mut verified = Verified::default();
    let all = found.manifest.bytes();
    for file in &found.manifest.files {
        tell("reading the backup", verified.bytes, all);
        let path = found.path.join(&file.path);
        let expected = (file.bytes, file.sha256);
        match blocking(move || files::digest(&path)).await {
            Ok(read) if read == expected => {}
            Ok(_) => verified.fault(format!("{} was altered, or is half there", file.path)),
            Err(error) => verified.fault(error.to_string()),
        }
        verified.files += 1;
        verified.bytes += file.bytes;
    }
    for (photo, bytes) in photos(found)? {
        if !found.manifest.photos.copied {
            break;
        }
        tell("reading the backup", verified.bytes, all);
        let path = photo_in(&found.path, &photo);
        match blocking(move || files::digest(&path)).await {
            Ok(read) if read == (bytes, photo) => {}
            Ok(_) => verified.fault(format!("the photo {photo} was altered, or is half there")),
            Err(error) => verified.fault(error.to_string()),
        }
        verified.photos += 1;
        verified.bytes += bytes;
    }
    let known: HashSet<_> = found.manifest.files.iter().map(|file| file.path.as_str()).collect();
    for path in files::below(&found.path)? {
        let named =
            path.to_str().is_some_and(|path| known.contains(path) || path == manifest::FILE);
        if !named && !path.starts_with(PHOTOS) {
            verified.fault(format!("{} is there, and no file of it", path.display()));
        }
    }
    if found.manifest.database == DatabaseKind::Dump
        && let Err(error) = Postgres::check_dump(&found.path.join(DUMP)).await
    {
        verified.fault(error.to_string());
    }
    Ok(verified)
}

/// The photos that a backup lists, with their sizes.
pub(super) fn photos(found: &Found) -> Result<Vec<(Digest, u64)>, BackupError> {
    let path = found.path.join(PHOTOS_LIST);
    let text = fs::read_to_string(&path).map_err(BackupError::io("read", &path))?;
    let photo = |line: &str| {
        let (photo, bytes) = line.split_once(' ')?;
        Some((photo.parse().ok()?, bytes.parse().ok()?))
    };
    let read: Option<Vec<_>> = text.lines().map(photo).collect();
    read.ok_or_else(|| BackupError::Unreadable {
        name: found.name.clone(),
        what: format!("{PHOTOS_LIST} can't be read"),
    })
}
