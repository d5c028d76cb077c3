//! One object as JSON: what every kind has, and its form at rest.
//!
//! At rest: `{"kind":K,"apiVersion":V,"metadata":{...},...}` in this order, as upstream writes it, and without a
//! resourceVersion, which is the revision of the record. So an answer is the record's bytes with one insertion.

use bytes::{BufMut, Bytes, BytesMut};
use corten_store::{KeyValue, Revision};
use serde_json::{Map, Value};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object(pub Map<String, Value>);

const FIRST: [&str; 3] = ["kind", "apiVersion", "metadata"];

impl Object {
    /// `None`: it is no JSON object.
    pub fn of(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    /// A record with its revision as resourceVersion.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn at_rest(kv: &KeyValue) -> Result<Self, serde_json::Error> {
        let mut object = Self(serde_json::from_slice(&kv.value)?);
        object.set_revision(kv.mod_revision);
        Ok(object)
    }

    /// What is stored.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1024).writer();
        let mut write = |separator: &str, key: &str, value: &Value| {
            use std::io::Write;
            bytes.write_all(separator.as_bytes()).expect("memory takes bytes");
            serde_json::to_writer(&mut bytes, key).expect("text is JSON");
            bytes.write_all(b":").expect("memory takes bytes");
            serde_json::to_writer(&mut bytes, value).expect("a value is JSON");
        };
        let mut separator = "{";
        for key in FIRST {
            if let Some(value) = self.0.get(key) {
                if let (true, Some(map)) = (key == "metadata", value.as_object())
                    && map.contains_key("resourceVersion")
                {
                    let mut map = map.clone();
                    map.remove("resourceVersion");
                    write(separator, key, &Value::Object(map));
                } else {
                    write(separator, key, value);
                }
                separator = ",";
            }
        }
        for (key, value) in self.0.iter().filter(|(key, _)| !FIRST.contains(&key.as_str())) {
            write(separator, key, value);
            separator = ",";
        }
        let mut bytes = bytes.into_inner();
        bytes.put_slice(if separator == "{" { b"{}" } else { b"}" });
        bytes.freeze()
    }

    pub fn kind(&self) -> &str {
        self.0.get("kind").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn api_version(&self) -> &str {
        self.0.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
    }

    /// A field, by the names on its way.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, name| value.get(name))
    }

    pub fn text(&self, path: &[&str]) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn meta(&self) -> Option<&Map<String, Value>> {
        self.0.get("metadata").and_then(Value::as_object)
    }

    /// Made when it is not there (or is no object).
    pub fn meta_mut(&mut self) -> &mut Map<String, Value> {
        let value = self.0.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        value.as_object_mut().expect("an object, see above")
    }

    pub fn name(&self) -> &str {
        self.text(&["metadata", "name"])
    }

    pub fn generate_name(&self) -> &str {
        self.text(&["metadata", "generateName"])
    }

    pub fn namespace(&self) -> &str {
        self.text(&["metadata", "namespace"])
    }

    pub fn uid(&self) -> &str {
        self.text(&["metadata", "uid"])
    }

    pub fn resource_version(&self) -> &str {
        self.text(&["metadata", "resourceVersion"])
    }

    pub fn generation(&self) -> i64 {
        self.get(&["metadata", "generation"]).and_then(Value::as_i64).unwrap_or_default()
    }

    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.get(&["metadata", "deletionTimestamp"]).and_then(Value::as_str)
    }

    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        let list = self.get(&["metadata", "finalizers"]).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    pub fn labels(&self) -> Option<&Map<String, Value>> {
        self.get(&["metadata", "labels"]).and_then(Value::as_object)
    }

    pub fn annotations(&self) -> Option<&Map<String, Value>> {
        self.get(&["metadata", "annotations"]).and_then(Value::as_object)
    }

    pub fn owner_references(&self) -> impl Iterator<Item = &Value> {
        self.get(&["metadata", "ownerReferences"]).and_then(Value::as_array).into_iter().flatten()
    }

    pub fn set_meta(&mut self, key: &str, value: impl Into<Value>) {
        self.meta_mut().insert(key.to_owned(), value.into());
    }

    pub fn set_revision(&mut self, revision: Revision) {
        self.set_meta("resourceVersion", revision.to_string());
    }
}

/// A record's bytes as they are answered: with its resourceVersion.
pub fn answer(kv: &KeyValue) -> Bytes {
    let mut bytes = BytesMut::with_capacity(kv.value.len() + 48);
    write_answer(kv, &mut bytes);
    bytes.freeze()
}

/// [`answer`] behind what is there already.
pub fn write_answer(kv: &KeyValue, to: &mut BytesMut) {
    let Some(at) = metadata_at(&kv.value) else {
        // Written by somebody else, in another order.
        let object = Object::at_rest(kv).unwrap_or_default();
        to.put_slice(&serde_json::to_vec(&object.0).unwrap_or_default());
        return;
    };
    let (head, tail) = kv.value.split_at(at);
    to.put_slice(head);
    write_revision(tail, kv.mod_revision, to);
}

/// A resourceVersion and what follows the opening brace of metadata.
pub fn write_revision(tail: &[u8], revision: Revision, to: &mut BytesMut) {
    to.put_slice(b"\"resourceVersion\":\"");
    to.put_slice(revision.to_string().as_bytes());
    to.put_slice(if tail.first() == Some(&b'}') { b"\"" } else { b"\"," });
    to.put_slice(tail.trim_ascii_end());
}

/// The metadata of an object in JSON that begins as objects at rest do, braces included.
pub fn metadata_of(bytes: &[u8]) -> Option<&[u8]> {
    let start = metadata_at(bytes)? - 1;
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for (at, byte) in bytes[start..].iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' if !in_text => depth += 1,
            b'}' if !in_text => {
                depth -= 1;
                if depth == 0 {
                    return Some(&bytes[start..=start + at]);
                }
            }
            _ => {}
        }
    }
    None
}

/// Behind the brace of `{"kind":K,"apiVersion":V,"metadata":{`.
fn metadata_at(bytes: &[u8]) -> Option<usize> {
    let after = |at: usize, what: &[u8]| bytes.get(at..)?.starts_with(what).then_some(at + what.len());
    let text = |at: usize| {
        let length = bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        (bytes[at + length] == b'"').then_some(at + length + 1)
    };
    let at = text(after(0, b"{\"kind\":\"")?)?;
    let at = text(after(at, b",\"apiVersion\":\"")?)?;
    after(at, b",\"metadata\":{")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn kv(value: Bytes) -> Arc<KeyValue> {
        Arc::new(KeyValue {
            key: Bytes::from_static(b"/registry/pods/default/a"),
            value,
            create_revision: 5,
            mod_revision: 7,
            version: 1,
            lease: None,
        })
    }

    #[test]
    fn an_answer_is_the_record_with_its_revision() {
        let value = json!({"apiVersion": "v1", "data": {"a": "b"}, "kind": "ConfigMap",
            "metadata": {"name": "a", "resourceVersion": "3"}});
        let stored = Object::of(value).expect("an object").encode();
        let expected = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"a":"b"}}"#;
        assert_eq!(stored, expected);
        let expected = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"a"},"data":{"a":"b"}}"#;
        assert_eq!(answer(&kv(stored)), expected);
    }

    #[test]
    fn records_of_others_and_empty_metadata_are_answered_as_well() {
        for (stored, expected) in [
            (
                r#"{"kind":"A","apiVersion":"v1","metadata":{}}"#,
                r#"{"kind":"A","apiVersion":"v1","metadata":{"resourceVersion":"7"}}"#,
            ),
            (
                r#"{"metadata":{"name":"a"},"kind":"A"}"#,
                r#"{"kind":"A","metadata":{"name":"a","resourceVersion":"7"}}"#,
            ),
        ] {
            let answered = answer(&kv(Bytes::from_static(stored.as_bytes())));
            assert_eq!(answered, expected);
        }
    }
}
