//! What many kinds do alike: status and the rest are written by different paths.

use serde_json::Value;

use super::Preparing;
use crate::object::Object;

/// A new object has no status of its own making.
pub fn without_status(object: &mut Object, _: &Preparing<'_>) {
    object.0.remove("status");
}

/// The main path does not change the status.
pub fn keep_status(new: &mut Object, old: &Object, _: &Preparing<'_>) {
    keep(new, old, "status");
}

/// The status path changes nothing but the status.
pub fn only_status(subresource: &str, new: &mut Object, old: &Object, _: &Preparing<'_>) {
    if subresource == "status" {
        keep(new, old, "spec");
    }
}

/// A field is what it was.
pub fn keep(new: &mut Object, old: &Object, field: &str) {
    match old.0.get(field) {
        Some(value) => new.0.insert(field.to_owned(), value.clone()),
        None => new.0.remove(field),
    };
}

/// The same within metadata.
pub fn keep_meta(new: &mut Object, old: &Object, field: &str) {
    match old.meta().and_then(|meta| meta.get(field)) {
        Some(value) => new.set_meta(field, value.clone()),
        None => {
            new.meta_mut().remove(field);
        }
    }
}

/// A selectable field that is a text somewhere in the object.
#[expect(clippy::unnecessary_wraps, reason = "an arm of what every kind says of its fields")]
pub fn selected(object: &Object, path: &[&str]) -> Option<String> {
    Some(match object.get(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    })
}
