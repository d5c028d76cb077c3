//! tc ingress on the uplink: what comes from other nodes.

use aya_ebpf::{helpers::bpf_redirect_peer, macros::classifier, programs::TcContext};
use corten_ebpf_layout::datapath::{Address, Config, Endpoint, Hook, Reason, mode, state};

use crate::decap;
use crate::encap::{Outer, Tunnel, Vxlan};
use crate::family::{CE, Family, V4, V6, is_in};
use crate::maps::{CONFIG, endpoint, is_live, node};
use crate::packet::{ETHERNET, Ethernet, NEXT, Packet, TCP, TO_US, Transport, UDP};
use crate::slow;
use crate::tell::{Fast, Seen, end};

#[classifier]
pub fn from_nic(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    let Some(config) = CONFIG.get(0) else { return NEXT };
    let mut seen = Seen::default();
    let outcome = decide(&packet, config, &mut seen);
    end(&packet, Hook::FromNic, config, &seen, outcome)
}

#[inline(always)]
fn decide(packet: &Packet, config: &Config, seen: &mut Seen) -> Result<Fast, Reason> {
    if config.state != state::ON {
        return Err(Reason::Off);
    }
    let ethernet: Ethernet = packet.pull(0)?;
    match ethernet.kind {
        _ if packet.in_vlan() => Err(Reason::NotIp),
        V4::KIND => received::<V4>(packet, config, seen),
        V6::KIND => received::<V6>(packet, config, seen),
        _ => Err(Reason::NotIp),
    }
}

/// Most of what a NIC receives is for the node itself: found out by two comparisons.
#[inline(always)]
fn received<F: Tunnel>(packet: &Packet, config: &Config, seen: &mut Seen) -> Result<Fast, Reason> {
    if packet.kind() != TO_US {
        return Err(Reason::NotOurs);
    }
    let ip: F::Header = packet.pull(ETHERNET)?;
    let destination = F::destination(&ip);
    if F::protocol(&ip) == UDP && destination == *F::public_ip(config) {
        return tunnelled::<F>(packet, config, seen, &ip);
    }
    if !is_in(&destination, F::pods(config)) {
        return Err(Reason::NotOurs);
    }
    let mut inner = Inner::<F>::read(packet, config, seen, ETHERNET)?;
    let Some(sender) = node(&inner.seen.source) else { return Err(Reason::UnknownPeer) };
    if sender.mode != mode::GATEWAY {
        return Err(Reason::SpoofedNode);
    }
    let peer = inner.peer()?;
    inner.deliver(peer, Reason::Gateway)
}

/// Out of vxlan from a node that we know.
#[inline(always)]
fn tunnelled<F: Tunnel>(
    packet: &Packet,
    config: &Config,
    seen: &mut Seen,
    ip: &F::Header,
) -> Result<Fast, Reason> {
    F::plain(ip)?;
    let transport: Transport = packet.pull(ETHERNET + size_of::<F::Header>())?;
    if transport.destination_port != config.port {
        return Err(Reason::NotOurs);
    }
    let outer: Outer<F::Header> = packet.pull(ETHERNET)?;
    let sender: Address = F::source(ip);
    seen.source = sender;
    seen.destination = F::destination(ip);
    seen.protocol = UDP;
    if outer.vxlan.flags != Vxlan::FLAGS || outer.vxlan.vni != Vxlan::vni(config.vni) {
        return Err(Reason::Vni);
    }
    let ethernet: Ethernet = packet.pull(ETHERNET + size_of::<Outer<F::Header>>())?;
    if ethernet.destination != F::vtep_mac(config) {
        return Err(Reason::NotToGateway);
    }
    if ethernet.kind != F::KIND {
        return Err(Reason::NotIp);
    }
    let mut inner = Inner::<F>::read(packet, config, seen, ETHERNET + F::ROOM)?;
    let Some(node) = node(&inner.seen.source) else { return Err(Reason::UnknownPeer) };
    if node.mode != mode::VXLAN || node.ip != sender {
        return Err(Reason::SpoofedNode);
    }
    let peer = inner.peer()?;
    if F::ecn(ip) == CE && F::ecn(&inner.ip) != CE {
        return Err(Reason::Congestion);
    }
    decap::pop::<F>(packet)?;
    inner.deliver(peer, Reason::Vxlan)
}

/// The packet for a pod of ours.
struct Inner<'a, F: Family> {
    packet: &'a Packet,
    ip: F::Header,
    seen: &'a Seen,
}

impl<'a, F: Family> Inner<'a, F> {
    /// Reads it at `offset` and leaves to the kernel what is unusual.
    #[inline(always)]
    fn read(
        packet: &'a Packet,
        config: &'a Config,
        seen: &'a mut Seen,
        offset: usize,
    ) -> Result<Self, Reason> {
        let ip: F::Header = packet.pull(offset)?;
        F::plain(&ip)?;
        seen.source = F::source(&ip);
        seen.destination = F::destination(&ip);
        seen.protocol = F::protocol(&ip);
        let transport: Transport = packet.pull(offset + size_of::<F::Header>())?;
        F::followed(&ip, &transport)?;
        if seen.protocol == TCP || seen.protocol == UDP {
            seen.source_port = transport.source_port;
            seen.destination_port = transport.destination_port;
        }
        if F::len(&ip) > packet.len() - offset as u32 {
            return Err(Reason::Malformed);
        }
        if !is_in(&seen.destination, F::pods(config)) {
            return Err(Reason::UnknownPeer);
        }
        Ok(Self { packet, ip, seen })
    }

    /// The pod, if its device lives and the packet may take the fast path.
    #[inline(always)]
    fn peer(&self) -> Result<&'static Endpoint, Reason> {
        let seen = self.seen;
        let peer = endpoint(&seen.destination).ok_or(Reason::UnknownPeer)?;
        if slow::is_slow(&slow::source(&seen.destination, seen.destination_port, seen.protocol)) {
            return Err(Reason::Slow);
        }
        if !is_live(peer.ifindex) {
            return Err(Reason::Gone);
        }
        // The kernel answers what cannot go further.
        if F::ttl(&self.ip) <= 1 { Err(Reason::Ttl) } else { Ok(peer) }
    }

    /// One hop further, into the pod's network namespace, as from its gateway.
    #[inline(always)]
    fn deliver(&mut self, peer: &Endpoint, reason: Reason) -> Result<Fast, Reason> {
        F::forward(&mut self.ip, self.packet.skb);
        let ethernet = Ethernet { destination: peer.mac, source: peer.gateway_mac, kind: F::KIND };
        self.packet.write(0, &ethernet)?;
        self.packet.write(ETHERNET, &self.ip)?;
        // SAFETY: takes and touches nothing but this program's redirect state.
        let verdict = unsafe { bpf_redirect_peer(peer.ifindex, 0) } as i32;
        Ok(Fast { reason, verdict })
    }
}
