//! The maps of the tc programs; their content is described in `corten-ebpf-layout`. All are pinned by name.

use aya_ebpf::{
    macros::map,
    maps::{Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use corten_ebpf_layout::datapath::{
    Address, Config, Count, EVENTS_BYTES, Endpoint, HOOKS, MAX_ENDPOINTS, MAX_NODES, MAX_SLOW, Node, REASONS,
    Source, Until,
};

#[map(name = "eps")]
pub static EPS: HashMap<Address, Endpoint> = HashMap::pinned(MAX_ENDPOINTS, 0);

#[map(name = "live")]
pub static LIVE: DevMapHash = DevMapHash::pinned(MAX_ENDPOINTS, 0);

#[map(name = "nodes")]
pub static NODES: LpmTrie<Address, Node> = LpmTrie::pinned(MAX_NODES, 0);

#[map(name = "config")]
pub static CONFIG: Array<Config> = Array::pinned(1, 0);

#[map(name = "slow")]
pub static SLOW: LruHashMap<Source, Until> = LruHashMap::pinned(MAX_SLOW, 0);

#[map(name = "counters")]
pub static COUNTERS: PerCpuArray<Count> = PerCpuArray::pinned(HOOKS * REASONS, 0);

#[map(name = "events")]
pub static EVENTS: RingBuf = RingBuf::pinned(EVENTS_BYTES, 0);

/// The endpoint of this node with this address, unless its device is gone.
#[inline(always)]
pub fn endpoint(address: &Address) -> Option<&'static Endpoint> {
    // SAFETY: the map is preallocated; an entry that is replaced meanwhile is read torn at worst, which sends one packet
    // to a device of ours that does not expect it.
    unsafe { EPS.get(address) }
}

/// Does the kernel still know the device? It removes the entry itself when the device goes.
#[inline(always)]
pub fn is_live(ifindex: u32) -> bool {
    LIVE.get_ifindex(ifindex).is_some()
}

/// The node whose pod CIDR the address lies in.
#[inline(always)]
pub fn node(address: &Address) -> Option<&'static Node> {
    NODES.get(aya_ebpf::maps::lpm_trie::Key::new(128, *address))
}
