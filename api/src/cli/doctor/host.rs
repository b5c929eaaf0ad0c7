//! What the machine itself shows: files, ports, certificates, disks, time zones, backups.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use punchtrail_api::door::tls::Tls;
use punchtrail_infra::{key_file, photos::PhotoPlace};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_cert::{Certificate, der::Decode as _};

use super::Findings;
use crate::cli::{answer::whole, serve::Listening, source::Source};

/// Whoever isn't the owner.
const OTHERS: u32 = 0o077;
/// Who may write but the owner.
const OTHERS_WRITE: u32 = 0o022;
/// A certificate with less than this left should have been renewed.
const CERTIFICATE_LEFT_DAYS: i64 = 14;
/// Less free than both is too little to go on for long.
const FREE_BYTES_MIN: u64 = 2 << 30;
const FREE_PERCENT_MIN: u64 = 5;
/// A backup older than this was forgotten.
const BACKUP_AGE_MAX: Duration = Duration::from_secs(2 * 86_400);
/// How deep a folder of backups is looked into.
const BACKUP_DEPTH_MAX: u8 = 3;
const DAY_S: i64 = 86_400;
/// Where a system has its time zones.
const ZONES: &str = "/usr/share/zoneinfo";

/// Who may read secrets, and write where they are.
pub(super) fn files(found: &mut Findings, source: &Source, at: &Listening) {
    const CHECK: &str = "files";
    let mut secrets: Vec<PathBuf> = at.tls_key.iter().cloned().collect();
    if let Some(dir) = &source.data_dir {
        match fs::metadata(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound && source.url().is_some() => {}
            Err(error) => {
                let what =
                    format!("the data directory {} can't be looked at: {error}", dir.display());
                found.wrong(CHECK, what, "Correct --data-dir, or run this as its owner");
            }
            Ok(data) if data.mode() & OTHERS_WRITE != 0 => {
                let what = format!("others may write in the data directory {}", dir.display());
                found.wrong(CHECK, what, format!("chmod go-w {}", dir.display()));
            }
            Ok(_) => {}
        }
        let of_ours = ["checkpoints/key", key_file::EMBEDDINGS, key_file::WEBHOOKS];
        secrets.extend(of_ours.iter().map(|name| dir.join(name)).filter(|path| path.exists()));
    }
    let open = |path: &&PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS != 0)
    };
    let open: Vec<String> =
        secrets.iter().filter(open).map(|path| path.display().to_string()).collect();
    if open.is_empty() {
        if !secrets.is_empty() {
            found.ok(CHECK, "nobody else may read the keys that are kept in files");
        }
    } else {
        let what = format!("other users may read {}", open.join(", "));
        found.wrong(CHECK, what, format!("chmod 600 {}", open.join(" ")));
    }
}

/// Whether requests can be read on their way.
pub(super) fn listening(found: &mut Findings, at: &Listening) {
    const CHECK: &str = "listening";
    let listen = at.listen;
    if listen.ip().is_loopback() {
        found.ok(CHECK, format!("on {listen}, for this machine alone"));
    } else if at.tls_cert.is_some() {
        found.ok(CHECK, format!("on {listen}, by TLS"));
    } else if !at.trusted_proxies.is_empty() {
        let what = format!("on {listen} in the clear, behind a proxy");
        found.note(CHECK, what, "See that only the proxy reaches this address");
    } else {
        found.wrong(
            CHECK,
            format!("on {listen} in the clear: keys and names can be read on the way"),
            "Give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy that speaks TLS",
        );
    }
}

/// Whether the certificate can be served, and for how long.
pub(super) async fn certificate(found: &mut Findings, at: &Listening) {
    const CHECK: &str = "certificate";
    let Some(files) = at.certificate() else { return };
    let path = files.cert.display().to_string();
    if let Err(error) = Tls::open(files.clone()).await {
        let what = whole(&error.into());
        return found.wrong(CHECK, what, "Until then nothing can be served by TLS");
    }
    let cure = format!("Renew it and put it into {path}: a running server takes it by itself");
    match ends(&files.cert) {
        None => found.note(CHECK, format!("until when {path} is good can't be read"), ""),
        Some(end) => {
            let left = (end.as_second() - Timestamp::now().as_second()).div_euclid(DAY_S);
            let end = end.strftime("%Y-%m-%d");
            match left {
                ..0 => found.wrong(CHECK, format!("{path} ran out on {end}"), cure),
                0..=CERTIFICATE_LEFT_DAYS => {
                    found.wrong(CHECK, format!("{path} runs out on {end}, in {left} days"), cure);
                }
                _ => found.ok(CHECK, format!("good until {end}, {left} days")),
            }
        }
    }
}

/// When the first of a file's certificates to run out does.
fn ends(path: &Path) -> Option<Timestamp> {
    let end = |der: CertificateDer<'_>| {
        let certificate = Certificate::from_der(&der).ok()?;
        let after = certificate.tbs_certificate.validity.not_after.to_unix_duration();
        Timestamp::from_second(i64::try_from(after.as_secs()).ok()?).ok()
    };
    let ends = CertificateDer::pem_file_iter(path).ok()?.flatten().filter_map(end);
    ends.min()
}

/// Room on the disks that data goes to.
pub(super) fn disk(found: &mut Findings, source: &Source) {
    const CHECK: &str = "disk";
    let photos = match &source.photos {
        PhotoPlace::Folder(folder) => Some(folder.clone()),
        _ => None,
    };
    let mut seen: Vec<u64> = Vec::new();
    for path in source.data_dir.iter().chain(&photos) {
        let (Ok(disk), Ok(at)) = (rustix::fs::statvfs(path.as_path()), fs::metadata(path)) else {
            continue;
        };
        // Two folders of one disk have one room.
        if seen.contains(&at.dev()) {
            continue;
        }
        seen.push(at.dev());
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let percent = disk.f_bavail.saturating_mul(100) / disk.f_blocks.max(1);
        let gib = free as f64 / f64::from(1 << 30);
        let what = format!("{gib:.1} GiB are free ({percent} %) where {} is", path.display());
        if free < FREE_BYTES_MIN || percent < FREE_PERCENT_MIN {
            let cure = "Make room: without it no punch is taken, and devices keep what they hold";
            found.wrong(CHECK, what, cure);
        } else {
            found.ok(CHECK, what);
        }
    }
}

/// How old the rules of time zones are.
pub(super) fn zone_data(found: &mut Findings) {
    const CHECK: &str = "time zones";
    let version = fs::read_to_string(format!("{ZONES}/tzdata.zi")).ok().and_then(|text| {
        let line = text.lines().next()?;
        line.strip_prefix("# version ").map(|version| version.trim().to_owned())
    });
    let Some(version) = version else {
        return found.ok(CHECK, "their rules came with this program");
    };
    let year: i16 = version.get(..4).and_then(|year| year.parse().ok()).unwrap_or_default();
    let this_year = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year();
    let what = format!("their rules are the system's, {version}");
    if year + 1 < this_year {
        let cure = "Bring them up to date (`apt-get install --only-upgrade tzdata`), then start \
                    the server anew: where rules changed since, hours would be wrong";
        found.wrong(CHECK, what, cure);
    } else {
        found.ok(CHECK, what);
    }
}

/// How old the newest backup is.
pub(super) fn backups(found: &mut Findings, folder: Option<&Path>) {
    const CHECK: &str = "backup";
    let Some(folder) = folder else {
        let what = "whether backups are made can't be seen from here";
        return found.note(CHECK, what, "Name their folder with --backups, or PUNCHTRAIL_BACKUPS");
    };
    let shown = folder.display();
    let cure = "Make one, and see why none was made by itself (docs/operations.md, \"Backups\")";
    match newest(folder, BACKUP_DEPTH_MAX) {
        Err(error) => found.wrong(CHECK, format!("{shown} can't be looked at: {error}"), cure),
        Ok(None) => found.wrong(CHECK, format!("there is no backup in {shown}"), cure),
        Ok(Some(at)) => {
            let age = SystemTime::now().duration_since(at).unwrap_or_default();
            let hours = age.as_secs() / 3_600;
            let what = format!("the newest in {shown} is {hours} hours old");
            match age > BACKUP_AGE_MAX {
                true => found.wrong(CHECK, what, cure),
                false => found.ok(CHECK, what),
            }
        }
    }
}

/// When the newest file in a folder was written.
fn newest(folder: &Path, depth: u8) -> std::io::Result<Option<SystemTime>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        let at = match data.is_dir() {
            // What can't be seen into is as old as it looks.
            true if depth > 0 => self::newest(&entry.path(), depth - 1).ok().flatten(),
            _ => data.modified().ok(),
        };
        newest = newest.max(at);
    }
    Ok(newest)
}
