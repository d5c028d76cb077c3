//! Route and nf_tables messages, and the one synchronous socket they travel on.
//!
//! Encoding and decoding ([`message`], [`route`], [`nft`], [`conntrack`]) are pure: bytes in, bytes out. Only
//! [`Socket`] and [`Notifications`] make system calls. A socket belongs to the network namespace it was opened in, for its whole life.
//! This crate knows nothing of CNI, pods or bridges of a particular name.
//!
//! Messages are written by hand rather than with netlink-packet-route: nf_tables has no crate that is neither C nor
//! GPL, so an attribute writer is needed anyway, and with it the dozen route messages used here are a line each.
#![forbid(unsafe_code)]

mod cidr;
pub mod conntrack;
mod error;
pub mod message;
pub mod nft;
mod notify;
pub mod route;
pub mod sock_diag;
mod socket;

pub use cidr::{Cidr, CidrError};
pub use error::NetlinkError;
pub use message::Message;
pub use notify::{Event, Notifications, RouteGroup};
pub use socket::{Protocol, Reply, Socket};
