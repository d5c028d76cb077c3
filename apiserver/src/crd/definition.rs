//! What a CustomResourceDefinition must be, and what the server makes of a new one.
//! Source: apiextensions `pkg/apis/apiextensions/{validation,v1/defaults.go}`, `pkg/registry/customresourcedefinition`.

use serde_json::{Value, json};

use super::schema::{Items, Schema, SchemaOrBool};
use super::{format, rules, structural, value};
use crate::kinds::{Kind, Preparing};
use crate::names::{dns1035_label, dns1123_subdomain};
use crate::object::Object;
use crate::status::Cause;

/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const MAX_SELECTABLE: usize = 8;

pub static KIND: Kind = Kind {
    default,
    prepare_create,
    prepare_update,
    prepare_subresource: prepare_status,
    validate,
    validate_update,
    validate_subresource: |_, new, _| {
        let mut causes = Vec::new();
        stored_versions(new, &mut causes);
        causes
    },
    warn,
    counts_generations: true,
    unconditional_update: false,
    finalizer: Some(CLEANUP),
    ..Kind::PLAIN
};

pub fn default(definition: &mut Object) {
    let Some(spec) = definition.0.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("conversion").is_none_or(Value::is_null) {
        spec.insert("conversion".into(), json!({"strategy": "None"}));
    }
    let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) else { return };
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_empty = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().is_empty();
    if is_empty(names.get("singular")) {
        names.insert("singular".into(), kind.to_lowercase().into());
    }
    if is_empty(names.get("listKind")) && !kind.is_empty() {
        names.insert("listKind".into(), format!("{kind}List").into());
    }
}

pub fn prepare_create(definition: &mut Object, _: &Preparing<'_>) {
    let stored: Vec<_> = storage_version(definition).into_iter().collect();
    definition.0.insert("status".into(), json!({"storedVersions": stored}));
}

pub fn prepare_update(new: &mut Object, old: &Object, _: &Preparing<'_>) {
    match old.0.get("status") {
        Some(status) => new.0.insert("status".into(), status.clone()),
        None => new.0.remove("status"),
    };
    let Some(version) = storage_version(new) else { return };
    let status = new.0.entry("status").or_insert_with(|| json!({}));
    if !status["storedVersions"].is_array() {
        status["storedVersions"] = json!([]);
    }
    let stored = status["storedVersions"].as_array_mut().expect("made above");
    if !stored.iter().any(|one| one == &version) {
        stored.push(version.into());
    }
}

/// The status path changes nothing else.
pub fn prepare_status(_: &str, new: &mut Object, old: &Object, _: &Preparing<'_>) {
    match old.0.get("spec") {
        Some(spec) => new.0.insert("spec".into(), spec.clone()),
        None => new.0.remove("spec"),
    };
}

fn storage_version(definition: &Object) -> Option<String> {
    versions(definition)
        .find(|version| version["storage"] == true)
        .and_then(|version| Some(version["name"].as_str()?.to_owned()))
}

pub fn versions(definition: &Object) -> impl Iterator<Item = &Value> {
    definition.get(&["spec", "versions"]).and_then(Value::as_array).into_iter().flatten()
}

pub fn warn(definition: &Object) -> Vec<String> {
    let mut warnings = Vec::new();
    for schema in versions(definition).filter_map(|version| parsed(version).ok().flatten()) {
        unknown_formats(&schema, &mut warnings);
    }
    warnings.dedup();
    warnings
}

fn unknown_formats(schema: &Schema, warnings: &mut Vec<String>) {
    if !schema.format.is_empty() && !schema.int_or_string && format::of_schema(schema).is_none() {
        warnings.push(format!("unrecognized format {:?}", schema.format));
    }
    schema.within().for_each(|schema| unknown_formats(schema, warnings));
}

pub fn validate(definition: &Object) -> Vec<Cause> {
    hoisted(definition, judge(definition, None))
}

/// Upstream judges a definition in a form in which a schema that all versions have stands once, as `spec.validation`.
fn hoisted(definition: &Object, mut causes: Vec<Cause>) -> Vec<Cause> {
    let mut schemas = versions(definition).map(|version| &version["schema"]);
    let first = schemas.next();
    if first.is_none_or(|first| schemas.any(|schema| schema != first)) {
        return causes;
    }
    causes.retain(|cause| {
        !cause.field.starts_with("spec.versions[")
            || !cause.field.contains("].schema")
            || cause.field.starts_with("spec.versions[0].schema")
    });
    for cause in &mut causes {
        if let Some(rest) = cause.field.strip_prefix("spec.versions[0].schema") {
            cause.field = format!("spec.validation{rest}");
            cause.message = cause.message.replace("spec.versions[0].schema", "spec.validation");
        }
    }
    causes
}

pub fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    let mut causes = hoisted(new, judge(new, Some(old)));
    let mut keep = |path: &[&str]| {
        let (is, was) = (new.get(path), old.get(path));
        if is != was {
            causes.push(Cause::invalid(path.join("."), is.unwrap_or(&Value::Null), "field is immutable"));
        }
    };
    if super::names::is(old, "Established") {
        keep(&["spec", "scope"]);
        keep(&["spec", "names", "kind"]);
    }
    keep(&["spec", "group"]);
    keep(&["spec", "names", "plural"]);
    causes
}

fn judge(definition: &Object, old: Option<&Object>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = |path: &[&str]| {
        let path: Vec<_> = std::iter::once("spec").chain(path.iter().copied()).collect();
        definition.text(&path)
    };
    let wanted = format!("{}.{}", spec(&["names", "plural"]), spec(&["group"]));
    if definition.name() != wanted && !definition.name().is_empty() {
        let what = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &definition.name().into(), what));
    }
    let group = spec(&["group"]);
    let wrong = dns1123_subdomain(group).join(",");
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !wrong.is_empty() {
        causes.push(Cause::invalid("spec.group", &group.into(), wrong));
    } else if !group.contains('.') {
        causes.push(Cause::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    match spec(&["scope"]) {
        "Cluster" | "Namespaced" => {}
        "" => causes.push(Cause::required("spec.scope", "")),
        other => causes.push(Cause::unsupported("spec.scope", &other.into(), &["Cluster", "Namespaced"])),
    }
    of_versions(definition, old, &mut causes);
    let names = definition.get(&["spec", "names"]).cloned().unwrap_or_default();
    for name in ["plural", "singular", "kind", "listKind"] {
        if names[name].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("spec.names.{name}"), ""));
        }
    }
    of_names(&names, &mut causes);
    of_conversion(definition, &mut causes);
    if definition.get(&["spec", "preserveUnknownFields"]) == Some(&Value::Bool(true)) {
        let what = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        causes.push(Cause::invalid("spec.preserveUnknownFields", &true.into(), what));
    }
    stored_versions(definition, &mut causes);
    causes.extend(approval(definition));
    causes
}

fn of_names(names: &Value, causes: &mut Vec<Cause>) {
    let mut check = |field: String, value: &Value, lower: bool| {
        let text = value.as_str().unwrap_or_default();
        let wrong = dns1035_label(&if lower { text.to_lowercase() } else { text.to_owned() }).join(",");
        if !text.is_empty() && !wrong.is_empty() {
            let mixed = if lower { "may have mixed case, but should otherwise match: " } else { "" };
            causes.push(Cause::invalid(field, value, format!("{mixed}{wrong}")));
        }
    };
    check("spec.names.plural".into(), &names["plural"], false);
    check("spec.names.singular".into(), &names["singular"], false);
    check("spec.names.kind".into(), &names["kind"], true);
    check("spec.names.listKind".into(), &names["listKind"], true);
    for list in ["shortNames", "categories"] {
        for (at, name) in names[list].as_array().into_iter().flatten().enumerate() {
            check(format!("spec.names.{list}[{at}]"), name, false);
        }
    }
    if names["kind"] == names["listKind"] && names["kind"].as_str().is_some_and(|kind| !kind.is_empty()) {
        causes.push(Cause::invalid(
            "spec.names.listKind",
            &names["listKind"],
            "kind and listKind may not be the same",
        ));
    }
}

fn of_versions(definition: &Object, old: Option<&Object>, causes: &mut Vec<Cause>) {
    let list: Vec<_> = versions(definition).collect();
    let all = || Value::from(list.iter().map(|one| (*one).clone()).collect::<Vec<_>>());
    for (at, version) in list.iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        let name = version["name"].as_str().unwrap_or_default();
        let wrong = dns1035_label(name).join(",");
        if !wrong.is_empty() {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), wrong));
        }
        deprecation(version, &path, causes);
        let before = old.and_then(|old| versions(old).find(|one| one["name"] == version["name"]));
        // A schema that is there already stays, also when a later server would refuse it.
        if before.is_none_or(|before| before["schema"] != version["schema"]) {
            of_schema(version, &path, causes);
        }
        subresources(version, &path, causes);
        columns(version, &path, causes);
        selectable(version, &path, causes);
    }
    let unique =
        list.iter().enumerate().all(|(at, one)| list[..at].iter().all(|other| other["name"] != one["name"]));
    if !unique {
        causes.push(Cause::invalid("spec.versions", &all(), "must contain unique version names"));
    }
    if list.iter().filter(|version| version["storage"] == true).count() != 1 {
        let what = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &all(), what));
    }
}

fn deprecation(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(text) = version["deprecationWarning"].as_str() else { return };
    let field = format!("{path}.deprecationWarning");
    let mut wrong = |what: &str| causes.push(Cause::invalid(field.clone(), &text.into(), what));
    if version["deprecated"] != true {
        return wrong("can only be set for deprecated versions");
    }
    if text.len() > 256 {
        wrong("must be <= 256 characters long");
    }
    if text.is_empty() {
        wrong("must not be an empty string");
    }
    if let Some(at) = text.char_indices().find(|(_, c)| c.is_control()).map(|(at, _)| at) {
        wrong(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

/// A version's schema; `None`: it has none.
pub fn parsed(version: &Value) -> Result<Option<Schema>, serde_json::Error> {
    match &version["schema"]["openAPIV3Schema"] {
        Value::Null => Ok(None),
        raw => Schema::deserialize_from(raw).map(Some),
    }
}

fn of_schema(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let path = format!("{path}.schema.openAPIV3Schema");
    let schema = match parsed(version) {
        Ok(Some(schema)) => schema,
        Ok(None) => return causes.push(Cause::required(path, "")),
        Err(error) => return causes.push(Cause::invalid(path, &"".into(), error)),
    };
    if version["subresources"]["status"].is_object() {
        status_root(&schema, &version["schema"]["openAPIV3Schema"], &path, causes);
    }
    if schema.nullable {
        causes.push(Cause::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let before = causes.len();
    causes.extend(structural::problems(&schema, &path));
    if causes.len() == before {
        defaults(&schema, &path, causes);
    }
    let mut walk = Walk { causes, ok: true };
    walk.schema(&schema, &path, &Place { root: true, ..Place::default() });
}

/// Status can only be judged alone when the root says little.
fn status_root(schema: &Schema, raw: &Value, path: &str, causes: &mut Vec<Cause>) {
    const ALLOWED: [&str; 22] = [
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    if schema.ty != "object" {
        let what = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        causes.push(Cause::invalid(format!("{path}.type"), &schema.ty.as_str().into(), what));
    }
    let used = raw.as_object().into_iter().flatten();
    if let Some((key, _)) =
        used.filter(|(_, value)| !is_zero(value)).find(|(key, _)| !ALLOWED.contains(&key.as_str()))
    {
        let what = format!(
            "{key} is not allowed: only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled"
        );
        causes.push(Cause::invalid(path, raw, what));
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Each default fits its schema and has no field that would be pruned.
fn defaults(schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    if let Some(default) = &schema.default {
        let field = format!("{path}.default");
        if !is_pruned(schema, default) {
            causes.push(Cause::invalid(field.clone(), default, "must not have unknown fields"));
        }
        causes.extend(value::validate(schema, default, None, Some(&field)));
    }
    if let Some(item) = schema.item() {
        defaults(item, &format!("{path}.items"), causes);
    }
    for (name, property) in &schema.properties {
        defaults(property, &format!("{path}.properties[{name}]"), causes);
    }
    if let Some(additional) = schema.additional() {
        defaults(additional, &format!("{path}.additionalProperties"), causes);
    }
}

fn is_pruned(schema: &Schema, value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().all(|(key, value)| match schema.properties.get(key) {
            Some(property) => is_pruned(property, value),
            None if schema.preserves_unknown() => true,
            None if schema.embedded => matches!(key.as_str(), "apiVersion" | "kind" | "metadata"),
            None => match &schema.additional_properties {
                Some(SchemaOrBool::Schema(schema)) => is_pruned(schema, value),
                Some(SchemaOrBool::Bool(allows)) => *allows,
                None => false,
            },
        }),
        Value::Array(list) => {
            list.iter().all(|value| schema.item().is_none_or(|schema| is_pruned(schema, value)))
        }
        _ => true,
    }
}

/// Where in a schema something is, as far as rules for it depend on that.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// In metadata, kind or apiVersion.
    in_meta: bool,
    /// Why there may be no default.
    no_default: Option<String>,
    /// The first place above where old and new cannot be told to be the same.
    uncorrelated: Option<String>,
    /// In allOf and its like: rules are not compiled there.
    nested: bool,
}

struct Walk<'a> {
    causes: &'a mut Vec<Cause>,
    ok: bool,
}

impl Walk<'_> {
    fn push(&mut self, cause: Cause) {
        self.ok = false;
        self.causes.push(cause);
    }

    fn forbid(&mut self, wrong: bool, path: &str, field: &str, what: &str) {
        if wrong {
            self.push(Cause::forbidden(format!("{path}.{field}"), what));
        }
    }

    fn schema(&mut self, schema: &Schema, path: &str, place: &Place) {
        self.unsupported(schema, path, place);
        self.lists_and_maps(schema, path);
        let inner = Place { root: false, ..place.clone() };
        if let Some(additional) = &schema.additional_properties {
            if !schema.properties.is_empty() && *additional != SchemaOrBool::Bool(true) {
                self.push(Cause::forbidden(
                    format!("{path}.additionalProperties"),
                    "additionalProperties and properties are mutual exclusive",
                ));
            }
            if let SchemaOrBool::Schema(additional) = additional {
                let mut inner = inner.clone();
                if place.in_meta {
                    inner.no_default = Some("inside additionalProperties applying to object metadata".into());
                }
                self.schema(additional, &format!("{path}.additionalProperties"), &inner);
            }
        }
        for (name, property) in &schema.properties {
            let mut inner = inner.clone();
            if schema.map_type.as_deref() == Some("atomic") {
                inner.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            if (place.root || schema.embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion")
            {
                inner.in_meta = true;
                if place.root {
                    inner.no_default = Some(format!("in top-level {name}"));
                }
            }
            self.schema(property, &format!("{path}.properties[{name}]"), &inner);
        }
        let nested = Place { nested: true, ..inner.clone() };
        if let Some(not) = &schema.not {
            self.schema(not, &format!("{path}.not"), &nested);
        }
        for (name, list) in [("allOf", &schema.all_of), ("oneOf", &schema.one_of), ("anyOf", &schema.any_of)]
        {
            for (at, one) in list.iter().enumerate() {
                self.schema(one, &format!("{path}.{name}[{at}]"), &nested);
            }
        }
        if let Some(item) = schema.item() {
            let mut inner = inner;
            if schema.list_type.as_deref() != Some("map") {
                inner.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            self.schema(item, &format!("{path}.items"), &inner);
        }
        self.rules(schema, path, place);
    }

    fn unsupported(&mut self, schema: &Schema, path: &str, place: &Place) {
        const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
        if schema.ty == "null" {
            let what = "type cannot be set to null, use nullable as an alternative";
            self.push(Cause::forbidden(format!("{path}.type"), what));
        } else if !schema.ty.is_empty() && !TYPES.contains(&&*schema.ty) {
            self.push(Cause::unsupported(format!("{path}.type"), &schema.ty.as_str().into(), &TYPES));
        }
        if let (Some(_), Some(why)) = (&schema.default, &place.no_default) {
            self.push(Cause::forbidden(format!("{path}.default"), format!("must not be set {why}")));
        }
        self.forbid(!schema.id.is_empty(), path, "id", "id is not supported");
        self.forbid(
            schema.additional_items.is_some(),
            path,
            "additionalItems",
            "additionalItems is not supported",
        );
        let patterns = !schema.pattern_properties.is_empty();
        self.forbid(patterns, path, "patternProperties", "patternProperties is not supported");
        self.forbid(!schema.definitions.is_empty(), path, "definitions", "definitions is not supported");
        self.forbid(!schema.dependencies.is_empty(), path, "dependencies", "dependencies is not supported");
        self.forbid(schema.reference.is_some(), path, "$ref", "$ref is not supported");
        let each = matches!(schema.items, Some(Items::Each(_)));
        self.forbid(each, path, "items", "items must be a schema object and not an array");
        let what = "must not be used inside of resource meta";
        self.forbid(place.in_meta && schema.embedded, path, "x-kubernetes-embedded-resource", what);
        let what = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        self.forbid(schema.unique_items, path, "uniqueItems", what);
        if schema.preserve_unknown == Some(false) {
            let field = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.push(Cause::invalid(field, &false.into(), "must be true or undefined"));
        }
    }

    fn lists_and_maps(&mut self, schema: &Schema, path: &str) {
        let at = |field: &str| format!("{path}.{field}");
        let ty = Value::from(schema.ty.as_str());
        let mut of_type = |wanted: &str, extension: &str| {
            let what = format!("must be {wanted} if {extension} is specified");
            self.push(match &*schema.ty {
                "" => Cause::required(at("type"), &what),
                _ => Cause::invalid(at("type"), &ty, what),
            });
        };
        if schema.map_type.is_some() && schema.ty != "object" {
            of_type("object", "x-kubernetes-map-type");
        }
        if schema.list_type.is_some() && schema.ty != "array" {
            of_type("array", "x-kubernetes-list-type");
        }
        if let Some(map) = schema.map_type.as_deref().filter(|map| !matches!(*map, "atomic" | "granular")) {
            self.push(Cause::unsupported(at("x-kubernetes-map-type"), &map.into(), &["atomic", "granular"]));
        }
        let list = schema.list_type.as_deref();
        if let Some(list) = list.filter(|list| !matches!(*list, "atomic" | "set" | "map")) {
            self.push(Cause::unsupported(
                at("x-kubernetes-list-type"),
                &list.into(),
                &["atomic", "set", "map"],
            ));
        }
        if let (Some("set"), Some(item)) = (list, schema.item()) {
            let what = "must be atomic as item of a list with x-kubernetes-list-type=set";
            if item.ty == "array" && item.list_type.as_deref().is_some_and(|list| list != "atomic") {
                self.push(Cause::invalid(
                    at("items.x-kubernetes-list-type"),
                    &item.list_type.clone().into(),
                    what,
                ));
            }
            if item.ty == "object" && item.map_type.as_deref() != Some("atomic") {
                self.push(Cause::invalid(
                    at("items.x-kubernetes-map-type"),
                    &item.list_type.clone().into(),
                    what,
                ));
            }
        }
        if !schema.list_map_keys.is_empty() && list != Some("map") {
            let what = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.push(match list {
                None => Cause::required(at("x-kubernetes-list-type"), what),
                Some(list) => Cause::invalid(at("x-kubernetes-list-type"), &list.into(), what),
            });
        }
        if matches!(list, Some("set" | "map")) && schema.item().is_some_and(|item| item.nullable) {
            self.push(Cause::forbidden(
                at("items.nullable"),
                "cannot be nullable when x-kubernetes-list-type is map or set",
            ));
        }
        if list == Some("map") {
            self.keys(schema, path);
        }
    }

    fn keys(&mut self, schema: &Schema, path: &str) {
        let at = |field: &str| format!("{path}.{field}");
        if schema.list_map_keys.is_empty() {
            let what = "must not be empty if x-kubernetes-list-type is map";
            self.push(Cause::required(at("x-kubernetes-list-map-keys"), what));
        }
        let Some(item) = schema.item() else {
            return self
                .push(Cause::required(at("items"), "must have a schema if x-kubernetes-list-type is map"));
        };
        if item.ty != "object" {
            let what = "must be object if parent array's x-kubernetes-list-type is map";
            return self.push(Cause::invalid(at("items.type"), &item.ty.as_str().into(), what));
        }
        let keys = Value::from(schema.list_map_keys.clone());
        for (nth, key) in schema.list_map_keys.iter().enumerate() {
            let property = |field: &str| at(&format!("items.properties[{key}].{field}"));
            if let Some(of) = item.properties.get(key) {
                if matches!(&*of.ty, "array" | "object") {
                    let what = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.push(Cause::invalid(property("type"), &item.ty.as_str().into(), what));
                }
                if !item.required.contains(key) && of.default.is_none() {
                    let what = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                    self.push(Cause::required(property("default"), what));
                }
                if of.nullable {
                    let what = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                    self.push(Cause::forbidden(property("nullable"), what));
                }
            } else {
                let what = "entries must all be names of item properties";
                self.push(Cause::invalid(at("x-kubernetes-list-map-keys"), &keys, what));
            }
            if schema.list_map_keys[..nth].contains(key) {
                let what = "must not contain duplicate entries";
                self.push(Cause::invalid(at("x-kubernetes-list-map-keys"), &keys, what));
            }
        }
    }

    fn rules(&mut self, schema: &Schema, path: &str, place: &Place) {
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        for (at, rule) in schema.rules.iter().enumerate() {
            let field = |name: &str| format!("{path}.x-kubernetes-validations[{at}].{name}");
            let (text, message) = (rule.rule.trim(), rule.message.trim());
            if text.is_empty() {
                self.push(Cause::required(field("rule"), "rule is not specified"));
                continue;
            }
            let given = Value::from(rule.message.as_str());
            if !rule.message.is_empty() && message.is_empty() {
                self.push(Cause::invalid(field("message"), &given, "must be non-empty if specified"));
            } else if has_newline(message) {
                self.push(Cause::invalid(field("message"), &given, "must not contain line breaks"));
            } else if has_newline(text) && message.is_empty() {
                self.push(Cause::required(
                    field("message"),
                    "message must be specified if rule contains line breaks",
                ));
            }
            if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
                self.push(Cause::unsupported(field("reason"), &reason.into(), &REASONS));
            }
            if has_newline(&rule.field_path) {
                let given = rule.field_path.as_str().into();
                self.push(Cause::invalid(field("fieldPath"), &given, "must not contain line breaks"));
            }
            if !self.ok || place.nested {
                continue;
            }
            let shown = json!({"rule": rule.rule, "message": rule.message});
            if let Some(why) = rules::problem(&rule.rule) {
                self.push(Cause::invalid(field("rule"), &shown, why));
            } else if rule.rule.contains("oldSelf") {
                if let Some(above) = &place.uncorrelated {
                    let what = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {above}"
                    );
                    self.push(Cause::invalid(field("rule"), &rule.rule.as_str().into(), what));
                }
            } else if let Some(optional) = rule.optional_old_self {
                let what = "may not be set if oldSelf is not used in rule";
                self.push(Cause::invalid(field("optionalOldSelf"), &optional.into(), what));
            }
            let expression = rule.message_expression.trim();
            if !rule.message_expression.is_empty() && expression.is_empty() {
                self.push(Cause::required(
                    field("messageExpression"),
                    "messageExpression must be non-empty if specified",
                ));
            } else if let Some(why) = rules::problem(expression).filter(|_| !expression.is_empty()) {
                self.push(Cause::invalid(
                    field("messageExpression"),
                    &shown,
                    format!("messageExpression {why}"),
                ));
            }
        }
    }
}

fn has_newline(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

fn subresources(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(scale) = version["subresources"]["scale"].as_object() else { return };
    let path = format!("{path}.subresources.scale");
    let mut check = |name: &str, under: &[&str], what: &str, required: bool| {
        let text = scale.get(name).and_then(Value::as_str).unwrap_or_default();
        let field = format!("{path}.{name}");
        if text.is_empty() {
            if required {
                causes.push(Cause::required(field, ""));
            }
        } else if !text.starts_with('.') {
            causes.push(Cause::invalid(field, &text.into(), "must be a simple json path starting with ."));
        } else if !under.iter().any(|under| text.starts_with(under)) {
            causes.push(Cause::invalid(field, &text.into(), what));
        }
    };
    check("specReplicasPath", &[".spec."], "should be a json path under .spec", true);
    check("statusReplicasPath", &[".status."], "should be a json path under .status", true);
    let what = "should be a json path under either .spec or .status";
    check("labelSelectorPath", &[".spec.", ".status."], what, false);
}

fn columns(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for (at, column) in version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate() {
        let field = |name: &str| format!("{path}.additionalPrinterColumns[{at}].{name}");
        let text = |name: &str| column[name].as_str().unwrap_or_default();
        if text("name").is_empty() {
            causes.push(Cause::required(field("name"), ""));
        }
        let one_of = format!("must be one of {}", TYPES.join(","));
        match text("type") {
            "" => causes.push(Cause::required(field("type"), &one_of)),
            ty if !TYPES.contains(&ty) => causes.push(Cause::invalid(field("type"), &ty.into(), one_of)),
            _ => {}
        }
        let format = text("format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            let what = format!("must be one of {}", FORMATS.join(","));
            causes.push(Cause::invalid(field("format"), &format.into(), what));
        }
        match text("jsonPath") {
            "" => causes.push(Cause::required(field("JSONPath"), "")),
            given if !given.starts_with('.') => {
                let what = "must be a simple json path starting with .";
                causes.push(Cause::invalid(field("JSONPath"), &given.into(), what));
            }
            _ => {}
        }
    }
}

fn selectable(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let path = format!("{path}.selectableFields");
    let Some(fields) = version["selectableFields"].as_array().filter(|fields| !fields.is_empty()) else {
        return;
    };
    let Ok(Some(schema)) = parsed(version) else { return };
    let mut seen = Vec::new();
    for (at, field) in fields.iter().enumerate() {
        let path = format!("{path}[{at}].jsonPath");
        let given = field["jsonPath"].as_str().unwrap_or_default();
        let shown = Value::from(given);
        if given.is_empty() {
            causes.push(Cause::required(path, ""));
            continue;
        }
        let steps: Vec<_> = given.trim_start_matches('.').split('.').collect();
        let found = steps.iter().try_fold(&schema, |schema, step| schema.properties.get(*step));
        if !given.starts_with('.') || found.is_none() {
            let what = "is an invalid path: does not refer to a valid field";
            causes.push(Cause::invalid(path, &shown, what));
            continue;
        }
        if steps[0] == "metadata" {
            causes.push(Cause::invalid(path.clone(), &shown, "must not point to fields in metadata"));
        }
        if !found.is_some_and(|found| matches!(&*found.ty, "string" | "boolean" | "integer")) {
            let what = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            causes.push(Cause::invalid(path.clone(), &shown, what));
        }
        if seen.contains(&given) {
            causes.push(Cause::duplicate(path, &shown));
        }
        seen.push(given);
    }
    seen.sort_unstable();
    seen.dedup();
    if seen.len() > MAX_SELECTABLE {
        causes.push(Cause::too_many(path, seen.len(), MAX_SELECTABLE));
    }
}

fn of_conversion(definition: &Object, causes: &mut Vec<Cause>) {
    let path = "spec.conversion";
    match definition.text(&["spec", "conversion", "strategy"]) {
        "None" => {
            if definition.get(&["spec", "conversion", "webhook"]).is_some() {
                let what = "should not be set when strategy is not set to Webhook";
                causes.push(Cause::forbidden(format!("{path}.webhookClientConfig"), what));
            }
        }
        "" => causes.push(Cause::required(format!("{path}.strategy"), "")),
        "Webhook" => {
            let what =
                "Webhook is not served by this API server: give all versions one schema and strategy None";
            causes.push(Cause::forbidden(format!("{path}.strategy"), what));
        }
        other => {
            causes.push(Cause::unsupported(format!("{path}.strategy"), &other.into(), &["None", "Webhook"]));
        }
    }
}

fn stored_versions(definition: &Object, causes: &mut Vec<Cause>) {
    const PATH: &str = "status.storedVersions";
    let empty = json!([]);
    let stored = definition.get(&["status", "storedVersions"]).unwrap_or(&empty);
    let names: Vec<_> = stored.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        return causes.push(Cause::invalid(PATH, stored, "must have at least one stored version"));
    }
    if let Some(version) = storage_version(definition).filter(|version| !names.contains(&version.as_str())) {
        causes.push(Cause::invalid(PATH, stored, format!("must have the storage version {version}")));
    }
    for (at, name) in names.iter().enumerate() {
        if !versions(definition).any(|version| version["name"] == *name) {
            let what = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            causes.push(Cause::invalid(format!("{PATH}[{at}]"), &(*name).into(), what));
        }
    }
}

/// Groups of Kubernetes itself want to be approved. KEP-2337.
fn approval(definition: &Object) -> Option<Cause> {
    const KEY: &str = "api-approved.kubernetes.io";
    let group = definition.text(&["spec", "group"]);
    let protected = |suffix: &str| group == suffix || group.ends_with(&format!(".{suffix}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return None;
    }
    let given =
        definition.annotations().and_then(|all| all.get(KEY)).and_then(Value::as_str).unwrap_or_default();
    let fine = given.starts_with("unapproved") || given.contains("://");
    if fine {
        return None;
    }
    let what = format!(
        "protected groups must have approval annotation \"{KEY}\", see https://github.com/kubernetes/enhancements/pull/1111"
    );
    let field = format!("metadata.annotations[{KEY}]");
    Some(match given {
        "" => Cause::required(field, &what),
        given => Cause::invalid(field, &given.into(), what),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(schema: Value) -> Object {
        let mut definition = Object::of(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.example.org"}, "spec": {"group": "example.org", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}}))
        .expect("an object");
        default(&mut definition);
        let user = crate::auth::User::default();
        prepare_create(&mut definition, &Preparing { user: &user, now: "" });
        definition
    }

    fn told(definition: &Object) -> Vec<String> {
        validate(definition).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_definition_gets_its_defaults_and_is_fine() {
        let made = definition(json!({"type": "object"}));
        assert_eq!(told(&made), [""; 0]);
        assert_eq!(made.text(&["spec", "names", "singular"]), "thing");
        assert_eq!(made.text(&["spec", "names", "listKind"]), "ThingList");
        assert_eq!(made.get(&["status", "storedVersions"]), Some(&json!(["v1"])));
    }

    #[test]
    fn what_is_wrong_with_a_definition_is_told_in_upstreams_words() {
        const AT: &str = "spec.validation.openAPIV3Schema";
        #[rustfmt::skip]
        let table = [
            (json!({"properties": {"a": {"type": "string"}}}), format!("{AT}.type: Required value: must not be empty at the root")),
            (json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
                format!(r#"{AT}.properties[a].default: Invalid value: "string": {AT}.properties[a].default in body must be of type integer: "string""#)),
            (json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true, "items": {"type": "string"}}}}),
                format!("{AT}.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic")),
            (json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}}),
                format!("{AT}.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map")),
            (json!({"type": "object", "x-kubernetes-validations": [{"rule": " "}]}),
                format!("{AT}.x-kubernetes-validations[0].rule: Required value: rule is not specified")),
        ];
        for (schema, expected) in table {
            let told = told(&definition(schema));
            let expected = expected.replace(&format!("{AT}.properties[a].default in body"), " in body");
            assert!(
                told.contains(&expected)
                    || told
                        .iter()
                        .any(|one| one.starts_with(expected.split(" in body").next().unwrap_or_default())),
                "{expected}\n{told:?}"
            );
        }
        let mut made = definition(json!({"type": "object"}));
        made.set_meta("name", "other.example.org");
        assert_eq!(
            told(&made),
            [
                r#"metadata.name: Invalid value: "other.example.org": must be spec.names.plural+"."+spec.group"#
            ]
        );
        let mut made = definition(json!({"type": "object"}));
        made.0["spec"]["conversion"] = json!({"strategy": "Webhook"});
        assert!(told(&made)[0].starts_with("spec.conversion.strategy: Forbidden: Webhook is not served"));
        let mut made = definition(json!({"type": "object"}));
        made.0["status"]["storedVersions"] = json!(["v0", "v1"]);
        assert!(
            told(&made)[0]
                .starts_with("status.storedVersions[0]: Invalid value: \"v0\": missing from spec.versions")
        );
    }

    #[test]
    fn group_plural_and_once_established_kind_and_scope_stay() {
        let old = definition(json!({"type": "object"}));
        let mut new = old.clone();
        new.0["spec"]["names"]["kind"] = json!("Other");
        assert_eq!(validate_update(&new, &old).len(), 0);
        let mut old = old;
        old.0["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        let told: Vec<_> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(told, [r#"spec.names.kind: Invalid value: "Other": field is immutable"#]);
    }
}
