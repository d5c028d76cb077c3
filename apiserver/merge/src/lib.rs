//! JSON patches, strategic merge patches and server-side apply, all over the schema table.
//!
//! Pure: documents in, documents out. Patches come parsed (who parses them also finds duplicate fields), may be as
//! hostile as their senders, and are bounded in what they cost.
#![forbid(unsafe_code)]

pub mod json_patch;
pub mod merge_patch;

pub use json_patch::JsonPatch;
pub use merge_patch::merge_patch;
