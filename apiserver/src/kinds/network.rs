//! Ingress, network policies, endpoints, addresses.

use serde_json::{Value, json};

use super::fill::{Fill, With, fill, items, made, or_insert};
use super::services::balancer_host;
use super::validate::container::PROTOCOLS;
use super::validate::ip::{self, Network};
use super::validate::{At, Causes, Check, Path, Rule, labels, names, same};
use super::{Kind, common};
use crate::object::Object;

pub static INGRESS: Kind = Kind {
    prepare_create: |object, _| {
        object.0.insert("status".to_owned(), json!({"loadBalancer": {}}));
    },
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        ingress(object, &mut out);
        let annotation = At::root(object).down(&["metadata", "annotations"]).key(CLASS);
        let class = At::root(object).down(&["spec", "ingressClassName"]);
        if annotation.is_set() && class.is_set() && annotation.text() != class.text() {
            let at = annotation.shown_at(Path::of(&["annotations", "kubernetes.io/ingress.class"]));
            at.invalid("must match `ingressClassName` when both are specified", &mut out);
        }
        out
    },
    validate_update: |new, _| {
        let mut out = Causes::new();
        ingress(new, &mut out);
        out
    },
    validate_subresource: |subresource, new, _| {
        let mut out = Causes::new();
        if subresource == "status" {
            for one in At::root(new).down(&["status", "loadBalancer", "ingress"]).items() {
                if !one.field("ip").is_empty() {
                    ip::address(&one.field("ip"), &mut out);
                }
                balancer_host(&one.field("hostname"), &mut out);
            }
        }
        out
    },
    warn: |object| {
        let root = At::root(object);
        let by_annotation = root.down(&["metadata", "annotations"]).has(CLASS);
        if by_annotation && !root.field("spec").has("ingressClassName") {
            return vec![format!(
                "annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"
            )];
        }
        Vec::new()
    },
    counts_generations: true,
    ..Kind::PLAIN
};

const CLASS: &str = "kubernetes.io/ingress.class";

fn ingress(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    let (rules, default) = (spec.field("rules"), spec.field("defaultBackend"));
    if rules.is_empty() && !default.is_set() {
        spec.invalid_value(rules.value(), "either `defaultBackend` or `rules` must be specified", out);
    }
    if default.is_set() {
        backend(&default, out);
    }
    for rule in rules.items() {
        let host = rule.field("host");
        if !host.is_empty() {
            if ip::parse_loose(host.text()).is_some() {
                host.invalid("must be a DNS name, not an IP address", out);
            }
            host_name(&host, out);
        }
        let http = rule.field("http");
        if http.is_set() {
            if http.field("paths").is_empty() {
                http.field("paths").required("", out);
            }
            http.field("paths").items().for_each(|path| ingress_path(&path, out));
        }
    }
    for tls in spec.field("tls").items() {
        tls.field("hosts").items().for_each(|host| host_name(&host, out));
        tls.check(&[Rule("secretName", Check::Text(names::dns_subdomain))], out);
    }
    let class = spec.field("ingressClassName");
    if class.is_set() {
        class.names(names::dns_subdomain, out);
    }
}

fn host_name(at: &At<'_>, out: &mut Causes) {
    at.names(if at.text().contains('*') { names::wildcard_subdomain } else { names::dns_subdomain }, out);
}

fn ingress_path(at: &At<'_>, out: &mut Causes) {
    let (kind, path) = (at.field("pathType"), at.field("path"));
    if !kind.is_set() {
        return kind.required("pathType must be specified", out);
    }
    let text = path.text();
    let shown: Value = text.into();
    let absolute = text.starts_with('/');
    match kind.text() {
        "Exact" | "Prefix" => {
            if !absolute {
                path.invalid_value(&shown, "must be an absolute path", out);
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| text.contains(**part)) {
                path.invalid_value(&shown, format_args!("must not contain '{part}'"), out);
            }
            for end in ["/..", "/."].iter().filter(|end| text.ends_with(**end)) {
                path.invalid_value(&shown, format_args!("cannot end with '{end}'"), out);
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !absolute {
                path.invalid_value(&shown, "must be an absolute path", out);
            }
        }
        _ => kind.unsupported(&["Exact", "ImplementationSpecific", "Prefix"], out),
    }
    backend(&at.field("backend"), out);
}

fn backend(at: &At<'_>, out: &mut Causes) {
    let (resource, service) = (at.field("resource"), at.field("service"));
    let empty: Value = "".into();
    match (resource.is_set(), service.is_set()) {
        (true, true) => at.invalid_value(&empty, "cannot set both resource and service backends", out),
        (true, false) => reference(&resource, out),
        (false, false) => at.invalid_value(&empty, "resource or service backend is required", out),
        (false, true) => {
            service.check(&[Rule("name", Check::RequiredText(names::dns_label))], out);
            let (name, number) = (service.down(&["port", "name"]), service.down(&["port", "number"]));
            match (!name.is_empty(), number.int() != 0) {
                (true, true) => at.invalid_value(&empty, "cannot set both port name & port number", out),
                (true, false) => name.names(names::port_name, out),
                (false, true) => number.port(out),
                (false, false) => at.required("port name or number is required", out),
            }
        }
    }
}

/// A kind, a name and a group of something in the same namespace.
fn reference(at: &At<'_>, out: &mut Causes) {
    if at.has("apiGroup") {
        at.field("apiGroup").names(names::dns_subdomain, out);
    }
    const RULES: &[Rule] = &[
        Rule("kind", Check::RequiredText(names::path_segment)),
        Rule("name", Check::RequiredText(names::path_segment)),
    ];
    at.check(RULES, out);
}

pub static INGRESS_CLASS: Kind = Kind {
    default: |object| {
        const TABLE: &[Fill] = &[Fill(
            "spec",
            With::In(&[Fill("parameters", With::In(&[Fill("scope", With::Text("Cluster"))]))]),
        )];
        fill(&mut object.0, TABLE);
    },
    validate: |object| {
        let mut out = Causes::new();
        ingress_class(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let path = ["spec", "controller"];
        At::root(new).down(&path).immutable(&At::root(old).down(&path), &mut out);
        ingress_class(new, &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};

fn ingress_class(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    let controller = spec.field("controller");
    if controller.len() > 250 {
        controller.too_long(250, out);
    }
    if controller.is_empty() {
        controller.required("", out);
    } else {
        for (part, detail) in names::domain_prefixed_path(controller.text()) {
            controller.invalid_value(&part.into(), detail, out);
        }
    }
    let parameters = spec.field("parameters");
    if !parameters.is_set() {
        return;
    }
    reference(&parameters, out);
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    match scope.text() {
        "Namespace" if !namespace.is_set() => {
            namespace.required("`parameters.scope` is set to 'Namespace'", out);
        }
        "Namespace" => namespace.names(names::dns_label, out),
        "Cluster" if namespace.is_set() => namespace.forbidden("`parameters.scope` is set to 'Cluster'", out),
        "Cluster" => {}
        _ => scope.unsupported(&["Cluster", "Namespace"], out),
    }
}

pub static POLICY: Kind = Kind {
    default: |object| {
        let spec = made(&mut object.0, "spec");
        or_insert(spec, "podSelector", json!({}));
        for list in ["ingress", "egress"] {
            for rule in items(spec, list) {
                items(rule, "ports").for_each(|port| or_insert(port, "protocol", "TCP"));
            }
        }
        if spec.get("policyTypes").is_none_or(super::validate::is_empty) {
            let egress = spec.get("egress").is_some_and(|list| !super::validate::is_empty(list));
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            spec.insert("policyTypes".to_owned(), types);
        }
    },
    validate: |object| {
        let mut out = Causes::new();
        policy(object, &mut out);
        out
    },
    validate_update: |new, _| {
        let mut out = Causes::new();
        policy(new, &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};

fn policy(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    labels::selector(&spec.field("podSelector"), out);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.field(list).items() {
            rule.field("ports").items().for_each(|port| policy_port(&port, out));
            rule.field(peers).items().for_each(|peer| policy_peer(&peer, out));
        }
    }
    let types = spec.field("policyTypes");
    if types.len() > 2 {
        return types.invalid("may not specify more than two policyTypes", out);
    }
    for kind in types.items().filter(|kind| !["Ingress", "Egress"].contains(&kind.text())) {
        kind.unsupported(&["Ingress", "Egress"], out);
    }
}

fn policy_port(at: &At<'_>, out: &mut Causes) {
    at.field("protocol").one_of_if_set(&["TCP", "UDP", "SCTP"], out);
    let (port, end) = (at.field("port"), at.field("endPort"));
    match port.value() {
        Value::Null => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is not specified", out);
            }
        }
        Value::String(_) => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is non-numeric", out);
            }
            port.names(names::port_name, out);
        }
        _ => {
            port.port(out);
            if end.is_set() {
                if end.int() < port.int() {
                    end.invalid_value(port.value(), "must be greater than or equal to `port`", out);
                }
                end.port(out);
            }
        }
    }
}

fn policy_peer(at: &At<'_>, out: &mut Causes) {
    let selectors = ["podSelector", "namespaceSelector"].map(|name| at.field(name));
    let mut count = 0;
    for selector in selectors.iter().filter(|selector| selector.is_set()) {
        count += 1;
        labels::selector(selector, out);
    }
    let block = at.field("ipBlock");
    if block.is_set() {
        count += 1;
        ip_block(&block, out);
    }
    if count == 0 {
        at.required("must specify a peer", out);
    } else if count > 1 && block.is_set() {
        at.forbidden("may not specify both ipBlock and another peer", out);
    }
}

fn ip_block(at: &At<'_>, out: &mut Causes) {
    let cidr = at.field("cidr");
    if cidr.is_empty() {
        return cidr.required("", out);
    }
    ip::network(&cidr, out);
    let Some(whole) = Network::parse(cidr.text()) else { return };
    for except in at.field("except").items() {
        ip::network(&except, out);
        let Some(part) = Network::parse(except.text()) else { continue };
        if !whole.contains(part.first()) || whole.bits >= part.bits {
            except.invalid("must be a strict subset of `cidr`", out);
        }
    }
}

pub static ENDPOINTS: Kind = Kind {
    default: |object| {
        for subset in items(&mut object.0, "subsets") {
            items(subset, "ports").for_each(|port| fill(port, &[Fill("protocol", With::Text("TCP"))]));
        }
    },
    validate: |object| {
        let mut out = Causes::new();
        endpoints(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let subsets = |object: &Object| object.0.get("subsets").cloned().unwrap_or_default();
        if !same(&subsets(new), &subsets(old)) {
            endpoints(new, &mut out);
        }
        out
    },
    warn: |_| vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()],
    create_on_update: true,
    ..Kind::PLAIN
};

fn endpoints(object: &Object, out: &mut Causes) {
    for subset in At::root(object).field("subsets").items() {
        let lists = ["addresses", "notReadyAddresses"].map(|name| subset.field(name));
        if lists.iter().all(super::validate::At::is_empty) {
            subset.required("must specify `addresses` or `notReadyAddresses`", out);
        }
        for address in lists.iter().flat_map(|list| list.items().collect::<Vec<_>>()) {
            ip::address(&address.field("ip"), out);
            const RULES: &[Rule] = &[
                Rule("hostname", Check::Text(names::dns_label)),
                Rule("nodeName", Check::Text(names::dns_subdomain)),
            ];
            address.check(RULES, out);
            ip::endpoint(&address.field("ip"), out);
        }
        let ports = subset.field("ports");
        for port in ports.items() {
            let name = port.field("name");
            if !name.is_empty() {
                name.names(names::dns_label, out);
            } else if ports.len() > 1 {
                name.required("", out);
            }
            port.field("port").port(out);
            port.field("protocol").one_of(PROTOCOLS, out);
            app_protocol(&port, out);
        }
    }
}

fn app_protocol(port: &At<'_>, out: &mut Causes) {
    let protocol = port.field("appProtocol");
    if protocol.is_set() {
        labels::label_name(protocol.text(), &protocol, out);
    }
}

pub static ENDPOINT_SLICE: Kind = Kind {
    default: |object| {
        for port in items(&mut object.0, "ports") {
            or_insert(port, "name", "");
            or_insert(port, "protocol", "TCP");
        }
    },
    validate: |object| {
        let mut out = Causes::new();
        slice(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        slice(new, &mut out);
        At::root(new).field("addressType").immutable(&At::root(old).field("addressType"), &mut out);
        out
    },
    warn: |object| {
        let mut out = Vec::new();
        if object.text(&["addressType"]) == "FQDN" {
            out.push("addressType: FQDN endpoints are deprecated".to_owned());
        }
        for endpoint in At::root(object).field("endpoints").items() {
            endpoint.field("addresses").items().for_each(|one| super::warnings::address(&one, &mut out));
        }
        out
    },
    counts_generations: true,
    also_counts: |new, old| new.labels() != old.labels(),
    ..Kind::PLAIN
};

fn slice(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let kind = root.field("addressType");
    kind.one_of(&["FQDN", "IPv4", "IPv6"], out);
    let mut seen = Vec::new();
    for port in root.field("ports").items() {
        let name = port.field("name");
        if !name.is_empty() {
            name.names(names::dns_label, out);
        }
        if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        seen.push(name.text());
        port.field("protocol").one_of(PROTOCOLS, out);
        app_protocol(&port, out);
    }
    let endpoints = root.field("endpoints");
    if endpoints.len() > 1000 {
        return endpoints.too_many(1000, out);
    }
    for endpoint in endpoints.items() {
        let addresses = endpoint.field("addresses");
        if addresses.is_empty() {
            addresses.required("must contain at least 1 address", out);
        } else if addresses.len() > 100 {
            addresses.too_many(100, out);
        }
        addresses.items().for_each(|address| slice_address(&address, &addresses, kind.text(), out));
        if endpoint.has("nodeName") {
            endpoint.field("nodeName").names(names::dns_subdomain, out);
        }
        labels::labels(&endpoint.field("deprecatedTopology"), out);
        if endpoint.has("hostname") {
            endpoint.field("hostname").names(names::dns_label, out);
        }
        for zone in endpoint.down(&["hints", "forZones"]).items() {
            zone.field("name").names(names::label_value, out);
        }
    }
}

fn slice_address(at: &At<'_>, list: &At<'_>, kind: &str, out: &mut Causes) {
    let before = out.len();
    match kind {
        "IPv4" | "IPv6" => {
            ip::address(at, out);
            if out.len() > before {
                return;
            }
            let six = at.text().contains(':');
            if six != (kind == "IPv6") {
                list.invalid_value(at.value(), format_args!("must be an {kind} address"), out);
            }
            ip::endpoint(at, out);
        }
        "FQDN" => {
            let name = at.text().strip_suffix('.').unwrap_or(at.text());
            let errors = names::dns_subdomain(name);
            if name.is_empty() {
                at.required("", out);
            } else if !errors.is_empty() {
                at.invalid_value(&name.into(), errors.join(","), out);
            } else if !name.contains('.') {
                at.invalid_value(
                    &name.into(),
                    "should be a domain with at least two segments separated by dots",
                    out,
                );
            }
        }
        _ => {}
    }
}

pub static IP_ADDRESS: Kind = Kind {
    validate: |object| {
        let mut out = Causes::new();
        let root = At::root(object);
        let parent = root.down(&["spec", "parentRef"]);
        if !parent.is_set() {
            parent.required("", &mut out);
            return out;
        }
        const RULES: &[Rule] = &[
            Rule("group", Check::Text(names::dns_subdomain)),
            Rule("resource", Check::RequiredText(names::path_segment)),
            Rule("name", Check::RequiredText(names::path_segment)),
            Rule("namespace", Check::Text(names::path_segment)),
        ];
        parent.check(RULES, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let path = ["spec", "parentRef"];
        At::root(new).down(&path).immutable(&At::root(old).down(&path), &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};

pub static SERVICE_CIDR: Kind = Kind {
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        let list = At::root(object).down(&["spec", "cidrs"]);
        if list.is_empty() {
            list.required("at least one CIDR required", &mut out);
        }
        if list.len() > 2 {
            list.invalid("may only hold up to 2 values", &mut out);
        }
        list.items().for_each(|one| ip::network(&one, &mut out));
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let path = ["spec", "cidrs"];
        At::root(new).down(&path).immutable(&At::root(old).down(&path), &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};
