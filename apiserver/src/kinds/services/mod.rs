//! Services. Source: kubernetes `pkg/registry/core/service`, `pkg/apis/core/validation`.

mod allocator;
mod validate;
pub use validate::balancer_host;

pub use allocator::{Allocation, Allocator, Ranges, Refusal, Shared};

use serde_json::{Value, json};

use super::fill::{Fields, Fill, With, fill, has, int, items, made, or_insert, text};
use super::validate::{At, Causes, names};
use super::{Kind, common, warnings};
use crate::object::Object;

pub static KIND: Kind = Kind {
    name: names::dns_label,
    default,
    prepare_create: |object, _| {
        object.0.insert("status".to_owned(), json!({"loadBalancer": {}}));
    },
    prepare_update: |new, old, _| {
        common::keep(new, old, "status");
        drop_what_another_type_needed(new, old);
    },
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        validate::service(object, None, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        validate::update(new, old, &mut out);
        validate::service(new, Some(old), &mut out);
        out
    },
    validate_subresource: |subresource, new, _| {
        let mut out = Causes::new();
        if subresource == "status" {
            validate::status(new, &mut out);
        }
        out
    },
    warn,
    field: |object, label| match label {
        "spec.clusterIP" => common::selected(object, &["spec", "clusterIP"]),
        "spec.type" => common::selected(object, &["spec", "type"]),
        _ => None,
    },
    create_on_update: true,
    allocates: true,
    ..Kind::PLAIN
};

const NONE: &str = "None";

fn default(object: &mut Object) {
    let spec = made(&mut object.0, "spec");
    fill(spec, &[Fill("sessionAffinity", With::Text("None")), Fill("type", With::Text("ClusterIP"))]);
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let client = made(made(spec, "sessionAffinityConfig"), "clientIP");
            or_insert(client, "timeoutSeconds", 10_800);
        }
        _ => {}
    }
    items(spec, "ports").for_each(port);
    let kind = text(spec, "type").to_owned();
    if is_external(spec) {
        fill(spec, &[Fill("externalTrafficPolicy", With::Text("Cluster"))]);
    }
    if matches!(&*kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        or_insert(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        or_insert(spec, "allocateLoadBalancerNodePorts", true);
    }
    let balancer = made(made(&mut object.0, "status"), "loadBalancer");
    if kind == "LoadBalancer" {
        for ingress in items(balancer, "ingress").filter(|one| !text(one, "ip").is_empty()) {
            or_insert(ingress, "ipMode", "VIP");
        }
    }
}

fn port(fields: &mut Fields) {
    fill(fields, &[Fill("protocol", With::Text("TCP"))]);
    if fields.get("targetPort").is_none_or(super::validate::is_empty) {
        let port = int(fields, "port");
        fields.insert("targetPort".to_owned(), port.into());
    }
}

/// Reachable from outside: by node ports, a balancer or addresses of its own.
fn is_external(spec: &Fields) -> bool {
    let kind = text(spec, "type");
    matches!(kind, "LoadBalancer" | "NodePort")
        || kind == "ClusterIP" && spec.get("externalIPs").is_some_and(|list| !super::validate::is_empty(list))
}

fn spec_of(object: &Object) -> Fields {
    object.0.get("spec").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn needs_cluster_ip(spec: &Fields) -> bool {
    text(spec, "type") != "ExternalName"
}

fn needs_node_port(spec: &Fields) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn needs_health_port(spec: &Fields) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn same_field(a: &Fields, b: &Fields, name: &str) -> bool {
    super::validate::same(a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null))
}

fn node_ports(spec: &Fields) -> Vec<i64> {
    let ports = spec.get("ports").and_then(Value::as_array).into_iter().flatten();
    ports.map(|port| port["nodePort"].as_i64().unwrap_or(0)).collect()
}

/// What only the old type needed goes when the type changes and nobody changed it.
fn drop_what_another_type_needed(new: &mut Object, old: &Object) {
    let before = spec_of(old);
    let spec = made(&mut new.0, "spec");
    if needs_cluster_ip(&before) && !needs_cluster_ip(spec) {
        if same_field(&before, spec, "clusterIPs") {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if same_field(&before, spec, field) {
                spec.remove(field);
            }
        }
    }
    let with_ports = |spec: &Fields| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    if with_ports(&before) && !with_ports(spec) && node_ports(&before) == node_ports(spec) {
        items(spec, "ports").for_each(|port| {
            port.remove("nodePort");
        });
    }
    let drop = |needed: bool, needs: bool, spec: &mut Fields, field: &str| {
        if needed && !needs && same_field(&before, spec, field) {
            spec.remove(field);
        }
    };
    let needs = needs_health_port(spec);
    drop(needs_health_port(&before), needs, spec, "healthCheckNodePort");
    let balanced = |spec: &Fields| text(spec, "type") == "LoadBalancer";
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let needs = balanced(spec);
        drop(balanced(&before), needs, spec, field);
    }
    let needs = is_external(spec);
    drop(is_external(&before), needs, spec, "externalTrafficPolicy");
    // Defaulting gives it to everything but this.
    if text(spec, "type") == "ExternalName" {
        spec.remove("internalTrafficPolicy");
    }
    if !balanced(spec) && has(&new.0, "status") {
        made(&mut new.0, "status").insert("loadBalancer".to_owned(), json!({}));
    }
}

fn warn(object: &Object) -> Vec<String> {
    let mut out = Vec::new();
    let root = At::root(object);
    let spec = root.field("spec");
    let text = |name| spec.field(name).text();
    if root.down(&["metadata", "annotations"]).has("service.kubernetes.io/topology-aware-hints") {
        out.push("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".to_owned());
    }
    if !matches!(text("clusterIP"), "" | NONE) {
        spec.field("clusterIPs").items().for_each(|one| warnings::address(&one, &mut out));
    }
    let headless = text("type") == "ClusterIP" && text("clusterIP") == NONE;
    let externals = spec.field("externalIPs");
    if headless {
        if !text("loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !externals.is_empty() {
            out.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if text("sessionAffinity") != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    externals.items().for_each(|one| warnings::address(&one, &mut out));
    let named = text("type") == "ExternalName";
    if !externals.is_empty() && !headless && !named {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    if !text("loadBalancerIP").is_empty() {
        warnings::address(&spec.field("loadBalancerIP"), &mut out);
    }
    spec.field("loadBalancerSourceRanges").items().for_each(|one| warnings::network(&one, &mut out));
    if named && !externals.is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !named && !text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text("trafficDistribution") == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    out
}
