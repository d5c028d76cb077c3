//! Bytes of a manifest → one JSON document. Knows syntax only: not what a Pod is.
//!
//! YAML and JSON go through the same visitor, which refuses a key given twice (both parsers would silently take the
//! last one) and what JSON cannot say.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A manifest larger than this is refused unread: no valid Pod comes near it (etcd refuses objects above 1.5 MiB).
pub const MAX_BYTES: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum SyntaxError {
    #[error("not UTF-8 text: {0}")]
    Encoding(#[from] std::str::Utf8Error),
    #[error("no document in it")]
    Empty,
    #[error("{0} documents in it: one file describes one Pod, split it")]
    MultipleDocuments(usize),
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not YAML: {0}")]
    Yaml(#[from] serde_yaml_ng::Error),
}

/// Parses the one document of a manifest. A text that starts with `{` is JSON (YAML forbids what some JSON writers
/// indent with), everything else YAML; empty YAML documents around a leading or trailing `---` do not count.
pub fn document(bytes: &[u8]) -> Result<Value, SyntaxError> {
    let text = std::str::from_utf8(bytes)?;
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str::<Strict>(text)?.0);
    }
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        match Strict::deserialize(document)?.0 {
            Value::Null => {}
            value => documents.push(value),
        }
    }
    match documents.len() {
        0 => Err(SyntaxError::Empty),
        1 => Ok(documents.remove(0)),
        n => Err(SyntaxError::MultipleDocuments(n)),
    }
}

/// A JSON value whose objects have no key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom(format!("{v} is not a JSON number")))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} is given twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        document(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn yaml_and_json_of_the_same_pod_are_the_same_document() {
        let yaml = document(b"---\nkind: Pod\nspec:\n  n: 3\n  l: [a, 'b']\n---\n").expect("yaml");
        let json =
            document(b"{\n\t\"kind\": \"Pod\", \"spec\": {\"n\": 3, \"l\": [\"a\", \"b\"]}}").expect("json");
        assert_eq!(yaml, json);
    }

    #[test]
    fn several_documents_are_refused_by_name() {
        assert_eq!(
            error("kind: Pod\n---\nkind: Pod\n"),
            "2 documents in it: one file describes one Pod, split it"
        );
        assert_eq!(error("# nothing\n"), "no document in it");
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        assert!(error("a: 1\na: 2\n").contains("twice") || error("a: 1\na: 2\n").contains("duplicate"));
        assert!(error("{\"a\": 1, \"a\": 2}").contains("key \"a\" is given twice"));
    }

    #[test]
    fn half_a_file_is_a_syntax_error() {
        assert!(error("{\"kind\": \"Pod\"").starts_with("not JSON: "));
        assert!(error("kind: [Pod\n").starts_with("not YAML: "));
        assert!(document(b"\xff\xfe").expect_err("bytes").to_string().starts_with("not UTF-8"));
    }
}
