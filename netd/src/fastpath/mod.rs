//! The eBPF fast path: endpoints and nodes into maps, programs onto devices, and why it is on or off.

pub mod discovery;
pub mod endpoints;
pub mod events;
pub mod foreign;
mod legacy;
pub mod nodes;
pub mod plan;
pub mod probe;
pub mod tables;
