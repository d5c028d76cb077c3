//! Small tables for tests, written as JSON.
//!
//! A type is `"string"`, `"int"`, `"number"`, `"bool"`, `"any"`, `{"map": T}`, `{"list": T, "keys": "set" | [..]}` or
//! `{"object": {name: field}, "name": ..}`; `"atomic": true` goes with all but the first. A field is a type or
//! `{"is": T, "merge": key, "retain": true, "default": ..}`.

use corten_schema::{
    Field, Format, List, ListKind, Map, Node, Object, Patch, Rest, Text, Type, TypeId, Types, Width, Wire,
};
use serde_json::Value;

pub(crate) fn types(description: &Value) -> &'static Types {
    let mut types = vec![Type::Any];
    let root = add(&mut types, description);
    types.swap(0, root.0 as usize);
    // The root is named by nobody; what was first is `Any`, and nobody names that either.
    Box::leak(Box::new(Types { types: types.into() }))
}

pub(crate) fn node(types: &'static Types) -> Node<'static> {
    Node { types, id: TypeId(0) }
}

fn add(types: &mut Vec<Type>, description: &Value) -> TypeId {
    let atomic = description["atomic"] == Value::Bool(true);
    let ty = match description {
        Value::String(name) => match name.as_str() {
            "string" => Type::String(Format::Plain),
            "int" => Type::Integer(Width::I32),
            "intOrString" => Type::IntOrString,
            "number" => Type::Number,
            "bool" => Type::Bool,
            "quantity" => Type::Quantity,
            "time" => Type::Time,
            "any" => Type::Any,
            "fieldsV1" => Type::FieldsV1,
            other => panic!("no type {other}"),
        },
        description if description.get("map").is_some() => {
            Type::Map(Map { value: add(types, &description["map"]), atomic })
        }
        description if description.get("list").is_some() => Type::List(List {
            item: add(types, &description["list"]),
            kind: match &description["keys"] {
                Value::String(_) => ListKind::Set,
                Value::Array(keys) => ListKind::Map(keys.iter().map(text).collect()),
                _ => ListKind::Atomic,
            },
        }),
        description => {
            let mut fields: Vec<Field> =
                description["object"].as_object().unwrap().iter().map(|(n, f)| field(types, n, f)).collect();
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            Type::Object(Object {
                name: description.get("name").map(text).unwrap_or_default(),
                fields: fields.into(),
                rest: if description["kept"] == Value::Bool(true) { Rest::Kept } else { Rest::Unknown },
                atomic,
                embedded: false,
            })
        }
    };
    types.push(ty);
    TypeId(types.len() as u32 - 1)
}

fn field(types: &mut Vec<Type>, name: &str, description: &Value) -> Field {
    let ty = add(types, description.get("is").unwrap_or(description));
    let key = description.get("merge").and_then(Value::as_str);
    Field {
        name: name.to_owned().into(),
        ty,
        required: false,
        nullable: false,
        default: description.get("default").map(|value| value.to_string().into()),
        patch: Patch {
            merge: key.is_some(),
            retain_keys: description["retain"] == Value::Bool(true),
            key: key.filter(|key| !key.is_empty()).map(|key| key.to_owned().into()),
        },
        wire: Wire::default(),
        go: corten_schema::Go::default(),
    }
}

fn text(value: &Value) -> Text {
    value.as_str().unwrap().to_owned().into()
}

/// A Pod's parts that merge in each of the ways there are.
pub(crate) fn pod() -> Node<'static> {
    static TYPES: std::sync::OnceLock<&'static Types> = std::sync::OnceLock::new();
    node(TYPES.get_or_init(|| types(&pod_description())))
}

pub(crate) fn meta() -> Value {
    serde_json::json!({"object": {
        "name": "string", "namespace": "string", "generateName": "string", "uid": "string",
        "creationTimestamp": "time", "resourceVersion": "string", "generation": "int", "selfLink": "string",
        "labels": {"map": "string"}, "annotations": {"map": "string"},
        "finalizers": {"is": {"list": "string", "keys": "set"}, "merge": ""},
        "ownerReferences": {"is": {"list": {"object": {"uid": "string", "name": "string", "kind": "string",
            "apiVersion": "string", "controller": "bool"}, "atomic": true, "name": "OwnerReference"},
            "keys": ["uid"]}, "merge": "uid"},
        "managedFields": {"list": {"object": {"manager": "string", "operation": "string", "apiVersion": "string",
            "time": "time", "fieldsType": "string", "fieldsV1": "fieldsV1", "subresource": "string"}}}
    }, "name": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"})
}

fn pod_description() -> Value {
    serde_json::json!({"object": {
        "apiVersion": "string", "kind": "string", "metadata": meta(),
        "spec": {"object": {
            "replicas": "int",
            "nodeName": "string",
            "nodeSelector": {"map": "string", "atomic": true},
            "containers": {"is": {"list": {"object": {
                "name": "string", "image": "string",
                "args": {"list": "string"},
                "env": {"is": {"list": {"object": {"name": "string", "value": "string",
                    "valueFrom": {"object": {"fieldPath": "string"}}}}, "keys": ["name"]}, "merge": "name"},
                "ports": {"is": {"list": {"object": {"containerPort": "int", "name": "string",
                    "protocol": {"is": "string", "default": "TCP"}}}, "keys": ["containerPort", "protocol"]},
                    "merge": "containerPort"},
                "resources": {"object": {"limits": {"map": "quantity"}, "requests": {"map": "quantity"}}}
            }, "name": "io.k8s.api.core.v1.Container"}, "keys": ["name"]}, "merge": "name"},
            "tolerations": {"list": {"object": {"key": "string", "operator": "string"}}},
            "volumes": {"is": {"list": {"object": {"name": "string",
                "emptyDir": {"object": {"medium": "string"}},
                "hostPath": {"object": {"path": "string"}}}}, "keys": ["name"]}, "merge": "name", "retain": true},
            "strategy": {"is": {"object": {"type": "string",
                "rollingUpdate": {"object": {"maxSurge": "intOrString"}}}}, "retain": true},
            "selector": {"object": {"matchLabels": {"map": "string"}}, "atomic": true},
            "raw": "any"
        }, "name": "io.k8s.api.core.v1.PodSpec"},
        "status": {"object": {
            "phase": "string",
            "conditions": {"is": {"list": {"object": {"type": "string", "status": "string", "reason": "string"}},
                "keys": ["type"]}, "merge": "type"}
        }}
    }, "name": "io.k8s.api.core.v1.Pod"})
}
