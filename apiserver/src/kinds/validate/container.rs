//! Containers: those of a pod, those before it, those for a look into it.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::pod::Pod;
use super::{At, Causes, Check, Rule, names, probe, resources, security, volume};

pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
pub const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

pub fn containers(at: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    if at.is_empty() {
        return at.required("", out);
    }
    let mut seen = Vec::new();
    for container in at.items() {
        common(&container, pod, out);
        let name = container.field("name");
        if seen.contains(&name.text()) {
            name.duplicate(out);
        } else {
            seen.push(name.text());
        }
        if container.has("lifecycle") {
            probe::lifecycle(&container.field("lifecycle"), pod.grace, out);
        }
        probe::probes(&container, out);
        restart_policy(&container, out);
    }
    host_ports(at.items(), at, out);
}

pub fn init_containers(at: &At<'_>, regular: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    let mut seen: Vec<&str> = regular.items().map(|container| container.field("name").text()).collect();
    for container in at.items() {
        common(&container, pod, out);
        restart_policy(&container, out);
        let stays = container.field("restartPolicy").text() == "Always";
        let name = container.field("name");
        if seen.contains(&name.text()) {
            name.duplicate(out);
        } else if !name.is_empty() {
            seen.push(name.text());
        }
        host_ports(std::iter::once(container.clone()), at, out);
        if stays {
            if container.has("lifecycle") {
                probe::lifecycle(&container.field("lifecycle"), pod.grace, out);
            }
            probe::probes(&container, out);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.has(field) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                container.field(field).forbidden(detail, out);
            }
        }
        for policy in container.field("resizePolicy").items() {
            let policy = policy.field("restartPolicy");
            if policy.text() == "RestartContainer" {
                policy.invalid("must not be set to 'RestartContainer' for non-sidecar initContainers", out);
            }
        }
    }
}

pub fn ephemeral_containers(at: &At<'_>, spec: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    const REFUSED: [&str; 10] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
        "volumeDevices__",
    ];
    let others = [spec.field("containers"), spec.field("initContainers")];
    let others: Vec<&str> =
        others.iter().flat_map(At::items).map(|container| container.field("name").text()).collect();
    let mut seen = others.clone();
    for container in at.items() {
        common(&container, pod, out);
        trimmed_image(&container, out);
        let name = container.field("name");
        if seen.contains(&name.text()) {
            name.duplicate(out);
        } else {
            seen.push(name.text());
        }
        let target = container.field("targetContainerName");
        if !target.is_empty() && !others.contains(&target.text()) {
            target.not_found(out);
        }
        for field in REFUSED {
            if !container.field(field).is_empty() {
                container.field(field).forbidden("cannot be set for an Ephemeral Container", out);
            }
        }
        for mount in container.field("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.field(field).is_empty() {
                    mount.field(field).forbidden("cannot be set for an Ephemeral Container", out);
                }
            }
        }
    }
}

fn common(at: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    const RULES: &[Rule] = &[
        Rule("name", Check::RequiredText(names::dns_label)),
        Rule("image", Check::Required),
        Rule("terminationMessagePolicy", Check::OneOf(&["File", "FallbackToLogsOnError"])),
        Rule("ports", Check::By(ports)),
        Rule("env", Check::EachBy(variable)),
        Rule("envFrom", Check::By(env_from)),
    ];
    at.check(RULES, out);
    volume::mounts(at, pod, out);
    volume::devices(at, pod, out);
    at.field("imagePullPolicy").one_of(PULL_POLICIES, out);
    resources::of_container(&at.field("resources"), &pod.claims, out);
    resize_policy(&at.field("resizePolicy"), pod, out);
    security::of_container(&at.field("securityContext"), pod, out);
}

fn ports(at: &At<'_>, out: &mut Causes) {
    let mut seen = Vec::new();
    for port in at.items() {
        let name = port.field("name");
        if !name.is_empty() {
            let before = out.len();
            name.names(names::port_name, out);
            if out.len() == before {
                if seen.contains(&name.text()) {
                    name.duplicate(out);
                }
                seen.push(name.text());
            }
        }
        let number = port.field("containerPort");
        if number.int() == 0 {
            number.required("", out);
        } else {
            number.port(out);
        }
        if port.field("hostPort").int() != 0 {
            port.field("hostPort").port(out);
        }
        port.field("protocol").one_of(PROTOCOLS, out);
    }
}

fn host_ports<'v>(containers: impl Iterator<Item = At<'v>>, list: &At<'_>, out: &mut Causes) {
    let mut seen = Vec::new();
    for (at, container) in containers.enumerate() {
        let container = container.shown_at(list.path().index(at));
        for port in container.field("ports").items() {
            let number = port.field("hostPort");
            if number.int() == 0 {
                continue;
            }
            let text =
                format!("{}/{}/{}", port.field("protocol").text(), port.field("hostIP").text(), number.int());
            if seen.contains(&text) {
                number.duplicate_value(&text.into(), out);
            } else {
                seen.push(text);
            }
        }
    }
}

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn variable(at: &At<'_>, out: &mut Causes) {
    at.check(&[Rule("name", Check::RequiredText(names::variable))], out);
    let from = at.field("valueFrom");
    if !from.is_set() {
        return;
    }
    let mut sources = 0;
    for kind in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let source = from.field(kind);
        if !source.is_set() {
            continue;
        }
        sources += 1;
        match kind {
            "fieldRef" => field_ref(&source, FIELDS, out),
            "resourceFieldRef" => resource_ref(&source, false, out),
            "fileKeyRef" => file_key_ref(&source, out),
            _ => key_ref(&source, out),
        }
    }
    let empty = "".into();
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        from.invalid_value(&empty, detail, out);
    } else if !at.field("value").is_empty() {
        from.invalid_value(&empty, "may not be specified when `value` is not empty", out);
    } else if sources > 1 {
        from.invalid_value(&empty, "may not have more than one field specified at a time", out);
    }
}

/// `metadata.labels['a']`: what is before and within the brackets.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// A field of the pod, one of `fields` or a label or an annotation.
pub fn field_ref(at: &At<'_>, fields: &[&str], out: &mut Causes) {
    for field in ["apiVersion", "fieldPath"] {
        if at.field(field).is_empty() {
            return at.field(field).required("", out);
        }
    }
    let path = at.field("fieldPath");
    let convert = |what: &str, out: &mut Causes| {
        path.invalid(format_args!("error converting fieldPath: field label {what}: {}", path.text()), out);
    };
    if at.field("apiVersion").text() != "v1" {
        let version = at.field("apiVersion").text();
        return path
            .invalid(format_args!("error converting fieldPath: unsupported pod version: {version}"), out);
    }
    match subscripted(path.text()) {
        Some(("metadata.annotations", key)) => super::labels::label_name(&key.to_lowercase(), at, out),
        Some(("metadata.labels", key)) => super::labels::label_name(key, at, out),
        Some(_) => convert("does not support subscript", out),
        None if fields.contains(&path.text()) => {}
        None => {
            const CONVERTED: &[&str] = &[
                "metadata.annotations",
                "metadata.labels",
                "spec.restartPolicy",
                "spec.schedulerName",
                "status.phase",
                "spec.host",
            ];
            if CONVERTED.contains(&path.text()) || FIELDS.contains(&path.text()) {
                path.unsupported(fields, out);
            } else {
                convert("not supported", out);
            }
        }
    }
}

/// A limit or a request of a container; within a volume it must say of which.
pub fn resource_ref(at: &At<'_>, in_volume: bool, out: &mut Causes) {
    const RESOURCES: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    const MEMORY: [&str; 13] =
        ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let resource = at.field("resource");
    let name = resource.text();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if in_volume && at.field("containerName").is_empty() {
        at.field("containerName").required("", out);
    } else if name.is_empty() {
        resource.required("", out);
    } else if !RESOURCES.contains(&name) && !huge {
        resource.unsupported(RESOURCES, out);
    }
    let divisor = at.field("divisor");
    let Some(quantity) = crate::kinds::quantity::Quantity::of(divisor.value()).filter(|one| !one.is_zero())
    else {
        return;
    };
    let text = quantity.to_string();
    let many = MEMORY.join(", ");
    let detail = match name.split_once('.').map(|(_, resource)| resource) {
        Some("cpu") if !matches!(&*text, "1m" | "1") => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        Some("memory") if !MEMORY.contains(&&*text) => {
            format!("only divisor's values {many} are supported with the memory resource")
        }
        Some("ephemeral-storage") if !MEMORY.contains(&&*text) => {
            format!("only divisor's values {many} are supported with the local ephemeral storage resource")
        }
        Some(_) if huge && !MEMORY.contains(&&*text) => {
            format!("only divisor's values {many} are supported with the hugepages resource")
        }
        _ => return,
    };
    divisor.invalid_value(&name.into(), detail, out);
}

/// A key of a ConfigMap or a Secret.
fn key_ref(at: &At<'_>, out: &mut Causes) {
    at.field("name").names(names::dns_subdomain, out);
    at.check(&[Rule("key", Check::RequiredText(names::config_key))], out);
}

fn file_key_ref(at: &At<'_>, out: &mut Causes) {
    const RULES: &[Rule] = &[
        Rule("key", Check::RequiredText(names::variable)),
        Rule("volumeName", Check::RequiredText(names::dns_label)),
        Rule("path", Check::Required),
    ];
    at.check(RULES, out);
    volume::no_backsteps(&at.field("path"), out);
}

fn env_from(at: &At<'_>, out: &mut Causes) {
    for item in at.items() {
        item.check(&[Rule("prefix", Check::Text(names::variable))], out);
        let sources = ["configMapRef", "secretRef"].map(|kind| item.field(kind));
        let mut found = 0;
        for source in sources.iter().filter(|source| source.is_set()) {
            found += 1;
            source.check(&[Rule("name", Check::RequiredText(names::dns_subdomain))], out);
        }
        if found == 0 {
            at.invalid_value(&"".into(), "must specify one of: `configMapRef` or `secretRef`", out);
        } else if found > 1 {
            at.invalid_value(&"".into(), "may not have more than one field specified at a time", out);
        }
    }
}

fn resize_policy(at: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    let mut seen: HashSet<&str> = HashSet::new();
    for item in at.items() {
        let (resource, policy) = (item.field("resourceName"), item.field("restartPolicy"));
        if !seen.insert(resource.text()) {
            item.duplicate_value(resource.value(), out);
        }
        resource.shown_at(at.path()).one_of(&["cpu", "memory"], out);
        policy.shown_at(at.path()).one_of(&["NotRequired", "RestartContainer"], out);
        if pod.restart_policy == "Never" && policy.text() != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            at.invalid_value(policy.value(), detail, out);
        }
    }
}

fn restart_policy(at: &At<'_>, out: &mut Causes) {
    let (policy, rules) = (at.field("restartPolicy"), at.field("restartPolicyRules"));
    if policy.is_set() {
        policy.one_of_if_set(&["Always", "Never", "OnFailure"], out);
    } else {
        if rules.is_empty() {
            return;
        }
        policy.required("must specify restartPolicy when restart rules are used", out);
    }
    if rules.len() > 20 {
        rules.too_many(20, out);
    }
    for rule in rules.items() {
        let action = rule.field("action");
        if !["Restart", "RestartAllContainers"].contains(&action.text()) {
            action.unsupported(&["Restart", "RestartAllContainers"], out);
        }
        let codes = rule.field("exitCodes");
        if codes.is_set() {
            let operator = codes.field("operator");
            if !["In", "NotIn"].contains(&operator.text()) {
                operator.unsupported(&["In", "NotIn"], out);
            }
            if codes.field("values").len() > 255 {
                codes.field("values").too_many(255, out);
            }
        } else {
            codes.required("must be specified", out);
        }
    }
}

pub fn trimmed_image(at: &At<'_>, out: &mut Causes) {
    let image = at.field("image");
    if image.text().trim().len() != image.len() {
        image.invalid("must not have leading or trailing whitespace", out);
    }
}

/// Ports of a pod on the network of its host are the host's.
pub fn host_network_ports(spec: &At<'_>, is_pod: bool, out: &mut Causes) {
    for port in spec
        .field("containers")
        .items()
        .flat_map(|container| container.field("ports").items().collect::<Vec<_>>())
    {
        let (host, own) = (port.field("hostPort"), port.field("containerPort").int());
        if (is_pod || host.int() != 0) && host.int() != own {
            let value: Value = json!(host.int());
            host.invalid_value(&value, "must match `containerPort` when `hostNetwork` is true", out);
        }
    }
}
