//! The addresses of a cluster: the same in each, since no two clusters see each other.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The pod network of the whole cluster: room for a thousand nodes.
pub const CLUSTER_V4: &str = "10.244.0.0/14";
pub const CLUSTER_V6: &str = "fd00:244::/48";

/// The host outside, the nodes' default gateway.
pub const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 168, 77, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0xfe)),
];

/// Where the node with this index (from 1) is reached on the wire.
pub fn node_address(index: usize, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 168, 77 + (index >> 8) as u8, index as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, index as u16).into(),
    }
}

/// First address (without host bits) and length of the node's pod CIDR.
pub fn pod_cidr(index: usize, family: Family) -> (IpAddr, u8) {
    match family {
        Family::V4 => (Ipv4Addr::new(10, 244 + (index >> 8) as u8, index as u8, 0).into(), 24),
        Family::V6 => (Ipv6Addr::new(0xfd00, 0x244, 0, index as u16, 0, 0, 0, 0).into(), 64),
    }
}

/// `10.244.1.0/24`
pub fn pod_cidr_text(index: usize, family: Family) -> String {
    let (address, length) = pod_cidr(index, family);
    format!("{address}/{length}")
}

/// The bridge's address in the node's pod CIDR, as the bridge plugin computes it.
pub fn gateway(index: usize, family: Family) -> IpAddr {
    match pod_cidr(index, family).0 {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + 1).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + 1).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_nodes_have_addresses_of_their_own() {
        for family in Family::BOTH {
            let all: std::collections::BTreeSet<_> = (1..=1000)
                .flat_map(|index| [node_address(index, family), pod_cidr(index, family).0])
                .collect();
            assert_eq!(all.len(), 2000);
        }
        assert_eq!(pod_cidr_text(1000, Family::V4), "10.247.232.0/24");
        assert_eq!(gateway(2, Family::V6).to_string(), "fd00:244:0:2::1");
    }
}
