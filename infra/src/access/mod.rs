//! Who may come in: this deployment and its keys, the tokens of its devices, its operators' keys,
//! the people who sign in, by a password or a provider's word; and the trail of what they did that
//! bears on security.

use std::time::Duration;

pub mod codes;
pub mod credentials;
pub mod deployment;
pub mod grants;
pub mod ids;
pub mod keys;
pub mod links;
pub mod passwords;
pub mod provider;
pub mod roles;
pub mod second_factor;
pub mod sessions;
pub mod sign_in;
pub mod trail;
pub mod tries;
pub mod users;

/// How long a change of who may come in may take.
const CHANGE_MAX: Duration = Duration::from_secs(15);
