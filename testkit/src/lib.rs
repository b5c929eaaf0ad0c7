//! What all tests share: a device's captures, signed ([`Chain`]), and waiting for what happens
//! elsewhere ([`eventually`]).
//!
//! A crate of its own and no feature of `protocol`: waiting needs a runtime, which `protocol` has
//! none of, and a feature that one crate turns on is on for the whole build, while a crate is in a
//! program only if that program names it. Programs that are never installed (the demo, the bench)
//! may; `./dev lint` holds that no product does.

mod captures;
mod wait;

pub use captures::{Chain, EXAMPLE, text};
pub use wait::{PATIENCE, eventually};
