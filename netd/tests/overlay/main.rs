//! The overlay in network namespaces joined by a switch.

mod traffic;
mod world;
