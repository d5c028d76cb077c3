//! Services on this node: from Service and EndpointSlice objects to what a connection to a ClusterIP meets.
//!
//! [`source`] brings the objects; [`object`] reads them, [`endpoint`] chooses, [`model`] says what every frontend
//! answers: pure. The model is rendered twice, purely too: [`nft`] for packets, from outside above all, and [`maps`] for
//! what programs of the node and its pods connect to. [`Services`] keeps the kernel as both say.
//!
//! How a daemon uses it:
//!
//! ```text
//! let snapshots = source::file::watch(path, place);          // or source::kube::watch(client, place)
//! let services = Services::open(Config { .. })?;             // of this thread's network namespace; changes nothing
//! let status = services.status();                            // watch: for `status` and /metrics
//! tokio::spawn(services.run(snapshots));                     // until the snapshots end; leaves everything standing
//! services::remove(&pin_directory)?;                         // instead, when Services are off: takes everything away
//! ```
//!
//! Left to others or refused, and why: topology hints are followed (zones and nodes), `sessionAffinityConfig` and
//! `healthCheckNodePort` are served; SCTP by nf_tables alone; node ports on loopback by sockets alone (a packet with a
//! loopback source cannot leave); affinity is kept apart by sockets and packets, which see a client differently.

pub mod endpoint;
mod health;
mod host;
pub mod maps;
pub mod model;
pub mod nft;
pub mod object;
mod reconcile;
pub mod source;
mod status;
mod wake;

pub use reconcile::{Config, Services, ServicesError, remove};
pub use status::{Mode, Status};
