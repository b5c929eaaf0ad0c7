//! `punchtrail admin`: the way in for the first admin, and for one who is locked out.

use clap::Subcommand;
use punchtrail_infra::access::users::{self, UserError};

use super::{
    answer::Answer,
    source::{Need, Source},
    user::{linked, login},
};

#[derive(Debug, Subcommand)]
pub(super) enum Admin {
    /// Make a link by which an admin sets a password: the first one, or one who is locked out. It
    /// is good once, for thirty minutes; the last one is void, and so is their second factor once
    /// it is used
    Link {
        /// What they sign in with
        #[arg(long, default_value = "admin", value_parser = login)]
        login: String,
        /// Where people reach the server, to stand before the link
        #[arg(long, value_name = "URL", default_value = "")]
        at: String,
    },
}

impl Admin {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        let Self::Link { login, at } = self;
        source
            .with(Need::Any, async |opened| {
                match users::admin_link(&opened.pools.writer, &login).await {
                    Ok((user, link)) => Ok(linked(user, &link, &at, opened.source.look)),
                    Err(UserError::NoAdmin) => anyhow::bail!(
                        "`{login}` is no admin, and no link was made. `user role {login} admin` \
                         makes them one; --login NAME makes another user"
                    ),
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }
}
