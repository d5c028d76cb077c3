//! `x-kubernetes-validations`: rules in CEL, compiled when a definition is read and run on each write.

use std::fmt;

use kube_cel::{CompiledSchema, ErrorKind, RootContext, Validator, compile_schema};
use serde_json::Value;

use super::schema::Schema;
use crate::status::Cause;

/// The longest rule that is compiled: the compiler recurses.
pub const MAX_RULE_BYTES: usize = 16 << 10;

/// The rules of one version of a custom resource.
pub struct Rules {
    compiled: CompiledSchema,
    root: RootContext,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("kind", &self.root.kind).finish_non_exhaustive()
    }
}

impl Rules {
    /// `None`: the schema has none.
    pub fn of(schema: &Schema, raw: &Value, api_version: &str, kind: &str) -> Option<Self> {
        schema.has(&|schema| !schema.rules.is_empty()).then(|| Self {
            compiled: compile_schema(raw),
            root: RootContext {
                api_group: api_version.split_once('/').map(|(group, _)| group).unwrap_or_default().to_owned(),
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            },
        })
    }

    /// Rules that do not hold. Where nothing has changed they are not asked again.
    pub fn validate(&self, value: &Value, old: Option<&Value>) -> Vec<Cause> {
        let validator = Validator::new();
        let asked = validator.validate_compiled_with_context(&self.compiled, value, old, Some(&self.root));
        let Err(errors) = asked else { return Vec::new() };
        let mut causes = Vec::new();
        for error in errors {
            let at = find(value, &error.field_path);
            if old.is_some_and(|old| {
                !error.rule.contains("oldSelf") && unchanged(value, old, &error.field_path)
            }) {
                continue;
            }
            let field =
                if error.field_path.is_empty() { "<nil>".to_owned() } else { error.field_path.clone() };
            let shown = match at {
                Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => value.clone(),
                Some(Value::Array(_)) => "array".into(),
                _ => "object".into(),
            };
            let message = match error.kind {
                ErrorKind::ValidationFailure => error.message.trim().to_owned(),
                _ => format!("{} evaluating rule: {}", error.message, error.rule.trim()),
            };
            causes.push(match error.reason.as_deref() {
                Some("FieldValueForbidden") => Cause::forbidden(field, message),
                Some("FieldValueRequired") => Cause::required(field, &message),
                Some("FieldValueDuplicate") => Cause::duplicate(field, &shown),
                _ => Cause::invalid(field, &shown, message),
            });
        }
        causes
    }
}

/// Why a rule cannot be compiled.
pub fn problem(rule: &str) -> Option<String> {
    if rule.len() > MAX_RULE_BYTES {
        return Some(format!("compilation failed: a rule may not be more than {MAX_RULE_BYTES} bytes"));
    }
    let compiled = kube_cel::cel::Program::compile(rule);
    compiled.err().map(|error| format!("compilation failed: {error}"))
}

/// The value at `spec.list[0].name`.
fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    steps(path).try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(at) => value.get(at),
    })
}

fn unchanged(value: &Value, old: &Value, path: &str) -> bool {
    let new = find(value, path);
    new.is_some() && new == find(old, path)
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[', ']']).filter(|step| !step.is_empty()).map(|step| match step.parse() {
        Ok(at) => Step::Index(at),
        Err(_) => Step::Key(step),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
        let parsed: Schema = serde_json::from_value(schema.clone()).expect("a schema");
        let rules = Rules::of(&parsed, schema, "example.org/v1", "Thing").expect("it has rules");
        rules.validate(value, old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_are_asked_of_what_is_written() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "message": "min must not be above max"},
                {"rule": "self.fixed == oldSelf.fixed", "message": "fixed is fixed", "reason": "FieldValueForbidden"},
            ],
            "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "fixed": {"type": "string",
                "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]}}}}});
        let fine = json!({"spec": {"min": 1, "max": 2, "fixed": "a"}});
        assert_eq!(told(&schema, &fine, None), [""; 0]);
        let turned = json!({"spec": {"min": 3, "max": 2, "fixed": "b"}});
        let mut both = told(&schema, &turned, None);
        both.sort();
        assert_eq!(
            both,
            [
                r#"spec.fixed: Invalid value: "b": failed rule: self.startsWith('a')"#,
                r#"spec: Invalid value: "object": min must not be above max"#
            ]
        );
        let moved = json!({"spec": {"min": 1, "max": 2, "fixed": "ab"}});
        assert_eq!(told(&schema, &moved, Some(&fine)), ["spec: Forbidden: fixed is fixed"]);
        // What was wrong before and did not change does not keep others from changing.
        let worse = json!({"spec": {"min": 3, "max": 2, "fixed": "b"}, "other": 1});
        assert_eq!(told(&schema, &worse, Some(&turned)), [""; 0]);
    }

    #[test]
    fn a_rule_that_is_no_cel_is_refused() {
        assert!(problem("self.a == ").is_some());
        assert!(problem(&"a".repeat(MAX_RULE_BYTES + 1)).is_some());
        assert_eq!(problem("self.a == 1"), None);
    }
}
