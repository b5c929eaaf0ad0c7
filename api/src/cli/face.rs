//! `punchtrail face`: what people agreed to about their faces, and what pictures are compared with.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use punchtrail_domain::{
    employee::{Consent, Employee, EmployeeCommand, Supervised},
    policy::is_language,
};
use punchtrail_infra::{
    ledger::Metadata,
    people::{directory, faces},
    photos::loose,
};
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Time,
    wire::{NOTICE_CHARS_MAX, PHOTO_BYTES_MAX},
};
use punchtrail_vision::Picture;
use serde_json::json;

use super::{
    answer::Answer,
    source::{Need, Opened, Source},
};

#[derive(Debug, Subcommand)]
pub(super) enum Face {
    /// Record that somebody agrees that their face is compared
    Consent {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// The version of the notice that they read
        #[arg(long, value_name = "VERSION", value_parser = notice)]
        notice: String,
        /// The language in which they read it, `de` for one
        #[arg(long, value_name = "TAG", value_parser = language)]
        language: String,
        /// When they agreed; now unless given
        #[arg(long, value_name = "TIME")]
        given_at: Option<Time>,
    },
    /// Record that somebody no longer agrees; everything kept of their face is erased
    Withdraw {
        /// Who: a name, a badge, an external id or an id
        employee: String,
    },
    /// Take a photo to compare somebody's pictures with
    Enrol {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// A JPEG or PNG of at most 5 MiB that shows their face alone
        #[arg(long, value_name = "FILE")]
        photo: PathBuf,
    },
    /// Compare with a photo no longer; its bytes are erased
    Remove {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// Which photo, by its SHA-256, as `face show` shows it
        #[arg(long, value_name = "SHA256")]
        photo: Digest,
    },
    /// Make a code by which reference photos are taken at a kiosk while you look on
    Code {
        /// Who: a name, a badge, an external id or an id
        employee: String,
    },
    /// Say whether a head covering is expected on somebody's pictures
    HeadCovering {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        #[arg(long, action = clap::ArgAction::Set)]
        expected: bool,
    },
    /// Show what is known of somebody's face
    Show {
        /// Who: a name, a badge, an external id or an id
        employee: String,
    },
}

fn notice(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if !(1..=NOTICE_CHARS_MAX).contains(&length) || text.chars().any(char::is_control) {
        return Err(format!("a version has 1 to {NOTICE_CHARS_MAX} characters"));
    }
    Ok(text.to_owned())
}

fn language(text: &str) -> Result<String, String> {
    if !is_language(text) {
        return Err("not a tag of a language like `de` or `pt-BR`".to_owned());
    }
    Ok(text.to_owned())
}

impl Face {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.with(Need::Existing, async |opened| self.done(opened).await).await
    }

    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        match self {
            Self::Consent { employee, notice, language, given_at } => {
                let now = opened.ledger.now();
                let consent = Consent {
                    notice: notice.clone(),
                    language: language.clone(),
                    given_at: given_at.unwrap_or(now).min(now),
                    place: Supervised::Office,
                };
                let command = EmployeeCommand::GiveConsent(consent);
                execute(opened, employee, command, "They agreed; it stands in the ledger.").await
            }
            Self::Withdraw { employee } => {
                let command = EmployeeCommand::WithdrawConsent { at: opened.ledger.now() };
                let text = "They no longer agree. What is kept of their face is erased by the \
                            server within moments, or when it runs next.";
                execute(opened, employee, command, text).await
            }
            Self::Enrol { employee, photo } => enrol(opened, employee, photo).await,
            Self::Remove { employee, photo } => {
                let command = EmployeeCommand::RemoveReference { photo: *photo };
                let text = "Nothing is compared with it any more; its bytes are erased by the \
                            server within moments, or when it runs next.";
                execute(opened, employee, command, text).await
            }
            Self::Code { employee } => {
                let employee = opened.employee(employee).await?;
                let code = faces::make_code(&opened.pools.writer, employee).await?;
                let object = json!({"code": code.shown(), "expires_at": code.expires_at});
                let until = opened.source.look.here(code.expires_at);
                let text = format!("{} (until {until})", code.shown());
                Ok(Answer::new(&object, text))
            }
            Self::HeadCovering { employee, expected } => {
                let employee = opened.employee(employee).await?;
                let metadata = Metadata::default();
                let done =
                    faces::expect_covered_head(&opened.ledger, employee, *expected, &metadata)
                        .await?;
                let object = json!({"employee": employee, "position": done.position});
                let text = match expected {
                    true => "Nobody asks them to take off a head covering.",
                    false => "A head covering is a reason for guidance again.",
                };
                Ok(Answer::new(&object, text))
            }
            Self::Show { employee } => show(opened, employee).await,
        }
    }
}

pub(super) async fn execute(
    opened: &Opened,
    employee: &str,
    command: EmployeeCommand,
    text: &str,
) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let id = employee.to_string();
    let done = opened.ledger.execute::<Employee>(&id, command, &Metadata::default()).await?;
    Ok(Answer::new(&json!({"employee": employee, "position": done.position}), text))
}

async fn enrol(opened: &Opened, employee: &str, path: &Path) -> anyhow::Result<Answer> {
    let shown = path.display();
    let bytes = tokio::fs::read(path).await.with_context(|| format!("{shown} can't be read"))?;
    if bytes.len() > PHOTO_BYTES_MAX {
        bail!("{shown} is larger than 5 MiB; nothing was enrolled");
    }
    if let Err(error) = Picture::decode(&bytes) {
        bail!("{shown} can't be read as a picture: {error}; nothing was enrolled");
    }
    let photo = Digest::of(&bytes);
    let store = opened.photos().await?;
    // One that is then not enrolled goes as a photo of no punch does.
    loose::note(&opened.pools.writer, photo, DeviceId::NIL, bytes.len() as u64).await?;
    store.put(photo, &bytes).await?;
    let command = EmployeeCommand::EnrolReferences {
        consent: None,
        photos: vec![photo],
        place: Supervised::Office,
    };
    execute(opened, employee, command, &format!("Pictures are compared with {photo} now.")).await
}

async fn show(opened: &Opened, employee: &str) -> anyhow::Result<Answer> {
    let employee: EmployeeId = opened.employee(employee).await?;
    let person = opened.ledger.load::<Employee>(&employee.to_string()).await?.aggregate;
    let known = person.biometrics();
    let covered = faces::covers_head(&opened.pools.writer, employee).await?;
    let newest_first: Vec<_> = known.references().iter().rev().collect();
    let name = directory::employee_names(&opened.pools.writer, &[employee]).await?;
    let name = name.get(&employee).map_or("somebody without a name", String::as_str);
    let look = opened.source.look;
    let consent = match known.consent() {
        Some(at) => format!("agreed {} that their face is compared", look.here(at)),
        None => "has not agreed that their face is compared".to_owned(),
    };
    let mut lines = vec![format!("{} {consent}.", punchtrail_protocol::shown::Shown::new(name))];
    lines.extend(newest_first.iter().map(|photo| format!("reference photo {photo}")));
    lines.extend(
        known.erased_at().map(|at| format!("Everything until then was erased {}.", look.here(at))),
    );
    if covered {
        lines.push("A head covering is expected on their pictures.".to_owned());
    }
    let object = json!({
        "employee": employee, "consent": known.consent(), "references": newest_first,
        "erased_at": known.erased_at(), "head_covering": covered,
    });
    Ok(Answer::new(&object, lines.join("\n")))
}
