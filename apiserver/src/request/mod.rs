//! One request: what it asks for and by whom, before any verb runs; and what an answer is.

mod accept;
mod answer;
mod body;
mod call;
mod info;
mod list;
mod options;
mod query;
pub mod shape;
mod write_options;

pub use accept::{Accept, Format, Offers, Shape, not_acceptable, not_acceptable_stream};
pub use answer::{Answer, bytes_response, json_response, value_response, whole};
pub use body::{Content, unsupported_media_type};
pub use call::Call;
pub use info::Info;
pub use list::{ListAnswer, ListMeta};
pub use options::{ListOptions, Match, Version};
pub use query::{Query, decode};
pub use write_options::{Validation, WriteOptions};
