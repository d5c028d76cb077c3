//! The overlay in network namespaces joined by a switch.

mod healing;
mod refusal;
mod restart;
mod takeover;
mod traffic;
mod world;
