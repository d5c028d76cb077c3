//! Validation as upstream does it: the same fields, reasons and words, since clients and people match on them.
//!
//! [`At`] is a place in an object: a value and its path. A [`Rule`] says what must hold for one field of a place; the
//! rules of a type read as its specification. What no rule says is a function over places.
//! Sources: apimachinery `pkg/util/validation`, kubernetes `pkg/apis/*/validation`.

pub mod container;
pub mod ip;
pub mod labels;
pub mod names;
pub mod pod;
pub mod probe;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod volume;

use std::fmt;
use std::rc::Rc;

use serde_json::{Map, Value};

use crate::object::Object;
use crate::status::Cause;

pub type Causes = Vec<Cause>;

/// A value within an object, and its path. What is not there is null.
#[derive(Clone)]
pub struct At<'v> {
    node: Node<'v>,
    path: Path,
}

#[derive(Clone, Copy)]
enum Node<'v> {
    Value(&'v Value),
    Map(&'v Map<String, Value>),
}

/// `spec.containers[0].name`.
#[derive(Clone, Default)]
pub struct Path(Option<Rc<(Path, Step)>>);

enum Step {
    Field(&'static str),
    Index(usize),
    Key(String),
    /// A key that is shown as a field.
    Name(String),
}

/// A field and what must hold for it.
pub struct Rule(pub &'static str, pub Check);

pub enum Check {
    /// There, and not empty.
    Required,
    /// There, and one of these.
    OneOf(&'static [&'static str]),
    /// If it is there: one of these.
    OneOfIfSet(&'static [&'static str]),
    NonNegative,
    /// If it is not empty: a text of which this finds nothing to say.
    Text(fn(&str) -> Vec<String>),
    /// The same, and there must be one.
    RequiredText(fn(&str) -> Vec<String>),
    /// If it is there.
    In(&'static [Rule]),
    Each(&'static [Rule]),
    By(fn(&At<'_>, &mut Causes)),
    EachBy(fn(&At<'_>, &mut Causes)),
}

pub const IMMUTABLE: &str = "field is immutable";

impl<'v> At<'v> {
    pub fn root(object: &'v Object) -> Self {
        Self { node: Node::Map(&object.0), path: Path::default() }
    }

    /// A value by itself, as if it stood at `path`.
    pub fn value_at(value: &'v Value, path: Path) -> Self {
        Self { node: Node::Value(value), path }
    }

    /// The same value under another path: some of upstream's paths are not where the value is.
    #[must_use]
    pub fn shown_at(&self, path: Path) -> Self {
        Self { node: self.node, path }
    }

    pub fn path(&self) -> Path {
        self.path.clone()
    }

    #[must_use]
    pub fn field(&self, name: &'static str) -> Self {
        let value = self.map().and_then(|map| map.get(name)).unwrap_or(&Value::Null);
        Self { node: Node::Value(value), path: self.path.field(name) }
    }

    /// Several fields deep.
    #[must_use]
    pub fn down(&self, names: &[&'static str]) -> Self {
        names.iter().fold(self.clone(), |at, name| at.field(name))
    }

    /// The entry of a map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let value = self.map().and_then(|map| map.get(key)).unwrap_or(&Value::Null);
        Self { node: Node::Value(value), path: self.path.key(key) }
    }

    pub fn items(&self) -> impl Iterator<Item = Self> {
        let path = self.path.clone();
        let items = self.value().as_array().into_iter().flatten();
        items.enumerate().map(move |(at, value)| Self { node: Node::Value(value), path: path.index(at) })
    }

    /// A map's, each at its key.
    pub fn entries(&self) -> impl Iterator<Item = (&'v str, Self)> {
        let path = self.path.clone();
        let entries = self.map().into_iter().flatten();
        entries.map(move |(key, value)| (&**key, Self { node: Node::Value(value), path: path.key(key) }))
    }

    pub fn map(&self) -> Option<&'v Map<String, Value>> {
        match self.node {
            Node::Value(value) => value.as_object(),
            Node::Map(map) => Some(map),
        }
    }

    /// Null for the whole object.
    pub fn value(&self) -> &'v Value {
        match self.node {
            Node::Value(value) => value,
            Node::Map(_) => &Value::Null,
        }
    }

    pub fn is_set(&self) -> bool {
        matches!(self.node, Node::Map(_)) || !self.value().is_null()
    }

    pub fn has(&self, field: &str) -> bool {
        self.map().and_then(|map| map.get(field)).is_some_and(|value| !value.is_null())
    }

    /// Not there, or `""`, 0, false, `[]`, `{}`.
    pub fn is_empty(&self) -> bool {
        is_empty(self.value())
    }

    pub fn text(&self) -> &'v str {
        self.value().as_str().unwrap_or_default()
    }

    pub fn int(&self) -> i64 {
        self.value().as_i64().unwrap_or_default()
    }

    pub fn flag(&self) -> bool {
        self.value().as_bool().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        match self.value() {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            _ => 0,
        }
    }

    pub fn texts(&self) -> impl Iterator<Item = &'v str> {
        self.value().as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    pub fn required(&self, detail: &str, out: &mut Causes) {
        out.push(Cause::required(self.path.to_string(), detail));
    }

    pub fn invalid(&self, detail: impl fmt::Display, out: &mut Causes) {
        self.invalid_value(&shown(self.value()), detail, out);
    }

    /// Shows another value than its own.
    pub fn invalid_value(&self, value: &Value, detail: impl fmt::Display, out: &mut Causes) {
        let detail = detail.to_string();
        let mut cause = Cause::invalid(self.path.to_string(), value, &detail);
        if detail.is_empty() {
            cause.message.truncate(cause.message.len() - 2);
        }
        out.push(cause);
    }

    /// Shows a whole structure, as upstream's own type is shown: its fields in order, by their Go names.
    pub fn invalid_shape(&self, shape: &[(&str, &Value)], detail: impl fmt::Display, out: &mut Causes) {
        let message = format!("Invalid value: {}: {detail}", go(shape));
        out.push(Cause { reason: "FieldValueInvalid", message, field: self.path.to_string() });
    }

    pub fn unsupported_shape(&self, shape: &[(&str, &Value)], supported: &[&str], out: &mut Causes) {
        let mut cause = Cause::unsupported(self.path.to_string(), &Value::Null, supported);
        cause.message = cause.message.replacen("null", &go(shape), 1);
        out.push(cause);
    }

    pub fn duplicate_shape(&self, shape: &[(&str, &Value)], out: &mut Causes) {
        let message = format!("Duplicate value: {}", go(shape));
        out.push(Cause { reason: "FieldValueDuplicate", message, field: self.path.to_string() });
    }

    pub fn unsupported(&self, supported: &[&str], out: &mut Causes) {
        out.push(Cause::unsupported(self.path.to_string(), &text_or(self.value()), supported));
    }

    pub fn forbidden(&self, detail: impl fmt::Display, out: &mut Causes) {
        out.push(Cause::forbidden(self.path.to_string(), detail));
    }

    pub fn duplicate(&self, out: &mut Causes) {
        out.push(Cause::duplicate(self.path.to_string(), &text_or(self.value())));
    }

    pub fn duplicate_value(&self, value: &Value, out: &mut Causes) {
        out.push(Cause::duplicate(self.path.to_string(), value));
    }

    pub fn not_found(&self, out: &mut Causes) {
        out.push(Cause::not_found(self.path.to_string(), &text_or(self.value())));
    }

    pub fn too_long(&self, limit: usize, out: &mut Causes) {
        out.push(Cause::too_long(self.path.to_string(), limit));
    }

    pub fn too_many(&self, limit: usize, out: &mut Causes) {
        out.push(Cause::too_many(self.path.to_string(), self.len(), limit));
    }

    /// One `Invalid` for each thing there is to say of its text.
    pub fn names(&self, of: fn(&str) -> Vec<String>, out: &mut Causes) {
        for detail in of(self.text()) {
            self.invalid_value(&self.text().into(), detail, out);
        }
    }

    pub fn one_of(&self, supported: &[&str], out: &mut Causes) {
        if self.is_empty() {
            self.required("", out);
        } else if !supported.contains(&self.text()) {
            self.unsupported(supported, out);
        }
    }

    pub fn one_of_if_set(&self, supported: &[&str], out: &mut Causes) {
        if self.is_set() && !supported.contains(&self.text()) {
            self.unsupported(supported, out);
        }
    }

    pub fn non_negative(&self, out: &mut Causes) {
        if self.int() < 0 {
            self.invalid("must be greater than or equal to 0", out);
        }
    }

    pub fn range(&self, low: i64, high: i64, out: &mut Causes) {
        if !(low..=high).contains(&self.int()) {
            let value = if self.is_set() { self.value().clone() } else { 0.into() };
            self.invalid_value(&value, format_args!("must be between {low} and {high}, inclusive"), out);
        }
    }

    pub fn port(&self, out: &mut Causes) {
        self.range(1, 65535, out);
    }

    /// A number or the name of a port.
    pub fn port_or_name(&self, out: &mut Causes) {
        match self.value() {
            Value::String(_) => self.names(names::port_name, out),
            _ => self.port(out),
        }
    }

    /// It is what it was.
    pub fn immutable(&self, old: &At<'_>, out: &mut Causes) {
        if !same(self.value(), old.value()) {
            self.invalid(IMMUTABLE, out);
        }
    }

    pub fn check(&self, rules: &[Rule], out: &mut Causes) {
        for Rule(field, check) in rules {
            let at = self.field(field);
            match check {
                Check::Required => {
                    if at.is_empty() {
                        at.required("", out);
                    }
                }
                Check::OneOf(supported) => at.one_of(supported, out),
                Check::OneOfIfSet(supported) => at.one_of_if_set(supported, out),
                Check::NonNegative => at.non_negative(out),
                Check::Text(of) => {
                    if !at.text().is_empty() {
                        at.names(*of, out);
                    }
                }
                Check::RequiredText(of) => {
                    if at.text().is_empty() {
                        at.required("", out);
                    } else {
                        at.names(*of, out);
                    }
                }
                Check::In(rules) => {
                    if at.is_set() {
                        at.check(rules, out);
                    }
                }
                Check::Each(rules) => at.items().for_each(|item| item.check(rules, out)),
                Check::By(function) => function(&at, out),
                Check::EachBy(function) => at.items().for_each(|item| function(&item, out)),
            }
        }
    }
}

impl Path {
    pub fn of(names: &[&'static str]) -> Self {
        names.iter().fold(Self::default(), |path, name| path.field(name))
    }

    #[must_use]
    pub fn field(&self, name: &'static str) -> Self {
        Self(Some(Rc::new((self.clone(), Step::Field(name)))))
    }

    #[must_use]
    pub fn index(&self, at: usize) -> Self {
        Self(Some(Rc::new((self.clone(), Step::Index(at)))))
    }

    #[must_use]
    pub fn name(&self, name: &str) -> Self {
        Self(Some(Rc::new((self.clone(), Step::Name(name.to_owned())))))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(Some(Rc::new((self.clone(), Step::Key(key.to_owned())))))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else { return Ok(()) };
        let (before, step) = &**step;
        before.fmt(f)?;
        match step {
            Step::Field(name) if before.0.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key}]"),
            Step::Name(name) => write!(f, ".{name}"),
        }
    }
}

/// Not there, or Go's zero value.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Equal, where something empty is as good as nothing. Source: apimachinery `pkg/api/equality` (`Semantic`).
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let null = Value::Null;
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&null)))
                && b.iter().all(|(key, value)| a.contains_key(key) || same(&null, value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Null, Value::Array(list)) | (Value::Array(list), Value::Null) => list.is_empty(),
        (Value::Null, Value::Object(map)) | (Value::Object(map), Value::Null) => map.is_empty(),
        _ => a == b,
    }
}

/// Go's JSON of a structure.
pub fn go(shape: &[(&str, &Value)]) -> String {
    let fields: Vec<String> = shape.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// What is not there is shown as Go shows its nil.
fn shown(value: &Value) -> Value {
    value.clone()
}

/// Texts that are not there are empty in messages.
fn text_or(value: &Value) -> Value {
    if value.is_null() { "".into() } else { value.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_written_as_upstream_writes_them() {
        let object = Object::of(json!({"spec": {"list": [{"map": {"a/b": 1}}]}})).expect("an object");
        let at = At::root(&object).field("spec").field("list").items().next().expect("an item");
        assert_eq!(at.field("map").key("a/b").path().to_string(), "spec.list[0].map[a/b]");
        assert_eq!(at.field("map").key("a/b").int(), 1);
    }

    #[test]
    fn empty_is_the_same_as_nothing() {
        assert!(same(&json!({"a": [], "b": {"c": 1}}), &json!({"b": {"c": 1}, "d": {}})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!same(&json!({"a": ""}), &json!({})));
    }
}
