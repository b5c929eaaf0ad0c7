//! `punchtrail erase`: what is kept of a person, and what stands in the way of its erasure.

use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use punchtrail_api::privacy::erasure::{self, EraseError, Outlook};
use punchtrail_domain::{employee::EmployeeCommand, erasure::Erasure};
use punchtrail_infra::ledger::Metadata;
use punchtrail_projections::privacy;
use punchtrail_protocol::EmployeeId;
use serde_json::json;
use tokio::time::Instant;

use super::{
    answer::Answer,
    face,
    source::{Need, Opened, Source},
};

/// How long a command waits until the server has brought the read models along.
const MODELS_MAX: Duration = Duration::from_secs(10);

/// What can be erased.
#[derive(Debug, Subcommand)]
pub(super) enum Erase {
    /// Everything that is kept of somebody's face; their punches stand
    Biometrics {
        /// Who: a name, a badge, an external id or an id
        employee: String,
    },
    /// Everything that is kept of somebody beside the ledger; their punches stand
    ///
    /// Refused, with every reason, while the records of a site must be kept, a legal hold stands,
    /// or something of theirs waits for a ruling. It can't be taken back.
    Person {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// Only show what would be erased, and what stands in the way
        #[arg(long)]
        dry_run: bool,
    },
}

impl Erase {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source
            .with(Need::Existing, async |opened| match &self {
                Self::Biometrics { employee } => biometrics(opened, employee).await,
                Self::Person { employee, dry_run: false } => person(opened, employee).await,
                Self::Person { employee, dry_run: true } => outlook(opened, employee).await,
            })
            .await
    }
}

async fn biometrics(opened: &Opened, employee: &str) -> anyhow::Result<Answer> {
    let at = opened.ledger.now();
    let command = EmployeeCommand::EraseBiometrics { because: Erasure::Requested, at };
    let text = "What is kept of their face is erased by the server within moments, or when it runs \
                next; each punch then says that its picture was erased.";
    face::execute(opened, employee, command, text).await
}

async fn person(opened: &Opened, employee: &str) -> anyhow::Result<Answer> {
    let employee = found(opened, employee).await?;
    let erased =
        erasure::erase(&opened.ledger, &opened.pools, employee, &Metadata::default()).await;
    let position = match erased {
        Err(EraseError::Obstacles(obstacles)) => {
            let told: Vec<String> = obstacles.iter().map(|one| one.sentence()).collect();
            bail!("nothing was erased:\n  {}", told.join("\n  "));
        }
        erased => erased?,
    };
    let text = format!(
        "Erased. The punches stand; of {employee} the ledger knows nothing more. Pictures are \
         erased by the server within moments, or when it runs next. Keep this id for as long as \
         you keep backups from before: whoever puts one back erases again \
         (docs/privacy.md)."
    );
    Ok(Answer::new(&json!({"employee": employee, "position": position}), text))
}

async fn outlook(opened: &Opened, employee: &str) -> anyhow::Result<Answer> {
    let employee = found(opened, employee).await?;
    let outlook = erasure::outlook(&opened.ledger, &opened.pools, employee).await?;
    let text = shown(&outlook);
    Ok(Answer::new(&outlook, text))
}

fn shown(outlook: &Outlook) -> String {
    let Outlook { directory, badges, codes, notes, photos, references, .. } = outlook;
    let mut lines = vec![
        "Nothing was erased. An erasure would take:".to_owned(),
        format!("  {directory} entries of the directory: name, PIN, the id elsewhere"),
        format!("  {badges} numbers of badges"),
        format!("  {notes} notes, {codes} codes for reference photos"),
        format!("  {photos} pictures of punches, {references} reference photos"),
    ];
    if outlook.obstacles.is_empty() {
        lines.push("Nothing stands in the way.".to_owned());
    } else {
        lines.push("In the way:".to_owned());
        lines.extend(outlook.obstacles.iter().map(|one| format!("  {}", one.sentence())));
    }
    lines.join("\n")
}

/// Who that is, once all that is known of them is in the read models.
async fn found(opened: &Opened, employee: &str) -> anyhow::Result<EmployeeId> {
    let employee = opened.employee(employee).await?;
    caught_up(opened).await?;
    Ok(employee)
}

/// Waits until the read models have taken the whole ledger.
///
/// # Errors
/// When no server brings them along.
pub(super) async fn caught_up(opened: &Opened) -> anyhow::Result<()> {
    let head = opened.ledger.head().await?;
    let deadline = Instant::now() + MODELS_MAX;
    if let Some(behind) = privacy::caught_up(&opened.pools.reader, head, deadline).await? {
        bail!(
            "{behind}: the ledger ends at {head}, so not all that is held of them can be seen. \
             Nothing was done; run `punchtrail serve`, and try again"
        );
    }
    Ok(())
}
