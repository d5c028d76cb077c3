//! Security contexts.

use serde_json::{Value, json};

use super::pod::Pod;
use super::{At, Causes, volume};

const ID: i64 = i32::MAX as i64;

fn id(at: &At<'_>, out: &mut Causes) {
    if at.is_set() {
        at.range(0, ID, out);
    }
}

pub fn of_container(at: &At<'_>, pod: &Pod<'_>, out: &mut Causes) {
    if !at.is_set() {
        return;
    }
    id(&at.field("runAsUser"), out);
    id(&at.field("runAsGroup"), out);
    let proc = at.field("procMount");
    if proc.is_set() {
        proc.one_of_if_set(&["Default", "Unmasked"], out);
        if pod.host_users && proc.text() == "Unmasked" {
            proc.invalid("`hostUsers` must be false to use `Unmasked`", out);
        }
    }
    seccomp(&at.field("seccompProfile"), out);
    if at.field("allowPrivilegeEscalation").value() == &Value::Bool(false) {
        if at.field("privileged").flag() {
            refuse(at, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true", out);
        }
        if at.down(&["capabilities", "add"]).texts().any(|capability| capability == "CAP_SYS_ADMIN") {
            refuse(
                at,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
                out,
            );
        }
    }
    app_armor(&at.field("appArmorProfile"), out);
}

/// A container's as upstream's own type is shown.
fn refuse(at: &At<'_>, detail: &str, out: &mut Causes) {
    const FIELDS: [(&str, &str); 12] = [
        ("Capabilities", "capabilities"),
        ("Privileged", "privileged"),
        ("SELinuxOptions", "seLinuxOptions"),
        ("WindowsOptions", "windowsOptions"),
        ("RunAsUser", "runAsUser"),
        ("RunAsGroup", "runAsGroup"),
        ("RunAsNonRoot", "runAsNonRoot"),
        ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
        ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("ProcMount", "procMount"),
        ("SeccompProfile", "seccompProfile"),
        ("AppArmorProfile", "appArmorProfile"),
    ];
    let capabilities = at.field("capabilities");
    let shown = if capabilities.is_set() {
        json!({"Add": capabilities.field("add").value(), "Drop": capabilities.field("drop").value()})
    } else {
        Value::Null
    };
    let mut shape = FIELDS.map(|(name, field)| (name, at.field(field).value()));
    shape[0].1 = &shown;
    at.invalid_shape(&shape, detail, out);
}

/// The pod's; parts of it lie beside it in its spec.
pub fn of_pod(at: &At<'_>, spec: &At<'_>, out: &mut Causes) {
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&at.field(field), out);
    }
    at.field("supplementalGroups").items().for_each(|group| id(&group, out));
    let shared = spec.field("shareProcessNamespace");
    if shared.flag() && spec.field("hostPID").flag() {
        let shared = shared.shown_at(at.path().field("shareProcessNamespace"));
        shared.invalid("ShareProcessNamespace and HostPID cannot both be enabled", out);
    }
    sysctls(&at.field("sysctls"), spec, out);
    at.field("fsGroupChangePolicy").one_of_if_set(&["Always", "OnRootMismatch"], out);
    seccomp(&at.field("seccompProfile"), out);
    app_armor(&at.field("appArmorProfile"), out);
    at.field("supplementalGroupsPolicy").one_of_if_set(&["Merge", "Strict"], out);
    at.field("seLinuxChangePolicy").one_of_if_set(&["Recursive"], out);
}

fn seccomp(at: &At<'_>, out: &mut Causes) {
    if !at.is_set() {
        return;
    }
    let (kind, profile) = (at.field("type"), at.field("localhostProfile"));
    if kind.is_empty() {
        kind.required("type is required when seccompProfile is set", out);
    } else {
        kind.one_of_if_set(&["Localhost", "RuntimeDefault", "Unconfined"], out);
    }
    if kind.text() != "Localhost" {
        if profile.is_set() {
            let shape = [("Type", kind.value()), ("LocalhostProfile", profile.value())];
            profile.invalid_shape(&shape, "can only be set when seccomp type is Localhost", out);
        }
    } else if profile.is_set() {
        volume::descending(&profile, out);
    } else {
        profile.required("must be set when seccomp type is Localhost", out);
    }
}

pub fn app_armor(at: &At<'_>, out: &mut Causes) {
    if !at.is_set() {
        return;
    }
    let (kind, profile) = (at.field("type"), at.field("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            if profile.text().trim().is_empty() && profile.text().trim().len() == profile.len() {
                profile.required("must be set when AppArmor type is Localhost", out);
            } else if profile.text().trim().len() != profile.len() {
                profile.invalid("must not be padded with whitespace", out);
            }
            if profile.len() > 4095 {
                profile.too_long(4095, out);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.is_set() {
                profile.invalid("can only be set when AppArmor type is Localhost", out);
            }
        }
        "" => kind.required("type is required when appArmorProfile is set", out),
        _ => kind.unsupported(&["Localhost", "RuntimeDefault", "Unconfined"], out),
    }
}

fn sysctls(at: &At<'_>, spec: &At<'_>, out: &mut Causes) {
    let mut seen = Vec::new();
    for item in at.items() {
        let name = item.field("name");
        if name.is_empty() {
            name.required("", out);
        } else if !is_sysctl(name.text()) {
            let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let detail =
                format!("must have at most 253 characters and match regex ^({segment}[\\./])*{segment}$");
            name.invalid(detail, out);
        } else if seen.contains(&name.text()) {
            name.duplicate(out);
        }
        match space_of(name.text()) {
            Some("net") if spec.field("hostNetwork").flag() => {
                name.invalid("may not be specified when 'hostNetwork' is true", out);
            }
            Some("ipc") if spec.field("hostIPC").flag() => {
                name.invalid("may not be specified when 'hostIPC' is true", out);
            }
            _ => {}
        }
        seen.push(name.text());
    }
}

fn is_sysctl(name: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(inner)
                && bytes.last().is_some_and(inner)
                && bytes.iter().all(|byte| inner(byte) || matches!(byte, b'-' | b'_'))
        })
}

/// The namespace that a sysctl is of.
fn space_of(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    if name.starts_with("net.") {
        return Some("net");
    }
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    (name == "kernel.sem" || ipc.iter().any(|prefix| name.starts_with(prefix))).then_some("ipc")
}
