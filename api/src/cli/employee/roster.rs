//! `punchtrail employee import`.

use std::{fmt::Write as _, sync::Arc};

use anyhow::Context;
use punchtrail_infra::{
    ledger::Metadata,
    people::import::{self, ImportError, Imported, Options, ROSTER_BYTES_MAX, Roster, RowFault},
};

use super::Import;
use crate::cli::{
    answer::{Answer, EXIT_REFUSED},
    progress::Progress,
    source::{Need, Opened, Source},
};

pub(super) async fn import(import: Import, source: Source) -> anyhow::Result<Answer> {
    let Import { file, dry_run, from, reissue, returned } = import;
    let shown = file.display();
    let size = tokio::fs::metadata(&file)
        .await
        .with_context(|| format!("{shown} can't be read; nothing was imported"))?
        .len();
    let bytes = usize::try_from(size).unwrap_or(usize::MAX);
    if bytes > ROSTER_BYTES_MAX {
        return Err(ImportError::TooLarge { bytes }.into());
    }
    let text = tokio::fs::read(&file)
        .await
        .with_context(|| format!("{shown} can't be read; nothing was imported"))?;
    // A file that is no roster is told before any database is opened.
    let _: Roster = import::parse(&text)?;
    let options = Options { dry_run, from, reissue, returned, pins_max: None };
    source.with(Need::Existing, async |opened| imported(opened, &text, &options).await).await
}

async fn imported(opened: &Opened, text: &[u8], options: &Options) -> anyhow::Result<Answer> {
    let progress = Progress::of("hashing PINs");
    let heard = Arc::new(move |done: usize, of: usize| progress.at(done as u64, of as u64));
    let by = Metadata::default();
    let imported = import::import(&opened.ledger, text, options, &by, heard).await?;
    let is_faulty = !imported.faults.is_empty();
    let answer = Answer::new(&imported, told(&imported));
    Ok(if is_faulty { answer.exiting(EXIT_REFUSED) } else { answer })
}

fn told(imported: &Imported) -> String {
    let mut text = String::new();
    list(&mut text, "Wrong:", &imported.faults, imported.faults_more);
    list(&mut text, "Strange:", &imported.warnings, imported.warnings_more);
    if imported.dry_run {
        for change in &imported.changes {
            let (row, name, what) = (change.row, &change.name, change.what.join("; "));
            let _ = writeln!(text, "  row {row}: {name}: {what}");
        }
        more(&mut text, imported.changes_more);
        text.push_str("Nothing was written. ");
    }
    let Imported { rows, created, updated, unchanged, .. } = imported;
    let _ =
        write!(text, "{rows} rows: {created} new, {updated} changed, {unchanged} as they were.");
    text
}

fn list(text: &mut String, heading: &str, faults: &[RowFault], rest: u64) {
    if faults.is_empty() {
        return;
    }
    let _ = writeln!(text, "{heading}");
    for RowFault { row, what } in faults {
        let _ = writeln!(text, "  row {row}: {what}");
    }
    more(text, rest);
}

fn more(text: &mut String, rest: u64) {
    if rest > 0 {
        let _ = writeln!(text, "  and {rest} more");
    }
}
