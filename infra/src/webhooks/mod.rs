//! Webhooks, as Standard Webhooks 1.0 has them: what integrators are told of the ledger.
//!
//! A follower makes a body of each event that concerns them and puts it in line for each endpoint
//! ([`events`]). A delivery's row is the queue ([`queue`]) and the log ([`log`]); who delivers
//! ([`deliverer`]) takes what is due, sends it signed ([`secrets`], [`sending`]) to where may be
//! sent to ([`address`]), and tries again as [`schedule`] says. What is told again, or from an
//! earlier position on, is a job ([`redelivery`]); what goes wrong is written to an endpoint's
//! contact ([`summaries`]).
//!
//! At least once, in no promised order, each under an id that stays. It must never: reach inside,
//! follow a redirect, or let one receiver hold up another.

pub mod address;
pub mod deliverer;
pub mod endpoints;
pub mod events;
pub mod log;
pub mod queue;
pub mod redelivery;
pub mod schedule;
pub mod secrets;
pub mod sending;
pub mod summaries;
