//! Ranges of addresses: what the configuration means, and its checks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use corten_netlink::Cidr;
use serde::Deserialize;

use crate::types::IpConfig;

/// A range as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RawRange {
    pub subnet: String,
    #[serde(rename = "rangeStart")]
    pub start: Option<IpAddr>,
    #[serde(rename = "rangeEnd")]
    pub end: Option<IpAddr>,
    pub gateway: Option<IpAddr>,
}

/// A range with its defaults; `start` and `end` are inclusive and in the subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub subnet: Cidr,
    pub start: IpAddr,
    pub end: IpAddr,
    pub gateway: IpAddr,
}

/// Ranges of one family; an attachment gets one address of each set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl Range {
    pub fn new(raw: &RawRange) -> Result<Self, String> {
        let subnet: Cidr = raw.subnet.parse().map_err(|e| format!("subnet {e}"))?;
        if subnet.prefix() > subnet.width() - 2 {
            return Err(format!("network {subnet} too small to allocate from"));
        }
        let network = subnet.network().address();
        if subnet.address() != network {
            let prefix = subnet.prefix();
            return Err(format!(
                "network {subnet} has host bits set. For a subnet mask of length {prefix} the network address is {network}"
            ));
        }
        let first = next(network);
        let last = if subnet.is_ipv4() { from_bits(true, bits(subnet.last()) - 1) } else { subnet.last() };
        let inside = |name: &str, ip: Option<IpAddr>, default: IpAddr| match ip.map(|ip| ip.to_canonical()) {
            Some(ip) if !subnet.contains(ip) => Err(format!("{name} {ip} not in network {subnet}")),
            Some(ip) => Ok(ip),
            None => Ok(default),
        };
        let start = inside("rangeStart", raw.start, first)?;
        let end = inside("rangeEnd", raw.end, last)?;
        if bits(start) > bits(end) {
            return Err(format!("rangeStart {start} is after rangeEnd {end}"));
        }
        Ok(Self { subnet, start, end, gateway: raw.gateway.map_or(first, |ip| ip.to_canonical()) })
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.subnet.contains(ip) && (bits(self.start)..=bits(self.end)).contains(&bits(ip))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start.is_ipv4() == other.start.is_ipv4()
            && bits(self.start) <= bits(other.end)
            && bits(other.start) <= bits(self.end)
    }

    pub fn ip_config(&self, ip: IpAddr) -> IpConfig {
        let address = Cidr::new(ip, self.subnet.prefix()).expect("of the subnet's family");
        IpConfig { address, gateway: Some(self.gateway), interface: None }
    }
}

impl RangeSet {
    pub fn new(raw: &[RawRange]) -> Result<Self, String> {
        let ranges = raw.iter().map(Range::new).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = ranges.first() else { return Err("empty range set".into()) };
        if ranges.iter().any(|r| r.subnet.is_ipv4() != first.subnet.is_ipv4()) {
            return Err("mixed address families".into());
        }
        for (index, a) in ranges.iter().enumerate() {
            if let Some(b) = ranges[index + 1..].iter().find(|b| a.overlaps(b)) {
                return Err(format!("subnets {}-{} and {}-{} overlap", a.start, a.end, b.start, b.end));
            }
        }
        Ok(Self(ranges))
    }

    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    pub fn is_ipv4(&self) -> bool {
        self.0[0].subnet.is_ipv4()
    }

    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.range_of(ip).is_some()
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| a.overlaps(b)))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(|r| format!("{}-{}", r.start, r.end)).collect();
        f.write_str(&ranges.join(","))
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn from_bits(ipv4: bool, bits: u128) -> IpAddr {
    if ipv4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

/// The address after this one; the last address of all is followed by the first.
pub fn next(ip: IpAddr) -> IpAddr {
    from_bits(ip.is_ipv4(), bits(ip).wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(subnet: &str, start: &str, end: &str) -> RawRange {
        RawRange { subnet: subnet.into(), start: start.parse().ok(), end: end.parse().ok(), gateway: None }
    }

    #[test]
    fn defaults_leave_out_network_and_broadcast() {
        let range = Range::new(&raw("10.1.2.0/24", "", "")).expect("a range");
        assert_eq!(
            (range.start.to_string(), range.end.to_string()),
            ("10.1.2.1".into(), "10.1.2.254".into())
        );
        assert_eq!(range.gateway.to_string(), "10.1.2.1");
        let range = Range::new(&raw("fd00::/64", "", "")).expect("a range");
        assert_eq!(range.end.to_string(), "fd00::ffff:ffff:ffff:ffff");
    }

    #[test]
    fn bad_ranges_are_refused_by_their_value() {
        for (range, wanted) in [
            (raw("10.1.2.0/31", "", ""), "too small"),
            (raw("10.1.2.5/24", "", ""), "network address is 10.1.2.0"),
            (raw("10.1.2.0", "", ""), "10.1.2.0"),
            (raw("10.1.2.0/24", "10.1.3.1", ""), "rangeStart 10.1.3.1 not in network"),
            (raw("10.1.2.0/24", "", "10.1.3.1"), "rangeEnd 10.1.3.1 not in network"),
            (raw("10.1.2.0/24", "10.1.2.9", "10.1.2.8"), "after rangeEnd"),
            (raw("10.1.2.0/24", "fd00::1", ""), "not in network"),
        ] {
            let error = Range::new(&range).expect_err(wanted);
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn sets_are_of_one_family_and_do_not_overlap() {
        let set = |ranges: &[(&str, &str, &str)]| {
            RangeSet::new(&ranges.iter().map(|(a, b, c)| raw(a, b, c)).collect::<Vec<_>>())
        };
        assert!(set(&[]).is_err());
        assert!(set(&[("10.1.2.0/24", "", ""), ("fd00::/64", "", "")]).is_err());
        assert!(set(&[("10.1.2.0/24", "", ""), ("10.1.0.0/16", "", "")]).is_err());
        let split = [("10.1.2.0/24", "10.1.2.1", "10.1.2.9"), ("10.1.2.0/24", "10.1.2.20", "10.1.2.29")];
        assert_eq!(set(&split).expect("disjoint").to_string(), "10.1.2.1-10.1.2.9,10.1.2.20-10.1.2.29");
    }
}
