//! Flows that conntrack may have translated stay with the kernel in both directions.
//!
//! A pod that opens a flow to what is no pod (a ClusterIP that kube-proxy translates, a node port, outside) has its end
//! recorded. A reply may come from a pod we know; it must go back through conntrack, which alone knows the way. So is
//! the end of another node's pod that comes without masquerade and opens a flow to what is no pod here (a node port).
//!
//! TCP: the SYN is recorded; later packets only from ephemeral ports (a server's replies, say to the kubelet's probes,
//! must not slow the server down), in case the record was evicted or the flow is older than this program. The record
//! outlives FIN and RST by conntrack's TIME_WAIT. UDP has no opening: every packet is recorded, for as long as
//! conntrack remembers a stream.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use corten_ebpf_layout::datapath::{Source, Until};

use crate::family::{Address, bytes};
use crate::family::Family;
use crate::flow::{Flow, is_translated};
use crate::maps::{GUESTS, SLOW};
use crate::packet::{Packet, TCP, UDP};

/// nf_conntrack_tcp_timeout_time_wait.
const CLOSED_NS: u64 = 120_000_000_000;
/// nf_conntrack_udp_timeout_stream, and some more.
const UDP_NS: u64 = 180_000_000_000;
/// Start of net.ipv4.ip_local_port_range.
const EPHEMERAL: u16 = 32768;

/// A TCP header without options, and the byte with its flags.
const TCP_HEADER: usize = 20;
const TCP_FLAGS: usize = 13;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// One end of a flow. `port`: network byte order.
#[inline(always)]
pub fn end(address: &Address, port: u16, protocol: u8) -> Source {
    Source { address: bytes(*address), port: port.to_ne_bytes(), protocol, reserved: 0 }
}

/// Must what goes to or comes from this end stay with the kernel?
#[inline(always)]
pub fn is_slow(end: &Source) -> bool {
    if !is_translated(end.protocol) {
        return false;
    }
    let Some(until) = SLOW.get_ptr_mut(end) else { return false };
    // SAFETY: an entry of an LRU map; if it is given to another flow meanwhile, that flow is slow a moment longer.
    unsafe {
        if (*until).expires_ns == 0 {
            return true;
        }
        let now = now_ns();
        if now > (*until).expires_ns {
            return false;
        }
        if end.protocol == UDP {
            (*until).expires_ns = now + UDP_NS;
        }
    }
    true
}

/// [`is_slow`] of the end of another node's pod.
#[inline(always)]
pub fn is_slow_guest(end: &Source) -> bool {
    // SAFETY: a word, written once.
    GUESTS.get(0).is_some_and(|guests| unsafe { core::ptr::read_volatile(guests) } != 0) && is_slow(end)
}

/// Records the sender's end of a flow to what is no pod, whose IP header is at `offset`; true when it is in the map now.
#[inline(always)]
pub fn record<F: Family>(packet: &Packet, offset: usize, flow: &Flow<F::Header>) -> bool {
    let end = flow.source_end::<F>();
    if !is_translated(end.protocol) {
        return false;
    }
    let mut flags = 0;
    if end.protocol == TCP {
        let header = offset + size_of::<F::Header>();
        if packet.linear(header + TCP_HEADER).is_err() {
            return false;
        }
        let Some(read) = packet.read::<u8>(header + TCP_FLAGS) else { return false };
        flags = read;
    }
    put(&end, flags)
}

/// As [`record`], of another node's pod.
#[inline(always)]
pub fn record_guest<F: Family>(packet: &Packet, offset: usize, flow: &Flow<F::Header>) {
    if record::<F>(packet, offset, flow)
        && let Some(guests) = GUESTS.get_ptr_mut(0)
    {
        // SAFETY: a word; all who write it write the same. Not written again, or its cache line would wander.
        unsafe {
            if guests.read_volatile() == 0 {
                guests.write_volatile(1);
            }
        }
    }
}

/// `tcp_flags`: 0 with UDP.
#[inline(always)]
fn put(end: &Source, tcp_flags: u8) -> bool {
    let known = SLOW.get_ptr_mut(end);
    let expires_ns = if end.protocol == UDP {
        now_ns() + UDP_NS
    } else if tcp_flags & (SYN | ACK) == SYN {
        0
    } else if tcp_flags & SYN != 0 || known.is_none() && u16::from_be_bytes(end.port) < EPHEMERAL {
        return false;
    } else if tcp_flags & (FIN | RST) != 0 {
        now_ns() + CLOSED_NS
    } else {
        match known {
            // SAFETY: as in `is_slow`. Past the FIN there is only acknowledging: a moment longer, not for ever.
            Some(until) if unsafe { (*until).expires_ns } != 0 => now_ns() + CLOSED_NS,
            _ => 0,
        }
    };
    match known {
        // SAFETY: as in `is_slow`.
        Some(until) => unsafe { (*until).expires_ns = expires_ns },
        // A failure (all entries are in use this moment) leaves one packet to luck; the next tries again.
        None => drop(SLOW.insert(end, Until { expires_ns }, 0)),
    }
    true
}

#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: takes and touches nothing.
    unsafe { bpf_ktime_get_ns() }
}
