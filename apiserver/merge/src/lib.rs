//! JSON patches, strategic merge patches and server-side apply, all over the schema table.
//!
//! Pure: documents in, documents out. Patches come parsed (who parses them also finds duplicate fields), may be as
//! hostile as their senders, and are bounded in what they cost.
#![forbid(unsafe_code)]

pub mod fields;
pub mod go_format;
pub mod json_patch;
pub mod managed;
pub mod merge_patch;
pub mod strategic;
#[cfg(test)]
mod testing;
mod typed;

pub use json_patch::{JsonPatch, json_kind};
pub use merge_patch::merge_patch;
pub use strategic::strategic;
pub use typed::{Invalid, InvalidField};

/// What an error is to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 400 BadRequest with the error's words.
    BadRequest,
    /// 413 RequestEntityTooLarge with the error's words.
    TooLarge,
    /// 422 Invalid; upstream does not pass the error's words on: "the server rejected our request due to an error in our
    /// request".
    Unprocessable,
    /// 500 without a reason, with the error's words.
    Internal,
}
