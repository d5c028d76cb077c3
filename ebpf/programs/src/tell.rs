//! What became of a packet: counted always, told in the ring buffer if asked for and not too often.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use corten_ebpf_layout::datapath::{Config, EVENT_INTERVAL_NS, Event, Hook, Reason, counter};

use crate::encap::Tunnel;
use crate::family::{Family, V4, V6, bytes, words};
use crate::maps::{COUNTERS, EVENTS};
use crate::packet::{DROP, ETHERNET, Ethernet, NEXT, Packet, TCP, Transport, UDP};

/// A packet on a fast path: how it is counted, and the verdict of the helper that redirected it.
#[derive(Clone, Copy)]
pub struct Fast {
    pub reason: Reason,
    pub verdict: i32,
}

/// The end of a program: counts and gives the verdict.
#[inline(always)]
pub fn end(packet: &Packet, hook: Hook, config: &Config, outcome: Result<Fast, Reason>) -> i32 {
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
                tell(packet, hook, config, reason, now);
            }
        }
    }
    verdict
}

/// A full ring buffer loses the event: nobody reads it.
#[inline(always)]
fn tell(packet: &Packet, hook: Hook, config: &Config, reason: Reason, time_ns: u64) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else { return };
    let event = entry.write(Event {
        time_ns,
        ifindex: packet.ifindex(),
        len: packet.len(),
        source: [0; 16],
        destination: [0; 16],
        source_port: [0; 2],
        destination_port: [0; 2],
        protocol: 0,
        hook: hook as u8,
        reason: reason as u8,
        reserved: 0,
    });
    // Read again, so that the packets that nobody tells of need not carry it along.
    match packet.read::<Ethernet>(0).map(|ethernet| ethernet.kind) {
        Some(V4::KIND) => describe::<V4>(packet, config, event),
        Some(V6::KIND) => describe::<V6>(packet, config, event),
        _ => {}
    }
    entry.submit(0);
}

/// The packet, or the one inside if it is in our vxlan.
#[inline(always)]
fn describe<F: Tunnel>(packet: &Packet, config: &Config, event: &mut Event) {
    describe_at::<F>(packet, ETHERNET, event);
    let port = event.destination_port;
    let destination = words(&event.destination);
    if event.protocol == UDP && port == config.port && F::same(&destination, &F::public_ip(config)) {
        describe_at::<F>(packet, ETHERNET + F::ROOM, event);
    }
}

#[inline(always)]
fn describe_at<F: Family>(packet: &Packet, offset: usize, event: &mut Event) {
    let Some(ip) = packet.read::<F::Header>(offset) else { return };
    event.source = bytes(F::source(&ip));
    event.destination = bytes(F::destination(&ip));
    event.protocol = F::protocol(&ip);
    event.source_port = [0; 2];
    event.destination_port = [0; 2];
    if F::plain(&ip).is_ok()
        && (event.protocol == TCP || event.protocol == UDP)
        && let Some(transport) = packet.read::<Transport>(offset + size_of::<F::Header>())
    {
        event.source_port = transport.source_port.to_ne_bytes();
        event.destination_port = transport.destination_port.to_ne_bytes();
    }
}
