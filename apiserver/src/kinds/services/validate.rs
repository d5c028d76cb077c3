//! What a Service must be.

use serde_json::Value;

use super::super::validate::container::PROTOCOLS;
use super::super::validate::{At, Causes, Check, Path, Rule, ip, labels, names};
use super::{NONE, is_external, needs_health_port, spec_of};
use crate::object::Object;

const POLICIES: &[&str] = &["Cluster", "Local"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn is_headless(spec: &At<'_>) -> bool {
    let addresses = spec.field("clusterIPs");
    addresses.len() == 1 && addresses.texts().eq([NONE])
}

pub fn service(object: &Object, old: Option<&Object>, out: &mut Causes) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let root = At::root(object);
    let spec = root.field("spec");
    let annotations = root.down(&["metadata", "annotations"]);
    let (hints, mode) = (annotations.key(HINTS), annotations.key(MODE));
    if hints.is_set() && mode.is_set() && hints.text() != mode.text() {
        mode.invalid(format_args!("must match annotations[{HINTS}] when both are specified"), out);
    }
    let (ports, kind) = (spec.field("ports"), spec.field("type"));
    let headless = is_headless(&spec);
    if ports.is_empty() && !headless && kind.text() != "ExternalName" {
        ports.required("", out);
    }
    by_type(&spec, headless, out);
    let mut seen = Vec::new();
    for port in ports.items() {
        one_port(&port, ports.len() > 1, &mut seen, out);
    }
    labels::labels(&spec.field("selector"), out);
    affinity(&spec, out);
    cluster_ips(object, out);
    for address in spec.field("externalIPs").items() {
        let before = out.len();
        ip::address(&address, out);
        if out.len() == before {
            ip::endpoint(&address, out);
        }
    }
    kind.one_of(TYPES, out);
    port_numbers(&spec, out);
    source_ranges(&spec, &annotations, old, out);
    let allocate = spec.field("allocateLoadBalancerNodePorts");
    if allocate.is_set() && kind.text() != "LoadBalancer" {
        allocate.forbidden("may only be used when `type` is 'LoadBalancer'", out);
    }
    if !allocate.is_set() && kind.text() == "LoadBalancer" {
        allocate.shown_at(Path::of(&["allocateLoadBalancerNodePorts"])).required("", out);
    }
    balancer_class(&spec, out);
    traffic(object, &spec, out);
}

fn by_type(spec: &At<'_>, headless: bool, out: &mut Causes) {
    let kind = spec.field("type").text();
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let first = spec.field("clusterIPs").items().next();
            first
                .iter()
                .for_each(|at| at.invalid(format_args!("may not be set to 'None' for {kind} services"), out));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !spec.field(field).is_empty() {
                    spec.field(field).forbidden("may not be set for ExternalName services", out);
                }
            }
            let name = spec.field("externalName");
            let text = name.text().strip_suffix('.').unwrap_or(name.text());
            if text.is_empty() {
                name.required("", out);
            }
            for detail in names::dns_subdomain(text).into_iter().filter(|_| !text.is_empty()) {
                name.invalid_value(&text.into(), detail, out);
            }
        }
        _ => {}
    }
}

fn one_port<'v>(at: &At<'v>, named: bool, seen: &mut Vec<&'v str>, out: &mut Causes) {
    let name = at.field("name");
    if name.is_empty() {
        if named {
            name.required("", out);
        }
    } else {
        name.names(names::dns_label, out);
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
    }
    at.field("port").port(out);
    at.field("protocol").one_of(PROTOCOLS, out);
    at.field("targetPort").port_or_name(out);
    let protocol = at.field("appProtocol");
    if protocol.is_set() {
        labels::label_name(protocol.text(), &protocol, out);
    }
}

fn affinity(spec: &At<'_>, out: &mut Causes) {
    let kind = spec.field("sessionAffinity");
    kind.one_of(&["ClientIP", "None"], out);
    let config = spec.field("sessionAffinityConfig");
    let timeout = config.down(&["clientIP", "timeoutSeconds"]);
    match kind.text() {
        "ClientIP" if !(1..=86_400).contains(&timeout.int()) => {
            timeout.invalid("must be greater than 0 and less than 86400", out);
        }
        "None" if config.is_set() => {
            config.forbidden("must not be set when session affinity is None", out);
        }
        _ => {}
    }
}

/// Cluster addresses and their families.
pub fn cluster_ips(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    if spec.field("type").text() == "ExternalName" {
        return;
    }
    let (one, all) = (spec.field("clusterIP"), spec.field("clusterIPs"));
    if one.is_empty() {
        if !all.is_empty() {
            all.invalid("must be empty when `clusterIP` is not specified", out);
        }
    } else if all.is_empty() {
        all.required("", out);
    } else if all.texts().next() != Some(one.text()) {
        all.invalid("first value must match `clusterIP`", out);
    }
    let families = spec.field("ipFamilies");
    let mut seen = Vec::new();
    for family in families.items() {
        family.one_of_if_set(&["IPv4", "IPv6"], out);
        if seen.contains(&family.text()) {
            family.duplicate(out);
        }
        seen.push(family.text());
    }
    let policies = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    spec.field("ipFamilyPolicy").one_of_if_set(policies, out);
    let before = out.len();
    for (index, address) in all.items().enumerate() {
        if index == 0 && address.text() == NONE {
            if all.len() > 1 {
                all.invalid("'None' must be the first and only value", out);
            }
            continue;
        }
        ip::address(&address, out);
    }
    let bad = out.len() > before;
    if all.len() > 2 {
        all.invalid("may only hold up to 2 values", out);
    }
    if bad {
        return;
    }
    let texts: Vec<&str> = all.texts().collect();
    if texts.len() > 1 && !ip::is_dual_stack(&texts) {
        all.invalid("may specify no more than one IP for each IP family", out);
    }
    if is_headless(&spec) {
        return;
    }
    for (index, (address, family)) in all.items().zip(families.texts()).enumerate() {
        let six = address.text().contains(':');
        if matches!((family, six), ("IPv4", true) | ("IPv6", false)) {
            let detail =
                format_args!("expected an {family} value as indicated by `ipFamilies[{index}]`").to_string();
            address.invalid(detail, out);
        }
    }
}

fn port_numbers(spec: &At<'_>, out: &mut Causes) {
    let ports = spec.field("ports");
    if spec.field("type").text() == "ClusterIP" {
        for port in ports.items().filter(|port| port.field("nodePort").int() != 0) {
            port.field("nodePort").forbidden("may not be used when `type` is 'ClusterIP'", out);
        }
    }
    let mut seen = Vec::new();
    for port in ports.items() {
        let number = port.field("nodePort");
        let key = (port.field("protocol").text(), number.int());
        if number.int() != 0 {
            if seen.contains(&key) {
                number.duplicate(out);
            }
            seen.push(key);
        }
    }
    let mut seen = Vec::new();
    for port in ports.items() {
        let key = (port.field("protocol").text(), port.field("port").int());
        if seen.contains(&key) {
            // As upstream's own type is shown.
            let (protocol, number) = (key.0.into(), key.1.into());
            let (empty, zero) = ("".into(), 0.into());
            let shape = [
                ("Name", &empty),
                ("Protocol", &protocol),
                ("AppProtocol", &Value::Null),
                ("Port", &number),
                ("TargetPort", &zero),
                ("NodePort", &zero),
            ];
            port.duplicate_shape(&shape, out);
        }
        seen.push(key);
    }
}

fn source_ranges(spec: &At<'_>, annotations: &At<'_>, old: Option<&Object>, out: &mut Causes) {
    const WRONG: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = spec.field("type").text() == "LoadBalancer";
    let ranges =
        spec.field("loadBalancerSourceRanges").shown_at(spec.path().field("LoadBalancerSourceRanges"));
    let annotation = annotations.key(RANGES);
    if !ranges.is_empty() {
        if !balanced {
            ranges.forbidden(WRONG, out);
        }
        ranges.items().for_each(|range| ip::network_text(range.text().trim(), &range, out));
    } else if annotation.is_set() {
        if !balanced {
            annotation.forbidden(WRONG, out);
        }
        let before = old.and_then(Object::annotations).and_then(|map| map.get(RANGES));
        if before != Some(annotation.value()) && !annotation.text().trim().is_empty() {
            for range in annotation.text().split(',') {
                ip::network_text(range.trim(), &annotation, out);
            }
        }
    }
}

fn balancer_class(spec: &At<'_>, out: &mut Causes) {
    let class = spec.field("loadBalancerClass");
    if !class.is_set() {
        return;
    }
    if spec.field("type").text() == "LoadBalancer" {
        labels::label_name(class.text(), &class, out);
    } else {
        class.forbidden("may only be used when `type` is 'LoadBalancer'", out);
    }
}

fn traffic(object: &Object, spec: &At<'_>, out: &mut Causes) {
    let fields = spec_of(object);
    let external = spec.field("externalTrafficPolicy");
    if is_external(&fields) {
        external.one_of(POLICIES, out);
    } else if !external.is_empty() {
        external.invalid("may only be set for externally-accessible services", out);
    }
    let health = spec.field("healthCheckNodePort");
    if needs_health_port(&fields) {
        if health.int() == 0 {
            health.required("", out);
        } else {
            health.port(out);
        }
    } else if health.int() != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        health.invalid(detail, out);
    }
    let internal = spec.field("internalTrafficPolicy");
    if !internal.is_set() && matches!(spec.field("type").text(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        internal.required("", out);
    }
    const RULES: &[Rule] = &[
        Rule("internalTrafficPolicy", Check::OneOfIfSet(POLICIES)),
        Rule("trafficDistribution", Check::OneOfIfSet(&["PreferClose", "PreferSameZone", "PreferSameNode"])),
    ];
    spec.check(RULES, out);
}

/// What may not change.
pub fn update(new: &Object, old: &Object, out: &mut Causes) {
    let (root, before) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), before.field("spec"));
    let named = |spec: &At<'_>| spec.field("type").text() == "ExternalName";
    if !named(&spec) && !named(&old_spec) {
        let headless = (is_headless(&spec), is_headless(&old_spec));
        if headless != (true, true) {
            list_update(&spec, &old_spec, "clusterIPs", "clusterIP", out);
        }
        if headless == (false, false) {
            list_update(&spec, &old_spec, "ipFamilies", "ipFamily", out);
        }
    }
    let class = spec.field("loadBalancerClass");
    let balanced = |spec: &At<'_>| spec.field("type").text() == "LoadBalancer";
    if balanced(&spec) && balanced(&old_spec) && class.value() != old_spec.field("loadBalancerClass").value()
    {
        class.invalid("may not change once set", out);
    }
    if balanced(&spec) || !class.is_set() {
        balancer_class(&spec, out);
    } else {
        class.forbidden("may only be used when `type` is 'LoadBalancer'", out);
    }
    if needs_health_port(&spec_of(old)) && needs_health_port(&spec_of(new)) {
        let port = spec.field("healthCheckNodePort");
        if port.int() != old_spec.field("healthCheckNodePort").int() {
            port.forbidden("field is immutable", out);
        }
    }
}

/// The first stays; a second may come, and go when one stack is asked for.
fn list_update(spec: &At<'_>, old: &At<'_>, field: &'static str, what: &str, out: &mut Causes) {
    const FIXED: &str = "may not change once set";
    let (list, before) = (spec.field(field), old.field(field));
    let (now, then): (Vec<&str>, Vec<&str>) = (list.texts().collect(), before.texts().collect());
    let at = |index: usize| list.shown_at(list.path().index(index));
    if now.len() == then.len() {
        for (index, _) in now.iter().zip(&then).enumerate().filter(|(_, (now, then))| now != then) {
            at(if field == "ipFamilies" { 0 } else { index }).invalid(FIXED, out);
        }
        return;
    }
    let shrinks = then.len() > now.len();
    if shrinks && spec.field("clusterIPs").is_empty() {
        at(0).invalid(format_args!("primary {what} can not be unset"), out);
    }
    if !then.is_empty() && !now.is_empty() && now[0] != then[0] {
        at(0).invalid_value(spec.field("clusterIPs").value(), FIXED, out);
    }
    let policy = spec.field("ipFamilyPolicy");
    if shrinks && now.len() == 1 && policy.text() != "SingleStack" {
        let detail =
            format_args!("must be set to 'SingleStack' when releasing the secondary {what}").to_string();
        policy.invalid(detail, out);
    }
}

pub fn status(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let list = root.down(&["status", "loadBalancer", "ingress"]);
    if root.down(&["spec", "type"]).text() != "LoadBalancer" && !list.is_empty() {
        return list.forbidden("may only be used when `spec.type` is 'LoadBalancer'", out);
    }
    for item in list.items() {
        let (address, mode) = (item.field("ip"), item.field("ipMode"));
        if !address.is_empty() {
            ip::address(&address, out);
            if !mode.is_set() {
                mode.required("must be specified when `ip` is set", out);
            }
        } else if mode.is_set() {
            mode.forbidden("may not be specified when `ip` is not set", out);
        }
        if !address.is_empty() {
            mode.one_of_if_set(&["Proxy", "VIP"], out);
        }
        balancer_host(&item.field("hostname"), out);
    }
}

/// The name of a balancer, of a Service or of an Ingress.
pub fn balancer_host(at: &At<'_>, out: &mut Causes) {
    if at.is_empty() {
        return;
    }
    at.names(names::dns_subdomain, out);
    if ip::parse_loose(at.text()).is_some() {
        let shown: Value = at.text().into();
        at.invalid_value(&shown, "must be a DNS name, not an IP address", out);
    }
}
