//! Services by nf_tables, with real traffic: a client outside, a node, its pods, and pods of another node.

mod apiserver;
#[path = "../common/mod.rs"]
mod common;
mod reconciler;
mod table;
mod traffic;
mod world;
