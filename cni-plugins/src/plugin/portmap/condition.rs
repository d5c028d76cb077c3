//! conditionsV4 and conditionsV6: matches in nft's language that packets must pass before any mapping applies.
//!
//! Understood: `ip saddr|daddr [!=] CIDR` (`ip6` in V6), `iifname|oifname [!=] NAME`, `tcp|udp|sctp dport [!=] PORT`,
//! one after the other.

use corten_netlink::Cidr;
use corten_netlink::nft::{self, Comparison, Direction, Expression, Meta, Transport};

use crate::Result;
use crate::error::Error;

/// What goes in front of the jump.
pub type Condition = Vec<Expression>;

const KNOWN: &str = "nft matches are understood: ip saddr|daddr [!=] CIDR, iifname|oifname [!=] NAME, tcp|udp|sctp dport [!=] PORT";

/// `key`: for errors. Elements may hold several words each.
pub fn parse(key: &str, ipv4: bool, texts: &[String]) -> Result<Condition> {
    let mut words = texts.iter().flat_map(|text| text.split_whitespace()).peekable();
    if words.peek().is_some_and(|word| word.starts_with(['-', '!'])) {
        let text = format!("{key} holds iptables arguments, but the backend is nftables");
        return Err(Error::config(text).details(KNOWN));
    }
    let mut condition = Vec::new();
    while let Some(first) = words.next() {
        let refused = || Error::config(format!("{key}: match {first:?} is not understood")).details(KNOWN);
        let field = match first {
            "ip" | "ip6" | "tcp" | "udp" | "sctp" => words.next().ok_or_else(refused)?,
            _ => "",
        };
        let comparison = match words.next_if(|word| matches!(*word, "!=" | "==")) {
            Some("!=") => Comparison::NotEqual,
            _ => Comparison::Equal,
        };
        let value = words.next().ok_or_else(refused)?.trim_matches('"');
        condition.extend(one(ipv4, first, field, comparison, value).ok_or_else(refused)?);
    }
    Ok(condition)
}

fn one(ipv4: bool, first: &str, field: &str, comparison: Comparison, value: &str) -> Option<Vec<Expression>> {
    Some(match (first, field) {
        ("ip" | "ip6", "saddr" | "daddr") => {
            let cidr =
                if value.contains('/') { value.parse().ok()? } else { Cidr::host(value.parse().ok()?) };
            if cidr.is_ipv4() != ipv4 || cidr.is_ipv4() != (first == "ip") {
                return None;
            }
            let direction = if field == "saddr" { Direction::Source } else { Direction::Destination };
            nft::address(false, direction, comparison, cidr)
        }
        ("tcp" | "udp" | "sctp", "dport") => {
            let transport = match first {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                _ => Transport::Sctp,
            };
            nft::destination_port(transport, comparison, value.parse().ok()?)
        }
        ("iifname", "") => nft::interface(Meta::InputName, comparison, value),
        ("oifname", "") => nft::interface(Meta::OutputName, comparison, value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_v4(text: &str) -> Result<Condition> {
        parse("conditionsV4", true, &[text.to_owned()])
    }

    #[test]
    fn words_may_come_one_by_one_or_together() {
        let together = parse_v4("ip saddr != 10.0.0.0/8 iifname \"eth0\" tcp dport 80").expect("understood");
        let apart: Vec<String> = ["ip", "saddr", "!=", "10.0.0.0/8", "iifname eth0", "tcp dport == 80"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(parse("conditionsV4", true, &apart).expect("understood"), together);
        assert_eq!(together.len(), 3 + 2 + 4);
        assert!(parse_v4("").expect("nothing").is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_is() {
        for bad in
            ["ip saddr", "ip ttl 5", "ct state new", "ip6 saddr fd00::1", "ip saddr {1.2.3.4}", "tcp dport x"]
        {
            let error = parse_v4(bad).expect_err(bad);
            assert!(error.details.contains("nft matches are understood"), "{error}");
        }
    }
}
