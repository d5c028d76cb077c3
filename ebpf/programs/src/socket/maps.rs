//! The maps; what is in them is told in `corten_ebpf_layout::service`.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use corten_ebpf_layout::service::{
    Address, Affinity, Client, Counter, Endpoint, Flow, Frontend, MAX_AFFINITIES, MAX_BACKENDS, MAX_FLOWS,
    MAX_FRONTENDS, MAX_NODE_ADDRESSES, MAX_REVERSE, MAX_SERVICES, Member, Original, Reverse, Service, Slot,
    SocketConfig,
};

#[map]
pub static FRONTENDS: HashMap<Frontend, u32> = HashMap::with_max_entries(MAX_FRONTENDS, BPF_F_NO_PREALLOC);
#[map]
pub static SERVICES: Array<Service> = Array::with_max_entries(MAX_SERVICES, BPF_F_MMAPABLE);
#[map]
pub static BACKENDS: HashMap<Slot, Member> = HashMap::with_max_entries(MAX_BACKENDS, BPF_F_NO_PREALLOC);
#[map]
pub static MEMBERS: HashMap<Member, u32> = HashMap::with_max_entries(MAX_BACKENDS, BPF_F_NO_PREALLOC);
#[map]
pub static NODE_ADDRESSES: HashMap<Address, u32> =
    HashMap::with_max_entries(MAX_NODE_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
pub static AFFINITY: LruHashMap<Client, Affinity> = LruHashMap::with_max_entries(MAX_AFFINITIES, 0);
#[map]
pub static FLOWS: LruHashMap<Flow, Endpoint> = LruHashMap::with_max_entries(MAX_FLOWS, 0);
#[map]
pub static REVERSE_TCP: LruHashMap<Reverse, Original> = LruHashMap::with_max_entries(MAX_REVERSE, 0);
#[map]
pub static REVERSE_UDP: LruHashMap<Reverse, Original> = LruHashMap::with_max_entries(MAX_REVERSE, 0);
#[map]
pub static SOCKET_CONFIG: Array<SocketConfig> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static SOCKET_COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Whether the kernel has bpf_set_retval (Linux 5.18). Constant for the verifier, which then does not look at the call.
#[unsafe(no_mangle)]
pub static HAVE_SET_RETVAL: Global<u8> = Global::new(1);

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = SOCKET_COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a live element of this CPU's own; programs of a cgroup hook do not move to another CPU.
        unsafe { *value += 1 };
    }
}
