//! The environment of a container: values, downward API, `$(VAR)` expansion. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::node::Node;
use crate::pod::resources::{Kind, amount};
use crate::pod::{metadata_map, spec};
use crate::quantity::Amount;

/// What the downward API tells that is known only once the pod runs.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub pod_ips: Vec<String>,
    pub host_ip: String,
}

const FIELDS: [&str; 8] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Whether `fieldRef` can name it.
pub fn knows_field(path: &str) -> bool {
    FIELDS.contains(&path) || subscript(path).is_some()
}

/// Whether `resourceFieldRef` can name it.
pub fn knows_resource(name: &str) -> bool {
    let resource = name.strip_prefix("limits.").or_else(|| name.strip_prefix("requests."));
    resource.is_some_and(|r| matches!(r, "cpu" | "memory") || r.starts_with("hugepages-"))
}

/// The environment in the order of the manifest. A name given twice has its last value, at its first place.
pub fn variables(pod: &Pod, container: &Container, node: &Node, facts: &Facts) -> Vec<(String, String)> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            Some(source) => from_source(source, pod, container, node, facts),
            None => expand(var.value.as_deref().unwrap_or_default(), &values),
        };
        if values.insert(var.name.clone(), value).is_none() {
            order.push(var.name.clone());
        }
    }
    order.into_iter().map(|name| (values[&name].clone(), name)).map(|(value, name)| (name, value)).collect()
}

fn from_source(
    source: &EnvVarSource,
    pod: &Pod,
    container: &Container,
    node: &Node,
    facts: &Facts,
) -> String {
    match (&source.field_ref, &source.resource_field_ref) {
        (Some(field), _) => field_value(field, pod, facts),
        (None, Some(resource)) => resource_value(resource, pod, container, node),
        (None, None) => String::new(),
    }
}

fn field_value(field: &ObjectFieldSelector, pod: &Pod, facts: &Facts) -> String {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(&field.field_path) {
        return metadata_map(pod, map).and_then(|m| m.get(key)).cloned().unwrap_or_default();
    }
    match field.field_path.as_str() {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "spec.nodeName" => spec(pod).node_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        _ => facts.pod_ips.join(","),
    }
}

/// `metadata.labels['key']` → (`labels`, key).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_prefix("metadata.")?.split_once("['")?;
    let key = key.strip_suffix("']")?;
    matches!(map, "labels" | "annotations").then_some((map, key))
}

/// A limit that is not set is the node's capacity, a request that is not set is 0, as upstream.
fn resource_value(reference: &ResourceFieldSelector, pod: &Pod, own: &Container, node: &Node) -> String {
    let spec = spec(pod);
    let named = reference.container_name.as_deref().unwrap_or(&own.name);
    let init = spec.init_containers.iter().flatten();
    let container = spec.containers.iter().chain(init).find(|c| c.name == named).unwrap_or(own);
    let divisor = reference.divisor.as_ref().and_then(|d| Amount::parse(&d.0)).unwrap_or_default();
    let value = match reference.resource.split_once('.') {
        Some(("limits", name)) => {
            amount(container, Kind::Limits, name).unwrap_or_else(|| node.capacity(name))
        }
        Some((_, name)) => amount(container, Kind::Requests, name).unwrap_or_default(),
        None => Amount::default(),
    };
    value.divided_by(divisor).to_string()
}

/// Replaces `$(NAME)` by its value; `$$` is `$`; a reference to what is not defined stays as it is.
/// Works on bytes as upstream's `third_party/forked/golang/expansion` does; it only ever cuts at ASCII.
pub fn expand(input: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let reference = after.strip_prefix('(').and_then(|name| name.split_once(')'));
        rest = if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            tail
        } else if let Some((name, tail)) = reference {
            match values.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            tail
        } else {
            out.push('$');
            after
        };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_expand_as_upstream_expands_them() {
        let values: BTreeMap<String, String> =
            [("A", "1"), ("B", "$(A)"), ("EMPTY", "")].map(|(k, v)| (k.into(), v.into())).into();
        for (input, output) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)z", "x1y1z"),
            ("$(B)", "$(A)"),
            ("$(EMPTY)", ""),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$", "$$"),
            ("$(NOPE)", "$(NOPE)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("$", "$"),
            ("$ä$(A)", "$ä1"),
            ("$()", "$()"),
            ("$($(A))", "$($(A))"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(input, &values), output, "{input}");
        }
    }

    #[test]
    fn the_downward_api_tells_pod_node_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}},
                "env": [
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                    {"name": "OTHER", "valueFrom": {"resourceFieldRef": {"containerName": "d", "resource": "limits.cpu"}}},
                    {"name": "URL", "value": "http://$(IP)/$(LATER)"},
                    {"name": "LATER", "value": "x"},
                    {"name": "NAME", "value": "$(NAME)-2"}
                ]}, {"name": "d"}]}
        }))
        .expect("pod");
        let facts = Facts { pod_ips: vec!["10.0.0.2".into(), "fd::2".into()], host_ip: "192.0.2.1".into() };
        let node = Node { cpus: 4, memory_bytes: 1 << 30, ..Node::default() };
        let got = variables(&pod, &spec(&pod).containers[0], &node, &facts);
        let text: Vec<String> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "NAME=p-2",
                "APP=web",
                "IP=10.0.0.2",
                "IPS=10.0.0.2,fd::2",
                "CPU=250",
                "MEM=64",
                "OTHER=4",
                "URL=http://10.0.0.2/$(LATER)",
                "LATER=x"
            ]
        );
    }

    #[test]
    fn fields_that_do_not_exist_are_not_known() {
        assert!(knows_field("metadata.annotations['a/b']"));
        for path in ["spec.serviceAccountName", "metadata.labels", "metadata.labels[a]", "status.phase"] {
            assert!(!knows_field(path), "{path}");
        }
        assert!(knows_resource("requests.hugepages-2Mi") && !knows_resource("limits.pods"));
    }
}
