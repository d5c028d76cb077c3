//! iptables' chain FORWARD, where the host has one in nf_tables: chain CNI-FORWARD of tables `ip filter` and
//! `ip6 filter`, in upstream's rules, so that iptables(8) lists them and the Go plugin finds them.
//!
//! Beside the rule, unseen by both: a tag with the owner's hash, by which DEL and GC find it without its address.

use std::net::IpAddr;

use corten_netlink::nft::{
    self, Batch, Chain, Comparison, Direction, Expression, Hook, HookedChain, Rule, RuleEntry, Table, Verdict,
};
use corten_netlink::{Cidr, NetlinkError, Socket};

use crate::Result;
use crate::error::Error;
use crate::types::CniResult;

pub const CHAIN: &str = "CNI-FORWARD";
const FORWARD: &str = "FORWARD";
const FORWARD_COMMENT: &str = "CNI firewall plugin rules";
const ADMIN_COMMENT: &str = "CNI firewall plugin admin overrides";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    pub fn table(self) -> Table<'static> {
        let family = match self {
            Self::Ipv4 => nft::Family::Ipv4,
            Self::Ipv6 => nft::Family::Ipv6,
        };
        Table { family, name: "filter" }
    }

    /// Does this host forward by iptables' chain?
    pub fn is_hooked(self, hooked: &[HookedChain]) -> bool {
        let is_forward = |chain: &HookedChain| {
            self.table().is(chain.family, &chain.table)
                && chain.name == FORWARD
                && chain.hook == Hook::Forward as u32
        };
        hooked.iter().any(is_forward)
    }

    pub fn addresses(self, result: &CniResult) -> Vec<IpAddr> {
        let all = result.ips.iter().map(|ip| ip.address.address());
        all.filter(|ip| ip.is_ipv4() == (self == Self::Ipv4)).collect()
    }
}

/// `-d IP -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT` and `-s IP -j ACCEPT`.
fn rules_of(address: IpAddr) -> [Vec<Expression>; 2] {
    let host = |direction| nft::address(false, direction, Comparison::Equal, Cidr::host(address));
    let accept = [Expression::Counter { packets: 0, bytes: 0 }, Expression::Verdict(Verdict::Accept)];
    let answers = host(Direction::Destination).into_iter().chain([answers()]).chain(accept.clone()).collect();
    let own = host(Direction::Source).into_iter().chain(accept).collect();
    [answers, own]
}

/// struct xt_conntrack_mtinfo3 (linux/netfilter/xt_conntrack.h), only with its states.
fn answers() -> Expression {
    const MATCH_FLAGS: usize = 146;
    const STATE_MASK: usize = 150;
    const XT_CONNTRACK_STATE: u16 = 1;
    /// XT_CONNTRACK_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED.
    const ESTABLISHED_RELATED: u16 = 1 << 1 | 1 << 2;
    let mut info = vec![0; 168];
    info[MATCH_FLAGS..][..2].copy_from_slice(&XT_CONNTRACK_STATE.to_ne_bytes());
    info[STATE_MASK..][..2].copy_from_slice(&ESTABLISHED_RELATED.to_ne_bytes());
    Expression::Match { name: "conntrack", revision: 3, info }
}

/// `-m comment --comment TEXT -j CHAIN`; struct xt_comment_info is 256 bytes.
fn jump(comment: &str, chain: &str) -> Vec<Expression> {
    let mut info = vec![0; 256];
    info[..comment.len()].copy_from_slice(comment.as_bytes());
    vec![
        Expression::Match { name: "comment", revision: 0, info },
        Expression::Counter { packets: 0, bytes: 0 },
        Expression::Verdict(Verdict::Jump(chain.to_owned())),
    ]
}

/// The same but for what a counter has counted.
fn is(rule: &RuleEntry, wanted: &[Expression]) -> bool {
    let Some(expressions) = &rule.expressions else { return false };
    let same = |(a, b): (&Expression, &Expression)| {
        matches!((a, b), (Expression::Counter { .. }, Expression::Counter { .. })) || a == b
    };
    expressions.len() == wanted.len() && expressions.iter().zip(wanted).all(same)
}

fn plain(expressions: Vec<Expression>) -> Rule<'static> {
    Rule { expressions, comment: None, tag: None }
}

/// Chains and the jumps to them. `rules`: of [`CHAIN`].
pub fn add_frame(
    socket: &mut Socket,
    batch: &mut Batch,
    family: Family,
    rules: &[RuleEntry],
    admin_chain: &str,
) -> std::result::Result<(), NetlinkError> {
    let table = family.table();
    let existing = socket.nft_chains(table)?;
    for name in [CHAIN, admin_chain] {
        if !existing.iter().any(|chain| chain == name) {
            batch.add_chain(table, &Chain { name, base: None, comment: None });
        }
    }
    let to_us = jump(FORWARD_COMMENT, CHAIN);
    if !socket.nft_rules(table, FORWARD)?.iter().any(|rule| is(rule, &to_us)) {
        batch.insert_rule(table, FORWARD, &plain(to_us));
    }
    let to_admin = jump(ADMIN_COMMENT, admin_chain);
    if !rules.iter().any(|rule| is(rule, &to_admin)) {
        batch.insert_rule(table, CHAIN, &plain(to_admin));
    }
    Ok(())
}

pub fn add(batch: &mut Batch, family: Family, addresses: &[IpAddr], owner: &str) {
    for expressions in addresses.iter().flat_map(|address| rules_of(*address)) {
        batch.add_rule(family.table(), CHAIN, &Rule { expressions, comment: None, tag: Some(owner) });
    }
}

pub fn delete(batch: &mut Batch, family: Family, rules: &[RuleEntry], unwanted: impl Fn(&RuleEntry) -> bool) {
    for rule in rules.iter().filter(|rule| unwanted(rule)) {
        batch.delete_rule(family.table(), rule);
    }
}

pub fn is_owned_by(rule: &RuleEntry, owner: &str) -> bool {
    rule.tag.as_deref() == Some(owner)
}

/// The Go plugin's rule for one of the addresses.
pub fn is_upstreams(rule: &RuleEntry, addresses: &[IpAddr]) -> bool {
    rule.tag.is_none() && addresses.iter().any(|a| rules_of(*a).iter().any(|wanted| is(rule, wanted)))
}

pub fn check(
    socket: &mut Socket,
    family: Family,
    addresses: &[IpAddr],
    owner: &str,
    admin_chain: &str,
) -> Result<()> {
    if addresses.is_empty() {
        return Ok(());
    }
    let table = family.table();
    let expect = |found: bool, what: &str| {
        let place = if family == Family::Ipv4 { "iptables" } else { "ip6tables" };
        if found { Ok(()) } else { Err(Error::internal(format!("{place}: expected {what} not found"))) }
    };
    let to_us = jump(FORWARD_COMMENT, CHAIN);
    let forward = socket.nft_rules(table, FORWARD)?;
    expect(forward.iter().any(|rule| is(rule, &to_us)), "jump from FORWARD to CNI-FORWARD")?;
    let rules = socket.nft_rules(table, CHAIN)?;
    let to_admin = jump(ADMIN_COMMENT, admin_chain);
    expect(rules.iter().any(|rule| is(rule, &to_admin)), "jump from CNI-FORWARD to the admin chain")?;
    for address in addresses {
        for wanted in rules_of(*address) {
            let there =
                |rule: &RuleEntry| (is_owned_by(rule, owner) || rule.tag.is_none()) && is(rule, &wanted);
            expect(rules.iter().any(there), &format!("rule for {address} in CNI-FORWARD"))?;
        }
    }
    Ok(())
}
