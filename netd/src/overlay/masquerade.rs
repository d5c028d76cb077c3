//! One nf_tables table of ours, both families: who is translated, what is forwarded, what conntrack leaves alone.
//!
//! The order is that of flannel's iptables chains (net.md 5.6), where its nftables variant differs by mistake: packets
//! of a host to pods of other nodes are masqueraded, and kube-proxy's mark is compared by its bit. The table is ours
//! alone: whatever else is in it goes when it is written anew, in one transaction.

use corten_netlink::nft::{
    self, BaseChain, Batch, Chain, Comparison, Direction, Expression, Family, Hook, Meta, Register, Rule,
    Table, Transport, Verdict,
};
use corten_netlink::{Cidr, NetlinkError, Socket};

use super::desired::{cidr_v4, cidr_v6};
use crate::node::PodCidrs;

pub const TABLE_NAME: &str = "corten-flannel";
const TABLE: Table<'_> = Table { family: Family::Inet, name: TABLE_NAME };
const TABLE_COMMENT: &str = "pod network of this node; written by corten-netd, which mends it";
/// nft(8)'s names: `srcnat`, `filter`, `raw`.
const SOURCE_NAT: i32 = 100;
const FILTER: i32 = 0;
const RAW: i32 = -300;
/// kube-proxy's "masquerade this" bit: such a packet is translated by its rules.
const KUBE_PROXY_MARK: u32 = 0x4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub networks: PodCidrs,
    /// This node's pods.
    pub local: PodCidrs,
    pub masquerade: bool,
    /// Source ports are drawn at random.
    pub fully_random: bool,
    /// Packets from and to the network are accepted. (A drop in another's table still drops them.)
    pub forward: bool,
    /// The tunnel's packets need no conntrack entry.
    pub vxlan_port: Option<u16>,
}

/// A base chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    chain: &'static str,
    base: BaseChain,
    rules: Vec<(&'static str, Vec<Expression>)>,
}

/// What the table should hold. Pure.
pub fn content(settings: &Settings) -> Vec<Content> {
    let base = |hook, kind, priority| BaseChain { hook, kind, priority };
    let mut content = Vec::new();
    let networks: Vec<(Cidr, Option<Cidr>)> = [
        settings.networks.v4.map(|net| (cidr_v4(net), settings.local.v4.map(cidr_v4))),
        settings.networks.v6.map(|net| (cidr_v6(net), settings.local.v6.map(cidr_v6))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if settings.masquerade {
        let mut rules = vec![("kube-proxy translates it", marked_by_kube_proxy())];
        for (network, local) in &networks {
            rules.extend(postrouting(*network, *local, settings.fully_random));
        }
        content.push(Content {
            chain: "postrouting",
            base: base(Hook::Postrouting, "nat", SOURCE_NAT),
            rules,
        });
    }
    if settings.forward {
        let accept = |direction, network| {
            let mut rule = nft::address(true, direction, Comparison::Equal, network);
            rule.push(Expression::Verdict(Verdict::Accept));
            rule
        };
        let rules = networks.iter().flat_map(|(network, _)| {
            [
                ("from pods", accept(Direction::Source, *network)),
                ("to pods", accept(Direction::Destination, *network)),
            ]
        });
        content.push(Content {
            chain: "forward",
            base: base(Hook::Forward, "filter", FILTER),
            rules: rules.collect(),
        });
    }
    if let Some(port) = settings.vxlan_port {
        let mut arriving = nft::destination_port(Transport::Udp, Comparison::Equal, port);
        let mut leaving = arriving.clone();
        arriving.extend(nft::destination_is_local());
        arriving.push(Expression::Notrack);
        leaving.push(Expression::Notrack);
        for (chain, hook, rule) in
            [("prerouting", Hook::Prerouting, arriving), ("output", Hook::Output, leaving)]
        {
            content.push(Content {
                chain,
                base: base(hook, "filter", RAW),
                rules: vec![("tunnel packets", rule)],
            });
        }
    }
    content
}

fn marked_by_kube_proxy() -> Vec<Expression> {
    let mark = KUBE_PROXY_MARK.to_ne_bytes().to_vec();
    let register = Register::One;
    vec![
        Expression::Meta { key: Meta::Mark, into: register },
        Expression::Mask { register, mask: mark.clone() },
        Expression::Compare { register, comparison: Comparison::Equal, value: mark },
        Expression::Verdict(Verdict::Return),
    ]
}

/// In this order: between pods nothing is translated; what comes from outside to a pod of this node keeps its source
/// (the node that let it in may have kept it on purpose); what pods send out is translated, and so is what others than
/// pods send to pods of other nodes, that the answer comes back here.
fn postrouting(
    network: Cidr,
    local: Option<Cidr>,
    fully_random: bool,
) -> Vec<(&'static str, Vec<Expression>)> {
    use Comparison::{Equal, NotEqual};
    use Direction::{Destination, Source};
    let masquerade = if fully_random { Expression::MasqueradeFullyRandom } else { Expression::Masquerade };
    let leave = Expression::Verdict(Verdict::Return);
    let multicast = if network.is_ipv4() { "224.0.0.0/4" } else { "ff00::/8" };
    let multicast = multicast.parse().expect("a constant cidr");
    let rule = |source: (Comparison, Cidr), destination: (Comparison, Cidr), end: &Expression| {
        let mut rule = nft::address(true, Source, source.0, source.1);
        rule.extend(nft::address(false, Destination, destination.0, destination.1));
        rule.push(end.clone());
        rule
    };
    let mut rules = Vec::new();
    if let Some(local) = local {
        rules.extend([
            ("pods to pods", rule((Equal, local), (Equal, network), &leave)),
            ("pods to pods", rule((Equal, network), (Equal, local), &leave)),
            ("outside to pods here", rule((NotEqual, network), (Equal, local), &leave)),
        ]);
    }
    rules.extend([
        ("pods to outside", rule((Equal, network), (NotEqual, multicast), &masquerade)),
        ("hosts to pods elsewhere", rule((NotEqual, network), (Equal, network), &masquerade)),
    ]);
    rules
}

/// Makes the table what it should be; `Ok(true)` when it was not. An empty content takes it away.
pub fn reconcile(socket: &mut Socket, wanted: &[Content]) -> Result<bool, NetlinkError> {
    if is_as_wanted(socket, wanted)? {
        return Ok(false);
    }
    let mut batch = Batch::new();
    batch.add_table(TABLE, Some(TABLE_COMMENT)).delete_table(TABLE);
    if !wanted.is_empty() {
        batch.add_table(TABLE, Some(TABLE_COMMENT));
    }
    for content in wanted {
        batch.add_chain(TABLE, &Chain { name: content.chain, base: Some(content.base), comment: None });
        for (comment, expressions) in &content.rules {
            let rule = Rule { expressions: expressions.clone(), comment: Some(comment), tag: None };
            batch.add_rule(TABLE, content.chain, &rule);
        }
    }
    batch.commit(socket)?;
    Ok(true)
}

fn is_as_wanted(socket: &mut Socket, wanted: &[Content]) -> Result<bool, NetlinkError> {
    // A dormant table holds everything and does nothing.
    if socket.nft_table(TABLE)?.is_some_and(|awake| !awake) {
        return Ok(false);
    }
    let chains = socket.nft_chain_entries(TABLE)?;
    if chains.len() != wanted.len() {
        return Ok(false);
    }
    for content in wanted {
        // Of an older version, or of another's hand, it may be hooked elsewhere.
        let hooked = |base: &nft::BaseEntry| base.is(content.base);
        if !chains.iter().any(|chain| chain.name == content.chain && chain.base.as_ref().is_some_and(hooked))
        {
            return Ok(false);
        }
        let rules = socket.nft_rules(TABLE, content.chain)?;
        let same = rules.len() == content.rules.len()
            && rules.iter().zip(&content.rules).all(|(is, (comment, should))| {
                is.expressions.as_ref() == Some(should) && is.comment.as_deref() == Some(comment)
            });
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Dual;

    fn settings() -> Settings {
        Settings {
            networks: Dual { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None },
            local: Dual { v4: Some("10.244.1.0/24".parse().unwrap()), v6: None },
            masquerade: true,
            fully_random: true,
            forward: true,
            vxlan_port: Some(8472),
        }
    }

    fn chains(settings: &Settings) -> Vec<(&'static str, usize)> {
        content(settings).into_iter().map(|content| (content.chain, content.rules.len())).collect()
    }

    #[test]
    fn each_option_has_its_chains() {
        let all = settings();
        let whole = [("postrouting", 6), ("forward", 2), ("prerouting", 1), ("output", 1)];
        assert_eq!(chains(&all), whole);
        assert_eq!(chains(&Settings { masquerade: false, ..all }), whole[1..]);
        assert_eq!(chains(&Settings { forward: false, ..all })[1..], whole[2..]);
        assert_eq!(chains(&Settings { vxlan_port: None, ..all }), whole[..2]);
        let v6 = Dual { v6: Some("fd44::/16".parse().unwrap()), ..all.networks };
        assert_eq!(
            chains(&Settings { networks: v6, ..all })[0],
            ("postrouting", 8),
            "without pods of our own"
        );
    }

    #[test]
    fn the_last_word_of_each_rule_is_flannels() {
        let content = content(&settings());
        let ends: Vec<Expression> =
            content[0].rules.iter().map(|(_, rule)| rule.last().expect("an end").clone()).collect();
        let leave = Expression::Verdict(Verdict::Return);
        let masquerade = Expression::MasqueradeFullyRandom;
        assert_eq!(
            ends,
            [leave.clone(), leave.clone(), leave.clone(), leave, masquerade.clone(), masquerade]
        );
    }
}
