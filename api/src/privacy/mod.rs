//! What is held of one person: taken out when they ask for it, and given to them when they ask for
//! that. The routes and the command line both come here.

pub mod erasure;
pub mod export;
