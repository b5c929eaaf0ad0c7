//! What all tests share: a device's captures, signed ([`Chain`]); waiting for what happens
//! elsewhere ([`eventually`]); values at their ends ([`NUMBERS`]); face models and pictures
//! ([`Faces`]); a receiver of webhooks that answers as it is told ([`Receiver`]); AWS's services on
//! this machine ([`Moto`]); what holds the description of the API to the server
//! ([`OpenApiTools`], [`TypeScript`]); what `./dev` brings besides crates ([`brought()`]); the page
//! of a program's flags ([`page_holds`]); saying that a test can't run here ([`not_run`]).
//!
//! A crate of its own and no feature of `protocol`: waiting needs a runtime, which `protocol` has
//! none of, and a feature that one crate turns on is on for the whole build, while a crate is in a
//! program only if that program names it. Programs that are never installed (the demo, the bench)
//! may; `./dev lint` holds that no product does.

mod brought;
mod captures;
mod ends;
mod faces;
mod here;
mod moto;
mod openapi;
mod options;
mod receiver;
mod wait;

pub use brought::brought;
pub use captures::{Chain, EXAMPLE, text};
pub use ends::{NUMBERS, TIMES, with_fields};
pub use faces::{Faces, PICTURES};
pub use here::not_run;
pub use moto::Moto;
pub use openapi::{OpenApiTools, TypeScript, finished};
pub use options::page_holds;
pub use receiver::{Received, Receiver, Reply};
pub use wait::{PATIENCE, eventually};
