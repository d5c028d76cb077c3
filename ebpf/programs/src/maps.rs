//! The maps of the tc programs; their content is described in `corten-ebpf-layout`. The loader pins them.

use aya_ebpf::{
    macros::map,
    maps::{Array, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use corten_ebpf_layout::datapath::{
    Cidr, Config, Count, EVENTS_BYTES, Endpoint, Guests, HOOKS, MAX_ENDPOINTS, MAX_NODES, MAX_SLOW, Node, REASONS,
    Source, Until,
};

use crate::family::{Address, bytes};

#[map(name = "eps")]
pub static EPS: HashMap<Address, Endpoint> = HashMap::with_max_entries(MAX_ENDPOINTS, 0);

#[map(name = "live")]
pub static LIVE: DevMapHash = DevMapHash::with_max_entries(MAX_ENDPOINTS, 0);

#[map(name = "nodes")]
pub static NODES: LpmTrie<Address, Node> = LpmTrie::with_max_entries(MAX_NODES, 0);

#[map(name = "config")]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map(name = "slow")]
pub static SLOW: LruHashMap<Source, Until> = LruHashMap::with_max_entries(MAX_SLOW, 0);

#[map(name = "guests")]
pub static GUESTS: Array<Guests> = Array::with_max_entries(1, 0);

#[map(name = "counters")]
pub static COUNTERS: PerCpuArray<Count> = PerCpuArray::with_max_entries(HOOKS * REASONS, 0);

#[map(name = "events")]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

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
    let key = Cidr { prefix_len: 128, address: bytes(*address) };
    // SAFETY: the same bytes; aya's type is packed, which would be put together byte by byte.
    NODES.get(unsafe { &*(&raw const key).cast::<Key<Address>>() })
}
