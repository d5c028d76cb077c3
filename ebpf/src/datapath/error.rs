//! What can go wrong, with the likely cause.

use std::io;
use std::path::PathBuf;

use aya::maps::MapError;
use aya::programs::{ProgramError, tc::TcError};
use aya::{EbpfError, maps::xdp::XdpMapError};
use nix::errno::Errno;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum DatapathError {
    #[error("{path} is not on a BPF file system (mount it: mount -t bpf bpf /sys/fs/bpf)")]
    NotBpffs { path: PathBuf },
    #[error("cannot {what} {path}: {source}")]
    Path { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot load the kernel object: {}", chain(.source))]
    Object { source: EbpfError },
    #[error("the kernel refuses program {program}: {}", chain(.source))]
    Load { program: &'static str, source: ProgramError },
    #[error("the kernel object has no program {program}")]
    NoProgram { program: &'static str },
    #[error("the kernel object has no map {map}")]
    NoMap { map: &'static str },
    #[error("map {map}: {}", chain(.source))]
    Map { map: &'static str, source: MapError },
    #[error("map live: interface {ifindex}: {}", chain(.source))]
    Live { ifindex: u32, source: XdpMapError },
    #[error("there is no interface {ifindex}")]
    NoInterface { ifindex: u32 },
    #[error("cannot attach {program} to interface {ifindex} by tcx: {errno}")]
    Tcx { program: &'static str, ifindex: u32, errno: Errno },
    #[error("cannot attach {program} to interface {ifindex} by clsact: {}", chain(.source))]
    Clsact { program: &'static str, ifindex: u32, source: ProgramError },
    #[error("cannot add the clsact qdisc to interface {ifindex}: {}", chain(.source))]
    Qdisc { ifindex: u32, source: TcError },
    #[error("cannot ask the kernel for tcx: {errno}{}", hint(*.errno))]
    Query { errno: Errno },
}

/// An error with its causes; aya's own texts leave them out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM => " (needs CAP_BPF and CAP_NET_ADMIN)",
        Errno::ENOSYS => " (the kernel is built without BPF)",
        _ => "",
    }
}
