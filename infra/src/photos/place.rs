//! Where photos are kept, as an operator says it, and opening it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use aws_config::{BehaviorVersion, Region, meta::region::RegionProviderChain};

use super::{PhotoBucket, PhotoFolder, PhotoStore, Timeouts};

/// The folder in the data directory that photos are in unless told otherwise.
const FOLDER: &str = "photos";
/// What a bucket's URL begins with.
const SCHEME: &str = "s3://";
/// The longest prefix of keys, in bytes; S3's limit of 1,024 is for the whole key.
const PREFIX_BYTES_MAX: usize = 512;

/// Where photos are kept: nothing, a folder, or `s3://bucket/prefix`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PhotoPlace {
    /// `photos` in the data directory.
    #[default]
    DataDir,
    Folder(PathBuf),
    /// S3. The prefix may be empty, and neither begins nor ends with `/`.
    Bucket {
        bucket: String,
        prefix: String,
    },
}

/// Why a text names no place for photos.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPlace {
    #[error("photos are kept in a folder or in `s3://bucket/prefix`, not at `{0}`")]
    Scheme(String),
    #[error(
        "`{0}` can't be a bucket: its name has 3 to 63 of a to z, 0 to 9, `.` and `-`, and begins \
         and ends with one of the first two"
    )]
    Bucket(String),
    #[error(
        "`{0}` can't be the prefix of photos: it has at most {PREFIX_BYTES_MAX} letters, digits \
         and `-`, `_`, `.`, in parts separated by `/`"
    )]
    Prefix(String),
}

impl FromStr for PhotoPlace {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let Some(url) = text.strip_prefix(SCHEME) else {
            return match text {
                "" => Ok(Self::DataDir),
                // A folder of that name would be a mistake that nobody sees.
                _ if text.contains("://") || text.starts_with("s3:") => {
                    Err(NotAPlace::Scheme(text.to_owned()))
                }
                folder => Ok(Self::Folder(folder.into())),
            };
        };
        let (bucket, prefix) = url.split_once('/').unwrap_or((url, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        if !is_bucket(bucket) {
            return Err(NotAPlace::Bucket(bucket.to_owned()));
        }
        if !is_prefix(prefix) {
            return Err(NotAPlace::Prefix(prefix.to_owned()));
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for PhotoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir => Ok(()),
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "{SCHEME}{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "{SCHEME}{bucket}/{prefix}"),
        }
    }
}

fn is_bucket(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.chars().all(|c| plain(c) || c == '.' || c == '-')
        && name.starts_with(plain)
        && name.ends_with(plain)
}

fn is_prefix(prefix: &str) -> bool {
    let may_stand = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(may_stand);
    prefix.is_empty() || (prefix.len() <= PREFIX_BYTES_MAX && prefix.split('/').all(is_part))
}

/// Why photos can't be kept where they should be.
#[derive(Debug, thiserror::Error)]
pub enum PhotosError {
    #[error("the photo folder {} can't be used: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("photos can't be kept in {place}: {source}")]
    Bucket { place: PhotoPlace, source: io::Error },
}

/// Opens the store of photos, and finds out whether it can be used. `data_dir` matters to
/// [`PhotoPlace::DataDir`] alone, the region to a bucket: without one it is the SDK's own chain's.
///
/// # Errors
/// When it can't be used as it is.
pub async fn open_photos(
    place: &PhotoPlace,
    data_dir: &Path,
    region: Option<&str>,
) -> Result<Arc<dyn PhotoStore>, PhotosError> {
    let path = match place {
        PhotoPlace::DataDir => data_dir.join(FOLDER),
        PhotoPlace::Folder(path) => path.clone(),
        PhotoPlace::Bucket { bucket, prefix } => {
            let region = region.map(|region| Region::new(region.to_owned()));
            let region = RegionProviderChain::first_try(region).or_default_provider();
            let aws = aws_config::defaults(BehaviorVersion::latest()).region(region).load().await;
            let opened = PhotoBucket::open(&aws, bucket, prefix, Timeouts::default()).await;
            let refused = |source| PhotosError::Bucket { place: place.clone(), source };
            return Ok(Arc::new(opened.map_err(refused)?));
        }
    };
    match PhotoFolder::open(&path).await {
        Ok(folder) => Ok(Arc::new(folder)),
        Err(source) => Err(PhotosError::Folder { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_a_bucket_or_nothing_is_named() {
        let read = |text: &str| text.parse::<PhotoPlace>().unwrap();
        let bucket = |bucket: &str, prefix: &str| PhotoPlace::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(read(""), PhotoPlace::DataDir);
        assert_eq!(read("/srv/photos"), PhotoPlace::Folder("/srv/photos".into()));
        assert_eq!(read("photos"), PhotoPlace::Folder("photos".into()));
        assert_eq!(read("s3://acme-punches"), bucket("acme-punches", ""));
        assert_eq!(read("s3://acme-punches/"), bucket("acme-punches", ""));
        assert_eq!(read("s3://acme.punches/mill/1/"), bucket("acme.punches", "mill/1"));
        for text in ["", "/srv/photos", "s3://acme-punches", "s3://acme-punches/mill"] {
            assert_eq!(read(text).to_string(), text);
        }
    }

    #[test]
    fn what_looks_like_another_url_is_no_folder() {
        let refused = |text: &str| text.parse::<PhotoPlace>().unwrap_err();
        let schemes = ["file:///srv", "https://b.s3.amazonaws.com", "gs://b", "S3://b", "s3:/b/c"];
        for text in schemes {
            assert_eq!(refused(text), NotAPlace::Scheme(text.to_owned()));
        }
        for name in ["", "ab", "Acme", "acme_punches", "-acme", "acme.", &"a".repeat(64)] {
            let found = refused(&format!("s3://{name}/mill"));
            assert_eq!(found, NotAPlace::Bucket(name.to_owned()));
        }
        for prefix in ["/a", "a//b", "a/../b", "a b", "a?b", "a%2fb", "ä", &"a".repeat(513)] {
            let found = refused(&format!("s3://acme/{prefix}"));
            assert_eq!(found, NotAPlace::Prefix(prefix.to_owned()));
        }
    }
}
