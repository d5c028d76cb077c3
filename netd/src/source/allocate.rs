//! Which subnets of a network a node may take: `SubnetLen`, `SubnetMin`, `SubnetMax`. Pure.
//!
//! The first subnet is left free, as flannel does: a bridge with the network's own address confuses people and tools.
//! Source: flannel `pkg/subnet/config.go` (`CheckNetworkConfig`), `pkg/subnet/etcd/local_manager.go`.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::net_conf::SubnetKeys;

/// As many free subnets are looked for as upstream does: enough that two nodes rarely choose the same.
const CHOICE: usize = 100;

/// A range of addresses, both ends inside; IPv4 as its 32 bits.
pub type Span = (u128, u128);

/// The subnets of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    bits: u8,
    len: u8,
    min: u128,
    max: u128,
}

/// The defaults and names of a family.
struct Rules {
    bits: u8,
    len: u8,
    names: [&'static str; 4],
}

const V4: Rules = Rules { bits: 32, len: 24, names: ["Network", "SubnetLen", "SubnetMin", "SubnetMax"] };
const V6: Rules =
    Rules { bits: 128, len: 64, names: ["IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"] };

impl Pool {
    /// # Errors
    /// The key that does not fit the network, and what would.
    pub fn v4(network: Ipv4Network, keys: &SubnetKeys<Ipv4Addr>) -> Result<Self, String> {
        let ends = (u32::from(network.network()).into(), u32::from(network.broadcast()).into());
        let number = |address: Ipv4Addr| u128::from(u32::from(address));
        pool(&V4, network.prefix(), ends, keys.len, keys.min.map(number), keys.max.map(number))
    }

    /// # Errors
    /// The key that does not fit the network, and what would.
    pub fn v6(network: Ipv6Network, keys: &SubnetKeys<Ipv6Addr>) -> Result<Self, String> {
        let ends = (network.network().into(), network.broadcast().into());
        pool(&V6, network.prefix(), ends, keys.len, keys.min.map(u128::from), keys.max.map(u128::from))
    }

    /// True for a subnet that could have been taken from here.
    pub fn has(&self, subnet: Span) -> bool {
        (self.min..=self.max).contains(&subnet.0) && subnet.1 - subnet.0 == self.size() - 1
    }

    /// The first free subnets, at most a hundred. `taken`: what other nodes have.
    pub fn free(&self, taken: &[Span]) -> Vec<Span> {
        let mut taken = taken.to_vec();
        taken.sort_unstable();
        let mut free = Vec::new();
        let mut first = self.min;
        let mut next = 0;
        while first <= self.max && free.len() < CHOICE {
            let last = first + (self.size() - 1);
            while taken.get(next).is_some_and(|(_, end)| *end < first) {
                next += 1;
            }
            // Sorted by their beginnings; one that is wide may follow a narrow one, hence all of them.
            let over = taken[next..].iter().take_while(|(begin, _)| *begin <= last).map(|(_, end)| *end);
            let after = match over.filter(|end| *end >= first).max() {
                None => {
                    free.push((first, last));
                    last
                }
                // Past all of it at once: a key may claim any range, in IPv6 one of 2⁶⁰ subnets.
                Some(end) => end.max(last) | (self.size() - 1),
            };
            match after.checked_add(1) {
                Some(following) => first = following,
                None => break,
            }
        }
        free
    }

    /// The prefix length of every subnet.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    fn size(&self) -> u128 {
        1 << (self.bits - self.len)
    }
}

fn pool(
    rules: &Rules,
    prefix: u8,
    (first, last): Span,
    len: Option<u8>,
    min: Option<u128>,
    max: Option<u128>,
) -> Result<Pool, String> {
    let [network, len_key, min_key, max_key] = rules.names;
    let longest = rules.bits - 2;
    let len = match len {
        Some(len) if len > longest => {
            return Err(format!("{len_key} is {len}; a node needs four addresses, so at most {longest}"));
        }
        Some(len) if len < prefix + 2 => {
            return Err(format!(
                "{len_key} is {len}; {network} has /{prefix} and must hold four subnets, so at least {}",
                prefix + 2
            ));
        }
        Some(len) => len,
        None if prefix + 2 > longest => {
            return Err(format!("{network} has /{prefix}; four subnets need /{} or wider", longest - 2));
        }
        None if prefix + 2 <= rules.len => rules.len,
        None => prefix + 2,
    };
    let size = 1u128 << (rules.bits - len);
    let within = |key: &str, given: Option<u128>, default: u128| match given {
        None => Ok(default),
        Some(address) if address < first || address > last => Err(format!("{key} is not inside {network}")),
        Some(address) if address % size != 0 => {
            Err(format!("{key} is not the beginning of a subnet of length {len}"))
        }
        Some(address) => Ok(address),
    };
    let min = within(min_key, min, first + size)?;
    let max = within(max_key, max, last - (size - 1))?;
    if min > max {
        return Err(format!("{min_key} is behind {max_key}"));
    }
    Ok(Pool { bits: rules.bits, len, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: SubnetKeys<Ipv4Addr> = SubnetKeys { len: None, min: None, max: None };

    fn v4(network: &str, keys: &SubnetKeys<Ipv4Addr>) -> Result<Pool, String> {
        Pool::v4(network.parse().unwrap(), keys)
    }

    fn text(span: Span) -> String {
        format!("{}-{}", Ipv4Addr::from(span.0 as u32), Ipv4Addr::from(span.1 as u32))
    }

    #[test]
    fn defaults_are_flannels() {
        let lens = [
            ("10.0.0.0/8", 24),
            ("10.5.0.0/16", 24),
            ("10.5.0.0/22", 24),
            ("10.5.0.0/23", 25),
            ("10.5.0.0/28", 30),
        ];
        for (network, len) in lens {
            assert_eq!(v4(network, &NONE).unwrap().prefix_len(), len, "{network}");
        }
        let free = v4("10.5.0.0/22", &NONE).unwrap().free(&[]);
        assert_eq!(
            free.iter().map(|s| text(*s)).collect::<Vec<_>>(),
            ["10.5.1.0-10.5.1.255", "10.5.2.0-10.5.2.255", "10.5.3.0-10.5.3.255"]
        );
        let v6 =
            Pool::v6("fc00::/48".parse().unwrap(), &SubnetKeys { len: None, min: None, max: None }).unwrap();
        assert_eq!(
            (v6.prefix_len(), Ipv6Addr::from(v6.free(&[])[0].0).to_string()),
            (64, "fc00:0:0:1::".into())
        );
        assert_eq!(v6.free(&[]).len(), 100);
    }

    #[test]
    fn a_key_that_claims_nearly_everything_takes_no_time() {
        let keys = SubnetKeys { len: None, min: None, max: None };
        let pool = Pool::v6("fd00::/8".parse().unwrap(), &keys).unwrap();
        let half: Ipv6Network = "fd00::/9".parse().unwrap();
        let free = pool.free(&[(half.network().into(), half.broadcast().into())]);
        assert_eq!((Ipv6Addr::from(free[0].0).to_string(), free.len()), ("fd80::".into(), 100));
        assert!(pool.free(&[(0, u128::MAX)]).is_empty());
    }

    #[test]
    fn what_overlaps_is_not_free() {
        let pool = v4("10.5.0.0/21", &NONE).unwrap();
        let span = |text: &str| {
            let net: Ipv4Network = text.parse().unwrap();
            (u128::from(u32::from(net.network())), u128::from(u32::from(net.broadcast())))
        };
        let free =
            pool.free(&[span("10.5.6.0/23"), span("10.5.1.0/24"), span("10.5.3.64/26"), span("10.5.3.0/28")]);
        assert_eq!(
            free.iter().map(|s| text(*s)).collect::<Vec<_>>(),
            ["10.5.2.0-10.5.2.255", "10.5.4.0-10.5.4.255", "10.5.5.0-10.5.5.255"]
        );
        assert!(pool.free(&[span("10.5.0.0/16")]).is_empty());
        assert!(
            pool.has(span("10.5.1.0/24")) && !pool.has(span("10.5.0.0/24")) && !pool.has(span("10.5.2.0/25"))
        );
    }

    #[test]
    fn keys_that_do_not_fit_are_named() {
        let keys = |len: Option<u8>, min: Option<&str>, max: Option<&str>| SubnetKeys {
            len,
            min: min.map(|text| text.parse().unwrap()),
            max: max.map(|text| text.parse().unwrap()),
        };
        let table = [
            (keys(Some(17), None, None), "SubnetLen is 17; Network has /16"),
            (keys(None, Some("10.6.0.0"), None), "SubnetMin is not inside Network"),
            (keys(None, Some("10.5.0.1"), None), "SubnetMin is not the beginning of a subnet of length 24"),
            (keys(None, None, Some("11.0.0.0")), "SubnetMax is not inside"),
            (keys(None, Some("10.5.9.0"), Some("10.5.8.0")), "SubnetMin is behind SubnetMax"),
        ];
        for (keys, wanted) in table {
            let error = v4("10.5.0.0/16", &keys).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(v4("10.5.0.0/29", &NONE).unwrap_err().contains("Network has /29; four subnets need /28"));
        assert!(v4("0.0.0.0/1", &NONE).is_ok());
    }
}
