//! By what an item of a list is known.

use corten_schema::{Text, Type};
use serde_json::Value;

use super::shape::{Items, Schema};
use crate::fields::Element;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ItemError {
    #[error("associative list with keys may not have a null element")]
    NullElement,
    #[error("associative list with keys may not have non-map elements")]
    NotAMap,
    #[error(
        "associative list with keys has an element that omits all key fields {0} (and doesn't have default values for any key fields)"
    )]
    NoKey(String),
    #[error("associative list without keys has an element that's a map type")]
    MapInSet,
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
    #[error("invalid indexing of non-associative list")]
    Atomic,
}

pub(crate) fn element(items: Items<'_>, item: &Value) -> Result<Element, ItemError> {
    match items {
        Items::Atomic(_) => Err(ItemError::Atomic),
        Items::Map(keys, schema) => keyed(keys, schema, item),
        Items::Set(_) => match item {
            Value::Object(_) => Err(ItemError::MapInSet),
            Value::Array(_) => Err(ItemError::ListInSet),
            Value::Null => Err(ItemError::NullInSet),
            scalar => Ok(Element::Value(scalar.clone())),
        },
    }
}

fn keyed(keys: &[Text], schema: Schema<'_>, item: &Value) -> Result<Element, ItemError> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err(ItemError::NullElement),
        _ => return Err(ItemError::NotAMap),
    };
    let mut fields: Vec<(String, Value)> = keys
        .iter()
        .filter_map(|key| {
            let value = map.get(key.as_ref()).cloned().or_else(|| default(schema, key))?;
            Some((key.to_string(), value))
        })
        .collect();
    if fields.is_empty() {
        let names: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(ItemError::NoKey(format!("[{}]", names.join(" "))));
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Element::Key(fields))
}

fn default(schema: Schema<'_>, key: &str) -> Option<Value> {
    let Schema::Typed(node, _) = schema else { return None };
    let Type::Object(object) = node.ty() else { return None };
    serde_json::from_str(object.field(key)?.default.as_deref()?).ok()
}
