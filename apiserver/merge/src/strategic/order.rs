//! The order of a merged list: what the patch names stands in the patch's order (or that of `$setElementOrder`), what
//! only the server has in the server's, and the two are interleaved as the server had them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use corten_schema::Node;
use serde_json::{Map, Value};

use super::list::{Elements, Key, elements, key, keys, merge, present_keys, scalar_key};
use super::{DIRECTIVE, SET_ELEMENT_ORDER, StrategicError, schema, without_directives};
use crate::go_format::GoList;

/// Does the lists of the patch that have an order, and takes both out of the patch.
pub(super) fn set_element_orders(
    node: Node<'_>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), StrategicError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = list_of(patch.remove(&directive).unwrap_or_default())?;
        let name = directive[SET_ELEMENT_ORDER.len()..]
            .strip_prefix('/')
            .ok_or(StrategicError::SetElementOrderFormat)?;
        set_element_order(node, name, order, original, patch)?;
    }
    Ok(())
}

fn set_element_order(
    node: Node<'_>,
    name: &str,
    order: Vec<Value>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), StrategicError> {
    for list in [original.get(name), patch.get(name)].into_iter().flatten() {
        if !list.is_array() {
            return Err(StrategicError::bad_type("[]interface {}", list));
        }
    }
    let (item, how) = schema::list(node, name)?;
    let merge_key = how.key.as_deref();
    let ours = original.get(name).and_then(Value::as_array);
    let theirs = patch.get(name).and_then(Value::as_array);
    validate(theirs.map_or(&[], Vec::as_slice), &order, merge_key)?;
    if ours.is_none() && theirs.is_none() {
        return Ok(());
    }
    let kind = elements(ours.map_or(&[], Vec::as_slice), theirs.map_or(&[], Vec::as_slice));
    let server_order = server_order(
        ours.map_or(&[], Vec::as_slice),
        theirs.map_or(&[], Vec::as_slice),
        merge_key.filter(|_| how.merge && ours.is_some() && theirs.is_some()),
        merge_key,
    )?;
    let ours = original.remove(name).map(list_of).transpose()?;
    let theirs = patch.remove(name).map(list_of).transpose()?;
    let merged = match (ours, theirs) {
        (Some(ours), Some(theirs)) if how.merge => merge(item, how, ours, theirs)?,
        (Some(_), Some(theirs)) => theirs,
        (Some(ours), None) => ours,
        (None, theirs) => theirs.into_iter().flatten().filter_map(without_directives).collect(),
    };
    if kind? == Elements::Maps && merge_key.is_none() {
        return Err(StrategicError::ListWithoutMergeKey);
    }
    let merged = self::order(merged, &keys(&order, merge_key)?, &server_order, merge_key)?;
    original.insert(name.to_owned(), Value::Array(merged));
    Ok(())
}

/// Where the server's items stand. Items that a patch adds take the places of those it deletes: upstream merges into the
/// very array whose order it asks for afterwards.
fn server_order(
    ours: &[Value],
    theirs: &[Value],
    merged_by: Option<&str>,
    merge_key: Option<&str>,
) -> Result<HashMap<Key, usize>, StrategicError> {
    let Some(merge_key) = merge_key else { return keys(ours, None) };
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if merged_by.is_none() || theirs.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return Ok(present_keys(ours, merge_key));
    }
    let (special, plain): (Vec<&Value>, Vec<&Value>) =
        theirs.iter().partition(|item| directive(item).is_some());
    let key_of = |item: &Value| item.get(merge_key).map(scalar_key);
    let gone: HashSet<Key> = special.into_iter().filter_map(key_of).collect();
    let kept = ours.iter().filter_map(key_of).filter(|key| !gone.contains(key));
    let mut places = HashMap::new();
    let mut place = 0;
    for key in kept.chain(plain.into_iter().filter_map(key_of)) {
        if place == ours.len() {
            break;
        }
        if let Entry::Vacant(entry) = places.entry(key) {
            entry.insert(place);
            place += 1;
        }
    }
    Ok(places)
}

/// The items of the patch must be some of the order's, in its order.
fn validate(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), StrategicError> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let mut order_left = order.iter();
    for value in patch {
        if merge_key.is_some() && !value.is_object() {
            return Err(StrategicError::bad_type("map[string]interface {}", value));
        }
        if value.get(DIRECTIVE).is_some() {
            continue;
        }
        let wanted = key(value, merge_key)?;
        loop {
            let Some(next) = order_left.next() else {
                return Err(StrategicError::OrderMismatch {
                    patch: GoList(patch).to_string(),
                    order: GoList(order).to_string(),
                });
            };
            if key(next, merge_key)? == wanted {
                break;
            }
        }
    }
    Ok(())
}

/// Orders what was merged: `patch_order` and `server_order` say where each key stands in them.
pub(super) fn order(
    merged: Vec<Value>,
    patch_order: &HashMap<Key, usize>,
    server_order: &HashMap<Key, usize>,
    merge_key: Option<&str>,
) -> Result<Vec<Value>, StrategicError> {
    let mut named = Vec::new();
    let mut server_only = Vec::new();
    for value in merged {
        let key = key(&value, merge_key)?;
        let on_server = server_order.get(&key).copied();
        match patch_order.get(&key) {
            Some(place) => named.push((*place, on_server, value)),
            None => server_only.push((on_server, value)),
        }
    }
    named.sort_by_key(|(place, _, _)| *place);
    server_only.sort_by_key(|(place, _)| *place);
    Ok(interleave(server_only, named))
}

fn interleave(
    server_only: Vec<(Option<usize>, Value)>,
    named: Vec<(usize, Option<usize>, Value)>,
) -> Vec<Value> {
    let mut out = Vec::with_capacity(server_only.len() + named.len());
    let mut server_only = server_only.into_iter().peekable();
    for (_, place, value) in named {
        while let Some((_, earlier)) =
            server_only.next_if(|(at, _)| matches!((at, place), (Some(at), Some(place)) if *at < place))
        {
            out.push(earlier);
        }
        out.push(value);
    }
    out.extend(server_only.map(|(_, value)| value));
    out
}

fn list_of(value: Value) -> Result<Vec<Value>, StrategicError> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(StrategicError::bad_type("[]interface {}", &other)),
    }
}
