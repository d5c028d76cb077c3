//! What differs between IPv4 and IPv6, so that each way of a packet is written once.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    helpers::bpf_csum_update,
};
use corten_ebpf_layout::datapath::{self, Config, Range, Reason};

use crate::checksum;
use crate::packet::{Mac, TCP, Transport, UDP, mac};

/// An address of either family as words in network byte order.
pub type Address = [u32; 4];

/// The third word of an IPv4 address that is mapped into IPv6.
const MAPPED: u32 = 0xffff_u32.to_be();

/// An address of a map's value.
#[inline(always)]
pub fn words(address: &datapath::Address) -> Address {
    // SAFETY: addresses lie at multiples of four bytes in all structures, and any bytes are words.
    unsafe { *core::ptr::from_ref(address).cast() }
}

/// As a map has it.
#[inline(always)]
pub fn bytes(address: Address) -> datapath::Address {
    // SAFETY: any words are bytes.
    unsafe { core::mem::transmute(address) }
}

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// ECN bits of the traffic class: congestion experienced, and ECN-capable (RFC 3168).
pub const CE: u8 = 3;
pub const ECT_0: u8 = 2;

pub trait Family {
    /// EtherType, network byte order.
    const KIND: u16;
    /// The header without options.
    type Header: Copy;
    const ICMP: u8;

    /// Leaves to the kernel what is not just this header: other versions, options, fragments.
    fn plain(header: &Self::Header) -> Result<(), Reason>;
    fn source(header: &Self::Header) -> Address;
    fn destination(header: &Self::Header) -> Address;
    fn protocol(header: &Self::Header) -> u8;
    fn ttl(header: &Self::Header) -> u8;
    /// Of the whole IP packet, bytes.
    fn len(header: &Self::Header) -> u32;
    fn ecn(header: &Self::Header) -> u8;
    fn is_echo(icmp_type: u8) -> bool;
    /// One hop further: TTL or hop limit less one.
    fn forward(header: &mut Self::Header, skb: *mut __sk_buff);
    fn next_hop(address: &Address) -> bpf_redir_neigh;

    fn public_ip(config: &Config) -> Address;
    /// In our pods' CIDR?
    fn is_ours(address: &Address, config: &Config) -> bool;
    /// In the cluster's network, which has the pods of all nodes?
    fn is_pod(address: &Address, config: &Config) -> bool;
    /// Of two addresses of this family.
    fn same(one: &Address, other: &Address) -> bool;
    fn vtep_mac(config: &Config) -> Mac;

    /// TCP, UDP and ICMP echo, which never mean anything for another flow.
    #[inline(always)]
    fn followed(header: &Self::Header, transport: &Transport) -> Result<(), Reason> {
        let protocol = Self::protocol(header);
        let [kind, code] = transport.source_port.to_ne_bytes();
        let echo = protocol == Self::ICMP && Self::is_echo(kind) && code == 0;
        if protocol == TCP || protocol == UDP || echo { Ok(()) } else { Err(Reason::Protocol) }
    }
}

pub struct V4;
pub struct V6;

/// Words are in network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_and_len: u8,
    pub class: u8,
    pub len: u16,
    pub id: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
}

/// Words are in network byte order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    /// Version, traffic class, flow label.
    pub first: u32,
    pub payload_len: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Address,
    pub destination: Address,
}

#[inline(always)]
fn in_v4(address: &Address, range: &Range) -> bool {
    // The words before are the same in all IPv4 addresses, also in a network; an unused family's network has none.
    let (network, mask) = (words(&range.network), words(&range.mask));
    network[2] == MAPPED && address[3] & mask[3] == network[3]
}

#[inline(always)]
fn in_v6(address: &Address, range: &Range) -> bool {
    let (network, mask) = (words(&range.network), words(&range.mask));
    // An unused family has a mask of zero, which would hold everything.
    mask[0] != 0
        && address[0] & mask[0] == network[0]
        && address[1] & mask[1] == network[1]
        && address[2] & mask[2] == network[2]
        && address[3] & mask[3] == network[3]
}

impl Family for V4 {
    const KIND: u16 = 0x0800_u16.to_be();
    type Header = Ipv4;
    const ICMP: u8 = 1;

    #[inline(always)]
    fn plain(header: &Ipv4) -> Result<(), Reason> {
        // More fragments, or an offset; "do not fragment" is no matter here.
        const FRAGMENT: u16 = 0x3fff;
        if header.version_and_len != 0x45 {
            let options = header.version_and_len >> 4 == 4 && header.version_and_len & 15 > 5;
            return Err(if options { Reason::Options } else { Reason::Malformed });
        }
        if u16::from_be(header.fragment) & FRAGMENT != 0 {
            return Err(Reason::Fragment);
        }
        Ok(())
    }

    #[inline(always)]
    fn source(header: &Ipv4) -> Address {
        [0, 0, MAPPED, header.source]
    }

    #[inline(always)]
    fn destination(header: &Ipv4) -> Address {
        [0, 0, MAPPED, header.destination]
    }

    #[inline(always)]
    fn protocol(header: &Ipv4) -> u8 {
        header.protocol
    }

    #[inline(always)]
    fn ttl(header: &Ipv4) -> u8 {
        header.ttl
    }

    #[inline(always)]
    fn len(header: &Ipv4) -> u32 {
        u32::from(u16::from_be(header.len))
    }

    #[inline(always)]
    fn ecn(header: &Ipv4) -> u8 {
        header.class & 3
    }

    #[inline(always)]
    fn is_echo(icmp_type: u8) -> bool {
        icmp_type == 8 || icmp_type == 0
    }

    #[inline(always)]
    fn forward(header: &mut Ipv4, _: *mut __sk_buff) {
        let old = u16::from_ne_bytes([header.ttl, header.protocol]);
        header.ttl -= 1;
        let new = u16::from_ne_bytes([header.ttl, header.protocol]);
        header.checksum = checksum::replace(header.checksum, old, new);
    }

    #[inline(always)]
    fn next_hop(address: &Address) -> bpf_redir_neigh {
        let to = bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: [address[3], 0, 0, 0] };
        bpf_redir_neigh { nh_family: AF_INET, __bindgen_anon_1: to }
    }

    #[inline(always)]
    fn public_ip(config: &Config) -> Address {
        words(&config.ip4)
    }

    #[inline(always)]
    fn is_ours(address: &Address, config: &Config) -> bool {
        in_v4(address, &config.pods4)
    }

    #[inline(always)]
    fn is_pod(address: &Address, config: &Config) -> bool {
        in_v4(address, &config.cluster4)
    }

    #[inline(always)]
    fn same(one: &Address, other: &Address) -> bool {
        one[3] == other[3]
    }

    #[inline(always)]
    fn vtep_mac(config: &Config) -> Mac {
        mac(&config.vtep4_mac)
    }
}

impl Family for V6 {
    const KIND: u16 = 0x86dd_u16.to_be();
    type Header = Ipv6;
    const ICMP: u8 = 58;

    #[inline(always)]
    fn plain(header: &Ipv6) -> Result<(), Reason> {
        if u32::from_be(header.first) >> 28 != 6 {
            return Err(Reason::Malformed);
        }
        if header.next_header == 44 {
            return Err(Reason::Fragment);
        }
        if matches!(header.next_header, 0 | 43 | 51 | 60 | 135 | 139) {
            return Err(Reason::Options);
        }
        // `::ffff:a.b.c.d` on the wire is no address, and must not be taken for an IPv4 pod.
        let is_mapped = |address: &Address| address[0] | address[1] == 0 && address[2] == MAPPED;
        if is_mapped(&header.source) || is_mapped(&header.destination) {
            return Err(Reason::Malformed);
        }
        Ok(())
    }

    #[inline(always)]
    fn source(header: &Ipv6) -> Address {
        header.source
    }

    #[inline(always)]
    fn destination(header: &Ipv6) -> Address {
        header.destination
    }

    #[inline(always)]
    fn protocol(header: &Ipv6) -> u8 {
        header.next_header
    }

    #[inline(always)]
    fn ttl(header: &Ipv6) -> u8 {
        header.hop_limit
    }

    #[inline(always)]
    fn len(header: &Ipv6) -> u32 {
        40 + u32::from(u16::from_be(header.payload_len))
    }

    #[inline(always)]
    fn ecn(header: &Ipv6) -> u8 {
        (u32::from_be(header.first) >> 20) as u8 & 3
    }

    #[inline(always)]
    fn is_echo(icmp_type: u8) -> bool {
        icmp_type == 128 || icmp_type == 129
    }

    #[inline(always)]
    fn forward(header: &mut Ipv6, skb: *mut __sk_buff) {
        header.hop_limit -= 1;
        // No header checksum makes up for it, so a NIC's sum over the packet (CHECKSUM_COMPLETE) must follow: the word
        // of next header and hop limit lost one. Without such a sum the helper refuses, which is fine.
        let less_one = u32::from(!u16::from_ne_bytes([0, 1]));
        // SAFETY: the context of the running program.
        unsafe { bpf_csum_update(skb, less_one) };
    }

    #[inline(always)]
    fn next_hop(address: &Address) -> bpf_redir_neigh {
        let to = bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: *address };
        bpf_redir_neigh { nh_family: AF_INET6, __bindgen_anon_1: to }
    }

    #[inline(always)]
    fn public_ip(config: &Config) -> Address {
        words(&config.ip6)
    }

    #[inline(always)]
    fn is_ours(address: &Address, config: &Config) -> bool {
        in_v6(address, &config.pods6)
    }

    #[inline(always)]
    fn is_pod(address: &Address, config: &Config) -> bool {
        in_v6(address, &config.cluster6)
    }

    #[inline(always)]
    fn same(one: &Address, other: &Address) -> bool {
        one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3]
    }

    #[inline(always)]
    fn vtep_mac(config: &Config) -> Mac {
        mac(&config.vtep6_mac)
    }
}
