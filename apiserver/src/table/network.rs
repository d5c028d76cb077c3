//! Services and what lies behind and before them.

use serde_json::Value;

use super::lists::{cut, join, labels};
use super::view::{View, field, shown};

pub fn service(view: &View<'_>) -> Vec<Value> {
    let ports: Vec<String> = view.list("spec.ports").iter().map(service_port).collect();
    let ports = if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") };
    let address = view.list("spec.clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
    vec![
        view.name(),
        view.text("spec.type").into(),
        address.into(),
        external(view).into(),
        ports.into(),
        view.age(),
        labels(view.map("spec.selector")).into(),
    ]
}

fn service_port(port: &Value) -> String {
    let (number, protocol) = (port["port"].as_i64().unwrap_or_default(), field(port, "protocol"));
    match port["nodePort"].as_i64() {
        Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external(view: &View<'_>) -> String {
    let given: Vec<&str> = view.list("spec.externalIPs").iter().filter_map(Value::as_str).collect();
    match view.text("spec.type") {
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => given.join(","),
        "LoadBalancer" => {
            let balancers = balancers(view);
            let all = balancers.iter().map(String::as_str).chain(given);
            match join(all, ",") {
                all if all.is_empty() => "<pending>".to_owned(),
                all => all,
            }
        }
        "ExternalName" => view.text("spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// Addresses of load balancers, sorted.
fn balancers(view: &View<'_>) -> Vec<String> {
    let mut all: Vec<String> = view
        .list("status.loadBalancer.ingress")
        .iter()
        .map(|ingress| match field(ingress, "ip") {
            "" => field(ingress, "hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

pub fn ingress(view: &View<'_>) -> Vec<Value> {
    const MOST: usize = 3;
    let rules = view.list("spec.rules");
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == MOST;
        if !more && !field(rule, "host").is_empty() {
            hosts.push(field(rule, "host"));
        }
    }
    let hosts = match hosts.join(",") {
        hosts if hosts.is_empty() => "*".to_owned(),
        hosts if more => format!("{hosts} + {} more...", rules.len() - MOST),
        hosts => hosts,
    };
    vec![
        view.name(),
        view.or("spec.ingressClassName", "<none>").into(),
        hosts.into(),
        balancers(view).join(",").into(),
        if view.list("spec.tls").is_empty() { "80" } else { "80, 443" }.into(),
        view.age(),
    ]
}

pub fn ingress_class(view: &View<'_>) -> Vec<Value> {
    let is_default = view.annotation("ingressclass.kubernetes.io/is-default-class") == Some("true");
    let name = format!("{}{}", view.text("metadata.name"), if is_default { " (default)" } else { "" });
    let parameters = view.get("spec.parameters").map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", field(parameters, "kind"), field(parameters, "name"))
        },
    );
    vec![name.into(), view.text("spec.controller").into(), parameters.into(), view.age()]
}

/// Upstream has a cell more here than columns.
pub fn ip_address(view: &View<'_>) -> Vec<Value> {
    let parent = view.get("spec.parentRef").map_or_else(
        || "<none>".to_owned(),
        |parent| {
            let (group, namespace) = (field(parent, "group"), field(parent, "namespace"));
            let dot = if group.is_empty() { "" } else { "." };
            let resource = format!("{}{dot}{group}", field(parent, "resource")).to_lowercase();
            let slash = if namespace.is_empty() { "" } else { "/" };
            format!("{resource}{slash}{namespace}/{}", field(parent, "name"))
        },
    );
    vec![view.name(), parent.into(), view.age()]
}

pub fn endpoints(view: &View<'_>) -> Vec<Value> {
    let subsets = view.list("subsets");
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = subset["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ports = subset["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| field(address, "ip").to_owned()));
        }
        for port in ports {
            let port = port["port"].as_i64().unwrap_or_default();
            all.extend(addresses.iter().map(|address| with_port(field(address, "ip"), port)));
        }
    }
    let shown = if subsets.is_empty() { "<none>".to_owned() } else { cut(&all, 3) };
    vec![view.name(), shown.into(), view.age()]
}

fn with_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub fn endpoint_slice(view: &View<'_>) -> Vec<Value> {
    let port = |port: &Value| match (&port["port"], &port["name"]) {
        (Value::Null, Value::Null) => "*".to_owned(),
        (Value::Null, name) => shown(name),
        (port, _) => shown(port),
    };
    let ports: Vec<String> = view.list("ports").iter().map(port).collect();
    let addresses: Vec<String> = view
        .list("endpoints")
        .iter()
        .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten().map(shown))
        .collect();
    let shown = |items: &[String]| match cut(items, 3) {
        text if text.is_empty() => "<unset>".to_owned(),
        text => text,
    };
    vec![
        view.name(),
        view.text("addressType").into(),
        shown(&ports).into(),
        shown(&addresses).into(),
        view.age(),
    ]
}
