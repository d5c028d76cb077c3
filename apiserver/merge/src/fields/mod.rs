//! Sets of fields: who owns what of an object.
//!
//! A path leads from the object to a field, to an item of a list by its key, or to a value of a set. Source:
//! sigs.k8s.io/structured-merge-diff, KEP-555.

mod element;
mod json;
mod set;

pub use element::{Element, Path};
pub(crate) use element::{equal_maps, equal_values};
pub use json::FieldsError;
pub(crate) use json::html_safe;
pub(crate) use set::Node;
pub use set::Set;
