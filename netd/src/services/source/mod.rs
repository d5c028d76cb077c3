//! Where Services and EndpointSlices come from: files, or an apiserver.
//!
//! A source spawns a task that ends when nobody holds its receiver any more. Every [`Snapshot`] is whole.

pub mod file;
pub mod kube;

use std::sync::Arc;

use super::model::Model;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// `None` until the objects have been read once: then what an earlier run left in the kernel stays.
    pub model: Option<Arc<Model>>,
    /// Why this may be old: the source cannot be read, or what it says cannot be understood.
    pub fault: Option<String>,
}
