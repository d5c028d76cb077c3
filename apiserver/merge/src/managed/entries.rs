//! metadata.managedFields: read and written.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fields::{FieldsError, Set};

/// Who manages: one entry each. An applier is the same in all versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub manager: String,
    pub operation: Operation,
    /// Empty for [`Operation::Apply`].
    pub api_version: String,
    pub subresource: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub api_version: String,
    pub set: Set,
    /// RFC 3339.
    pub time: Option<String>,
    /// As it was read, while nothing of it has changed.
    pub written: Option<Value>,
}

impl Entry {
    pub fn new(api_version: &str, set: Set, time: Option<String>) -> Self {
        Self { api_version: api_version.to_owned(), set, time, written: None }
    }

    pub fn add(&mut self, set: Set) {
        self.set = std::mem::take(&mut self.set).union(set);
        self.written = None;
    }

    pub fn subtract(&mut self, set: &Set) {
        self.set.subtract(set);
        self.written = None;
    }
}

pub(super) type Entries = BTreeMap<Id, Entry>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntriesError {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldsError),
}

pub(super) fn of(object: &Map<String, Value>) -> Option<&Value> {
    object.get("metadata")?.get("managedFields").filter(|value| !value.is_null())
}

pub(super) fn take(object: &mut Map<String, Value>) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields").filter(|value| !value.is_null())
}

pub(super) fn put(object: &mut Map<String, Value>, managed: Option<Value>) {
    let Some(managed) = managed else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        metadata.insert("managedFields".to_owned(), managed);
    }
}

/// A client that empties the list, or leaves one empty entry in it, starts over.
pub(super) fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.is_empty(),
        _ => false,
    }
}

pub(super) fn decode(managed: Option<Value>) -> Result<Entries, EntriesError> {
    let Some(Value::Array(list)) = managed else { return Ok(Entries::new()) };
    list.into_iter().enumerate().map(|(index, entry)| decode_entry(index, entry)).collect()
}

fn decode_entry(index: usize, entry: Value) -> Result<(Id, Entry), EntriesError> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(EntriesError::Operation),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err(EntriesError::NoVersion);
    }
    match text("fieldsType").as_str() {
        "FieldsV1" => {}
        "" => return Err(EntriesError::NoFieldsType(index)),
        other => return Err(EntriesError::FieldsType(other.to_owned(), index)),
    }
    let id = Id {
        manager: text("manager"),
        operation,
        api_version: if operation == Operation::Apply { String::new() } else { api_version.clone() },
        subresource: text("subresource"),
    };
    let set = Set::from_fields_v1(entry.get("fieldsV1").unwrap_or(&Value::Null))?;
    let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
    Ok((id, Entry { api_version, set, time, written: Some(entry) }))
}

/// In upstream's order: appliers first, then by time. `None`: nobody manages anything.
pub(super) fn encode(entries: Entries) -> Option<Value> {
    if entries.is_empty() {
        return None;
    }
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by(|(a, a_entry), (b, b_entry)| {
        (a.operation, &a_entry.time, &a.manager, &a_entry.api_version, &a.subresource).cmp(&(
            b.operation,
            &b_entry.time,
            &b.manager,
            &b_entry.api_version,
            &b.subresource,
        ))
    });
    Some(Value::Array(entries.into_iter().map(encode_entry).collect()))
}

fn encode_entry((id, entry): (Id, Entry)) -> Value {
    if let Some(written) = entry.written {
        return written;
    }
    let operation = match id.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut map = Map::new();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            map.insert(key.to_owned(), Value::String(value));
        }
    };
    put("manager", id.manager);
    put("operation", operation.to_owned());
    put("apiVersion", entry.api_version);
    put("time", entry.time.unwrap_or_default());
    put("fieldsType", "FieldsV1".to_owned());
    put("subresource", id.subresource);
    map.insert("fieldsV1".to_owned(), entry.set.to_fields_v1());
    Value::Object(map)
}
