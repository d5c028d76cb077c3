//! OpenAPI v3: one document a group and version. Those of built-in kinds are made at build time and lie compressed in the
//! program; those of custom resources are made when their definitions change.

mod paths;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use paths::{Row, Sub};

/// A document of built-in kinds.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    /// Below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
    pub path: &'static str,
    /// Of the text that is compressed, in hexadecimal.
    pub hash: &'static str,
    pub gzip: &'static [u8],
}

/// A document made now.
#[derive(Debug, Clone)]
pub struct Document {
    pub path: String,
    pub hash: String,
    pub gzip: Vec<u8>,
}

/// A custom resource in one version.
#[derive(Debug, Clone)]
pub struct Custom {
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub status: bool,
    pub scale: bool,
    /// `openAPIV3Schema`; without one anything goes.
    pub schema: Option<Value>,
}

include!(concat!(env!("OUT_DIR"), "/openapi.rs"));

/// What all documents refer to.
const SHARED: &str = include_str!(concat!(env!("OUT_DIR"), "/openapi-shared.json"));
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The documents of built-in kinds.
pub fn documents() -> &'static [BuiltIn] {
    &DOCUMENTS
}

/// The document of a group's custom resources in one version.
pub fn document(group: &str, version: &str, kinds: &[Custom]) -> Document {
    let mut schemas: Map<String, Value> = serde_json::from_str(SHARED).unwrap_or_default();
    let mut all = Map::new();
    for kind in kinds {
        let name = name(group, version, &kind.kind);
        let list = format!("{name}List");
        schemas.insert(name.clone(), schema(group, version, kind));
        schemas.insert(list.clone(), list_schema(group, version, kind, &name));
        let listed = format!("{}List", kind.kind);
        let name_of = |_: &str, _: &str, of: &str| match of {
            of if of == kind.kind => Some(name.clone()),
            of if of == listed => Some(list.clone()),
            "Scale" => Some(SCALE.to_owned()),
            _ => None,
        };
        if kind.scale {
            schemas.entry(SCALE).or_insert_with(scale);
        }
        all.append(&mut paths::paths(&row(group, version, kind), &name_of));
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": all,
        "components": {"schemas": schemas},
    });
    let text = document.to_string();
    let hash = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    // Memory takes every byte.
    let _ = gzip.write_all(text.as_bytes());
    let gzip = gzip.finish().unwrap_or_default();
    Document { path: paths::base(group, version).trim_start_matches('/').to_owned(), hash, gzip }
}

const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

fn scale() -> Value {
    json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": metadata("ObjectMeta"),
            "spec": {"type": "object", "properties": {"replicas": {"type": "integer", "format": "int32"}}},
            "status": {
                "type": "object",
                "properties": {"replicas": {"type": "integer", "format": "int32"}, "selector": {"type": "string"}},
                "required": ["replicas"],
            },
        },
        "x-kubernetes-group-version-kind": [{"group": "autoscaling", "kind": "Scale", "version": "v1"}],
    })
}

fn metadata(of: &str) -> Value {
    json!({"allOf": [{"$ref": format!("#/components/schemas/{META}.{of}")}]})
}

/// `com.example.stable.v1.CronTab` of `stable.example.com`.
fn name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

fn schema(group: &str, version: &str, kind: &Custom) -> Value {
    let unknown = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut schema = kind.schema.clone().filter(Value::is_object).unwrap_or(unknown);
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let properties = &mut schema["properties"];
    properties["apiVersion"] = json!({"type": "string", "description": VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    let mut meta = metadata("ObjectMeta");
    meta["description"] = json!("Standard object's metadata.");
    properties["metadata"] = meta;
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": group, "kind": kind.kind, "version": version}]);
    schema
}

const VERSION: &str = "The version of this representation of the object.";
const KIND: &str = "The kind of the object.";

fn list_schema(group: &str, version: &str, kind: &Custom, name: &str) -> Value {
    json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": metadata("ListMeta"),
            "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{name}")}},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "kind": kind.list_kind, "version": version}],
    })
}

fn row(group: &str, version: &str, kind: &Custom) -> Row {
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let own =
        ["status"].into_iter().filter(|_| kind.status).map(|name| (name, group, version, kind.kind.as_str()));
    let scale = ["scale"].into_iter().filter(|_| kind.scale).map(|name| (name, "autoscaling", "v1", "Scale"));
    let sub = |(name, group, version, kind): (&str, &str, &str, &str)| Sub {
        name: name.to_owned(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        verbs: texts(&["get", "patch", "update"]),
    };
    Row {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
        namespaced: kind.namespaced,
        verbs: texts(&["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
        subresources: own.chain(scale).map(sub).collect(),
        strategic: false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn read(gzip: &[u8]) -> Value {
        let mut text = String::new();
        GzDecoder::new(gzip).read_to_string(&mut text).expect("it is compressed text");
        serde_json::from_str(&text).expect("it is JSON")
    }

    fn builtin(path: &str) -> Value {
        read(documents().iter().find(|document| document.path == path).expect(path).gzip)
    }

    /// Every reference leads somewhere.
    fn closed(value: &Value, schemas: &Value) {
        match value {
            Value::Object(map) => {
                if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                    let name = name.strip_prefix("#/components/schemas/").expect("references are to schemas");
                    assert!(schemas[name].is_object(), "{name}");
                }
                map.values().for_each(|value| closed(value, schemas));
            }
            Value::Array(list) => list.iter().for_each(|value| closed(value, schemas)),
            _ => {}
        }
    }

    #[test]
    fn every_document_is_closed_and_told_by_its_hash() {
        assert!(documents().len() > 20);
        for document in documents() {
            let read = read(document.gzip);
            assert_eq!(document.hash.len(), 64);
            closed(&read, &read["components"]["schemas"]);
        }
    }

    #[test]
    fn kubectl_finds_what_it_asks_for() {
        let document = builtin("apis/apps/v1");
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let gvk = json!({"group": "apps", "kind": "Deployment", "version": "v1"});
        assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
        let parameters = patch["parameters"].as_array().expect("parameters");
        assert!(
            parameters
                .iter()
                .any(|parameter| parameter["name"] == "fieldValidation" && parameter["in"] == "query")
        );
        let content = &patch["requestBody"]["content"];
        assert!(content["application/strategic-merge-patch+json"].is_object());
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
        let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]));
        assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty()));
        let ports = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"]["properties"]["ports"];
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
        assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
        assert_eq!(ports["x-kubernetes-list-type"], "map");
    }

    #[test]
    fn the_core_group_has_its_paths() {
        let document = builtin("api/v1");
        for path in [
            "/api/v1/namespaces/{namespace}/pods/{name}/eviction",
            "/api/v1/namespaces/{name}/finalize",
            "/api/v1/nodes/{name}/status",
            "/api/v1/pods",
        ] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
        let action = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"];
        assert_eq!(action["x-kubernetes-group-version-kind"]["kind"], "Eviction");
    }

    #[test]
    fn custom_resources_have_a_document() {
        let kind = Custom {
            kind: "CronTab".to_owned(),
            list_kind: "CronTabList".to_owned(),
            plural: "crontabs".to_owned(),
            namespaced: true,
            status: true,
            scale: true,
            schema: Some(json!({"type": "object", "properties": {"spec": {"type": "object"}}})),
        };
        let document = document("stable.example.com", "v1", &[kind]);
        assert_eq!(document.path, "apis/stable.example.com/v1");
        let read = read(&document.gzip);
        closed(&read, &read["components"]["schemas"]);
        let schema = &read["components"]["schemas"]["com.example.stable.v1.CronTab"];
        assert_eq!(schema["properties"]["spec"]["type"], "object");
        let path =
            &read["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"];
        assert!(path["requestBody"]["content"]["application/strategic-merge-patch+json"].is_null());
        assert!(path["requestBody"]["content"]["application/merge-patch+json"].is_object());
    }
}
