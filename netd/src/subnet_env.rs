//! subnet.env: what CNI plugins read of this node.
//!
//! Replaced by rename, and only when its content changes: a plugin that reads it sees the old file or the new one.
//! Source: flannel `pkg/subnet/subnet.go`, `WriteSubnetFile`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::node::{Dual, PodCidrs};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    pub networks: PodCidrs,
    pub pod_cidrs: PodCidrs,
    /// Of pods: the overlay's.
    pub mtu: u32,
    pub ip_masq: bool,
}

impl SubnetEnv {
    /// The file's text. The subnet is written with its first host address, the bridge's.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let (Some(network), Some(cidr)) = (self.networks.v4, self.pod_cidrs.v4) {
            let first = Ipv4Addr::from(u32::from(cidr.network()) + 1);
            let _ = writeln!(text, "FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={first}/{}", cidr.prefix());
        }
        if let (Some(network), Some(cidr)) = (self.networks.v6, self.pod_cidrs.v6) {
            let first = Ipv6Addr::from(u128::from(cidr.network()) + 1);
            let _ = writeln!(
                text,
                "FLANNEL_IPV6_NETWORK={network}\nFLANNEL_IPV6_SUBNET={first}/{}",
                cidr.prefix()
            );
        }
        let _ = writeln!(text, "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}", self.mtu, self.ip_masq);
        text
    }

    /// Makes `file` say this. True when it did not before.
    pub fn write(&self, file: &Path) -> std::io::Result<bool> {
        replace(file, &self.text())
    }
}

/// Makes `file` have `text`, whole at any moment, mode 0644, also over a crash. True when it had another.
pub fn replace(file: &Path, text: &str) -> std::io::Result<bool> {
    if std::fs::read(file).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    let dir = file.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    // A name of this process: two daemons on one file do not write into each other's.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let new = dir.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut opened = std::fs::File::create(&new)?;
        opened.set_permissions(std::fs::Permissions::from_mode(0o644))?;
        opened.write_all(text.as_bytes())?;
        opened.sync_all()?;
        std::fs::rename(&new, file)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.map(|()| true)
}

/// The pod CIDRs that an earlier run was given, of the file it left; none when there is no such file.
pub fn previous(file: &Path) -> PodCidrs {
    std::fs::read_to_string(file).map(|text| pod_cidrs(&text)).unwrap_or_default()
}

fn pod_cidrs(text: &str) -> PodCidrs {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
            .map(|v| v.trim_matches('"'))
    };
    let v4 = value("FLANNEL_SUBNET").and_then(|v| v.parse::<Ipv4Network>().ok());
    let v6 = value("FLANNEL_IPV6_SUBNET").and_then(|v| v.parse::<Ipv6Network>().ok());
    Dual {
        v4: v4.and_then(|cidr| Ipv4Network::new(cidr.network(), cidr.prefix()).ok()),
        v6: v6.and_then(|cidr| Ipv6Network::new(cidr.network(), cidr.prefix()).ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dual_stack() -> SubnetEnv {
        SubnetEnv {
            networks: Dual {
                v4: Some("10.244.0.0/16".parse().unwrap()),
                v6: Some("fd42:244::/56".parse().unwrap()),
            },
            pod_cidrs: Dual {
                v4: Some("10.244.3.0/24".parse().unwrap()),
                v6: Some("fd42:244:0:3::/64".parse().unwrap()),
            },
            mtu: 1450,
            ip_masq: true,
        }
    }

    #[test]
    fn the_text_is_flannels() {
        let text = dual_stack().text();
        assert_eq!(
            text,
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n\
             FLANNEL_IPV6_NETWORK=fd42:244::/56\nFLANNEL_IPV6_SUBNET=fd42:244:0:3::1/64\n\
             FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        );
        assert_eq!(pod_cidrs(&text), dual_stack().pod_cidrs);
        let v4 = SubnetEnv {
            networks: Dual { v6: None, ..dual_stack().networks },
            pod_cidrs: Dual { v6: None, ..dual_stack().pod_cidrs },
            ip_masq: false,
            ..dual_stack()
        };
        assert_eq!(
            v4.text(),
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        );
    }

    #[test]
    fn a_file_is_replaced_whole_and_only_when_it_differs() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run/flannel/subnet.env");
        assert!(dual_stack().write(&file).unwrap());
        let first = std::fs::metadata(&file).unwrap();
        assert_eq!(first.mode() & 0o777, 0o644);
        assert!(!dual_stack().write(&file).unwrap());
        assert_eq!(std::fs::metadata(&file).unwrap().ino(), first.ino());
        assert!(SubnetEnv { mtu: 1400, ..dual_stack() }.write(&file).unwrap());
        assert_ne!(
            std::fs::metadata(&file).unwrap().ino(),
            first.ino(),
            "a reader of the old one is not disturbed"
        );
        assert_eq!(
            std::fs::read_dir(file.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        assert_eq!(previous(&file), dual_stack().pod_cidrs);
        assert_eq!(previous(&dir.path().join("none")), PodCidrs::default());
    }
}
