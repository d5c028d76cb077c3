//! Sets hold nothing twice, maps no key twice. Source: apiextensions `pkg/apiserver/schema/listtype`.

use serde_json::{Map, Value};

use super::schema::Schema;
use crate::status::Cause;

pub fn validate(schema: &Schema, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, value, "", &mut causes);
    causes
}

fn walk(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Array(list) => {
            match schema.list_type.as_deref() {
                Some("set") => causes.extend(
                    twice(list.iter()).map(|at| Cause::duplicate(format!("{path}[{at}]"), &list[at])),
                ),
                Some("map") => map(schema, list, path, causes),
                _ => {}
            }
            for (at, item) in list.iter().enumerate() {
                if let Some(schema) = schema.item() {
                    walk(schema, item, &format!("{path}[{at}]"), causes);
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let (within, path) = match (schema.properties.get(key), schema.additional()) {
                    (Some(within), _) if path.is_empty() => (within, key.clone()),
                    (Some(within), _) => (within, format!("{path}.{key}")),
                    (None, Some(within)) => (within, format!("{path}[{key}]")),
                    (None, None) => continue,
                };
                walk(within, value, &path, causes);
            }
        }
        _ => {}
    }
}

fn map(schema: &Schema, list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    const WHAT: &str = "must be an object for an array of list-type map";
    if let Some(at) = list.iter().position(|item| !item.is_object() && !item.is_null()) {
        causes.push(Cause::invalid(format!("{path}[{at}]"), &list[at], WHAT));
        return;
    }
    let keys = |item: &Value| -> Value {
        let keys = schema.list_map_keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(keys.collect::<Map<_, _>>())
    };
    let keys: Vec<_> = list.iter().map(keys).collect();
    causes.extend(twice(keys.iter()).map(|at| Cause::duplicate(format!("{path}[{at}]"), &keys[at])));
}

/// Where the second one of each is.
fn twice<'a>(values: impl Iterator<Item = &'a Value>) -> impl Iterator<Item = usize> {
    let mut seen = std::collections::HashMap::new();
    let mut places = Vec::new();
    for (at, value) in values.enumerate() {
        // Keys of objects are sorted: the same value is the same text.
        let times = seen.entry(value.to_string()).or_insert(0);
        *times += 1;
        if *times == 2 {
            places.push(at);
        }
    }
    places.into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_and_a_map_hold_nothing_twice() {
        let schema = serde_json::from_value(json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}))
        .expect("a schema");
        let value = json!({"set": ["a", "b", "a", "a"], "map": [{"k": "1"}, {"k": "2"}, {"k": "1"}]});
        let mut told: Vec<_> = validate(&schema, &value).iter().map(ToString::to_string).collect();
        told.sort();
        assert_eq!(told, [r#"map[2]: Duplicate value: {"k":"1"}"#, r#"set[2]: Duplicate value: "a""#]);
    }
}
