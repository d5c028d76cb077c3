//! Whether what is applied is of its type. In what is stored, items of lists may be there twice; here they may not.

use std::collections::BTreeSet;
use std::fmt::{Display, Formatter};

use serde_json::{Map, Value};

use super::item::element;
use super::shape::{Fields, Scalar, Schema, Shape};
use crate::fields::Element;
use crate::go_format::{Go, go_type};

/// All that is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<InvalidField>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// `.spec.replicas`; empty for the object itself.
    pub path: String,
    pub message: String,
}

impl Display for InvalidField {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [one] => one.fmt(f),
            all => {
                f.write_str("errors:")?;
                all.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

impl std::error::Error for Invalid {}

pub(crate) fn validate(schema: Schema<'_>, object: &Map<String, Value>) -> Result<(), Invalid> {
    let mut walk = Walk { errors: Vec::new() };
    if let Shape::Map(fields) = schema.shape(None) {
        walk.fields(fields, object);
    }
    if walk.errors.is_empty() { Ok(()) } else { Err(Invalid(walk.errors)) }
}

struct Walk {
    errors: Vec<InvalidField>,
}

impl Walk {
    fn error(&mut self, message: String) {
        self.errors.push(InvalidField { path: String::new(), message });
    }

    /// Walks what is below `element`; errors get their paths on the way back, where there are any.
    fn below(&mut self, element: impl Fn() -> String, walk: impl FnOnce(&mut Self)) {
        let before = self.errors.len();
        walk(self);
        if self.errors.len() > before {
            let element = element();
            for error in &mut self.errors[before..] {
                error.path.insert_str(0, &element);
            }
        }
    }

    fn fields(&mut self, fields: Fields<'_>, map: &Map<String, Value>) {
        for (name, value) in map {
            self.below(
                || Element::field(name).to_string(),
                |walk| match fields.get(name) {
                    Some((schema, _)) => walk.value(schema, value),
                    None => walk.error("field not declared in schema".to_owned()),
                },
            );
        }
    }

    fn value(&mut self, schema: Schema<'_>, value: &Value) {
        match (schema.shape(Some(value)), value) {
            (_, Value::Null) => {}
            (Shape::Map(fields), Value::Object(map)) => self.fields(fields, map),
            (Shape::Map(_), other) => self.error(format!("expected map, got &{{{}}}", Go(other))),
            (Shape::List(items), Value::Array(list)) => {
                let mut seen = BTreeSet::new();
                for (index, item) in list.iter().enumerate() {
                    let element = if items.is_atomic() {
                        Element::Index(index as i64)
                    } else {
                        match element(items, item) {
                            Ok(element) => element,
                            Err(cause) => return self.error(format!("element {index}: {cause}")),
                        }
                    };
                    self.below(|| element.to_string(), |walk| walk.value(items.item(), item));
                    if !items.is_atomic() && !seen.insert(element.clone()) {
                        self.error(format!("duplicate entries for key {element}"));
                    }
                }
            }
            (Shape::List(_), other) => self.error(format!("expected list, got &{{{}}}", Go(other))),
            (Shape::Scalar(scalar), value) => self.scalar(scalar, value),
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        let fits = match scalar {
            Scalar::Numeric => value.is_number(),
            Scalar::String => value.is_string(),
            Scalar::Boolean => value.is_boolean(),
            Scalar::Untyped => !value.is_array() && !value.is_object(),
        };
        if fits {
            return;
        }
        self.error(match scalar {
            Scalar::Numeric => format!("expected numeric (int or float), got {}", go_type(value)),
            Scalar::String => format!("expected string, got &value.valueUnstructured{{Value:{}}}", Go(value)),
            Scalar::Boolean => format!("expected boolean, got &{{{}}}", Go(value)),
            Scalar::Untyped => format!("expected any scalar, got &{{{}}}", Go(value)),
        });
    }
}
