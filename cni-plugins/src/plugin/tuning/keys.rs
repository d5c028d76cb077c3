//! From a sysctl's key to its place below /proc/sys: pure.

use crate::Result;
use crate::error::Error;

/// In a key it stands for the container's interface.
const INTERFACE: &str = "IFNAME";

/// Keys in the form of [`crate::sysctl`], in the given order. Two keys of one file are refused: which one wins would
/// be chance.
pub fn paths(sysctls: &[(String, String)], ifname: &str) -> Result<Vec<(String, String)>> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (key, value) in sysctls {
        let path = path(key, ifname)?;
        if all.iter().any(|(other, _)| *other == path) {
            return Err(duplicate(key));
        }
        all.push((path, value.clone()));
    }
    Ok(all)
}

pub fn duplicate(key: &str) -> Error {
    Error::config("duplicated sysctl keys are not allowed").details(key)
}

/// As sysctl(8): the first separator tells which one is meant; with slashes, names may hold dots
/// (`net/ipv4/conf/eth0.100/forwarding`).
fn path(key: &str, ifname: &str) -> Result<String> {
    let slashes = match key.find(['.', '/']) {
        Some(first) if key[first..].starts_with('/') => key.to_owned(),
        _ => key.replace('.', "/"),
    };
    let path = slashes.replacen(INTERFACE, ifname, 1);
    let mut parts = path.split('/');
    let is_net = parts.next() == Some("net");
    // Nothing else of /proc/sys is the container's own, and `..` would lead there.
    if is_net && parts.clone().count() > 0 && parts.all(|part| !matches!(part, "" | "." | "..")) {
        return Ok(path);
    }
    Err(Error::config(format!("invalid net sysctl key: {key:?}"))
        .details("keys begin with net. and have no empty part, such as net.ipv4.conf.IFNAME.forwarding"))
}

/// The kernel separates several numbers by tabs; people by spaces.
pub fn same_value(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths() {
        for (key, wanted) in [
            ("net.core.somaxconn", "net/core/somaxconn"),
            ("net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/eth0.7/arp_filter"),
            ("net/ipv4/conf/eth0.7/arp_filter", "net/ipv4/conf/eth0.7/arp_filter"),
        ] {
            assert_eq!(path(key, "eth0.7").expect(key), wanted);
        }
    }

    #[test]
    fn keys_outside_the_network_never_reach_proc() {
        for bad in [
            "kernel.core_pattern",
            "net",
            "net.",
            "",
            ".net.core.x",
            "/net/core/x",
            "net/../kernel/core_pattern",
            "net/./core/x",
            "net..core",
            "network.x",
            "../../etc/passwd",
        ] {
            let error = path(bad, "eth0").expect_err(bad);
            assert!(error.msg.contains("invalid net sysctl key"), "{error}");
        }
    }

    #[test]
    fn two_names_of_one_file_are_refused() {
        let pair = |key: &str| (key.to_owned(), "1".to_owned());
        let twice = [pair("net.ipv4.conf.IFNAME.forwarding"), pair("net/ipv4/conf/eth0/forwarding")];
        assert!(paths(&twice, "eth0").expect_err("one file").msg.contains("duplicated"));
        assert_eq!(paths(&twice, "eth1").expect("two files").len(), 2);
    }

    #[test]
    fn white_space_is_no_difference() {
        assert!(same_value("4096\t131072\t6291456\n", "4096 131072 6291456"));
        assert!(!same_value("1", "10"));
    }
}
