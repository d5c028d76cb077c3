//! Sets written when a type was granular that has become atomic since.

use super::shape::{Fields, Schema, Shape};
use crate::fields::{Element, Set};

/// Who owned parts of what is one value now owns it. Whether there was such.
pub(crate) fn reconcile(set: &mut Set, schema: Schema<'_>) -> bool {
    below(set, schema.shape(None))
}

fn below(set: &mut Set, shape: Shape<'_>) -> bool {
    let mut changed = false;
    for node in set.nodes_mut() {
        let schema = match (&node.element, shape) {
            (Element::Field(name), Shape::Map(fields)) => fields.get(name).map(|(schema, _)| schema),
            (_, Shape::Map(_) | Shape::Scalar(_)) => None,
            (_, Shape::List(items)) => Some(items.item()),
        };
        if node.below.is_empty() {
            continue;
        }
        match schema.map(|schema| (schema.is_any(), schema.shape(None))) {
            None | Some((true, _) | (_, Shape::Scalar(_))) => {}
            Some((_, shape)) => {
                let is_atomic = match shape {
                    Shape::List(items) => items.is_atomic(),
                    Shape::Map(Fields::Map { value, .. }) if value.is_any() => false,
                    Shape::Map(fields) => fields.is_atomic(),
                    Shape::Scalar(_) => false,
                };
                if is_atomic {
                    node.member = true;
                    node.below = Set::default();
                    changed = true;
                } else {
                    changed |= below(&mut node.below, shape);
                }
            }
        }
    }
    changed
}
