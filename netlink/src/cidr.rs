//! An address with its prefix length; the address may have host bits (`10.1.2.3/24`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address with a prefix length such as 10.1.2.3/24 or fd00::1/64")]
pub struct CidrError {
    text: String,
}

impl Cidr {
    /// `None` when the prefix is longer than the address. An IPv4-mapped IPv6 address becomes IPv4.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        (prefix <= width(address)).then_some(Self { address, prefix })
    }

    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: width(address) }
    }

    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    pub fn width(self) -> u8 {
        width(self.address)
    }

    /// The same prefix with all host bits zero.
    #[must_use]
    pub fn network(self) -> Self {
        Self { address: self.with_host_bits(0), prefix: self.prefix }
    }

    /// The address with all host bits one: IPv4's broadcast address.
    pub fn last(self) -> IpAddr {
        self.with_host_bits(u128::MAX)
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4()
            && Self { address, prefix: self.prefix }.network().address == self.network().address
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The bytes of the netmask, as long as the address.
    pub fn mask_bytes(self) -> Vec<u8> {
        let mask = !self.host_mask();
        match self.address {
            IpAddr::V4(_) => (mask as u32).to_be_bytes().to_vec(),
            IpAddr::V6(_) => mask.to_be_bytes().to_vec(),
        }
    }

    fn host_mask(self) -> u128 {
        let host_bits = u32::from(self.width() - self.prefix);
        if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 }
    }

    fn with_host_bits(self, bits: u128) -> IpAddr {
        let mask = self.host_mask();
        match self.address {
            IpAddr::V4(a) => {
                IpAddr::V4(Ipv4Addr::from_bits((a.to_bits() & !(mask as u32)) | (bits & mask) as u32))
            }
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits((a.to_bits() & !mask) | (bits & mask))),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let plain = prefix.bytes().all(|b| b.is_ascii_digit());
            Self::new(address.parse().ok()?, plain.then(|| prefix.parse().ok()).flatten()?)
        };
        parse().ok_or_else(|| CidrError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("a cidr")
    }

    #[test]
    fn networks_and_last_addresses() {
        for (text, network, last) in [
            ("10.1.2.3/24", "10.1.2.0/24", "10.1.2.255"),
            ("10.1.2.3/32", "10.1.2.3/32", "10.1.2.3"),
            ("10.1.2.3/0", "0.0.0.0/0", "255.255.255.255"),
            ("fd00::9/64", "fd00::/64", "fd00::ffff:ffff:ffff:ffff"),
            ("fd00::9/0", "::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(cidr(text).network().to_string(), network);
            assert_eq!(cidr(text).last().to_string(), last);
        }
    }

    #[test]
    fn what_is_no_cidr_is_refused_with_the_text() {
        for bad in ["", "10.1.2.3", "10.1.2.3/33", "10.1.2.3/+8", "fd00::/129", "10.1.2/24", "/24", "a/b"] {
            let error = Cidr::from_str(bad).expect_err(bad);
            assert!(error.to_string().contains(bad));
        }
    }

    #[test]
    fn containment_and_overlap_respect_the_family() {
        assert!(cidr("10.0.0.0/8").contains("10.9.8.7".parse().unwrap()));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.3.0.0/16")));
        assert!(cidr("10.3.0.0/16").overlaps(cidr("10.0.0.0/8")));
        assert!(!cidr("10.3.0.0/16").overlaps(cidr("10.4.0.0/16")));
    }

    #[test]
    fn masks() {
        assert_eq!(cidr("10.0.0.0/12").mask_bytes(), [0xff, 0xf0, 0, 0]);
        assert_eq!(cidr("ff00::/8").mask_bytes()[..2], [0xff, 0]);
        assert_eq!(cidr("::/0").mask_bytes(), [0; 16]);
    }
}
