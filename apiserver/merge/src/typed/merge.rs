//! One value laid over another: what is applied over what is there. Nothing is removed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::item::{ItemError, element};
use super::shape::{Fields, Items, Schema, Shape};
use crate::fields::Element;

pub(crate) fn merge(
    schema: Schema<'_>,
    into: &mut Map<String, Value>,
    over: &Map<String, Value>,
) -> Result<(), ItemError> {
    match schema.shape(None) {
        Shape::Map(fields) => merge_fields(fields, into, over),
        Shape::List(_) | Shape::Scalar(_) => Ok(()),
    }
}

fn merge_fields(
    fields: Fields<'_>,
    into: &mut Map<String, Value>,
    over: &Map<String, Value>,
) -> Result<(), ItemError> {
    for (name, value) in over {
        match into.get_mut(name) {
            Some(into) => merge_value(fields.get_or_deduced(name).0, into, value)?,
            None => drop(into.insert(name.clone(), value.clone())),
        }
    }
    Ok(())
}

fn merge_value(schema: Schema<'_>, into: &mut Value, over: &Value) -> Result<(), ItemError> {
    match (schema.shape(Some(over)), &mut *into, over) {
        (Shape::Map(fields), Value::Object(into), Value::Object(over)) if !fields.is_atomic() => {
            merge_fields(fields, into, over)
        }
        (Shape::List(items), Value::Array(into), Value::Array(over)) if !items.is_atomic() => {
            // An empty list over one that is not says nothing of its items.
            if !over.is_empty() {
                *into = merge_lists(items, std::mem::take(into), over)?;
            }
            Ok(())
        }
        // Null over a map or a list that has something takes nothing away.
        (Shape::Map(fields), Value::Object(map), Value::Null) if !fields.is_atomic() && !map.is_empty() => {
            Ok(())
        }
        (Shape::List(items), Value::Array(list), Value::Null) if !items.is_atomic() && !list.is_empty() => {
            Ok(())
        }
        _ => {
            *into = over.clone();
            Ok(())
        }
    }
}

/// The order is that of `over` for what it has; the others keep their places between those that both have.
fn merge_lists(items: Items<'_>, into: Vec<Value>, over: &[Value]) -> Result<Vec<Value>, ItemError> {
    let mut left = Side::of(items, into.into_iter().map(Some))?;
    let right: Vec<Element> = over.iter().map(|item| element(items, item)).collect::<Result<_, _>>()?;
    let mut in_right: BTreeMap<&Element, bool> = right.iter().map(|element| (element, false)).collect();
    let shared: Vec<&Element> = right.iter().filter(|element| left.places.contains_key(*element)).collect();
    let mut shared = shared.into_iter().peekable();

    let mut out = Vec::with_capacity(left.elements.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.elements.len() || r < right.len() {
        if l < left.elements.len() && r < right.len() {
            if left.elements[l] == right[r] {
                out.push(left.merged(items, &right[r], &over[r])?);
                in_right.insert(&right[r], true);
                l += 1;
                r += 1;
                shared.next();
                continue;
            }
            let is_other_shared = shared.peek().is_some_and(|next| **next != left.elements[l]);
            if is_other_shared && in_right.contains_key(&left.elements[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.elements.len() {
            match in_right.get(&left.elements[l]) {
                None => {
                    out.push(left.items[l].take().unwrap_or_default());
                    l += 1;
                    continue;
                }
                Some(true) => l += 1,
                Some(false) => {}
            }
        }
        if r < right.len() {
            out.push(left.merged(items, &right[r], &over[r])?);
            in_right.insert(&right[r], true);
            if shared.peek().is_some_and(|next| **next == right[r]) {
                shared.next();
            }
            r += 1;
        }
    }
    Ok(out)
}

/// The items that are there, by their elements.
struct Side {
    items: Vec<Option<Value>>,
    elements: Vec<Element>,
    /// `None`: it is there twice, and is replaced as a whole.
    places: BTreeMap<Element, Option<usize>>,
}

impl Side {
    fn of(items: Items<'_>, list: impl Iterator<Item = Option<Value>>) -> Result<Self, ItemError> {
        let list: Vec<Option<Value>> = list.collect();
        let elements: Vec<Element> =
            list.iter().flatten().map(|item| element(items, item)).collect::<Result<_, _>>()?;
        let mut places = BTreeMap::new();
        for (place, element) in elements.iter().enumerate() {
            places.entry(element.clone()).and_modify(|place| *place = None).or_insert(Some(place));
        }
        Ok(Self { items: list, elements, places })
    }

    fn merged(&mut self, items: Items<'_>, element: &Element, over: &Value) -> Result<Value, ItemError> {
        let ours = self.places.get(element).copied().flatten().and_then(|place| self.items[place].take());
        let mut ours = ours.unwrap_or_else(|| Value::Object(Map::new()));
        merge_value(items.item(), &mut ours, over)?;
        Ok(ours)
    }
}
