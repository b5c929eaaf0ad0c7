//! Peers, each used in its own best documented way.

pub mod postgres_es;
