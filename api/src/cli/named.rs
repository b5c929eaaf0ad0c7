//! People, sites, devices, keys and endpoints by what they are called. What looks like an id is an
//! id; a name that several have means none of them.

use std::{collections::HashMap, fmt::Write as _};

use anyhow::{anyhow, bail};
use punchtrail_infra::{
    access::keys::{self, ListedKey},
    devices::{self, ListedDevice},
    people::directory::{self, Meant},
    sites,
    webhooks::endpoints::{self, Endpoint},
};
use punchtrail_protocol::{DeviceId, EmployeeId, SiteId, shown::Shown, spelling::normal};
use uuid::Uuid;

use super::{look::Names, source::Opened, user::of as user_of};

/// The most candidates that are listed.
const CANDIDATES_MAX: usize = 20;

/// Says that a name is several's, and whose.
fn ambiguous(what: &str, named: &str, candidates: &[(String, String)]) -> anyhow::Error {
    let mut text = format!(
        "`{named}` is the name of {} {what}; nothing was done. Say which one by its id:",
        candidates.len()
    );
    for (id, known) in candidates.iter().take(CANDIDATES_MAX) {
        // Writing to a string can't fail.
        let _ = write!(text, "\n  {id}  {}", Shown::new(known));
    }
    if candidates.len() > CANDIDATES_MAX {
        let _ = write!(text, "\n  and {} more", candidates.len() - CANDIDATES_MAX);
    }
    anyhow!(text)
}

/// How somebody is told from others of the name.
fn told(meant: &Meant) -> String {
    let mut parts = vec![meant.name.clone().unwrap_or_else(|| "without a name".to_owned())];
    if !meant.badges.is_empty() {
        parts.push(format!("badge {}", meant.badges.join(", ")));
    }
    parts.extend(meant.external_id.as_ref().map(|id| format!("external id {id}")));
    parts.join("; ")
}

impl Opened {
    /// The site of that name or id.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn site(&self, named: &str) -> anyhow::Result<SiteId> {
        sites::named(&self.pools.writer, named).await?.ok_or_else(|| {
            anyhow!("there is no site `{named}`, neither by name nor by id; `site list` shows them")
        })
    }

    /// The same of what may be left out.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn site_if(&self, named: Option<&str>) -> anyhow::Result<Option<SiteId>> {
        match named {
            Some(named) => self.site(named).await.map(Some),
            None => Ok(None),
        }
    }

    /// The employee of that name, badge, external id or id.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub(super) async fn employee(&self, named: &str) -> anyhow::Result<EmployeeId> {
        let meant = directory::employees_called(&self.pools.writer, named).await?;
        match meant.as_slice() {
            [one] => Ok(one.employee),
            [] => bail!(
                "there is no employee `{named}`, neither by name nor by badge, external id or id; \
                 `employee list --search` finds them"
            ),
            many => {
                let one = |meant: &Meant| (meant.employee.to_string(), told(meant));
                Err(ambiguous("people", named, &many.iter().map(one).collect::<Vec<_>>()))
            }
        }
    }

    /// The same of what may be left out.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub(super) async fn employee_if(
        &self,
        named: Option<&str>,
    ) -> anyhow::Result<Option<EmployeeId>> {
        match named {
            Some(named) => self.employee(named).await.map(Some),
            None => Ok(None),
        }
    }

    /// The device of that id, or of that name: one that has access before those that have none.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub(super) async fn device(&self, named: &str) -> anyhow::Result<DeviceId> {
        if let Ok(device) = named.trim().parse::<DeviceId>() {
            // Whether there is one is told by what is done with it.
            return Ok(device);
        }
        let spelled = normal(named.trim());
        let is_meant = |device: &ListedDevice| {
            device.name.as_ref().is_some_and(|name| normal(name) == spelled)
        };
        let mut found = devices::list(&self.pools.writer).await?;
        found.retain(is_meant);
        prefer(&mut found, |device| device.revoked_at.is_none());
        match found.as_slice() {
            [one] => Ok(one.device),
            [] => bail!(
                "there is no device `{named}`, neither by name nor by id; nothing was done. \
                 `device list` shows them"
            ),
            many => {
                let names = Names::of(self).await?;
                let one = |device: &ListedDevice| {
                    let site =
                        device.site.map_or_else(|| "no site".to_owned(), |at| names.site(at));
                    let ended = if device.revoked_at.is_some() { "; revoked" } else { "" };
                    (device.device.to_string(), format!("at {site}{ended}"))
                };
                Err(ambiguous("devices", named, &many.iter().map(one).collect::<Vec<_>>()))
            }
        }
    }

    /// The key of that id, or of that name: one that opens something before those that don't.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub(super) async fn key(&self, named: &str) -> anyhow::Result<Uuid> {
        if let Ok(key) = named.trim().parse::<Uuid>() {
            return Ok(key);
        }
        let mut found = keys::operator_keys(&self.pools.writer).await?;
        found.retain(|key| key.name == named.trim());
        prefer(&mut found, |key| key.revoked_at.is_none());
        match found.as_slice() {
            [one] => Ok(one.id),
            [] => bail!(
                "there is no key `{named}`, neither by name nor by id; nothing was done. `key \
                 list` shows them"
            ),
            many => {
                let one = |key: &ListedKey| {
                    let ended = if key.revoked_at.is_some() { "; revoked" } else { "" };
                    let made = self.source.look.here(key.created_at);
                    (key.id.to_string(), format!("made {made}{ended}"))
                };
                Err(ambiguous("keys", named, &many.iter().map(one).collect::<Vec<_>>()))
            }
        }
    }
}

impl Opened {
    /// The endpoint of webhooks of that id, name or URL.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub(super) async fn webhook(&self, named: &str) -> anyhow::Result<Uuid> {
        let named = named.trim();
        if let Ok(webhook) = named.parse::<Uuid>() {
            return Ok(webhook);
        }
        let mut found = endpoints::all(&self.pools.writer).await?;
        found.retain(|one| [&one.described.name, &one.described.url].contains(&&named.to_owned()));
        match found.as_slice() {
            [one] => Ok(one.id),
            [] => bail!(
                "there is no endpoint `{named}`, neither by name or URL nor by id; nothing was \
                 done. `webhook list` shows them"
            ),
            many => {
                let one = |of: &Endpoint| (of.id.to_string(), of.described.url.clone());
                Err(ambiguous("endpoints", named, &many.iter().map(one).collect::<Vec<_>>()))
            }
        }
    }
}

/// Leaves those that are preferred, if there are any.
fn prefer<T>(found: &mut Vec<T>, is_preferred: impl Fn(&T) -> bool) {
    if found.iter().any(&is_preferred) {
        found.retain(is_preferred);
    }
}

/// Who the audit trail names, and whom people call how: `user:…`, `usr_…`, `key:…`, `employee:…`,
/// `device:…`. What else stands there is left as it is.
#[derive(Debug, Default)]
pub(super) struct Parties(HashMap<String, String>);

/// One of them, by its id.
fn party(said: &str) -> Option<(&str, Uuid)> {
    let user = said.strip_prefix("usr_").map(|id| ("user", id));
    let (kind, id) = user.or_else(|| said.split_once(':'))?;
    Some((kind, id.parse().ok()?))
}

impl Parties {
    /// What those are called who are named so; nothing where ids are asked for.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn of(opened: &Opened, said: Vec<String>) -> anyhow::Result<Self> {
        if opened.source.look.ids {
            return Ok(Self::default());
        }
        let known: Vec<_> = said.iter().filter_map(|said| Some((said, party(said)?))).collect();
        let ids = |kinds: &'static [&str]| {
            let of_kind = known.iter().filter(|(_, (kind, _))| kinds.contains(kind));
            of_kind.map(|(_, (_, id))| *id).collect::<Vec<Uuid>>()
        };
        let reader = &opened.pools.reader;
        let operators = keys::operator_names(reader, &ids(&["user", "key"])).await?;
        let people: Vec<_> = ids(&["employee"]).into_iter().map(EmployeeId).collect();
        let people = directory::employee_names(reader, &people).await?;
        let devices: Vec<_> = ids(&["device"]).into_iter().map(DeviceId).collect();
        let devices = directory::device_names(reader, &devices).await?;
        let name = |kind: &str, id: &Uuid| match kind {
            "user" | "key" => operators.get(id),
            "employee" => people.get(&EmployeeId(*id)),
            "device" => devices.get(&DeviceId(*id)),
            _ => None,
        };
        let called = known.iter().filter_map(|(said, (kind, id))| {
            let name = Shown::new(name(kind, id)?).to_string();
            Some(((*said).clone(), format!("{kind} {name}")))
        });
        Ok(Self(called.collect()))
    }

    /// What one is called.
    pub fn called(&self, said: &str) -> String {
        self.0.get(said).cloned().unwrap_or_else(|| said.to_owned())
    }
}

impl Opened {
    /// Who is meant by `user:LOGIN`, `key:NAME`, `employee:WHO` or `device:NAME`: the kind, and the
    /// id. None where something else stands.
    async fn party(&self, said: &str) -> anyhow::Result<Option<(&'static str, String)>> {
        let found = match said.split_once(':') {
            Some(("user", named)) => ("user", user_of(self, named).await?.id.0.to_string()),
            Some(("key", named)) => ("key", self.key(named).await?.to_string()),
            Some(("employee", named)) => ("employee", self.employee(named).await?.to_string()),
            Some(("device", named)) => ("device", self.device(named).await?.to_string()),
            _ => return Ok(None),
        };
        Ok(Some(found))
    }

    /// An actor as the audit trail names one.
    ///
    /// # Errors
    /// When there is none of the name, or there are several.
    pub(super) async fn actor_if(&self, said: Option<&str>) -> anyhow::Result<Option<String>> {
        let Some(said) = said else { return Ok(None) };
        let found = self.party(said).await?;
        Ok(Some(found.map_or_else(|| said.to_owned(), |(kind, id)| format!("{kind}:{id}"))))
    }

    /// A subject as the audit trail names one.
    ///
    /// # Errors
    /// When there is none of the name, or there are several.
    pub(super) async fn subject_if(&self, said: Option<&str>) -> anyhow::Result<Option<String>> {
        let Some(said) = said else { return Ok(None) };
        let found = self.party(said).await?;
        Ok(Some(match found {
            Some(("user", id)) => format!("usr_{id}"),
            Some((kind, id)) => format!("{kind}:{id}"),
            None => said.to_owned(),
        }))
    }
}
