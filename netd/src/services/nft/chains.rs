//! The rules of every chain.

use std::net::SocketAddr;

use corten_netlink::message::address_bytes;
use corten_netlink::nft::{
    self, BaseChain, CT_STATUS_DNAT, Comparison, Conntrack, Direction, Expression, Field, Hook, LookupInto,
    Meta, Register, Reject, Translation, Transport, Verdict,
};
use ipnetwork::IpNetwork;

use super::Chain;
use crate::services::model::Family;

pub const REFUSE: &str = "refuse";
pub const DROP: &str = "drop";
pub const MASQUERADE: &str = "masquerade";
pub const OFF_CLUSTER: &str = "off-cluster";
pub const KEEP: &str = "keep";
const SERVICES: &str = "services";
const INSIDE: &str = "inside";

/// `dstnat` and `srcnat`.
const BEFORE_ROUTING: i32 = -100;
const AFTER_ROUTING: i32 = 100;

type Rule = Vec<Expression>;

fn rule(parts: impl IntoIterator<Item = Rule>) -> Rule {
    parts.into_iter().flatten().collect()
}

/// The chains that are there whatever the Services are.
pub fn fixed(pod_networks: &[IpNetwork]) -> Vec<(&'static str, Chain)> {
    let base = |hook, priority, rules| {
        let base = Some(BaseChain { hook, kind: "nat", priority });
        Chain { base, rules }
    };
    let plain = |rules| Chain { base: None, rules };
    let from_pods = pod_networks.iter().map(|network| rule([from(*network), verdict(jump(INSIDE))]));
    let prerouting = from_pods.chain([verdict(jump(SERVICES))]).collect();
    let output = vec![verdict(jump(INSIDE)), verdict(jump(SERVICES))];
    vec![
        ("prerouting", base(Hook::Prerouting, BEFORE_ROUTING, prerouting)),
        ("output", base(Hook::Output, BEFORE_ROUTING, output)),
        ("postrouting", base(Hook::Postrouting, AFTER_ROUTING, postrouting())),
        (SERVICES, plain(services())),
        (INSIDE, plain(frontends("inside-"))),
        (REFUSE, plain(refuse())),
        (DROP, plain(vec![verdict(Verdict::Drop)])),
        (KEEP, plain(vec![verdict(Verdict::Accept)])),
        (MASQUERADE, plain(vec![vec![Expression::MasqueradeFullyRandom]])),
        (OFF_CLUSTER, plain(off_cluster(pod_networks))),
    ]
}

/// By address, then by node port.
fn frontends(view: &str) -> Vec<Rule> {
    let by_address = Family::BOTH.map(|family| {
        let map = format!("{view}frontends-{}", family.name());
        rule([is(family), destination(family, 0), lookup(map, 0, LookupInto::Verdict)])
    });
    let node_port = rule([
        vec![Expression::Meta { key: Meta::NetworkProtocol, into: Register::word(0) }],
        protocol_and_port(1),
        lookup(format!("{view}node-ports"), 0, LookupInto::Verdict),
    ]);
    by_address.into_iter().chain([node_port]).collect()
}

fn services() -> Vec<Rule> {
    let unserved = Family::BOTH.map(|family| {
        let addresses = format!("cluster-ips-{}", family.name());
        let load = payload(Direction::Destination, family, 0);
        rule([is(family), load, lookup(addresses, 0, LookupInto::Nothing), verdict(goto(REFUSE))])
    });
    frontends("").into_iter().chain(unserved).collect()
}

fn refuse() -> Vec<Rule> {
    let tcp = nft::destination_port(Transport::Tcp, Comparison::Equal, 0)[..2].to_vec();
    vec![
        rule([tcp, vec![Expression::Reject(Reject::TcpReset)]]),
        vec![Expression::Reject(Reject::PortUnreachable)],
    ]
}

fn postrouting() -> Vec<Rule> {
    let untouched = rule([
        vec![
            Expression::Conntrack { key: Conntrack::Status, into: Register::word(0) },
            Expression::Mask { register: Register::word(0), mask: CT_STATUS_DNAT.to_ne_bytes().to_vec() },
        ],
        compare(Comparison::Equal, &[0; 4]),
        verdict(Verdict::Accept),
    ]);
    let hairpins = Family::BOTH.map(|family| {
        let pair = rule([
            payload(Direction::Source, family, 0),
            payload(Direction::Destination, family, words(family)),
        ]);
        let set = format!("hairpin-{}", family.name());
        rule([is(family), pair, lookup(set, 0, LookupInto::Nothing), verdict(goto(MASQUERADE))])
    });
    let addressed = Family::BOTH.map(|family| {
        let key = match family {
            Family::V4 => Conntrack::OriginalDestination4,
            Family::V6 => Conntrack::OriginalDestination6,
        };
        let address = vec![Expression::Conntrack { key, into: Register::word(0) }];
        let map = format!("sources-{}", family.name());
        let flow = original_protocol_and_port(words(family));
        rule([is(family), address, flow, lookup(map, 0, LookupInto::Verdict)])
    });
    let node_port = rule([
        vec![Expression::Meta { key: Meta::NetworkProtocol, into: Register::word(0) }],
        original_protocol_and_port(1),
        lookup("node-sources".into(), 0, LookupInto::Verdict),
    ]);
    [untouched].into_iter().chain(hairpins).chain(addressed).chain([node_port]).collect()
}

/// Without a known network of pods in a family nobody there can be said to be outside.
fn off_cluster(pod_networks: &[IpNetwork]) -> Vec<Rule> {
    let unknown = Family::BOTH
        .into_iter()
        .filter(|family| pod_networks.iter().all(|network| Family::of(network.ip()) != *family))
        .map(|family| rule([is(family), verdict(Verdict::Accept)]));
    let pods = pod_networks.iter().map(|network| rule([from(*network), verdict(Verdict::Accept)]));
    unknown.chain(pods).chain([verdict(goto(MASQUERADE))]).collect()
}

/// One of `count` backends of the frontend, whose map is keyed by what `key` loads and the number drawn.
pub fn pick(family: Family, addressed: bool, count: usize, map: String) -> Chain {
    let key_words = if addressed { words(family) + 2 } else { 2 };
    let load = if addressed { destination(family, 0) } else { protocol_and_port(0) };
    let draw = vec![Expression::Random { modulus: count as u32, into: Register::word(key_words) }];
    let found = key_words + 1;
    let into = LookupInto::Register(Register::word(found));
    let rules = vec![rule([is(family), load, draw, lookup(map, 0, into), translate(family, found)])];
    Chain { base: None, rules }
}

/// To the endpoint that has the client in its set; else one of them at random. `endpoints`: their chains and sets.
pub fn sticky<'a>(
    family: Family,
    endpoints: impl Iterator<Item = (&'a String, &'a String)>,
    count: usize,
    map: String,
) -> Chain {
    let known = endpoints.map(|(chain, clients)| {
        let client = payload(Direction::Source, family, 0);
        rule([is(family), client, lookup(clients.clone(), 0, LookupInto::Nothing), verdict(goto(chain))])
    });
    let draw = vec![Expression::Random { modulus: count as u32, into: Register::word(0) }];
    let new = rule([draw, lookup(map, 0, LookupInto::Verdict)]);
    Chain { base: None, rules: known.chain([new]).collect() }
}

/// Remembers the client for a time. When the set is full the client is served all the same.
pub fn endpoint(backend: SocketAddr, clients: String, timeout_s: u32) -> Chain {
    let family = Family::of(backend.ip());
    let timeout_ms = u64::from(timeout_s) * 1000;
    let remember = vec![Expression::Update { set: clients, key: Register::word(0), timeout_ms }];
    let immediate = vec![
        Expression::Immediate { into: Register::word(0), value: address_bytes(backend.ip()) },
        Expression::Immediate {
            into: Register::word(words(family)),
            value: backend.port().to_be_bytes().to_vec(),
        },
    ];
    let rules = vec![
        rule([is(family), payload(Direction::Source, family, 0), remember]),
        rule([immediate, translate(family, 0)]),
    ];
    Chain { base: None, rules }
}

/// Before `target`: only sources in the set of allowed ones.
pub fn guarded(family: Family, target: &str) -> Chain {
    let client =
        rule([is(family), payload(Direction::Source, family, 0), destination(family, words(family))]);
    let stranger = vec![Expression::Lookup {
        set: format!("allowed-{}", family.name()),
        register: Register::word(0),
        into: LookupInto::Nothing,
        inverted: true,
    }];
    let rules = vec![rule([client, stranger, verdict(Verdict::Drop)]), verdict(goto(target))];
    Chain { base: None, rules }
}

/// Before `target`: only destinations that are the node's, beside loopback (from there the answer would not find back).
pub fn on_node(family: Family, target: &str) -> Chain {
    let local = u32::from(RTN_LOCAL).to_ne_bytes();
    let elsewhere = rule([
        vec![Expression::DestinationType { into: Register::word(0) }],
        compare(Comparison::NotEqual, &local),
        verdict(Verdict::Return),
    ]);
    let loopback = match family {
        Family::V4 => "127.0.0.0/8",
        Family::V6 => "::1/128",
    };
    let loopback = loopback.parse().expect("a constant network");
    let loopback = rule([
        nft::address(true, Direction::Destination, Comparison::Equal, loopback),
        verdict(Verdict::Return),
    ]);
    Chain { base: None, rules: vec![elsewhere, loopback, verdict(goto(target))] }
}

const RTN_LOCAL: u8 = 2;

/// How many words an address takes.
fn words(family: Family) -> usize {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

fn verdict(verdict: Verdict) -> Rule {
    vec![Expression::Verdict(verdict)]
}

fn jump(chain: &str) -> Verdict {
    Verdict::Jump(chain.to_owned())
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain.to_owned())
}

fn compare(comparison: Comparison, value: &[u8]) -> Rule {
    vec![Expression::Compare { register: Register::word(0), comparison, value: value.to_vec() }]
}

fn is(family: Family) -> Rule {
    rule([
        vec![Expression::Meta { key: Meta::NetworkProtocol, into: Register::word(0) }],
        compare(Comparison::Equal, &[family.number()]),
    ])
}

fn from(network: IpNetwork) -> Rule {
    let cidr =
        corten_netlink::Cidr::new(network.network(), network.prefix()).expect("a network's own prefix");
    nft::address(true, Direction::Source, Comparison::Equal, cidr)
}

fn payload(direction: Direction, family: Family, word: usize) -> Rule {
    let (offset, len) = match (family, direction) {
        (Family::V4, Direction::Source) => (12, 4),
        (Family::V4, Direction::Destination) => (16, 4),
        (Family::V6, Direction::Source) => (8, 16),
        (Family::V6, Direction::Destination) => (24, 16),
    };
    vec![Expression::Payload { field: Field::Network { offset, len }, into: Register::word(word) }]
}

fn protocol(word: usize) -> Rule {
    vec![Expression::Meta { key: Meta::TransportProtocol, into: Register::word(word) }]
}

fn protocol_and_port(word: usize) -> Rule {
    let port =
        Expression::Payload { field: Field::Transport { offset: 2, len: 2 }, into: Register::word(word + 1) };
    rule([protocol(word), vec![port]])
}

fn original_protocol_and_port(word: usize) -> Rule {
    let port =
        Expression::Conntrack { key: Conntrack::OriginalDestinationPort, into: Register::word(word + 1) };
    rule([protocol(word), vec![port]])
}

/// Address, protocol, port.
fn destination(family: Family, word: usize) -> Rule {
    rule([payload(Direction::Destination, family, word), protocol_and_port(word + words(family))])
}

fn lookup(set: String, word: usize, into: LookupInto) -> Rule {
    vec![Expression::Lookup { set, register: Register::word(word), into, inverted: false }]
}

/// To the address at `word` and the port after it.
fn translate(family: Family, word: usize) -> Rule {
    vec![Expression::Nat {
        translation: Translation::Destination,
        ipv4: family == Family::V4,
        address: Some(Register::word(word)),
        port: Some(Register::word(word + words(family))),
    }]
}
