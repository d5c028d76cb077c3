//! nf_tables against the kernel and against nft(8): what we write must list exactly as what nft writes.
//! Each test is a thread with a network namespace of its own; the kernel drops everything with it.

use std::io::Write;
use std::process::{Command, Stdio};

use corten_netlink::nft::{
    self, BaseChain, Batch, Chain, Comparison, Direction, Element, ElementData, Expression, Family, Field,
    Hook, LookupInto, Meta, Register, Rule, Set, SetKind, Table, Translation, Transport, Verdict,
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
            };
            let plain =
                |name, key_type, key_len, kind, comment| Set { name, key_type, key_len, kind, comment };
            batch
                .add_table(table, None)
                .add_chain(table, &Chain { name: "web", base: None, comment: None })
                .add_chain(table, &Chain { name: "checks", base: None, comment: None })
                .add_set(table, &plain("pods", 7, 4, SetKind::Plain, Some("all pods")))
                .add_set(table, &plain("ports", 13, 2, SetKind::Values(13, 2), None))
                .add_set(table, &plain("verdicts", (12 << 6) + 13, 8, SetKind::Verdicts, None))
                .add_set(table, &plain("byport", 13, 2, SetKind::Verdicts, None))
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
    let set = Set { name: "m", key_type: 13, key_len: 2, kind: SetKind::Verdicts, comment: None };
    let element = |port: u16, owner: &str| Element {
        key: port.to_be_bytes().to_vec(),
        data: Some(ElementData::Verdict(Verdict::Drop)),
        comment: Some(owner.to_owned()),
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
