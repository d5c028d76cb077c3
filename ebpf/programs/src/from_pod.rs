//! tc ingress on the host end of a pod's veth: what the pod sends.

use aya_ebpf::{
    helpers::{bpf_redirect_neigh, bpf_redirect_peer},
    macros::classifier,
    programs::TcContext,
};
use corten_ebpf_layout::datapath::{Config, Endpoint, Hook, Node, Reason, Source, mode, state};

use crate::encap::{self, Tunnel};
use crate::family::{Family as _, V4, V6, words};
use crate::flow::{Flow, Headers};
use crate::maps::{CONFIG, endpoint, is_live, node};
use crate::packet::{ETHERNET, Ethernet, Frame, Mac, NEXT, Packet, TCP, Transport, mac};
use crate::slow;
use crate::tell::{Fast, end};

/// Without options.
const TCP_HEADER: usize = 20;

#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    let Some(config) = CONFIG.get(0) else { return NEXT };
    let outcome = decide(&packet, config);
    end(&packet, Hook::FromPod, config, outcome)
}

#[inline(always)]
fn decide(packet: &Packet, config: &Config) -> Result<Fast, Reason> {
    if config.state == state::OFF {
        return Err(Reason::Off);
    }
    let ethernet: Ethernet = packet.header(0)?;
    match ethernet.kind {
        _ if packet.in_vlan() => Err(Reason::NotIp),
        V4::KIND => sent::<V4>(packet, config, ethernet),
        V6::KIND => sent::<V6>(packet, config, ethernet),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn sent<F: Tunnel>(packet: &Packet, config: &Config, ethernet: Ethernet) -> Result<Fast, Reason> {
    if ethernet.destination[0].to_ne_bytes()[0] & 1 != 0 {
        return Err(Reason::Multicast);
    }
    packet.linear(ETHERNET + size_of::<Headers<F::Header>>())?;
    let flow = Flow::read::<F>(packet, ETHERNET)?;
    let me = endpoint(&flow.source::<F>()).ok_or(Reason::SpoofedPod)?;
    if me.ifindex != packet.ifindex() || mac(&me.mac) != ethernet.source {
        return Err(Reason::SpoofedPod);
    }
    let destination = flow.destination::<F>();
    if F::is_ours(&destination, config) {
        if let Some(peer) = endpoint(&destination) {
            may_be_fast(config, &flow.source_end::<F>())?;
            if slow::is_slow(&flow.destination_end::<F>()) {
                return Err(Reason::Slow);
            }
            return to_pod::<F>(packet, flow, ethernet.destination, me, peer);
        }
    } else if let Some(node) = node(&destination) {
        may_be_fast(config, &flow.source_end::<F>())?;
        if slow::is_slow_guest(&flow.destination_end::<F>()) {
            return Err(Reason::Slow);
        }
        if ethernet.destination != mac(&me.gateway_mac) {
            return Err(Reason::NotToGateway);
        }
        return to_node::<F>(packet, config, flow, node);
    }
    // Outside, a Service, a host: the kernel's, and the replies too.
    slow::record::<F>(packet, ETHERNET, &flow);
    Err(Reason::UnknownPeer)
}

#[inline(always)]
fn may_be_fast(config: &Config, end: &Source) -> Result<(), Reason> {
    if config.state != state::ON {
        return Err(Reason::Off);
    }
    if slow::is_slow(end) { Err(Reason::Slow) } else { Ok(()) }
}

/// To a pod of this node: into its network namespace. On the bridge's network nothing is changed; by way of the gateway
/// it is one hop.
#[inline(always)]
fn to_pod<F: Tunnel>(
    packet: &Packet,
    mut flow: Flow<F::Header>,
    to: Mac,
    me: &Endpoint,
    peer: &Endpoint,
) -> Result<Fast, Reason> {
    if !is_live(peer.ifindex) {
        return Err(Reason::Gone);
    }
    if to != mac(&peer.mac) {
        if to != mac(&me.gateway_mac) {
            return Err(Reason::NotToGateway);
        }
        // The kernel answers what cannot go further.
        if F::ttl(&flow.ip) <= 1 {
            return Err(Reason::Ttl);
        }
        F::forward(&mut flow.ip, packet.skb);
        let ethernet = Ethernet::new::<F>(&peer.mac, &peer.gateway_mac);
        packet.write(0, &Frame { ethernet, ip: flow.ip })?;
    }
    packet.deliver()?;
    // SAFETY: takes and touches nothing but this program's redirect state.
    let verdict = unsafe { bpf_redirect_peer(peer.ifindex, 0) } as i32;
    Ok(Fast { reason: Reason::Local, verdict })
}

/// To a pod of another node.
#[inline(always)]
fn to_node<F: Tunnel>(
    packet: &Packet,
    config: &Config,
    mut flow: Flow<F::Header>,
    node: &Node,
) -> Result<Fast, Reason> {
    if !is_live(node.ifindex) {
        return Err(Reason::Gone);
    }
    if longest::<F>(packet, &flow)? > u32::from(node.mtu) {
        return Err(Reason::Mtu);
    }
    // The kernel answers what cannot go further.
    if F::ttl(&flow.ip) <= 1 {
        return Err(Reason::Ttl);
    }
    let reason = if node.mode == mode::VXLAN {
        encap::push::<F>(packet, config, node, flow.ip)?;
        Reason::Vxlan
    } else {
        F::forward(&mut flow.ip, packet.skb);
        packet.write(ETHERNET, &flow.ip)?;
        Reason::Gateway
    };
    let mut to = F::next_hop(&words(&node.next_hop));
    let size = size_of_val(&to) as i32;
    // SAFETY: `to` lives until the call returns, which copies it.
    let verdict = unsafe { bpf_redirect_neigh(node.ifindex, &raw mut to, size, 0) } as i32;
    Ok(Fast { reason, verdict })
}

/// The longest IP packet that goes out on the wire: the packet, or each of its segments.
#[inline(always)]
fn longest<F: Tunnel>(packet: &Packet, flow: &Flow<F::Header>) -> Result<u32, Reason> {
    let segment = packet.segment();
    if segment == 0 {
        return Ok(F::len(&flow.ip));
    }
    let ip = size_of::<F::Header>();
    let transport = if F::protocol(&flow.ip) == TCP {
        const DATA_OFFSET: usize = 12;
        packet.linear(ETHERNET + ip + TCP_HEADER)?;
        u32::from(packet.header::<u8>(ETHERNET + ip + DATA_OFFSET)? >> 4) * 4
    } else {
        size_of::<Transport>() as u32
    };
    Ok(ip as u32 + transport + segment)
}
