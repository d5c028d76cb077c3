//! Pod sandboxes: what is recorded of one, what it may do next, how it is taken apart.

pub mod etc;
pub mod janitor;
pub mod record;
pub mod state;
pub mod teardown;
pub mod watch;
