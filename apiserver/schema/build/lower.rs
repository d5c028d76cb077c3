//! From JSON schemas and facts to the types of the table. Types without a name of their own (a list of strings) are there
//! once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::facts::Facts;
use crate::kinds::Roots;

/// The types, each as the Rust expression that makes it, and where the named ones lie.
pub struct Lowered {
    pub types: Vec<String>,
    pub named: BTreeMap<String, usize>,
}

struct Lower<'a> {
    definitions: &'a Map<String, Value>,
    facts: &'a Facts,
    types: Vec<String>,
    named: BTreeMap<String, usize>,
    anonymous: BTreeMap<String, usize>,
}

pub fn lower(roots: &Roots, facts: &Facts) -> Lowered {
    let (types, named, anonymous) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let mut lower = Lower { definitions: &roots.definitions, facts, types, named, anonymous };
    for name in roots.definitions.keys() {
        lower.named(name);
    }
    Lowered { types: lower.types, named: lower.named }
}

/// Types that are no structure of fields, by the last parts of their names.
fn special(name: &str) -> Option<&'static str> {
    Some(match name.strip_prefix("io.k8s.")? {
        "apimachinery.pkg.util.intstr.IntOrString" => "Type::IntOrString",
        "apimachinery.pkg.api.resource.Quantity" => "Type::Quantity",
        "apimachinery.pkg.apis.meta.v1.Time" => "Type::Time",
        "apimachinery.pkg.apis.meta.v1.MicroTime" => "Type::MicroTime",
        "apimachinery.pkg.apis.meta.v1.Duration" => "Type::Duration",
        "apimachinery.pkg.apis.meta.v1.FieldsV1" => "Type::FieldsV1",
        "apimachinery.pkg.runtime.RawExtension"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool"
        | "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray" => "Type::Any",
        _ => return None,
    })
}

impl Lower<'_> {
    fn named(&mut self, name: &str) -> usize {
        if let Some(id) = self.named.get(name) {
            return *id;
        }
        if let Some(expression) = special(name) {
            let id = self.intern(expression.to_owned());
            self.named.insert(name.to_owned(), id);
            return id;
        }
        // Before its fields, which may be of this type.
        let id = self.types.len();
        self.types.push(String::new());
        self.named.insert(name.to_owned(), id);
        let schema = self.definitions.get(name).unwrap_or_else(|| panic!("{name} is not defined"));
        self.types[id] = self.object(name, schema);
        id
    }

    fn intern(&mut self, expression: String) -> usize {
        if let Some(id) = self.anonymous.get(&expression) {
            return *id;
        }
        let id = self.types.len();
        self.types.push(expression.clone());
        self.anonymous.insert(expression, id);
        id
    }

    fn object(&mut self, name: &str, schema: &Value) -> String {
        let facts = self.facts.of(name);
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // In order of their names: they are searched for by halves.
        let sorted: BTreeMap<&String, &Value> = properties.iter().collect();
        let mut fields = String::new();
        for (field, schema) in sorted {
            let known = &facts["fields"][field];
            let ty = self.ty(schema, known, &format!("{name}.{field}"));
            let required = match facts["required"].as_array() {
                Some(list) => list.iter().any(|name| name == field),
                None => required.contains(&field.as_str()),
            };
            fields += &format!(
                "Field {{ name: t({field:?}), ty: TypeId({ty}), required: {required}, nullable: false, \
                 default: {}, patch: {}, \
                 wire: Wire {{ number: {}, within: Cow::Borrowed(&{}), keeps_zero: {} }}, go: Go {{ ty: {}, embedded: t({:?}) }} }}, ",
                default(known),
                patch(known),
                number(known).last().copied().unwrap_or_default(),
                within(known),
                known["keepsZero"] == true,
                option(known["go"].as_str()),
                known["embedded"].as_str().unwrap_or_default(),
            );
        }
        format!(
            "Type::Object(Object {{ name: t({name:?}), fields: Cow::Borrowed(&[{fields}]), rest: Rest::Unknown, \
             atomic: {}, embedded: false }})",
            facts["map"] == "atomic",
        )
    }

    fn ty(&mut self, schema: &Value, known: &Value, at: &str) -> usize {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.strip_prefix("#/$defs/").unwrap_or_else(|| panic!("{at}: {reference}"));
            // A field of an atomic type that is not atomic itself (`claimRef` of a volume) has a type of its own.
            if known["map"] == "granular" {
                let granular = self.object(name, self.definitions.get(name).expect("named"));
                return self.intern(granular.replace("atomic: true", "atomic: false"));
            }
            return self.named(name);
        }
        let format = schema["format"].as_str();
        let expression = match (schema["type"].as_str(), format) {
            (Some("string"), Some("byte")) => "Type::Bytes".to_owned(),
            (Some("string"), None) => "Type::String(Format::Plain)".to_owned(),
            (Some("boolean"), None) => "Type::Bool".to_owned(),
            (Some("integer"), Some("int32")) => "Type::Integer(Width::I32)".to_owned(),
            (Some("integer"), Some("int64")) => "Type::Integer(Width::I64)".to_owned(),
            (Some("number"), _) => "Type::Number".to_owned(),
            (Some("array"), _) => {
                let item = self.ty(&schema["items"], &Value::Null, at);
                format!("Type::List(List {{ item: TypeId({item}), kind: {} }})", list_kind(known))
            }
            (Some("object"), _) if schema["additionalProperties"].is_object() => {
                let value = self.ty(&schema["additionalProperties"], &Value::Null, at);
                format!("Type::Map(Map {{ value: TypeId({value}), atomic: {} }})", known["map"] == "atomic")
            }
            _ => panic!("{at}: no type of the table is like {schema}"),
        };
        self.intern(expression)
    }
}

fn list_kind(known: &Value) -> String {
    match &known["list"] {
        Value::Array(keys) => {
            let keys: Vec<String> = keys.iter().map(|key| format!("t({key})")).collect();
            format!("ListKind::Map(Cow::Borrowed(&[{}]))", keys.join(", "))
        }
        Value::String(kind) if kind == "set" => "ListKind::Set".to_owned(),
        _ => "ListKind::Atomic".to_owned(),
    }
}

fn default(known: &Value) -> String {
    known.get("default").map_or_else(|| "None".to_owned(), |value| option(Some(&value.to_string())))
}

fn patch(known: &Value) -> String {
    let strategy = known["patch"].as_str().unwrap_or_default();
    let (merge, retain) = (strategy.contains("merge"), strategy.contains("retainKeys"));
    format!("Patch {{ merge: {merge}, retain_keys: {retain}, key: {} }}", option(known["key"].as_str()))
}

fn option(text: Option<&str>) -> String {
    text.map_or_else(|| "None".to_owned(), |text| format!("Some(t({text:?}))"))
}

/// `5`, or `[2, 5]` where upstream's message lies within another.
fn number(known: &Value) -> Vec<u64> {
    match &known["number"] {
        Value::Array(path) => path.iter().filter_map(Value::as_u64).collect(),
        number => number.as_u64().into_iter().collect(),
    }
}

fn within(known: &Value) -> String {
    let path = number(known);
    format!("{:?}", &path[..path.len().saturating_sub(1)])
}
