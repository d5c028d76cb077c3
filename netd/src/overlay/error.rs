//! What keeps the overlay from being as it should.

use std::path::PathBuf;

use corten_netlink::NetlinkError;
use nix::errno::Errno;

use super::uplink::UplinkError;

#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The name of our device is taken by something we did not make.
    #[error(
        "link {name} exists and is {found}, not {wanted}; delete it (`ip link del {name}`) or set another Backend.VNI"
    )]
    Foreign { name: String, found: String, wanted: String },
    /// The kernel allows one vxlan device for a VNI and port.
    #[error(
        "link {other} has VNI {vni} and UDP port {port} already; delete it or set another Backend.VNI or Port"
    )]
    TwinDevice { other: String, vni: u32, port: u16 },
    #[error(
        "create {name}: this kernel has no vxlan (load the module: `modprobe vxlan`; or set Backend.Type host-gw)"
    )]
    NoVxlan { name: String },
    #[error("{tried}: {} (corten-netd needs CAP_NET_ADMIN in its network namespace)", .errno.desc())]
    Privileges { tried: String, errno: Errno },
    #[error("nf_tables: {source} (load the module: `modprobe nf_tables`)")]
    NoNfTables { source: NetlinkError },
    #[error(
        "host-gw: the public address {public} is not uplink {uplink}'s {local}; host-gw needs nodes without NAT between them (drop --public-ip, or set Backend.Type vxlan)"
    )]
    Translated { public: std::net::IpAddr, uplink: String, local: std::net::IpAddr },
    #[error("uplink {uplink} has MTU {mtu}, which leaves {name} less than the 1280 that IPv6 needs")]
    SmallMtu { uplink: String, mtu: u32, name: String },
    #[error("{call} {}: {source} (what is to be there: {wanted}; set it by hand if /proc/sys is read-only)", path.display())]
    Sysctl { call: &'static str, path: PathBuf, wanted: String, source: std::io::Error },
    #[error("read {}: {source}", path.display())]
    Random { path: PathBuf, source: std::io::Error },
    #[error("wait for netlink notifications: {0}")]
    Wait(std::io::Error),
}

impl OverlayError {
    /// Waiting will not help: a person must act.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Foreign { .. }
            | Self::TwinDevice { .. }
            | Self::NoVxlan { .. }
            | Self::Privileges { .. }
            | Self::NoNfTables { .. }
            | Self::Translated { .. }
            | Self::SmallMtu { .. }
            | Self::Sysctl { .. } => true,
            Self::Netlink(error) => error.is(Errno::EPERM),
            Self::Uplink(error) => error.is_final(),
            Self::Random { .. } | Self::Wait(_) => false,
        }
    }
}
