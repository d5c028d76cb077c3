//! What can go wrong between us and the kernel's socket hooks.

use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use corten_netlink::NetlinkError;
use nix::errno::Errno;

use super::plan::Full;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(
        "pin below {}: it is not on a BPF file system (mount one: mount -t bpf bpf /sys/fs/bpf)",
        path.display()
    )]
    NotBpffs { path: PathBuf },
    #[error("attach to {}: it is no cgroup v2 directory", path.display())]
    NotCgroup { path: PathBuf },
    #[error("{what} {}: {errno:?} ({})", path.display(), errno.desc())]
    Path { what: &'static str, path: PathBuf, errno: Errno },
    /// Linux 5.9 and CONFIG_CGROUP_BPF are needed.
    #[error("load the socket programs' object: {0}")]
    Object(Box<EbpfError>),
    #[error("the socket programs' object has no {what} named {name}")]
    Missing { what: &'static str, name: &'static str },
    #[error("load the program {name}: {source}")]
    Program { name: &'static str, source: Box<ProgramError> },
    #[error("{what} the map {name}: {source}")]
    Map { what: &'static str, name: &'static str, source: Box<MapError> },
    #[error("read the map {name}: {errno:?} ({})", errno.desc())]
    Dump { name: &'static str, errno: Errno },
    #[error("map {name} into memory: {errno:?} ({})", errno.desc())]
    Mmap { name: &'static str, errno: Errno },
    #[error("attach the program {name}: {errno:?} ({})", errno.desc())]
    Link { name: &'static str, errno: Errno },
    #[error("ask for the cookie of the network namespace: {errno:?} ({})", errno.desc())]
    Cookie { errno: Errno },
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("enter a network namespace: {errno:?} ({})", errno.desc())]
    Namespace { errno: Errno },
}
