//! A value without some of its fields.

use serde_json::{Map, Value};

use super::item::element;
use super::shape::{Fields, Schema, Shape};
use crate::fields::Set;

/// Takes the members of `gone` out of an object.
pub(crate) fn remove_fields(fields: Fields<'_>, map: &mut Map<String, Value>, gone: &Set) {
    map.retain(|name, value| {
        let Some(node) = gone.field(name) else { return true };
        if !node.member {
            remove(fields.get_or_deduced(name).0, value, &node.below);
        }
        !node.member
    });
}

/// Takes the members of `gone` out of `value`. Maps and lists that lose all they have become null: they are not gone, who
/// owns them does so still.
fn remove(schema: Schema<'_>, value: &mut Value, gone: &Set) {
    match (schema.shape(Some(value)), &mut *value) {
        (Shape::Map(fields), Value::Object(map)) => {
            if fields.is_atomic() || map.is_empty() {
                *value = Value::Null;
                return;
            }
            remove_fields(fields, map, gone);
            if map.is_empty() {
                *value = Value::Null;
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            if items.is_atomic() || list.is_empty() {
                *value = Value::Null;
                return;
            }
            list.retain_mut(|item| {
                let Some(node) = element(items, item).ok().and_then(|element| gone.node(&element)) else {
                    return true;
                };
                if !node.member && !node.below.is_empty() {
                    remove(items.item(), item, &node.below);
                }
                !node.member
            });
            if list.is_empty() {
                *value = Value::Null;
            }
        }
        _ => {}
    }
}
