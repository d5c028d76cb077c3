//! Defaults that the table has: those that upstream declares beside its fields, and the zero values that Go writes for
//! fields without `omitempty`. Defaults that depend on other fields are code of the kinds.

use serde_json::{Map, Value};

use crate::model::{Node, Object, Type};

/// Fills in what is absent, all the way down. What Go writes as `null` stays absent: nobody who looks at a field has to
/// mind that.
pub fn apply(node: Node<'_>, value: &mut Value) {
    fill(node, value, false);
}

/// The last step before an object is stored: as [`apply`], with the `null` that Go writes for empty times and lists
/// (`eventTime` of an Event, `rules` of a Role).
pub fn finish(node: Node<'_>, value: &mut Value) {
    fill(node, value, true);
}

fn fill(node: Node<'_>, value: &mut Value, nulls: bool) {
    match (node.ty(), value) {
        (Type::Object(object), Value::Object(map)) => object_fields(node, object, map, nulls),
        (Type::Map(kind), Value::Object(map)) if has_fields(node.at(kind.value)) => {
            map.values_mut().for_each(|value| fill(node.at(kind.value), value, nulls));
        }
        (Type::List(list), Value::Array(items)) if has_fields(node.at(list.item)) => {
            items.iter_mut().for_each(|item| fill(node.at(list.item), item, nulls));
        }
        _ => {}
    }
}

fn has_fields(node: Node<'_>) -> bool {
    matches!(node.ty(), Type::Object(_) | Type::Map(_) | Type::List(_))
}

fn object_fields(node: Node<'_>, object: &Object, map: &mut Map<String, Value>, nulls: bool) {
    for field in object.fields.iter() {
        let Some(default) = &field.default else { continue };
        let absent = match map.get(field.name.as_ref()) {
            None => true,
            Some(value) => value.is_null() && !field.nullable,
        };
        if absent && (nulls || default != "null") {
            // The table is JSON by construction; a custom resource's was checked when it came.
            let value = serde_json::from_str(default).unwrap_or(Value::Null);
            map.insert(field.name.to_string(), value);
        }
    }
    for (name, value) in map.iter_mut() {
        if let Some(child) = node.child(name) {
            fill(child, value, nulls);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin;

    #[test]
    fn an_empty_event_is_what_upstream_writes() {
        let node = builtin().kind("", "v1", "Event").expect("a kind");
        let mut event = json!({});
        apply(node, &mut event);
        let applied = json!({"involvedObject": {}, "metadata": {}, "reportingComponent": "", "reportingInstance": "",
            "source": {}});
        assert_eq!(event, applied);
        finish(node, &mut event);
        let finished = json!({"eventTime": null, "firstTimestamp": null, "involvedObject": {}, "lastTimestamp": null,
            "metadata": {}, "reportingComponent": "", "reportingInstance": "", "source": {}});
        assert_eq!(event, finished);
    }

    #[test]
    fn declared_defaults_go_before_zero_values() {
        let node = builtin().kind("", "v1", "Pod").expect("a kind");
        let mut pod = json!({"spec": {"containers": [{"ports": [{"containerPort": 80}]}]}});
        apply(node, &mut pod);
        let containers =
            json!([{"name": "", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {}}]);
        assert_eq!(pod, json!({"metadata": {}, "spec": {"containers": containers}, "status": {}}));
    }
}
