//! The annotation of client-side apply: what it said is taken over by `kubectl apply --server-side`, which keeps it up
//! to date so that one can go back.

use serde_json::{Map, Value};

use super::{Conflict, Conflicts, Write};
use crate::fields::Set;
use crate::typed::{compare, paths, validate};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Of all annotations together.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// The conflicts that client-side apply does not explain; `None`: it explains all of them.
pub(super) fn not_allowed(
    write: &Write<'_>,
    live: &Map<String, Value>,
    conflicts: &Conflicts,
) -> Option<Conflicts> {
    let Some(allowed) = said(write, live) else { return Some(conflicts.clone()) };
    let left: Vec<Conflict> =
        conflicts.0.iter().filter(|conflict| !allowed.contains(&conflict.path.0)).cloned().collect();
    (!left.is_empty()).then_some(Conflicts(left))
}

/// What the annotation says and still is so.
fn said(write: &Write<'_>, live: &Map<String, Value>) -> Option<Set> {
    let text = annotations(live)?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())?;
    let said: Map<String, Value> = serde_json::from_str(text).ok()?;
    if said.get("apiVersion")?.as_str()? != write.api_version {
        return None;
    }
    validate(write.schema(), &said).ok()?;
    let comparison = compare(write.schema(), &said, live).ok()?;
    let mut set = paths(write.schema(), &said);
    set.subtract(&comparison.modified);
    set.subtract(&comparison.added);
    set.subtract(&comparison.removed);
    Some(set)
}

/// Where the annotation is, it now says what was applied.
pub(super) fn keep_up(object: &mut Map<String, Value>, config: &Map<String, Value>) {
    let is_there = annotations(object)
        .and_then(|annotations| annotations.get(ANNOTATION))
        .and_then(Value::as_str)
        .is_some_and(|text| !text.is_empty());
    if !is_there {
        return;
    }
    let mut said = config.clone();
    if let Some(annotations) = annotations_mut(&mut said) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = annotations_mut(object) else { return };
    annotations.insert(ANNOTATION.to_owned(), Value::String(go_json(&Value::Object(said)) + "\n"));
    let bytes: usize =
        annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > MAX_ANNOTATIONS_BYTES {
        annotations.remove(ANNOTATION);
    }
}

fn annotations(object: &Map<String, Value>) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("annotations")?.as_object()
}

fn annotations_mut(object: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}

/// As Go's encoder writes it: keys sorted, `<`, `>` and `&` escaped.
fn go_json(value: &Value) -> String {
    crate::fields::html_safe(sorted(value).to_string())
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        scalar => scalar.clone(),
    }
}
