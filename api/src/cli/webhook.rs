//! `punchtrail webhook`: whom integrators' events are sent to, and what became of that.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use jiff::SignedDuration;
use punchtrail_api::webhooks::WebhookOptions;
use punchtrail_infra::{
    access::trail::Doer,
    key_file,
    mail::{self, Postman},
    webhooks::{
        address::Egress,
        endpoints::{
            self, Described, Endpoint, NAME_CHARS_MAX, PENDING_COUNTED_MAX, Start, is_name,
        },
        events::EventType,
        redelivery,
        secrets::Keeper,
    },
};
use punchtrail_protocol::{Position, Time};
use serde_json::json;

use super::{
    answer::{Answer, table_or},
    look::{Look, or_none},
    serve::network,
    source::{Need, Opened, Source},
    user::sites_of,
};

/// How webhooks are sent.
#[derive(Debug, Clone, Args)]
pub(super) struct Sent {
    /// The key that webhooks' secrets are kept under, the same on every node; `webhooks.key` in the
    /// data directory unless given. Made when there is none
    #[arg(long, value_name = "FILE", env = "PUNCHTRAIL_WEBHOOK_KEY_FILE", global = true)]
    webhook_key_file: Option<PathBuf>,

    /// A network inside that webhooks may be sent to, an address or a CIDR; more than once or
    /// separated by commas for several
    #[arg(long = "webhook-allow", value_name = "CIDR", env = "PUNCHTRAIL_WEBHOOK_ALLOW",
          value_delimiter = ',', value_parser = network, global = true)]
    webhook_allow: Vec<IpNet>,

    /// Send webhooks to this very machine, too, also in the clear: to develop
    #[arg(long, env = "PUNCHTRAIL_WEBHOOK_INSECURE_LOOPBACK", global = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    webhook_insecure_loopback: bool,
}

impl Sent {
    fn egress(&self) -> Egress {
        if self.webhook_insecure_loopback {
            tracing::warn!("INSECURE: webhooks are sent to this machine, also in the clear");
        }
        Egress::new(self.webhook_allow.clone(), self.webhook_insecure_loopback)
    }

    async fn keeper(&self, source: &Source) -> anyhow::Result<Keeper> {
        let path = match &self.webhook_key_file {
            Some(path) => path.clone(),
            None => source.dir()?.join(key_file::WEBHOOKS),
        };
        let opened = Keeper::of(&path).await;
        opened.with_context(|| format!("the key of webhooks can't be used: {}", path.display()))
    }
}

/// By whom mail is sent.
#[derive(Debug, Args)]
pub(super) struct MailLine {
    /// The server that takes mail, `smtps://user@host`, `smtp://host:25` or
    /// `smtp://user@host?tls=required`; none is sent unless given
    #[arg(
        long,
        value_name = "URL",
        env = "PUNCHTRAIL_SMTP",
        hide_env_values = true,
        requires = "mail_from"
    )]
    smtp: Option<String>,

    /// A file with the password there
    #[arg(long, value_name = "FILE", env = "PUNCHTRAIL_SMTP_PASSWORD_FILE")]
    smtp_password_file: Option<PathBuf>,

    /// From whom mail comes
    #[arg(long, value_name = "ADDRESS", env = "PUNCHTRAIL_MAIL_FROM")]
    mail_from: Option<String>,
}

impl MailLine {
    fn postman(&self) -> anyhow::Result<Option<Postman>> {
        let Some(server) = self.smtp.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let password = match &self.smtp_password_file {
            Some(file) => Some(std::fs::read_to_string(file).with_context(|| {
                format!("the password of the mail server can't be read from {}", file.display())
            })?),
            None => None,
        };
        let from = self.mail_from.as_deref().unwrap_or_default();
        Ok(Some(Postman::new(server, password.as_deref(), from)?))
    }
}

/// What `serve` is told of webhooks and mail.
pub(super) fn options(sent: &Sent, mail: &MailLine) -> anyhow::Result<WebhookOptions> {
    Ok(WebhookOptions {
        key_file: sent.webhook_key_file.clone(),
        egress: sent.egress(),
        postman: mail.postman()?,
    })
}

#[derive(Debug, Args)]
pub(super) struct Webhook {
    #[command(flatten)]
    sent: Sent,
    #[command(subcommand)]
    command: Asked,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// List the endpoints, and how they do
    List,
    /// Make an endpoint. Its secret is shown this once
    Add {
        /// Where to send to, by https
        url: String,
        /// What it is called; its host unless given
        #[arg(long, value_parser = name)]
        name: Option<String>,
        /// Of what it is told, `punch.accepted` for one, separated by commas; of everything unless
        /// given
        #[arg(long = "types", value_delimiter = ',', value_parser = event_type)]
        types: Vec<String>,
        /// Of which sites, names or ids, separated by commas; of all unless given
        #[arg(long, value_delimiter = ',')]
        sites: Vec<String>,
        /// Whom to write to when it fails
        #[arg(long, value_name = "ADDRESS", value_parser = contact)]
        contact: Option<String>,
        /// Tell it what stands after this position of the ledger, too; 0 for everything
        #[arg(long, value_name = "POSITION")]
        after: Option<u64>,
    },
    /// Send a test event
    Test {
        /// The endpoint: its name, URL or id
        webhook: String,
    },
    /// Send once more: one delivery, or what happened within a time
    Redeliver {
        /// The endpoint: its name, URL or id
        webhook: String,
        /// This delivery alone
        #[arg(long, value_name = "ID", conflicts_with = "since")]
        delivery: Option<i64>,
        /// What happened from then on, `2027-01-31T00:00:00Z` for one
        #[arg(long, value_name = "TIME", value_parser = time, required_unless_present = "delivery")]
        since: Option<Time>,
        /// And up to then; up to now unless given
        #[arg(long, value_name = "TIME", value_parser = time, requires = "since")]
        until: Option<Time>,
        /// What was delivered, too
        #[arg(long, requires = "since")]
        everything: bool,
    },
    /// Make another secret, shown this once; the old one signs on for a while
    Rotate {
        /// The endpoint: its name, URL or id
        webhook: String,
        /// For so many hours
        #[arg(long, value_name = "HOURS", default_value_t = 24,
              value_parser = clap::value_parser!(u32).range(..=168))]
        overlap: u32,
    },
    /// Tell an endpoint again, also what happened while it was disabled
    Enable {
        /// The endpoint: its name, URL or id
        webhook: String,
        /// Only what happens from now on
        #[arg(long)]
        from_now: bool,
    },
    /// Tell an endpoint nothing until it is enabled
    Disable {
        /// The endpoint: its name, URL or id
        webhook: String,
    },
    /// Remove an endpoint and what is kept of it
    Remove {
        /// The endpoint: its name, URL or id
        webhook: String,
    },
}

fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_none = || format!("a name has 1 to {NAME_CHARS_MAX} characters");
    is_name(text).then(|| text.to_owned()).ok_or_else(is_none)
}

fn event_type(text: &str) -> Result<String, String> {
    let known = || format!("there is no such type; there are {}", EventType::names().join(", "));
    text.trim().parse::<EventType>().map(|one| one.as_str().to_owned()).map_err(|_| known())
}

fn contact(text: &str) -> Result<String, String> {
    let text = text.trim();
    mail::is_address(text).then(|| text.to_owned()).ok_or_else(|| "no mail's address".to_owned())
}

fn time(text: &str) -> Result<Time, String> {
    let read = text.parse::<jiff::Timestamp>().map(Time::from);
    read.map_err(|_| "no time with its zone, like 2027-01-31T00:00:00Z".to_owned())
}

impl Webhook {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        let Self { sent, command } = self;
        source.with(Need::Existing, async |opened| done(&sent, command, opened).await).await
    }
}

async fn done(sent: &Sent, command: Asked, opened: &Opened) -> anyhow::Result<Answer> {
    let (writer, doer) = (&opened.pools.writer, Doer::command_line());
    let now = opened.ledger.now().timestamp();
    match command {
        Asked::List => Ok(listed(opened.source.look, &endpoints::all(writer).await?)),
        Asked::Add { url, name, types, sites, contact, after } => {
            let url_read = sent.egress().reachable(&url).await?;
            let host = url_read.host_str().unwrap_or_default();
            let some = |list: Vec<_>| Some(list).filter(|list| !list.is_empty());
            let sites = sites_of(opened, &sites).await?;
            let described = Described {
                name: name.unwrap_or_else(|| host.chars().take(NAME_CHARS_MAX).collect()),
                url,
                types: some(types),
                sites: Some(sites).filter(|sites| !sites.is_empty()),
                contact,
            };
            let start = after.map_or(Start::Now, |after| Start::After(Position(after)));
            let keeper = sent.keeper(&opened.source).await?;
            let (id, secret) =
                endpoints::make(writer, &keeper, &described, (start, now), &doer).await?;
            let secret = secret.reveal();
            let text = format!("Endpoint {id} is told. Its secret, shown this once:\n{secret}");
            Ok(Answer::new(&json!({"webhook": id, "secret": secret}), text))
        }
        Asked::Test { webhook } => {
            let webhook = opened.webhook(&webhook).await?;
            let delivery = redelivery::test(writer, webhook, now).await?;
            let text = format!("Delivery {delivery} is in line; `webhook list` shows how it does.");
            Ok(Answer::new(&json!({"delivery": delivery}), text))
        }
        Asked::Redeliver { webhook, delivery: Some(delivery), .. } => {
            let webhook = opened.webhook(&webhook).await?;
            if !redelivery::of_one(writer, webhook, delivery, now).await? {
                anyhow::bail!("there is no delivery {delivery} to that endpoint");
            }
            let text = format!("Delivery {delivery} is in line once more.");
            Ok(Answer::new(&json!({"delivery": delivery}), text))
        }
        Asked::Redeliver { webhook, since, until, everything, .. } => {
            let webhook = opened.webhook(&webhook).await?;
            let since = since.context("say since when")?;
            let span = (since, until.unwrap_or_else(|| opened.ledger.now()));
            let made = redelivery::of_time(writer, webhook, span, everything, now).await?;
            let id = made.context("too many redeliveries of it are under way; wait for one")?;
            let text = format!("Redelivery {id} begins; a server goes on with it.");
            Ok(Answer::new(&json!({"redelivery": id}), text))
        }
        Asked::Rotate { webhook, overlap } => {
            let webhook = opened.webhook(&webhook).await?;
            let keeper = sent.keeper(&opened.source).await?;
            let times = (now, SignedDuration::from_hours(overlap.into()));
            let secret = endpoints::rotate(writer, &keeper, webhook, times, &doer).await?.reveal();
            let text = format!(
                "Its new secret, shown this once; the old one signs beside it for {overlap} \
                 hours:\n{secret}"
            );
            Ok(Answer::new(&json!({"webhook": webhook, "secret": secret}), text))
        }
        Asked::Enable { webhook, from_now } => {
            let id = opened.webhook(&webhook).await?;
            endpoints::enable(writer, id, !from_now, now, &doer).await?;
            Ok(Answer::new(&json!({"webhook": id}), format!("{webhook} is told again.")))
        }
        Asked::Disable { webhook } => {
            let id = opened.webhook(&webhook).await?;
            endpoints::disable(writer, id, now, &doer).await?;
            let text = format!("{webhook} is told nothing until it is enabled.");
            Ok(Answer::new(&json!({"webhook": id}), text))
        }
        Asked::Remove { webhook } => {
            let id = opened.webhook(&webhook).await?;
            endpoints::remove(writer, id, now, &doer).await?;
            Ok(Answer::new(&json!({"webhook": id}), format!("{webhook} is removed.")))
        }
    }
}

fn listed(look: Look, endpoints: &[Endpoint]) -> Answer {
    let state = |of: &Endpoint| match (of.disabled, of.failing_since) {
        (Some((_, because)), _) => format!("disabled ({})", because.as_str()),
        (None, Some(since)) => format!("failing since {}", look.here(since)),
        (None, None) => "told".to_owned(),
    };
    let rows: Vec<Vec<String>> = endpoints
        .iter()
        .map(|of| {
            let types = of.described.types.as_ref().map_or("all".to_owned(), |all| all.join(","));
            let cells = [
                of.described.name.clone(),
                of.described.url.clone(),
                types,
                state(of),
                match of.pending {
                    PENDING_COUNTED_MAX => format!("{PENDING_COUNTED_MAX} or more"),
                    fewer => fewer.to_string(),
                },
                or_none(of.last_error.as_deref()),
            ];
            look.ids.then(|| of.id.to_string()).into_iter().chain(cells).collect()
        })
        .collect();
    let objects: Vec<_> = endpoints
        .iter()
        .map(|of| {
            let Described { name, url, types, sites, contact } = &of.described;
            json!({
                "webhook": of.id, "name": name, "url": url, "types": types, "sites": sites,
                "contact": contact, "created_at": of.made_at,
                "disabled_at": of.disabled.map(|(at, _)| at),
                "disabled_because": of.disabled.map(|(_, because)| because),
                "failing_since": of.failing_since, "last_error": of.last_error,
                "succeeded_at": of.succeeded_at, "pending": of.pending,
            })
        })
        .collect();
    let heading = ["id", "name", "url", "types", "state", "in line", "last error"];
    let none = "No endpoint yet. `webhook add URL` makes one.";
    let text = table_or(&heading[usize::from(!look.ids)..], &rows, none);
    Answer::new(&json!({"webhooks": objects}), text)
}
