//! The table of built-in kinds, as `build/` made it.

#![allow(clippy::unreadable_literal)]

use std::borrow::Cow;

#[allow(unused_imports)] // columns come with their facts
use crate::model::{
    Column, Field, Format, Go, List, ListKind, Map, Node, Object, Patch, Resource, Rest, Subresource, Text,
    Type, TypeId, Types, Verb, Width, Wire,
};

/// Types and the resources that are of them.
#[derive(Debug)]
pub struct Table {
    pub types: Types,
    pub resources: &'static [Resource],
    /// By group, version and kind.
    kinds: &'static [KindRow],
}

type KindRow = (&'static str, &'static str, &'static str, TypeId);

const fn t(text: &'static str) -> Text {
    Cow::Borrowed(text)
}

include!(concat!(env!("OUT_DIR"), "/table.rs"));

static TABLE: Table =
    Table { types: Types { types: Cow::Borrowed(&TYPES) }, resources: &RESOURCES, kinds: &KINDS };

/// What every apiserver serves.
pub fn builtin() -> &'static Table {
    &TABLE
}

/// Kinds of meta.k8s.io that are of every group and version. Source: apimachinery `meta/v1/register.go`.
const OF_EVERY_GROUP: [&str; 7] = [
    "CreateOptions",
    "DeleteOptions",
    "GetOptions",
    "ListOptions",
    "PatchOptions",
    "UpdateOptions",
    "WatchEvent",
];

impl Table {
    /// The type of a kind, whether it is a resource or not (`DeleteOptions`, `Scale`, `PodList`).
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Node<'_>> {
        let (group, version) =
            if OF_EVERY_GROUP.contains(&kind) { ("meta.k8s.io", "v1") } else { (group, version) };
        let at =
            self.kinds.binary_search_by(|row| (row.0, row.1, row.2).cmp(&(group, version, kind))).ok()?;
        Some(Node { types: &self.types, id: self.kinds[at].3 })
    }

    /// The same, by `apps/v1` or `v1`.
    pub fn of_api_version(&self, api_version: &str, kind: &str) -> Option<Node<'_>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kind(group, version, kind)
    }

    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        self.resources.iter().find(|row| row.plural == plural && row.group == group && row.version == version)
    }
}
