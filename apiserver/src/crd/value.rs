//! Does a value fit its schema? In the words of upstream's validator.
//!
//! On an update what has not changed is not judged again (ratcheting): a schema that became stricter does not keep
//! objects from other changes. Source: kube-openapi `pkg/validation/validate`; KEP-4008.

use regex_lite::Regex;
use serde_json::{Map, Value};

use super::format;
use super::schema::{Items, Schema, SchemaOrBool};
use crate::status::Cause;

/// Deeper values are refused; what a request may hold ends before.
const DEEPEST: u32 = 200;

/// What is wrong with `value`. `base` is where it is (`None`: a whole object), `old` what was there.
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>, base: Option<&str>) -> Vec<Cause> {
    let check = Check { base };
    check.schema(schema, value, old, "", DEEPEST).causes
}

struct Check<'a> {
    base: Option<&'a str>,
}

#[derive(Default)]
struct Found {
    causes: Vec<Cause>,
    /// How many checks passed: of several alternatives that fail, the one with the most is told.
    matches: u32,
}

impl Found {
    fn merge(&mut self, other: Self) {
        self.causes.extend(other.causes);
        self.matches += other.matches;
    }

    fn one(cause: Cause) -> Self {
        Self { causes: vec![cause], matches: 0 }
    }

    fn fine() -> Self {
        Self { causes: Vec::new(), matches: 1 }
    }
}

impl Check<'_> {
    /// The field of a cause at `path`.
    fn field(&self, path: &str) -> String {
        match (self.base, path.trim_start_matches('.')) {
            (None, "") => "<nil>".to_owned(),
            (Some(base), "") => base.to_owned(),
            (None, path) => path.to_owned(),
            (Some(base), path) => format!("{base}.{path}"),
        }
    }

    fn invalid(&self, path: &str, shown: &Value, what: impl std::fmt::Display) -> Cause {
        Cause::invalid(self.field(path), shown, format!("{path} in body {what}"))
    }

    /// Of a combination: told of no field, as upstream does.
    fn combination(&self, what: String) -> Cause {
        Cause::invalid(self.base.unwrap_or("<nil>"), &"".into(), what)
    }

    fn schema(&self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str, depth: u32) -> Found {
        if old == Some(value) {
            return Found::fine();
        }
        if depth == 0 {
            return Found::one(self.invalid(path, &"".into(), "is nested too deeply"));
        }
        let mut found = Found::default();
        if value.is_null() {
            found.merge(self.ty(schema, value, path));
            found.merge(self.allowed(schema, value, path));
            return found;
        }
        found.merge(self.ty(schema, value, path));
        found.merge(self.combinations(schema, value, old, path, depth));
        match value {
            Value::String(text) => {
                found.merge(self.text(schema, text, path));
                found.merge(self.format(schema, text, path));
            }
            Value::Number(_) => found.merge(self.number(schema, value, path)),
            Value::Array(list) => found.merge(self.list(schema, list, old, path, depth)),
            _ => {}
        }
        found.merge(self.allowed(schema, value, path));
        if let Value::Object(map) = value {
            found.merge(self.object(schema, map, old, path, depth));
        }
        found.matches += 1;
        found
    }

    fn ty(&self, schema: &Schema, value: &Value, path: &str) -> Found {
        let types: &[&str] = match &*schema.ty {
            _ if schema.int_or_string => &["integer", "string"],
            "" => &[],
            one => &[one],
        };
        let format = format::of_schema(schema).unwrap_or_default();
        if types.is_empty() && format.is_empty() {
            return Found::default();
        }
        let (is, is_format) = type_of(value);
        let wrong = |wanted: &str, is: &str| {
            let mut cause = self.invalid(path, &is.into(), format!("must be of type {wanted}: \"{is}\""));
            cause.reason = "FieldValueTypeInvalid";
            Found::one(cause)
        };
        if value.is_null() {
            if types.is_empty() || schema.nullable {
                return Found::fine();
            }
            return wrong(&types.join(","), "null");
        }
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let fits = types.contains(&is)
            || (is == "number" && whole && types.contains(&"integer"))
            || (is == "integer" && types.contains(&"number"));
        let textual = matches!(value, Value::String(_) | Value::Array(_));
        if !textual && !format.is_empty() && !fits && is_format != format {
            return wrong(format, is_format);
        }
        let numeric = types.contains(&"number") || types.contains(&"integer");
        if (textual && !numeric && !format.is_empty()) || fits {
            return Found::fine();
        }
        wrong(&types.join(","), is)
    }

    fn combinations(
        &self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        depth: u32,
    ) -> Found {
        let mut found = Found::fine();
        let judge = |schema: &Schema| self.schema(schema, value, old, path, depth - 1);
        if !schema.any_of.is_empty() {
            let mut results: Vec<_> = schema.any_of.iter().map(judge).collect();
            if let Some(fits) = results.iter().position(|result| result.causes.is_empty()) {
                found.merge(results.swap_remove(fits));
            } else {
                found
                    .causes
                    .push(self.combination(format!("\"{path}\" must validate at least one schema (anyOf)")));
                found.merge(best(results));
            }
        }
        if !schema.one_of.is_empty() {
            let (fit, unfit): (Vec<_>, Vec<_>) =
                schema.one_of.iter().map(judge).partition(|result| result.causes.is_empty());
            let how = match fit.len() {
                1 => None,
                0 => Some("Found none valid".to_owned()),
                many => Some(format!("Found {many} valid alternatives")),
            };
            if let Some(how) = how {
                let what = format!("\"{path}\" must validate one and only one schema (oneOf). {how}");
                found.causes.push(self.combination(what));
                if fit.is_empty() {
                    found.merge(best(unfit));
                }
            } else {
                fit.into_iter().for_each(|one| found.merge(one));
            }
        }
        if !schema.all_of.is_empty() {
            let mut fit = 0;
            for one in &schema.all_of {
                let result = judge(one);
                fit += usize::from(result.causes.is_empty());
                found.merge(result);
            }
            if fit != schema.all_of.len() {
                let none = if fit == 0 { ". None validated" } else { "" };
                let what = format!("\"{path}\" must validate all the schemas (allOf){none}");
                found.causes.push(self.combination(what));
            }
        }
        if let Some(not) = &schema.not
            && judge(not).causes.is_empty()
        {
            found.causes.push(self.combination(format!("\"{path}\" must not validate the schema (not)")));
        }
        found
    }

    fn text(&self, schema: &Schema, text: &str, path: &str) -> Found {
        let length = text.chars().count() as i64;
        let shown = Value::from(text);
        if let Some(max) = schema.max_length.filter(|max| length > *max) {
            return Found::one(Cause::too_long(self.field(path), max.max(0) as usize));
        }
        if let Some(min) = schema.min_length.filter(|min| length < *min) {
            let what = format!("should be at least {min} chars long");
            return Found::one(self.invalid(path, &shown, what));
        }
        if !schema.pattern.is_empty() && !Regex::new(&schema.pattern).is_ok_and(|regex| regex.is_match(text))
        {
            let what = format!("should match '{}'", schema.pattern);
            return Found::one(self.invalid(path, &shown, what));
        }
        Found::fine()
    }

    fn format(&self, schema: &Schema, text: &str, path: &str) -> Found {
        if matches!(&*schema.ty, "integer" | "number") {
            return Found::default();
        }
        match format::of_schema(schema) {
            Some(format) if !format::fits(format, text) => {
                let what = format!("must be of type {format}: {}", Value::from(text));
                let mut cause = self.invalid(path, &text.into(), what);
                cause.reason = "FieldValueTypeInvalid";
                Found::one(cause)
            }
            Some(_) => Found::fine(),
            None => Found::default(),
        }
    }

    fn number(&self, schema: &Schema, value: &Value, path: &str) -> Found {
        let mut found = Found::default();
        let number = value.as_f64().unwrap_or_default();
        let whole = value.as_i64();
        let outside = match (&*schema.ty, &*schema.format) {
            ("integer", "int32") => {
                whole.is_none_or(|whole| i32::try_from(whole).is_err())
                    && !is_whole_in(value, f64::from(i32::MAX))
            }
            ("integer", _) => whole.is_none() && !is_whole_in(value, 9_223_372_036_854_775_807.0),
            ("number", "float") => number.abs() > f64::from(f32::MAX),
            _ => false,
        };
        if outside {
            let of = match &*schema.format {
                "" => format!("of type {} (default format)", schema.ty),
                format => format!("of type {} with format {format}", schema.ty),
            };
            let what = format!("Checked value must be {of} in {path}");
            found.causes.push(Cause::invalid(self.base.unwrap_or("<nil>"), &"".into(), what));
        }
        if let Some(factor) = schema.multiple_of {
            let fits = match whole {
                Some(whole) if factor as i64 != 0 => whole % (factor as i64) == 0,
                _ => (number / factor).fract().abs() < 1e-9,
            };
            if !fits {
                found.causes.push(self.invalid(path, value, format!("should be a multiple of {factor}")));
                return found;
            }
        }
        if let Some(max) = schema.maximum {
            let fits = if schema.exclusive_maximum { number < max } else { number <= max };
            if !fits {
                let or_equal = if schema.exclusive_maximum { "" } else { " or equal to" };
                found.causes.push(self.invalid(path, value, format!("should be less than{or_equal} {max}")));
                return found;
            }
        }
        if let Some(min) = schema.minimum {
            let fits = if schema.exclusive_minimum { number > min } else { number >= min };
            if !fits {
                let or_equal = if schema.exclusive_minimum { "" } else { " or equal to" };
                found.causes.push(self.invalid(
                    path,
                    value,
                    format!("should be greater than{or_equal} {min}"),
                ));
                return found;
            }
        }
        found.matches += 1;
        found
    }

    fn list(&self, schema: &Schema, list: &[Value], old: Option<&Value>, path: &str, depth: u32) -> Found {
        let mut found = Found::fine();
        if let Some(Items::One(item)) = &schema.items {
            for (at, value) in list.iter().enumerate() {
                let old = old_item(schema, value, old);
                found.merge(self.schema(item, value, old, &format!("{path}[{at}]"), depth - 1));
            }
        }
        let size = list.len() as i64;
        if let Some(min) = schema.min_items.filter(|min| size < *min) {
            let what = format!("should have at least {min} items");
            found.causes.push(self.invalid(path, &size.into(), what));
        }
        if let Some(max) = schema.max_items.filter(|max| size > *max) {
            found.causes.push(Cause::too_many(self.field(path), list.len(), max.max(0) as usize));
        }
        if schema.unique_items && list.iter().enumerate().any(|(at, value)| list[..at].contains(value)) {
            found.causes.push(self.invalid(path, &"".into(), "shouldn't contain duplicates"));
        }
        found
    }

    fn allowed(&self, schema: &Schema, value: &Value, path: &str) -> Found {
        let Some(allowed) = schema.allowed.as_ref().filter(|allowed| !allowed.is_empty()) else {
            return Found::default();
        };
        if allowed.iter().any(|one| same(one, value)) || (value.is_null() && schema.nullable) {
            return Found::fine();
        }
        let names: Vec<_> =
            allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Found::one(Cause::unsupported(self.field(path), value, &names))
    }

    fn object(
        &self,
        schema: &Schema,
        map: &Map<String, Value>,
        old: Option<&Value>,
        path: &str,
        depth: u32,
    ) -> Found {
        let mut found = Found::default();
        let size = map.len() as i64;
        if let Some(min) = schema.min_properties.filter(|min| size < *min) {
            let what = format!("should have at least {min} properties");
            found.causes.push(self.invalid(path, &size.into(), what));
        }
        if let Some(max) = schema.max_properties.filter(|max| size > *max) {
            found.causes.push(Cause::too_many(self.field(path), map.len(), max.max(0) as usize));
        }
        let old = |key: &str| old?.get(key);
        match &schema.additional_properties {
            Some(SchemaOrBool::Bool(false)) => {
                for key in map.keys().filter(|key| !schema.properties.contains_key(*key)) {
                    let what = format!("{path}.{key} in body is a forbidden property");
                    found.causes.push(Cause::invalid(self.field(path), &"".into(), what));
                }
            }
            Some(SchemaOrBool::Schema(additional)) => {
                for (key, value) in map.iter().filter(|(key, _)| !schema.properties.contains_key(*key)) {
                    found.merge(self.schema(
                        additional,
                        value,
                        old(key),
                        &format!("{path}.{key}"),
                        depth - 1,
                    ));
                }
            }
            _ => {}
        }
        for (key, property) in &schema.properties {
            if let Some(value) = map.get(key) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                found.merge(self.schema(property, value, old(key), &path, depth - 1));
            }
        }
        for key in schema.required.iter().filter(|key| !map.contains_key(*key)) {
            found.causes.push(Cause::required(self.field(&format!("{path}.{key}")), ""));
        }
        found
    }
}

/// Of alternatives that all fail, the nearest; the first of those.
fn best(results: Vec<Found>) -> Found {
    let mut best: Option<Found> = None;
    for result in results {
        if best.as_ref().is_none_or(|best| result.matches > best.matches) {
            best = Some(result);
        }
    }
    best.unwrap_or_default()
}

/// What an item of a list was before: only a list with keys says which one that is.
fn old_item<'a>(schema: &Schema, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    if schema.list_type.as_deref() != Some("map") {
        return None;
    }
    let keys = |value: &Value| -> Vec<Option<Value>> {
        schema.list_map_keys.iter().map(|key| value.get(key).cloned()).collect()
    };
    let wanted = keys(item);
    let mut same = old?.as_array()?.iter().filter(|old| keys(old) == wanted);
    let found = same.next()?;
    // Not unique: nobody can say.
    same.next().is_none().then_some(found)
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn is_whole_in(value: &Value, limit: f64) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= limit)
}

/// Type and format as upstream infers them.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: Value, value: Value) -> Vec<String> {
        let schema: Schema = serde_json::from_value(schema).expect("a schema");
        let mut told: Vec<_> =
            validate(&schema, &value, None, None).iter().map(ToString::to_string).collect();
        told.sort();
        told
    }

    #[test]
    fn what_does_not_fit_is_said_in_upstreams_words() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["image"], "properties": {
            "image": {"type": "string", "pattern": "^[a-z]+$"},
            "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["red", "green"]},
            "name": {"type": "string", "maxLength": 3, "minLength": 2},
            "ports": {"type": "array", "maxItems": 2, "items": {"type": "integer", "format": "int32"}},
            "half": {"type": "number", "multipleOf": 0.5},
            "since": {"type": "string", "format": "date"},
            "either": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object",
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "port": {"x-kubernetes-int-or-string": true},
        }}}});
        #[rustfmt::skip]
        let table = [
            (json!({}), vec!["spec: Required value"]),
            (json!({"spec": {}}), vec!["spec.image: Required value"]),
            (json!({"spec": {"image": "A"}}), vec![r#"spec.image: Invalid value: "A": spec.image in body should match '^[a-z]+$'"#]),
            (json!({"spec": {"image": "a", "replicas": "3"}}),
                vec![r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#]),
            (json!({"spec": {"image": "a", "replicas": 0}}), vec!["spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1"]),
            (json!({"spec": {"image": "a", "replicas": 11}}), vec!["spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10"]),
            (json!({"spec": {"image": "a", "replicas": 1.0}}), vec![]),
            (json!({"spec": {"image": "a", "color": "blue"}}), vec![r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#]),
            (json!({"spec": {"image": "a", "name": "abcd"}}), vec!["spec.name: Too long: may not be more than 3 bytes"]),
            (json!({"spec": {"image": "a", "name": "a"}}), vec![r#"spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long"#]),
            (json!({"spec": {"image": "a", "ports": [1, 2, 3]}}), vec!["spec.ports: Too many: 3: must have at most 2 items"]),
            (json!({"spec": {"image": "a", "ports": [1, "x"]}}),
                vec![r#"spec.ports[1]: Invalid value: "string": spec.ports[1] in body must be of type integer: "string""#]),
            (json!({"spec": {"image": "a", "half": 0.75}}), vec!["spec.half: Invalid value: 0.75: spec.half in body should be a multiple of 0.5"]),
            (json!({"spec": {"image": "a", "half": 1.5}}), vec![]),
            (json!({"spec": {"image": "a", "since": "yesterday"}}), vec![r#"spec.since: Invalid value: "yesterday": spec.since in body must be of type date: "yesterday""#]),
            (json!({"spec": {"image": "a", "either": {"a": "1", "b": "2"}}}),
                vec![r#"<nil>: Invalid value: "": "spec.either" must validate one and only one schema (oneOf). Found 2 valid alternatives"#]),
            (json!({"spec": {"image": "a", "either": {}}}), vec![
                r#"<nil>: Invalid value: "": "spec.either" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.either.a: Required value"]),
            (json!({"spec": {"image": "a", "labels": {"a": 1}}}),
                vec![r#"spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer""#]),
            (json!({"spec": {"image": "a", "port": true}}),
                vec![r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#]),
            (json!({"spec": {"image": "a", "port": "http"}}), vec![]),
            (json!({"spec": null}), vec![r#"spec: Invalid value: "null": spec in body must be of type object: "null""#]),
        ];
        for (value, expected) in table {
            assert_eq!(told(schema.clone(), value.clone()), expected, "{value}");
        }
    }

    #[test]
    fn what_has_not_changed_is_not_judged_again() {
        let schema: Schema = serde_json::from_value(json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        }}))
        .expect("a schema");
        let old = json!({"a": "long", "b": "b", "list": [{"k": "1", "v": "long"}]});
        let fields = |new: Value| -> Vec<_> {
            validate(&schema, &new, Some(&old), None).into_iter().map(|cause| cause.field).collect()
        };
        assert!(
            fields(json!({"a": "long", "b": "c", "list": [{"k": "0"}, {"k": "1", "v": "long"}]})).is_empty()
        );
        assert_eq!(fields(json!({"a": "longer", "b": "b"})), ["a"]);
        assert_eq!(fields(json!({"a": "long", "list": [{"k": "2", "v": "long"}]})), ["list[0].v"]);
    }
}
