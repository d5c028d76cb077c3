//! What differs between IPv4 and IPv6, so that each way of a packet is written once.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    helpers::bpf_csum_update,
};
use corten_ebpf_layout::datapath::{Address, Config, Range, Reason, V4_MAPPED, mapped};

use crate::checksum;
use crate::packet::{TCP, Transport, UDP};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// ECN bits of the traffic class: congestion experienced, and ECN-capable (RFC 3168).
pub const CE: u8 = 3;
pub const ECT_0: u8 = 2;

pub trait Family {
    /// EtherType, network byte order.
    const KIND: [u8; 2];
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

    fn public_ip(config: &Config) -> &Address;
    fn pods(config: &Config) -> &Range;
    fn vtep_mac(config: &Config) -> [u8; 6];

    /// TCP, UDP and ICMP echo, which never mean anything for another flow.
    #[inline(always)]
    fn followed(header: &Self::Header, transport: &Transport) -> Result<(), Reason> {
        let protocol = Self::protocol(header);
        let echo = protocol == Self::ICMP
            && Self::is_echo(transport.source_port[0])
            && transport.source_port[1] == 0;
        if protocol == TCP || protocol == UDP || echo { Ok(()) } else { Err(Reason::Protocol) }
    }
}

pub struct V4;
pub struct V6;

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub version_and_len: u8,
    pub class: u8,
    pub len: [u8; 2],
    pub id: [u8; 2],
    pub fragment: [u8; 2],
    pub ttl: u8,
    pub protocol: u8,
    /// In the order of bytes in memory.
    pub checksum: u16,
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    /// Version, traffic class, flow label.
    pub first: [u8; 4],
    pub payload_len: [u8; 2],
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: Address,
    pub destination: Address,
}

impl Family for V4 {
    const KIND: [u8; 2] = [0x08, 0x00];
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
        if u16::from_be_bytes(header.fragment) & FRAGMENT != 0 {
            return Err(Reason::Fragment);
        }
        Ok(())
    }

    #[inline(always)]
    fn source(header: &Ipv4) -> Address {
        mapped(header.source)
    }

    #[inline(always)]
    fn destination(header: &Ipv4) -> Address {
        mapped(header.destination)
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
        u32::from(u16::from_be_bytes(header.len))
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
        let v4 = u32::from_ne_bytes([address[12], address[13], address[14], address[15]]);
        let mut to = bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: [0; 4] };
        to.ipv4_nh = v4;
        bpf_redir_neigh { nh_family: AF_INET, __bindgen_anon_1: to }
    }

    #[inline(always)]
    fn public_ip(config: &Config) -> &Address {
        &config.ip4
    }

    #[inline(always)]
    fn pods(config: &Config) -> &Range {
        &config.pods4
    }

    #[inline(always)]
    fn vtep_mac(config: &Config) -> [u8; 6] {
        config.vtep4_mac
    }
}

impl Family for V6 {
    const KIND: [u8; 2] = [0x86, 0xdd];
    type Header = Ipv6;
    const ICMP: u8 = 58;

    #[inline(always)]
    fn plain(header: &Ipv6) -> Result<(), Reason> {
        const EXTENSIONS: [u8; 6] = [0, 43, 51, 60, 135, 139];
        if header.first[0] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        if header.next_header == 44 {
            return Err(Reason::Fragment);
        }
        if EXTENSIONS.contains(&header.next_header) {
            return Err(Reason::Options);
        }
        // `::ffff:a.b.c.d` on the wire is no address, and must not be taken for an IPv4 pod.
        if header.source[..12] == V4_MAPPED || header.destination[..12] == V4_MAPPED {
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
        40 + u32::from(u16::from_be_bytes(header.payload_len))
    }

    #[inline(always)]
    fn ecn(header: &Ipv6) -> u8 {
        header.first[1] >> 4 & 3
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
        let word =
            |i: usize| u32::from_ne_bytes([address[i], address[i + 1], address[i + 2], address[i + 3]]);
        let to = bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: [word(0), word(4), word(8), word(12)] };
        bpf_redir_neigh { nh_family: AF_INET6, __bindgen_anon_1: to }
    }

    #[inline(always)]
    fn public_ip(config: &Config) -> &Address {
        &config.ip6
    }

    #[inline(always)]
    fn pods(config: &Config) -> &Range {
        &config.pods6
    }

    #[inline(always)]
    fn vtep_mac(config: &Config) -> [u8; 6] {
        config.vtep6_mac
    }
}

/// Is the address one of our pods' CIDR?
#[inline(always)]
pub fn is_in(address: &Address, range: &Range) -> bool {
    let words = |bytes: &Address| {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
        (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest))
    };
    let (address, mask, network) = (words(address), words(&range.mask), words(&range.network));
    // An unused family has a mask of zero, which would hold everything.
    mask.0 != 0 && address.0 & mask.0 == network.0 && address.1 & mask.1 == network.1
}
