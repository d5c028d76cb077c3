//! Parts of a pod that several plugins look at.

use serde_json::{Map, Value};

use crate::object::Object;

pub const MIRROR: &str = "kubernetes.io/config.mirror";

pub fn is_mirror(pod: &Object) -> bool {
    pod.annotations().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// Made when it is not there.
pub fn spec_mut(object: &mut Object) -> &mut Map<String, Value> {
    let spec = object.0.entry("spec").or_insert_with(|| Value::Object(Map::new()));
    if !spec.is_object() {
        *spec = Value::Object(Map::new());
    }
    spec.as_object_mut().expect("an object, see above")
}

pub fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

pub fn items_mut<'a>(map: &'a mut Map<String, Value>, name: &str) -> impl Iterator<Item = &'a mut Value> {
    map.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Adds to a list, which is made when it is not there.
pub fn push(map: &mut Map<String, Value>, name: &str, item: Value) {
    match map.get_mut(name).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => {
            map.insert(name.to_owned(), Value::Array(vec![item]));
        }
    }
}

/// Is there something, and not null?
pub fn has(value: &Value, name: &str) -> bool {
    value.get(name).is_some_and(|value| !value.is_null())
}

/// (reference, what refers): Secrets that environments of containers name.
pub fn environment<'a>(
    spec: &'a Value,
    containers: &'static str,
) -> impl Iterator<Item = (&'a Value, Environment<'a>)> {
    items(spec, containers).flat_map(|container| {
        let one = items(container, "env").map(Environment::Variable);
        one.chain(items(container, "envFrom").map(Environment::From)).map(move |env| (container, env))
    })
}

pub enum Environment<'a> {
    Variable(&'a Value),
    From(&'a Value),
}

impl Environment<'_> {
    pub fn secret(&self) -> Option<&str> {
        match self {
            Self::Variable(env) => env["valueFrom"]["secretKeyRef"]["name"].as_str(),
            Self::From(env) => env["secretRef"]["name"].as_str(),
        }
    }

    pub fn config_map(&self) -> Option<&str> {
        match self {
            Self::Variable(env) => env["valueFrom"]["configMapKeyRef"]["name"].as_str(),
            Self::From(env) => env["configMapRef"]["name"].as_str(),
        }
    }
}

pub const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Does a pod name any Secret? Source: kubernetes `pkg/api/pod/util.go` VisitPodSecretNames.
pub fn names_secrets(spec: &Value) -> bool {
    let by_environment =
        CONTAINERS.iter().any(|list| environment(spec, list).any(|(_, env)| env.secret().is_some()));
    by_environment
        || items(spec, "imagePullSecrets").next().is_some()
        || items(spec, "volumes").any(|volume| {
            let reference = |source: &str, key: &str| has(&volume[source], key);
            reference("secret", "secretName")
                || reference("azureFile", "secretName")
                || ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"]
                    .iter()
                    .any(|source| reference(source, "secretRef"))
                || reference("csi", "nodePublishSecretRef")
                || items(&volume["projected"], "sources").any(|source| has(source, "secret"))
        })
}

pub fn names_config_maps(spec: &Value) -> bool {
    CONTAINERS.iter().any(|list| environment(spec, list).any(|(_, env)| env.config_map().is_some()))
        || items(spec, "volumes").any(|volume| {
            has(volume, "configMap")
                || items(&volume["projected"], "sources").any(|source| has(source, "configMap"))
        })
}
