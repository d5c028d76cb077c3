//! Is a schema structural? Only then fields can be pruned and defaulted. Source: apiextensions
//! `pkg/apiserver/schema/{validation,complete}.go`.

use regex_lite::Regex;

use super::schema::{Schema, SchemaOrBool};
use crate::status::Cause;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps it from being one, in order of the messages.
pub fn problems(schema: &Schema, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    invariants(schema, Level::Root, path, &mut causes);
    complete(schema, Some(schema), path, path, &mut causes);
    causes.sort_by_cached_key(ToString::to_string);
    causes
}

fn invariants(schema: &Schema, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let at = |field: &str| format!("{path}.{field}");
    if schema.ty == "array" && schema.item().is_none() {
        causes.push(Cause::required(at("items"), "must be specified"));
    }
    if let Some(item) = schema.item() {
        invariants(item, Level::Item, &at("items"), causes);
    }
    for (name, property) in &schema.properties {
        invariants(property, Level::Field, &format!("{path}.properties[{name}]"), causes);
    }
    if let Some(additional) = &schema.additional_properties {
        if level == Level::Root {
            causes.push(Cause::forbidden(at("additionalProperties"), "must not be used at the root"));
        }
        if let SchemaOrBool::Schema(schema) = additional {
            invariants(schema, Level::Field, &at("additionalProperties"), causes);
        }
        if schema.embedded {
            let what = "must not be used if x-kubernetes-embedded-resource is set";
            causes.push(Cause::forbidden(at("additionalProperties"), what));
        }
    }
    extensions(schema, path, causes);
    values(schema, path, causes);
    ty(schema, level, path, causes);
    metadata(schema, level, path, causes);
    if schema.embedded && !schema.preserves_unknown() && schema.properties.is_empty() {
        let what = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        causes.push(Cause::required(at("properties"), what));
    }
}

fn extensions(schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    const WHAT: &str = "must be false if x-kubernetes-int-or-string is true";
    if schema.int_or_string && schema.preserves_unknown() {
        causes.push(Cause::invalid(
            format!("{path}.x-kubernetes-preserve-unknown-fields"),
            &true.into(),
            WHAT,
        ));
    }
    if schema.int_or_string && schema.embedded {
        causes.push(Cause::invalid(format!("{path}.x-kubernetes-embedded-resource"), &true.into(), WHAT));
    }
}

fn ty(schema: &Schema, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let field = format!("{path}.type");
    let given = schema.ty.as_str().into();
    if schema.embedded && schema.ty != "object" {
        let what = "must be object if x-kubernetes-embedded-resource is true";
        causes.push(match &*schema.ty {
            "" => Cause::required(field.clone(), what),
            _ => Cause::invalid(field.clone(), &given, what),
        });
    } else if schema.ty.is_empty() && !schema.int_or_string && !schema.preserves_unknown() {
        let of = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(field.clone(), of));
    }
    if level == Level::Root && !schema.ty.is_empty() && schema.ty != "object" {
        causes.push(Cause::invalid(field, &given, "must be object at the root"));
    }
}

/// Of metadata nothing but the names may be said, and only at the root.
fn metadata(schema: &Schema, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let is_object = level == Level::Root || schema.embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(property) =
            schema.properties.get(name).filter(|property| is_object && property.ty != "string")
        {
            let field = format!("{path}.properties[{name}].type");
            causes.push(Cause::invalid(field, &property.ty.as_str().into(), "must be string"));
        }
    }
    let Some(metadata) = schema.properties.get("metadata") else { return };
    let field = format!("{path}.properties[metadata]");
    if is_object && metadata.ty != "object" {
        causes.push(Cause::invalid(format!("{field}.type"), &metadata.ty.as_str().into(), "must be object"));
    }
    if level == Level::Root {
        let mut rest = metadata.clone();
        if rest.properties.keys().all(|name| name == "name" || name == "generateName") {
            rest.properties.clear();
        }
        rest.ty.clear();
        rest.default = None;
        if rest != Schema::default() {
            let what = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            causes.push(Cause::forbidden(field, what));
        }
    }
}

fn values(schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    combinations(schema, is_int_or_string(&schema.any_of), path, causes);
}

fn combinations(schema: &Schema, skip_any: bool, path: &str, causes: &mut Vec<Cause>) {
    if !skip_any {
        for (at, one) in schema.any_of.iter().enumerate() {
            nested(one, false, &format!("{path}.anyOf[{at}]"), causes);
        }
    }
    for (at, one) in schema.all_of.iter().enumerate() {
        nested(one, at == 0 && is_int_or_string(&one.any_of), &format!("{path}.allOf[{at}]"), causes);
    }
    for (at, one) in schema.one_of.iter().enumerate() {
        nested(one, false, &format!("{path}.oneOf[{at}]"), causes);
    }
    if let Some(not) = &schema.not {
        nested(not, false, &format!("{path}.not"), causes);
    }
    if let Err(error) = Regex::new(&schema.pattern) {
        let what = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(format!("{path}.pattern"), &schema.pattern.as_str().into(), what));
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, which is what int-or-string has.
fn is_int_or_string(any: &[Schema]) -> bool {
    let is = |schema: &Schema, ty: &str| *schema == Schema { ty: ty.to_owned(), ..Schema::default() };
    matches!(any, [first, second] if is(first, "integer") && is(second, "string"))
}

/// Within a combination values are judged, no structure is made.
fn nested(schema: &Schema, skip_any: bool, path: &str, causes: &mut Vec<Cause>) {
    combinations(schema, skip_any, path, causes);
    if let Some(item) = schema.item() {
        nested(item, false, &format!("{path}.items"), causes);
    }
    for (name, property) in &schema.properties {
        nested(property, false, &format!("{path}.properties[{name}]"), causes);
    }
    let mut forbid = |wrong: bool, field: &str, what: &str| {
        if wrong {
            causes.push(Cause::forbidden(
                format!("{path}.{field}"),
                format!("must be {what} to be structural"),
            ));
        }
    };
    forbid(!schema.ty.is_empty(), "type", "empty");
    forbid(schema.additional_properties.is_some(), "additionalProperties", "undefined");
    forbid(schema.default.is_some(), "default", "undefined");
    forbid(!schema.title.is_empty(), "title", "empty");
    forbid(!schema.description.is_empty(), "description", "empty");
    forbid(schema.nullable, "nullable", "false");
    forbid(schema.preserves_unknown(), "x-kubernetes-preserve-unknown-fields", "false");
    forbid(schema.embedded, "x-kubernetes-embedded-resource", "false");
    forbid(schema.int_or_string, "x-kubernetes-int-or-string", "false");
    forbid(!schema.list_map_keys.is_empty(), "x-kubernetes-list-map-keys", "empty");
    forbid(schema.list_type.is_some(), "x-kubernetes-list-type", "undefined");
    forbid(schema.map_type.is_some(), "x-kubernetes-map-type", "undefined");
    forbid(!schema.rules.is_empty(), "x-kubernetes-validations", "empty");
    if schema.properties.contains_key("metadata") {
        let what = "must not be specified in a nested context";
        causes.push(Cause::forbidden(format!("{path}.properties[metadata]"), what));
    }
}

/// Every field that a combination judges is one that the structure has.
fn complete(judge: &Schema, schema: Option<&Schema>, path: &str, judged: &str, causes: &mut Vec<Cause>) {
    let each = |name: &'static str, list: &[Schema]| -> Vec<_> {
        list.iter().enumerate().map(|(at, one)| (format!("{judged}.{name}[{at}]"), one.clone())).collect()
    };
    let mut all = Vec::new();
    all.extend(judge.not.as_deref().map(|not| (format!("{judged}.not"), not.clone())));
    all.extend(each("allOf", &judge.all_of));
    all.extend(each("anyOf", &judge.any_of));
    all.extend(each("oneOf", &judge.one_of));
    for (judged, one) in &all {
        let Some(schema) = schema else {
            causes.push(Cause::required(path, &format!("because it is defined in {judged}")));
            continue;
        };
        nested_complete(one, schema, path, judged, causes);
    }
}

fn nested_complete(judge: &Schema, schema: &Schema, path: &str, judged: &str, causes: &mut Vec<Cause>) {
    complete(judge, Some(schema), path, judged, causes);
    if let Some(item) = judge.item() {
        let (path, judged) = (format!("{path}.items"), format!("{judged}.items"));
        match schema.item() {
            Some(schema) => nested_complete(item, schema, &path, &judged, causes),
            None => causes.push(Cause::required(path, &format!("because it is defined in {judged}"))),
        }
    }
    for (name, property) in &judge.properties {
        let (path, judged) = (format!("{path}.properties[{name}]"), format!("{judged}.properties[{name}]"));
        match schema.properties.get(name) {
            Some(schema) => nested_complete(property, schema, &path, &judged, causes),
            None => causes.push(Cause::required(path, &format!("because it is defined in {judged}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_not_structural_is_told_as_upstream_tells_it() {
        #[rustfmt::skip]
        let table = [
            (json!({"type": "object", "properties": {"a": {"type": "string"}}}), vec![]),
            (json!({}), vec!["s.type: Required value: must not be empty at the root"]),
            (json!({"type": "string"}), vec![r#"s.type: Invalid value: "string": must be object at the root"#]),
            (json!({"type": "object", "properties": {"a": {}}}),
                vec!["s.properties[a].type: Required value: must not be empty for specified object fields"]),
            (json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                vec!["s.properties[a].items: Required value: must be specified"]),
            (json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}), vec![]),
            (json!({"type": "object", "anyOf": [{"type": "object"}]}), vec!["s.anyOf[0].type: Forbidden: must be empty to be structural"]),
            (json!({"type": "object", "oneOf": [{"properties": {"a": {"minimum": 1}}}]}),
                vec!["s.properties[a]: Required value: because it is defined in s.oneOf[0].properties[a]"]),
            (json!({"type": "object", "additionalProperties": true}), vec!["s.additionalProperties: Forbidden: must not be used at the root"]),
            (json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
                vec!["s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"]),
            (json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string"}}}}}), vec![]),
            (json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}), vec!["pattern"]),
        ];
        for (schema, expected) in table {
            let schema: Value = schema;
            let parsed: Schema = serde_json::from_value(schema.clone()).expect("a schema");
            let told: Vec<_> = problems(&parsed, "s").iter().map(ToString::to_string).collect();
            if expected == ["pattern"] {
                assert!(
                    told[0].starts_with(
                        r#"s.properties[a].pattern: Invalid value: "(": must be a valid regular expression"#
                    ),
                    "{told:?}"
                );
            } else {
                assert_eq!(told, expected, "{schema}");
            }
        }
    }
}
