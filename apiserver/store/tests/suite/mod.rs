//! What every store must do. A test takes a fresh store.

pub mod keys;
pub mod lease;
pub mod linear;
pub mod snapshot;
pub mod watch;
