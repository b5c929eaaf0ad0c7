//! `punchtrail key`: operators' keys.

use clap::Subcommand;
use punchtrail_infra::access::credentials;
use serde_json::json;
use uuid::Uuid;

use super::{
    answer::{Answer, table},
    source::{Need, Source},
};

/// The longest name of a key, in characters.
const NAME_CHARS_MAX: usize = 64;

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a key. It is shown this once; only its digest is kept
    New {
        /// Whose it is, or what for
        #[arg(long, default_value = "operator", value_parser = name)]
        name: String,
        /// The worker whose key it is, if one's who may rule: an id, an external id or a badge.
        /// Nobody rules on their own
        #[arg(long)]
        employee: Option<String>,
    },
    /// List the keys by their ids
    List,
    /// End a key's access, at once
    Revoke {
        /// The key's id, as `key list` shows it
        id: Uuid,
    },
}

fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let length = text.chars().count();
    if !(1..=NAME_CHARS_MAX).contains(&length) || text.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {NAME_CHARS_MAX} characters"));
    }
    Ok(text.to_owned())
}

impl Key {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        match self {
            Self::New { name, employee } => new(source, &name, employee.as_deref()).await,
            Self::List => list(source).await,
            Self::Revoke { id } => revoke(source, id).await,
        }
    }
}

async fn new(source: Source, name: &str, employee: Option<&str>) -> anyhow::Result<Answer> {
    source
        .with(Need::Any, async |opened| {
            let employee = match employee {
                Some(named) => Some(opened.employee(named).await?),
                None => None,
            };
            let (key, secret) =
                credentials::create_operator_key(&opened.pools.writer, name, employee).await?;
            let object = json!({
                "key": secret.reveal(), "id": key.id, "name": name, "employee": employee,
            });
            Ok(Answer::new(&object, secret.reveal()))
        })
        .await
}

async fn list(source: Source) -> anyhow::Result<Answer> {
    source
        .with(Need::Existing, async |opened| {
            let keys = credentials::operator_keys(&opened.pools.writer).await?;
            let rows: Vec<Vec<String>> = keys
                .iter()
                .map(|key| {
                    let revoked =
                        key.revoked_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
                    let whose = key.employee.map_or_else(|| "-".to_owned(), |who| who.to_string());
                    vec![
                        key.id.to_string(),
                        key.name.clone(),
                        whose,
                        key.created_at.to_string(),
                        revoked,
                    ]
                })
                .collect();
            let text = table(&["id", "name", "employee", "made", "revoked"], &rows);
            Ok(Answer::new(&json!({"keys": keys}), text))
        })
        .await
}

async fn revoke(source: Source, id: Uuid) -> anyhow::Result<Answer> {
    source
        .with(Need::Existing, async |opened| {
            match credentials::revoke_operator_key(&opened.pools.writer, id).await? {
                Some(at) => Ok(Answer::new(
                    &json!({"id": id, "revoked_at": at}),
                    format!("Key {id} opens nothing any more (revoked {at})."),
                )),
                None => anyhow::bail!("there is no key {id}; `key list` shows them"),
            }
        })
        .await
}
