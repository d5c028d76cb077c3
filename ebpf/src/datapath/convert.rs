//! Addresses as the kernel programs have them, and as everybody else does. Pure.

use std::net::{IpAddr, Ipv6Addr};

use corten_ebpf_layout::datapath::{Address, Range, mapped};

/// An address as key.
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A key as address.
pub fn ip(address: Address) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}

/// A CIDR; its address has no host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    pub ip: IpAddr,
    pub len: u8,
}

impl Prefix {
    /// Length of the same prefix as the maps have it.
    pub(crate) fn mapped_len(self) -> u32 {
        u32::from(self.len) + if self.ip.is_ipv4() { 96 } else { 0 }
    }

    pub(crate) fn from_mapped(address: Address, len: u32) -> Self {
        let ip = ip(address);
        let len = if ip.is_ipv4() { len.saturating_sub(96) } else { len };
        Self { ip, len: len as u8 }
    }
}

/// A CIDR as the programs compare it, for [`Config`](super::Config).
pub fn range(prefix: Prefix) -> Range {
    let mask = u128::MAX.checked_shl(128 - prefix.mapped_len().min(128)).unwrap_or(0);
    let network = u128::from_be_bytes(address(prefix.ip)) & mask;
    Range { network: network.to_be_bytes(), mask: mask.to_be_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_prefixes_survive_the_maps() {
        for (text, len, mapped) in [("10.244.1.0", 24, 120), ("fd00:1::", 64, 64), ("0.0.0.0", 0, 96)] {
            let prefix = Prefix { ip: text.parse().unwrap(), len };
            assert_eq!(prefix.mapped_len(), mapped);
            assert_eq!(Prefix::from_mapped(address(prefix.ip), mapped), prefix);
        }
    }

    #[test]
    fn a_range_has_a_full_mask_over_the_mapped_part() {
        let range = range(Prefix { ip: "10.244.1.7".parse().unwrap(), len: 24 });
        assert_eq!(range.network, mapped([10, 244, 1, 0]));
        assert_eq!(range.mask[12..], [255, 255, 255, 0]);
        assert_eq!(range.mask[..12], [255; 12]);
    }
}
