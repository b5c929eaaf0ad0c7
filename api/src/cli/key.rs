//! `punchtrail key`: operators' keys.

use clap::Subcommand;
use punchtrail_api::auth::table::scopes;
use punchtrail_infra::access::{
    keys::{self, ListedKey, NewKey},
    trail::Doer,
};
use punchtrail_protocol::Time;
use serde_json::json;

use super::{
    answer::{Answer, table_or},
    look::{NONE, Names},
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
        /// The worker whose key it is, if one's who may rule: a name, a badge, an external id or an
        /// id. Nobody rules on their own
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
    /// List the keys
    List,
    /// End a key's access, at once
    Revoke {
        /// The key, by name or id
        key: String,
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
            Self::Revoke { key } => revoke(source, &key).await,
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
            let employee = opened.employee_if(employee).await?;
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
            let note = "Keep it now: it is shown this once, and only its digest is kept here. Who \
                        has lost it makes another.";
            Ok(Answer::new(&object, secret.reveal()).noting(note.to_owned()))
        })
        .await
}

async fn list(source: Source) -> anyhow::Result<Answer> {
    source
        .with(Need::Existing, async |opened| {
            let keys = keys::operator_keys(&opened.pools.writer).await?;
            let people = keys.iter().filter_map(|key| key.employee);
            let names = Names::of(opened).await?.with_people(opened, people).await?;
            let look = opened.source.look;
            let row = |key: &ListedKey| {
                let scopes = key.scopes.as_ref().map(|scopes| scopes.join(", "));
                let sites = key.sites.as_ref().map(|sites| {
                    sites.iter().map(|site| names.site(*site)).collect::<Vec<_>>().join(", ")
                });
                let cells = [
                    key.name.clone(),
                    key.employee.map_or_else(|| NONE.to_owned(), |who| names.person(who)),
                    scopes.unwrap_or_else(|| "everything".to_owned()),
                    sites.unwrap_or_else(|| "everywhere".to_owned()),
                    look.here(key.created_at),
                    key.expires_at.map_or_else(|| "never".to_owned(), |at| look.here(at)),
                    look.here_or_none(key.revoked_at),
                ];
                look.ids.then(|| key.id.to_string()).into_iter().chain(cells).collect()
            };
            let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
            let heading = ["id", "name", "worker", "may do", "where", "made", "expires", "revoked"];
            let none = "No key yet. `key new` makes one.";
            let text = table_or(&heading[usize::from(!look.ids)..], &rows, none);
            Ok(Answer::new(&json!({"keys": keys}), text))
        })
        .await
}

async fn revoke(source: Source, named: &str) -> anyhow::Result<Answer> {
    source
        .with(Need::Existing, async |opened| {
            let (id, doer) = (opened.key(named).await?, Doer::command_line());
            match keys::revoke_operator_key(&opened.pools.writer, id, &doer).await? {
                Some(at) => Ok(Answer::new(
                    &json!({"id": id, "revoked_at": at}),
                    format!(
                        "The key {named} opens nothing any more (revoked {}).",
                        opened.source.look.here(at)
                    ),
                )),
                None => anyhow::bail!("there is no key {id}; `key list --ids` shows them"),
            }
        })
        .await
}
