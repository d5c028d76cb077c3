//! HTTP: from a request to a verb, and from what the verb answers to a response.

mod pipeline;
mod server;
pub mod tls;

pub use pipeline::{Connection, forbidden};
pub use server::{Limits, serve};
