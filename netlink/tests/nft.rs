//! nf_tables against the kernel and against nft(8): what we write must list exactly as what nft writes.
//! Each test is a thread with a network namespace of its own; the kernel drops everything with it.

use std::io::Write;
use std::process::{Command, Stdio};

use corten_netlink::nft::{
    self, BaseChain, Batch, Chain, Comparison, Conntrack, DataType, Direction, Element, ElementData,
    Elements, Expression, Family, Field, Hook, LookupInto, Meta, Register, Reject, Rule, Set, SetKind, Table,
    Translation, Transport, Verdict,
};
use corten_netlink::{Protocol, Socket};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

fn private_network() -> Socket {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, as root");
    Socket::open(Protocol::Netfilter).expect("a socket")
}

/// Runs nft(8) in this thread's namespace; `None` when it is not installed.
fn nft(arguments: &[&str], input: &str) -> Option<String> {
    let spawned = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        println!("SKIP: nft(8) is not installed (apt-get install nftables)");
        return None;
    };
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

fn cidr(text: &str) -> corten_netlink::Cidr {
    text.parse().expect("a cidr")
}

/// Commits `batch`, lets nft load `text` as table `theirs`, and compares the listings.
fn check(family: Family, family_name: &str, text: &str, fill: impl FnOnce(&mut Batch, Table<'_>)) {
    let mut socket = private_network();
    let ours = Table { family, name: "ours" };
    let mut batch = Batch::new();
    fill(&mut batch, ours);
    batch.commit(&mut socket).expect("the kernel takes our batch");
    let theirs = format!("table {family_name} theirs {{\n{text}\n}}\n");
    if nft(&["-f", "-"], &theirs).is_none() {
        return;
    }
    let listed = |name: &str| nft(&["-n", "list", "table", family_name, name], "").expect("nft is here");
    assert_eq!(listed("ours").replace("ours", "theirs"), listed("theirs"));
}

fn rule(parts: Vec<Vec<Expression>>, comment: Option<&str>) -> Rule<'_> {
    Rule { expressions: parts.into_iter().flatten().collect(), comment, tag: comment }
}

fn verdict(verdict: Verdict) -> Vec<Expression> {
    vec![Expression::Verdict(verdict)]
}

fn dnat(ipv4: bool, address: &str, port: u16) -> Vec<Expression> {
    let address: std::net::IpAddr = address.parse().expect("an address");
    vec![
        Expression::Immediate { into: Register::One, value: corten_netlink::message::address_bytes(address) },
        Expression::Immediate { into: Register::Two, value: port.to_be_bytes().to_vec() },
        Expression::Nat {
            translation: Translation::Destination,
            ipv4,
            address: Some(Register::One),
            port: Some(Register::Two),
        },
    ]
}

#[test]
fn base_chains_with_nat_list_as_nft_writes_them() {
    check(
        Family::Ipv4,
        "ip",
        r#"chain hostports {
            ip daddr 192.0.2.1 tcp dport 8080 dnat to 10.1.0.2:80 comment "pod-1"
            udp dport 53 dnat to 10.1.0.2:5353
            sctp dport != 9 drop
        }
        chain prerouting {
            type nat hook prerouting priority -100; policy accept;
            ip saddr != 10.0.0.0/8 fib daddr type local jump hostports
        }
        chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ip saddr 127.0.0.1 ip daddr 10.1.0.2 masquerade comment "pod-1"
            oifname "lo" return
        }
        chain output {
            type nat hook output priority -100; policy accept;
            tcp dport 81 redirect to :82
            counter packets 0 bytes 0 accept
        }"#,
        |batch, table| {
            let base = |hook, priority| Some(BaseChain { hook, kind: "nat", priority });
            let address = |d, c, text| nft::address(false, d, c, cidr(text));
            let (source, destination) = (Direction::Source, Direction::Destination);
            let (equal, not_equal) = (Comparison::Equal, Comparison::NotEqual);
            batch
                .add_table(table, None)
                .add_chain(table, &Chain { name: "hostports", base: None, comment: None })
                .add_chain(
                    table,
                    &Chain { name: "prerouting", base: base(Hook::Prerouting, -100), comment: None },
                )
                .add_chain(
                    table,
                    &Chain { name: "postrouting", base: base(Hook::Postrouting, 100), comment: None },
                )
                .add_chain(table, &Chain { name: "output", base: base(Hook::Output, -100), comment: None });
            let rules: Vec<(&str, Rule<'_>)> = vec![
                (
                    "hostports",
                    rule(
                        vec![
                            address(destination, equal, "192.0.2.1/32"),
                            nft::destination_port(Transport::Tcp, equal, 8080),
                            dnat(true, "10.1.0.2", 80),
                        ],
                        Some("pod-1"),
                    ),
                ),
                (
                    "hostports",
                    rule(
                        vec![nft::destination_port(Transport::Udp, equal, 53), dnat(true, "10.1.0.2", 5353)],
                        None,
                    ),
                ),
                (
                    "hostports",
                    rule(
                        vec![nft::destination_port(Transport::Sctp, not_equal, 9), verdict(Verdict::Drop)],
                        None,
                    ),
                ),
                (
                    "prerouting",
                    rule(
                        vec![
                            address(source, not_equal, "10.0.0.0/8"),
                            nft::destination_is_local(),
                            verdict(Verdict::Jump("hostports".into())),
                        ],
                        None,
                    ),
                ),
                (
                    "postrouting",
                    rule(
                        vec![
                            address(source, equal, "127.0.0.1/32"),
                            address(destination, equal, "10.1.0.2/32"),
                            vec![Expression::Masquerade],
                        ],
                        Some("pod-1"),
                    ),
                ),
                (
                    "postrouting",
                    rule(vec![nft::interface(Meta::OutputName, equal, "lo"), verdict(Verdict::Return)], None),
                ),
                (
                    "output",
                    rule(
                        vec![
                            nft::destination_port(Transport::Tcp, equal, 81),
                            vec![
                                Expression::Immediate {
                                    into: Register::One,
                                    value: 82_u16.to_be_bytes().to_vec(),
                                },
                                Expression::Redirect { port: Some(Register::One) },
                            ],
                        ],
                        None,
                    ),
                ),
                (
                    "output",
                    rule(
                        vec![vec![Expression::Counter { packets: 0, bytes: 0 }], verdict(Verdict::Accept)],
                        None,
                    ),
                ),
            ];
            for (chain, rule) in &rules {
                batch.add_rule(table, chain, rule);
            }
        },
    );
}

#[test]
fn both_families_in_an_inet_table_list_as_nft_writes_them() {
    check(
        Family::Inet,
        "inet",
        r#"comment "a table"
        chain checks {
            comment "a chain"
            ip saddr 10.1.0.2 ip daddr != 10.1.0.0/16 masquerade comment "h, net: a"
            ip6 saddr fd00::2 ip6 daddr != fd00::/64 masquerade
        }
        chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ip daddr 224.0.0.0/4 return
            ip6 daddr ff00::/8 return
            goto checks
        }"#,
        |batch, table| {
            let masquerade = |source: &str, network: &str| {
                vec![
                    nft::address(true, Direction::Source, Comparison::Equal, cidr(source)),
                    nft::address(true, Direction::Destination, Comparison::NotEqual, cidr(network)),
                    vec![Expression::Masquerade],
                ]
            };
            let multicast = |network: &str| {
                vec![
                    nft::address(true, Direction::Destination, Comparison::Equal, cidr(network)),
                    verdict(Verdict::Return),
                ]
            };
            let base = BaseChain { hook: Hook::Postrouting, kind: "nat", priority: 100 };
            batch
                .add_table(table, Some("a table"))
                .add_chain(table, &Chain { name: "checks", base: None, comment: Some("a chain") })
                .add_chain(table, &Chain { name: "postrouting", base: Some(base), comment: None })
                .add_rule(table, "checks", &rule(masquerade("10.1.0.2/32", "10.1.0.0/16"), Some("h, net: a")))
                .add_rule(table, "checks", &rule(masquerade("fd00::2/128", "fd00::/64"), None))
                .add_rule(table, "postrouting", &rule(multicast("224.0.0.0/4"), None))
                .add_rule(table, "postrouting", &rule(multicast("ff00::/8"), None))
                .add_rule(table, "postrouting", &rule(vec![verdict(Verdict::Goto("checks".into()))], None));
        },
    );
}

#[test]
fn sets_maps_and_verdict_maps_list_as_nft_writes_them() {
    check(
        Family::Ipv4,
        "ip",
        r#"set pods {
            type ipv4_addr
            comment "all pods"
            elements = { 10.1.0.2 comment "pod-1", 10.1.0.3 }
        }
        map ports {
            type inet_service : inet_service
            elements = { 80 : 8080 }
        }
        map verdicts {
            type inet_proto . inet_service : verdict
            elements = { 6 . 80 : goto web }
        }
        map byport {
            type inet_service : verdict
            elements = { 80 : jump web }
        }
        chain web { }
        chain checks {
            ip saddr != @pods drop
            ip saddr @pods accept
            tcp dport vmap @byport
        }"#,
        |batch, table| {
            let element = |key: &[u8], data, comment: Option<&str>| Element {
                key: key.to_vec(),
                data,
                comment: comment.map(str::to_owned),
                ..Element::default()
            };
            let plain =
                |name, key, kind, comment| Set { name, key, kind, elements: Elements::Single, comment };
            batch
                .add_table(table, None)
                .add_chain(table, &Chain { name: "web", base: None, comment: None })
                .add_chain(table, &Chain { name: "checks", base: None, comment: None })
                .add_set(table, &plain("pods", &[DataType::Ipv4Address], SetKind::Plain, Some("all pods")))
                .add_set(table, &plain("ports", &[DataType::Port], SetKind::Values(&[DataType::Port]), None))
                .add_set(
                    table,
                    &plain(
                        "verdicts",
                        &[DataType::TransportProtocol, DataType::Port],
                        SetKind::Verdicts,
                        None,
                    ),
                )
                .add_set(table, &plain("byport", &[DataType::Port], SetKind::Verdicts, None))
                .add_elements(
                    table,
                    "byport",
                    &[element(&[0, 80], Some(ElementData::Verdict(Verdict::Jump("web".into()))), None)],
                )
                .add_elements(
                    table,
                    "pods",
                    &[element(&[10, 1, 0, 2], None, Some("pod-1")), element(&[10, 1, 0, 3], None, None)],
                )
                .add_elements(
                    table,
                    "ports",
                    &[element(&[0, 80], Some(ElementData::Value(vec![0x1f, 0x90])), None)],
                )
                .add_elements(
                    table,
                    "verdicts",
                    &[element(
                        &[6, 0, 0, 0, 0, 80, 0, 0],
                        Some(ElementData::Verdict(Verdict::Goto("web".into()))),
                        None,
                    )],
                );
            let source =
                Expression::Payload { field: Field::Network { offset: 12, len: 4 }, into: Register::One };
            let lookup = |set: &str, into, inverted| Expression::Lookup {
                set: set.into(),
                register: Register::One,
                into,
                inverted,
            };
            let pods = |inverted, end| {
                rule(
                    vec![vec![source.clone(), lookup("pods", LookupInto::Nothing, inverted)], verdict(end)],
                    None,
                )
            };
            batch.add_rule(table, "checks", &pods(true, Verdict::Drop)).add_rule(
                table,
                "checks",
                &pods(false, Verdict::Accept),
            );
            let mut by_port = nft::destination_port(Transport::Tcp, Comparison::Equal, 0);
            by_port.pop();
            by_port.push(lookup("byport", LookupInto::Verdict, false));
            batch.add_rule(table, "checks", &rule(vec![by_port], None));
        },
    );
}

#[test]
fn a_batch_is_all_or_nothing_and_names_what_was_refused() {
    let mut socket = private_network();
    let table = Table { family: Family::Inet, name: "t" };
    let mut batch = Batch::new();
    batch.add_table(table, None).delete_chain(table, "missing");
    let error = batch.commit(&mut socket).expect_err("there is no such chain");
    assert!(error.is(Errno::ENOENT), "{error}");
    assert!(error.to_string().contains("delete chain t missing"), "{error}");
    let mut again = Batch::new();
    again.delete_table(table);
    assert!(again.commit(&mut socket).expect_err("nothing was created").is(Errno::ENOENT));
    Batch::new().commit(&mut socket).expect("an empty batch does nothing");
}

#[test]
fn rules_are_found_by_comment_and_deleted_by_handle() {
    let mut socket = private_network();
    let table = Table { family: Family::Inet, name: "t" };
    assert!(socket.nft_rules(table, "c").expect("no table is no error").is_empty());
    let mut batch = Batch::new();
    batch.add_table(table, None).add_chain(table, &Chain { name: "c", base: None, comment: None });
    for comment in ["pod-1", "pod-2", "pod-1"] {
        batch.add_rule(table, "c", &rule(vec![verdict(Verdict::Accept)], Some(comment)));
    }
    batch.commit(&mut socket).expect("created");
    let rules = socket.nft_rules(table, "c").expect("listed");
    assert_eq!(rules.len(), 3);
    assert_eq!(rules[0].expressions, Some(verdict(Verdict::Accept)));
    let mut batch = Batch::new();
    for rule in rules.iter().filter(|r| r.comment.as_deref() == Some("pod-1")) {
        batch.delete_rule(table, rule);
    }
    batch.commit(&mut socket).expect("deleted");
    let left: Vec<_> = socket.nft_rules(table, "c").expect("listed").into_iter().map(|r| r.comment).collect();
    assert_eq!(left, [Some("pod-2".to_owned())]);
    let mut batch = Batch::new();
    batch.flush_chain(table, "c").delete_chain(table, "c");
    batch.commit(&mut socket).expect("flushed and deleted");
    assert!(socket.nft_chains(table).expect("listed").is_empty());
}

#[test]
fn elements_are_listed_and_deleted_with_their_comments() {
    let mut socket = private_network();
    let table = Table { family: Family::Ipv4, name: "t" };
    let set = Set {
        name: "m",
        key: &[DataType::Port],
        kind: SetKind::Verdicts,
        elements: Elements::Single,
        comment: None,
    };
    let element = |port: u16, owner: &str| Element {
        key: port.to_be_bytes().to_vec(),
        data: Some(ElementData::Verdict(Verdict::Drop)),
        comment: Some(owner.to_owned()),
        ..Element::default()
    };
    let mut batch = Batch::new();
    batch.add_table(table, None).add_set(table, &set).add_elements(
        table,
        "m",
        &[element(80, "a"), element(81, "b")],
    );
    batch.commit(&mut socket).expect("created");
    let mut listed = socket.nft_elements(table, "m").expect("listed");
    listed.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(listed, [element(80, "a"), element(81, "b")]);
    let mut batch = Batch::new();
    batch.delete_elements(table, "m", &listed[..1]);
    batch.commit(&mut socket).expect("deleted");
    assert_eq!(socket.nft_elements(table, "m").expect("listed"), [element(81, "b")]);
    let mut batch = Batch::new();
    batch.delete_set(table, "m");
    batch.commit(&mut socket).expect("the set goes with its elements");
}

const TCP_80_AT_V4: [u8; 12] = [10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0];

/// Loads the destination's address, protocol and port into the words from `first` on.
fn load_destination(first: usize) -> Vec<Expression> {
    vec![
        Expression::Payload { field: Field::Network { offset: 16, len: 4 }, into: Register::word(first) },
        Expression::Meta { key: Meta::TransportProtocol, into: Register::word(first + 1) },
        Expression::Payload {
            field: Field::Transport { offset: 2, len: 2 },
            into: Register::word(first + 2),
        },
    ]
}

fn is_ipv4() -> Vec<Expression> {
    vec![
        Expression::Meta { key: Meta::NetworkProtocol, into: Register::One },
        Expression::Compare { register: Register::One, comparison: Comparison::Equal, value: vec![2] },
    ]
}

fn translate(address: usize) -> Vec<Expression> {
    vec![Expression::Nat {
        translation: Translation::Destination,
        ipv4: true,
        address: Some(Register::word(address)),
        port: Some(Register::word(address + 1)),
    }]
}

fn lookup(set: &str, register: usize, into: LookupInto) -> Vec<Expression> {
    vec![Expression::Lookup { set: set.into(), register: Register::word(register), into, inverted: false }]
}

#[test]
fn load_balancing_expressions_list_as_nft_writes_them() {
    check(
        Family::Inet,
        "inet",
        r"map frontends {
            type ipv4_addr . inet_proto . inet_service : verdict
            elements = { 10.96.0.1 . 6 . 80 : goto pick }
        }
        map backends {
            type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service
            elements = { 10.96.0.1 . 6 . 80 . 0x00000001 : 10.1.0.2 . 8080 }
        }
        set allowed {
            type ipv4_addr . ipv4_addr . inet_proto . inet_service
            flags interval
            elements = { 192.0.2.0/24 . 10.96.0.1 . 6 . 80 }
        }
        set affinity {
            type ipv4_addr
            size 1000
            flags dynamic,timeout
        }
        chain pick {
            ip saddr . ip daddr . meta l4proto . th dport != @allowed drop
            ip saddr @affinity drop
            update @affinity { ip saddr timeout 3h }
        }
        chain refuse {
            meta l4proto 6 reject with tcp reset
            reject
        }
        chain prerouting {
            type nat hook prerouting priority -100; policy accept;
            ip daddr . meta l4proto . th dport vmap @frontends
        }
        chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ct original ip daddr 10.96.0.1 accept
            ct status & 0x20 == 0x0 return
        }",
        |batch, table| {
            use DataType::{Ipv4Address, Mark, Port, TransportProtocol};
            let set = |name, key, kind, elements| Set { name, key, kind, elements, comment: None };
            let frontend = &[Ipv4Address, TransportProtocol, Port];
            let slot = &[Ipv4Address, TransportProtocol, Port, Mark];
            let client = &[Ipv4Address, Ipv4Address, TransportProtocol, Port];
            let values = SetKind::Values(&[Ipv4Address, Port]);
            let base = |hook, priority| Some(BaseChain { hook, kind: "nat", priority });
            batch
                .add_table(table, None)
                .add_chain(table, &Chain { name: "pick", base: None, comment: None })
                .add_chain(table, &Chain { name: "refuse", base: None, comment: None })
                .add_chain(
                    table,
                    &Chain { name: "prerouting", base: base(Hook::Prerouting, -100), comment: None },
                )
                .add_chain(
                    table,
                    &Chain { name: "postrouting", base: base(Hook::Postrouting, 100), comment: None },
                )
                .add_set(table, &set("frontends", frontend, SetKind::Verdicts, Elements::Single))
                .add_set(table, &set("backends", slot, values, Elements::Single))
                .add_set(table, &set("allowed", client, SetKind::Plain, Elements::Ranges))
                .add_set(
                    table,
                    &set("affinity", &[Ipv4Address], SetKind::Plain, Elements::Dynamic { limit: 1000 }),
                );
            let goto = Some(ElementData::Verdict(Verdict::Goto("pick".into())));
            let frontend = Element { key: TCP_80_AT_V4.to_vec(), data: goto, ..Element::default() };
            let backend = Element {
                key: [&TCP_80_AT_V4[..], &1_u32.to_ne_bytes()].concat(),
                data: Some(ElementData::Value(vec![10, 1, 0, 2, 0x1f, 0x90, 0, 0])),
                ..Element::default()
            };
            let allowed = Element {
                key: [&[192, 0, 2, 0][..], &TCP_80_AT_V4].concat(),
                key_end: Some([&[192, 0, 2, 255][..], &TCP_80_AT_V4].concat()),
                ..Element::default()
            };
            batch
                .add_elements(table, "frontends", &[frontend])
                .add_elements(table, "backends", &[backend])
                .add_elements(table, "allowed", &[allowed]);
            let source = vec![Expression::Payload {
                field: Field::Network { offset: 12, len: 4 },
                into: Register::word(0),
            }];
            let client = || vec![is_ipv4(), source.clone(), load_destination(1)];
            let not_allowed = vec![Expression::Lookup {
                set: "allowed".into(),
                register: Register::word(0),
                into: LookupInto::Nothing,
                inverted: true,
            }];
            let by_source = |then| vec![is_ipv4(), source.clone(), then];
            let known = [lookup("affinity", 0, LookupInto::Nothing), verdict(Verdict::Drop)].concat();
            let remember = vec![Expression::Update {
                set: "affinity".into(),
                key: Register::word(0),
                timeout_ms: 10_800_000,
            }];
            let tcp = nft::destination_port(Transport::Tcp, Comparison::Equal, 0)[..2].to_vec();
            let equal = |value: &[u8]| Expression::Compare {
                register: Register::One,
                comparison: Comparison::Equal,
                value: value.to_vec(),
            };
            let original = vec![
                Expression::Conntrack { key: Conntrack::OriginalDestination4, into: Register::One },
                equal(&TCP_80_AT_V4[..4]),
            ];
            let not_translated = vec![
                Expression::Conntrack { key: Conntrack::Status, into: Register::One },
                Expression::Mask {
                    register: Register::One,
                    mask: nft::CT_STATUS_DNAT.to_ne_bytes().to_vec(),
                },
                equal(&[0; 4]),
            ];
            let reject = |reject| vec![Expression::Reject(reject)];
            let rules = [
                ("pick", [client(), vec![not_allowed, verdict(Verdict::Drop)]].concat()),
                ("pick", by_source(known)),
                ("pick", by_source(remember)),
                ("refuse", vec![tcp, reject(Reject::TcpReset)]),
                ("refuse", vec![reject(Reject::PortUnreachable)]),
                (
                    "prerouting",
                    vec![is_ipv4(), load_destination(0), lookup("frontends", 0, LookupInto::Verdict)],
                ),
                ("postrouting", vec![original, verdict(Verdict::Accept)]),
                ("postrouting", vec![not_translated, verdict(Verdict::Return)]),
            ];
            for (chain, parts) in rules {
                batch.add_rule(table, chain, &rule(parts, None));
            }
        },
    );
}

/// nft(8) cannot write a drawn number or a flow's port within a key, so here the kernel is the judge; but nft can show
/// them.
#[test]
fn keys_of_drawn_slots_and_original_ports_are_taken_and_read_back() {
    use DataType::{Ipv4Address, Mark, Port, TransportProtocol};
    let mut socket = private_network();
    let table = Table { family: Family::Inet, name: "t" };
    let slots = &[Ipv4Address, TransportProtocol, Port, Mark];
    let set = |name, kind| Set { name, key: slots, kind, elements: Elements::Single, comment: None };
    let (values, verdicts) =
        (set("backends", SetKind::Values(&[Ipv4Address, Port])), set("v", SetKind::Verdicts));
    let drawn =
        || [is_ipv4(), load_destination(0), vec![Expression::Random { modulus: 3, into: Register::word(3) }]];
    let into = LookupInto::Register(Register::word(4));
    let written =
        rule(drawn().into_iter().chain([lookup("backends", 0, into), translate(4)]).collect(), None);
    let jump = rule(drawn().into_iter().chain([lookup("v", 0, LookupInto::Verdict)]).collect(), None);
    let flow = vec![
        Expression::Conntrack { key: Conntrack::OriginalDestination4, into: Register::word(0) },
        Expression::Meta { key: Meta::TransportProtocol, into: Register::word(1) },
        Expression::Conntrack { key: Conntrack::OriginalDestinationPort, into: Register::word(2) },
    ];
    let flows = Set { name: "flows", key: &slots[..3], ..verdicts };
    let original = rule(vec![is_ipv4(), flow, lookup("flows", 0, LookupInto::Verdict)], None);
    let base = BaseChain { hook: Hook::Prerouting, kind: "nat", priority: -100 };
    let mut batch = Batch::new();
    batch
        .add_table(table, None)
        .add_chain(table, &Chain { name: "c", base: Some(base), comment: None })
        .add_set(table, &flows)
        .add_set(table, &values)
        .add_set(table, &verdicts)
        .add_rule(table, "c", &written)
        .add_rule(table, "c", &jump)
        .add_rule(table, "c", &original);
    batch.commit(&mut socket).expect("the kernel takes it");
    let rules = socket.nft_table_rules(table).expect("listed");
    assert_eq!(rules[0].expressions.as_ref(), Some(&written.expressions));
    assert_eq!(rules[1].expressions.as_ref(), Some(&jump.expressions));
    assert_eq!(rules[2].expressions.as_ref(), Some(&original.expressions));
    for set in [values, verdicts, flows] {
        let sets = socket.nft_sets(table).expect("listed");
        let entry = sets.iter().find(|entry| entry.name == set.name).expect("there");
        assert_eq!(entry.definition, set.definition());
    }
    for json in [&[][..], &["-j"]] {
        let arguments = [json, &["-n", "list", "table", "inet", "t"]].concat();
        if let Some(listing) = nft(&arguments, "") {
            assert!(listing.contains("numgen") && listing.contains("proto-dst"), "{listing}");
        }
    }
}

#[test]
fn a_transaction_of_megabytes_is_taken_at_once() {
    let mut socket = private_network();
    let table = Table { family: Family::Inet, name: "t" };
    let set = Set {
        name: "s",
        key: &[DataType::Ipv4Address],
        kind: SetKind::Plain,
        elements: Elements::Single,
        comment: None,
    };
    let element = |number: u32| Element { key: number.to_be_bytes().to_vec(), ..Element::default() };
    let elements: Vec<_> = (0..50_000).map(element).collect();
    let before = socket.nft_generation().expect("a number");
    let mut batch = Batch::new();
    batch.add_table(table, None).add_set(table, &set).add_elements(table, "s", &elements);
    batch.commit(&mut socket).expect("taken");
    assert_eq!(socket.nft_generation().expect("a number"), before + 1);
    // A set that has just grown is still being rehashed: elements are listed twice or not at all.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let listed = loop {
        let mut listed = socket.nft_elements(table, "s").expect("listed");
        listed.sort();
        if listed.windows(2).all(|pair| pair[0] != pair[1]) || std::time::Instant::now() > deadline {
            break listed;
        }
    };
    assert!(listed == elements, "{} of {}", listed.len(), elements.len());
}

#[test]
fn tables_chains_and_hooks_are_recognised() {
    let mut socket = private_network();
    let table = Table { family: Family::Inet, name: "t" };
    assert_eq!(socket.nft_table(table).expect("asked"), None);
    assert!(socket.nft_sets(table).expect("no table is no error").is_empty());
    let base = BaseChain { hook: Hook::Output, kind: "nat", priority: -100 };
    let mut batch = Batch::new();
    batch
        .add_table(table, None)
        .add_chain(table, &Chain { name: "out", base: Some(base), comment: None })
        .add_chain(table, &Chain { name: "plain", base: None, comment: None });
    batch.commit(&mut socket).expect("created");
    assert_eq!(socket.nft_table(table).expect("asked"), Some(true));
    let chains = socket.nft_chain_entries(table).expect("listed");
    let hooked = |name: &str| chains.iter().find(|c| c.name == name).expect("there").base.as_ref();
    assert!(hooked("out").is_some_and(|found| found.is(base)));
    assert!(!hooked("out").is_some_and(|found| found.is(BaseChain { priority: 0, ..base })));
    assert_eq!(hooked("plain"), None);
    if nft(&["-f", "-"], "table inet t { flags dormant; }\n").is_some() {
        assert_eq!(socket.nft_table(table).expect("asked"), Some(false));
    }
}
