//! What an object upstream is before anything was said of it.

use corten_schema::{Node, Type};
use serde_json::{Map, Value};

/// Upstream compares a new object with an empty one of its Go type, in which structs that are no pointers are there
/// already (their default in OpenAPI is `{}`), as are scalars that are never left out; required lists and pointers are null. So the creator of a Deployment
/// owns `.spec.replicas`, but not `.spec`.
pub(crate) fn zero(node: Node<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    let Type::Object(object) = node.ty() else { return map };
    for field in object.fields.iter() {
        let child = node.at(field.ty);
        match (child.ty(), field.default.as_deref()) {
            (Type::Object(_), Some("{}")) => {
                drop(map.insert(field.name.to_string(), Value::Object(zero(child))));
            }
            (_, Some(zero @ ("\"\"" | "0" | "false"))) => {
                map.insert(field.name.to_string(), serde_json::from_str(zero).expect("a zero is JSON"));
            }
            (Type::Object(_) | Type::List(_) | Type::Map(_), _) if field.required => {
                map.insert(field.name.to_string(), Value::Null);
            }
            _ => {}
        }
    }
    map
}
