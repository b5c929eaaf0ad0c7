//! Who may come in: this deployment and its keys, the tokens of its devices, its operators' keys.

pub mod codes;
pub mod credentials;
pub mod deployment;
