//! What all tests share: a device's captures, signed ([`Chain`]).
//!
//! A crate of its own and no feature of `protocol`: a feature that one crate turns on is on for the whole
//! build, a crate is in a program only if that program names it. Programs that are never installed (the
//! demo, the bench) may; `./dev lint` holds that no product does.

mod captures;

pub use captures::{Chain, EXAMPLE, text};
