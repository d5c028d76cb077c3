//! One request: what it asks for and by whom, before any verb runs.

mod info;

pub use info::Info;
