//! May somebody do something? Also for oneself and in one namespace.
//! Source: kubernetes `pkg/registry/authorization`, `pkg/apis/authorization/validation`.

use serde_json::{Value, json};

use super::invalid;
use crate::auth::{Attributes, Auth, Decision, User};
use crate::object::Object;
use crate::status::{Cause, Result, Status};

pub async fn answer(
    auth: &Auth,
    kind: &str,
    asker: &User,
    namespace: &str,
    mut object: Object,
) -> Result<Object> {
    let spec = object.0.get("spec").cloned().unwrap_or_else(|| json!({}));
    let own = kind == "SelfSubjectAccessReview";
    invalid("authorization.k8s.io", kind, check(kind, &spec, &object))?;
    if kind == "LocalSubjectAccessReview" && namespace != object.namespace() {
        let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
        return Err(Status::bad_request(why));
    }
    let user = if own { asker.clone() } else { user(&spec) };
    let asked = attributes(&spec);
    let decision = auth.authorizer.decide_settled(&user, &asked).await;
    let mut status = json!({ "allowed": decision == Decision::Allow });
    let reason = match decision {
        Decision::Allow => auth.authorizer.why(&user, &asked),
        Decision::Deny(reason) => {
            status["denied"] = true.into();
            reason
        }
        Decision::NoOpinion(reason) => reason,
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    object.0.insert("status".to_owned(), status);
    Ok(object)
}

fn some<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|value| !value.is_null())
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn check(kind: &str, spec: &Value, object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (resource, path) = (some(spec, "resourceAttributes"), some(spec, "nonResourceAttributes"));
    match (resource, path) {
        (Some(_), Some(path)) => causes.push(Cause::invalid(
            "spec.nonResourceAttributes",
            path,
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => causes.push(Cause::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let nobody = text(spec, "user").is_empty() && texts(&spec["groups"]).is_empty();
    if kind != "SelfSubjectAccessReview" && nobody {
        let detail = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &Value::from(""), detail));
    }
    if let Some(resource) = resource {
        for selector in ["fieldSelector", "labelSelector"] {
            causes.extend(check_selector(resource, selector));
        }
    }
    let local = kind == "LocalSubjectAccessReview";
    let mut metadata = object.meta().cloned().unwrap_or_default();
    metadata
        .retain(|key, value| key != "managedFields" && !(local && key == "namespace") && !value.is_null());
    if !metadata.is_empty() {
        let detail = if local { "must be empty except for namespace" } else { "must be empty" };
        causes.push(Cause::invalid("metadata", &Value::Object(metadata), detail));
    }
    if let (true, Some(resource)) = (local, resource)
        && text(resource, "namespace") != object.namespace()
    {
        let given = Value::from(text(resource, "namespace"));
        causes.push(Cause::invalid(
            "spec.resourceAttributes.namespace",
            &given,
            "must match metadata.namespace",
        ));
    }
    if let (true, Some(path)) = (local, path) {
        causes.push(Cause::invalid("spec.nonResourceAttributes", path, "disallowed on this kind of request"));
    }
    causes
}

fn check_selector(resource: &Value, selector: &str) -> Option<Cause> {
    let field = format!("spec.resourceAttributes.{selector}");
    let given = some(resource, selector)?;
    let raw = text(given, "rawSelector");
    let requirements = given["requirements"].as_array().is_some_and(|list| !list.is_empty());
    if !raw.is_empty() && requirements {
        let detail = "may not specified at the same time as requirements";
        return Some(Cause::invalid(format!("{field}.rawSelector"), &raw.into(), detail));
    }
    (raw.is_empty() && !requirements).then(|| {
        let detail = format!("when {field} is specified, requirements or rawSelector is required");
        Cause::required(format!("{field}.requirements"), &detail)
    })
}

fn user(spec: &Value) -> User {
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: text(spec, "user"),
        uid: text(spec, "uid"),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    }
}

fn attributes(spec: &Value) -> Attributes {
    if let Some(path) = some(spec, "nonResourceAttributes") {
        return Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Attributes::default() };
    }
    let resource = &spec["resourceAttributes"];
    let version = match text(resource, "version") {
        none if none.is_empty() => "*".to_owned(),
        version => version,
    };
    Attributes {
        verb: text(resource, "verb"),
        group: text(resource, "group"),
        version,
        resource: text(resource, "resource"),
        subresource: text(resource, "subresource"),
        namespace: text(resource, "namespace"),
        name: text(resource, "name"),
        path: String::new(),
        field_selector: field_selector(&resource["fieldSelector"]),
    }
}

/// What cannot be said as a selector is left out: that asks for more, never for less.
fn field_selector(selector: &Value) -> String {
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return raw;
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let term = |requirement: &Value| {
        let sign = match requirement["operator"].as_str()? {
            "In" => "=",
            "NotIn" => "!=",
            _ => return None,
        };
        let values = texts(&requirement["values"]);
        let [value] = &*values else { return None };
        Some(format!("{}{sign}{value}", text(requirement, "key")))
    };
    requirements.filter_map(term).collect::<Vec<_>>().join(",")
}
