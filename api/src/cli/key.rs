//! `punchtrail key`: operators' keys.

use clap::Subcommand;
use punchtrail_api::auth::table::scopes;
use punchtrail_infra::access::{
    keys::{self, NewKey},
    trail::Doer,
};
use punchtrail_protocol::Time;
use serde_json::json;
use uuid::Uuid;

use super::{
    answer::{Answer, table},
    source::{Need, Source},
    user::sites_of,
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
        /// What it may do, `punches:read` for one, separated by commas; everything unless given.
        /// docs/roles.md lists them
        #[arg(long = "scope", value_delimiter = ',', value_parser = scope)]
        scopes: Vec<String>,
        /// Where, names or ids of sites, separated by commas; everywhere unless given
        #[arg(long, value_delimiter = ',', requires = "scopes")]
        sites: Vec<String>,
        /// From when on it opens nothing, `2027-01-31T00:00:00Z` for one; never unless given
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires: Option<Time>,
    },
    /// List the keys by their ids
    List,
    /// End a key's access, at once
    Revoke {
        /// The key's id, as `key list` shows it
        id: Uuid,
    },
}

fn time(text: &str) -> Result<Time, String> {
    let read = text.parse::<jiff::Timestamp>().map(Time::from);
    read.map_err(|_| "no time with its zone, like 2027-01-31T00:00:00Z".to_owned())
}

fn scope(text: &str) -> Result<String, String> {
    let known = scopes();
    match known.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("there is no such scope; there are {}", known.join(", "))),
    }
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
            Self::New { name, employee, scopes, sites, expires } => {
                let asked = NewKey {
                    name: &name,
                    scopes: Some(scopes).filter(|scopes| !scopes.is_empty()),
                    expires_at: expires,
                    ..NewKey::default()
                };
                new(source, asked, employee.as_deref(), &sites).await
            }
            Self::List => list(source).await,
            Self::Revoke { id } => revoke(source, id).await,
        }
    }
}

async fn new(
    source: Source,
    asked: NewKey<'_>,
    employee: Option<&str>,
    sites: &[String],
) -> anyhow::Result<Answer> {
    if asked.expires_at.is_some_and(|at| at <= Time::from(jiff::Timestamp::now())) {
        anyhow::bail!("it would open nothing from the first; no key was made");
    }
    source
        .with(Need::Any, async |opened| {
            let employee = match employee {
                Some(named) => Some(opened.employee(named).await?),
                None => None,
            };
            let sites = sites_of(opened, sites).await?;
            let sites = Some(sites).filter(|sites| !sites.is_empty());
            let name = asked.name;
            let asked = NewKey { employee, sites, ..asked.clone() };
            let doer = Doer::command_line();
            let (key, secret) = keys::create(&opened.pools.writer, asked, &doer).await?;
            let object = json!({
                "key": secret.reveal(), "id": key.id, "name": name, "employee": employee,
                "scopes": key.scopes, "sites": key.sites, "expires_at": key.expires_at,
            });
            Ok(Answer::new(&object, secret.reveal()))
        })
        .await
}

async fn list(source: Source) -> anyhow::Result<Answer> {
    source
        .with(Need::Existing, async |opened| {
            let keys = keys::operator_keys(&opened.pools.writer).await?;
            let rows: Vec<Vec<String>> = keys
                .iter()
                .map(|key| {
                    let at =
                        |at: Option<Time>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
                    let whose = key.employee.map_or_else(|| "-".to_owned(), |who| who.to_string());
                    vec![
                        key.id.to_string(),
                        key.name.clone(),
                        whose,
                        key.scopes.as_ref().map_or_else(|| "all".to_owned(), |of| of.join(",")),
                        key.created_at.to_string(),
                        at(key.expires_at),
                        at(key.revoked_at),
                    ]
                })
                .collect();
            let text =
                table(&["id", "name", "employee", "scopes", "made", "expires", "revoked"], &rows);
            Ok(Answer::new(&json!({"keys": keys}), text))
        })
        .await
}

async fn revoke(source: Source, id: Uuid) -> anyhow::Result<Answer> {
    source
        .with(Need::Existing, async |opened| {
            let doer = Doer::command_line();
            match keys::revoke_operator_key(&opened.pools.writer, id, &doer).await? {
                Some(at) => Ok(Answer::new(
                    &json!({"id": id, "revoked_at": at}),
                    format!("Key {id} opens nothing any more (revoked {at})."),
                )),
                None => anyhow::bail!("there is no key {id}; `key list` shows them"),
            }
        })
        .await
}
