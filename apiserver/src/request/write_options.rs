//! Create-, Update-, Patch- and DeleteOptions out of a query; DeleteOptions also out of a body.
//! Source: apimachinery `pkg/apis/meta/v1/{types,validation/validation}.go`.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::Query;
use crate::deletion::{Asked, Propagation};
use crate::meta;
use crate::status::{Cause, Details, Result, Status};

/// What is done about fields that a kind does not have, or that stand in a body twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Validation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// How something is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Empty: the one in the User-Agent.
    pub manager: String,
    pub validation: Validation,
    /// Of an apply: takes what others manage.
    pub force: bool,
}

impl WriteOptions {
    /// `kind`: `CreateOptions`, `UpdateOptions`, `PatchOptions`; `apply`: the patch is one.
    ///
    /// # Errors
    /// 422 in upstream's words.
    pub fn of(query: &Query, kind: &str, apply: bool) -> Result<Self> {
        let mut causes = Vec::new();
        let manager = query.get("fieldManager").unwrap_or_default();
        if kind == "PatchOptions" {
            if apply && manager.is_empty() {
                causes.push(Cause::required("fieldManager", "is required for apply patch"));
            }
            if !apply && query.has("force") {
                causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
            }
        }
        causes.extend(meta::manager(manager, "fieldManager"));
        let dry_run = dry_run(query.all("dryRun"), &mut causes);
        let validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => Validation::Warn,
            "Ignore" => Validation::Ignore,
            "Strict" => Validation::Strict,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                causes.push(Cause::unsupported("fieldValidation", &other.into(), &supported));
                Validation::Warn
            }
        };
        if !causes.is_empty() {
            return Err(invalid(kind, causes));
        }
        let force = query.flag("force").unwrap_or(false);
        Ok(Self { dry_run, manager: manager.to_owned(), validation, force })
    }

    /// As admission sees them.
    pub fn to_json(&self, kind: &str) -> Value {
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if !self.manager.is_empty() {
            options["fieldManager"] = self.manager.as_str().into();
        }
        options
    }
}

impl Asked {
    /// # Errors
    /// 400, 422 in upstream's words.
    pub fn of_query(query: &Query) -> Result<Self> {
        let mut options = Map::new();
        let mut put = |key: &str, value: Value| options.insert(key.to_owned(), value);
        if let Some(text) = query.get("gracePeriodSeconds").filter(|text| !text.is_empty()) {
            let Ok(seconds) = text.parse::<i64>() else {
                let text = Value::from(text);
                return Err(Status::bad_request(format!("strconv.ParseInt: parsing {text}: invalid syntax")));
            };
            put("gracePeriodSeconds", seconds.into());
        }
        for key in ["orphanDependents", "ignoreStoreReadErrorWithClusterBreakingPotential"] {
            if let Some(flag) = query.flag(key) {
                put(key, flag.into());
            }
        }
        if let Some(policy) = query.get("propagationPolicy").filter(|text| !text.is_empty()) {
            put("propagationPolicy", policy.into());
        }
        let dry_run: Vec<_> = query.all("dryRun").collect();
        if !dry_run.is_empty() {
            put("dryRun", dry_run.into());
        }
        Self::of(&options)
    }

    /// `options`: DeleteOptions whose fields have their types.
    ///
    /// # Errors
    /// 422 in upstream's words.
    pub fn of(options: &Map<String, Value>) -> Result<Self> {
        const UNSAFE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";
        let mut causes = Vec::new();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let preconditions = options.get("preconditions");
        let precondition = |key: &str| text(preconditions.and_then(|conditions| conditions.get(key)));
        let policy = options.get("propagationPolicy").filter(|policy| !policy.is_null());
        let orphan_dependents = options.get("orphanDependents").and_then(Value::as_bool);
        if let (Some(policy), Some(_)) = (policy, orphan_dependents) {
            const WHY: &str = "orphanDependents and deletionPropagation cannot be both set";
            causes.push(Cause::invalid("propagationPolicy", policy, WHY));
        }
        let propagation = match policy.map(|policy| policy.as_str().unwrap_or_default()) {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                causes.push(Cause::unsupported("propagationPolicy", &other.into(), &supported));
                None
            }
        };
        let asked = options.get("dryRun").and_then(Value::as_array);
        let dry_run = dry_run(asked.into_iter().flatten().filter_map(Value::as_str), &mut causes);
        if options.get(UNSAFE).and_then(Value::as_bool) == Some(true) {
            causes.push(Cause::forbidden(UNSAFE, "this server does not delete what it cannot read"));
        }
        if !causes.is_empty() {
            return Err(invalid("DeleteOptions", causes));
        }
        Ok(Self {
            grace_period_seconds: options.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            propagation,
            orphan_dependents,
            dry_run,
        })
    }

    /// As admission sees it.
    pub fn to_json(&self) -> Value {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace_period_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = self.propagation {
            options["propagationPolicy"] = format!("{policy:?}").into();
        }
        if let Some(orphan) = self.orphan_dependents {
            options["orphanDependents"] = orphan.into();
        }
        for (key, value) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(value) = value {
                options["preconditions"][key] = value.as_str().into();
            }
        }
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        options
    }
}

fn dry_run<'a>(asked: impl Iterator<Item = &'a str>, causes: &mut Vec<Cause>) -> bool {
    let asked: Vec<_> = asked.collect();
    if asked.iter().any(|&value| value != "All") {
        causes.push(Cause::unsupported("dryRun", &asked.clone().into(), &["All"]));
    }
    !asked.is_empty()
}

fn invalid(kind: &str, causes: Vec<Cause>) -> Status {
    let list = match &*causes {
        [one] => one.to_string(),
        _ => format!("[{}]", causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    let message = format!("{kind}.meta.k8s.io \"\" is invalid: {list}");
    let details =
        Details { group: "meta.k8s.io".to_owned(), kind: kind.to_owned(), causes, ..Details::default() };
    Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_options_are_checked_in_upstreams_words() {
        let of = |text: &str, apply| WriteOptions::of(&Query::parse(text), "PatchOptions", apply);
        let good =
            of("dryRun=All&fieldManager=me&fieldValidation=Strict&force=true", true).expect("they are good");
        let expected = WriteOptions {
            dry_run: true,
            manager: "me".to_owned(),
            validation: Validation::Strict,
            force: true,
        };
        assert_eq!(good, expected);
        #[rustfmt::skip]
        let table = [
            ("", true, "fieldManager: Required value: is required for apply patch"),
            ("force=true", false, "force: Forbidden: may not be specified for non-apply patch"),
            ("dryRun=Some", false, r#"dryRun: Unsupported value: ["Some"]: supported values: "All""#),
            ("fieldValidation=No", false, r#"fieldValidation: Unsupported value: "No": supported values: "", "Ignore", "Strict", "Warn""#),
        ];
        for (query, apply, expected) in table {
            let status = of(query, apply).expect_err(query);
            assert_eq!(status.message(), format!("PatchOptions.meta.k8s.io \"\" is invalid: {expected}"));
        }
    }

    #[test]
    fn delete_options_are_read_from_body_and_query() {
        let body = json!({"gracePeriodSeconds": 5, "propagationPolicy": "Foreground", "dryRun": ["All"],
            "preconditions": {"uid": "1", "resourceVersion": "2"}});
        let asked = Asked::of(body.as_object().expect("an object")).expect("they are good");
        assert_eq!(asked.uid.as_deref(), Some("1"));
        assert_eq!(asked.propagation, Some(Propagation::Foreground));
        assert!(asked.dry_run);
        let asked =
            Asked::of_query(&Query::parse("gracePeriodSeconds=0&orphanDependents=false")).expect("good");
        assert_eq!((asked.grace_period_seconds, asked.orphan_dependents), (Some(0), Some(false)));
        for bad in [
            "propagationPolicy=Sometimes",
            "propagationPolicy=Orphan&orphanDependents=true",
            "gracePeriodSeconds=x",
            "ignoreStoreReadErrorWithClusterBreakingPotential=true",
        ] {
            assert!(Asked::of_query(&Query::parse(bad)).is_err(), "{bad}");
        }
    }
}
