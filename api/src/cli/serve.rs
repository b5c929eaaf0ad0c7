//! `punchtrail serve`: the server, until it is told to stop.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use ipnet::IpNet;
use jiff::SignedDuration;
use punchtrail_api::{
    door::{
        address::TrustedProxies,
        admission::Class,
        limits::CONNECTIONS_MAX,
        tls::{CertificateFiles, Tls},
    },
    quota::{Allowance, DEVICE_CALLS_MAX, KEY_CALLS_MAX},
    server::{ServeError, ServeOptions, Server},
    webhooks::WebhookOptions,
};
use punchtrail_infra::{
    access::provider::Settings,
    ledger::Clock,
    photos::{PhotoPlace, open_photos},
    postgres::{PoolSizes, Pools, ServeLock},
    supervision::Supervisor,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Answer, print, print_json},
    identity::Identity,
    openid::OpenId,
    source::{Need, Source},
    webhook::{self, MailLine, Sent},
};

/// What a shell expects of a program that was interrupted.
const EXIT_INTERRUPTED: i32 = 130;

/// Where the server listens, and how what comes there is kept from being read.
#[derive(Debug, Args)]
pub(super) struct Listening {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", env = "PUNCHTRAIL_LISTEN")]
    pub listen: SocketAddr,

    /// A certificate in PEM, with those that lead from it to an authority: serve by TLS. Looked at
    /// every few seconds, and taken anew when it changed
    #[arg(long, value_name = "FILE", env = "PUNCHTRAIL_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", env = "PUNCHTRAIL_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// A proxy in front of this server that speaks TLS, an address or a network; more than once or
    /// separated by commas for several: for whom they ask is taken from their Forwarded or
    /// X-Forwarded-For
    #[arg(long = "trusted-proxy", value_name = "CIDR", env = "PUNCHTRAIL_TRUSTED_PROXIES",
          value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Listen beyond this machine in the clear, without a proxy that speaks TLS: keys, tokens and
    /// people's names can be read on the way
    #[arg(long, env = "PUNCHTRAIL_INSECURE_HTTP",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub insecure_http: bool,
}

impl Listening {
    /// What is served by TLS, if anything is.
    pub(super) fn certificate(&self) -> Option<CertificateFiles> {
        let (cert, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(CertificateFiles { cert, key })
    }
}

/// Run the server until SIGTERM or Ctrl-C
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    at: Listening,

    /// Serve metrics here, too, without a key; keep it to addresses that only your monitoring
    /// reaches
    #[arg(long, value_name = "ADDR", env = "PUNCHTRAIL_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,

    /// Reads that a device may make within 24 hours; what it delivers isn't counted
    #[arg(long, value_name = "N", default_value_t = DEVICE_CALLS_MAX,
          env = "PUNCHTRAIL_DEVICE_CALLS_MAX", value_parser = calls())]
    device_calls_max: u32,

    /// Calls that a key may make within 24 hours
    #[arg(long, value_name = "N", default_value_t = KEY_CALLS_MAX,
          env = "PUNCHTRAIL_KEY_CALLS_MAX", value_parser = calls())]
    key_calls_max: u32,

    #[command(flatten)]
    identity: Identity,

    #[command(flatten)]
    openid: OpenId,

    #[command(flatten)]
    webhooks: Sent,

    #[command(flatten)]
    mail: MailLine,

    /// Connections served at once; devices beyond them are told when to come back
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_MAX,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    connections_max: usize,

    /// Database connections for appending; one append runs at a time, so more don't help much
    #[arg(long, value_name = "N", default_value_t = PoolSizes::default().writer,
          value_parser = clap::value_parser!(u32).range(4..=1_000))]
    writers_max: u32,

    /// Database connections for read models and for reads
    #[arg(long, value_name = "N", default_value_t = PoolSizes::default().reader,
          value_parser = clap::value_parser!(u32).range(4..=1_000))]
    readers_max: u32,

    /// `off` lets everything in at once, to measure what that does to a server
    #[arg(long, value_name = "ON|OFF", default_value = "on", hide = true)]
    admission: Switch,

    /// As if this machine's clock were ahead by so many seconds: for drills
    #[arg(long, value_name = "N", default_value_t = 0, hide = true, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-86_400..=86_400))]
    clock_ahead_s: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// As many calls as a window counts.
fn calls() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_000_000_000)
}

/// A network, or an address as one.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "not an address like 10.0.0.7 or a network like 10.0.0.0/24".to_owned())
}

impl Serve {
    pub(super) async fn run(self, source: Source, json: bool) -> anyhow::Result<Answer> {
        let data_dir = source.dir()?;
        self.may_listen()?;
        let provider = self.openid.settings()?;
        let webhooks = webhook::options(&self.webhooks, &self.mail)?;
        // Before anything is made: what is left of a start that failed must not pass for a ledger.
        for address in [Some(self.at.listen), self.metrics_listen].into_iter().flatten() {
            TcpListener::bind(address).map_err(|source| ServeError::Listen { address, source })?;
        }
        if let Some(files) = self.at.certificate() {
            Tls::open(files).await.map_err(ServeError::from)?;
        }
        if source.photos != PhotoPlace::DataDir {
            open_photos(&source.photos, data_dir, source.region()).await?;
        }
        // The second of two servers must learn at once, not after a Postgres was started.
        let _lock = ServeLock::acquire(data_dir)?;
        let mut stops = Stops::listen()?;
        // Whoever interrupts a long start meets a database that is starting; it is left whole.
        let sizes = PoolSizes {
            writer: self.writers_max,
            reader: self.readers_max,
            ..PoolSizes::default()
        };
        let (postgres, pools) = tokio::select! {
            opened = source.open(Need::Any, sizes) => opened?,
            () = stops.next() => anyhow::bail!("stopped before the server was ready"),
        };
        let supervisor = postgres.supervisor().clone();
        let served = self
            .serve(&source, (pools.clone(), supervisor), (provider, webhooks), stops, json)
            .await;
        pools.close().await;
        if let Err(error) = postgres.close().await {
            tracing::warn!(%error, "the database was left running");
        }
        served.map(|()| Answer::silent())
    }

    /// That nobody between here and who asks can read along, unless that is wanted.
    fn may_listen(&self) -> anyhow::Result<()> {
        let is_safe = self.at.listen.ip().is_loopback() || self.at.tls_cert.is_some();
        match (is_safe, self.at.trusted_proxies.is_empty(), self.at.insecure_http) {
            (true, ..) => {}
            (false, false, _) => tracing::warn!(
                listen = %self.at.listen,
                "requests come in the clear: let only the proxy that speaks TLS reach this address"
            ),
            (false, true, true) => tracing::warn!(
                listen = %self.at.listen,
                "INSECURE: REQUESTS COME IN THE CLEAR. Keys, tokens and people's names can be read \
                 and altered by whoever is on the way; anybody who reads a key has all its rights"
            ),
            (false, true, false) => anyhow::bail!(
                "{} is reached from other machines, and nothing would be encrypted. Give \
                 --tls-cert and --tls-key; or --trusted-proxy with the address of the proxy that \
                 speaks TLS in front; or listen on 127.0.0.1. On a network of your own where \
                 everybody may read everything: --insecure-http. Nothing was started",
                self.at.listen
            ),
        }
        Ok(())
    }

    async fn serve(
        &self,
        source: &Source,
        (pools, supervisor): (Pools, Supervisor),
        (provider, webhooks): (Option<Settings>, WebhookOptions),
        stops: Stops,
        json: bool,
    ) -> anyhow::Result<()> {
        let options = ServeOptions {
            metrics_listen: self.metrics_listen,
            connections_max: match self.admission {
                Switch::On => self.connections_max,
                Switch::Off => usize::MAX,
            },
            budget: match self.admission {
                Switch::On => Some(Class::budget),
                Switch::Off => None,
            },
            supervisor,
            proxies: TrustedProxies(self.at.trusted_proxies.clone()),
            tls: self.at.certificate(),
            allowance: Allowance {
                device_calls: self.device_calls_max,
                key_calls: self.key_calls_max,
            },
            clock: Clock::ahead_by(SignedDuration::from_secs(self.clock_ahead_s)),
            identity: self.identity.options(source),
            provider,
            webhooks,
            photos: source.photos.clone(),
            ..ServeOptions::new(self.at.listen, pools, source.dir()?)
        };
        let server = Server::start(options).await?;
        let scheme = if self.at.tls_cert.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", server.address());
        let ready = match json {
            true => serde_json::json!({ "listening": url }).to_string(),
            false => format!("listening {url}"),
        };
        let printed = if json { print_json(&ready) } else { print(&ready) };
        printed.context("nobody can be told that the server listens")?;
        let stop = CancellationToken::new();
        let watching = tokio::spawn(stops.obey(stop.clone()));
        server.run(stop).await;
        watching.abort();
        Ok(())
    }
}

/// The signals that stop a server.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals can't be listened for");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first one asks nicely: what is in flight is answered. The second doesn't wait, which is
    /// as safe as a crash: nothing that was acknowledged is lost.
    async fn obey(mut self, stop: CancellationToken) {
        self.next().await;
        tracing::info!("stopping; once more to stop at once");
        stop.cancel();
        self.next().await;
        tracing::warn!("stopped at once");
        std::process::exit(EXIT_INTERRUPTED);
    }
}
