//! Server-side apply, and who manages which fields (metadata.managedFields) through every other write.
//!
//! Source: KEP-555; apimachinery's util/managedfields; structured-merge-diff's merge.

mod ancient;
mod apply;
mod conflict;
mod entries;
mod ignored;
mod last_applied;
mod prune;
mod scale;
#[cfg(test)]
mod tests;
mod times;
mod update;

use corten_schema::Node;
use serde_json::{Map, Value};

pub use apply::{Applied, ApplyError};
pub use conflict::{Conflict, Conflicts};
pub use entries::{EntriesError, Id, Operation};
pub use ignored::Ignored;
pub use scale::{replicas_from_scale, replicas_to_scale};
pub use times::keep_times;

use crate::fields::{Element, Set};
use crate::typed::{Free, Schema, zero};

/// One write of an object, by one manager.
pub struct Write<'a> {
    /// The object's type in `api_version`.
    pub node: Node<'a>,
    /// That the request is made in: `apps/v1`.
    pub api_version: &'a str,
    pub kind: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The request's `fieldManager`, or what the user agent begins with; empty: `unknown`.
    pub manager: &'a str,
    /// RFC 3339, seconds, UTC.
    pub now: &'a str,
    /// It is of a custom resource.
    pub is_custom: bool,
    /// What a write through this path cannot change, hence not own.
    pub ignored: &'a Ignored,
    pub versions: &'a dyn Versions,
}

/// The other versions that a kind is served in.
pub trait Versions {
    /// `None`: it is not served in this version (any more).
    fn node(&self, api_version: &str) -> Option<Node<'_>>;
    /// The object, which says its own version, in another.
    fn convert(&self, object: &Map<String, Value>, api_version: &str) -> Option<Map<String, Value>>;
}

/// No other versions.
impl Versions for () {
    fn node(&self, _: &str) -> Option<Node<'_>> {
        None
    }

    fn convert(&self, _: &Map<String, Value>, _: &str) -> Option<Map<String, Value>> {
        None
    }
}

impl Write<'_> {
    fn free(&self) -> Free {
        // A definition has schemas in it (`JSON`), the other kinds `RawExtension`s.
        let by_fields = self.is_custom || self.api_version.starts_with("apiextensions.k8s.io/");
        if by_fields { Free::ByFields } else { Free::AsOneValue }
    }

    fn schema(&self) -> Schema<'_> {
        Schema::Typed(self.node, self.free())
    }

    fn schema_in(&self, api_version: &str) -> Option<Schema<'_>> {
        if api_version == self.api_version {
            return Some(self.schema());
        }
        self.versions.node(api_version).map(|node| Schema::Typed(node, self.free()))
    }

    /// An object in which nobody has said anything yet.
    fn nothing(&self) -> Map<String, Value> {
        if self.is_custom {
            let type_meta = [("apiVersion", self.api_version), ("kind", self.kind)];
            return type_meta.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect();
        }
        zero(self.node)
    }

    fn id(&self, manager: &str, operation: Operation) -> Id {
        Id {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation,
            api_version: if operation == Operation::Apply { "" } else { self.api_version }.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }
}

/// What nobody owns: who the object is, and what the server alone writes.
fn never_owned() -> &'static Set {
    static SET: std::sync::LazyLock<Set> = std::sync::LazyLock::new(|| {
        let mut set = Set::default();
        for field in ["apiVersion", "kind", "metadata"] {
            set.insert(&[Element::field(field)]);
        }
        for field in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ] {
            set.insert(&[Element::field("metadata"), Element::field(field)]);
        }
        set
    });
    &SET
}
