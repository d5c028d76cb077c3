//! Services on this node: from Service and EndpointSlice objects to what a connection to a ClusterIP meets.
//!
//! [`object`] reads, [`endpoint`] chooses, [`model`] says what every frontend answers: all pure.

pub mod endpoint;
pub mod maps;
pub mod model;
pub mod nft;
pub mod object;
