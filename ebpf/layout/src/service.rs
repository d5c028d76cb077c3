//! Maps of the cgroup programs: services, backends, affinity, reverse translation.
//!
//! ```text
//! FRONTENDS {address, port, protocol} → index ──> SERVICES[index] {choice: {set, count}, affinity}
//!                                                       │ set, slot < count
//!                                                       v
//!                                                 BACKENDS {set, slot} → {address, port}
//! ```
//! A set of backends never changes once a service names it: another list is another set, written whole before the one
//! word [`Service::choice`] is stored, and the old set is removed only afterwards. So a program sees the old list or
//! the new one; if the old set vanished between its two reads it reads the word again.
//!
//! Several frontends share a service when they have the same backends (a ClusterIP of one family, its node port,
//! external addresses); those whose policy chooses other backends name another service.
#![expect(
    clippy::inline_always,
    reason = "a call of a BPF program costs registers and stack that it has few of"
)]

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Largest number of services ([`Service`] is 16 bytes, and the array is allocated whole).
pub const MAX_SERVICES: u32 = 65_536;
pub const MAX_FRONTENDS: u32 = 131_072;
pub const MAX_BACKENDS: u32 = 524_288;
pub const MAX_NODE_ADDRESSES: u32 = 1_024;
/// Clients remembered for session affinity, all services together.
pub const MAX_AFFINITIES: u32 = 32_768;
/// Connected sockets, TCP and UDP apart: so a burst of TCP connections cannot push out what tells stale UDP sockets.
pub const MAX_REVERSE: u32 = 32_768;
/// UDP sockets that send without being connected, a service each.
pub const MAX_FLOWS: u32 = 16_384;

pub const TCP: u32 = 6;
pub const UDP: u32 = 17;

/// An IPv6 address, or an IPv4 address mapped into IPv6 (`::ffff:a.b.c.d`), as four words in network order.
///
/// An AF_INET6 socket may talk IPv4 by mapped addresses, so one form for both families finds the same entries from
/// either kind of socket. Aligned to eight bytes, as everything here is: programs copy it by whole words, and the verifier
/// refuses a store to the stack that is not aligned.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub [u32; 4]);

impl Address {
    pub const MAPPED: u32 = 0xffff_u32.to_be();

    /// `word`: the address in network order, as `struct in_addr` has it.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self([0, 0, Self::MAPPED, word])
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == Self::MAPPED
    }

    /// `0.0.0.0` or `::`: to connect there means to connect to oneself, and as a frontend's address it is the node
    /// port's wildcard.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.0[3] == 0 && (self.is_v4() || (self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0))
    }

    /// 127.0.0.0/8 or `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return u32::from_be(self.0[3]) >> 24 == 127;
        }
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1_u32.to_be()
    }

    /// The node port's wildcard of this address's family.
    #[inline(always)]
    #[must_use]
    pub const fn wildcard(&self) -> Self {
        if self.is_v4() { Self::v4(0) } else { Self([0; 4]) }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let (words, _) = octets.as_chunks::<4>();
        Self([0, 1, 2, 3].map(|i| u32::from_ne_bytes(words[i])))
    }
}

impl From<Address> for IpAddr {
    /// A mapped address comes back as IPv4.
    fn from(address: Address) -> Self {
        let [a, b, c, d] = address.0.map(|word| u128::from(u32::from_be(word)));
        Ipv6Addr::from_bits(a << 96 | b << 64 | c << 32 | d).to_canonical()
    }
}

/// Where something listens. The protocol is known from the map or from the entry's owner.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Endpoint {
    pub address: Address,
    /// Network order, zero-extended: as `struct bpf_sock_addr` has it.
    pub port: u32,
    pub zero: u32,
}

impl Endpoint {
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u32) -> Self {
        Self { address, port, zero: 0 }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip().into(), u32::from(address.port().to_be()))
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.address.into(), u16::from_be(endpoint.port as u16))
    }
}

/// Key of `FRONTENDS` (HASH); the value is the index of the [`Service`].
///
/// A node port has one frontend a family, with the family's unspecified address. It is looked up when the exact
/// address has none and the address is the node's own: one of `NODE_ADDRESSES`, or loopback or unspecified for a
/// socket of the node's network namespace.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Frontend {
    pub address: Address,
    /// Network order, zero-extended.
    pub port: u32,
    /// [`TCP`] or [`UDP`].
    pub protocol: u32,
}

impl Frontend {
    #[must_use]
    pub fn new(address: SocketAddr, protocol: u32) -> Self {
        Self { address: address.ip().into(), port: u32::from(address.port().to_be()), protocol }
    }
}

/// Value of `SERVICES` (ARRAY, mapped into user space): each of the two words is stored at once.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Service {
    /// A [`Choice`].
    pub choice: u64,
    /// Session affinity by client for so long after its last connection, in nanoseconds; 0: none.
    pub affinity_ns: u64,
}

/// What a service chooses from. A set without backends refuses connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice {
    pub set: u32,
    pub count: u32,
}

impl From<u64> for Choice {
    #[inline(always)]
    fn from(word: u64) -> Self {
        Self { set: (word >> 32) as u32, count: word as u32 }
    }
}

impl From<Choice> for u64 {
    #[inline(always)]
    fn from(choice: Choice) -> Self {
        u64::from(choice.set) << 32 | u64::from(choice.count)
    }
}

/// Key of `BACKENDS` (HASH).
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot {
    pub set: u32,
    /// From 0 to the set's count.
    pub slot: u32,
}

/// Value of `BACKENDS`, and key of `MEMBERS` (HASH, to its slot), which tells whether a remembered backend is still
/// in a set.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Member {
    pub address: Address,
    /// Network order, zero-extended.
    pub port: u32,
    /// The set once more: the kernel may use the memory of a removed element for another while a program still reads.
    pub set: u32,
}

impl Member {
    #[inline(always)]
    #[must_use]
    pub const fn new(endpoint: &Endpoint, set: u32) -> Self {
        Self { address: endpoint.address, port: endpoint.port, set }
    }

    #[inline(always)]
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.address, self.port)
    }
}

/// Key of `AFFINITY` (LRU_HASH).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Client {
    /// Cookie of the client's network namespace: a pod, or the node.
    pub netns: u64,
    /// Index of the service.
    pub service: u32,
    pub zero: u32,
}

/// Value of `AFFINITY`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Affinity {
    /// When the client last connected, CLOCK_MONOTONIC.
    pub last_ns: u64,
    pub backend: Endpoint,
}

/// Key of `FLOWS` (LRU_HASH): a UDP socket that sends to a service without being connected. The value is the backend
/// it stays with as long as the service has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flow {
    pub cookie: u64,
    pub destination: Endpoint,
}

/// Key of `REVERSE_TCP` and `REVERSE_UDP` (LRU_HASH): what a translated socket really talks to.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Reverse {
    /// Of the socket, as `SO_COOKIE` and sock_diag show it.
    pub cookie: u64,
    pub backend: Endpoint,
}

/// Value of `REVERSE_TCP` and `REVERSE_UDP`: what the program asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Original {
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    pub destination: Endpoint,
    /// Not 0: by connect(2), so the socket sends to this backend until it is connected anew.
    pub connected: u32,
    pub zero: u32,
}

/// Value of `SOCKET_CONFIG` (ARRAY of one, mapped into user space).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SocketConfig {
    /// The on/off switch. Off: nothing is translated anew; answers to what was go on being translated back.
    pub enabled: u64,
    /// Cookie of the network namespace whose sockets reach node ports by loopback: the node's. 0: the initial one
    /// (before Linux 5.14 user space cannot ask).
    pub node_netns: u64,
}

/// Index into `SOCKET_COUNTERS` (PERCPU_ARRAY of u64).
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// connect(2) sent to a backend.
    Connected,
    /// A datagram of an unconnected socket sent to a backend.
    Sent,
    /// A datagram's source, or a peer's name, shown as the service.
    Reversed,
    /// The service has no backends.
    Refused,
    /// A backend chosen because the client had it before.
    Affine,
    /// The set changed between two reads more often than a program tries.
    Torn,
    /// No room for what reverse translation needs: refused (ENOMEM).
    Full,
}

impl Counter {
    pub const ALL: [Self; 7] =
        [Self::Connected, Self::Sent, Self::Reversed, Self::Refused, Self::Affine, Self::Torn, Self::Full];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Sent => "sent",
            Self::Reversed => "reversed",
            Self::Refused => "refused",
            Self::Affine => "affine",
            Self::Torn => "torn",
            Self::Full => "full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn sizes_have_no_hidden_padding() {
        assert_eq!(size_of::<Endpoint>(), 16 + 4 + 4);
        assert_eq!(size_of::<Frontend>(), 16 + 4 + 4);
        assert_eq!(size_of::<Service>(), 8 + 8);
        assert_eq!(size_of::<Slot>(), 4 + 4);
        assert_eq!(size_of::<Member>(), 16 + 4 + 4);
        assert_eq!(size_of::<Client>(), 8 + 4 + 4);
        assert_eq!(size_of::<Affinity>(), 8 + 24);
        assert_eq!(size_of::<Flow>(), 8 + 24);
        assert_eq!(size_of::<Reverse>(), 8 + 24);
        assert_eq!(size_of::<Original>(), 8 + 24 + 4 + 4);
        assert_eq!(size_of::<SocketConfig>(), 8 + 8);
    }

    #[test]
    fn addresses_of_both_families_come_back() {
        for text in ["10.96.0.1", "0.0.0.0", "2001:db8::1", "::", "::1", "fd00:1:2:3:4:5:6:7"] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(IpAddr::from(Address::from(ip)), ip);
        }
        assert_eq!(address("10.96.0.1"), Address::v4(u32::from_ne_bytes([10, 96, 0, 1])));
        assert_eq!(address("::ffff:10.96.0.1"), address("10.96.0.1"));
    }

    #[test]
    fn loopback_wildcard_and_unspecified() {
        for (text, loopback, unspecified, v4) in [
            ("127.0.0.1", true, false, true),
            ("127.9.9.9", true, false, true),
            ("128.0.0.1", false, false, true),
            ("0.0.0.0", false, true, true),
            ("::1", true, false, false),
            ("::", false, true, false),
            ("::7f00:1", false, false, false),
            ("2001:db8::", false, false, false),
        ] {
            let address = address(text);
            assert_eq!(address.is_loopback(), loopback, "{text}");
            assert_eq!(address.is_unspecified(), unspecified, "{text}");
            assert_eq!(address.is_v4(), v4, "{text}");
            assert!(address.wildcard().is_unspecified() && address.wildcard().is_v4() == v4, "{text}");
        }
    }

    #[test]
    fn a_choice_is_one_word() {
        let choice = Choice { set: 7, count: u32::MAX };
        assert_eq!(Choice::from(u64::from(choice)), choice);
        assert_eq!(Choice::from(0), Choice::default());
    }

    #[test]
    fn counters_are_numbered_in_order() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index);
        }
    }
}
