//! tc ingress on the uplink: what comes from other nodes.

use aya_ebpf::{helpers::bpf_redirect_peer, macros::classifier, programs::TcContext};
use corten_ebpf_layout::datapath::{Config, Endpoint, Hook, Reason, mode, state};

use crate::decap;
use crate::encap::{Outer, Tunnel, Vxlan};
use crate::family::{CE, Family, V4, V6, words};
use crate::flow::{Flow, Headers};
use crate::maps::{CONFIG, endpoint, is_live, node};
use crate::packet::{ETHERNET, Ethernet, Frame, NEXT, Packet, TO_US, UDP};
use crate::slow;
use crate::tell::{Fast, end};

/// A packet in vxlan, behind the frame's Ethernet header. The last follow 14 bytes.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Tunnelled<H: Copy> {
    outer: Outer<H>,
    ethernet: Ethernet,
    inner: Headers<H>,
}

#[classifier]
pub fn from_nic(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    let Some(config) = CONFIG.get(0) else { return NEXT };
    let outcome = decide(&packet, config);
    end(&packet, Hook::FromNic, config, outcome)
}

#[inline(always)]
fn decide(packet: &Packet, config: &Config) -> Result<Fast, Reason> {
    if config.state == state::OFF {
        return Err(Reason::Off);
    }
    let ethernet: Ethernet = packet.header(0)?;
    match ethernet.kind {
        _ if packet.in_vlan() => Err(Reason::NotIp),
        _ if packet.kind() != TO_US => Err(Reason::NotOurs),
        V4::KIND => received::<V4>(packet, config),
        V6::KIND => received::<V6>(packet, config),
        _ => Err(Reason::NotIp),
    }
}

/// Most of what a NIC receives is for the node itself: found out by some comparisons.
#[inline(always)]
fn received<F: Tunnel>(packet: &Packet, config: &Config) -> Result<Fast, Reason> {
    packet.linear(ETHERNET + size_of::<Headers<F::Header>>())?;
    let ip: F::Header = packet.header(ETHERNET)?;
    let destination = F::destination(&ip);
    if F::protocol(&ip) == UDP && F::same(&destination, &F::public_ip(config)) {
        F::plain(&ip)?;
        if packet.read(ETHERNET).is_some_and(|headers| is_vxlan::<F>(headers, config)) {
            return tunnelled::<F>(packet, config);
        }
    }
    if !F::is_ours(&destination, config) {
        let source = F::source(&ip);
        if F::is_pod(&source, config)
            && !F::is_ours(&source, config)
            && let Ok(flow) = Flow::read::<F>(packet, ETHERNET)
        {
            slow::record_guest::<F>(packet, ETHERNET, &flow);
        }
        return Err(Reason::NotOurs);
    }
    let flow = Flow::read::<F>(packet, ETHERNET)?;
    let sender = node(&flow.source::<F>()).ok_or(Reason::UnknownPeer)?;
    if sender.mode != mode::GATEWAY {
        return Err(Reason::SpoofedNode);
    }
    let peer = receiver::<F>(packet, config, ETHERNET, &flow)?;
    deliver::<F>(packet, flow, peer, Reason::Gateway)
}

#[inline(always)]
fn is_vxlan<F: Family>(headers: Headers<F::Header>, config: &Config) -> bool {
    headers.transport.destination_port == u16::from_ne_bytes(config.port)
}

/// Out of vxlan from a node that we know.
#[inline(always)]
fn tunnelled<F: Tunnel>(packet: &Packet, config: &Config) -> Result<Fast, Reason> {
    packet.linear(ETHERNET + size_of::<Tunnelled<F::Header>>())?;
    let Tunnelled { outer, ethernet, inner } = packet.header::<Tunnelled<F::Header>>(ETHERNET)?;
    if outer.vxlan.flags != Vxlan::FLAGS || outer.vxlan.vni != Vxlan::vni(config.vni) {
        return Err(Reason::Vni);
    }
    if ethernet.destination != F::vtep_mac(config) {
        return Err(Reason::NotToGateway);
    }
    if ethernet.kind != F::KIND {
        return Err(Reason::NotIp);
    }
    let flow = Flow::of::<F>(inner, packet.len() - (ETHERNET + F::ROOM) as u32)?;
    let sender = node(&flow.source::<F>()).ok_or(Reason::UnknownPeer)?;
    if sender.mode != mode::VXLAN || !F::same(&words(&sender.ip), &F::source(&outer.ip)) {
        return Err(Reason::SpoofedNode);
    }
    let peer = receiver::<F>(packet, config, ETHERNET + F::ROOM, &flow)?;
    if F::ecn(&outer.ip) == CE && F::ecn(&flow.ip) != CE {
        return Err(Reason::Congestion);
    }
    decap::pop::<F>(packet)?;
    deliver::<F>(packet, flow, peer, Reason::Vxlan)
}

/// The pod of ours that the packet, whose IP header is at `offset`, is for, if its device lives and the packet may take
/// the fast path.
#[inline(always)]
fn receiver<F: Family>(
    packet: &Packet,
    config: &Config,
    offset: usize,
    flow: &Flow<F::Header>,
) -> Result<&'static Endpoint, Reason> {
    let destination = flow.destination::<F>();
    let pod = if F::is_ours(&destination, config) { endpoint(&destination) } else { None };
    let Some(peer) = pod else {
        // The node itself, by an address of its pod network.
        slow::record_guest::<F>(packet, offset, flow);
        return Err(Reason::UnknownPeer);
    };
    if config.state != state::ON {
        return Err(Reason::Off);
    }
    if slow::is_slow(&flow.destination_end::<F>()) || slow::is_slow_guest(&flow.source_end::<F>()) {
        return Err(Reason::Slow);
    }
    if !is_live(peer.ifindex) {
        return Err(Reason::Gone);
    }
    // The kernel answers what cannot go further.
    if F::ttl(&flow.ip) <= 1 { Err(Reason::Ttl) } else { Ok(peer) }
}

/// One hop further, into the pod's network namespace, as from its gateway.
#[inline(always)]
fn deliver<F: Family>(
    packet: &Packet,
    mut flow: Flow<F::Header>,
    peer: &Endpoint,
    reason: Reason,
) -> Result<Fast, Reason> {
    F::forward(&mut flow.ip, packet.skb);
    let ethernet = Ethernet::new::<F>(&peer.mac, &peer.gateway_mac);
    packet.write(0, &Frame { ethernet, ip: flow.ip })?;
    // SAFETY: takes and touches nothing but this program's redirect state.
    let verdict = unsafe { bpf_redirect_peer(peer.ifindex, 0) } as i32;
    Ok(Fast { reason, verdict })
}
