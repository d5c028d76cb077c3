//! Upstream's nftables layout: tables `ip cni_hostport` and `ip6 cni_hostport`, a rule per mapping in `hostports`, and
//! what must be masqueraded in `masquerading`; the comment of a rule is the container's id.
//!
//! Ours beside it, unseen by nft(8) and by the Go plugin: a tag of network and interface, so that GC of one network
//! leaves the others alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use corten_netlink::message::address_bytes;
use corten_netlink::nft::{
    self, BaseChain, Batch, Chain, Comparison, Direction, Expression, Family, Hook, Register, Rule,
    RuleEntry, Table, Translation, Verdict,
};
use corten_netlink::{Cidr, NetlinkError, Protocol, Socket};
use nix::errno::Errno;

use super::config::{Config, Mapping};
use crate::Result;
use crate::error::Error;
use crate::frame;
use crate::skel::{Attachment, Network, ValidAttachment};

const HOSTPORTS_ALL: &str = "hostports_all";
/// Rules with hostIP were here once; older plugins' may still be.
const HOSTIP_HOSTPORTS: &str = "hostip_hostports";
const HOSTPORTS: &str = "hostports";
const MASQUERADING: &str = "masquerading";
/// nft(8)'s `dstnat` and `srcnat`.
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
const TRIES: u32 = 10;

/// Whose rules.
#[derive(Debug)]
pub struct Owner {
    /// The comment.
    container_id: String,
    /// `network/ifname`.
    tag: String,
}

impl Owner {
    pub fn new(network: &Network, attachment: &Attachment) -> Self {
        Self {
            container_id: attachment.container_id.clone(),
            tag: format!("{}/{}", network.name, attachment.ifname),
        }
    }

    /// Rules of the Go plugin have no tag.
    fn owns(&self, rule: &RuleEntry) -> bool {
        rule.comment.as_deref() == Some(&self.container_id)
            && rule.tag.as_ref().is_none_or(|tag| *tag == self.tag)
    }
}

fn table(ipv4: bool) -> Table<'static> {
    Table { family: if ipv4 { Family::Ipv4 } else { Family::Ipv6 }, name: "cni_hostport" }
}

fn open() -> Result<Socket> {
    Ok(Socket::open(Protocol::Netfilter)?)
}

/// All rules of the container's address, in one transaction.
pub fn add(owner: &Owner, config: &Config, address: IpAddr) -> Result<()> {
    let mut socket = open()?;
    for _ in 1..TRIES {
        match try_add(&mut socket, owner, config, address) {
            // A chain we saw was deleted meanwhile.
            Err(error) if error.is(Errno::ENOENT) => {}
            outcome => return Ok(outcome?),
        }
    }
    Ok(try_add(&mut socket, owner, config, address)?)
}

fn try_add(
    socket: &mut Socket,
    owner: &Owner,
    config: &Config,
    address: IpAddr,
) -> std::result::Result<(), NetlinkError> {
    let ipv4 = address.is_ipv4();
    let table = table(ipv4);
    let mut batch = Batch::new();
    add_frame(socket, &mut batch, config, ipv4)?;
    let rule = |expressions| Rule { expressions, comment: Some(&owner.container_id), tag: Some(&owner.tag) };
    for mapping in config.mappings.iter().filter(|m| m.is_for(ipv4)) {
        batch.add_rule(table, HOSTPORTS, &rule(destination_nat(mapping, address)));
    }
    if config.snat {
        for source in masqueraded_sources(config.masq_all, address) {
            batch.add_rule(table, MASQUERADING, &rule(masquerade(source, address)));
        }
    }
    batch.commit(socket)
}

/// Everything but the rules of single containers; the jumps get the conditions of now.
fn add_frame(
    socket: &mut Socket,
    batch: &mut Batch,
    config: &Config,
    ipv4: bool,
) -> std::result::Result<(), NetlinkError> {
    let table = table(ipv4);
    let plain = |name| Chain { name, base: None, comment: None };
    let nat = |name, hook, priority| Chain {
        name,
        base: Some(BaseChain { hook, kind: "nat", priority }),
        comment: None,
    };
    let mut chains = vec![
        plain(HOSTPORTS),
        plain(HOSTIP_HOSTPORTS),
        plain(HOSTPORTS_ALL),
        nat("prerouting", Hook::Prerouting, DESTINATION_NAT),
        nat("output", Hook::Output, DESTINATION_NAT),
    ];
    if config.snat {
        chains.push(nat(MASQUERADING, Hook::Postrouting, SOURCE_NAT));
    }
    frame::write_chains(socket, batch, table, "CNI portmap plugin", &chains)?;
    let jump = |chain: &str| Expression::Verdict(Verdict::Jump(chain.into()));
    let jumps = vec![vec![jump(HOSTIP_HOSTPORTS)], vec![jump(HOSTPORTS)]];
    frame::write_chain(socket, batch, table, HOSTPORTS_ALL, jumps)?;
    let condition = if ipv4 { &config.conditions_v4 } else { &config.conditions_v6 };
    for name in ["prerouting", "output"] {
        let mut expressions = condition.clone();
        expressions.extend(nft::destination_is_local());
        expressions.push(jump(HOSTPORTS_ALL));
        frame::write_chain(socket, batch, table, name, vec![expressions])?;
    }
    Ok(())
}

fn destination_nat(mapping: &Mapping, address: IpAddr) -> Vec<Expression> {
    let mut expressions = Vec::with_capacity(10);
    if let Some(host) = mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
        expressions.extend(nft::address(false, Direction::Destination, Comparison::Equal, Cidr::host(host)));
    }
    expressions.extend(nft::destination_port(mapping.transport, Comparison::Equal, mapping.host_port));
    expressions.extend([
        Expression::Immediate { into: Register::One, value: address_bytes(address) },
        Expression::Immediate { into: Register::Two, value: mapping.container_port.to_be_bytes().to_vec() },
        Expression::Nat {
            translation: Translation::Destination,
            ipv4: address.is_ipv4(),
            address: Some(Register::One),
            port: Some(Register::Two),
        },
    ]);
    expressions
}

/// The container itself (hairpin) and this host by 127.0.0.1 need it to get their answers; `all`: everybody.
fn masqueraded_sources(all: bool, address: IpAddr) -> Vec<Cidr> {
    let everybody = |any: IpAddr| Cidr::new(any, 0).expect("a prefix of no bits");
    match (all, address) {
        (true, IpAddr::V4(_)) => vec![everybody(Ipv4Addr::UNSPECIFIED.into())],
        (true, IpAddr::V6(_)) => vec![everybody(Ipv6Addr::UNSPECIFIED.into())],
        (false, IpAddr::V4(_)) => vec![Cidr::host(address), Cidr::host(Ipv4Addr::LOCALHOST.into())],
        (false, IpAddr::V6(_)) => vec![Cidr::host(address)],
    }
}

fn masquerade(source: Cidr, address: IpAddr) -> Vec<Expression> {
    let mut expressions = nft::address(false, Direction::Source, Comparison::Equal, source);
    expressions.extend(nft::address(false, Direction::Destination, Comparison::Equal, Cidr::host(address)));
    expressions.push(Expression::Masquerade);
    expressions
}

/// Of both families: which addresses the container had may not be known any more.
pub fn remove(owner: &Owner) -> Result<()> {
    remove_where(|rule| owner.owns(rule))
}

/// Removes tagged rules of this network that belong to none of the attachments.
pub fn collect_garbage(network: &Network, valid: &[ValidAttachment]) -> Result<()> {
    let prefix = format!("{}/", network.name);
    remove_where(|rule| {
        let Some(ifname) = rule.tag.as_deref().and_then(|tag| tag.strip_prefix(&prefix)) else {
            return false;
        };
        !valid.iter().any(|v| v.ifname == ifname && rule.comment.as_deref() == Some(&v.container_id))
    })
}

fn remove_where(unwanted: impl Fn(&RuleEntry) -> bool) -> Result<()> {
    let mut socket = open()?;
    for _ in 1..TRIES {
        match try_remove(&mut socket, &unwanted) {
            // Another process deleted one of them meanwhile.
            Err(error) if error.is(Errno::ENOENT) => {}
            outcome => return Ok(outcome?),
        }
    }
    Ok(try_remove(&mut socket, &unwanted)?)
}

/// In one transaction: each that deletes rules waits for the kernel.
fn try_remove(
    socket: &mut Socket,
    unwanted: impl Fn(&RuleEntry) -> bool,
) -> std::result::Result<(), NetlinkError> {
    let mut batch = Batch::new();
    for table in [true, false].map(table) {
        for chain in [HOSTPORTS, HOSTIP_HOSTPORTS, MASQUERADING] {
            for rule in socket.nft_rules(table, chain)?.iter().filter(|rule| unwanted(rule)) {
                batch.delete_rule(table, rule);
            }
        }
    }
    batch.commit(socket)
}

/// Every rule that ADD made for this address is there.
pub fn check(owner: &Owner, config: &Config, address: IpAddr) -> Result<()> {
    let ipv4 = address.is_ipv4();
    let mut socket = open()?;
    let mappings = config.mappings.iter().filter(|m| m.is_for(ipv4));
    let forwarding: Vec<_> = mappings.map(|m| destination_nat(m, address)).collect();
    let masquerading: Vec<_> = if config.snat && !forwarding.is_empty() {
        masqueraded_sources(config.masq_all, address).into_iter().map(|s| masquerade(s, address)).collect()
    } else {
        Vec::new()
    };
    for (chain, wanted) in [(HOSTPORTS, forwarding), (MASQUERADING, masquerading)] {
        if wanted.is_empty() {
            continue;
        }
        let rules = socket.nft_rules(table(ipv4), chain)?;
        let there = |expressions: &Vec<Expression>| {
            rules.iter().any(|rule| owner.owns(rule) && rule.expressions.as_ref() == Some(expressions))
        };
        if !wanted.iter().all(there) {
            return Err(Error::internal(format!("missing hostport rules in chain {chain:?}")));
        }
    }
    Ok(())
}
