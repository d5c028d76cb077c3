//! How two values of one type differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::item::{ItemError, element};
use super::shape::{Fields, Items, Schema, Shape};
use crate::fields::{Element, Node, Set, equal_values};
use crate::managed::Ignored;

/// No field is in two of the sets.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed,
    Modified,
    Added,
}

/// What became of a value: of itself, and of what is below it.
#[derive(Debug, Default)]
struct Outcome {
    here: Option<Change>,
    below: Level,
}

#[derive(Debug, Default)]
struct Level {
    removed: Vec<Node>,
    modified: Vec<Node>,
    added: Vec<Node>,
}

/// Two objects.
pub(crate) fn compare(
    schema: Schema<'_>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Result<Comparison, ItemError> {
    let Shape::Map(fields) = schema.shape(None) else { return Ok(Comparison::default()) };
    Ok(fields_of(fields, old, new, SHORT_CUTS)?.close())
}

/// Most of what an update sends is as it was; whether it is is told much faster without types. So many levels only:
/// what differs deep below would else be looked at on each level above it.
const SHORT_CUTS: u8 = 3;

impl Comparison {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Leaves out what a write cannot change.
    pub fn filter(&mut self, ignored: &Ignored) {
        for set in [&mut self.removed, &mut self.modified, &mut self.added] {
            ignored.filter(set);
        }
    }
}

impl Level {
    fn close(self) -> Comparison {
        Comparison {
            removed: Set::of(self.removed),
            modified: Set::of(self.modified),
            added: Set::of(self.added),
        }
    }

    fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    fn push(&mut self, element: impl FnOnce() -> Element, outcome: Outcome) {
        if outcome.here.is_none() && outcome.below.is_empty() {
            return;
        }
        let element = element();
        let below = outcome.below.close();
        let push = |nodes: &mut Vec<Node>, change, below: Set| {
            let member = outcome.here == Some(change);
            if member || !below.is_empty() {
                nodes.push(Node { element: element.clone(), member, below });
            }
        };
        push(&mut self.removed, Change::Removed, below.removed);
        push(&mut self.modified, Change::Modified, below.modified);
        push(&mut self.added, Change::Added, below.added);
    }
}

fn fields_of(
    fields: Fields<'_>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    short_cuts: u8,
) -> Result<Level, ItemError> {
    let mut below = Level::default();
    for (name, old) in old {
        let new = new.get(name);
        if short_cuts > 0 && new == Some(old) {
            continue;
        }
        let outcome = walk(fields.get_or_deduced(name).0, Some(old), new, short_cuts.saturating_sub(1))?;
        below.push(|| Element::field(name), outcome);
    }
    for (name, new) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        let outcome = walk(fields.get_or_deduced(name).0, None, Some(new), 0)?;
        below.push(|| Element::field(name), outcome);
    }
    Ok(below)
}

fn walk(
    schema: Schema<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    short_cuts: u8,
) -> Result<Outcome, ItemError> {
    if schema.is_any()
        && let (Some(a), Some(b)) = (old, new)
        && std::mem::discriminant(&schema.shape(old)) != std::mem::discriminant(&schema.shape(new))
    {
        return change_of_shape(schema, a, b);
    }
    match schema.shape(new.or(old)) {
        Shape::Scalar(_) => Ok(leaf(old, new)),
        Shape::List(items) => {
            let (a, b) = (list(old), list(new));
            if items.is_atomic() || (a.is_empty() && b.is_empty()) {
                return Ok(leaf(old, new));
            }
            Ok(Outcome { here: presence(old, new), below: items_of(items, a, b)? })
        }
        Shape::Map(fields) => {
            let (a, b) = (map(old), map(new));
            let is_empty = a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty);
            if fields.is_atomic() || is_empty {
                return Ok(leaf(old, new));
            }
            let empty = Map::new();
            let below = fields_of(fields, a.unwrap_or(&empty), b.unwrap_or(&empty), short_cuts)?;
            Ok(Outcome { here: presence(old, new), below })
        }
    }
}

/// A scalar that became a map, or the like: the value is modified, and what a map had or has is removed or added.
fn change_of_shape(schema: Schema<'_>, old: &Value, new: &Value) -> Result<Outcome, ItemError> {
    let mut below = Level::default();
    if let Some(map) = old.as_object() {
        for (name, value) in map {
            let outcome = walk(Schema::Deduced, Some(value), None, 0)?;
            below.push(|| Element::field(name), outcome);
        }
    }
    if let Some(map) = new.as_object() {
        for (name, value) in map {
            let outcome = walk(Schema::Deduced, None, Some(value), 0)?;
            below.push(|| Element::field(name), outcome);
        }
    }
    let is_atomic =
        |value: &Value| matches!(schema.shape(Some(value)), Shape::Map(fields) if fields.is_atomic());
    if is_atomic(old) || is_atomic(new) {
        below = Level::default();
    }
    Ok(Outcome { here: Some(Change::Modified), below })
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Outcome {
    let here = match (old, new) {
        (Some(old), Some(new)) if equal_values(old, new) => None,
        (Some(_), Some(_)) => Some(Change::Modified),
        (old, new) => presence(old, new),
    };
    Outcome { here, below: Level::default() }
}

fn presence(old: Option<&Value>, new: Option<&Value>) -> Option<Change> {
    match (old, new) {
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Removed),
        _ => None,
    }
}

fn items_of(items: Items<'_>, old: &[Value], new: &[Value]) -> Result<Level, ItemError> {
    let mut below = Level::default();
    // Most lists of an update are as they were.
    if old == new {
        return Ok(below);
    }
    let mut by_element: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in old {
        by_element.entry(element(items, item)?).or_default().0.push(item);
    }
    for item in new {
        by_element.entry(element(items, item)?).or_default().1.push(item);
    }
    for (element, (old, new)) in by_element {
        let outcome = match (old.as_slice(), new.as_slice()) {
            ([] | [_], [] | [_]) => walk(items.item(), old.first().copied(), new.first().copied(), 0)?,
            // An item that is there twice is one value.
            ([_, _, ..], [_, _, ..]) => {
                Outcome { here: (old != new).then_some(Change::Modified), below: Level::default() }
            }
            (_, new) if new.len() < 2 => {
                let below = match new.first() {
                    Some(new) => walk(items.item(), None, Some(new), 0)?.below,
                    None => Level::default(),
                };
                Outcome { here: Some(Change::Removed), below }
            }
            (old, _) => {
                let below = match old.first() {
                    Some(old) => walk(items.item(), Some(old), None, 0)?.below,
                    None => Level::default(),
                };
                Outcome { here: Some(Change::Added), below }
            }
        };
        below.push(|| element, outcome);
    }
    Ok(below)
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}
