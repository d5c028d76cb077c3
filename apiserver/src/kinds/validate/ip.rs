//! Addresses and networks. Source: apimachinery `pkg/util/validation/ip.go`, `k8s.io/utils/net`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{At, Causes};

/// An address as Go reads it in old fields: leading zeros are allowed, and IPv4 within IPv6 is IPv4.
pub fn parse_loose(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(match address {
            IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        });
    }
    let mut bytes = [0; 4];
    let mut parts = text.split('.');
    for byte in &mut bytes {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *byte = part
            .trim_start_matches('0')
            .parse()
            .or_else(|_| if part.bytes().all(|b| b == b'0') { Ok(0) } else { Err(()) })
            .ok()?;
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(bytes)))
}

/// A network: its address as written and its length in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub bits: u8,
}

impl Network {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let six = address.contains(':');
        let address = parse_loose(address)?;
        if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let bits: u8 = bits.parse().ok()?;
        let most = if six { 128 } else { 32 };
        let bits = if six && address.is_ipv4() { bits.checked_sub(96)? } else { bits };
        (bits <= most).then_some(Self { address, bits })
    }

    pub fn first(self) -> IpAddr {
        match self.address {
            IpAddr::V4(four) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                Ipv4Addr::from(u32::from(four) & mask).into()
            }
            IpAddr::V6(six) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                Ipv6Addr::from(u128::from(six) & mask).into()
            }
        }
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self { address, bits: self.bits }.first() == self.first()
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first(), self.bits)
    }
}

/// An address in a field that always was loose; what it was before stays allowed.
pub fn address(at: &At<'_>, out: &mut Causes) {
    if parse_loose(at.text()).is_none() {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        at.invalid_value(&at.text().into(), detail, out);
        return;
    }
    if at.text().parse::<IpAddr>().is_err() {
        at.invalid("must not have leading 0s", out);
    }
    if is_mapped(at.text()) {
        at.invalid("must not be an IPv4-mapped IPv6 address", out);
    }
}

fn is_mapped(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|six| six.to_ipv4_mapped().is_some())
}

/// A network, as loose.
pub fn network(at: &At<'_>, out: &mut Causes) {
    network_text(at.text(), at, out);
}

pub fn network_text(text: &str, at: &At<'_>, out: &mut Causes) {
    let shown = text.into();
    let Some(network) = Network::parse(text) else {
        let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        return at.invalid_value(&shown, detail, out);
    };
    let (address, bits) = text.split_once('/').unwrap_or_default();
    if address.parse::<IpAddr>().is_err() || bits.len() > 1 && bits.starts_with('0') {
        at.invalid_value(&shown, "must not have leading 0s in IP or prefix length", out);
    } else if is_mapped(address) {
        at.invalid_value(&shown, "must not have an IPv4-mapped IPv6 address", out);
    } else if network.first() != network.address {
        at.invalid_value(&shown, "must not have bits set beyond the prefix length", out);
    }
}

/// What an endpoint may not be.
pub fn endpoint(at: &At<'_>, out: &mut Causes) {
    let Some(address) = parse_loose(at.text()) else {
        return at.invalid("must be a valid IP address", out);
    };
    let (link_local, multicast) = match address {
        IpAddr::V4(four) => (four.is_link_local(), four.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(six) => (six.segments()[0] & 0xffc0 == 0xfe80, six.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        at.invalid(format_args!("may not be unspecified ({})", at.text()), out);
    }
    if address.is_loopback() {
        at.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)", out);
    }
    if link_local {
        at.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)", out);
    }
    if multicast {
        at.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)", out);
    }
}

/// One of each family.
pub fn is_dual_stack(addresses: &[&str]) -> bool {
    let six = |text: &&str| parse_loose(text).is_some_and(|address| address.is_ipv6());
    addresses.iter().any(six) && addresses.iter().any(|text| !six(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks_are_read_as_go_reads_them() {
        assert_eq!(parse_loose("010.0.0.1"), Some(Ipv4Addr::new(10, 0, 0, 1).into()));
        assert_eq!(parse_loose("::ffff:1.2.3.4"), Some(Ipv4Addr::new(1, 2, 3, 4).into()));
        assert_eq!(parse_loose("1.2.3"), None);
        assert_eq!(parse_loose("1.2.3.256"), None);
        let network = Network::parse("10.9.8.7/24").expect("a network");
        assert_eq!(network.to_string(), "10.9.8.0/24");
        assert!(network.contains(Ipv4Addr::new(10, 9, 8, 255).into()));
        assert!(!network.contains(Ipv4Addr::new(10, 9, 9, 0).into()));
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert!(Network::parse("::/0").is_some_and(|all| all.contains(Ipv6Addr::LOCALHOST.into())));
    }
}
