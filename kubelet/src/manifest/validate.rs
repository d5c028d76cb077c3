//! The rules a supported Pod must keep, in upstream's words. Runs on the defaulted Pod; pure, one function per object.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, HTTPGetAction, LifecycleHandler, Pod, PodSecurityContext, PodSpec,
    Probe, ResourceRequirements, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::{FieldError, Findings, Problem};
use super::names;
use crate::quantity::Amount;

/// Everything wrong with `pod`; empty when it can run. `node_name` is this node's.
pub fn check(pod: &Pod, node_name: &str) -> Vec<FieldError> {
    let mut f = Findings::default();
    metadata(pod, &mut f);
    let default = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default);
    pod_spec(spec, node_name, &mut f);
    f.0
}

/// Before the node's name is added to it.
pub fn manifest_name(name: Option<&str>) -> Option<FieldError> {
    let problem = match name {
        None | Some("") => Problem::Required,
        Some(name) => Problem::Invalid { value: name.to_owned(), why: names::subdomain(name)? },
    };
    Some(FieldError { path: "metadata.name".into(), problem })
}

fn metadata(pod: &Pod, f: &mut Findings) {
    let meta = &pod.metadata;
    let mut name = |path: &str, value: Option<&str>, check: fn(&str) -> Option<String>| {
        let value = value.unwrap_or_default();
        if let Some(why) = check(value) {
            f.invalid(path, value, why);
        }
    };
    name("metadata.name", meta.name.as_deref(), names::subdomain);
    name("metadata.namespace", meta.namespace.as_deref(), names::label);
    // The UID becomes a directory and a cgroup: a path in it would lead elsewhere.
    name("metadata.uid", meta.uid.as_deref(), |uid| {
        names::label(uid).map(|_| "must be hex digits and '-', as a UUID".into())
    });
    for (key, value) in meta.labels.iter().flatten() {
        let path = format!("metadata.labels[{key}]");
        if let Some(why) = names::qualified(key) {
            f.invalid(&path, key, why);
        }
        if let Some(why) = names::label_value(value) {
            f.invalid(&path, value, why);
        }
    }
    for key in meta.annotations.iter().flatten().map(|(key, _)| key) {
        if let Some(why) = names::qualified(&key.to_lowercase()) {
            f.invalid(format!("metadata.annotations[{key}]"), key, why);
        }
    }
}

fn pod_spec(spec: &PodSpec, node_name: &str, f: &mut Findings) {
    f.one_of("spec.restartPolicy", spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"]);
    f.one_of(
        "spec.dnsPolicy",
        spec.dns_policy.as_deref(),
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    );
    f.one_of("spec.os.name", spec.os.as_ref().map(|os| os.name.as_str()), &["linux"]);
    if let Some(seconds) = spec.active_deadline_seconds {
        f.range("spec.activeDeadlineSeconds", seconds, 1, i64::from(i32::MAX));
    }
    f.range(
        "spec.terminationGracePeriodSeconds",
        spec.termination_grace_period_seconds.unwrap_or(30),
        0,
        i64::from(i32::MAX),
    );
    if let Some(name) = spec.node_name.as_deref().filter(|name| *name != node_name) {
        f.invalid("spec.nodeName", name, format!("this node is {node_name:?}"));
    }
    for (path, name) in [("spec.hostname", &spec.hostname), ("spec.subdomain", &spec.subdomain)] {
        if let Some((name, why)) = name.as_deref().and_then(|n| Some((n, names::label(n)?))) {
            f.invalid(path, name, why);
        }
    }
    if spec.host_users == Some(false) {
        f.add("spec.hostUsers", Problem::NotSupported("user namespaces are not built; leave it out or true"));
    }
    if spec.automount_service_account_token == Some(true) {
        f.add("spec.automountServiceAccountToken", Problem::NotSupported("needs an API server"));
    }
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        f.forbidden("spec.shareProcessNamespace", "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    dns(spec, f);
    host_aliases(spec, f);
    pod_security(spec, f);
    let volumes = volumes(spec, f);
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    if spec.containers.is_empty() {
        f.required("spec.containers");
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (kind, list) in [("initContainers", init), ("containers", &spec.containers)] {
        for (i, c) in list.iter().enumerate() {
            let path = format!("spec.{kind}[{i}]");
            if !seen.insert(c.name.as_str()) {
                f.add(format!("{path}.name"), Problem::Duplicate(c.name.clone()));
            }
            container(c, spec, &path, &volumes, f);
            if kind == "initContainers" {
                init_only(c, &path, f);
            } else {
                used_host_ports(c, &path, &mut host_ports, f);
            }
        }
    }
}

fn dns(spec: &PodSpec, f: &mut Findings) {
    let config = spec.dns_config.clone().unwrap_or_default();
    let servers = config.nameservers.unwrap_or_default();
    let searches = config.searches.unwrap_or_default();
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        f.add("spec.dnsConfig.nameservers", Problem::Required);
    }
    if servers.len() > crate::dns::MAX_SERVERS {
        f.invalid("spec.dnsConfig.nameservers", servers.join(" "), "must not have more than 3 nameservers");
    }
    ips("spec.dnsConfig.nameservers", &servers, f);
    let length: usize = searches.iter().map(|s| s.len() + 1).sum();
    if searches.len() > crate::dns::MAX_SEARCHES {
        f.invalid("spec.dnsConfig.searches", searches.len(), "must not have more than 32 search paths");
    } else if length > crate::dns::MAX_SEARCH_CHARS + 1 {
        f.invalid(
            "spec.dnsConfig.searches",
            length,
            "must not have more than 2048 characters (including spaces)",
        );
    }
    for (i, search) in searches.iter().enumerate() {
        // "." alone and names with '_' are allowed here, as upstream since 1.32.
        let name = search.strip_suffix('.').unwrap_or(search).replace('_', "-");
        if let Some(why) = (search != ".").then(|| names::subdomain(&name)).flatten() {
            f.invalid(format!("spec.dnsConfig.searches[{i}]"), search, why);
        }
    }
    for (i, option) in config.options.unwrap_or_default().iter().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            f.required(format!("spec.dnsConfig.options[{i}].name"));
        }
    }
}

fn ips(path: &str, list: &[String], f: &mut Findings) {
    for (i, ip) in list.iter().enumerate().filter(|(_, ip)| IpAddr::from_str(ip).is_err()) {
        f.invalid(
            format!("{path}[{i}]"),
            ip,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}

fn host_aliases(spec: &PodSpec, f: &mut Findings) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = format!("spec.hostAliases[{i}]");
        if IpAddr::from_str(&alias.ip).is_err() {
            f.invalid(
                format!("{path}.ip"),
                &alias.ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            if let Some(why) = names::subdomain(name) {
                f.invalid(format!("{path}.hostnames[{j}]"), name, why);
            }
        }
    }
}

fn pod_security(spec: &PodSpec, f: &mut Findings) {
    let default = PodSecurityContext::default();
    let sc = spec.security_context.as_ref().unwrap_or(&default);
    let path = "spec.securityContext";
    for (name, id) in
        [("runAsUser", sc.run_as_user), ("runAsGroup", sc.run_as_group), ("fsGroup", sc.fs_group)]
    {
        user_id(&format!("{path}.{name}"), id, f);
    }
    for (i, id) in sc.supplemental_groups.iter().flatten().enumerate() {
        user_id(&format!("{path}.supplementalGroups[{i}]"), Some(*id), f);
    }
    f.one_of(
        format!("{path}.fsGroupChangePolicy"),
        sc.fs_group_change_policy.as_deref(),
        &["Always", "OnRootMismatch"],
    );
    f.one_of(
        format!("{path}.supplementalGroupsPolicy"),
        sc.supplemental_groups_policy.as_deref(),
        &["Merge", "Strict"],
    );
    if let Some(profile) = &sc.seccomp_profile {
        profile_type(
            &format!("{path}.seccompProfile"),
            &profile.type_,
            profile.localhost_profile.as_deref(),
            f,
        );
    }
    if let Some(profile) = &sc.app_armor_profile {
        profile_type(
            &format!("{path}.appArmorProfile"),
            &profile.type_,
            profile.localhost_profile.as_deref(),
            f,
        );
    }
    let mut seen = BTreeSet::new();
    for (i, sysctl) in sc.sysctls.iter().flatten().enumerate() {
        let path = format!("{path}.sysctls[{i}].name");
        if let Some(why) = names::sysctl(&sysctl.name) {
            f.invalid(&path, &sysctl.name, why);
        } else if !seen.insert(sysctl.name.replace('/', ".")) {
            f.add(&path, Problem::Duplicate(sysctl.name.clone()));
        } else if !crate::pod::sysctl::is_safe(&sysctl.name) {
            f.forbidden(
                &path,
                format!(
                    "sysctl {:?} is not allowlisted: it is not known to be namespaced and harmless",
                    sysctl.name
                ),
            );
        } else if crate::pod::sysctl::needs_own_network(&sysctl.name) && spec.host_network == Some(true) {
            f.forbidden(&path, "may not be specified when 'hostNetwork' is true");
        } else if crate::pod::sysctl::needs_own_ipc(&sysctl.name) && spec.host_ipc == Some(true) {
            f.forbidden(&path, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn user_id(path: &str, id: Option<i64>, f: &mut Findings) {
    if let Some(id) = id {
        f.range(path, id, 0, i64::from(i32::MAX));
    }
}

fn profile_type(path: &str, kind: &str, localhost: Option<&str>, f: &mut Findings) {
    f.one_of(format!("{path}.type"), Some(kind), &["Localhost", "RuntimeDefault", "Unconfined"]);
    let local = format!("{path}.localhostProfile");
    match (kind == "Localhost", localhost) {
        (true, None | Some("")) => f.add(local, Problem::Required),
        (false, Some(value)) => f.invalid(local, value, "can only be set when type is \"Localhost\""),
        (true, Some(value)) if !is_local_path(value) => {
            f.invalid(local, value, "must be a relative path without '..'");
        }
        _ => {}
    }
}

/// Relative, and stays below where it starts.
fn is_local_path(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

/// Names of the volumes.
fn volumes<'a>(spec: &'a PodSpec, f: &mut Findings) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, v) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("spec.volumes[{i}]");
        if let Some(why) = names::label(&v.name) {
            f.invalid(format!("{path}.name"), &v.name, why);
        } else if !seen.insert(v.name.as_str()) {
            f.add(format!("{path}.name"), Problem::Duplicate(v.name.clone()));
        }
        volume(v, &path, f);
    }
    seen
}

fn volume(v: &Volume, path: &str, f: &mut Findings) {
    if let Some(source) = &v.host_path {
        if v.empty_dir.is_some() {
            f.forbidden(format!("{path}.hostPath"), "may not specify more than 1 volume type");
        }
        f.one_of(
            format!("{path}.hostPath.type"),
            source.type_.as_deref(),
            &[
                "",
                "BlockDevice",
                "CharDevice",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
            ],
        );
        if source.path.is_empty() {
            f.required(format!("{path}.hostPath.path"));
        } else if !source.path.starts_with('/') {
            f.invalid(format!("{path}.hostPath.path"), &source.path, "must be an absolute path");
        } else if source.path.split('/').any(|part| part == "..") {
            f.invalid(format!("{path}.hostPath.path"), &source.path, "must not contain '..'");
        }
    }
    let Some(source) = &v.empty_dir else { return };
    let medium = source.medium.as_deref().unwrap_or_default();
    f.one_of(format!("{path}.emptyDir.medium"), Some(medium), &["", "Memory"]);
    if let Some(limit) = &source.size_limit {
        let path = format!("{path}.emptyDir.sizeLimit");
        match Amount::parse(&limit.0) {
            None => f.invalid(path, &limit.0, "must be a quantity such as 128Mi"),
            Some(n) if n.is_negative() => {
                f.forbidden(path, "SizeLimit field must be a valid resource quantity");
            }
            Some(_) if medium != "Memory" => {
                f.add(path, Problem::NotSupported("only medium Memory has a limit the kernel keeps"));
            }
            Some(_) => {}
        }
    }
}

fn container(c: &Container, spec: &PodSpec, path: &str, volumes: &BTreeSet<&str>, f: &mut Findings) {
    match names::label(&c.name) {
        _ if c.name.is_empty() => f.required(format!("{path}.name")),
        Some(why) => f.invalid(format!("{path}.name"), &c.name, why),
        None => {}
    }
    let image = c.image.as_deref().unwrap_or_default();
    if image.is_empty() {
        f.required(format!("{path}.image"));
    } else if image.trim() != image {
        f.invalid(format!("{path}.image"), image, "must not have leading or trailing whitespace");
    }
    f.one_of(
        format!("{path}.imagePullPolicy"),
        c.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
    );
    f.one_of(
        format!("{path}.terminationMessagePolicy"),
        c.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
    );
    if c.termination_message_path.as_deref().is_some_and(|p| !p.starts_with('/')) {
        let value = c.termination_message_path.as_deref().unwrap_or_default();
        f.invalid(format!("{path}.terminationMessagePath"), value, "must be an absolute path");
    }
    ports(c.ports.as_deref().unwrap_or_default(), spec, path, f);
    env(c, spec, path, f);
    mounts(c, path, volumes, f);
    if let Some(resources) = &c.resources {
        self::resources(resources, &format!("{path}.resources"), f);
    }
    if let Some(sc) = &c.security_context {
        security(sc, &format!("{path}.securityContext"), f);
    }
    for (name, probe) in [
        ("startupProbe", &c.startup_probe),
        ("readinessProbe", &c.readiness_probe),
        ("livenessProbe", &c.liveness_probe),
    ] {
        if let Some(probe) = probe {
            self::probe(probe, name, c, &format!("{path}.{name}"), f);
        }
    }
    let lifecycle = c.lifecycle.clone().unwrap_or_default();
    for (name, handler) in [("postStart", lifecycle.post_start), ("preStop", lifecycle.pre_stop)] {
        if let Some(handler) = handler {
            hook(&handler, c, spec, &format!("{path}.lifecycle.{name}"), f);
        }
    }
    if let Some(signal) = lifecycle.stop_signal.filter(|s| crate::pod::container_config::signal(s).is_none())
    {
        f.invalid(
            format!("{path}.lifecycle.stopSignal"),
            signal,
            "must be the name of a signal, such as SIGUSR1",
        );
    }
}

fn init_only(c: &Container, path: &str, f: &mut Findings) {
    for (name, set) in [
        ("lifecycle", c.lifecycle.is_some()),
        ("livenessProbe", c.liveness_probe.is_some()),
        ("readinessProbe", c.readiness_probe.is_some()),
        ("startupProbe", c.startup_probe.is_some()),
    ] {
        if set {
            f.forbidden(
                format!("{path}.{name}"),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
}

fn ports(ports: &[ContainerPort], spec: &PodSpec, path: &str, f: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        if let Some(name) = port.name.as_deref() {
            if let Some(why) = names::port_name(name) {
                f.invalid(format!("{path}.name"), name, why);
            } else if !seen.insert(name) {
                f.add(format!("{path}.name"), Problem::Duplicate(name.to_owned()));
            }
        }
        f.range(format!("{path}.containerPort"), i64::from(port.container_port), 1, 65535);
        let host_port = port.host_port.unwrap_or(0);
        f.range(format!("{path}.hostPort"), i64::from(host_port), 0, 65535);
        f.one_of(format!("{path}.protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
        if spec.host_network == Some(true) && host_port != port.container_port {
            f.invalid(
                format!("{path}.hostPort"),
                host_port,
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty() && IpAddr::from_str(ip).is_err())
        {
            f.invalid(
                format!("{path}.hostIP"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
    }
}

fn used_host_ports(c: &Container, path: &str, used: &mut BTreeSet<String>, f: &mut Findings) {
    for (i, port) in c.ports.iter().flatten().enumerate() {
        let Some(number) = port.host_port.filter(|n| *n != 0) else { continue };
        let (protocol, ip) =
            (port.protocol.as_deref().unwrap_or_default(), port.host_ip.as_deref().unwrap_or_default());
        let key = format!("{protocol}/{ip}/{number}");
        if !used.insert(key.clone()) {
            f.add(format!("{path}.ports[{i}].hostPort"), Problem::Duplicate(key));
        }
    }
}

fn env(c: &Container, spec: &PodSpec, path: &str, f: &mut Findings) {
    for (i, var) in c.env.iter().flatten().enumerate() {
        let path = format!("{path}.env[{i}]");
        if var.name.is_empty() {
            f.required(format!("{path}.name"));
        } else if let Some(why) = names::env_name(&var.name) {
            f.invalid(format!("{path}.name"), &var.name, why);
        }
        env_source(var, spec, &path, f);
    }
}

fn env_source(var: &EnvVar, spec: &PodSpec, path: &str, f: &mut Findings) {
    let Some(source) = &var.value_from else { return };
    let path = format!("{path}.valueFrom");
    if var.value.as_deref().is_some_and(|v| !v.is_empty()) {
        f.invalid(&path, "", "may not be specified when `value` is not empty");
    }
    match (&source.field_ref, &source.resource_field_ref) {
        (Some(_), Some(_)) => f.invalid(&path, "", "may not have more than one field specified at a time"),
        (None, None) => f.invalid(&path, "", "must specify one of: `fieldRef` or `resourceFieldRef`"),
        (Some(field), None) => {
            f.one_of(format!("{path}.fieldRef.apiVersion"), field.api_version.as_deref(), &["v1"]);
            if !crate::pod::env::knows_field(&field.field_path) {
                f.invalid(
                    format!("{path}.fieldRef.fieldPath"),
                    &field.field_path,
                    "error converting fieldPath: field label not supported",
                );
            }
        }
        (None, Some(reference)) => {
            let path = format!("{path}.resourceFieldRef");
            if !crate::pod::env::knows_resource(&reference.resource) {
                f.invalid(
                    format!("{path}.resource"),
                    &reference.resource,
                    "must be limits.cpu, limits.memory, requests.cpu, requests.memory or one of hugepages-*",
                );
            }
            let init = spec.init_containers.iter().flatten();
            if let Some(name) = reference.container_name.as_deref()
                && !spec.containers.iter().chain(init).any(|c| c.name == name)
            {
                f.invalid(format!("{path}.containerName"), name, "no container of this name");
            }
            if let Some(divisor) = &reference.divisor
                && Amount::parse(&divisor.0).is_none_or(Amount::is_negative)
            {
                f.invalid(format!("{path}.divisor"), &divisor.0, "must be a quantity such as 1Mi");
            }
        }
    }
}

fn mounts(c: &Container, path: &str, volumes: &BTreeSet<&str>, f: &mut Findings) {
    let privileged = c.security_context.as_ref().is_some_and(|sc| sc.privileged == Some(true));
    let mut seen = BTreeSet::new();
    for (i, mount) in c.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        volume_mount(mount, privileged, volumes, &path, f);
        if !seen.insert(mount.mount_path.as_str()) {
            f.invalid(format!("{path}.mountPath"), &mount.mount_path, "must be unique");
        }
    }
}

fn volume_mount(
    mount: &VolumeMount,
    privileged: bool,
    volumes: &BTreeSet<&str>,
    path: &str,
    f: &mut Findings,
) {
    if mount.name.is_empty() {
        f.required(format!("{path}.name"));
    } else if !volumes.contains(mount.name.as_str()) {
        f.invalid(format!("{path}.name"), &mount.name, "Not found: no volume of this name");
    }
    if mount.mount_path.is_empty() {
        f.required(format!("{path}.mountPath"));
    } else if mount.mount_path.contains(':') {
        f.invalid(format!("{path}.mountPath"), &mount.mount_path, "must not contain ':'");
    }
    if let Some(sub_path) = mount.sub_path.as_deref().filter(|p| !is_local_path(p)) {
        f.invalid(format!("{path}.subPath"), sub_path, "must be a relative path, must not contain '..'");
    }
    let propagation = mount.mount_propagation.as_deref();
    f.one_of(format!("{path}.mountPropagation"), propagation, &["Bidirectional", "HostToContainer", "None"]);
    if propagation == Some("Bidirectional") && !privileged {
        f.forbidden(
            format!("{path}.mountPropagation"),
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn resources(resources: &ResourceRequirements, path: &str, f: &mut Findings) {
    let amounts = |kind: &str, f: &mut Findings| -> Vec<(String, Amount)> {
        let list = if kind == "limits" { &resources.limits } else { &resources.requests };
        let mut amounts = Vec::new();
        for (name, quantity) in list.iter().flatten() {
            let path = format!("{path}.{kind}[{name}]");
            match (name.as_str(), Amount::parse(&quantity.0)) {
                (_, None) => f.invalid(path, &quantity.0, "must be a quantity such as 500m or 128Mi"),
                (_, Some(n)) if n.is_negative() => {
                    f.invalid(path, &quantity.0, "must be greater than or equal to 0");
                }
                ("cpu" | "memory", Some(n)) => amounts.push((name.clone(), n)),
                (name, Some(n)) if name.strip_prefix("hugepages-").is_some_and(is_page_size) => {
                    amounts.push((name.to_owned(), n));
                }
                (name, _) if name.starts_with("hugepages-") => f.invalid(path, name, "no such page size"),
                ("ephemeral-storage", _) => f.add(path, Problem::NotSupported("nothing would enforce it")),
                _ => f.add(path, Problem::NotSupported("extended resources need a device plugin")),
            }
        }
        amounts
    };
    let limits = amounts("limits", f);
    for (name, request) in amounts("requests", f) {
        let limit = limits.iter().find(|(n, _)| *n == name).map(|(_, limit)| *limit);
        let path = format!("{path}.requests[{name}]");
        if limit.is_some_and(|limit| request > limit) {
            f.invalid(path, &name, format!("must be less than or equal to {name} limit"));
        } else if name.starts_with("hugepages-") && limit != Some(request) {
            f.invalid(path, &name, format!("must be equal to {name} limit"));
        }
    }
    let huge = limits.iter().any(|(name, _)| name.starts_with("hugepages-"));
    if huge && !limits.iter().any(|(name, _)| name == "memory" || name == "cpu") {
        f.forbidden(path, "HugePages require cpu or memory");
    }
}

fn is_page_size(size: &str) -> bool {
    Amount::parse(size).is_some_and(|n| n.units() > 0 && n.units().count_ones() == 1)
}

fn security(sc: &SecurityContext, path: &str, f: &mut Findings) {
    user_id(&format!("{path}.runAsUser"), sc.run_as_user, f);
    user_id(&format!("{path}.runAsGroup"), sc.run_as_group, f);
    if let Some(profile) = &sc.seccomp_profile {
        profile_type(
            &format!("{path}.seccompProfile"),
            &profile.type_,
            profile.localhost_profile.as_deref(),
            f,
        );
    }
    if let Some(profile) = &sc.app_armor_profile {
        profile_type(
            &format!("{path}.appArmorProfile"),
            &profile.type_,
            profile.localhost_profile.as_deref(),
            f,
        );
    }
    if let Some(kind) = sc.proc_mount.as_deref().filter(|kind| *kind != "Default") {
        f.invalid(
            format!("{path}.procMount"),
            kind,
            "must be Default: Unmasked needs user namespaces, which are not built",
        );
    }
    if sc.allow_privilege_escalation == Some(false) {
        let admin = |c: &String| matches!(c.as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN");
        if sc.privileged == Some(true) {
            f.invalid(path, "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        } else if sc.capabilities.iter().flat_map(|c| c.add.iter().flatten()).any(admin) {
            f.invalid(
                path,
                "",
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}

fn probe(probe: &Probe, kind: &str, c: &Container, path: &str, f: &mut Findings) {
    match [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some()]
        .iter()
        .filter(|x| **x)
        .count()
    {
        0 => f.required(path),
        1 => {}
        _ => f.forbidden(path, "may not specify more than 1 handler type"),
    }
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        f.range(format!("{path}.{name}"), i64::from(value.unwrap_or(0)), 0, i64::MAX);
    }
    if kind != "readinessProbe" && probe.success_threshold.unwrap_or(1) != 1 {
        f.invalid(format!("{path}.successThreshold"), probe.success_threshold.unwrap_or(1), "must be 1");
    }
    if let Some(grace) = probe.termination_grace_period_seconds {
        if kind == "readinessProbe" {
            f.invalid(
                format!("{path}.terminationGracePeriodSeconds"),
                grace,
                "must not be set for readinessProbes",
            );
        } else {
            f.range(format!("{path}.terminationGracePeriodSeconds"), grace, 1, i64::MAX);
        }
    }
    if let Some(exec) = &probe.exec {
        exec_command(exec.command.as_deref(), path, f);
    }
    if let Some(http) = &probe.http_get {
        http_get(http, c, path, f);
    }
    if let Some(tcp) = &probe.tcp_socket {
        port(&tcp.port, c, &format!("{path}.tcpSocket.port"), f);
    }
}

fn hook(handler: &LifecycleHandler, c: &Container, spec: &PodSpec, path: &str, f: &mut Findings) {
    match [handler.exec.is_some(), handler.http_get.is_some(), handler.sleep.is_some()]
        .iter()
        .filter(|x| **x)
        .count()
    {
        0 => f.required(path),
        1 => {}
        _ => f.forbidden(path, "may not specify more than 1 handler type"),
    }
    if let Some(exec) = &handler.exec {
        exec_command(exec.command.as_deref(), path, f);
    }
    if let Some(http) = &handler.http_get {
        http_get(http, c, path, f);
    }
    if let Some(sleep) = &handler.sleep {
        let grace = spec.termination_grace_period_seconds.unwrap_or(30);
        f.range(format!("{path}.sleep.seconds"), sleep.seconds, 0, grace);
    }
}

fn exec_command(command: Option<&[String]>, path: &str, f: &mut Findings) {
    if command.is_none_or(<[String]>::is_empty) {
        f.required(format!("{path}.exec.command"));
    }
}

fn http_get(http: &HTTPGetAction, c: &Container, path: &str, f: &mut Findings) {
    f.one_of(format!("{path}.httpGet.scheme"), http.scheme.as_deref(), &["HTTP", "HTTPS"]);
    port(&http.port, c, &format!("{path}.httpGet.port"), f);
    for (i, header) in http.http_headers.iter().flatten().enumerate() {
        if hyper::header::HeaderName::from_str(&header.name).is_err() {
            f.invalid(
                format!("{path}.httpGet.httpHeaders[{i}].name"),
                &header.name,
                "a valid HTTP header must consist of alphanumeric characters or '-'",
            );
        }
        if hyper::header::HeaderValue::from_str(&header.value).is_err() {
            f.invalid(
                format!("{path}.httpGet.httpHeaders[{i}].value"),
                &header.value,
                "must be printable ASCII",
            );
        }
    }
}

/// A named port must be one of the container's: upstream finds out only when the probe runs.
fn port(port: &IntOrString, c: &Container, path: &str, f: &mut Findings) {
    match port {
        IntOrString::Int(n) => f.range(path, i64::from(*n), 1, 65535),
        IntOrString::String(name) => {
            if !c.ports.iter().flatten().any(|p| p.name.as_deref() == Some(name)) {
                f.invalid(path, name, format!("container {:?} has no port of this name", c.name));
            }
        }
    }
}
