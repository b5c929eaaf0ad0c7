//! Which provider vouches for people who sign in, as an operator says it.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use punchtrail_infra::access::provider::{Provider, Settings};

/// The longest secret of a client, in bytes.
const SECRET_BYTES_MAX: usize = 4_096;

/// A provider of OpenID Connect.
#[derive(Debug, Args)]
pub(super) struct OpenId {
    /// Let people sign in by this provider of OpenID Connect, too: its issuer, letter for letter as
    /// it says it of itself
    #[arg(long, value_name = "URL", env = "PUNCHTRAIL_OPENID_ISSUER",
          requires_all = ["openid_client_id", "public_url"])]
    openid_issuer: Option<String>,

    /// As what this server is registered there
    #[arg(long, value_name = "ID", env = "PUNCHTRAIL_OPENID_CLIENT_ID")]
    openid_client_id: Option<String>,

    /// A file with the client's secret; or give it as PUNCHTRAIL_OPENID_CLIENT_SECRET. Neither for
    /// a client that has none
    #[arg(long, value_name = "FILE", env = "PUNCHTRAIL_OPENID_CLIENT_SECRET_FILE")]
    openid_client_secret_file: Option<PathBuf>,

    /// What stands on the button; the provider's host unless given
    #[arg(long, value_name = "TEXT", env = "PUNCHTRAIL_OPENID_NAME")]
    openid_name: Option<String>,

    /// Values of `acr`, separated by commas, by which it says that more than one factor was shown,
    /// beside `mfa` in `amr`; it is asked for them
    #[arg(
        long,
        value_name = "ACR",
        env = "PUNCHTRAIL_OPENID_MULTI_FACTOR_ACR",
        value_delimiter = ','
    )]
    openid_multi_factor_acr: Vec<String>,

    /// Take a provider on this very machine that is asked in the clear: to develop
    #[arg(long, env = "PUNCHTRAIL_OPENID_INSECURE_LOOPBACK",
          value_parser = clap::builder::FalseyValueParser::new())]
    openid_insecure_loopback: bool,

    /// Where browsers reach this server, `https://clock.example.org` for one: the provider sends
    /// them back there
    #[arg(long, value_name = "URL", env = "PUNCHTRAIL_PUBLIC_URL")]
    public_url: Option<String>,
}

/// The secret's own variable. It is no flag: whoever lists processes reads flags.
pub(super) const SECRET_VARIABLE: &str = "PUNCHTRAIL_OPENID_CLIENT_SECRET";

impl OpenId {
    /// The provider; none unless one is named.
    ///
    /// # Errors
    /// When something of it can't be right, or the secret can't be read or is given twice.
    pub(super) fn settings(&self) -> anyhow::Result<Option<Settings>> {
        let text = |given: &Option<String>| given.clone().filter(|text| !text.trim().is_empty());
        let Some(issuer) = text(&self.openid_issuer) else { return Ok(None) };
        let host = issuer.split("://").last().and_then(|rest| rest.split('/').next());
        let name = text(&self.openid_name).or_else(|| host.map(str::to_owned));
        if self.openid_insecure_loopback {
            tracing::warn!(
                "INSECURE: a provider of sign-ins on this machine is asked in the clear"
            );
        }
        let settings = Settings {
            client_id: text(&self.openid_client_id).unwrap_or_default(),
            client_secret: self.secret()?,
            name: name.unwrap_or_default(),
            public_url: text(&self.public_url).unwrap_or_default(),
            multi_factor_acr: self.openid_multi_factor_acr.clone(),
            allows_loopback_http: self.openid_insecure_loopback,
            issuer,
        };
        Provider::new(settings.clone()).map_err(|error| {
            anyhow::Error::new(error).context("the provider of sign-ins; nothing was started")
        })?;
        Ok(Some(settings))
    }

    fn secret(&self) -> anyhow::Result<Option<String>> {
        let given = std::env::var(SECRET_VARIABLE).ok().filter(|secret| !secret.is_empty());
        let secret = match (&self.openid_client_secret_file, given) {
            (Some(_), Some(_)) => anyhow::bail!(
                "the client's secret is given twice, by --openid-client-secret-file and by \
                 {SECRET_VARIABLE}; take one away. Nothing was started"
            ),
            (None, given) => return Ok(given),
            (Some(file), None) => std::fs::read_to_string(file).with_context(|| {
                format!("the client's secret can't be read from {}", file.display())
            })?,
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            anyhow::bail!(
                "the file of the client's secret holds 1 to {SECRET_BYTES_MAX} bytes; nothing was \
                 started"
            );
        }
        Ok(Some(secret.to_owned()))
    }
}
