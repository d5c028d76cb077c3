//! The eBPF fast path: endpoints and nodes into maps, programs onto devices, and why it is on or off.
//!
//! A pass ([`Fastpath::pass`]) reads the kernel ([`discovery`]), decides who may be served ([`endpoints`], [`nodes`]) and
//! whether at all ([`probe`], [`foreign`]), and makes maps and links so ([`tables`], [`plan`], [`apply`]). Programs and maps
//! are pinned and go on without the daemon; nothing is remembered but there.

mod apply;
pub mod discovery;
pub mod endpoints;
pub mod events;
pub mod foreign;
mod legacy;
pub mod nodes;
pub mod plan;
pub mod probe;
mod reconcile;
mod serve;
pub mod status;
pub mod tables;

pub use reconcile::{Fastpath, FastpathError, Input, Options};
pub use serve::Service;
pub use status::Report;
