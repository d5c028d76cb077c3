//! ingressPolicy: table `inet cni_firewall`, in the chains of upstream's iptables backend.
//!
//! ```text
//! chain forward                 hook forward; jump CNI-ADMIN; jump CNI-ISOLATION-STAGE-1
//! chain CNI-ADMIN               the administrator's
//! chain CNI-ISOLATION-STAGE-1   iifname BRIDGE oifname BRIDGE drop            (isolated)
//!                               iifname BRIDGE oifname != BRIDGE jump CNI-ISOLATION-STAGE-2
//! chain CNI-ISOLATION-STAGE-2   oifname BRIDGE drop
//! ```
//! So bridges that have a policy do not reach each other, and everything else still reaches them (mapped ports). Rules
//! are per network and bridge, tagged with the network's hash, and stay until GC of the network without attachments.
//!
//! What stays inside a bridge passes no such chain unless br_netfilter is on. Therefore `isolated` also makes the
//! container's port of the bridge an isolated one: the bridge itself forwards nothing between two of those.

use corten_netlink::nft::{
    self, BaseChain, Batch, Chain, Comparison, Expression, Family, Hook, Meta, Rule, RuleEntry, Table,
    Verdict,
};
use corten_netlink::route::encode;
use corten_netlink::{NetlinkError, Protocol, Socket};

use super::config::{Config, Policy};
use crate::error::Error;
use crate::owner::short_hash;
use crate::types::CniResult;
use crate::{Result, frame};

const TABLE: Table<'_> = Table { family: Family::Inet, name: "cni_firewall" };
const TABLE_COMMENT: &str = "CNI firewall plugin";
const FORWARD: &str = "forward";
/// nft(8)'s `filter`.
const PRIORITY: i32 = 0;
const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

/// The container's port of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    bridge: String,
    /// The veth's name.
    name: String,
}

impl Port {
    /// What the plugins before us made; `None` where the policy does not need it.
    pub fn find(policy: Policy, result: &CniResult) -> Result<Option<Self>> {
        if policy == Policy::Open {
            return Ok(None);
        }
        let mut socket = Socket::open(Protocol::Route)?;
        let no_bridge = |details: String| {
            Error::config("ingressPolicy needs a bridge: chain firewall after bridge").details(details)
        };
        let mut on_host = result.interfaces.iter().filter(|i| i.sandbox.is_empty());
        let first =
            on_host.next().ok_or_else(|| no_bridge("prevResult has no interface of the host".into()))?;
        let bridge = socket.link(&first.name)?.filter(|link| link.kind.as_deref() == Some("bridge"));
        let bridge = bridge.ok_or_else(|| no_bridge(format!("{:?} is not a bridge", first.name)))?;
        for interface in on_host {
            let link = socket.link(&interface.name)?;
            if link.is_some_and(|link| link.master == Some(bridge.index)) {
                return Ok(Some(Self { bridge: bridge.name, name: interface.name.clone() }));
            }
        }
        Err(no_bridge(format!("prevResult has no port of {:?}", bridge.name)))
    }

    pub fn isolate(&self) -> Result<()> {
        let mut socket = Socket::open(Protocol::Route)?;
        let Some(link) = socket.link(&self.name)? else {
            return Err(Error::internal(format!("bridge port {} vanished", self.name)));
        };
        Ok(socket.transact(vec![encode::isolate_bridge_port(link.index)])?)
    }

    fn is_isolated(&self) -> Result<bool> {
        let link = Socket::open(Protocol::Route)?.link(&self.name)?;
        Ok(link.is_some_and(|link| link.isolated))
    }
}

/// The rules of a network's bridge, by chain.
fn rules_of(policy: Policy, bridge: &str) -> Vec<(&'static str, Vec<Expression>)> {
    let from = || nft::interface(Meta::InputName, Comparison::Equal, bridge);
    let to = |comparison| nft::interface(Meta::OutputName, comparison, bridge);
    let rule = |matches: Vec<Vec<Expression>>, verdict| {
        let mut expressions = matches.concat();
        expressions.push(Expression::Verdict(verdict));
        expressions
    };
    let inside = (STAGE_1, rule(vec![from(), to(Comparison::Equal)], Verdict::Drop));
    let leaving = (STAGE_1, rule(vec![from(), to(Comparison::NotEqual)], Verdict::Jump(STAGE_2.into())));
    let entering = (STAGE_2, rule(vec![to(Comparison::Equal)], Verdict::Drop));
    match policy {
        Policy::Open => Vec::new(),
        Policy::SameBridge => vec![leaving, entering],
        Policy::Isolated => vec![inside, leaving, entering],
    }
}

/// The chains with what is common to all networks, and this network's rules instead of those it had. What is there
/// already is left as it is.
pub fn add(
    socket: &mut Socket,
    batch: &mut Batch,
    network: &str,
    config: &Config,
    port: Option<&Port>,
) -> std::result::Result<(), NetlinkError> {
    let chain = |name, base| Chain { name, base, comment: None };
    let base = BaseChain { hook: Hook::Forward, kind: "filter", priority: PRIORITY };
    let chains = [
        chain(&config.admin_chain, None),
        chain(STAGE_2, None),
        chain(STAGE_1, None),
        chain(FORWARD, Some(base)),
    ];
    frame::write_chains(socket, batch, TABLE, TABLE_COMMENT, &chains)?;
    // Two networks may name different admin chains: each keeps its jump, before ours.
    let existing = socket.nft_rules(TABLE, FORWARD)?;
    for name in [STAGE_1, &config.admin_chain] {
        if !existing.iter().any(|rule| rule.expressions.as_deref() == Some(&jump(name))) {
            let expressions = jump(name).to_vec();
            batch.insert_rule(TABLE, FORWARD, &Rule { expressions, comment: None, tag: None });
        }
    }
    let tag = short_hash(network);
    let wanted = port.map_or_else(Vec::new, |port| rules_of(config.policy, &port.bridge));
    for chain in [STAGE_1, STAGE_2] {
        let rules = socket.nft_rules(TABLE, chain)?;
        let mine: Vec<&RuleEntry> = rules.iter().filter(|r| r.tag.as_ref() == Some(&tag)).collect();
        let wanted: Vec<_> = wanted.iter().filter(|(name, _)| *name == chain).map(|(_, rule)| rule).collect();
        for expressions in
            wanted.iter().filter(|rule| !mine.iter().any(|r| r.expressions.as_ref() == Some(rule)))
        {
            let expressions = (*expressions).clone();
            batch.add_rule(TABLE, chain, &Rule { expressions, comment: Some(network), tag: Some(&tag) });
        }
        for rule in mine.iter().filter(|r| !wanted.iter().any(|rule| r.expressions.as_ref() == Some(rule))) {
            batch.delete_rule(TABLE, rule);
        }
    }
    Ok(())
}

fn jump(chain: &str) -> [Expression; 1] {
    [Expression::Verdict(Verdict::Jump(chain.to_owned()))]
}

pub fn check(socket: &mut Socket, network: &str, config: &Config, port: Option<&Port>) -> Result<()> {
    let missing = |what: &str| Error::internal(format!("table inet cni_firewall: expected {what} not found"));
    let jumps = socket.nft_rules(TABLE, FORWARD)?;
    for name in [STAGE_1, &config.admin_chain] {
        if !jumps.iter().any(|rule| rule.expressions.as_deref() == Some(&jump(name))) {
            return Err(missing(&format!("jump to {name}")));
        }
    }
    let Some(port) = port else { return Ok(()) };
    let tag = short_hash(network);
    for (chain, wanted) in rules_of(config.policy, &port.bridge) {
        let there =
            |rule: &RuleEntry| rule.tag.as_ref() == Some(&tag) && rule.expressions.as_ref() == Some(&wanted);
        if !socket.nft_rules(TABLE, chain)?.iter().any(there) {
            return Err(missing(&format!("rule of bridge {} in {chain}", port.bridge)));
        }
    }
    if config.policy == Policy::Isolated && !port.is_isolated()? {
        return Err(Error::internal(format!("bridge port {} is not isolated", port.name)));
    }
    Ok(())
}

/// `in_use`: the network still has attachments.
pub fn collect_garbage(
    socket: &mut Socket,
    batch: &mut Batch,
    network: &str,
    in_use: bool,
) -> std::result::Result<(), NetlinkError> {
    if in_use {
        return Ok(());
    }
    let tag = short_hash(network);
    for chain in [STAGE_1, STAGE_2] {
        for rule in socket.nft_rules(TABLE, chain)?.iter().filter(|r| r.tag.as_ref() == Some(&tag)) {
            batch.delete_rule(TABLE, rule);
        }
    }
    Ok(())
}
