//! Strategic merge patch: a merge patch whose lists are merged by the keys of the schema table, with directives
//! (`$patch`, `$deleteFromPrimitiveList/x`, `$setElementOrder/x`, `$retainKeys`).

mod error;
mod list;
mod order;
mod schema;
#[cfg(test)]
mod tests;

use corten_schema::Node;
use serde_json::{Map, Value};

use crate::go_format::{GoMap, go_type};
pub use error::StrategicError;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

/// Applies `patch` to `original`, an object of `node`'s type in the version that the patch is written in.
pub fn strategic(node: Node<'_>, original: Value, patch: Value) -> Result<Value, StrategicError> {
    let Value::Object(original) = original else {
        return Err(StrategicError::BadDocument);
    };
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => Map::new(),
        other => return Err(StrategicError::PatchNotAnObject(crate::json_patch::json_kind(&other))),
    };
    merge_map(node, original, patch).map(Value::Object)
}

fn merge_map(
    node: Node<'_>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, StrategicError> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(StrategicError::unknown_directive(&patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order::set_element_orders(node, &mut original, &mut patch)?;
    for (key, value) in patch {
        merge_field(node, &mut original, key, value)?;
    }
    Ok(original)
}

fn merge_field(
    node: Node<'_>,
    original: &mut Map<String, Value>,
    key: String,
    value: Value,
) -> Result<(), StrategicError> {
    let (key, is_deletion) = match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
        None => (key, false),
        Some(rest) => match rest.strip_prefix('/') {
            Some(name) => (name.to_owned(), true),
            None => return Err(StrategicError::PrimitiveListFormat),
        },
    };
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let merged = match (original.get_mut(&key), value) {
        (Some(Value::Object(original)), Value::Object(patch)) => {
            let child = schema::field(node, &key)?.0;
            Some(Value::Object(merge_map(child, std::mem::take(original), patch)?))
        }
        (Some(Value::Array(original)), Value::Array(patch)) => {
            let (item, how) = schema::list(node, &key)?;
            let original = std::mem::take(original);
            Some(Value::Array(if is_deletion {
                list::delete(item, how, original, patch)?
            } else if how.merge {
                list::merge(item, how, original, patch)?
            } else {
                patch
            }))
        }
        (_, _) if is_deletion => return Ok(()),
        // Of scalars nothing has to be taken out; what is new or of another type is taken as it is.
        (_, mut value) => {
            discard_nulls(&mut value);
            without_directives(value)
        }
    };
    match merged {
        Some(value) => original.insert(key, value),
        None => original.remove(&key),
    };
    Ok(())
}

/// Keeps only the named fields of the original: how a union changes its member.
fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), StrategicError> {
    let keys = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(keys)) => keys,
        Some(_) => return Err(StrategicError::RetainKeysFormat),
    };
    let keys: std::collections::HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let unlisted = patch.iter().any(|(key, value)| {
        !value.is_null()
            && !key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            && !key.starts_with(SET_ELEMENT_ORDER)
            && !keys.contains(key.as_str())
    });
    if unlisted {
        return Err(StrategicError::RetainKeysFormat);
    }
    original.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Without the objects that carry `$patch`; `None` when it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?))).collect(),
        )),
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}

impl StrategicError {
    fn unknown_directive(patch: &Map<String, Value>) -> Self {
        let directive = patch.get(DIRECTIVE).map(|value| crate::go_format::Go(value).to_string());
        Self::UnknownDirective { directive: directive.unwrap_or_default(), map: GoMap(patch).to_string() }
    }

    fn bad_type(expected: &'static str, found: &Value) -> Self {
        Self::BadType { expected, found: go_type(found) }
    }

    fn no_merge_key(map: &Map<String, Value>, key: &str) -> Self {
        Self::NoMergeKey { map: GoMap(map).to_string(), key: key.to_owned() }
    }
}
