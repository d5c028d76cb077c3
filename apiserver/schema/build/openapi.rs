//! The OpenAPI v3 documents of built-in kinds: upstream's schemas with its extensions put back in, and the paths of their
//! resources; compressed, for they are only ever handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::facts::Facts;
use crate::kinds::Roots;
use crate::paths::{self, Row, Sub};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// What documents of custom resources refer to.
const SHARED: [&str; 4] = ["DeleteOptions", "ListMeta", "ObjectMeta", "Status"];

/// Writes the documents to `out` and returns the Rust that has them.
pub fn documents(roots: &Roots, facts: &Facts, out: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let schemas = schemas(roots, facts);
    let names: BTreeMap<(&str, &str, &str), &str> = roots
        .kinds
        .iter()
        .map(|kind| ((kind.group.as_str(), kind.version.as_str(), kind.kind.as_str()), kind.name.as_str()))
        .collect();
    let name_of = |group: &str, version: &str, kind: &str| {
        names.get(&(group, version, kind)).map(|name| (*name).to_owned())
    };
    let mut rust = String::new();
    let mut rows = Vec::new();
    for group in &facts.groups {
        for version in group[1].as_array().into_iter().flatten() {
            let (group, version) =
                (group[0].as_str().unwrap_or_default(), version.as_str().unwrap_or_default());
            let mut all = Map::new();
            for row in facts.resources.iter().filter(|row| row["group"] == group && row["version"] == version)
            {
                if names.contains_key(&(group, version, row["kind"].as_str().unwrap_or_default())) {
                    all.append(&mut paths::paths(&self::row(row), &name_of));
                }
            }
            let wanted = roots.kinds.iter().filter(|kind| kind.group == group && kind.version == version);
            let mut wanted: BTreeSet<String> = wanted.map(|kind| kind.name.clone()).collect();
            references(&Value::Object(all.clone()), &mut wanted);
            let document = json!({
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": "unversioned"},
                "paths": all,
                "components": {"schemas": closure(&schemas, wanted)},
            });
            let text = document.to_string();
            let path = paths::base(group, version).trim_start_matches('/').to_owned();
            let file = format!("openapi-{}.json.gz", path.replace('/', "-"));
            std::fs::write(out.join(&file), gzip(text.as_bytes())?)?;
            let hash: String =
                Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
            rows.push((path, hash, file));
        }
    }
    let _ = writeln!(rust, "static DOCUMENTS: [BuiltIn; {}] = [", rows.len());
    for (path, hash, file) in rows {
        let _ = writeln!(
            rust,
            "BuiltIn {{ path: {path:?}, hash: {hash:?}, gzip: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}\")) }},"
        );
    }
    rust.push_str("];\n");
    let shared = closure(
        &schemas,
        SHARED.iter().map(|name| format!("{META}.{name}")).chain([format!("{META}.Patch")]).collect(),
    );
    std::fs::write(out.join("openapi-shared.json"), Value::Object(shared).to_string())?;
    Ok(rust)
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

fn row(row: &Value) -> Row {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let texts = |row: &Value, name: &str| {
        row[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let sub = |row: &Value| Sub {
        name: text(row, "name"),
        group: text(row, "group"),
        version: text(row, "version"),
        kind: text(row, "kind"),
        verbs: texts(row, "verbs"),
    };
    Row {
        group: text(row, "group"),
        version: text(row, "version"),
        kind: text(row, "kind"),
        plural: text(row, "plural"),
        namespaced: row["namespaced"] == true,
        verbs: texts(row, "verbs"),
        subresources: row["subresources"].as_array().into_iter().flatten().map(sub).collect(),
        strategic: true,
    }
}

/// What is referred to, from wherever it is.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|name| name.strip_prefix("#/components/schemas/"))
            {
                found.insert(name.to_owned());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn closure(schemas: &BTreeMap<String, Value>, mut wanted: BTreeSet<String>) -> Map<String, Value> {
    let mut all = Map::new();
    while let Some(name) = wanted.pop_first() {
        let Some(schema) = schemas.get(&name) else { panic!("{name} has no schema") };
        if !all.contains_key(&name) {
            references(schema, &mut wanted);
            all.insert(name, schema.clone());
        }
    }
    all
}

fn schemas(roots: &Roots, facts: &Facts) -> BTreeMap<String, Value> {
    let mut schemas: BTreeMap<String, Value> = roots
        .definitions
        .iter()
        .map(|(name, schema)| (name.clone(), of_type(name, schema, facts.of(name))))
        .collect();
    let patch = "A patch: of JSON (RFC 6902), a JSON merge patch (RFC 7396), a strategic merge patch or one to apply.";
    schemas.insert(format!("{META}.Patch"), json!({"description": patch, "type": "object"}));
    for kind in &roots.kinds {
        let list = schemas
            .get_mut(&kind.name)
            .expect("each kind has a schema")
            .as_object_mut()
            .expect("schemas are objects");
        let gvk = json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
        list.insert("x-kubernetes-group-version-kind".to_owned(), json!([gvk]));
    }
    schemas
}

fn of_type(name: &str, schema: &Value, facts: &Value) -> Value {
    let mut schema = schema.clone();
    match name.rsplit('.').next() {
        Some("IntOrString") => {
            return json!({"description": schema["description"], "format": "int-or-string",
                "oneOf": [{"type": "integer"}, {"type": "string"}]});
        }
        Some("Quantity") => {
            return json!({"description": schema["description"], "oneOf": [{"type": "string"}, {"type": "number"}]});
        }
        Some(
            "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray",
        ) => {
            return json!({"description": schema["description"]});
        }
        _ => {}
    }
    if let Some(properties) = schema["properties"].as_object_mut() {
        for (name, property) in properties.iter_mut() {
            *property = field(property, &facts["fields"][name]);
        }
    }
    let map = schema.as_object_mut().expect("schemas are objects");
    match facts["required"].as_array() {
        Some(required) if required.is_empty() => drop(map.remove("required")),
        Some(required) => drop(map.insert("required".to_owned(), json!(required))),
        None => {}
    }
    if facts["map"] == "atomic" {
        map.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    schema
}

fn field(property: &Value, facts: &Value) -> Value {
    let mut property = referred(property);
    let map = property.as_object_mut().expect("schemas are objects");
    for nested in ["items", "additionalProperties"] {
        if let Some(schema) = map.get_mut(nested) {
            *schema = field(schema, &Value::Null);
        }
    }
    let mut copy = |from: &str, to: &str| {
        if let Some(value) = facts.get(from).filter(|value| !value.is_null()) {
            map.insert(to.to_owned(), value.clone());
        }
    };
    copy("default", "default");
    copy("enum", "enum");
    copy("patch", "x-kubernetes-patch-strategy");
    copy("key", "x-kubernetes-patch-merge-key");
    copy("map", "x-kubernetes-map-type");
    match &facts["list"] {
        Value::Array(keys) => {
            map.insert("x-kubernetes-list-type".to_owned(), json!("map"));
            map.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
        }
        Value::String(kind) => drop(map.insert("x-kubernetes-list-type".to_owned(), json!(kind))),
        _ => {}
    }
    property
}

/// A reference beside other words is one of `allOf` in OpenAPI 3.0.
fn referred(property: &Value) -> Value {
    let Some(name) = property["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) else {
        return property.clone();
    };
    let mut map = property.as_object().cloned().unwrap_or_default();
    map.remove("$ref");
    map.insert("allOf".to_owned(), json!([{"$ref": format!("#/components/schemas/{name}")}]));
    Value::Object(map)
}
