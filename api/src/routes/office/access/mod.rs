//! Who may come in: signing in, sessions, users, roles, grants, keys, and the trail of it all.

pub mod audit;
pub mod factor;
pub mod grants;
pub mod keys;
pub mod provider;
pub mod roles;
pub mod session;
pub mod sign_in;
pub mod users;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{door::admission::Class, state::App};

/// Every route of it, and its class.
pub(crate) fn table() -> Vec<(Class, OpenApiRouter<App>)> {
    let strangers = OpenApiRouter::new()
        .routes(routes!(provider::ways, sign_in::sign_in))
        .routes(routes!(sign_in::accept))
        .routes(routes!(provider::begin))
        .routes(routes!(provider::callback))
        .routes(routes!(provider::code));
    let known = OpenApiRouter::new()
        .routes(routes!(session::own, session::sign_out))
        .routes(routes!(session::change_password))
        .routes(routes!(session::list))
        .routes(routes!(session::end))
        .routes(routes!(provider::tie))
        .routes(routes!(factor::begin))
        .routes(routes!(factor::confirm))
        .routes(routes!(factor::remove))
        .routes(routes!(users::list, users::invite))
        .routes(routes!(users::one, users::erase))
        .routes(routes!(users::change_role))
        .routes(routes!(users::tie))
        .routes(routes!(users::disable))
        .routes(routes!(users::make_link))
        .routes(routes!(provider::untie))
        .routes(routes!(users::sessions, users::end_sessions))
        .routes(routes!(grants::give))
        .routes(routes!(grants::list))
        .routes(routes!(grants::end))
        .routes(routes!(roles::list))
        .routes(routes!(roles::settle))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(audit::list));
    vec![(Class::SignIn, strangers), (Class::Interactive, known)]
}
