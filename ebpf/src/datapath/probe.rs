//! What this kernel allows, before anything is loaded.

use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

use super::DatapathError;
use super::attach::How;
use crate::link::{has_tcx, is_bpffs};

/// What the fast path would have to do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// How programs would be attached.
    pub how: How,
    /// Why the fast path cannot be had; empty: it can.
    pub missing: Vec<String>,
}

impl Probe {
    pub fn is_fine(&self) -> bool {
        self.missing.is_empty()
    }
}

/// The helpers that set the least kernel (5.13: room for an inner Ethernet header), and what they are for.
const HELPERS: [(BpfHelper, &str); 4] = [
    (BpfHelper::BPF_FUNC_redirect_peer, "bpf_redirect_peer (Linux 5.10)"),
    (BpfHelper::BPF_FUNC_redirect_neigh, "bpf_redirect_neigh (Linux 5.10)"),
    (BpfHelper::BPF_FUNC_csum_level, "bpf_csum_level (Linux 5.8)"),
    (BpfHelper::BPF_FUNC_ringbuf_reserve, "bpf_ringbuf_reserve (Linux 5.8)"),
];

const MAPS: [(MapType, &str); 4] = [
    (MapType::LpmTrie, "LPM tries"),
    (MapType::LruHash, "LRU hashes"),
    (MapType::DevMapHash, "hashes of devices"),
    (MapType::RingBuf, "ring buffers"),
];

/// Asks the kernel. `directory`: where pins would be, or its nearest parent that exists.
pub fn probe(directory: &Path) -> Probe {
    let mut missing = Vec::new();
    let how = match has_tcx() {
        Ok(true) => How::Tcx,
        Ok(false) => How::Clsact,
        Err(errno) => {
            // Without the system call nothing else can be asked.
            let why = DatapathError::Query { errno }.to_string();
            return Probe { how: How::Clsact, missing: vec![why] };
        }
    };
    if !directory.ancestors().find(|path| path.exists()).is_some_and(is_bpffs) {
        missing.push(format!("no BPF file system at {}", directory.display()));
    }
    for (helper, name) in HELPERS {
        if !matches!(is_helper_supported(ProgramType::SchedClassifier, helper), Ok(true)) {
            missing.push(format!("the kernel lacks {name}"));
        }
    }
    for (map, name) in MAPS {
        if !matches!(is_map_supported(map), Ok(true)) {
            missing.push(format!("the kernel lacks {name}"));
        }
    }
    Probe { how, missing }
}
