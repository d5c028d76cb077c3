//! Custom resources: definitions become rows of the registry, served like built-in ones.
//!
//! What a definition says of a version is a [`Custom`]: its types for checks, pruning, defaults and merges (as those of
//! the schema table), and what only custom resources have: value validation, rules, paths of scale and selectable
//! fields. [`definition`] judges definitions, [`rows`] makes rows of them, [`names`] decides who gets which name.

pub mod controller;
pub mod definition;
mod format;
mod list_type;
pub mod names;
pub mod rows;
mod rules;
pub mod schema;
mod structural;
mod types;
mod value;

use corten_schema::Types;
use serde_json::{Map, Value};

use crate::object::Object;
use crate::status::Cause;
use rules::Rules;
use schema::Schema;

/// One version of a custom resource, beyond its row.
#[derive(Debug, Default)]
pub struct Custom {
    pub types: Types,
    pub schema: Schema,
    /// As the definition has it, for OpenAPI.
    pub raw_schema: Value,
    /// Status is a subresource: the main path does not change it.
    pub status: bool,
    pub scale: Option<Scale>,
    /// Fields that can be selected beside metadata.name and metadata.namespace: `spec.color`.
    pub selectable: Vec<String>,
    /// Said in a `Warning:` header.
    pub deprecated: Option<String>,
    rules: Option<Rules>,
}

/// Where the scale subresource finds its numbers: `.spec.replicas`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// Empty: none.
    pub label_selector: String,
}

impl Custom {
    /// What is wrong with an object. Where it is as it was it is not judged again.
    pub fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<Cause> {
        const BLOCKING: [&str; 5] = [
            "FieldValueNotSupported",
            "FieldValueRequired",
            "FieldValueTooLong",
            "FieldValueTooMany",
            "FieldValueTypeInvalid",
        ];
        let value = Value::Object(object.0.clone());
        let old = old.map(|old| Value::Object(old.0.clone()));
        let mut causes = value::validate(&self.schema, &value, old.as_ref(), None);
        causes.extend(self.scale.iter().flat_map(|scale| scale.problems(object)));
        if old.as_ref().is_none_or(|old| list_type::validate(&self.schema, old).is_empty()) {
            causes.extend(list_type::validate(&self.schema, &value));
        }
        let Some(rules) = &self.rules else { return causes };
        if causes.iter().any(|cause| BLOCKING.contains(&cause.reason)) {
            const WHAT: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
            causes.push(Cause::invalid("<nil>", &Value::Null, WHAT));
        } else {
            causes.extend(rules.validate(&value, old.as_ref()));
        }
        causes
    }

    /// The value of a field that can be selected; `None`: there is no such.
    pub fn field(&self, object: &Object, label: &str) -> Option<String> {
        self.selectable.iter().any(|field| field == label).then(|| {
            let path: Vec<_> = label.split('.').collect();
            match object.get(&path) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            }
        })
    }

    /// Takes `null` out of fields that may not have it, so that they are defaulted or absent.
    /// Source: apiextensions `pkg/apiserver/schema/defaulting/prune.go`.
    pub fn drop_nulls(&self, object: &mut Object) {
        drop_nulls(&self.schema, &mut object.0);
    }
}

fn drop_nulls(schema: &Schema, map: &mut Map<String, Value>) {
    map.retain(|key, value| {
        let Some(within) = schema.properties.get(key).or_else(|| schema.additional()) else { return true };
        if value.is_null() {
            return within.nullable;
        }
        drop_within(within, value);
        true
    });
}

fn drop_within(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => drop_nulls(schema, map),
        Value::Array(list) => {
            if let Some(item) = schema.item() {
                list.iter_mut().for_each(|value| drop_within(item, value));
            }
        }
        _ => {}
    }
}

impl Scale {
    fn problems(&self, object: &Object) -> Vec<Cause> {
        let mut causes = Vec::new();
        for path in [&self.spec_replicas, &self.status_replicas] {
            let Some(value) = at_path(object, path) else { continue };
            let what = match value.as_i64() {
                Some(0..=0x7fff_ffff) => continue,
                Some(i64::MIN..0) => "should be a non-negative integer".to_owned(),
                Some(_) => format!("should be less than or equal to {}", i32::MAX),
                None => format!(
                    "{path} accessor error: {value} is of the type {}, expected int64",
                    go_type(value)
                ),
            };
            causes.push(Cause::invalid(path.clone(), value, what));
        }
        causes
    }
}

/// The value at `.spec.replicas`.
pub fn at_path<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    let path: Vec<_> = path.trim_start_matches('.').split('.').collect();
    object.get(&path)
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
