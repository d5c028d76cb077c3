//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

use crate::json_patch::json_kind;

/// 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergePatchError {
    #[error(
        "error decoding patch: json: cannot unmarshal {0} into Go value of type map[string]interface {{}}"
    )]
    NotAnObject(&'static str),
    #[error("Invalid JSON Patch")]
    Null,
}

/// `patch`: the parsed body.
pub fn merge_patch(doc: Value, patch: Value) -> Result<Value, MergePatchError> {
    match patch {
        Value::Object(patch) => Ok(merge(doc, patch)),
        Value::Null => Err(MergePatchError::Null),
        other => Err(MergePatchError::NotAnObject(json_kind(&other))),
    }
}

fn merge(doc: Value, patch: Map<String, Value>) -> Value {
    let Value::Object(mut doc) = doc else { return without_nulls(Value::Object(patch)) };
    for (key, value) in patch {
        match (value, doc.get_mut(&key)) {
            (Value::Null, _) => drop(doc.remove(&key)),
            (Value::Object(value), Some(at @ Value::Object(_))) => *at = merge(at.take(), value),
            // Upstream's library takes a list that replaces an object as it is; in any other place it drops the nulls
            // of objects within it.
            (value, Some(at @ Value::Object(_))) => *at = value,
            (value, _) => drop(doc.insert(key, without_nulls(value))),
        }
    }
    Value::Object(doc)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(array) => Value::Array(array.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_of_rfc_7386() {
        for (doc, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!({}), json!({"a": [{"b": null}, null]}), json!({"a": [{}, null]})),
            (json!({"a": {}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]})),
        ] {
            assert_eq!(merge_patch(doc.clone(), patch.clone()), Ok(expected), "{doc} {patch}");
        }
    }

    #[test]
    fn a_patch_is_an_object() {
        assert_eq!(merge_patch(json!({}), json!(null)).unwrap_err().to_string(), "Invalid JSON Patch");
        assert_eq!(
            merge_patch(json!({}), json!([])).unwrap_err().to_string(),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }
}
