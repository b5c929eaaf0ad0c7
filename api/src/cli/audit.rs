//! `punchtrail ledger verify`: whether what stands in the ledger is what was written.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{anyhow, bail};
use clap::Args;
use punchtrail_domain::log::signed_note::NoteVerifier;
use punchtrail_infra::{
    access::deployment::Deployment,
    audit::{self, AuditStep, Claims, ClaimsError, Report},
};
use punchtrail_projections::engine::{
    Projection,
    compare::{self, Comparison},
};
use punchtrail_protocol::OrgId;

use super::{
    answer::{Answer, EXIT_REFUSED, Refusal},
    progress::Progress,
    source::{Need, Opened, Source},
};

/// Verify the whole ledger: exit 1 means it was tampered with
///
/// Positions and sequences without holes, every event's hash, the signed checkpoints, every
/// capture's signature, what is kept beside the ledger, and what guards it in the database. Gaps
/// and forks of devices are listed and are no sign of tampering. Exit 3 means that it could not be
/// carried through.
#[derive(Debug, Args)]
pub(super) struct Audit {
    /// A checkpoint that you kept elsewhere, to be compared, too; may be given several times
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// A key that such a checkpoint may be signed by, beside those of the folder; may be given
    /// several times
    #[arg(long, value_name = "VKEY")]
    vkey: Vec<NoteVerifier>,
    /// Fill every read model anew, too, and compare: as long as a rebuild of each
    #[arg(long)]
    deep: bool,
}

impl Audit {
    pub(super) async fn run(self, mut source: Source) -> anyhow::Result<Answer> {
        source.database_url = source.database_url.map(|url| in_spite_of_settings(&url));
        source
            .with(Need::Existing, async |opened| self.verify(opened).await)
            .await
            .map_err(not_verified)
    }

    fn claims(&self, data_dir: Option<&Path>, org: OrgId) -> Result<Claims, ClaimsError> {
        let mut claims = match data_dir {
            Some(dir) => Claims::read(dir, org)?,
            None => Claims::none(
                "Without --data-dir there are no checkpoints but those given with --against: what \
                 the database says of itself was verified, not whether it says the same as before.",
            ),
        };
        for path in &self.against {
            claims.add(path, data_dir, org, &self.vkey)?;
        }
        Ok(claims)
    }

    async fn verify(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let claims = match Deployment::existing(&opened.pools.writer).await? {
            Some(Deployment { org, .. }) => self.claims(opened.source.data_dir.as_deref(), org)?,
            None if self.against.is_empty() => Claims::none(
                "The database doesn't say whose it is, so no checkpoints were compared.",
            ),
            None => bail!("the database doesn't say whose it is, so nothing can be compared"),
        };
        let mut report = watched(opened, claims).await?;
        if report.intact && report.events == 0 && report.checkpoints.agreeing == 0 {
            bail!(
                "there is nothing to verify: the ledger holds no event, and no checkpoint says \
                 that it ever held one. Is this the right place?"
            );
        }
        let models = punchtrail_projections::all();
        report.add(compare::look(&models, &opened.pools.reader).await?);
        if self.deep {
            let compared = compared(opened, &models).await?;
            report.add(compared.findings);
            report.models = compared.models;
            if report.intact && !compared.left_out.is_empty() {
                return Err(anyhow!("{} Nothing else was found", compared.left_out.join(" ")));
            }
            report.notes.extend(compared.left_out);
        }
        let answer = Answer::new(&report, text(&report));
        Ok(if report.intact { answer } else { answer.exiting(EXIT_REFUSED) })
    }
}

/// A database that was set not to wait for its disk is refused by everything else; it is to be
/// verified all the same, and the setting is a finding. For our own sessions ours counts.
fn in_spite_of_settings(url: &str) -> String {
    match url {
        "" => String::new(),
        url => {
            let joint = if url.contains('?') { '&' } else { '?' };
            format!("{url}{joint}options=-c%20synchronous_commit%3Don")
        }
    }
}

/// Whatever stood in the way, it must not look like tampering.
fn not_verified(error: anyhow::Error) -> anyhow::Error {
    if error.is::<Refusal>() { error } else { Refusal::NotVerified(error).into() }
}

async fn watched(opened: &Opened, claims: Claims) -> anyhow::Result<Report> {
    let progress = Progress::of("verifying");
    let heard = move |step: AuditStep| match step {
        AuditStep::Read { events, of } => progress.at(events, of),
        AuditStep::Sequences => progress.waits("comparing sequences"),
        AuditStep::Beside => progress.waits("comparing what is kept beside the ledger"),
    };
    Ok(audit::audit(&opened.pools.writer, claims, &heard).await?)
}

async fn compared(opened: &Opened, models: &[Arc<dyn Projection>]) -> anyhow::Result<Comparison> {
    let progress = Progress::of("comparing read models");
    let mut told = move |events: u64, of: u64| progress.at(events, of);
    let feed = opened.ledger.feed();
    Ok(compare::compare(models, &opened.pools.reader, &feed, &mut told).await?)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write_text(&mut text, report);
    text
}

fn write_text(text: &mut String, report: &Report) -> std::fmt::Result {
    if report.intact {
        writeln!(
            text,
            "Intact: {} events up to position {}, {} signatures, {} checkpoints.",
            report.events,
            report.head,
            report.signatures,
            report.checkpoints.agreeing + report.checkpoints.earlier + report.checkpoints.elsewhere
        )?;
    } else {
        match report.first_bad {
            Some(position) => writeln!(text, "TAMPERED WITH, first at position {position}.")?,
            None => writeln!(text, "TAMPERED WITH.")?,
        }
        for finding in &report.findings {
            match (finding.position, finding.through) {
                (Some(from), Some(through)) => write!(text, "  {from} to {through}: ")?,
                (Some(position), None) => write!(text, "  {position}: ")?,
                (None, _) => write!(text, "  ")?,
            }
            writeln!(text, "{} [{}]", finding.what, finding.code.as_str())?;
        }
        if report.findings_more > 0 {
            writeln!(text, "  and {} more findings", report.findings_more)?;
        }
        writeln!(
            text,
            "Nothing was changed. Keep the database and the checkpoints as they are, and compare \
             with your copies (docs/operations.md, \"When verify finds something\")."
        )?;
    }
    if !report.models.is_empty() {
        writeln!(text, "{} read models were compared with the events.", report.models.len())?;
    }
    if report.checkpoints.uncovered > 0 && report.checkpoints.agreeing > 0 {
        let (uncovered, through) = (report.checkpoints.uncovered, report.checkpoints.through);
        writeln!(
            text,
            "The newest {uncovered} events, after {through}, stand under no checkpoint yet."
        )?;
    }
    for gap in &report.gaps {
        writeln!(
            text,
            "device {}: numbers {} to {} never came",
            gap.device, gap.gap.from, gap.gap.to
        )?;
    }
    for fork in &report.forks {
        writeln!(
            text,
            "device {}: number {} was used twice (position {})",
            fork.device, fork.seq, fork.position
        )?;
    }
    if report.devices_more > 0 {
        writeln!(text, "and {} more gaps and forks of devices", report.devices_more)?;
    }
    report.notes.iter().try_for_each(|note| writeln!(text, "{note}"))
}
