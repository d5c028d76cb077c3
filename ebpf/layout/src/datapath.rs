//! Maps of the tc programs: local endpoints, nodes, configuration, flows that must stay slow, counters, events.
//!
//! Addresses of both families are 16 bytes, IPv4 as `::ffff:a.b.c.d`; so one table of each kind serves both. They lie at
//! multiples of four bytes, which the programs read as words.

/// An address as key: IPv6, or IPv4 mapped into it; network byte order.
pub type Address = [u8; 16];

/// What an IPv4 address starts with when it is written as [`Address`].
pub const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The IPv4 address as [`Address`].
#[must_use]
#[inline(always)]
#[expect(clippy::inline_always, reason = "the kernel programs have no calls")]
pub const fn mapped(v4: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// Names of the maps, also of their pins.
pub mod map {
    pub const EPS: &str = "eps";
    pub const LIVE: &str = "live";
    pub const NODES: &str = "nodes";
    pub const CONFIG: &str = "config";
    pub const SLOW: &str = "slow";
    pub const GUESTS: &str = "guests";
    pub const COUNTERS: &str = "counters";
    pub const EVENTS: &str = "events";
}

/// Names of the programs, also of their pins.
pub mod program {
    pub const FROM_POD: &str = "from_pod";
    pub const FROM_NIC: &str = "from_nic";
}

/// Pods of this node (a node has 110 by default and 500 at most by Kubernetes' advice), each with some addresses.
pub const MAX_ENDPOINTS: u32 = 4096;
/// Pod CIDRs of other nodes: Kubernetes ends at 5,000 nodes, twice for dual stack.
pub const MAX_NODES: u32 = 16384;
/// Flows of this node's pods to what is no pod.
pub const MAX_SLOW: u32 = 65536;
/// Bytes of the ring buffer of events: 2,600 events.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Value of `eps` (HASH, key [`Address`]): a pod of this node.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The host end of the pod's veth. Must be in `live` too, or the endpoint is not used: `live` (DEVMAP_HASH, index →
    /// index) loses an entry when the kernel unregisters the device, even if nobody is there to remove the endpoint.
    pub ifindex: u32,
    pub mac: [u8; 6],
    /// The address that the pod sends to when it sends to its gateway: the bridge's.
    pub gateway_mac: [u8; 6],
}

/// Key of `nodes` (LPM_TRIE): a pod CIDR; IPv4 prefixes are 96 bits longer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// Host byte order, 0 to 128.
    pub prefix_len: u32,
    pub address: Address,
}

/// How a node's pods are reached.
pub mod mode {
    /// In vxlan. For IPv6 this also promises that the node accepts a UDP checksum of zero (`udp6zerocsumrx` or this
    /// datapath); flannel's own device does not, so such nodes must not be in the map.
    pub const VXLAN: u8 = 1;
    /// By the public address as next hop.
    pub const GATEWAY: u8 = 2;
}

/// Value of `nodes`: another node.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The public address, of the family of the pod CIDR: outer destination, and outer source of what comes from it.
    pub ip: Address,
    /// The neighbour that packets to `ip` go to: `ip` itself on one network, else the router.
    pub next_hop: Address,
    /// The uplink. Must be in `live`.
    pub ifindex: u32,
    /// The longest inner IP packet that fits, in bytes: the path's MTU, less 50 (IPv4) or 70 (IPv6) with vxlan.
    pub mtu: u16,
    /// One of [`mode`].
    pub mode: u8,
    pub reserved: u8,
    /// The node's tunnel device, with vxlan.
    pub vtep_mac: [u8; 6],
    pub reserved_end: [u8; 2],
}

/// What the programs do.
pub mod state {
    /// Nothing.
    pub const OFF: u32 = 0;
    /// Only record in `slow`, so that flows which started before are known when it is switched on.
    pub const OBSERVE: u32 = 1;
    pub const ON: u32 = 2;
}

/// The only value of `config` (ARRAY): this node.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Config {
    /// One of [`state`].
    pub state: u32,
    /// A bit for each [`Reason`] that is told in `events`.
    pub told: u32,
    pub vni: u32,
    /// Of vxlan, network byte order.
    pub port: [u8; 2],
    pub reserved: [u8; 2],
    /// Public addresses: outer source of what we send. All zero: the family is not used.
    pub ip4: Address,
    pub ip6: Address,
    /// Our pods' CIDRs as address and mask, IPv4 mapped (mask starting with 96 ones). All zero: not used.
    pub pods4: Range,
    pub pods6: Range,
    /// The cluster's networks, with the pods of all nodes; as above.
    pub cluster4: Range,
    pub cluster6: Range,
    /// Our tunnel devices' addresses, with vxlan.
    pub vtep4_mac: [u8; 6],
    pub vtep6_mac: [u8; 6],
    pub reserved_end: [u8; 4],
}

/// A CIDR as the programs compare it: `address & mask == network`.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    pub network: Address,
    pub mask: Address,
}

impl Range {
    /// An unused family's holds nothing.
    #[must_use]
    pub fn contains(&self, address: Address) -> bool {
        let mask = u128::from_be_bytes(self.mask);
        mask != 0 && u128::from_be_bytes(address) & mask == u128::from_be_bytes(self.network)
    }
}

/// Key of `slow` (LRU_HASH): the end of a flow that conntrack of this node may have translated, at a pod that opened it.
/// Packets to or from it stay with the kernel in both directions.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    pub address: Address,
    /// Network byte order.
    pub port: [u8; 2],
    pub protocol: u8,
    pub reserved: u8,
}

/// Value of `slow`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// CLOCK_MONOTONIC; 0: until it is evicted.
    pub expires_ns: u64,
}

/// The only value of `guests` (ARRAY): other than 0 once the end of another node's pod was put into `slow`. Where pods
/// are masqueraded on their way to nodes that never happens, and nobody looks.
pub type Guests = u32;

/// Which program counted.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    FromPod = 0,
    FromNic = 1,
}

pub const HOOKS: u32 = 2;

/// What became of a packet: why it took the fast path, the kernel's, or none.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    // Fast.
    /// To a pod of this node.
    Local = 0,
    /// To or from another node in vxlan.
    Vxlan = 1,
    /// To or from another node by route.
    Gateway = 2,
    // To the kernel, as a rule.
    /// Switched off.
    Off = 3,
    /// Neither IPv4 nor IPv6 (ARP), or in a VLAN.
    NotIp = 4,
    /// From no pod: an ordinary packet of the node.
    NotOurs = 5,
    /// Neither TCP, UDP nor ICMP echo.
    Protocol = 6,
    /// IPv4 options or IPv6 extension headers.
    Options = 7,
    Fragment = 8,
    /// TTL or hop limit too low to be forwarded.
    Ttl = 9,
    /// To multicast or broadcast.
    Multicast = 10,
    /// To what is no pod we know: outside, a Service, a host.
    UnknownPeer = 11,
    /// The flow's end is in `slow`.
    Slow = 12,
    /// Longer than the path's MTU.
    Mtu = 13,
    /// The device of the endpoint or the uplink is gone.
    Gone = 14,
    /// Neither to the peer's nor to the gateway's Ethernet address.
    NotToGateway = 15,
    /// The packet is in a tunnel already, or of a kind that cannot be put into one or taken out.
    Tunnel = 16,
    /// The network marked it as congested; the kernel moves the mark inwards.
    Congestion = 17,
    // To the kernel, and worth telling.
    /// Shorter than its headers say.
    Malformed = 18,
    /// The source is not the veth's pod.
    SpoofedPod = 19,
    /// The source is not in the CIDR of the node that sent it.
    SpoofedNode = 20,
    /// vxlan to our port with another VNI or unknown flags.
    Vni = 21,
    // Dropped.
    /// Rewriting failed half way.
    Dropped = 22,
}

pub const REASONS: u32 = 23;

impl Reason {
    pub const ALL: [Self; REASONS as usize] = [
        Self::Local,
        Self::Vxlan,
        Self::Gateway,
        Self::Off,
        Self::NotIp,
        Self::NotOurs,
        Self::Protocol,
        Self::Options,
        Self::Fragment,
        Self::Ttl,
        Self::Multicast,
        Self::UnknownPeer,
        Self::Slow,
        Self::Mtu,
        Self::Gone,
        Self::NotToGateway,
        Self::Tunnel,
        Self::Congestion,
        Self::Malformed,
        Self::SpoofedPod,
        Self::SpoofedNode,
        Self::Vni,
        Self::Dropped,
    ];

    /// As metrics and `corten-netd drops` name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Vxlan => "vxlan",
            Self::Gateway => "gateway",
            Self::Off => "off",
            Self::NotIp => "not-ip",
            Self::NotOurs => "not-ours",
            Self::Protocol => "protocol",
            Self::Options => "options",
            Self::Fragment => "fragment",
            Self::Ttl => "ttl",
            Self::Multicast => "multicast",
            Self::UnknownPeer => "unknown-peer",
            Self::Slow => "translated",
            Self::Mtu => "mtu",
            Self::Gone => "device-gone",
            Self::NotToGateway => "not-to-gateway",
            Self::Tunnel => "tunnel",
            Self::Congestion => "congestion",
            Self::Malformed => "malformed",
            Self::SpoofedPod => "spoofed-pod",
            Self::SpoofedNode => "spoofed-node",
            Self::Vni => "vni",
            Self::Dropped => "dropped",
        }
    }

    #[must_use]
    pub const fn is_fast(self) -> bool {
        matches!(self, Self::Local | Self::Vxlan | Self::Gateway)
    }

    /// The bit in [`Config::told`].
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// [`Config::told`] for everyday: what is dropped, and what looks like an attack or a misconfiguration.
pub const TOLD: u32 = Reason::Mtu.bit()
    | Reason::Malformed.bit()
    | Reason::SpoofedPod.bit()
    | Reason::SpoofedNode.bit()
    | Reason::Vni.bit()
    | Reason::Dropped.bit();

/// An event of a reason is told at most this often, per CPU and hook.
pub const EVENT_INTERVAL_NS: u64 = 100_000_000;

/// Index in `counters` (PERCPU_ARRAY of [`Count`]).
#[must_use]
#[inline(always)]
#[expect(clippy::inline_always, reason = "the kernel programs have no calls")]
pub const fn counter(hook: Hook, reason: Reason) -> u32 {
    hook as u32 * REASONS + reason as u32
}

/// Value of `counters`, one per CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub packets: u64,
    /// When the last event of this reason was told.
    pub told_ns: u64,
}

/// A record of `events`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The interface that the packet came in by.
    pub ifindex: u32,
    /// Of the whole frame, bytes.
    pub len: u32,
    /// Of the innermost IP header that was read; all zero if none was.
    pub source: Address,
    pub destination: Address,
    /// Network byte order, 0 where there is none.
    pub source_port: [u8; 2],
    pub destination_port: [u8; 2],
    /// Of the IP header; 0 if none was read.
    pub protocol: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// A [`Reason`].
    pub reason: u8,
    pub reserved: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_no_hidden_padding() {
        assert_eq!(size_of::<Endpoint>(), 4 + 6 + 6);
        assert_eq!(size_of::<Cidr>(), 4 + 16);
        assert_eq!(size_of::<Node>(), 16 + 16 + 4 + 2 + 1 + 1 + 6 + 2);
        assert_eq!(size_of::<Config>(), 3 * 4 + 2 + 2 + 16 + 16 + 4 * 32 + 6 + 6 + 4);
        assert_eq!(size_of::<Source>(), 16 + 2 + 1 + 1);
        assert_eq!(size_of::<Count>(), 16);
        assert_eq!(size_of::<Event>(), 8 + 4 + 4 + 16 + 16 + 2 + 2 + 4);
    }

    #[test]
    fn reasons_are_numbered_as_they_are_listed_and_have_different_names() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count() == 1);
        }
    }
}
