//! FieldsV1: a set as a JSON object. `f:` a field, `k:` a key of a list's item, `v:` a value of a set, `i:` an index; `.`
//! the field itself, where others are below it.

use serde_json::{Map, Value};

use super::set::Node;
use super::{Element, Set};
use crate::go_format::go_type;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error("key must be 2 characters long: {0:?}")]
    TooShort(String),
    #[error("missing colon: {0}")]
    NoColon(String),
    #[error("{key}: {cause}")]
    Json { key: String, cause: String },
    #[error("a set of fields is an object, not a {0}")]
    NotAnObject(&'static str),
}

impl Set {
    pub fn from_fields_v1(value: &Value) -> Result<Self, FieldsError> {
        Ok(read(value)?.1)
    }

    pub fn to_fields_v1(&self) -> Value {
        Value::Object(write(self, false))
    }
}

fn read(value: &Value) -> Result<(bool, Set), FieldsError> {
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Ok((true, Set::default())),
        other => return Err(FieldsError::NotAnObject(go_type(other))),
    };
    let mut is_member = false;
    let mut nodes = Vec::with_capacity(map.len());
    for (key, value) in map {
        if key == "." {
            is_member = true;
            continue;
        }
        let Some(element) = parse(key)? else { continue };
        let (member, below) = read(value)?;
        nodes.push(Node { element, member, below });
    }
    is_member |= nodes.is_empty();
    Ok((is_member, unite_equal(nodes)))
}

/// Two spellings of one key are one element.
fn unite_equal(mut nodes: Vec<Node>) -> Set {
    if !nodes.is_sorted_by(|a, b| a.element < b.element) {
        nodes.sort_by(|a, b| a.element.cmp(&b.element));
        nodes.dedup_by(|next, kept| {
            let same = next.element == kept.element;
            if same {
                kept.member |= next.member;
                kept.below = std::mem::take(&mut kept.below).union(std::mem::take(&mut next.below));
            }
            same
        });
    }
    Set::of(nodes)
}

fn write(set: &Set, is_member: bool) -> Map<String, Value> {
    let mut map = Map::new();
    if is_member && !set.is_empty() {
        map.insert(".".to_owned(), Value::Object(Map::new()));
    }
    for node in set.nodes() {
        map.insert(print(&node.element), Value::Object(write(&node.below, node.member)));
    }
    map
}

/// `None`: of a kind that this version does not know; upstream drops it too.
fn parse(key: &str) -> Result<Option<Element>, FieldsError> {
    let bytes = key.as_bytes();
    if bytes.len() < 2 {
        return Err(FieldsError::TooShort(key.to_owned()));
    }
    if bytes[1] != b':' {
        return Err(FieldsError::NoColon(key.to_owned()));
    }
    let rest = &key[2..];
    let bad = |cause: String| FieldsError::Json { key: key.to_owned(), cause };
    Ok(Some(match bytes[0] {
        b'f' => Element::field(rest),
        b'v' => Element::Value(serde_json::from_str(rest).map_err(|e| bad(e.to_string()))?),
        b'k' => {
            let fields: Map<String, Value> = serde_json::from_str(rest).map_err(|e| bad(e.to_string()))?;
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Element::Key(fields)
        }
        b'i' => Element::Index(rest.parse().map_err(|e: std::num::ParseIntError| bad(e.to_string()))?),
        _ => return Ok(None),
    }))
}

fn print(element: &Element) -> String {
    match element {
        Element::Field(name) => format!("f:{name}"),
        Element::Value(value) => html_safe(format!("v:{value}")),
        Element::Index(index) => format!("i:{index}"),
        Element::Key(fields) => {
            let mut text = "k:{".to_owned();
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                text.push_str(&value.to_string());
            }
            text.push('}');
            html_safe(text)
        }
    }
}

/// Go's encoder escapes these in JSON, and the text of a key is compared by clients.
pub(crate) fn html_safe(text: String) -> String {
    if text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn encode_of_decode_is_identity() {
        for fields in [
            json!({}),
            json!({"f:spec": {"f:replicas": {}}}),
            json!({"f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}}, "f:finalizers": {".": {}, "v:\"x\"": {}}}}),
            json!({"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}, "k:{\"containerPort\":443,\"protocol\":\"TCP\"}": {}}}),
            json!({"f:a": {"i:0": {}, "i:-1": {"f:b": {}}, "v:1": {}, "v:true": {}, "v:1.5": {}}}),
            json!({"f:env": {"k:{\"name\":\"a\\u003cb\\\"\"}": {}}}),
        ] {
            assert_eq!(Set::from_fields_v1(&fields).unwrap().to_fields_v1(), fields);
        }
    }

    #[test]
    fn what_is_unknown_is_dropped_and_what_is_wrong_is_an_error() {
        let set = Set::from_fields_v1(&json!({"x:1": {}, "f:a": null})).unwrap();
        assert_eq!(set.to_fields_v1(), json!({"f:a": {}}));
        let spellings = json!({"f:l": {"k:{\"a\":1}": {"f:x": {}}, "k:{\"a\": 1}": {"f:y": {}}}});
        let one = json!({"f:l": {"k:{\"a\":1}": {"f:x": {}, "f:y": {}}}});
        assert_eq!(Set::from_fields_v1(&spellings).unwrap().to_fields_v1(), one);
        for bad in [
            json!([]),
            json!("x"),
            json!({"f": {}}),
            json!({"": {}}),
            json!({"fx": {}}),
            json!({"f:a": 1}),
            json!({"v:x": {}}),
            json!({"k:[]": {}}),
            json!({"i:x": {}}),
            json!({"é": {}}),
        ] {
            assert!(Set::from_fields_v1(&bad).is_err(), "{bad}");
        }
    }
}
