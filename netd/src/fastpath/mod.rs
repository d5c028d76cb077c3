//! The eBPF fast path: endpoints and nodes into maps, programs onto devices, and why it is on or off.

pub mod endpoints;
pub mod foreign;
pub mod nodes;
