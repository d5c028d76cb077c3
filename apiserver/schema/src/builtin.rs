//! The table of built-in kinds, as `build/` made it.

#![allow(clippy::unreadable_literal)]

use std::borrow::Cow;

use crate::model::{
    Column, Field, Format, Go, List, ListKind, Map, Node, Object, Patch, Resource, Rest, Subresource, Text,
    Type, TypeId, Types, Verb, Width, Wire,
};

/// Types and the resources that are of them.
#[derive(Debug)]
pub struct Table {
    pub types: Types,
    pub resources: &'static [Resource],
    /// In upstream's order of preference, the core group first.
    pub groups: &'static [Group],
    /// By group, version and kind.
    kinds: &'static [KindRow],
}

/// A group of the API.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// Empty for the core group.
    pub name: &'static str,
    /// The preferred one first.
    pub versions: &'static [&'static str],
}

type KindRow = (&'static str, &'static str, &'static str, TypeId);

const fn t(text: &'static str) -> Text {
    Cow::Borrowed(text)
}

include!(concat!(env!("OUT_DIR"), "/table.rs"));

static TABLE: Table = Table {
    types: Types { types: Cow::Borrowed(&TYPES) },
    resources: &RESOURCES,
    groups: &GROUPS,
    kinds: &KINDS,
};

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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_has_its_type_and_what_is_listed_has_columns() {
        let table = builtin();
        assert!(table.resources.len() > 60);
        for row in table.resources {
            let node = table.kind(&row.group, &row.version, &row.kind).expect("its kind is there");
            assert!(matches!(node.ty(), Type::Object(_)), "{}", row.plural);
            assert_eq!(node.id, row.ty);
            assert_eq!(row.verbs.contains(&Verb::List), !row.columns.is_empty(), "{}", row.plural);
            for sub in row.subresources.iter().filter(|sub| !sub.kind.ends_with("Options")) {
                assert!(
                    table.kind(&sub.group, &sub.version, &sub.kind).is_some(),
                    "{}/{}",
                    row.plural,
                    sub.name
                );
            }
        }
    }

    #[test]
    fn numbers_of_protobuf_are_there_once() {
        for ty in builtin().types.types.iter() {
            let Type::Object(object) = ty else { continue };
            let mut seen = HashSet::new();
            for field in object.fields.iter().filter(|field| field.wire.number > 0) {
                assert!(
                    seen.insert((&field.wire.within, field.wire.number)),
                    "{}.{}",
                    object.name,
                    field.name
                );
            }
            let missing: Vec<&str> = object
                .fields
                .iter()
                .filter(|field| field.wire.number == 0)
                .map(|field| field.name.as_ref())
                .filter(|name| !matches!(*name, "kind" | "apiVersion"))
                .collect();
            // A table is JSON only.
            assert!(
                missing.is_empty() || object.name.contains("meta.v1.Table"),
                "{}: {missing:?}",
                object.name
            );
        }
    }

    #[test]
    fn fields_are_in_order() {
        for ty in builtin().types.types.iter() {
            let Type::Object(object) = ty else { continue };
            assert!(object.fields.is_sorted_by(|a, b| a.name < b.name), "{}", object.name);
        }
    }
}
