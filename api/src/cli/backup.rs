//! `punchtrail backup`: making backups beside a running server, and reading them again.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use punchtrail_infra::{
    backup::{self, BackupFolder, Found, Photos, Taken, Taking, Verified, take, verify},
    photos::{PhotoPlace, open_photos},
    postgres::Postgres,
};
use serde_json::json;

use super::{
    answer::{Answer, EXIT_REFUSED, Refusal},
    progress::Progress,
    source::{Need, Source, leave},
};

/// Make a backup of everything, while the server runs
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(super) struct Backup {
    /// The folder of backups, on another disk; made when it isn't there. Each backup is a folder in
    /// it, named by its time. As secret as the data directory
    #[arg(value_name = "DIR", required = true)]
    dir: Option<PathBuf>,

    /// Write the private Postgres as an archive of Postgres's, too, which goes into any later
    /// version and into a database of one's own. A database of one's own always is
    #[arg(long)]
    dump: bool,

    /// List photos instead of copying them. Those in a bucket are never copied
    #[arg(long)]
    no_photos: bool,

    /// Remove older backups of this folder once this one is whole, so that N are left
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,

    #[command(subcommand)]
    command: Option<Other>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Read a backup and say whether every byte is as it was written
    Verify {
        /// The folder of backups
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// This one; the newest unless given
        #[arg(long, value_name = "NAME")]
        backup: Option<String>,
        /// All of them
        #[arg(long, conflicts_with = "backup")]
        all: bool,
    },
}

impl Backup {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        match (&self.command, &self.dir) {
            (Some(Other::Verify { dir, backup, all }), _) => {
                verified(dir, backup.as_deref(), *all).await
            }
            (None, Some(dir)) => self.take(dir, &source).await,
            (None, None) => Err(Refusal::Usage("say where the backups are: DIR".into()).into()),
        }
    }

    async fn take(&self, dir: &Path, source: &Source) -> anyhow::Result<Answer> {
        let data_dir = source.dir()?;
        source.check(Need::Existing)?;
        let store = open_photos(&source.photos, data_dir, source.region()).await?;
        let is_listed = self.no_photos || matches!(source.photos, PhotoPlace::Bucket { .. });
        let photos = match is_listed {
            true => Photos::Listed(store),
            false => Photos::Copied(store),
        };
        let wait = Duration::from_secs(source.database_wait);
        // Not by way of the schema: a newer program must not change what it is to save.
        let postgres = Postgres::open_within(source.url(), data_dir, wait).await?;
        let bar = Progress::of_steps();
        let tell = |doing, done, all| bar.step(doing, done, all);
        let taking = Taking {
            postgres: &postgres,
            url: source.url(),
            data_dir: Some(data_dir),
            photos,
            as_dump: self.dump,
            keep: self.keep.map(|keep| keep as usize),
        };
        let taken = tokio::select! {
            taken = take(dir, &taking, &tell) => taken.map_err(anyhow::Error::from),
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!(
                "interrupted. The backups before are whole; what was written of this one counts \
                 for nothing, and the next one removes it"
            )),
        };
        bar.clear();
        leave(postgres).await;
        Ok(answer(&taken?))
    }
}

fn answer(taken: &Taken) -> Answer {
    let Taken { found, incremental, shared_bytes, damaged_photos, removed } = taken;
    let Found { name, path, manifest } = found;
    let kind: &str = manifest.database.into();
    let object = json!({
        "backup": name,
        "path": path,
        "database": kind,
        "head": manifest.head,
        "incremental": incremental,
        "bytes": manifest.bytes(),
        "shared_bytes": shared_bytes,
        "photos": manifest.photos,
        "damaged_photos": damaged_photos,
        "removed": removed,
    });
    let mut text = format!(
        "Backup {name} is whole: {}, {} of files ({} shared with the one before), {} photo(s) \
         {}.\nIt has the ledger up to position {}. Whoever reads it has every key in it: it is as \
         secret as the data directory.\n",
        path.display(),
        HumanBytes(manifest.bytes()),
        HumanBytes(*shared_bytes),
        manifest.photos.count,
        if manifest.photos.copied { "copied" } else { "listed" },
        manifest.head,
    );
    if *damaged_photos > 0 {
        text.push_str(&format!(
            "{damaged_photos} photo(s) were left out: their bytes aren't what their names say.\n"
        ));
    }
    if !removed.is_empty() {
        text.push_str(&format!("Removed: {}\n", removed.join(", ")));
    }
    Answer::new(&object, text)
}

async fn verified(dir: &Path, name: Option<&str>, all: bool) -> anyhow::Result<Answer> {
    let folder = BackupFolder::at(dir);
    let not_verified = |error: backup::BackupError| Refusal::NotVerified(error.into());
    let names = match all {
        true => folder.names().map_err(not_verified)?,
        false => Vec::new(),
    };
    let asked: Vec<Option<&str>> = match names.is_empty() {
        true => vec![name],
        false => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    let bar = Progress::of_steps();
    let tell = |doing, done, all| bar.step(doing, done, all);
    let (mut backups, mut text, mut whole) = (Vec::new(), String::new(), true);
    for name in asked {
        let found = folder.find(name).map_err(not_verified)?;
        let verified = verify(&found, &tell).await.map_err(not_verified)?;
        whole &= verified.faults.is_empty();
        text.push_str(&told(&found, &verified));
        backups.push(json!({
            "backup": found.name,
            "whole": verified.faults.is_empty(),
            "made_at": found.manifest.made_at,
            "head": found.manifest.head,
            "schema": found.manifest.schema,
            "files": verified.files,
            "photos": verified.photos,
            "bytes": verified.bytes,
            "faults": verified.faults,
            "faults_more": verified.more,
        }));
    }
    bar.clear();
    let unfinished = folder.unfinished().map_err(not_verified)?;
    for name in &unfinished {
        text.push_str(&format!(
            "{name} was interrupted before it was whole; it counts for nothing\n"
        ));
    }
    let answer = Answer::new(&json!({ "backups": backups, "unfinished": unfinished }), text);
    Ok(if whole { answer } else { answer.exiting(EXIT_REFUSED) })
}

fn told(found: &Found, verified: &Verified) -> String {
    let Found { name, manifest, .. } = found;
    let read = format!(
        "{} file(s), {} photo(s), {}, the ledger up to position {}",
        verified.files,
        verified.photos,
        HumanBytes(verified.bytes),
        manifest.head,
    );
    if verified.faults.is_empty() {
        return format!("{name} is whole: {read}\n");
    }
    let mut text = format!("{name} is DAMAGED: {read}\n");
    for fault in &verified.faults {
        text.push_str(&format!("  {fault}\n"));
    }
    if verified.more > 0 {
        text.push_str(&format!("  and {} more\n", verified.more));
    }
    text.push_str("Don't rely on it: verify the others with --all, and make another one.\n");
    text
}
