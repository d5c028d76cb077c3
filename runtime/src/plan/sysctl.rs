//! Which sysctls a container may set: those that belong to a namespace of its own.

use std::collections::HashMap;

use corten_sys::ns::Kind;

use super::{Namespaces, Result};
use crate::error::ConfigError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Below /proc: `sys/net/ipv4/ip_forward`.
    pub path: String,
    pub value: String,
}

pub(super) fn plan(
    sysctls: Option<&HashMap<String, String>>,
    namespaces: &Namespaces,
) -> Result<Vec<Sysctl>> {
    let mut planned: Vec<Sysctl> = Vec::new();
    for (name, value) in sysctls.into_iter().flatten() {
        let name = canonical(name);
        if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(refuse(&name, "is no name of a sysctl"));
        }
        let (kind, namespace) =
            owner(&name).ok_or_else(|| refuse(&name, "is not kept per namespace by the kernel"))?;
        if !namespaces.has(kind) {
            return Err(refuse(
                &name,
                &format!("needs a {namespace} namespace of the container's own (linux.namespaces)"),
            ));
        }
        planned.push(Sysctl { path: format!("sys/{name}"), value: value.clone() });
    }
    planned.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(planned)
}

/// sysctl(8): whichever of `.` and `/` comes first separates, and the other stands for itself (interface names).
fn canonical(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The namespace that keeps a sysctl. Source: runc libcontainer/configs/validate; kernel ipc_sysctl.c, mq_sysctl.c.
fn owner(name: &str) -> Option<(Kind, &'static str)> {
    const IPC: &[&str] = &[
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    if IPC.contains(&name) || name.starts_with("fs/mqueue/") {
        return Some((Kind::Ipc, "ipc"));
    }
    if name.starts_with("net/") {
        return Some((Kind::Network, "network"));
    }
    if name.starts_with("user/") {
        return Some((Kind::User, "user"));
    }
    // hostname has a field of its own; two ways to set it could disagree.
    (name == "kernel/domainname").then_some((Kind::Uts, "uts"))
}

fn refuse(name: &str, reason: &str) -> ConfigError {
    let dotted = name.replace('/', ".");
    ConfigError::invalid("linux.sysctl", format!("{dotted} {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_are_understood() {
        assert_eq!(canonical("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(canonical("net/ipv4/ip_forward"), "net/ipv4/ip_forward");
    }

    #[test]
    fn a_sysctl_needs_its_namespace() {
        let sysctls = HashMap::from([("kernel.shmmax".to_owned(), "1".to_owned())]);
        assert!(plan(Some(&sysctls), &Namespaces::default()).is_err());
        let own = Namespaces { create: vec![Kind::Ipc], ..Namespaces::default() };
        assert_eq!(plan(Some(&sysctls), &own).unwrap()[0].path, "sys/kernel/shmmax");
        for hostile in ["net..ipv4", "net/../kernel/x", "net.ipv4."] {
            let sysctls = HashMap::from([(hostile.to_owned(), "1".to_owned())]);
            let own = Namespaces { create: vec![Kind::Network], ..Namespaces::default() };
            assert!(plan(Some(&sysctls), &own).is_err(), "{hostile}");
        }
    }
}
