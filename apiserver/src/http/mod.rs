//! HTTP: from a request to a verb, and from what the verb answers to a response.

mod discovery;
mod health;
mod impersonate;
mod in_flight;
mod metrics;
mod openapi;
mod paths;
mod pipeline;
mod recorded;
mod server;
mod text;
pub mod tls;
pub mod version;

pub use health::{Health, Hook};
pub use in_flight::InFlight;
pub use metrics::{Metrics, Source};
pub use openapi::{Document, OpenApi};
pub use paths::Fixed;
pub use pipeline::{Connection, attributes, forbidden};
pub use server::{Limits, serve};
