//! Containers: what is recorded of one, what it may do next, what its spec is gathered from.

pub mod gather;
pub mod record;
pub mod remove;
pub mod state;
pub mod user;
