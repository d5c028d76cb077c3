//! Defaults that the table has: those that upstream declares beside its fields, and the zero values that Go writes for
//! fields without `omitempty`. Defaults that depend on other fields are code of the kinds.

use serde_json::{Map, Value};

use crate::model::{Node, Object, Type};

/// Fills in what is absent, all the way down.
pub fn apply(node: Node<'_>, value: &mut Value) {
    match (node.ty(), value) {
        (Type::Object(object), Value::Object(map)) => object_fields(node, object, map),
        (Type::Map(kind), Value::Object(map)) if has_fields(node.at(kind.value)) => {
            map.values_mut().for_each(|value| apply(node.at(kind.value), value));
        }
        (Type::List(list), Value::Array(items)) if has_fields(node.at(list.item)) => {
            items.iter_mut().for_each(|item| apply(node.at(list.item), item));
        }
        _ => {}
    }
}

fn has_fields(node: Node<'_>) -> bool {
    matches!(node.ty(), Type::Object(_) | Type::Map(_) | Type::List(_))
}

fn object_fields(node: Node<'_>, object: &Object, map: &mut Map<String, Value>) {
    for field in object.fields.iter() {
        let Some(default) = &field.default else { continue };
        let absent = match map.get(field.name.as_ref()) {
            None => true,
            Some(value) => value.is_null() && !field.nullable,
        };
        if absent {
            // The table is JSON by construction; a custom resource's was checked when it came.
            let value = serde_json::from_str(default).unwrap_or(Value::Null);
            map.insert(field.name.to_string(), value);
        }
    }
    for (name, value) in map.iter_mut() {
        if let Some(child) = node.child(name) {
            apply(child, value);
        }
    }
}
