//! `Warning:` headers about pods. Source: kubernetes `pkg/api/pod/warnings.go`, `pkg/api/node/util.go`.

use std::net::IpAddr;

use super::quantity::Quantity;
use super::validate::At;
use super::validate::ip::{self, Network};
use super::validate::pod::all_containers;

const VOLUMES: [(&str, &str, &str); 9] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const NODE_LABELS: [(&str, &str); 7] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    (
        "failure-domain.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
];

fn node_label(label: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(one, _)| *one == label).map(|(_, message)| *message)
}

/// Of a pod or (`in_template`) of a template.
pub fn pod(meta: &At<'_>, spec: &At<'_>, in_template: bool, out: &mut Vec<String>) {
    for (key, entry) in spec.field("nodeSelector").entries() {
        out.extend(node_label(key).map(|message| format!("{}: {message}", entry.path())));
    }
    let node = spec.down(&["affinity", "nodeAffinity"]);
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution").field("nodeSelectorTerms");
    required.items().for_each(|term| node_term(&term, out));
    for term in node.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        node_term(&term.field("preference"), out);
    }
    for constraint in spec.field("topologySpreadConstraints").items() {
        let key = constraint.field("topologyKey");
        out.extend(
            node_label(key.text()).map(|message| format!("{}: {} is {message}", key.path(), key.text())),
        );
        null_selector(&constraint, out);
    }
    let annotations = meta.field("annotations");
    for (key, message) in ANNOTATIONS {
        if annotations.has(key) {
            out.push(format!("{}: {message}", annotations.key(key).path()));
        }
    }
    for volume in spec.field("volumes").items() {
        for (field, shown, message) in VOLUMES {
            if volume.has(field) {
                out.push(format!("{}: {message}", volume.field(shown).path()));
            }
        }
        claim_spec(&volume.down(&["ephemeral", "volumeClaimTemplate", "spec"]), out);
    }
    overlapping_paths(spec, out);
    duplicates(spec, out);
    for name in ["memory", "ephemeral-storage"] {
        fraction(&spec.field("overhead").key(name), out);
    }
    containers(&annotations, spec, in_template, out);
    ports(spec, out);
    let grace = spec.field("terminationGracePeriodSeconds");
    if grace.int() < 0 {
        out.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            grace.path()
        ));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.field("affinity").field(kind);
        let required = affinity.field("requiredDuringSchedulingIgnoredDuringExecution");
        required.items().for_each(|term| null_selector(&term, out));
        for term in affinity.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
            null_selector(&term.field("podAffinityTerm"), out);
        }
    }
    spec.down(&["dnsConfig", "nameservers"]).items().for_each(|one| address(&one, out));
    spec.field("hostAliases").items().for_each(|one| address(&one.field("ip"), out));
}

fn node_term(term: &At<'_>, out: &mut Vec<String>) {
    for expression in term.field("matchExpressions").items() {
        let key = expression.field("key");
        out.extend(
            node_label(key.text()).map(|message| format!("{}: {} is {message}", key.path(), key.text())),
        );
    }
}

fn null_selector(at: &At<'_>, out: &mut Vec<String>) {
    let selector = at.field("labelSelector");
    if !selector.is_set() {
        out.push(format!("{}: a null labelSelector results in matching no pod", selector.path()));
    }
}

fn duplicates(spec: &At<'_>, out: &mut Vec<String>) {
    for (list, field, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let mut seen = Vec::new();
        for item in spec.field(list).items() {
            let value = item.field(field);
            if seen.contains(&value.text()) {
                out.push(format!("{}: duplicate {what} \"{}\"", value.path(), value.text()));
            }
            seen.push(value.text());
        }
    }
    for name in spec.field("imagePullSecrets").items().map(|item| item.field("name")) {
        if name.is_empty() {
            out.push(format!("{}: invalid empty name \"\"", name.path()));
        }
    }
}

fn fraction(at: &At<'_>, out: &mut Vec<String>) {
    if let Some(amount) = Quantity::of(at.value()).filter(|amount| !amount.is_whole()) {
        out.push(format!("{}: fractional byte value \"{amount}\" is invalid, must be an integer", at.path()));
    }
}

fn containers(annotations: &At<'_>, spec: &At<'_>, in_template: bool, out: &mut Vec<String>) {
    const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let seccomp = |key: &str, out: &mut Vec<String>| {
        if annotations.has(key) {
            let path = annotations.key(key).path();
            out.push(format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
        }
    };
    if !spec.field("securityContext").has("seccompProfile") {
        seccomp(SECCOMP_POD, out);
    }
    for container in all_containers(spec) {
        let name = container.field("name").text();
        if !container.field("securityContext").has("seccompProfile") {
            seccomp(&format!("container.seccomp.security.alpha.kubernetes.io/{name}"), out);
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        if in_template && annotations.has(&key) && !container.field("securityContext").has("appArmorProfile")
        {
            let path = annotations.key(&key).path();
            out.push(format!("{path}: deprecated since v1.30; use the \"appArmorProfile\" field instead"));
        }
        for resource in ["memory", "ephemeral-storage"] {
            for list in ["limits", "requests"] {
                fraction(&container.field("resources").field(list).key(resource), out);
            }
        }
        let mut seen = Vec::new();
        for variable in container.field("env").items() {
            let name = variable.field("name").text();
            let (value, itself) = (variable.field("value").text(), format!("$({name})"));
            let hides = variable.has("valueFrom") || value == itself || !value.contains(&itself);
            if seen.contains(&name) && hides {
                out.push(format!(
                    "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
                    variable.path()
                ));
            }
            seen.push(name);
        }
    }
}

fn text<'v>(at: &At<'v>, name: &'static str) -> &'v str {
    at.field(name).text()
}

fn int(at: &At<'_>, name: &'static str) -> i64 {
    at.field(name).int()
}

fn ports(spec: &At<'_>, out: &mut Vec<String>) {
    let all =
        || all_containers(spec).into_iter().flat_map(|one| one.field("ports").items().collect::<Vec<_>>());
    let mut seen: Vec<At<'_>> = Vec::new();
    for port in all() {
        for other in seen.iter().filter(|other| {
            int(other, "containerPort") == int(&port, "containerPort")
                && text(other, "protocol") == text(&port, "protocol")
        }) {
            let (host, before) = (int(&port, "hostPort"), int(other, "hostPort"));
            let (ip, ip_before) = (text(&port, "hostIP"), text(other, "hostIP"));
            let what = if ip == ip_before && host == before {
                "duplicate"
            } else if host == 0 || before == 0 {
                "overlapping"
            } else if host == before && ip.is_empty() != ip_before.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{}: {what} port definition with {}", port.path(), other.path()));
        }
        seen.push(port);
    }
    let mut named: Vec<At<'_>> = Vec::new();
    for port in all().filter(|port| !port.field("name").is_empty()) {
        let name = port.field("name").text();
        match named.iter().find(|other| other.field("name").text() == name) {
            Some(other) => out.push(format!("{}: duplicate port name \"{name}\" with {}, services and probes that select ports by name will use {}", port.path(), other.path(), other.path())),
            None => named.push(port),
        }
    }
}

/// A claim, or the template of one.
pub fn claim_spec(spec: &At<'_>, out: &mut Vec<String>) {
    fraction(&spec.down(&["resources", "requests"]).key("storage"), out);
    fraction(&spec.down(&["resources", "limits"]).key("storage"), out);
}

/// An address that is not written as it should be.
pub fn address(at: &At<'_>, out: &mut Vec<String>) {
    let text = at.text();
    let Some(meant) = ip::parse_loose(text) else { return };
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_none() => {
            if six.to_string() != text {
                out.push(format!(
                    "{}: IPv6 address \"{text}\" should be in RFC 5952 canonical format (\"{six}\")",
                    at.path()
                ));
            }
        }
        Ok(IpAddr::V4(_)) => {}
        _ => {
            out.push(format!(
                "{}: non-standard IP address \"{text}\" is invalid: use \"{meant}\"",
                at.path()
            ));
        }
    }
}

/// A network that is not written as it should be.
pub fn network(at: &At<'_>, out: &mut Vec<String>) {
    let text = at.text();
    let Some(network) = Network::parse(text) else { return };
    if network.first() != network.address {
        let most = if network.address.is_ipv4() { 32 } else { 128 };
        out.push(format!("{}: CIDR value \"{text}\" is ambiguous in this context (should be \"{network}\" or \"{}/{most}\"?)", at.path(), network.address));
    } else if network.address.is_ipv6() && network.to_string() != text {
        out.push(format!(
            "{}: IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{network}\")",
            at.path()
        ));
    }
}

fn overlapping_paths(spec: &At<'_>, out: &mut Vec<String>) {
    for volume in spec.field("volumes").items() {
        let name = volume.field("name").text();
        let sources = [
            ("configMap", format!("ConfigMap \"{}\"", volume.down(&["configMap", "name"]).text())),
            ("secret", format!("Secret \"{}\"", volume.down(&["secret", "secretName"]).text())),
            ("downwardAPI", "DownwardAPI".to_owned()),
        ];
        for (kind, what) in sources {
            let mut seen: Vec<(String, String)> = Vec::new();
            for item in volume.field(kind).field("items").items() {
                overlap(name, &what, item.field("path").text(), "", &mut seen, out);
            }
        }
        let mut seen = Vec::new();
        for source in volume.down(&["projected", "sources"]).items() {
            projected(name, &source, &mut seen, out);
        }
    }
}

fn projected(volume: &str, source: &At<'_>, seen: &mut Vec<(String, String)>, out: &mut Vec<String>) {
    let kinds = ["configMap", "secret", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"];
    let Some(kind) = kinds.into_iter().find(|kind| source.has(kind)) else {
        if !source.has("podCertificate") {
            out.push(format!("volume \"{volume}\" (Projected) has no sources provided"));
        }
        return;
    };
    let at = source.field(kind);
    let name = at.field("name").text();
    let what = match kind {
        "configMap" => format!("ConfigMap \"{name}\""),
        "secret" => format!("Secret \"{name}\""),
        "downwardAPI" => "DownwardAPI".to_owned(),
        "serviceAccountToken" => "ServiceAccountToken".to_owned(),
        _ => format!(
            "ClusterTrustBundle \"{}\"",
            if name.is_empty() { at.field("signerName").text() } else { name }
        ),
    };
    for item in at.field("items").items() {
        overlap(volume, "Projected", item.field("path").text(), &what, seen, out);
    }
    if at.has("path") {
        overlap(volume, "Projected", at.field("path").text(), &what, seen, out);
    }
}

/// A path that is another, or within it.
fn overlap(
    volume: &str,
    what: &str,
    path: &str,
    source: &str,
    seen: &mut Vec<(String, String)>,
    out: &mut Vec<String>,
) {
    let path = path.trim_end_matches('/');
    let show = |path: &str, source: &str| {
        if source.is_empty() { format!("\"{path}\"") } else { format!("\"{path}\" ({source})") }
    };
    for (other, from) in seen.iter().filter(|(other, _)| !other.is_empty() && !path.is_empty()) {
        if format!("{other}/").starts_with(&format!("{path}/"))
            || format!("{path}/").starts_with(&format!("{other}/"))
        {
            out.push(format!(
                "volume \"{volume}\" ({what}): overlapping paths: {} with {}",
                show(path, source),
                show(other, from)
            ));
        }
    }
    seen.push((path.to_owned(), source.to_owned()));
}
