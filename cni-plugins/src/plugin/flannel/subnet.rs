//! subnet.env: what the flannel daemon says of this node's subnet.
//!
//! One `read` of one open file: the daemon replaces the file by rename, so it is the old one or the new one, whole.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use corten_netlink::Cidr;

use crate::error::{Code, Error};

/// Hundreds of networks would fit.
const LIMIT_BYTES: u64 = 64 * 1024;

/// Networks and subnets without host bits; each network once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// IPv4 first, each family in the file's order.
    pub networks: Vec<Cidr>,
    /// At most one of each family, IPv4 first.
    pub subnets: Vec<Cidr>,
    pub mtu: u32,
    /// The daemon masquerades, so the delegate does not.
    pub ip_masq: bool,
}

/// Why there is no subnet: all of it passes when the daemon has written the file.
#[derive(Debug, PartialEq, Eq)]
pub enum SubnetError {
    Unreadable { path: PathBuf, why: String },
    Missing { path: PathBuf, keys: Vec<&'static str> },
    Invalid { path: PathBuf, key: &'static str, value: String },
}

const NETWORK: &str = "FLANNEL_NETWORK";
const SUBNET: &str = "FLANNEL_SUBNET";
const IPV6_NETWORK: &str = "FLANNEL_IPV6_NETWORK";
const IPV6_SUBNET: &str = "FLANNEL_IPV6_SUBNET";
const MTU: &str = "FLANNEL_MTU";
const IPMASQ: &str = "FLANNEL_IPMASQ";

impl Subnet {
    pub fn read(path: &Path) -> Result<Self, SubnetError> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LIMIT_BYTES).read_to_string(&mut text));
        read.map_err(|e| SubnetError::Unreadable { path: path.to_owned(), why: e.to_string() })?;
        Self::parse(path, &text)
    }

    /// `path`: for errors.
    fn parse(path: &Path, text: &str) -> Result<Self, SubnetError> {
        let value = |key: &str| {
            // The last one counts, as in a shell.
            let mut lines = text.lines().rev().filter_map(|line| line.trim().split_once('='));
            lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim()).filter(|v| !v.is_empty())
        };
        let invalid =
            |key, value: &str| SubnetError::Invalid { path: path.to_owned(), key, value: value.to_owned() };
        let cidrs = |key, ipv4: bool| -> Result<Vec<Cidr>, SubnetError> {
            let mut all = Vec::new();
            for text in value(key).into_iter().flat_map(|list| list.split(',')) {
                let cidr: Option<Cidr> = text.trim().parse().ok();
                let cidr = cidr.filter(|c| c.is_ipv4() == ipv4).ok_or_else(|| invalid(key, text))?.network();
                if !all.contains(&cidr) {
                    all.push(cidr);
                }
            }
            Ok(all)
        };
        let one = |key, ipv4| match cidrs(key, ipv4)?.as_slice() {
            [] => Ok(None),
            [cidr] => Ok(Some(*cidr)),
            _ => Err(invalid(key, value(key).unwrap_or_default())),
        };
        let networks = [cidrs(NETWORK, true)?, cidrs(IPV6_NETWORK, false)?].concat();
        let subnets: Vec<Cidr> =
            [one(SUBNET, true)?, one(IPV6_SUBNET, false)?].into_iter().flatten().collect();
        let mtu = value(MTU).map(|text| text.parse().map_err(|_| invalid(MTU, text))).transpose()?;
        let ip_masq = value(IPMASQ).map(|text| text == "true");
        let mut keys = Vec::new();
        if networks.is_empty() {
            keys.extend([NETWORK, IPV6_NETWORK]);
        }
        if subnets.is_empty() {
            keys.extend([SUBNET, IPV6_SUBNET]);
        }
        match (mtu, ip_masq) {
            (Some(mtu), Some(ip_masq)) if keys.is_empty() => Ok(Self { networks, subnets, mtu, ip_masq }),
            _ => {
                keys.extend(mtu.is_none().then_some(MTU));
                keys.extend(ip_masq.is_none().then_some(IPMASQ));
                Err(SubnetError::Missing { path: path.to_owned(), keys })
            }
        }
    }
}

impl SubnetError {
    /// `code`: ADD is tried again later; STATUS says that the network is not available.
    pub fn into_error(self, code: Code) -> Error {
        Error::new(code, self.to_string())
            .details("is the flannel daemon of this node running (corten-netd)?")
    }
}

impl fmt::Display for SubnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => write!(f, "read {}: {why}", path.display()),
            Self::Missing { path, keys } => write!(f, "{} is missing {}", path.display(), keys.join(", ")),
            Self::Invalid { path, key, value } => {
                write!(f, "{}: {key} has an invalid value {value:?}", path.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Subnet, SubnetError> {
        Subnet::parse(Path::new("subnet.env"), text)
    }

    fn cidrs(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|t| t.parse().expect("a cidr")).collect()
    }

    #[test]
    fn both_families_and_lists_of_networks() {
        let text = "FLANNEL_NETWORK=10.1.0.0/16,10.2.0.0/16,10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n\
                    FLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\n\
                    FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let subnet = parse(text).expect("whole");
        assert_eq!(subnet.networks, cidrs(&["10.1.0.0/16", "10.2.0.0/16", "fd00::/48"]));
        assert_eq!(subnet.subnets, cidrs(&["10.1.17.0/24", "fd00:0:0:1::/64"]));
        assert_eq!((subnet.mtu, subnet.ip_masq), (1450, true));
    }

    #[test]
    fn one_family_suffices_and_other_lines_do_not_matter() {
        let text = "# made by flanneld\nOTHER\nFLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00::1/64\n\
                    FLANNEL_SUBNET=\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=false";
        let subnet = parse(text).expect("whole");
        assert_eq!((subnet.subnets.len(), subnet.ip_masq), (1, false));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = parse("").expect_err("empty").to_string();
        for key in [NETWORK, IPV6_NETWORK, SUBNET, IPV6_SUBNET, MTU, IPMASQ] {
            assert!(error.contains(key), "{error}");
        }
        let good = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1450\n";
        assert_eq!(parse(good).expect_err("no IPMASQ").to_string(), "subnet.env is missing FLANNEL_IPMASQ");
        for (line, key) in [
            ("FLANNEL_NETWORK=10.1.0.0", NETWORK),
            ("FLANNEL_NETWORK=fd00::/48", NETWORK),
            ("FLANNEL_SUBNET=10.1.1.1/24,10.1.2.1/24", SUBNET),
            ("FLANNEL_IPV6_SUBNET=10.1.1.1/24", IPV6_SUBNET),
            ("FLANNEL_MTU=big", MTU),
            ("FLANNEL_MTU=-1", MTU),
        ] {
            let error = parse(&format!("{good}FLANNEL_IPMASQ=true\n{line}\n")).expect_err(line);
            assert!(matches!(&error, SubnetError::Invalid { key: k, .. } if *k == key), "{line}: {error}");
        }
    }
}
