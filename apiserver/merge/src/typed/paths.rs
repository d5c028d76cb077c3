//! The set of a value's fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::item::element;
use super::shape::{Fields, Schema, Shape};
use crate::fields::{Element, Node, Set};

/// The leaves of an object, the items of its lists and the keys of its maps.
pub(crate) fn paths(schema: Schema<'_>, object: &Map<String, Value>) -> Set {
    match schema.shape(None) {
        Shape::Map(fields) => fields_of(fields, object),
        Shape::List(_) | Shape::Scalar(_) => Set::default(),
    }
}

fn fields_of(fields: Fields<'_>, map: &Map<String, Value>) -> Set {
    let nodes = map.iter().map(|(name, value)| {
        let (schema, is_declared) = fields.get_or_deduced(name);
        let (is_leaf, below) = walk(schema, value);
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        Node { element: Element::field(name), member: is_leaf || is_empty || !is_declared, below }
    });
    Set::of(nodes.collect())
}

/// Whether the value itself is a leaf, and what is below it.
fn walk(schema: Schema<'_>, value: &Value) -> (bool, Set) {
    match (schema.shape(Some(value)), value) {
        (Shape::Scalar(_), _) => (true, Set::default()),
        (Shape::List(items), _) if items.is_atomic() => (true, Set::default()),
        (Shape::Map(fields), _) if fields.is_atomic() => (true, Set::default()),
        (Shape::Map(fields), Value::Object(map)) => (false, fields_of(fields, map)),
        (Shape::List(items), Value::Array(list)) => {
            let mut below: BTreeMap<Element, Set> = BTreeMap::new();
            for item in list {
                let Ok(element) = element(items, item) else { continue };
                // Of items that are there twice nobody can own parts.
                match below.entry(element) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(walk(items.item(), item).1);
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        entry.insert(Set::default());
                    }
                }
            }
            let nodes = below.into_iter().map(|(element, below)| Node { element, member: true, below });
            (false, Set::of(nodes.collect()))
        }
        _ => (false, Set::default()),
    }
}

/// Makes members of all declared fields that lead to members: with the last field of an object goes the object.
pub(crate) fn mark_named(set: &mut Set, schema: Option<Schema<'_>>) {
    let shape = schema.map(|schema| schema.shape(None));
    for node in set.nodes_mut() {
        let below = match (&node.element, shape) {
            (Element::Field(name), Some(Shape::Map(fields))) => {
                let found = fields.get(name);
                node.member |= !node.below.is_empty() && found.is_some_and(|(_, is_declared)| is_declared);
                found.map(|(schema, _)| schema)
            }
            (Element::Key(_), Some(Shape::List(items))) => Some(items.item()),
            _ => None,
        };
        if !node.below.is_empty() {
            mark_named(&mut node.below, below);
        }
    }
}
