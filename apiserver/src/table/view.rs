//! An object as its cells look at it: what is absent reads as Go's zero value.

use corten_schema::time;
use serde_json::{Map, Value};

use super::duration;

pub struct View<'a> {
    object: &'a Map<String, Value>,
    /// Seconds since 1970.
    pub now: i64,
}

impl<'a> View<'a> {
    pub fn new(object: &'a Map<String, Value>, now: i64) -> Self {
        Self { object, now }
    }

    /// The value at `spec.template.spec`; `None`: it is absent or null.
    pub fn get(&self, path: &str) -> Option<&'a Value> {
        let mut names = path.split('.');
        let first = self.object.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name)).filter(|value| !value.is_null())
    }

    pub fn text(&self, path: &str) -> &'a str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn or(&self, path: &str, otherwise: &'a str) -> &'a str {
        match self.text(path) {
            "" => otherwise,
            text => text,
        }
    }

    pub fn int(&self, path: &str) -> i64 {
        self.get(path).and_then(Value::as_i64).unwrap_or_default()
    }

    pub fn flag(&self, path: &str) -> bool {
        self.get(path).and_then(Value::as_bool).unwrap_or_default()
    }

    pub fn list(&self, path: &str) -> &'a [Value] {
        self.get(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn map(&self, path: &str) -> Option<&'a Map<String, Value>> {
        self.get(path).and_then(Value::as_object)
    }

    pub fn count(&self, path: &str) -> i64 {
        match self.get(path) {
            Some(Value::Array(list)) => list.len() as i64,
            Some(Value::Object(map)) => map.len() as i64,
            _ => 0,
        }
    }

    pub fn name(&self) -> Value {
        self.text("metadata.name").into()
    }

    pub fn annotation(&self, name: &str) -> Option<&'a str> {
        self.map("metadata.annotations")?.get(name)?.as_str()
    }

    pub fn deleted(&self) -> bool {
        self.get("metadata.deletionTimestamp").is_some()
    }

    /// How long ago the object was made.
    pub fn age(&self) -> Value {
        self.since(self.text("metadata.creationTimestamp")).into()
    }

    /// How long ago that time was.
    pub fn since(&self, time: &str) -> String {
        match time::seconds(time) {
            Some(seconds) => duration::human(self.now - seconds),
            None => "<unknown>".to_owned(),
        }
    }
}

/// A value as text: strings without quotes.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A field of an item, as text.
pub fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
