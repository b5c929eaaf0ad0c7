//! The photo that `--photo` names: a regular file with a JPEG or PNG in it, and nothing else. A
//! command line can name a folder, a pipe that nobody writes to, or a device that never ends; none
//! of them may keep a worker waiting.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use punchtrail_device::BadPhoto;
use punchtrail_protocol::wire::PHOTO_BYTES_MAX;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Reads it. What it is, is looked at when it is open, so that nothing else can take its place; the
/// punch checks that it is a JPEG or PNG.
///
/// # Errors
/// [`BadPhoto`], with nothing recorded.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, BadPhoto> {
    let unreadable = |error: io::Error| bad(format!("can't be read ({error})"));
    let file = open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(bad("is no file, but a folder, pipe, socket or device"));
    }
    if found.len() > PHOTO_BYTES_MAX as u64 {
        return Err(BadPhoto::too_large());
    }
    // What the system makes up as it is read, as below /proc, says that it is empty.
    if found.len() == 0 {
        return Err(bad("is empty"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
    file.take(PHOTO_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn bad(why: impl Into<std::borrow::Cow<'static, str>>) -> BadPhoto {
    BadPhoto(why.into())
}

/// Opens without waiting: a pipe opens at once, a terminal doesn't become this process's.
fn open(path: &Path) -> io::Result<File> {
    // A device may do something when it is opened; what is no file now isn't.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("no file, but a folder, pipe, socket or device"));
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use super::*;

    fn refusal(path: &Path) -> String {
        read(path).unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frame");
        fs::write(&path, b"\xff\xd8\xff").unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"\xff\xd8\xff");
        File::create(&path).unwrap().set_len(PHOTO_BYTES_MAX as u64).unwrap();
        assert_eq!(read(&path).unwrap().len(), PHOTO_BYTES_MAX);
        // Sparse: a terabyte that takes no room and would take a long time.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(refusal(&path).contains("larger than 5 MiB"));
        fs::write(&path, b"").unwrap();
        assert!(refusal(&path).contains("is empty"));
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0)
            .unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("link")).unwrap();
        for path in ["pipe", "socket", "link", "gone", ""].map(at) {
            refusal(&path);
        }
        for made_up in ["/dev/zero", "/dev/null", "/dev/tty", "/proc/self/status", "/proc/kmsg"] {
            refusal(Path::new(made_up));
        }
    }
}
