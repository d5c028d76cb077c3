//! Lists merged by key, and lists of primitives merged as sets.

use std::collections::{HashMap, HashSet};
use std::mem::discriminant;

use corten_schema::{Node, Patch};
use serde_json::Value;

use super::{DIRECTIVE, StrategicError, merge_map, order};
use crate::go_format::{GoList, go_type};

/// Of what elements are told apart by: they themselves (primitives), or the value of their merge key.
pub(super) type Key = String;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elements {
    Maps,
    Scalars,
}

pub(super) fn delete(
    item: Node<'_>,
    how: &Patch,
    original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, StrategicError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if elements(&original, &patch)? == Elements::Maps {
        return merge(item, how, original, patch);
    }
    let gone: HashSet<Key> = patch.iter().map(scalar_key).collect();
    Ok(original.into_iter().filter(|value| !gone.contains(&scalar_key(value))).collect())
}

pub(super) fn merge(
    item: Node<'_>,
    how: &Patch,
    original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, StrategicError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let merge_key = how.key.as_deref();
    if elements(&original, &patch)? == Elements::Scalars {
        let by_patch = keys(&patch, merge_key)?;
        let by_original = keys(&original, merge_key)?;
        let mut seen = HashSet::new();
        let merged =
            original.into_iter().chain(patch).filter(|value| seen.insert(scalar_key(value))).collect();
        return order::order(merged, &by_patch, &by_original, merge_key);
    }
    let merge_key = merge_key.ok_or(StrategicError::ListWithoutMergeKey)?;
    let (original, patch) = special_elements(original, patch, merge_key)?;
    let by_patch = keys(&patch, Some(merge_key))?;
    let by_original = present_keys(&original, merge_key);
    let merged = merge_maps(item, original, patch, merge_key)?;
    order::order(merged, &by_patch, &by_original, Some(merge_key))
}

/// Does what the elements with `$patch` say; returns the original and the patch without them.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), StrategicError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut gone = HashSet::new();
    let mut replace = false;
    for value in patch {
        let Some(map) = value.as_object() else { continue };
        match map.get(DIRECTIVE).map(Value::as_str) {
            None => plain.push(value),
            Some(Some("delete")) => {
                let key = map.get(merge_key).ok_or_else(|| StrategicError::no_merge_key(map, merge_key))?;
                gone.insert(scalar_key(key));
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => return Err(StrategicError::MergeDirectiveInList),
            Some(_) => return Err(StrategicError::unknown_directive(map)),
        }
    }
    if replace {
        return Ok((plain, Vec::new()));
    }
    if !gone.is_empty() {
        original.retain(|value| value.get(merge_key).is_none_or(|key| !gone.contains(&scalar_key(key))));
    }
    Ok((original, plain))
}

fn merge_maps(
    item: Node<'_>,
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<Vec<Value>, StrategicError> {
    let mut places = present_keys(&original, merge_key);
    for value in patch {
        let Value::Object(map) = value else { continue };
        let key = map.get(merge_key).ok_or_else(|| StrategicError::no_merge_key(&map, merge_key))?;
        let key = scalar_key(key);
        if let Some(&place) = places.get(&key) {
            let Value::Object(into) = original[place].take() else { continue };
            original[place] = Value::Object(merge_map(item, into, map)?);
        } else {
            places.insert(key, original.len());
            original.push(Value::Object(map));
        }
    }
    Ok(original)
}

/// What the elements of both lists are; they must be of one type.
pub(super) fn elements(original: &[Value], patch: &[Value]) -> Result<Elements, StrategicError> {
    let mut all = original.iter().chain(patch);
    let first = all.next().ok_or(StrategicError::NoElements)?;
    if first.is_array() {
        return Err(StrategicError::ListOfLists);
    }
    let same = |value: &Value| discriminant(value) == discriminant(first) && go_type(value) == go_type(first);
    if first.is_null() || !all.all(same) {
        return Err(StrategicError::MixedElements(format!("[{} {}]", GoList(original), GoList(patch))));
    }
    Ok(if first.is_object() { Elements::Maps } else { Elements::Scalars })
}

/// Where each key stands first.
pub(super) fn keys(list: &[Value], merge_key: Option<&str>) -> Result<HashMap<Key, usize>, StrategicError> {
    let mut places = HashMap::with_capacity(list.len());
    for (place, value) in list.iter().enumerate() {
        places.entry(key(value, merge_key)?).or_insert(place);
    }
    Ok(places)
}

pub(super) fn present_keys(list: &[Value], merge_key: &str) -> HashMap<Key, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (place, value) in list.iter().enumerate() {
        if let Some(key) = value.get(merge_key) {
            places.entry(scalar_key(key)).or_insert(place);
        }
    }
    places
}

pub(super) fn key(value: &Value, merge_key: Option<&str>) -> Result<Key, StrategicError> {
    let Some(merge_key) = merge_key else { return Ok(scalar_key(value)) };
    let map = value.as_object().ok_or_else(|| StrategicError::bad_type("map[string]interface {}", value))?;
    map.get(merge_key).map(scalar_key).ok_or_else(|| StrategicError::no_merge_key(map, merge_key))
}

/// 80, "80" and 80.0 are three keys.
pub(super) fn scalar_key(value: &Value) -> Key {
    value.to_string()
}
