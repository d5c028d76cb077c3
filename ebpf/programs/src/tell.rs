//! What became of a packet: counted always, told in the ring buffer if asked for and not too often.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use corten_ebpf_layout::datapath::{Address, Config, EVENT_INTERVAL_NS, Event, Hook, Reason, counter};

use crate::maps::{COUNTERS, EVENTS};
use crate::packet::{DROP, NEXT, Packet};

/// What was read of the packet so far, for the event.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    pub source: Address,
    pub destination: Address,
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    pub protocol: u8,
}

/// A packet on a fast path: how it is counted, and the verdict of the helper that redirected it.
pub struct Fast {
    pub reason: Reason,
    pub verdict: i32,
}

/// The end of a program: counts and gives the verdict.
#[inline(always)]
pub fn end(packet: &Packet, hook: Hook, config: &Config, seen: &Seen, outcome: Result<Fast, Reason>) -> i32 {
    let (reason, verdict) = match outcome {
        Ok(fast) => (fast.reason, fast.verdict),
        Err(Reason::Dropped) => (Reason::Dropped, DROP),
        Err(reason) => (reason, NEXT),
    };
    let Some(count) = COUNTERS.get_ptr_mut(counter(hook, reason)) else { return verdict };
    // SAFETY: a value of this CPU; the program is not interrupted by itself.
    unsafe {
        (*count).packets += 1;
        if config.told & reason.bit() != 0 {
            let now = bpf_ktime_get_ns();
            if now - (*count).told_ns >= EVENT_INTERVAL_NS {
                (*count).told_ns = now;
                tell(packet, hook, reason, seen, now);
            }
        }
    }
    verdict
}

/// A full ring buffer loses the event: nobody reads it.
#[inline(always)]
fn tell(packet: &Packet, hook: Hook, reason: Reason, seen: &Seen, time_ns: u64) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return };
    entry.write(Event {
        time_ns,
        ifindex: packet.ifindex(),
        len: packet.len(),
        source: seen.source,
        destination: seen.destination,
        source_port: seen.source_port,
        destination_port: seen.destination_port,
        protocol: seen.protocol,
        hook: hook as u8,
        reason: reason as u8,
        reserved: 0,
    });
    entry.submit(0);
}
