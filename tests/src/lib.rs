//! What the whole-system tests and the demo share: real servers, real devices, a real Postgres, and
//! a line between them that can be cut.
//!
//! - [`server`], [`agent`], [`cli`]: the programs as an operator starts them, as processes.
//! - [`cluster`]: a data directory and the private Postgres in it, which outlives a killed server.
//! - [`gate`]: the line from devices to the server: open, cut, slow, or losing answers.
//! - [`kiosk`]: a device in this process, for load and for what no honest device sends.
//! - [`operator`]: the HTTP API with an operator's key; [`captured`]: what the ledger has, read so.
//! - [`comparison`]: the devices' own files ([`file`](mod@file)) held against the ledger.
//! - [`shop`]: a server with one site and a few people, where most tests begin.
//! - [`fleet`]: the fleet simulator; [`storm`]: fleets that come back at once, over lines with
//!   faults.
//! - [`hostile`]: those who do their worst at the door meanwhile.
//! - [`replicas`]: a highly available Postgres of three nodes, each of which may be killed, cut off
//!   or frozen.
//! - [`rekognition`]: Amazon Rekognition on loopback, for servers that ask it about faces.
//! - [`small_disk`]: a real filesystem that is soon full; [`seed`](mod@seed): chance that can be
//!   repeated.
//! - [`demo`]: the punch's whole journey, shown with all of these.
//!
//! Everything is on loopback, on ports that the system picks. A process is ended by its own id and
//! by whoever started it, at the latest when its owner is dropped; nothing outlives a test. Nothing
//! here sleeps for a fixed time: what has to happen is waited for, bounded
//! ([`eventually`](punchtrail_testkit::eventually)).

pub mod agent;
pub mod captured;
pub mod cli;
pub mod cluster;
pub mod comparison;
pub mod demo;
pub mod file;
pub mod fleet;
pub mod gate;
pub mod hostile;
pub mod kiosk;
pub mod operator;
pub mod process;
pub mod programs;
pub mod replicas;
pub mod seed;
pub mod server;
pub mod shop;
pub mod small_disk;
pub mod storm;

pub use agent::Agent;
pub use cli::Cli;
pub use cluster::DataDir;
pub use comparison::compare;
pub use fleet::Fleet;
pub use gate::Gate;
pub use hostile::Hostile;
pub use kiosk::Kiosk;
pub use operator::Operator;
pub use punchtrail_rekognition_stand_in as rekognition;
pub use replicas::{Patroni, Replicas};
pub use seed::seed;
pub use server::{Installation, Server};
pub use shop::Shop;
pub use small_disk::SmallDisk;
pub use storm::Storm;
