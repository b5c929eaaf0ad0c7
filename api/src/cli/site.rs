//! `punchtrail site`: sites and their policies.

use anyhow::{Context, bail};
use clap::Subcommand;
use punchtrail_domain::{
    policy::Policy,
    site::{self, SiteCommand},
};
use punchtrail_infra::{
    ledger::Metadata,
    sites::{self, AddSiteError},
};
use punchtrail_protocol::{Position, SiteId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answer::{Answer, Refusal, table},
    source::{Need, Opened, Source},
};

/// The longest name of a site, in characters.
const NAME_CHARS_MAX: usize = 64;

#[derive(Debug, Subcommand)]
pub(super) enum Site {
    /// Make a site known
    Add {
        /// Its name; no two sites share one
        #[arg(long, value_parser = name)]
        name: String,
        /// Its IANA time zone, `Europe/Berlin` for one
        #[arg(long, value_name = "ZONE")]
        tz: String,
    },
    /// List the sites
    List,
    /// Show a site's policy, or change it
    Policy {
        /// The site, by name or id
        site: String,
        /// A value to change; may be given several times
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
    },
}

fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if !(1..=NAME_CHARS_MAX).contains(&text.chars().count()) || text.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {NAME_CHARS_MAX} characters"));
    }
    if text.parse::<SiteId>().is_ok() {
        return Err("a name that looks like an id would be mistaken for one".to_owned());
    }
    Ok(text.to_owned())
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, `photos=true` for one")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Site {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        match self {
            Self::Add { name, tz } => {
                source.with(Need::Any, async |opened| add(opened, &name, tz).await).await
            }
            Self::List => source.with(Need::Existing, list).await,
            Self::Policy { site, set } => {
                source.with(Need::Existing, async |opened| policy(opened, &site, set).await).await
            }
        }
    }
}

async fn add(opened: &Opened, name: &str, tz: String) -> anyhow::Result<Answer> {
    let id = SiteId(Uuid::now_v7());
    let added = sites::add(&opened.ledger, id, name, tz.clone(), &Metadata::default()).await;
    match added {
        Ok(position) => Ok(Answer::new(
            &json!({"site": id, "name": name, "tz": tz, "position": position}),
            id.to_string(),
        )),
        Err(AddSiteError::NameTaken) => {
            bail!("there is a site `{name}` already; nothing was changed. `site list` shows it")
        }
        Err(error) => Err(error.into()),
    }
}

async fn list(opened: &Opened) -> anyhow::Result<Answer> {
    let sites = sites::list(&opened.pools.writer).await?;
    let rows: Vec<Vec<String>> = sites
        .iter()
        .map(|site| vec![site.site.to_string(), site.name.clone(), site.tz.clone()])
        .collect();
    Ok(Answer::new(&json!({"sites": sites}), table(&["site", "name", "time zone"], &rows)))
}

async fn policy(
    opened: &Opened,
    named: &str,
    set: Vec<(String, String)>,
) -> anyhow::Result<Answer> {
    let id = opened.site(named).await?;
    let loaded = opened.ledger.load::<site::Site>(&id.to_string()).await?;
    let now = opened.ledger.now();
    let present = loaded.aggregate.rules().policy_at(now);
    if set.is_empty() {
        return shown(id, present, loaded.position.unwrap_or_default());
    }
    let policy = changed(present, set)?;
    let command = SiteCommand::ChangePolicy { policy, from: None };
    let executed = opened
        .ledger
        .execute::<site::Site>(&id.to_string(), command, &Metadata::default())
        .await
        .context("the policy was not changed")?;
    shown(id, executed.aggregate.rules().policy_at(now), executed.position)
}

fn shown(id: SiteId, policy: &Policy, position: Position) -> anyhow::Result<Answer> {
    let value = serde_json::to_value(policy)?;
    let lines: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", written(value)))
        .collect();
    Ok(Answer::new(&json!({"site": id, "policy": value, "position": position}), lines.join("\n")))
}

fn written(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(written).collect::<Vec<_>>().join(","),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The policy with some values changed, each read as its present one is written.
fn changed(present: &Policy, set: Vec<(String, String)>) -> anyhow::Result<Policy> {
    let mut object = serde_json::to_value(present)?;
    let known = object.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>().join(", "));
    for (key, text) in set {
        let Some(value) = object.get_mut(&key) else {
            let known = known.unwrap_or_default();
            return Err(Refusal::Usage(format!("a policy has no `{key}`; it has {known}")).into());
        };
        *value = match value {
            Value::Array(_) => text.split(',').map(|item| Value::from(item.trim())).collect(),
            _ => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        };
        // Read at once, so that the error is about this key.
        serde_json::from_value::<Policy>(object.clone())
            .map_err(|error| Refusal::Usage(format!("`{key}`: {error}")))?;
    }
    let policy: Policy = serde_json::from_value(object)?;
    policy.check().map_err(|error| Refusal::Usage(error.to_string()))?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(pairs: &[&str]) -> anyhow::Result<Policy> {
        changed(&Policy::default(), pairs.iter().map(|pair| setting(pair).unwrap()).collect())
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let policy = change(&["heartbeat_s=30", "photos=true", "languages=de, tr"]).unwrap();
        assert_eq!((policy.heartbeat_s, policy.photos), (30, true));
        assert_eq!(policy.languages, ["de", "tr"]);
        assert_eq!(policy.lookback_s, Policy::default().lookback_s);
    }

    #[test]
    fn what_is_not_a_policys_value_is_refused_by_name() {
        for (pair, said) in
            [("wage=1", "`wage`"), ("photos=maybe", "`photos`"), ("batch_max=501", "`batch_max`")]
        {
            let error = change(&[pair]).unwrap_err();
            assert!(
                matches!(error.downcast_ref(), Some(Refusal::Usage(text)) if text.contains(said))
            );
        }
    }
}
