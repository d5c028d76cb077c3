//! The node's settings: it forwards packets. Written only when they differ, since /proc/sys may be read-only.

use std::path::{Path, PathBuf};

use super::error::OverlayError;
use super::uplink::Families;

const ROOT: &str = "/proc/sys/net";

/// As flannel. In the network namespace of the calling thread.
pub fn forward_packets(families: Families, uplink: &str) -> Result<(), OverlayError> {
    if families.v4 {
        set("ipv4/ip_forward", "1")?;
    }
    if families.v6 && get("ipv6/conf/all/forwarding")? != "1" {
        // A router takes no router advertisements (accept_ra 1 means "unless forwarding"): the uplink would lose the
        // default route that one gave it. 2 is "also when forwarding".
        let accept_ra = format!("ipv6/conf/{uplink}/accept_ra");
        if get(&accept_ra).is_ok_and(|value| value == "1") {
            set(&accept_ra, "2")?;
        }
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn get(name: &str) -> Result<String, OverlayError> {
    let path = path(name);
    match std::fs::read_to_string(&path) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(source) => Err(OverlayError::Sysctl { call: "read", path, wanted: "1".into(), source }),
    }
}

fn set(name: &str, value: &str) -> Result<(), OverlayError> {
    if get(name)? == value {
        return Ok(());
    }
    let path = path(name);
    std::fs::write(&path, value).map_err(|source| OverlayError::Sysctl {
        call: "write",
        path,
        wanted: value.to_owned(),
        source,
    })
}
