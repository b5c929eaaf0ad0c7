//! `punchtrail user`: people who sign in.

use clap::{Subcommand, ValueEnum};
use punchtrail_infra::access::{
    ids::UserId,
    links::Link,
    provider::entering,
    roles::Role,
    sessions,
    trail::{Act, Doer},
    users::{self, Invited, NAME_CHARS_MAX, User},
};
use punchtrail_protocol::SiteId;
use serde_json::{Value, json};

use super::{
    answer::{Answer, table_or},
    look::{Look, Names, or_none},
    source::{Need, Opened, Source},
};

/// How many are read at once.
const PAGE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// List the users
    List,
    /// Make a user and the link by which they set their password, good once, for thirty minutes
    Invite {
        /// What they will sign in with, an e-mail address for one
        #[arg(value_parser = login)]
        login: String,
        /// Their name, for people; the login unless given
        #[arg(long, value_parser = name)]
        name: Option<String>,
        #[arg(long)]
        role: RoleArgument,
        /// A manager's sites, names or ids, separated by commas
        #[arg(long, value_delimiter = ',')]
        sites: Vec<String>,
        /// Where people reach the server, to stand before the link
        #[arg(long, value_name = "URL", default_value = "")]
        at: String,
    },
    /// Make a new link for somebody who forgot their password; the last one is void
    Link {
        /// Login or id
        user: String,
        /// Take their second factor away, too, once the link is used: because it is lost
        #[arg(long)]
        clear_second_factor: bool,
        /// Where people reach the server, to stand before the link
        #[arg(long, value_name = "URL", default_value = "")]
        at: String,
    },
    /// Give a user another role; their sessions end
    Role {
        /// Login or id
        user: String,
        role: RoleArgument,
        /// A manager's sites, names or ids, separated by commas
        #[arg(long, value_delimiter = ',')]
        sites: Vec<String>,
    },
    /// Keep a user out, or let them in again; their sessions end
    Disable {
        /// Login or id
        user: String,
        /// Let them in again
        #[arg(long)]
        undo: bool,
    },
    /// Show where a user is signed in, or end all of it
    Sessions {
        /// Login or id
        user: String,
        /// End them
        #[arg(long)]
        end: bool,
    },
    /// Say which worker a user is: nobody rules on their own
    Tie {
        /// Login or id
        user: String,
        /// The worker: a name, a badge, an external id or an id
        #[arg(required_unless_present = "nobody")]
        employee: Option<String>,
        /// That they are none
        #[arg(long, conflicts_with = "employee")]
        nobody: bool,
    },
    /// Untie a user from their account at the provider of sign-ins; their sessions end
    UntieProvider {
        /// Login or id
        user: String,
    },
    /// Erase login, name, password and second factor of a user; what they did stands, by their id
    Erase {
        /// Login or id
        user: String,
    },
}

/// What a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleArgument {
    Admin,
    Manager,
    Auditor,
    Payroll,
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Self {
        match role {
            RoleArgument::Admin => Self::Admin,
            RoleArgument::Manager => Self::Manager,
            RoleArgument::Auditor => Self::Auditor,
            RoleArgument::Payroll => Self::Payroll,
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let length = text.chars().count();
    if !(1..=NAME_CHARS_MAX).contains(&length) || text.chars().any(char::is_control) {
        return Err(format!("it has 1 to {NAME_CHARS_MAX} characters"));
    }
    Ok(text.to_owned())
}

/// What somebody signs in with.
pub(super) fn login(text: &str) -> Result<String, String> {
    let text = name(text)?;
    match text.chars().any(char::is_whitespace) {
        true => Err("a login has no blanks".to_owned()),
        false => Ok(users::spelled(&text)),
    }
}

/// A link, to be handed over.
pub(super) fn linked(user: UserId, link: &Link, at: &str, look: Look) -> Answer {
    let address = format!("{}{}", at.trim_end_matches('/'), link.path());
    let object = json!({
        "user": user, "link": address, "token": link.token(), "expires_at": link.expires_at,
    });
    let until = look.here(link.expires_at);
    Answer::new(&object, format!("{address}\nGood once, until {until}."))
}

/// The user of that login or id.
///
/// # Errors
/// When there is none.
pub(super) async fn of(opened: &Opened, named: &str) -> anyhow::Result<User> {
    let found = users::named(&opened.pools.writer, named).await?;
    found.ok_or_else(|| anyhow::anyhow!("there is no user `{named}`; `user list` shows them"))
}

/// A manager's sites.
pub(super) async fn sites_of(opened: &Opened, named: &[String]) -> anyhow::Result<Vec<SiteId>> {
    let mut sites = Vec::with_capacity(named.len());
    for named in named {
        sites.push(opened.site(named).await?);
    }
    Ok(sites)
}

async fn sites_for(opened: &Opened, role: Role, named: &[String]) -> anyhow::Result<Vec<SiteId>> {
    if role.has_sites() == named.is_empty() {
        anyhow::bail!("a manager has sites (--sites NAME,…), and nobody else has any");
    }
    sites_of(opened, named).await
}

impl UserCommand {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.with(Need::Existing, async |opened| self.carry_out(opened).await).await
    }

    async fn carry_out(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let (writer, doer) = (&opened.pools.writer, Doer::command_line());
        match self {
            Self::List => list(opened).await,
            Self::Invite { login, name, role, sites, at } => {
                let role = Role::from(*role);
                let sites = sites_for(opened, role, sites).await?;
                let name = name.as_deref().unwrap_or(login);
                let invited = Invited { login, name, role, sites: &sites };
                let (user, link) = users::invite(writer, &invited, &doer).await?;
                Ok(linked(user, &link, at, opened.source.look))
            }
            Self::Link { user, clear_second_factor, at } => {
                let user = of(opened, user).await?.id;
                let link = users::reset(writer, user, *clear_second_factor, &doer).await?;
                Ok(linked(user, &link, at, opened.source.look))
            }
            Self::Role { user: named, role, sites } => {
                let (user, role) = (of(opened, named).await?.id, Role::from(*role));
                let sites = sites_for(opened, role, sites).await?;
                users::change_role(writer, user, (role, &sites), &doer).await?;
                let text = format!("{named} is {} now.", role.as_str());
                Ok(Answer::new(&json!({"user": user, "role": role, "sites": sites}), text))
            }
            Self::Disable { user: named, undo } => {
                let user = of(opened, named).await?.id;
                users::disable(writer, user, !undo, &doer).await?;
                let text = if *undo { "may sign in again" } else { "is kept out" };
                let object = json!({"user": user, "disabled": !undo});
                Ok(Answer::new(&object, format!("{named} {text}.")))
            }
            Self::Sessions { user, end } => sessions(opened, user, *end).await,
            Self::Tie { user: named, employee, .. } => {
                let user = of(opened, named).await?.id;
                let employee = opened.employee_if(employee.as_deref()).await?;
                users::tie(writer, user, employee, &doer).await?;
                let object = json!({"user": user, "employee": employee});
                let names = Names::of(opened).await?.with_people(opened, employee).await?;
                let who = employee.map_or_else(|| "no worker".to_owned(), |who| names.person(who));
                Ok(Answer::new(&object, format!("{named} is {who}.")))
            }
            Self::UntieProvider { user: named } => {
                let user = of(opened, named).await?.id;
                entering::untie(writer, user, &doer).await?;
                let text = format!("{named} is tied to no account at a provider.");
                Ok(Answer::new(&json!({"user": user}), text))
            }
            Self::Erase { user: named } => {
                let user = of(opened, named).await?.id;
                users::erase(writer, user, &doer).await?;
                Ok(Answer::new(&json!({"user": user}), format!("{named} was erased.")))
            }
        }
    }
}

async fn list(opened: &Opened) -> anyhow::Result<Answer> {
    let mut found: Vec<User> = Vec::new();
    loop {
        let after = found.last().map(|user| user.id);
        let page = users::list(&opened.pools.writer, after, PAGE).await?;
        let more = page.len() == PAGE as usize;
        found.extend(page);
        if !more {
            break;
        }
    }
    let (names, with_ids) = (Names::of(opened).await?, opened.source.look.ids);
    let row = |user: &User| {
        let has_way = user.has_password || user.has_provider;
        let state = match (user.erased_at, user.disabled_at, has_way) {
            (Some(_), ..) => "erased",
            (None, Some(_), _) => "disabled",
            (None, None, false) => "invited",
            (None, None, true) => "active",
        };
        let factor = if user.has_second_factor { "yes" } else { "no" };
        let sites = user.sites.iter().map(|site| names.site(*site)).collect::<Vec<_>>().join(", ");
        let cells = [
            or_none(user.login.as_deref()),
            or_none(user.name.as_deref()),
            user.role.as_str().to_owned(),
            or_none(Some(sites.as_str()).filter(|sites| !sites.is_empty())),
            state.to_owned(),
            factor.to_owned(),
        ];
        with_ids.then(|| user.id.to_string()).into_iter().chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let object = |user: &User| {
        json!({
            "user": user.id, "login": user.login, "name": user.name, "role": user.role,
            "sites": user.sites, "employee": user.employee, "has_password": user.has_password,
            "has_second_factor": user.has_second_factor, "has_provider": user.has_provider,
            "created_at": user.created_at,
            "disabled_at": user.disabled_at, "erased_at": user.erased_at,
        })
    };
    let users: Vec<Value> = found.iter().map(object).collect();
    let heading = ["id", "login", "name", "role", "sites", "state", "second factor"];
    let none = "Nobody signs in yet. `admin link` is the way in for the first admin.";
    let text = table_or(&heading[usize::from(!with_ids)..], &rows, none);
    Ok(Answer::new(&json!({"users": users}), text))
}

async fn sessions(opened: &Opened, named: &str, end: bool) -> anyhow::Result<Answer> {
    let (writer, user) = (&opened.pools.writer, of(opened, named).await?.id);
    if end {
        let doer = Doer::command_line();
        let ended = sessions::end(writer, user, None, (Act::SessionsEnded, &doer)).await?;
        return Ok(Answer::new(&json!({"ended": ended}), format!("{ended} sessions ended.")));
    }
    let found = sessions::of_user(writer, user).await?;
    let look = opened.source.look;
    let row = |one: &sessions::Listed| {
        vec![
            look.here(one.created_at),
            look.here(one.seen_at),
            or_none(one.address.as_deref()),
            or_none(one.agent.as_deref()),
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    let object = |one: &sessions::Listed| {
        json!({
            "session": one.session, "created_at": one.created_at, "seen_at": one.seen_at,
            "address": one.address, "agent": one.agent,
        })
    };
    let listed: Vec<Value> = found.iter().map(object).collect();
    let heading = ["since", "used last", "from", "browser"];
    let text = table_or(&heading, &rows, "They are signed in nowhere.");
    Ok(Answer::new(&json!({"sessions": listed}), text))
}
