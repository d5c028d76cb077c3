//! The specification of a pod, by itself and within a template. Source: kubernetes `pkg/apis/core/validation`
//! (`ValidatePodSpec`), with the feature gates as they are by default.

use serde_json::Value;

use super::{At, Causes, Check, Rule, container, ip, labels, names, resources, scheduling, security, volume};
use crate::kinds::quantity::Quantity;

/// What the parts of a specification must know of the whole.
pub struct Pod<'v> {
    /// How long it may take to end.
    pub grace: Option<i64>,
    pub restart_policy: &'v str,
    pub host_users: bool,
    pub claims: Vec<&'v str>,
    volumes: Vec<(&'v str, At<'v>)>,
}

impl<'v> Pod<'v> {
    pub fn volume(&self, name: &str) -> Option<&At<'v>> {
        self.volumes.iter().find(|(one, _)| *one == name).map(|(_, volume)| volume)
    }
}

const RULES: &[Rule] = &[
    Rule("restartPolicy", Check::OneOf(&["Always", "OnFailure", "Never"])),
    Rule("dnsPolicy", Check::OneOf(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"])),
    Rule("nodeSelector", Check::By(labels::labels)),
];

const AFTER: &[Rule] = &[
    Rule("affinity", Check::By(scheduling::affinity)),
    Rule("readinessGates", Check::Each(scheduling::READINESS_GATE)),
    Rule("schedulingGates", Check::By(scheduling::gates)),
    Rule("topologySpreadConstraints", Check::By(scheduling::spread_constraints)),
];

const LAST: &[Rule] = &[
    Rule("serviceAccountName", Check::Text(names::dns_subdomain)),
    Rule("nodeName", Check::Text(names::dns_subdomain)),
    Rule("activeDeadlineSeconds", Check::By(deadline)),
    Rule("hostname", Check::Text(names::dns_label)),
    Rule("subdomain", Check::Text(names::dns_label)),
    Rule("tolerations", Check::By(scheduling::tolerations)),
    Rule("hostAliases", Check::EachBy(host_alias)),
    Rule("priorityClassName", Check::Text(names::dns_subdomain)),
    Rule("runtimeClassName", Check::By(runtime_class)),
    Rule("preemptionPolicy", Check::OneOfIfSet(&["PreemptLowerPriority", "Never"])),
    Rule("overhead", Check::By(resources::overhead)),
];

/// `name`: of the pod; a template has none.
pub fn spec(at: &At<'_>, is_pod: bool, name: &str, out: &mut Causes) {
    let grace = at.field("terminationGracePeriodSeconds");
    if !grace.is_set() {
        grace.required("", out);
    }
    let pod = Pod {
        grace: grace.value().as_i64(),
        restart_policy: at.field("restartPolicy").text(),
        host_users: at.field("hostUsers").value() != &Value::Bool(false),
        claims: at.field("resourceClaims").items().map(|claim| claim.field("name").text()).collect(),
        volumes: volume::volumes(&at.field("volumes"), if is_pod { name } else { "" }, out),
    };
    resource_claims(&at.field("resourceClaims"), out);
    let regular = at.field("containers");
    container::containers(&regular, &pod, out);
    container::init_containers(&at.field("initContainers"), &regular, &pod, out);
    container::ephemeral_containers(&at.field("ephemeralContainers"), at, &pod, out);
    pod_resources(at, &pod, out);
    if at.field("hostNetwork").flag() {
        container::host_network_ports(at, is_pod, out);
    }
    at.check(RULES, out);
    security::of_pod(&at.field("securityContext"), at, out);
    affinity_to_gates(at, out);
    host_process(at, out);
    host_users(at, &pod, out);
    hostname_override(at, out);
    at.check(LAST, out);
    operating_system(at, out);
    file_keys(at, &pod, out);
}

fn affinity_to_gates(at: &At<'_>, out: &mut Causes) {
    at.check(&AFTER[..1], out);
    dns(at, out);
    at.check(&AFTER[1..], out);
}

fn deadline(at: &At<'_>, out: &mut Causes) {
    if at.is_set() {
        at.range(1, i64::from(i32::MAX), out);
    }
}

fn runtime_class(at: &At<'_>, out: &mut Causes) {
    if at.is_set() {
        at.names(names::dns_subdomain, out);
    }
}

fn host_alias(at: &At<'_>, out: &mut Causes) {
    ip::address(&at.field("ip"), out);
    at.field("hostnames").items().for_each(|name| name.names(names::dns_subdomain, out));
}

fn resource_claims(at: &At<'_>, out: &mut Causes) {
    let mut seen = Vec::new();
    for claim in at.items() {
        let name = claim.field("name");
        if name.is_empty() {
            name.required("", out);
        } else if seen.contains(&name.text()) {
            name.duplicate(out);
        } else {
            name.names(names::dns_label, out);
            seen.push(name.text());
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|field| claim.field(field));
        let shape = [
            ("Name", name.value()),
            ("ResourceClaimName", sources[0].value()),
            ("ResourceClaimTemplateName", sources[1].value()),
        ];
        let detail = match sources.iter().filter(|one| one.is_set()).count() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        };
        if !detail.is_empty() {
            claim.invalid_shape(&shape, detail, out);
        }
        for source in sources.iter().filter(|one| one.is_set()) {
            source.names(names::dns_subdomain, out);
        }
    }
}

fn dns(at: &At<'_>, out: &mut Causes) {
    let config = at.field("dnsConfig");
    let servers = config.field("nameservers");
    if at.field("dnsPolicy").text() == "None" {
        if !config.is_set() {
            return config.required("must provide `dnsConfig` when `dnsPolicy` is None", out);
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return servers.required(detail, out);
        }
    }
    if servers.len() > 3 {
        servers.invalid("must not have more than 3 nameservers", out);
    }
    servers.items().for_each(|server| ip::address(&server, out));
    let searches = config.field("searches");
    if searches.len() > 32 {
        searches.invalid("must not have more than 32 search paths", out);
    }
    if searches.texts().collect::<Vec<_>>().join(" ").len() > 2048 {
        searches
            .invalid("must not have more than 2048 characters (including spaces) in the search list", out);
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        for detail in names::dns_subdomain_with_underscore(text) {
            search.invalid_value(&text.into(), detail, out);
        }
    }
    for option in config.field("options").items().filter(|option| option.field("name").is_empty()) {
        option.required("must not be empty", out);
    }
}

/// Windows' containers in the host: all or none.
fn host_process(at: &At<'_>, out: &mut Causes) {
    let path = ["securityContext", "windowsOptions", "hostProcess"];
    let own = at.down(&path);
    let (containers, mut count) = (all_containers(at), 0);
    for container in &containers {
        let theirs = container.down(&path);
        if own.is_set() && theirs.is_set() && own.value() != theirs.value() {
            let detail =
                format!("pod hostProcess value must be identical if both are specified, was {}", own.flag());
            theirs.invalid(detail, out);
        }
        count += usize::from(if theirs.is_set() { theirs.flag() } else { own.flag() });
    }
    if count == 0 {
        return;
    }
    if count != containers.len() {
        let detail =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        at.invalid_value(&"".into(), detail, out);
    }
    let network = at.field("hostNetwork");
    if !network.flag() {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        network.invalid_value(&Value::Bool(false), detail, out);
    }
}

fn host_users(at: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    if pod.host_users {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if at.field(field).flag() {
            at.field(shown).forbidden("when `hostUsers` is false", out);
        }
    }
    for container in all_containers(at) {
        if !container.field("volumeDevices").is_empty() {
            container.field("volumeDevices").forbidden("when `hostUsers` is false", out);
        }
    }
}

fn hostname_override(at: &At<'_>, out: &mut Causes) {
    let name = at.field("hostnameOverride");
    if !name.is_set() {
        return;
    }
    if at.field("setHostnameAsFQDN").flag() {
        name.forbidden("may not be specified when setHostnameAsFQDN is true", out);
    }
    if at.field("hostNetwork").flag() {
        name.forbidden("may not be specified when hostNetwork is true", out);
    }
    if name.len() > 64 {
        name.too_long(64, out);
    }
    name.names(names::dns_subdomain, out);
}

fn operating_system(at: &At<'_>, out: &mut Causes) {
    let os = at.field("os");
    let name = os.field("name");
    if !os.is_set() {
        return;
    }
    let containers = all_containers(at);
    let contexts = containers.iter().map(|one| one.field("securityContext"));
    let contexts: Vec<_> = std::iter::once(at.field("securityContext")).chain(contexts).collect();
    match name.text() {
        "" => name.required("", out),
        "linux" => {
            for options in contexts.iter().map(|one| one.field("windowsOptions")).filter(At::is_set) {
                options.forbidden("windows options cannot be set for a linux pod", out);
            }
        }
        "windows" => windows(at, &contexts, out),
        _ => name.shown_at(os.path()).unsupported(&["linux", "windows"], out),
    }
}

fn windows(at: &At<'_>, contexts: &[At<'_>], out: &mut Causes) {
    const OF_POD: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
    const OF_CONTEXTS: [&str; 17] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "resources",
    ];
    let fields = OF_POD.iter().map(|field| at.field(field));
    let within = contexts.iter().flat_map(|context| OF_CONTEXTS.iter().map(|field| context.field(field)));
    for field in fields.chain(within).filter(At::is_set) {
        field.forbidden("cannot be set for a windows pod", out);
    }
}

fn pod_resources(at: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    let own = at.field("resources");
    if !own.is_set() {
        return;
    }
    if at.down(&["os", "name"]).text() == "windows" {
        return own.forbidden("may not be set for a windows pod", out);
    }
    resources::of_pod(&own, &pod.claims, out);
    for (key, entry) in own.field("requests").entries() {
        let sum = at
            .field("containers")
            .items()
            .filter_map(|one| Quantity::of(one.down(&["resources", "requests"]).key(key).value()))
            .reduce(Quantity::plus);
        if let (Some(sum), Some(request)) = (sum, Quantity::of(entry.value()))
            && sum > request
        {
            let detail =
                format_args!("must be greater than or equal to aggregate container requests of {sum}")
                    .to_string();
            entry.invalid_value(&request.to_string().into(), detail, out);
        }
    }
    for (index, container) in at.field("containers").items().enumerate() {
        for (key, entry) in container.down(&["resources", "limits"]).entries() {
            let (limit, most) =
                (Quantity::of(entry.value()), Quantity::of(own.field("limits").key(key).value()));
            if let (Some(limit), Some(most)) = (limit, most)
                && limit > most
            {
                let path = own.path().field("containers").index(index).key(key).field("limits");
                let detail = format_args!("must be less than or equal to pod limits of {most}").to_string();
                entry.shown_at(path).invalid_value(&limit.to_string().into(), detail, out);
            }
        }
    }
}

fn file_keys(at: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    for container in all_containers(at) {
        for variable in container.field("env").items() {
            let key = variable.down(&["valueFrom", "fileKeyRef"]);
            if !key.is_set() {
                continue;
            }
            let name = key.field("volumeName");
            match at.field("volumes").items().find(|one| one.field("name").text() == name.text()) {
                None => name.not_found(out),
                Some(volume) if volume.has("emptyDir") => {}
                Some(_) => name.invalid("referenced volume must be of type emptyDir", out),
            }
        }
    }
    let _ = pod;
}

/// Init containers, containers, ephemeral containers: upstream's order.
pub fn all_containers<'v>(spec: &At<'v>) -> Vec<At<'v>> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.iter().flat_map(|list| spec.field(list).items().collect::<Vec<_>>()).collect()
}

/// A pod template: its labels, annotations and specification.
pub fn template(at: &At<'_>, out: &mut Causes) {
    let meta = at.field("metadata");
    labels::labels(&meta.field("labels").shown_at(at.path().field("labels")), out);
    let annotations = meta.field("annotations").shown_at(at.path().field("annotations"));
    labels::annotations(&annotations, out);
    let of_spec = at.field("spec");
    annotation_values(&annotations, &of_spec, out);
    spec(&of_spec, false, "", out);
    profiles_match(&meta.field("annotations"), &of_spec, out);
    let ephemeral = of_spec.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("ephemeral containers not allowed in pod template", out);
    }
}

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What annotations with a meaning say.
pub fn annotation_values(at: &At<'_>, spec: &At<'_>, out: &mut Causes) {
    let mirror = at.key(MIRROR);
    if mirror.is_set() && spec.field("nodeName").is_empty() {
        mirror.invalid("must set spec.nodeName if mirror pod annotation is set", out);
    }
    let cost = at.key(DELETION_COST);
    if cost.is_set() {
        let text = cost.text();
        let digits = text.strip_prefix('-').unwrap_or(text);
        let leading = digits.len() > 1 && digits.starts_with('0') || text == "-0" || text.starts_with('+');
        if leading || text.parse::<i32>().is_err() {
            cost.invalid("must be a 32bit integer", out);
        }
    }
    for (key, value) in at.entries() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP) {
            seccomp_annotation(key, &value, at, out);
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR) {
            if !all_containers(spec).iter().any(|one| one.field("name").text() == name) {
                value.invalid_value(&name.into(), "container not found", out);
            }
            let text = value.text();
            if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with("localhost/") {
                value.invalid(format_args!("invalid AppArmor profile name: \"{text}\""), out);
            }
        }
    }
}

fn seccomp_annotation(key: &str, value: &At<'_>, at: &At<'_>, out: &mut Causes) {
    let text = value.text();
    if matches!(text, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    let field = format!("{}.{key}", at.path());
    let mut cause = |detail: &str, text: &str| {
        out.push(crate::status::Cause::invalid(field.clone(), &text.into(), detail));
    };
    match text.strip_prefix("localhost/") {
        None => cause("must be a valid seccomp profile", text),
        Some(path) if path.starts_with('/') => cause("must be a relative path", path),
        Some(path) if path.split('/').any(|part| part == "..") => cause("must not contain '..'", path),
        Some(_) => {}
    }
}

/// A profile that is said twice, by annotation and by field, is the same.
pub fn profiles_match(annotations: &At<'_>, spec: &At<'_>, out: &mut Causes) {
    let own = spec.field("securityContext");
    one_profile(annotations.key(SECCOMP_POD).text(), &own.field("seccompProfile"), "seccomp", out);
    for container in all_containers(spec) {
        let name = container.field("name").text();
        let context = container.field("securityContext");
        let annotation = annotations.key(&format!("{SECCOMP}{name}"));
        one_profile(annotation.text(), &context.field("seccompProfile"), "seccomp", out);
    }
    for container in all_containers(spec) {
        let profile = container.down(&["securityContext", "appArmorProfile"]);
        let of_pod = own.field("appArmorProfile").shown_at(profile.path());
        let annotation = annotations.key(&format!("{APP_ARMOR}{}", container.field("name").text()));
        one_profile(annotation.text(), if profile.is_set() { &profile } else { &of_pod }, "apparmor", out);
    }
}

fn one_profile(annotation: &str, profile: &At<'_>, what: &str, out: &mut Causes) {
    if annotation.is_empty() || !profile.is_set() {
        return;
    }
    let kind = profile.field("type");
    let fits = match kind.text() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => {
            annotation == "runtime/default" || what == "seccomp" && annotation == "docker/default"
        }
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(path) => {
                if profile.field("localhostProfile").text() != path {
                    let detail = format!("{what} profile in annotation and field must match");
                    profile.field("localhostProfile").forbidden(detail, out);
                }
                true
            }
            None => false,
        },
        _ => true,
    };
    if !fits {
        kind.forbidden(format_args!("{what} type in annotation and field must match"), out);
    }
}
