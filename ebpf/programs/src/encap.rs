//! Into vxlan as flannel's device does it: outer headers without checksum, the source port a hash of the inner flow.
//!
//! The kernel's helper makes room, and marks the packet as one inside a UDP tunnel: so large packets (GSO) and
//! checksums that are still to be filled in (CHECKSUM_PARTIAL) are finished by the NIC or the driver layer, for the
//! inner headers, as with the kernel's own device.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    bpf_f_adj_room_encap_l2,
    helpers::{bpf_get_hash_recalc, bpf_get_prandom_u32, bpf_skb_adjust_room},
};
use corten_ebpf_layout::datapath::{Config, Node, Reason};

use crate::checksum;
use crate::family::{CE, ECT_0, Family, Ipv4, Ipv6, V4, V6, words};
use crate::packet::{ETHERNET, Ethernet, Packet, UDP, mac};

/// net.ipv4.ip_default_ttl and the hop limit: what the kernel's device takes without `ttl`.
const TTL: u8 = 64;
/// Default of net.ipv4.ip_local_port_range, which the kernel's device takes without `srcport`.
const PORTS: core::ops::Range<u32> = 32768..60999;

/// Words are in network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Udp {
    pub source_port: u16,
    pub destination_port: u16,
    pub len: u16,
    pub checksum: u16,
}

/// RFC 7348. Words are in network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vxlan {
    pub flags: u32,
    /// 24 bits and a reserved byte.
    pub vni: u32,
}

impl Vxlan {
    /// Only the flag that there is a VNI, so nothing of the extensions (GBP, GPE).
    pub const FLAGS: u32 = 0x0800_0000_u32.to_be();

    #[inline(always)]
    pub fn vni(vni: u32) -> u32 {
        (vni << 8).to_be()
    }
}

/// What stands before the inner Ethernet header, from the outer IP header on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Outer<H: Copy> {
    pub ip: H,
    pub udp: Udp,
    pub vxlan: Vxlan,
}

/// What is written at once: the outer headers, which stay behind the frame's Ethernet header, and the inner ones. The last
/// follows 14 bytes.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Template<H: Copy> {
    outer: Outer<H>,
    ethernet: Ethernet,
    ip: H,
}

/// A family that vxlan packets can be made of.
pub trait Tunnel: Family {
    /// Bytes that the tunnel adds.
    const ROOM: usize = size_of::<Outer<Self::Header>>() + ETHERNET;
    const ROOM_FLAG: u64;

    /// The outer header for `len` bytes from it on.
    fn outer(config: &Config, node: &Node, len: u32, class: u8) -> Self::Header;
}

impl Tunnel for V4 {
    const ROOM_FLAG: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64;

    #[inline(always)]
    fn outer(config: &Config, node: &Node, len: u32, class: u8) -> Ipv4 {
        // May be fragmented on the way, as flannel's: so packets need different ids.
        // SAFETY: takes and touches nothing.
        let id = unsafe { bpf_get_prandom_u32() } as u16;
        let mut header = Ipv4 {
            version_and_len: 0x45,
            class,
            len: (len as u16).to_be(),
            id,
            fragment: 0,
            ttl: TTL,
            protocol: UDP,
            checksum: 0,
            source: words(&config.ip4)[3],
            destination: words(&node.ip)[3],
        };
        // SAFETY: an Ipv4 is 20 bytes without padding.
        let words = unsafe { core::mem::transmute::<Ipv4, [u16; 10]>(header) };
        header.checksum = checksum::ipv4(&words);
        header
    }
}

impl Tunnel for V6 {
    const ROOM_FLAG: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64;

    #[inline(always)]
    fn outer(config: &Config, node: &Node, len: u32, class: u8) -> Ipv6 {
        Ipv6 {
            first: (0x6000_0000 | u32::from(class) << 20).to_be(),
            payload_len: ((len - 40) as u16).to_be(),
            next_header: UDP,
            hop_limit: TTL,
            source: words(&config.ip6),
            destination: words(&node.ip),
        }
    }
}

/// Sends the packet, whose IP header is `ip`, one hop further in vxlan for `node`. Nothing is changed if it fails with
/// [`Reason::Tunnel`] or [`Reason::Mtu`].
#[inline(always)]
pub fn push<F: Tunnel>(
    packet: &Packet,
    config: &Config,
    node: &Node,
    mut ip: F::Header,
) -> Result<(), Reason> {
    let len = packet.len() - ETHERNET as u32 + F::ROOM as u32;
    if len > u32::from(u16::MAX) {
        return Err(Reason::Mtu);
    }
    // SAFETY: the context of the running program.
    let hash = unsafe { bpf_get_hash_recalc(packet.skb) };
    let flags = BPF_F_ADJ_ROOM_FIXED_GSO as u64
        | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
        | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
        | F::ROOM_FLAG
        | bpf_f_adj_room_encap_l2(ETHERNET as u64);
    // SAFETY: the context of the running program. Refuses what is in a tunnel already and unusual kinds of GSO.
    if unsafe { bpf_skb_adjust_room(packet.skb, F::ROOM as i32, BPF_ADJ_ROOM_MAC, flags) } != 0 {
        return Err(Reason::Tunnel);
    }
    F::forward(&mut ip, packet.skb);
    let template = Template {
        outer: Outer {
            ip: F::outer(config, node, len, outer_ecn(F::ecn(&ip))),
            udp: Udp {
                source_port: port(hash),
                destination_port: u16::from_ne_bytes(config.port),
                len: ((len - size_of::<F::Header>() as u32) as u16).to_be(),
                checksum: 0,
            },
            vxlan: Vxlan { flags: Vxlan::FLAGS, vni: Vxlan::vni(config.vni) },
        },
        ethernet: Ethernet { destination: mac(&node.vtep_mac), source: F::vtep_mac(config), kind: F::KIND },
        ip,
    };
    packet.write(ETHERNET, &template)
}

/// RFC 6040, as the kernel's tunnels: a mark that is there already is not repeated outside.
#[inline(always)]
fn outer_ecn(inner: u8) -> u8 {
    if inner == CE { ECT_0 } else { inner }
}

/// As udp_flow_src_port(): flows spread over the receive queues of the peer.
#[inline(always)]
fn port(hash: u32) -> u16 {
    let hash = hash ^ hash << 16;
    let port = (u64::from(hash) * u64::from(PORTS.end - PORTS.start) >> 32) as u32 + PORTS.start;
    (port as u16).to_be()
}
