//! Capabilities, seccomp, AppArmor, masked and read-only paths, and what `privileged` does to each.

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;

use corten_cri_api::v1;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};
use v1::security_profile::ProfileType;

use super::{HostFacts, SpecError};

/// What a container has when it asks for nothing: containerd's and Docker's list.
const DEFAULT_CAPABILITIES: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The kernel's files that tell or change too much. powercap: GHSA-7ww5 (power side channel).
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Adds first, then drops; "ALL" first of each. The inheritable set stays empty (CVE-2022-24769, CVE-2022-29162),
/// and so does the ambient one: no kubelet knows it.
pub(super) fn capabilities(
    context: &v1::LinuxContainerSecurityContext,
    host: &HostFacts,
) -> Result<LinuxCapabilities, SpecError> {
    let held: Capabilities =
        host.capabilities.iter().filter_map(|name| Capability::from_str(name).ok()).collect();
    let asked = context.capabilities.clone().unwrap_or_default();
    if !asked.add_ambient_capabilities.is_empty() {
        return Err(SpecError::Unsupported {
            field: "capabilities.add_ambient_capabilities",
            why: "ambient capabilities are not set",
        });
    }
    let set = if context.privileged { held } else { changed(&asked, held)? };
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
        .expect("every field has a default"))
}

fn changed(asked: &v1::Capability, held: Capabilities) -> Result<Capabilities, SpecError> {
    let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut set: Capabilities = DEFAULT_CAPABILITIES.iter().copied().collect();
    if all(&asked.add_capabilities) {
        set = held;
    }
    if all(&asked.drop_capabilities) {
        set.clear();
    }
    for name in asked.add_capabilities.iter().filter(|n| !n.eq_ignore_ascii_case("all")) {
        set.insert(capability(name)?);
    }
    for name in asked.drop_capabilities.iter().filter(|n| !n.eq_ignore_ascii_case("all")) {
        set.remove(&capability(name)?);
    }
    Ok(set)
}

fn capability(name: &str) -> Result<Capability, SpecError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    Capability::from_str(bare).map_err(|_| SpecError::Value {
        field: "capabilities",
        value: name.into(),
        wanted: "a capability of capabilities(7), with or without CAP_, or ALL",
    })
}

/// Empty means the default: proto3 cannot say "none". Privileged containers see everything.
pub(super) fn masked_paths(context: &v1::LinuxContainerSecurityContext) -> Vec<String> {
    paths(context.privileged, &context.masked_paths, MASKED_PATHS)
}

pub(super) fn readonly_paths(context: &v1::LinuxContainerSecurityContext) -> Vec<String> {
    paths(context.privileged, &context.readonly_paths, READONLY_PATHS)
}

fn paths(privileged: bool, asked: &[String], default: &[&str]) -> Vec<String> {
    match (privileged, asked) {
        (true, _) => Vec::new(),
        (false, []) => default.iter().map(|p| (*p).to_owned()).collect(),
        (false, asked) => asked.to_vec(),
    }
}

/// Which seccomp filter is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeccompChoice {
    Unconfined,
    RuntimeDefault,
    /// A profile file on this machine, put there by the operator.
    Localhost(PathBuf),
}

/// The new field wins; the old string (`runtime/default`, `docker/default`, `unconfined`, `localhost/PATH`) is still
/// read; neither means unconfined, as everywhere.
pub fn seccomp(
    profile: Option<&v1::SecurityProfile>,
    old: &str,
    privileged: bool,
) -> Result<SeccompChoice, SpecError> {
    if privileged {
        return Ok(SeccompChoice::Unconfined);
    }
    let path = |text: &str| {
        let path = PathBuf::from(text.strip_prefix("localhost/").unwrap_or(text));
        let wanted = "an absolute path of a profile";
        let wrong = || SpecError::Value { field: "seccomp.localhost_ref", value: text.into(), wanted };
        if path.is_absolute() { Ok(SeccompChoice::Localhost(path)) } else { Err(wrong()) }
    };
    match profile {
        Some(p) => match p.profile_type() {
            ProfileType::Unconfined => Ok(SeccompChoice::Unconfined),
            ProfileType::RuntimeDefault => Ok(SeccompChoice::RuntimeDefault),
            ProfileType::Localhost => path(&p.localhost_ref),
        },
        None => match old {
            "" | "unconfined" => Ok(SeccompChoice::Unconfined),
            "runtime/default" | "docker/default" => Ok(SeccompChoice::RuntimeDefault),
            other if other.starts_with("localhost/") => path(other),
            other => Err(SpecError::Value {
                field: "seccomp_profile_path",
                value: other.into(),
                wanted: "runtime/default, unconfined or localhost/PATH",
            }),
        },
    }
}

/// The profile to run under. Without AppArmor in the kernel a profile of one's own is an error; the default is none.
pub(super) fn apparmor_profile(
    context: &v1::LinuxContainerSecurityContext,
    host: &HostFacts,
) -> Result<Option<String>, SpecError> {
    if context.privileged {
        return Ok(None);
    }
    let localhost = |name: &str| {
        let name = name.strip_prefix("localhost/").unwrap_or(name).to_owned();
        if host.apparmor {
            Ok(Some(name))
        } else {
            let wanted = "this host's kernel has no AppArmor";
            Err(SpecError::Value { field: "apparmor.localhost_ref", value: name, wanted })
        }
    };
    #[expect(deprecated, reason = "clients still send the old field, and critest tests it")]
    let old = context.apparmor_profile.as_str();
    match (&context.apparmor, old) {
        (Some(p), _) if p.profile_type() == ProfileType::Localhost => localhost(&p.localhost_ref),
        (Some(p), _) if p.profile_type() == ProfileType::RuntimeDefault => default_apparmor(host),
        (None, "runtime/default") => default_apparmor(host),
        (Some(_), _) | (None, "" | "unconfined") => Ok(None),
        (None, other) if other.starts_with("localhost/") => localhost(other),
        (None, other) => Err(SpecError::Value {
            field: "apparmor_profile",
            value: other.into(),
            wanted: "runtime/default, unconfined or localhost/PROFILE",
        }),
    }
}

fn default_apparmor(host: &HostFacts) -> Result<Option<String>, SpecError> {
    if host.apparmor {
        let why = "no default profile is loaded into the kernel; name a loaded one with Localhost";
        return Err(SpecError::Unsupported { field: "apparmor RuntimeDefault", why });
    }
    Ok(None)
}

/// Without SELinux in force labels have no meaning and are left out, as every runtime does; with it they would be
/// needed, so they are refused rather than dropped.
pub fn check_selinux(options: Option<&v1::SeLinuxOption>, host: &HostFacts) -> Result<(), SpecError> {
    match options {
        Some(o) if host.selinux && *o != v1::SeLinuxOption::default() => {
            Err(SpecError::Unsupported { field: "selinux_options", why: "processes are not labelled" })
        }
        _ => Ok(()),
    }
}
