//! Do rules of others touch traffic between pods? Pure: chains and rules in, findings out.
//!
//! The fast path goes past netfilter, so with `fastpath = auto` it is on only when going past changes nothing. Each
//! hooked chain of others is walked for three kinds of packet (pod of this node to pod of this node, to and from the
//! rest of the cluster) in three-valued logic: a rule matches always, never, or maybe. A rule that may match and does
//! more than let pass is a finding. What is not understood counts as maybe, never as never.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use corten_netlink::Cidr;
use corten_netlink::nft::{
    Comparison, Expression, Field, HookedChain, LookupInto, Meta, Reading, Register, Verdict,
};

/// All tables of ours begin so.
pub const OWN: &str = "corten-";
/// NFPROTO_*.
const INET: u8 = 1;
const IPV4: u8 = 2;
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;
const IPV6: u8 = 10;
/// NF_INET_LOCAL_IN and NF_INET_LOCAL_OUT: traffic of the node itself.
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
/// Of jumps in a row; the kernel allows 16 (NFT_JUMP_STACK_SIZE).
const DEPTH: usize = 16;

/// What the walk must know about this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// This node's pod CIDRs.
    pub local: Vec<Cidr>,
    /// The cluster's networks.
    pub cluster: Vec<Cidr>,
    /// Bridge, uplink, tunnel devices, pods' veths: what traffic between pods passes.
    pub devices: BTreeSet<String>,
}

/// A chain, by family, table and name. Tables of legacy iptables are called `legacy filter` and so on.
pub type ChainId = (u8, String, String);

/// Everybody's hooked chains, and the rules of each chain that can be reached from them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    pub hooked: Vec<HookedChain>,
    pub rules: BTreeMap<ChainId, Vec<Vec<Reading>>>,
    /// There were not too many to read.
    pub complete: bool,
}

/// A rule of others that would do something to traffic between pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub family: u8,
    pub table: String,
    pub chain: String,
    /// What it does: `drops`, `masquerades`.
    pub effect: String,
    /// To which traffic.
    pub traffic: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            INET => "inet",
            IPV4 => "ip",
            IPV6 => "ip6",
            BRIDGE => "bridge",
            NETDEV => "netdev",
            _ => "other",
        };
        let Self { table, chain, effect, traffic, .. } = self;
        write!(f, "chain {chain} of table {family} {table} {effect} {traffic}")
    }
}

/// The hooked chains that traffic between pods passes and that are not known to leave it alone.
pub fn relevant<'a>(
    hooked: &'a [HookedChain],
    around: &'a Surroundings,
) -> impl Iterator<Item = &'a HookedChain> {
    hooked.iter().filter(|chain| {
        let passes = match chain.family {
            // conntrack's helper kind "route" exists at output alone.
            INET | IPV4 | IPV6 | BRIDGE => chain.hook != INPUT && chain.hook != OUTPUT,
            NETDEV => chain.devices.iter().any(|d| around.devices.contains(d)),
            _ => false,
        };
        passes && !chain.table.starts_with(OWN) && !is_benign_table(chain.family, &chain.table)
    })
}

/// Tables whose rules only concern traffic to the node's own addresses or to Services: hostPort of the portmap plugin
/// and kube-proxy. Flows they translate are kept off the fast path by the programs themselves.
fn is_benign_table(family: u8, table: &str) -> bool {
    matches!((family, table), (IPV4 | IPV6, "cni_hostport" | "kube-proxy"))
}

/// Chains of kube-proxy, kubelet, the portmap plugin and the bridge plugin's MAC check (`ingress` of a pod; the
/// programs check it too). Not kube-router's or other policy engines', which begin with KUBE- as well.
pub fn is_benign_chain(name: &str) -> bool {
    const EXACT: &[&str] = &[
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-POSTROUTING",
        "KUBE-MARK-MASQ",
        "KUBE-MARK-DROP",
        "KUBE-FORWARD",
        "KUBE-PROXY-FIREWALL",
        "KUBE-FIREWALL",
        "KUBE-PROXY-CANARY",
        "KUBE-KUBELET-CANARY",
        "CNI-HOSTPORT-DNAT",
        "CNI-HOSTPORT-SETMARK",
        "CNI-HOSTPORT-MASQ",
    ];
    const PREFIX: &[&str] =
        &["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-FW-", "CNI-DN-", "cni-br-iface-"];
    EXACT.contains(&name) || PREFIX.iter().any(|prefix| name.starts_with(prefix))
}

/// The chains that a rule may call.
pub fn called(rule: &[Reading]) -> Option<&str> {
    rule.iter().find_map(|reading| match reading {
        Reading::Known(Expression::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain))) => {
            Some(chain.as_str())
        }
        _ => None,
    })
}

/// The first finding of each hooked chain.
pub fn findings(ruleset: &Ruleset, around: &Surroundings) -> Vec<Finding> {
    let mut found = Vec::new();
    for chain in relevant(&ruleset.hooked, around) {
        for traffic in kinds(chain.family, around) {
            let walk = Walk { ruleset, around, traffic: &traffic, base: chain };
            if let Some(effect) = walk.base_chain() {
                let (table, name) = (chain.table.clone(), chain.name.clone());
                found.push(Finding {
                    family: chain.family,
                    table,
                    chain: name,
                    effect,
                    traffic: traffic.name,
                });
                break;
            }
        }
    }
    found
}

/// A kind of packet between pods.
struct Traffic {
    name: &'static str,
    source: Cidr,
    destination: Cidr,
}

fn kinds(family: u8, around: &Surroundings) -> Vec<Traffic> {
    let mut kinds = Vec::new();
    for ipv4 in [true, false] {
        if (family == IPV4 && !ipv4) || (family == IPV6 && ipv4) {
            continue;
        }
        let local = around.local.iter().find(|c| c.is_ipv4() == ipv4).copied();
        let cluster = around.cluster.iter().find(|c| c.is_ipv4() == ipv4).copied();
        let Some(local) = local else { continue };
        let kind = |name, source, destination| Traffic { name, source, destination };
        kinds.push(kind("traffic between pods of this node", local, local));
        if let Some(cluster) = cluster {
            kinds.push(kind("traffic to pods of other nodes", local, cluster));
            kinds.push(kind("traffic from pods of other nodes", cluster, local));
        }
    }
    kinds
}

/// Does a match hold for this kind of traffic?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Never,
    Maybe,
    Always,
}

impl Holds {
    fn not(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Maybe => Self::Maybe,
            Self::Always => Self::Never,
        }
    }

    fn when(certain: bool) -> Self {
        if certain { Self::Always } else { Self::Never }
    }
}

/// What a register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Source { bits: u8 },
    Destination { bits: u8 },
    InputName,
    OutputName,
    Family,
    Protocol,
    DestinationType,
    Unknown,
}

/// How walking a chain ended.
enum End {
    /// To the end, or by `return`: the caller goes on.
    Returned,
    Accepted,
    Found(String),
}

struct Walk<'a> {
    ruleset: &'a Ruleset,
    around: &'a Surroundings,
    traffic: &'a Traffic,
    base: &'a HookedChain,
}

impl Walk<'_> {
    fn base_chain(&self) -> Option<String> {
        match self.chain(&self.base.name, DEPTH) {
            End::Accepted => None,
            End::Returned => self.base.drops.then(|| "drops by its policy".into()),
            End::Found(effect) => Some(effect),
        }
    }

    fn chain(&self, name: &str, depth: usize) -> End {
        let id = (self.base.family, self.base.table.clone(), name.to_owned());
        let Some(rules) = self.ruleset.rules.get(&id) else { return End::Returned };
        for rule in rules {
            match self.rule(rule, depth) {
                Step::Next => {}
                Step::End(end) => return end,
            }
        }
        End::Returned
    }

    fn rule(&self, rule: &[Reading], depth: usize) -> Step {
        let mut holds = Holds::Always;
        let mut registers = [Loaded::Unknown; Register::COUNT];
        for reading in rule {
            match self.reading(reading, &mut registers) {
                Meaning::Nothing => {}
                Meaning::Match(Holds::Never) => return Step::Next,
                Meaning::Match(matched) => holds = holds.min(matched),
                Meaning::Effect(effect) => return Step::End(End::Found(effect)),
                Meaning::Verdict(verdict) => return self.verdict(verdict, holds, depth),
            }
        }
        Step::Next
    }

    fn verdict(&self, verdict: &Verdict, holds: Holds, depth: usize) -> Step {
        let certain = holds == Holds::Always;
        match verdict {
            Verdict::Accept if certain => Step::End(End::Accepted),
            Verdict::Return if certain => Step::End(End::Returned),
            // What may pass here may also go on.
            Verdict::Accept | Verdict::Return => Step::Next,
            Verdict::Drop => Step::End(End::Found("drops".into())),
            Verdict::Jump(chain) | Verdict::Goto(chain) if is_benign_chain(chain) => Step::Next,
            Verdict::Jump(_) | Verdict::Goto(_) if depth == 0 => {
                Step::End(End::Found("has too many jumps over".into()))
            }
            Verdict::Jump(chain) => match self.chain(chain, depth - 1) {
                End::Accepted if !certain => Step::Next,
                End::Returned => Step::Next,
                end => Step::End(end),
            },
            Verdict::Goto(chain) => match self.chain(chain, depth - 1) {
                End::Accepted | End::Returned if !certain => Step::Next,
                end => Step::End(end),
            },
        }
    }

    fn reading<'r>(&self, reading: &'r Reading, registers: &mut [Loaded; Register::COUNT]) -> Meaning<'r> {
        match reading {
            Reading::Known(expression) => self.known(expression, registers),
            Reading::Other { name, writes, extension } => {
                // What it loads is not known either.
                *registers = [Loaded::Unknown; Register::COUNT];
                other(name, *writes, extension.as_ref())
            }
        }
    }

    fn known<'r>(
        &self,
        expression: &'r Expression,
        registers: &mut [Loaded; Register::COUNT],
    ) -> Meaning<'r> {
        let slot = Register::index;
        match expression {
            Expression::Payload { field, into } => {
                registers[slot(*into)] = self.payload(*field);
                Meaning::Nothing
            }
            Expression::Meta { key, into } => {
                registers[slot(*into)] = match key {
                    Meta::InputName => Loaded::InputName,
                    Meta::OutputName => Loaded::OutputName,
                    Meta::NetworkProtocol => Loaded::Family,
                    Meta::TransportProtocol => Loaded::Protocol,
                    Meta::Mark => Loaded::Unknown,
                };
                Meaning::Nothing
            }
            Expression::DestinationType { into } => {
                registers[slot(*into)] = Loaded::DestinationType;
                Meaning::Nothing
            }
            Expression::Mask { register, mask } => {
                registers[slot(*register)] = masked(registers[slot(*register)], mask);
                Meaning::Nothing
            }
            Expression::Compare { register, comparison, value } => {
                let equal = self.equals(registers[slot(*register)], value);
                Meaning::Match(if *comparison == Comparison::Equal { equal } else { equal.not() })
            }
            // A survey reads matches of iptables as `Reading::Other`.
            Expression::Match { .. } | Expression::Lookup { into: LookupInto::Nothing, .. } => {
                Meaning::Match(Holds::Maybe)
            }
            Expression::Lookup { into: LookupInto::Verdict, set, .. } => {
                Meaning::Effect(format!("leaves to map {set} what becomes of"))
            }
            Expression::Conntrack { into, .. } | Expression::Random { into, .. } => {
                registers[slot(*into)] = Loaded::Unknown;
                Meaning::Nothing
            }
            Expression::Lookup { .. } | Expression::Immediate { .. } => {
                *registers = [Loaded::Unknown; Register::COUNT];
                Meaning::Nothing
            }
            Expression::Verdict(verdict) => Meaning::Verdict(verdict),
            Expression::Counter { .. } | Expression::Notrack => Meaning::Nothing,
            Expression::Update { set, .. } => Meaning::Effect(format!("remembers in set {set} who sent")),
            Expression::Reject(_) => Meaning::Effect("rejects".into()),
            Expression::Masquerade | Expression::MasqueradeFullyRandom => {
                Meaning::Effect("masquerades".into())
            }
            Expression::Nat { .. } | Expression::Redirect { .. } => Meaning::Effect("translates".into()),
        }
    }

    fn payload(&self, field: Field) -> Loaded {
        let v4 = self.traffic.source.is_ipv4();
        let Field::Network { offset, len } = field else { return Loaded::Unknown };
        // A prefix of whole bytes is loaded as just these bytes.
        let bits = (len.min(16) * 8) as u8;
        match (v4, offset) {
            (true, 12) | (false, 8) => Loaded::Source { bits },
            (true, 16) | (false, 24) => Loaded::Destination { bits },
            (true, 9) | (false, 6) if len == 1 => Loaded::Protocol,
            _ => Loaded::Unknown,
        }
    }

    fn equals(&self, loaded: Loaded, value: &[u8]) -> Holds {
        match loaded {
            Loaded::Source { bits } => in_range(self.traffic.source, value, bits),
            Loaded::Destination { bits } => in_range(self.traffic.destination, value, bits),
            Loaded::InputName | Loaded::OutputName => self.device(value),
            Loaded::Family => {
                let ours = if self.traffic.source.is_ipv4() { IPV4 } else { IPV6 };
                Holds::when(value.first() == Some(&ours))
            }
            Loaded::Protocol => match value.first().map(|p| i32::from(*p)) {
                Some(libc_tcp) if [6, 17, 1, 58].contains(&libc_tcp) => Holds::Maybe,
                // The fast path leaves all others to the kernel anyway.
                Some(_) => Holds::Never,
                None => Holds::Maybe,
            },
            // RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST: a pod of a cluster is none of these.
            Loaded::DestinationType => match value.first() {
                Some(2 | 3 | 5) => Holds::Never,
                _ => Holds::Maybe,
            },
            Loaded::Unknown => Holds::Maybe,
        }
    }

    /// A name, or the beginning of one (`cni*`): then it has no NUL.
    fn device(&self, value: &[u8]) -> Holds {
        let end = value.iter().position(|b| *b == 0);
        let wanted = &value[..end.unwrap_or(value.len())];
        let hit = |name: &String| match end {
            Some(_) => name.as_bytes() == wanted,
            None => name.as_bytes().starts_with(wanted),
        };
        if self.around.devices.iter().any(hit) { Holds::Maybe } else { Holds::Never }
    }
}

enum Step {
    Next,
    End(End),
}

enum Meaning<'a> {
    Nothing,
    Match(Holds),
    Verdict(&'a Verdict),
    Effect(String),
}

fn masked(loaded: Loaded, mask: &[u8]) -> Loaded {
    let ones = mask.iter().map(|b| b.count_ones()).sum::<u32>() as u8;
    let leading = mask.iter().take_while(|b| **b == 0xff).count() * 8
        + mask.iter().find(|b| **b != 0xff).map_or(0, |b| b.leading_ones() as usize);
    let is_prefix = usize::from(ones) == leading;
    match loaded {
        Loaded::Source { bits } if is_prefix => Loaded::Source { bits: bits.min(ones) },
        Loaded::Destination { bits } if is_prefix => Loaded::Destination { bits: bits.min(ones) },
        _ => Loaded::Unknown,
    }
}

/// Is an address of `range` in the network whose first `bits` are those of `value`?
fn in_range(range: Cidr, value: &[u8], bits: u8) -> Holds {
    let mut bytes = value.to_vec();
    bytes.resize(usize::from(range.width() / 8), 0);
    let address = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => match <[u8; 16]>::try_from(&bytes[..]) {
            Ok(v6) => IpAddr::from(v6),
            Err(_) => return Holds::Maybe,
        },
    };
    let Some(network) = Cidr::new(address, bits) else { return Holds::Maybe };
    if network.contains(range.network().address()) && network.prefix() <= range.prefix() {
        Holds::Always
    } else if network.overlaps(range) {
        Holds::Maybe
    } else {
        Holds::Never
    }
}

/// Expressions this program does not write.
fn other(name: &str, writes: bool, extension: Option<&(String, Vec<u8>)>) -> Meaning<'static> {
    match (name, extension) {
        ("match", Some((extension, info))) => Meaning::Match(iptables_match(extension, info)),
        ("target", Some((extension, _))) => Meaning::Effect(format!("has the target {extension} for")),
        ("notrack", _) => Meaning::Nothing,
        ("reject", _) => Meaning::Effect("rejects".into()),
        (
            "queue" | "tproxy" | "synproxy" | "dup" | "fwd" | "log" | "dynset" | "objref" | "flow_offload"
            | "masq" | "nat" | "redir" | "last",
            _,
        ) => Meaning::Effect(format!("has the statement {name} for")),
        // A verdict that is not known (queue, continue).
        ("immediate", _) => Meaning::Match(Holds::Maybe),
        _ if writes => Meaning::Effect(format!("sets {name} of")),
        _ => Meaning::Match(Holds::Maybe),
    }
}

fn iptables_match(extension: &str, info: &[u8]) -> Holds {
    match extension {
        "comment" => Holds::Always,
        // struct xt_addrtype_info_v1: source and destination types as masks, then flags (2: destination inverted).
        "addrtype" => match (info.get(2..4), info.get(4)) {
            (Some(&[low, high]), Some(flags)) => {
                // 1 << RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST.
                const NO_POD: u16 = 1 << 2 | 1 << 3 | 1 << 5;
                let types = u16::from_ne_bytes([low, high]);
                let never = types != 0 && types & !NO_POD == 0 && flags & 2 == 0;
                if never { Holds::Never } else { Holds::Maybe }
            }
            _ => Holds::Maybe,
        },
        _ => Holds::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_netlink::nft::{self, Direction, Transport};

    const FORWARD: u32 = 2;

    fn around() -> Surroundings {
        Surroundings {
            local: vec![cidr("10.244.1.0/24"), cidr("fd00:1::/64")],
            cluster: vec![cidr("10.244.0.0/16"), cidr("fd00::/16")],
            devices: ["cni0", "eth0", "flannel.1", "veth1"].map(str::to_owned).into(),
        }
    }

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn known(list: Vec<Expression>) -> Vec<Reading> {
        list.into_iter().map(Reading::Known).collect()
    }

    fn saddr(text: &str) -> Vec<Reading> {
        known(nft::address(false, Direction::Source, Comparison::Equal, cidr(text)))
    }

    fn not_daddr(text: &str) -> Vec<Reading> {
        known(nft::address(false, Direction::Destination, Comparison::NotEqual, cidr(text)))
    }

    fn iif(name: &str) -> Vec<Reading> {
        known(nft::interface(Meta::InputName, Comparison::Equal, name))
    }

    fn verdict(verdict: Verdict) -> Vec<Reading> {
        known(vec![Expression::Verdict(verdict)])
    }

    fn extension(name: &str, extension: &str, info: &[u8]) -> Vec<Reading> {
        let extension = Some((extension.to_owned(), info.to_vec()));
        vec![Reading::Other { name: name.into(), writes: false, extension }]
    }

    fn hooked(family: u8, table: &str, hook: u32, drops: bool) -> HookedChain {
        let (table, name, kind) = (table.to_owned(), "c".to_owned(), "filter".to_owned());
        HookedChain { family, table, name, hook, kind, drops, devices: vec![] }
    }

    /// The effects found in one chain of these rules, in table `ip filter`, at hook forward.
    fn judge(drops: bool, rules: Vec<Vec<Vec<Reading>>>) -> Option<String> {
        let rules = rules.into_iter().map(|parts| parts.concat()).collect();
        let ruleset = Ruleset {
            hooked: vec![hooked(IPV4, "filter", FORWARD, drops)],
            rules: BTreeMap::from([((IPV4, "filter".into(), "c".into()), rules)]),
            complete: true,
        };
        findings(&ruleset, &around()).pop().map(|f| f.to_string())
    }

    fn found(effect: &str, traffic: &str) -> Option<String> {
        let text = format!("chain c of table ip filter {effect} traffic {traffic}");
        (!effect.is_empty()).then_some(text)
    }

    const HERE: &str = "between pods of this node";
    const AWAY: &str = "to pods of other nodes";

    #[test]
    fn rules_about_others_leave_pods_alone() {
        for rule in [
            vec![saddr("192.168.0.0/16"), verdict(Verdict::Drop)],
            vec![iif("docker0"), verdict(Verdict::Drop)],
            vec![not_daddr("10.0.0.0/8"), known(vec![Expression::Masquerade])],
            vec![known(nft::destination_is_local()), verdict(Verdict::Drop)],
            vec![extension("match", "addrtype", &[0, 0, 4, 0, 0, 0, 0, 0]), verdict(Verdict::Drop)],
            vec![
                known(nft::destination_port(Transport::Sctp, Comparison::Equal, 80)),
                verdict(Verdict::Drop),
            ],
            vec![known(vec![Expression::Counter { packets: 0, bytes: 0 }])],
            vec![saddr("10.244.0.0/16"), verdict(Verdict::Accept)],
            vec![verdict(Verdict::Jump("KUBE-FORWARD".into()))],
        ] {
            assert_eq!(judge(false, vec![rule.clone()]), None, "{rule:?}");
        }
    }

    #[test]
    fn what_may_match_and_does_something_is_found() {
        for (rule, wanted) in [
            (vec![verdict(Verdict::Drop)], found("drops", HERE)),
            (vec![saddr("10.244.1.7/32"), verdict(Verdict::Drop)], found("drops", HERE)),
            (
                vec![not_daddr("10.244.1.0/24"), known(vec![Expression::Masquerade])],
                found("masquerades", AWAY),
            ),
            (vec![iif("cni0"), verdict(Verdict::Drop)], found("drops", HERE)),
            (
                vec![
                    known(nft::destination_port(Transport::Tcp, Comparison::Equal, 80)),
                    verdict(Verdict::Drop),
                ],
                found("drops", HERE),
            ),
            (vec![extension("match", "conntrack", &[]), verdict(Verdict::Drop)], found("drops", HERE)),
            (vec![extension("target", "TCPMSS", &[])], found("has the target TCPMSS for", HERE)),
            (
                vec![vec![Reading::Other { name: "meta".into(), writes: true, extension: None }]],
                found("sets meta of", HERE),
            ),
        ] {
            assert_eq!(judge(false, vec![rule]), wanted);
        }
    }

    #[test]
    fn a_policy_of_drop_is_found_unless_pods_are_surely_accepted_before() {
        assert_eq!(judge(true, vec![]), found("drops by its policy", HERE));
        let accept = |text| vec![saddr(text), verdict(Verdict::Accept)];
        assert_eq!(judge(true, vec![accept("10.244.0.0/16")]), None);
        assert_eq!(
            judge(true, vec![accept("10.244.1.0/24")]),
            Some("chain c of table ip filter drops by its policy traffic from pods of other nodes".into())
        );
        let maybe = vec![extension("match", "conntrack", &[]), verdict(Verdict::Accept)];
        assert_eq!(judge(true, vec![maybe]), found("drops by its policy", HERE));
    }

    #[test]
    fn jumps_are_followed_and_return_comes_back() {
        let rules = |inner: Vec<Vec<Reading>>, outer: Vec<Reading>| Ruleset {
            hooked: vec![hooked(IPV4, "filter", FORWARD, false)],
            rules: BTreeMap::from([
                ((IPV4, "filter".into(), "c".into()), vec![outer, verdict(Verdict::Drop)]),
                ((IPV4, "filter".into(), "inner".into()), inner),
            ]),
            complete: true,
        };
        let jump = || verdict(Verdict::Jump("inner".into()));
        let effects = |ruleset: &Ruleset| findings(ruleset, &around()).len();
        assert_eq!(effects(&rules(vec![verdict(Verdict::Accept)], jump())), 0);
        assert_eq!(effects(&rules(vec![verdict(Verdict::Return), verdict(Verdict::Accept)], jump())), 1);
        assert_eq!(
            effects(&rules(vec![verdict(Verdict::Return)], verdict(Verdict::Goto("inner".into())))),
            0
        );
        let itself = verdict(Verdict::Jump("inner".into()));
        assert_eq!(effects(&rules(vec![itself], jump())), 1, "a loop ends");
    }

    #[test]
    fn chains_off_the_way_and_known_tables_are_not_walked() {
        let chains = [
            hooked(IPV4, "filter", INPUT, true),
            hooked(INET, "corten-services", FORWARD, true),
            hooked(IPV4, "kube-proxy", FORWARD, true),
            hooked(NETDEV, "t", 0, true),
            hooked(3, "arp", 1, true),
        ];
        assert_eq!(relevant(&chains, &around()).count(), 0);
        let mut ours = hooked(NETDEV, "t", 0, true);
        ours.devices = vec!["veth1".into()];
        assert_eq!(relevant(&[ours], &around()).count(), 1);
        for policy in ["KUBE-ROUTER-FORWARD", "KUBE-NWPLCY-X", "cali-FORWARD"] {
            assert!(!is_benign_chain(policy), "{policy}");
        }
    }

    #[test]
    fn a_prefix_of_whole_bytes_may_be_loaded_short() {
        let short = |bytes: &[u8]| {
            let field = Field::Network { offset: 12, len: bytes.len() as u32 };
            let into = Register::One;
            let value = bytes.to_vec();
            known(vec![
                Expression::Payload { field, into },
                Expression::Compare { register: into, comparison: Comparison::Equal, value },
            ])
        };
        assert_eq!(judge(true, vec![vec![short(&[10, 244]), verdict(Verdict::Accept)]]), None);
        assert_eq!(judge(false, vec![vec![short(&[10, 9]), verdict(Verdict::Drop)]]), None);
    }
}
