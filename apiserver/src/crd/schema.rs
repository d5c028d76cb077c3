//! A custom resource's schema as its definition says it. Source: apiextensions `types_jsonschema.go`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// JSONSchemaProps.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schema {
    pub id: String,
    #[serde(rename = "$schema")]
    pub schema: String,
    #[serde(rename = "$ref")]
    pub reference: Option<String>,
    pub description: String,
    #[serde(rename = "type")]
    pub ty: String,
    pub format: String,
    pub title: String,
    pub default: Option<Value>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: String,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub multiple_of: Option<f64>,
    #[serde(rename = "enum")]
    pub allowed: Option<Vec<Value>>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<String>,
    pub items: Option<Items>,
    pub all_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
    pub properties: BTreeMap<String, Schema>,
    pub additional_properties: Option<SchemaOrBool>,
    pub pattern_properties: BTreeMap<String, Schema>,
    pub dependencies: BTreeMap<String, Value>,
    pub additional_items: Option<SchemaOrBool>,
    pub definitions: BTreeMap<String, Schema>,
    pub external_docs: Option<Value>,
    pub example: Option<Value>,
    pub nullable: bool,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    pub preserve_unknown: Option<bool>,
    #[serde(rename = "x-kubernetes-embedded-resource")]
    pub embedded: bool,
    #[serde(rename = "x-kubernetes-int-or-string")]
    pub int_or_string: bool,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub list_map_keys: Vec<String>,
    #[serde(rename = "x-kubernetes-list-type")]
    pub list_type: Option<String>,
    #[serde(rename = "x-kubernetes-map-type")]
    pub map_type: Option<String>,
    #[serde(rename = "x-kubernetes-validations")]
    pub rules: Vec<Rule>,
}

/// An item of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub rule: String,
    pub message: String,
    pub message_expression: String,
    pub reason: Option<String>,
    pub field_path: String,
    pub optional_old_self: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Items {
    One(Box<Schema>),
    /// A schema for each position: refused, as upstream does.
    Each(Vec<Schema>),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum SchemaOrBool {
    Bool(bool),
    Schema(Box<Schema>),
}

impl SchemaOrBool {
    pub fn schema(&self) -> Option<&Schema> {
        match self {
            Self::Schema(schema) => Some(schema),
            Self::Bool(_) => None,
        }
    }

    pub fn allows(&self) -> bool {
        !matches!(self, Self::Bool(false))
    }
}

impl Schema {
    /// What each item of a list is.
    pub fn item(&self) -> Option<&Schema> {
        match &self.items {
            Some(Items::One(schema)) => Some(schema),
            _ => None,
        }
    }

    /// What a value is that no property names.
    pub fn additional(&self) -> Option<&Schema> {
        self.additional_properties.as_ref()?.schema()
    }

    pub fn preserves_unknown(&self) -> bool {
        self.preserve_unknown == Some(true)
    }

    /// Does this schema, or any within it, have what is asked for?
    pub fn has(&self, what: &dyn Fn(&Schema) -> bool) -> bool {
        what(self) || self.within().any(|schema| schema.has(what))
    }

    /// All schemas directly within this one.
    pub fn within(&self) -> impl Iterator<Item = &Schema> {
        let items: &[Schema] = match &self.items {
            Some(Items::One(one)) => std::slice::from_ref(&**one),
            Some(Items::Each(each)) => each,
            None => &[],
        };
        items
            .iter()
            .chain(&self.all_of)
            .chain(&self.one_of)
            .chain(&self.any_of)
            .chain(self.not.as_deref())
            .chain(self.properties.values())
            .chain(self.additional())
            .chain(self.pattern_properties.values())
            .chain(self.additional_items.as_ref().and_then(SchemaOrBool::schema))
            .chain(self.definitions.values())
    }
}

impl Schema {
    /// # Errors
    /// A field is of another type.
    pub fn deserialize_from(raw: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(raw)
    }
}
