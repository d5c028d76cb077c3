//! The metadata that every object has: what a client may say of it, what only the server may, what is valid.
//! Source: apiserver `pkg/registry/rest/{meta,create,update}.go`, apimachinery `pkg/api/validation/objectmeta.go`,
//! `pkg/apis/meta/v1/validation/validation.go`.

use std::collections::BTreeSet;

use corten_schema::Resource;
use serde_json::Value;

use crate::names;
use crate::object::Object;
use crate::status::{Cause, Result, Status};

/// All annotations of an object together.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;
const MAX_MANAGER_BYTES: usize = 128;
const MAX_SUBRESOURCE_BYTES: usize = 256;

/// The finalizers that the garbage collector takes away.
pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

const TEXTS: [&str; 6] = ["name", "generateName", "namespace", "selfLink", "uid", "resourceVersion"];
const COLLECTIONS: [&str; 5] = ["labels", "annotations", "ownerReferences", "finalizers", "managedFields"];

/// Leaves out of metadata what says nothing, as an answer of upstream's does.
pub fn tidy(object: &mut Object) {
    let meta = object.meta_mut();
    meta.retain(|key, value| {
        !(value.is_null()
            || (TEXTS.contains(&key.as_str()) && value == "")
            || (COLLECTIONS.contains(&key.as_str()) && is_empty(value))
            || (key == "generation" && value.as_i64() == Some(0)))
    });
    meta.remove("selfLink");
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Takes out of a new object what only the server says.
pub fn wipe(object: &mut Object) {
    for key in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        object.meta_mut().remove(key);
    }
}

/// An object belongs to the namespace of the request, which is empty for a kind that is in none.
///
/// # Errors
/// It says another one.
pub fn take_namespace(object: &mut Object, of_request: &str) -> Result<()> {
    const OTHER: &str =
        "the namespace of the provided object does not match the namespace sent on the request";
    let own = object.namespace();
    if own == of_request {
        return Ok(());
    }
    if of_request.is_empty() {
        object.meta_mut().remove("namespace");
    } else if own.is_empty() {
        object.set_meta("namespace", of_request);
    } else {
        return Err(Status::bad_request(OTHER));
    }
    Ok(())
}

/// The name in the object is that of the path.
pub fn check_name(object: &Object, of_path: &str) -> Result<()> {
    let name = object.name();
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({of_path} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != of_path {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({of_path})"
        )));
    }
    Ok(())
}

/// Drops references to owners that are there twice; their uids.
pub fn dedup_owners(object: &mut Object) -> Vec<String> {
    let Some(Value::Array(list)) = object.meta_mut().get_mut("ownerReferences") else { return Vec::new() };
    let mut twice = Vec::new();
    let mut once: Vec<Value> = Vec::with_capacity(list.len());
    for owner in list.drain(..) {
        if once.contains(&owner) {
            twice.push(owner.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned());
        } else {
            once.push(owner);
        }
    }
    *list = once;
    twice
}

/// What an update may not change is as it was, where it says nothing of it.
pub fn keep(new: &mut Object, old: &Object) {
    let old = old.meta();
    let was = |key: &str| old.and_then(|meta| meta.get(key)).cloned();
    let meta = new.meta_mut();
    meta.remove("selfLink");
    for key in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(value) = was(key) {
            meta.insert(key.to_owned(), value);
        }
    }
    for key in ["uid", "deletionGracePeriodSeconds"] {
        if let (false, Some(value)) = (meta.get(key).is_some_and(|value| value != ""), was(key)) {
            meta.insert(key.to_owned(), value);
        }
    }
    match was("generation") {
        Some(value) => meta.insert("generation".to_owned(), value),
        None => meta.remove("generation"),
    };
}

/// What is wrong with the metadata of any object.
/// `rule`: what its kind has against a name.
pub fn validate(object: &Object, resource: &Resource, rule: fn(&str) -> Vec<String>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut check = |field: &str, name: &str, prefix: bool| {
        for wrong in [rule(&masked(name, prefix)), names::path_segment(name, prefix)].concat() {
            let cause = Cause::invalid(format!("metadata.{field}"), &name.into(), wrong);
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
    };
    if !object.generate_name().is_empty() {
        check("generateName", object.generate_name(), true);
    }
    if object.name().is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        check("name", object.name(), false);
    }
    if resource.namespaced {
        if object.namespace().is_empty() {
            causes.push(Cause::required("metadata.namespace", ""));
        }
        for wrong in names::dns1123_label(object.namespace()) {
            causes.push(Cause::invalid("metadata.namespace", &object.namespace().into(), wrong));
        }
    } else if !object.namespace().is_empty() {
        causes.push(Cause::forbidden("metadata.namespace", "not allowed on this type"));
    }
    causes.extend(common(object));
    causes.extend(finalizers(object, is_strict(resource)));
    causes
}

/// What is wrong with the metadata of a new version of an object.
pub fn validate_update(
    new: &Object,
    old: &Object,
    resource: &Resource,
    rule: fn(&str) -> Vec<String>,
) -> Vec<Cause> {
    let mut causes = validate(new, resource, rule);
    if old.deletion_timestamp().is_some() {
        let had: BTreeSet<_> = old.finalizers().collect();
        let more: Vec<_> = new
            .finalizers()
            .collect::<BTreeSet<_>>()
            .difference(&had)
            .map(|one| format!("{one:?}"))
            .collect();
        if !more.is_empty() {
            let list = more.join(", ");
            causes.push(Cause::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
                ),
            ));
        }
    }
    let of = |object: &Object, key: &str| object.meta().and_then(|meta| meta.get(key)).cloned();
    for key in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (now, was) = (of(new, key), of(old, key));
        if now != was {
            let now = now.unwrap_or(if TEXTS.contains(&key) { "".into() } else { Value::Null });
            causes.push(Cause::invalid(format!("metadata.{key}"), &now, "field is immutable"));
        }
    }
    causes
}

/// Of the beginning of a name a dash at the end is forgiven, since more comes behind it.
fn masked(name: &str, prefix: bool) -> String {
    match name.strip_suffix('-') {
        Some(name) if prefix && !name.is_empty() => format!("{name}a"),
        _ => name.to_owned(),
    }
}

fn common(object: &Object) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (key, value) in object.labels().into_iter().flatten() {
        for wrong in names::qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &key.as_str().into(), wrong));
        }
        for wrong in names::label_value(value.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid("metadata.labels", value, wrong));
        }
    }
    let mut bytes = 0;
    for (key, value) in object.annotations().into_iter().flatten() {
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        for wrong in names::qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), wrong));
        }
    }
    if bytes > MAX_ANNOTATIONS_BYTES {
        causes.push(Cause::too_long("metadata.annotations", MAX_ANNOTATIONS_BYTES));
    }
    causes.extend(owners(object));
    causes.extend(managers(object));
    causes
}

fn owners(object: &Object) -> Vec<Cause> {
    const FIELD: &str = "metadata.ownerReferences";
    let mut causes = Vec::new();
    let mut controller: Option<String> = None;
    for owner in object.owner_references() {
        let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
        let version = text("apiVersion").rsplit('/').next().unwrap_or_default();
        let empty = [
            ("apiVersion", version, "version must not be empty"),
            ("kind", text("kind"), "must not be empty"),
            ("name", text("name"), "must not be empty"),
            ("uid", text("uid"), "must not be empty"),
        ];
        for (key, value, why) in empty {
            if value.is_empty() {
                causes.push(Cause::invalid(format!("{FIELD}.{key}"), &text(key).into(), why));
            }
        }
        if (text("apiVersion"), text("kind")) == ("v1", "Event") {
            causes.push(Cause::invalid(FIELD, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                let all = object.get(&["metadata", "ownerReferences"]).unwrap_or(&Value::Null);
                causes.push(Cause::invalid(FIELD, all, why));
            } else {
                controller = Some(this);
            }
        }
    }
    causes
}

/// Source: kubernetes `pkg/apis/core/validation` checks more than apimachinery, which apiextensions calls directly.
fn is_strict(resource: &Resource) -> bool {
    let known =
        corten_schema::builtin().resource(&resource.group, &resource.version, &resource.plural).is_some();
    known && resource.group != "apiextensions.k8s.io"
}

/// `strict`: of upstream's own kinds, which want a domain; definitions of custom resources and their objects do not.
fn finalizers(object: &Object, strict: bool) -> Vec<Cause> {
    const FIELD: &str = "metadata.finalizers";
    let mut causes = Vec::new();
    for (at, finalizer) in object.finalizers().enumerate() {
        for wrong in names::qualified(finalizer) {
            causes.push(Cause::invalid(FIELD, &finalizer.into(), wrong));
        }
        if strict && !finalizer.contains('/') && !["kubernetes", ORPHAN, FOREGROUND].contains(&finalizer) {
            let field = format!("{FIELD}[{at}]");
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(field, &finalizer.into(), why));
        }
    }
    let has = |name: &str| object.finalizers().any(|finalizer| finalizer == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let all = object.get(&["metadata", "finalizers"]).unwrap_or(&Value::Null);
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.push(Cause::invalid(FIELD, all, why));
    }
    causes
}

fn managers(object: &Object) -> Vec<Cause> {
    let list = object.get(&["metadata", "managedFields"]).and_then(Value::as_array);
    let mut causes = Vec::new();
    for (at, entry) in list.into_iter().flatten().enumerate() {
        let field = |name: &str| format!("metadata.managedFields[{at}].{name}");
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        if !matches!(text("operation"), "Apply" | "Update") {
            let why = "must be `Apply` or `Update`";
            causes.push(Cause::invalid(field("operation"), &text("operation").into(), why));
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            let why = "must be `FieldsV1`";
            causes.push(Cause::invalid(field("fieldsType"), &text("fieldsType").into(), why));
        }
        causes.extend(manager(text("manager"), &field("manager")));
        if text("subresource").len() > MAX_SUBRESOURCE_BYTES {
            causes.push(Cause::too_long(field("subresource"), MAX_SUBRESOURCE_BYTES));
        }
    }
    causes
}

/// What is wrong with a field manager's name.
pub fn manager(name: &str, field: &str) -> Option<Cause> {
    if name.len() > MAX_MANAGER_BYTES {
        return Some(Cause::too_long(field, MAX_MANAGER_BYTES));
    }
    let (at, wrong) = name.char_indices().find(|(_, letter)| !is_print(*letter))?;
    let why = format!("invalid character U+{:04X} (at position {at})", u32::from(wrong));
    Some(Cause::invalid(field, &name.into(), why))
}

/// The field manager of a request that names none: the program in its User-Agent.
pub fn manager_of(user_agent: &str) -> String {
    let mut name = String::new();
    for letter in user_agent.split('/').next().unwrap_or_default().chars().filter(|one| is_print(*one)) {
        if name.len() + letter.len_utf8() > MAX_MANAGER_BYTES {
            break;
        }
        name.push(letter);
    }
    name
}

/// Go's `unicode.IsPrint`, nearly: of white space the ASCII blank alone.
fn is_print(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::of(value).expect("an object")
    }

    fn resource(kind: &'static str, namespaced: bool) -> Resource {
        Resource {
            group: "".into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: "configmaps".into(),
            singular: "thing".into(),
            short_names: Vec::new().into(),
            categories: Vec::new().into(),
            namespaced,
            verbs: Vec::new().into(),
            subresources: Vec::new().into(),
            ty: corten_schema::TypeId(0),
            prefix: "/registry/things/".into(),
            stored: ("".into(), "v1".into()),
            columns: Vec::new().into(),
        }
    }

    fn wrong(meta: Value) -> Vec<String> {
        let causes = validate(
            &object(json!({"metadata": meta})),
            &resource("ConfigMap", true),
            names::dns1123_subdomain,
        );
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_metadata_is_good() {
        let meta = json!({"name": "a.b", "namespace": "c", "labels": {"x/y": ""}, "annotations": {"A.b/C": "d"},
            "finalizers": ["a.b/c", "orphan"], "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a", "uid": "1", "controller": true}]});
        assert_eq!(wrong(meta), Vec::<String>::new());
    }

    #[test]
    fn bad_metadata_is_told_in_upstreams_words() {
        #[rustfmt::skip]
        let table = [
            (json!({"namespace": "a"}), "metadata.name: Required value: name or generateName is required"),
            (json!({"name": "a", "namespace": "a", "finalizers": ["b"]}), "metadata.finalizers[0]: Invalid value: \"b\": name is neither a standard finalizer name nor is it fully qualified"),
            (json!({"name": "a", "namespace": "a", "finalizers": ["orphan", "foregroundDeletion"]}), "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set"),
            (json!({"name": "a", "namespace": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": ""}]}), "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"),
            (json!({"name": "a", "namespace": "a", "managedFields": [{"operation": "Eat"}]}), "metadata.managedFields[0].operation: Invalid value: \"Eat\": must be `Apply` or `Update`"),
            (json!({"name": "a", "namespace": "a.b"}), "metadata.namespace: Invalid value: \"a.b\": must not contain dots"),
        ];
        for (meta, expected) in table {
            assert_eq!(wrong(meta), [expected]);
        }
        assert_eq!(
            wrong(json!({"name": "a", "namespace": "a", "annotations": {"b": "c".repeat(300_000)}})).len(),
            1
        );
        let cluster = object(json!({"metadata": {"name": "a", "namespace": "b"}}));
        let causes = validate(&cluster, &resource("Node", false), names::dns1123_subdomain);
        assert_eq!(causes[0].to_string(), "metadata.namespace: Forbidden: not allowed on this type");
    }

    #[test]
    fn what_is_immutable_is_compared() {
        let old = object(json!({"metadata": {"name": "a", "namespace": "b", "uid": "1", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z"}}));
        let mut new = object(json!({"metadata": {"name": "a", "namespace": "b", "generation": 9,
            "finalizers": ["x.y/z"], "creationTimestamp": "2020-01-01T00:00:00Z"}}));
        keep(&mut new, &old);
        assert_eq!((new.uid(), new.generation()), ("1", 3));
        let told: Vec<_> =
            validate_update(&new, &old, &resource("ConfigMap", true), names::dns1123_subdomain)
                .iter()
                .map(ToString::to_string)
                .collect();
        let expected = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.y/z\"}";
        assert_eq!(told, [expected]);
        new.set_meta("uid", "2");
        new.meta_mut().remove("finalizers");
        let told = validate_update(&new, &old, &resource("ConfigMap", true), names::dns1123_subdomain);
        assert_eq!(told[0].to_string(), "metadata.uid: Invalid value: \"2\": field is immutable");
    }

    #[test]
    fn an_object_is_in_the_namespace_of_its_request() {
        for (own, request, expected) in
            [("", "a", Some("a")), ("a", "a", Some("a")), ("b", "a", None), ("b", "", Some(""))]
        {
            let mut object = object(json!({"metadata": {"namespace": own}}));
            let taken = take_namespace(&mut object, request).ok().map(|()| object.namespace());
            assert_eq!(taken, expected, "{own} in {request}");
        }
    }

    #[test]
    fn metadata_that_says_nothing_goes() {
        let mut object = object(json!({"metadata": {"name": "a", "labels": {}, "creationTimestamp": null,
            "uid": "", "finalizers": [], "generation": 0, "selfLink": "/a"}}));
        tidy(&mut object);
        assert_eq!(Value::Object(object.0), json!({"metadata": {"name": "a"}}));
    }

    #[test]
    fn the_manager_is_the_program_of_the_user_agent() {
        assert_eq!(manager_of("kubectl/v1.36.0 (linux/amd64)"), "kubectl");
        assert_eq!(manager_of("a\u{7}b/1"), "ab");
        assert_eq!(manager_of(&"ä".repeat(100)).len(), 128);
        assert!(manager("a\nb", "fieldManager").is_some());
    }
}
