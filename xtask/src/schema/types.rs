//! `facts/types.json`: what `k8s-openapi` does not tell of types and fields.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::go::{self, Field, Package, Type};
use super::{file, server::Server};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// Types that no OpenAPI document has.
const OWN: [&str; 12] = [
    "CreateOptions",
    "GetOptions",
    "ListOptions",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "PatchOptions",
    "Table",
    "TableColumnDefinition",
    "TableRow",
    "TableRowCondition",
    "UpdateOptions",
    "WatchEvent",
];

pub fn record(server: &Server) -> Result<()> {
    let schemas = schemas(server)?;
    let packages = Packages::read(schemas.keys())?;
    let mut types = Map::new();
    let own = OWN.map(|name| format!("{META}.{name}"));
    for name in schemas.keys().chain(&own) {
        types.insert(name.clone(), of_type(name, schemas.get(name).unwrap_or(&Value::Null), &packages));
    }
    file::write("types", &Value::Object(types), 3)
}

/// Of all documents; a type that is in many is the same in each.
fn schemas(server: &Server) -> Result<BTreeMap<String, Value>> {
    let mut schemas = BTreeMap::new();
    let index = server.get("/openapi/v3")?;
    for path in index["paths"].as_object().context("/openapi/v3 has no paths")?.keys() {
        let document = server.get(&format!("/openapi/v3/{path}"))?;
        let found = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
        schemas.extend(found);
    }
    Ok(schemas)
}

fn of_type(name: &str, schema: &Value, packages: &Packages) -> Value {
    let mut fields = BTreeMap::new();
    if let Some((package, ty)) = packages.find(name) {
        packages.fields(package, ty, Some(&[]), "", &mut fields);
    }
    let mut known = Map::new();
    for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
        from_schema(schema, fields.entry(field.clone()).or_default());
    }
    for (field, facts) in fields {
        if !facts.is_empty() {
            known.insert(field, Value::Object(facts));
        }
    }
    let mut facts = Map::new();
    if !known.is_empty() {
        facts.insert("fields".to_owned(), Value::Object(known));
    }
    if schema["x-kubernetes-map-type"] == "atomic" {
        facts.insert("map".to_owned(), json!("atomic"));
    }
    if let Some(required) = schema["required"].as_array() {
        facts.insert("required".to_owned(), json!(required));
    } else if schema.is_object() {
        facts.insert("required".to_owned(), json!([]));
    }
    Value::Object(facts)
}

/// What OpenAPI says, over what Go says.
fn from_schema(schema: &Value, facts: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| facts.insert(name.to_owned(), value);
    if let Some(strategy) = schema["x-kubernetes-patch-strategy"].as_str() {
        set("patch", json!(strategy));
    }
    if let Some(key) = schema["x-kubernetes-patch-merge-key"].as_str() {
        set("key", json!(key));
    }
    match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => drop(set("list", schema["x-kubernetes-list-map-keys"].clone())),
        Some("set") => drop(set("list", json!("set"))),
        _ => {}
    }
    if schema["x-kubernetes-map-type"] == "atomic" {
        set("map", json!("atomic"));
    }
    if let Some(values) = schema["enum"].as_array() {
        set("enum", json!(values));
    }
    // Zero values are what Go writes, and told by the Go type.
    let default = schema.get("default").filter(|default| {
        !(default.as_str() == Some("")
            || default.as_i64() == Some(0)
            || **default == json!(false)
            || **default == json!({}))
    });
    if let Some(default) = default {
        set("default", default.clone());
    }
}

/// By the prefix of their types' OpenAPI names.
struct Packages(BTreeMap<String, Package>);

impl Packages {
    fn read<'a>(names: impl Iterator<Item = &'a String>) -> Result<Self> {
        let prefixes: BTreeSet<&str> = names.filter_map(|name| Some(name.rsplit_once('.')?.0)).collect();
        let mut modules = BTreeMap::new();
        let mut packages = BTreeMap::new();
        for prefix in prefixes {
            let Some((module, rest)) = prefix.strip_prefix("io.k8s.").and_then(|rest| rest.split_once('.'))
            else {
                continue;
            };
            let dir = match modules.get(module) {
                Some(dir) => String::clone(dir),
                None => modules.entry(module.to_owned()).or_insert(go::module(module)?).clone(),
            };
            let dir = Path::new(&dir).join(rest.replace('.', "/"));
            packages.insert(prefix.to_owned(), Package::read(&dir)?);
        }
        Ok(Self(packages))
    }

    fn find(&self, name: &str) -> Option<(&str, &str)> {
        let (prefix, ty) = name.rsplit_once('.')?;
        let (prefix, _) = self.0.get_key_value(prefix)?;
        self.0[prefix].types.get_key_value(ty).map(|(ty, _)| (prefix.as_str(), ty.as_str()))
    }

    /// The package and name of a type as `package` names it.
    fn resolve(&self, package: &str, ty: &str) -> Option<(&str, &str)> {
        let Some((import, name)) = ty.split_once('.') else {
            return self.find(&format!("{package}.{ty}"));
        };
        let path = self.0.get(package)?.imports.get(import)?;
        self.find(&format!("io.{}.{name}", path.replace("k8s.io", "k8s").replace('/', ".")))
    }

    /// What the Go structure says of its fields, those of embedded structures among them. `within`: the messages around
    /// it; none where it is embedded without a number (`TypeMeta`), for then protobuf does not have it.
    fn fields(
        &self,
        package: &str,
        ty: &str,
        within: Option<&[u32]>,
        embedded: &str,
        into: &mut BTreeMap<String, Map<String, Value>>,
    ) {
        let Some(Type::Struct(fields)) = self.0.get(package).and_then(|package| package.types.get(ty)) else {
            return;
        };
        for field in fields {
            if field.inline {
                let Some((package, ty)) = self.resolve(package, field.ty.trim_start_matches('*')) else {
                    continue;
                };
                let within =
                    within.and_then(|within| (field.number > 0).then(|| [within, &[field.number]].concat()));
                let dot = if embedded.is_empty() { "" } else { "." };
                self.fields(package, ty, within.as_deref(), &format!("{embedded}{dot}{}", field.name), into);
            } else {
                into.insert(field.json.clone(), self.field(package, field, within, embedded));
            }
        }
    }

    fn field(
        &self,
        package: &str,
        field: &Field,
        within: Option<&[u32]>,
        embedded: &str,
    ) -> Map<String, Value> {
        let mut facts = Map::new();
        let mut set = |name: &str, value: Value| facts.insert(name.to_owned(), value);
        let number = within.filter(|_| field.number > 0);
        match number {
            Some([]) => drop(set("number", json!(field.number))),
            Some(within) => drop(set("number", json!([within, &[field.number]].concat()))),
            None => {}
        }
        if !embedded.is_empty() {
            set("embedded", json!(embedded));
        }
        let pointer = field.ty.starts_with('*');
        if number.is_some() && (pointer || !field.omit_empty) {
            set("keepsZero", json!(true));
        }
        let ty = field.ty.trim_start_matches('*');
        if let Some(name) = self.told(package, ty) {
            set("go", json!(name));
        }
        if let Some(zero) = self.zero(package, field) {
            set("default", zero);
        }
        facts
    }

    /// The type's name in Go's messages, where the schema does not tell it.
    fn told(&self, package: &str, ty: &str) -> Option<String> {
        if let Some(item) = ty.strip_prefix("[]") {
            return self.told(package, item).map(|item| format!("[]{item}"));
        }
        if let Some(value) = ty.strip_prefix("map[string]") {
            return self.told(package, value).map(|value| format!("map[string]{value}"));
        }
        match ty {
            "string" | "bool" | "int32" | "int64" | "float64" | "byte" => return None,
            "int" | "uint8" | "uint32" | "uint64" | "float32" => return Some(ty.to_owned()),
            _ => {}
        }
        let (found, name) = match self.resolve(package, ty) {
            Some((package, name)) if matches!(self.0[package].types[name], Type::Named(_)) => (package, name),
            Some(_) => return None,
            None => return ty.contains('.').then(|| ty.to_owned()),
        };
        Some(format!("{}.{name}", found.rsplit('.').next().unwrap_or_default()))
    }

    /// What Go writes for a field that was never set; `None`: nothing.
    fn zero(&self, package: &str, field: &Field) -> Option<Value> {
        if field.omit_zero {
            return None;
        }
        let omitted = if field.omit_empty { None } else { Some(()) };
        let mut ty = field.ty.clone();
        let mut at = package.to_owned();
        loop {
            if ty.starts_with('*') || ty.starts_with("[]") || ty.starts_with("map[") {
                return omitted.map(|()| Value::Null);
            }
            match ty.as_str() {
                "string" => return omitted.map(|()| json!("")),
                "bool" => return omitted.map(|()| json!(false)),
                "int" | "int32" | "int64" | "uint8" | "uint32" | "float64" => {
                    return omitted.map(|()| json!(0));
                }
                "types.UID" => return omitted.map(|()| json!("")),
                _ => {}
            }
            let (found, name) = self.resolve(&at, &ty)?;
            match &self.0[found].types[name] {
                Type::Named(other) => (at, ty) = (found.to_owned(), other.clone()),
                // Structures are never empty to Go's JSON; these write themselves.
                Type::Struct(_) => {
                    return Some(match name {
                        "Time" | "MicroTime" | "RawExtension" | "JSON" | "FieldsV1" => Value::Null,
                        "Quantity" => json!("0"),
                        "IntOrString" => json!(0),
                        "Duration" => json!("0s"),
                        _ => json!({}),
                    });
                }
            }
        }
    }
}
