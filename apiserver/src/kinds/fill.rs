//! Defaults as tables: what a field becomes when it is not there.

use serde_json::{Map, Value, json};

pub type Fields = Map<String, Value>;

/// A field and what it becomes.
pub struct Fill(pub &'static str, pub With);

pub enum With {
    /// When it is not there or empty.
    Text(&'static str),
    /// When it is not there.
    Int(i64),
    /// When it is not there or 0.
    IntForZero(i64),
    Flag(bool),
    /// `{}` when it is not there.
    Object,
    /// Within it, when it is there.
    In(&'static [Fill]),
    /// It is made, and filled.
    Made(&'static [Fill]),
    /// Within each of its items.
    Each(&'static [Fill]),
    /// What a table cannot say, of it.
    By(fn(&mut Fields)),
    /// Of each of its items.
    EachBy(fn(&mut Fields)),
}

pub fn fill(fields: &mut Fields, table: &[Fill]) {
    for Fill(name, with) in table {
        match with {
            With::Text(text) => set(fields, name, super::validate::is_empty, *text),
            With::Int(number) => set(fields, name, Value::is_null, *number),
            With::IntForZero(number) => set(fields, name, super::validate::is_empty, *number),
            With::Flag(flag) => set(fields, name, Value::is_null, *flag),
            With::Object => set(fields, name, Value::is_null, json!({})),
            With::In(table) => {
                if let Some(inner) = object(fields, name) {
                    fill(inner, table);
                }
            }
            With::Made(table) => {
                set(fields, name, Value::is_null, json!({}));
                if let Some(inner) = object(fields, name) {
                    fill(inner, table);
                }
            }
            With::Each(table) => items(fields, name).for_each(|item| fill(item, table)),
            With::By(function) => {
                if let Some(inner) = object(fields, name) {
                    function(inner);
                }
            }
            With::EachBy(function) => items(fields, name).for_each(function),
        }
    }
}

fn set(fields: &mut Fields, name: &str, is_missing: fn(&Value) -> bool, value: impl Into<Value>) {
    if fields.get(name).is_none_or(is_missing) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets what is not there.
pub fn or_insert(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    set(fields, name, Value::is_null, value);
}

pub fn object<'f>(fields: &'f mut Fields, name: &str) -> Option<&'f mut Fields> {
    fields.get_mut(name)?.as_object_mut()
}

/// An object that is there, made if need be.
pub fn made<'f>(fields: &'f mut Fields, name: &str) -> &'f mut Fields {
    let value = fields.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("an object, see above")
}

/// The items of a list that are objects.
pub fn items<'f>(fields: &'f mut Fields, name: &str) -> impl Iterator<Item = &'f mut Fields> {
    let list = fields.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

pub fn text<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub fn int(fields: &Fields, name: &str) -> i64 {
    fields.get(name).and_then(Value::as_i64).unwrap_or_default()
}

pub fn flag(fields: &Fields, name: &str) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or_default()
}

pub fn has(fields: &Fields, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
}
