//! The daemon's side of a monitor: starting one, finding one again, asking it, hearing of its death. The protocol
//! itself is `corten_monitor::protocol`; nothing here touches a container.

mod connection;
mod error;
mod request;
mod spawn;
mod sweep;

pub use connection::{Events, Monitor};
pub use error::MonitorError;
pub use request::{ExecStdio, Execution};
pub use spawn::MonitorSpec;
pub use sweep::sweep_dead;
