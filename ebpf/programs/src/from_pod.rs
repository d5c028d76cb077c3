//! tc ingress on the host end of a pod's veth: what the pod sends.

use aya_ebpf::{
    helpers::{bpf_redirect_neigh, bpf_redirect_peer},
    macros::classifier,
    programs::TcContext,
};
use corten_ebpf_layout::datapath::{Config, Endpoint, Hook, Node, Reason, mode, state};

use crate::encap::{self, Tunnel};
use crate::family::{Family as _, V4, V6, is_in};
use crate::maps::{CONFIG, endpoint, is_live, node};
use crate::packet::{ETHERNET, Ethernet, NEXT, Packet, TCP, Transport, UDP};
use crate::slow;
use crate::tell::{Fast, Seen, end};

#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    let Some(config) = CONFIG.get(0) else { return NEXT };
    let mut seen = Seen::default();
    let outcome = decide(&packet, config, &mut seen);
    end(&packet, Hook::FromPod, config, &seen, outcome)
}

#[inline(always)]
fn decide(packet: &Packet, config: &Config, seen: &mut Seen) -> Result<Fast, Reason> {
    if config.state == state::OFF {
        return Err(Reason::Off);
    }
    let ethernet: Ethernet = packet.pull(0)?;
    match ethernet.kind {
        _ if packet.in_vlan() => Err(Reason::NotIp),
        V4::KIND => Sent::<V4>::read(packet, config, ethernet, seen)?.go(),
        V6::KIND => Sent::<V6>::read(packet, config, ethernet, seen)?.go(),
        _ => Err(Reason::NotIp),
    }
}

/// A packet that a pod sent.
struct Sent<'a, F: Tunnel> {
    packet: &'a Packet,
    config: &'a Config,
    ethernet: Ethernet,
    ip: F::Header,
    seen: &'a Seen,
}

impl<'a, F: Tunnel> Sent<'a, F> {
    #[inline(always)]
    fn read(
        packet: &'a Packet,
        config: &'a Config,
        ethernet: Ethernet,
        seen: &'a mut Seen,
    ) -> Result<Self, Reason> {
        let ip: F::Header = packet.pull(ETHERNET)?;
        F::plain(&ip)?;
        seen.source = F::source(&ip);
        seen.destination = F::destination(&ip);
        seen.protocol = F::protocol(&ip);
        if ethernet.destination[0] & 1 != 0 {
            return Err(Reason::Multicast);
        }
        let transport: Transport = packet.pull(ETHERNET + size_of::<F::Header>())?;
        F::followed(&ip, &transport)?;
        if seen.protocol == TCP || seen.protocol == UDP {
            seen.source_port = transport.source_port;
            seen.destination_port = transport.destination_port;
        }
        if F::len(&ip) > packet.len() - ETHERNET as u32 {
            return Err(Reason::Malformed);
        }
        Ok(Self { packet, config, ethernet, ip, seen })
    }

    #[inline(always)]
    fn go(self) -> Result<Fast, Reason> {
        let me = endpoint(&self.seen.source).ok_or(Reason::SpoofedPod)?;
        if me.ifindex != self.packet.ifindex() || me.mac != self.ethernet.source {
            return Err(Reason::SpoofedPod);
        }
        if is_in(&self.seen.destination, F::pods(self.config)) {
            match endpoint(&self.seen.destination) {
                Some(peer) => self.to_pod(me, peer),
                None => self.to_stranger(),
            }
        } else {
            match node(&self.seen.destination) {
                Some(node) => self.to_node(me, node),
                None => self.to_stranger(),
            }
        }
    }

    /// Outside, a Service, a host: the kernel's, and the replies too.
    #[inline(always)]
    fn to_stranger(self) -> Result<Fast, Reason> {
        let protocol = self.seen.protocol;
        if protocol == TCP || protocol == UDP {
            let mut flags = 0;
            if protocol == TCP {
                flags = self.packet.pull::<u8>(ETHERNET + size_of::<F::Header>() + slow::TCP_FLAGS)?;
            }
            slow::record(&slow::source(&self.seen.source, self.seen.source_port, protocol), flags);
        }
        Err(Reason::UnknownPeer)
    }

    #[inline(always)]
    fn may_be_fast(&self) -> Result<(), Reason> {
        if self.config.state != state::ON {
            return Err(Reason::Off);
        }
        let seen = self.seen;
        if slow::is_slow(&slow::source(&seen.destination, seen.destination_port, seen.protocol))
            || slow::is_slow(&slow::source(&seen.source, seen.source_port, seen.protocol))
        {
            return Err(Reason::Slow);
        }
        Ok(())
    }

    /// To a pod of this node: into its network namespace. On the bridge's network nothing is changed; by way of the
    /// gateway it is one hop.
    #[inline(always)]
    fn to_pod(mut self, me: &Endpoint, peer: &Endpoint) -> Result<Fast, Reason> {
        self.may_be_fast()?;
        if !is_live(peer.ifindex) {
            return Err(Reason::Gone);
        }
        if self.ethernet.destination != peer.mac {
            if self.ethernet.destination != me.gateway_mac {
                return Err(Reason::NotToGateway);
            }
            if F::ttl(&self.ip) <= 1 {
                return Err(Reason::Ttl);
            }
            F::forward(&mut self.ip, self.packet.skb);
            let ethernet = Ethernet { destination: peer.mac, source: peer.gateway_mac, kind: F::KIND };
            self.packet.write(0, &ethernet)?;
            self.packet.write(ETHERNET, &self.ip)?;
        }
        self.packet.deliver()?;
        // SAFETY: takes and touches nothing but this program's redirect state.
        let verdict = unsafe { bpf_redirect_peer(peer.ifindex, 0) } as i32;
        Ok(Fast { reason: Reason::Local, verdict })
    }

    /// To a pod of another node.
    #[inline(always)]
    fn to_node(mut self, me: &Endpoint, node: &Node) -> Result<Fast, Reason> {
        self.may_be_fast()?;
        if self.ethernet.destination != me.gateway_mac {
            return Err(Reason::NotToGateway);
        }
        if !is_live(node.ifindex) {
            return Err(Reason::Gone);
        }
        if self.longest()? > u32::from(node.mtu) {
            return Err(Reason::Mtu);
        }
        if F::ttl(&self.ip) <= 1 {
            return Err(Reason::Ttl);
        }
        let reason = if node.mode == mode::VXLAN {
            encap::push::<F>(self.packet, self.config, node, self.ip)?;
            Reason::Vxlan
        } else {
            F::forward(&mut self.ip, self.packet.skb);
            self.packet.write(ETHERNET, &self.ip)?;
            Reason::Gateway
        };
        let mut to = F::next_hop(&node.next_hop);
        let size = size_of_val(&to) as i32;
        // SAFETY: `to` lives until the call returns, which copies it.
        let verdict = unsafe { bpf_redirect_neigh(node.ifindex, &raw mut to, size, 0) } as i32;
        Ok(Fast { reason, verdict })
    }

    /// The longest IP packet that goes out on the wire: the packet, or each of its segments.
    #[inline(always)]
    fn longest(&self) -> Result<u32, Reason> {
        let segment = self.packet.segment();
        if segment == 0 {
            return Ok(F::len(&self.ip));
        }
        let ip = size_of::<F::Header>();
        let transport = if self.seen.protocol == TCP {
            const DATA_OFFSET: usize = 12;
            u32::from(self.packet.pull::<u8>(ETHERNET + ip + DATA_OFFSET)? >> 4) * 4
        } else {
            size_of::<Transport>() as u32
        };
        Ok(ip as u32 + transport + segment)
    }
}
