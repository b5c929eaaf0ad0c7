//! `punchtrail site`: sites and their policies.

use anyhow::{Context, bail};
use clap::Subcommand;
use jiff::civil::Date;
use punchtrail_domain::{
    policy::Policy,
    site::{self, SiteError, SiteRules},
};
use punchtrail_infra::{
    ledger::{ExecuteError, Metadata},
    people::directory,
    sites::{self, AddSiteError, Since},
};
use punchtrail_projections::{
    punches::{
        moved::{self, Moved},
        preview::Hours,
    },
    sites::{policies_of, zones_of},
};
use punchtrail_protocol::{Position, SiteId, shown::Shown};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    answer::{Answer, Refusal, table, table_or},
    source::{Need, Opened, Source},
    units,
};

#[derive(Debug, Subcommand)]
pub(super) enum Site {
    /// Make a site known
    Add {
        /// Its name; no two sites share one
        #[arg(long, value_parser = sites::name)]
        name: String,
        /// Its IANA time zone, `Europe/Berlin` for one
        #[arg(long, value_name = "ZONE")]
        tz: String,
    },
    /// List the sites
    List,
    /// Show a site's policy, or change it from a day on
    Policy {
        /// The site, by name or id
        site: String,
        /// A value to change, `clock_suspect=2min` for one; may be given several times
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
        set: Vec<(String, String)>,
        /// The first business day that the change holds on, like 2026-03-01. Unless given: since
        /// ever if the site never had a policy of its own, else today
        #[arg(long, value_name = "DAY", requires = "set")]
        from: Option<Date>,
        /// Show the policy of this day instead of today's
        #[arg(long, value_name = "DAY", conflicts_with = "set")]
        on: Option<Date>,
    },
    /// Show whose hours another zone would move; set it with --apply
    Zone {
        /// The site, by name or id
        site: String,
        /// The IANA time zone, `Europe/Berlin` for one
        #[arg(value_name = "ZONE")]
        tz: String,
        /// The first day that it holds on, like 2026-03-01; today unless given
        #[arg(long, value_name = "DAY")]
        from: Option<Date>,
        /// The zone before was wrong from the beginning: correct all of the past
        #[arg(long, conflicts_with = "from")]
        correct_past: bool,
        /// Set it; without, nothing is changed
        #[arg(long)]
        apply: bool,
    },
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
            Self::Policy { site, set, from, on } => {
                source
                    .with(Need::Existing, async |opened| match set.is_empty() {
                        true => shown(opened, &site, on).await,
                        false => change(opened, &site, set, from).await,
                    })
                    .await
            }
            Self::Zone { site, tz, from, correct_past, apply } => {
                let since = match (from, correct_past) {
                    (_, true) => Since::Ever,
                    (Some(day), false) => Since::Day(day),
                    (None, false) => Since::Unsaid,
                };
                source
                    .with(Need::Existing, async |opened| match apply {
                        true => set_zone(opened, &site, tz, since).await,
                        false => preview_zone(opened, &site, tz, since).await,
                    })
                    .await
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
    let sites = sites::list(&opened.pools.writer, opened.ledger.now()).await?;
    let with_ids = opened.source.look.ids;
    let row = |site: &sites::ListedSite| {
        let cells = [site.name.clone(), site.tz.clone()];
        with_ids.then(|| site.site.to_string()).into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = sites.iter().map(row).collect();
    let heading = ["id", "name", "time zone"];
    let none = "No site yet: `site add --name NAME --tz ZONE` makes one known.";
    let text = table_or(&heading[usize::from(!with_ids)..], &rows, none);
    Ok(Answer::new(&json!({"sites": sites}), text))
}

async fn shown(opened: &Opened, named: &str, on: Option<Date>) -> anyhow::Result<Answer> {
    let id = opened.site(named).await?;
    let loaded = opened.ledger.load::<site::Site>(&id.to_string()).await?;
    let rules = loaded.aggregate.rules();
    let policy = match on {
        Some(day) => rules.policy_on(day),
        None => rules.policy_at(opened.ledger.now()),
    };
    let said = dated(rules);
    let answer = policy_answer(id, policy, rules, loaded.position.unwrap_or_default())?;
    Ok(Answer::new(&answer.0, [answer.1, said].join("\n").trim_end().to_owned()))
}

async fn change(
    opened: &Opened,
    named: &str,
    set: Vec<(String, String)>,
    from: Option<Date>,
) -> anyhow::Result<Answer> {
    let id = opened.site(named).await?;
    let since = from.map_or(Since::Unsaid, Since::Day);
    let make = |rules: &SiteRules, from: Option<Date>| {
        let present = match (from, rules.policies().first()) {
            (Some(day), _) => rules.policy_on(day),
            (None, Some(first)) if first.day.is_none() => &first.value,
            (None, _) => rules.default_policy(),
        };
        changed(present, set).map_err(NotSet::Given)
    };
    let ledger = &opened.ledger;
    let set = sites::set_policy(ledger, id, since, &Metadata::default(), make).await;
    let set = set.map_err(NotSet::told)?;
    let policy = match set.from {
        Some(day) => set.rules.policy_on(day),
        None => set.rules.policies().first().map_or(set.rules.default_policy(), |set| &set.value),
    };
    let (mut object, text) = policy_answer(id, policy, &set.rules, set.position)?;
    object["from"] = json!(set.from);
    let said = format!("{text}\n\nIt holds {}.", since_when(set.from));
    Ok(Answer::new(&object, said))
}

/// Why a policy was not set.
enum NotSet {
    Given(anyhow::Error),
    Ledger(ExecuteError<SiteError>),
}

impl From<ExecuteError<SiteError>> for NotSet {
    fn from(error: ExecuteError<SiteError>) -> Self {
        Self::Ledger(error)
    }
}

impl NotSet {
    fn told(self) -> anyhow::Error {
        match self {
            Self::Given(error) => error,
            Self::Ledger(error) => anyhow::Error::from(error).context("the policy was not changed"),
        }
    }
}

fn since_when(from: Option<Date>) -> String {
    from.map_or_else(|| "since ever".to_owned(), |day| format!("from {day} on"))
}

/// What is set from which day on, where that is more than one policy.
fn dated(rules: &SiteRules) -> String {
    let mut before: Option<Value> = serde_json::to_value(rules.default_policy()).ok();
    let mut lines = Vec::new();
    for set in rules.policies() {
        let value = serde_json::to_value(&set.value).unwrap_or_default();
        let differs: Vec<String> = value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| before.as_ref().is_none_or(|before| before[*key] != **value))
            .map(|(key, value)| said(key, value))
            .collect();
        lines.push(format!("{}: {}", since_when(set.day), differs.join(" ")));
        before = Some(value);
    }
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.join("\n")) }
}

fn policy_answer(
    id: SiteId,
    policy: &Policy,
    rules: &SiteRules,
    position: Position,
) -> anyhow::Result<(Value, String)> {
    let value = serde_json::to_value(policy)?;
    let lines: Vec<String> =
        value.as_object().into_iter().flatten().map(|(key, value)| said(key, value)).collect();
    let policies = policies_of(rules);
    let object = json!({"site": id, "policy": value, "policies": policies, "position": position});
    Ok((object, lines.join("\n")))
}

async fn set_zone(
    opened: &Opened,
    named: &str,
    tz: String,
    since: Since,
) -> anyhow::Result<Answer> {
    let id = opened.site(named).await?;
    let set = sites::set_zone(&opened.ledger, id, tz.clone(), since, &Metadata::default()).await;
    let set = set.context("the zone was not changed")?;
    let zones = zones_of(&set.rules);
    let said = since_when(set.from);
    Ok(Answer::new(
        &json!({
            "site": id, "tz": tz, "from": set.from, "zones": zones, "position": set.position,
            "applied": true,
        }),
        format!("{tz} holds {said}."),
    ))
}

async fn preview_zone(
    opened: &Opened,
    named: &str,
    tz: String,
    since: Since,
) -> anyhow::Result<Answer> {
    let id = opened.site(named).await?;
    let (then, from) = sites::with_zone(&opened.ledger, id, tz.clone(), since).await?;
    let pool = &opened.pools.reader;
    let mut moved = moved::by_rules(pool, id, &then).await?;
    let people: Vec<_> = moved.shown.iter().map(|day| day.employee).collect();
    let names = directory::employee_names(pool, &people).await?;
    for day in &mut moved.shown {
        day.employee_name = names.get(&day.employee).cloned();
    }
    let text = moved_text(&tz, from, &moved, opened.source.look.ids);
    let object = json!({"site": id, "tz": tz, "from": from, "moved": moved, "applied": false});
    Ok(Answer::new(&object, text))
}

fn moved_text(tz: &str, from: Option<Date>, moved: &Moved, with_ids: bool) -> String {
    let said = since_when(from);
    let mut text = format!(
        "With {tz} {said}, hours of {} people would move, on {} of their days.",
        moved.people, moved.days
    );
    if !moved.complete {
        text.push_str(" There are too many punches to look at all; it may be more.");
    }
    if !moved.shown.is_empty() {
        let hours = |hours: Hours| {
            format!("{} +{} -{}", hours.accepted_min, hours.provisional_min, hours.taken_min)
        };
        let rows: Vec<Vec<String>> = moved
            .shown
            .iter()
            .map(|day| {
                let who = day.employee_name.clone().filter(|_| !with_ids);
                vec![
                    Shown::new(&who.unwrap_or_else(|| day.employee.to_string())).to_string(),
                    day.hours.day.to_string(),
                    hours(day.hours.now),
                    hours(day.hours.then),
                ]
            })
            .collect();
        let table = table(&["who", "day", "minutes now", "minutes then"], &rows);
        text.push_str(&format!("\n\n{table}"));
        if moved.days > moved.shown.len() as u64 {
            text.push_str(&format!("\n… and {} more", moved.days - moved.shown.len() as u64));
        }
    }
    text.push_str("\n\nNothing was changed. Add --apply to set it.");
    text
}

/// A key and its value as `--set` takes them: a duration with its unit instead of the key's.
fn said(key: &str, value: &Value) -> String {
    match (units::of(key), value.as_u64()) {
        (Some(unit), Some(number)) => {
            format!("{}={}", unit.bare(key), unit.told(number))
        }
        _ => format!("{key}={}", written(value)),
    }
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
    for (given, text) in set {
        let full = units::full(&given, |key| object.get(key).is_some());
        let key = full.unwrap_or_else(|| given.clone());
        let Some(value) = object.get_mut(&key) else {
            let known = known.unwrap_or_default();
            return Err(Refusal::Usage(format!("a policy has no `{given}`; it has {known}")).into());
        };
        let timed = match units::of(&key) {
            Some(unit) => unit.read(&given, &text, key != given).map_err(Refusal::Usage)?,
            None => None,
        };
        *value = match value {
            _ if timed.is_some() => Value::from(timed),
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
    fn a_duration_is_given_and_shown_with_its_unit() {
        let policy = change(&[
            "clock_suspect=2min",
            "lookback_s=3d",
            "shift_max=12h 30m",
            "day_starts=4h",
            "photo_retention=6 weeks",
            "travel_s=90",
        ])
        .unwrap();
        assert_eq!((policy.clock_suspect_s, policy.lookback_s), (120, 3 * 86_400));
        assert_eq!((policy.shift_max_s, policy.day_starts_min), (45_000, 240));
        assert_eq!((policy.photo_retention_days, policy.travel_s), (42, 90));
        let shown = |key: &str, number: u32| said(key, &json!(number));
        assert_eq!(shown("clock_suspect_s", 120), "clock_suspect=2min");
        assert_eq!(shown("shift_max_s", 45_000), "shift_max=12h 30min");
        assert_eq!(shown("travel_s", 0), "travel=0s");
        assert_eq!(shown("photo_retention_days", 90), "photo_retention=90d");
        assert_eq!(shown("day_starts_min", 240), "day_starts=4h");
        // Its `min` is no unit.
        assert_eq!(shown("face_local_min", 4_000), "face_local_min=4000");
        let value = serde_json::to_value(&policy).unwrap();
        let lines: Vec<_> =
            value.as_object().unwrap().iter().map(|(key, value)| said(key, value)).collect();
        let typed: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(change(&typed).unwrap(), policy, "what is shown can be typed");
    }

    #[test]
    fn what_is_not_a_policys_value_is_refused_by_name() {
        for (pair, said) in [
            ("wage=1", "`wage`"),
            ("photos=maybe", "`photos`"),
            ("batch_max=501", "`batch_max`"),
            ("clock_suspect=120", "unit"),
            ("clock_suspect=90ms", "whole seconds"),
            ("record_retention=36h", "whole days"),
            ("travel=soon", "`travel`"),
            ("travel=-1min", "`travel`"),
        ] {
            let error = change(&[pair]).unwrap_err();
            assert!(
                matches!(error.downcast_ref(), Some(Refusal::Usage(text)) if text.contains(said))
            );
        }
    }
}
