//! The fast path between pods of two nodes, with real packets.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::Stage;
use common::echo::{Bulk, EchoServer, PORT, connect, round_trip, tcp, udp};
use common::nodes::{Node, Overlay, Pod, settle, two_nodes};
use corten_ebpf::datapath::Reason;

/// Everything that two pods may say to each other.
fn talk(from: &Pod, to: &Pod) {
    for ip in to.ips() {
        settle(&from.netns, ip);
        tcp(&from.netns, ip).unwrap_or_else(|e| panic!("TCP to {ip}: {e}"));
        udp(&from.netns, (ip, PORT).into()).unwrap_or_else(|e| panic!("UDP to {ip}: {e}"));
    }
}

fn pods_of_two_nodes_talk(overlay: Overlay, reason: Reason) {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, overlay);
    let (client, near, far) = (a.pod(&stage), a.pod(&stage), b.pod(&stage));
    let _servers = [EchoServer::start(&near.netns, 1), EchoServer::start(&far.netns, 2)];
    talk(&client, &near);
    talk(&client, &far);
    a.pass();
    b.pass();
    assert!(a.fastpath.status().on, "{}", a.fastpath.status());
    assert_eq!(a.fastpath.status().left_out, []);
    talk(&client, &far);
    for node in [&a, &b] {
        let counters = node.counters();
        assert!(node.count("from-pod", reason) > 20, "{counters:?}");
        assert!(node.count("from-nic", reason) > 20, "{counters:?}");
    }
    talk(&client, &near);
    assert!(a.count("from-pod", Reason::Local) > 40, "{:?}", a.counters());
    a.netns.sh("ip -s link show cni0 >/dev/null");
    let fast = |node: &Node| node.count("from-pod", reason);
    let before = fast(&a);
    tcp(&client.netns, far.v4).expect("TCP");
    assert!(fast(&a) > before, "new flows are fast as well");
}

#[test]
fn pods_of_two_nodes_talk_by_vxlan() {
    pods_of_two_nodes_talk(Overlay::Vxlan, Reason::Vxlan);
}

#[test]
fn pods_of_two_nodes_talk_by_host_gw() {
    pods_of_two_nodes_talk(Overlay::HostGw, Reason::Gateway);
}

#[test]
fn pods_of_two_nodes_talk_by_direct_routing() {
    pods_of_two_nodes_talk(Overlay::Direct, Reason::Gateway);
}

#[test]
fn changes_of_mtu_and_routes_are_followed() {
    let stage = Stage::new();
    let [mut a, _b] = two_nodes(&stage, Overlay::Vxlan);
    a.pass();
    let mtus = |node: &Node| node.fastpath.status().nodes.iter().map(|n| n.mtu).collect::<Vec<_>>();
    assert_eq!(mtus(&a), [1450, 1430]);
    a.netns.sh("ip link set eth0 mtu 1400");
    a.pass();
    assert_eq!(mtus(&a), [1350, 1330]);
    a.netns.sh("ip route add 192.0.2.2/32 via 192.0.2.99");
    a.pass();
    assert_eq!(a.fastpath.status().nodes[0].next_hop, "192.0.2.99".parse::<IpAddr>().unwrap());
    a.netns.sh(
        "ip link add other type veth peer name far; ip link set other up; ip route replace 192.0.2.2/32 dev other",
    );
    a.pass();
    let status = a.fastpath.status();
    assert_eq!((status.nodes.len(), status.left_out.len()), (1, 1), "{status}");
    assert!(status.left_out[0].why.contains("not by the uplink"), "{status}");
    a.netns.sh("ip link del other");
    a.pass();
    assert_eq!(a.fastpath.status().nodes.len(), 2);
}

#[test]
fn a_bulk_flow_survives_on_off_and_restart() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Vxlan);
    let (client, far) = (a.pod(&stage), b.pod(&stage));
    let _server = EchoServer::start(&far.netns, 2);
    far.ips().into_iter().for_each(|ip| settle(&client.netns, ip));
    let flows: Vec<Bulk> = far.ips().map(|ip: IpAddr| Bulk::start(&client.netns, (ip, PORT).into())).into();
    let progress = || flows.iter().for_each(Bulk::progresses);
    progress();
    for _ in 0..3 {
        a.pass();
        progress();
        b.pass();
        progress();
        // What came back since may have lain in buffers.
        common::wait_for("the flow on the fast path", std::time::Duration::from_secs(10), || {
            (a.count("from-pod", Reason::Vxlan) > 0 && b.count("from-nic", Reason::Vxlan) > 0).then_some(())
        });
        // The daemon is gone; programs go on.
        restart(&stage, &mut a);
        progress();
        a.pass();
        assert_eq!(a.fastpath.status().changes, 0, "a restart finds everything right");
        progress();
        for node in [&mut a, &mut b] {
            restart(&stage, node);
            let directory = common::nodes::options(&stage, node.number).directory;
            node.netns.within(|| corten_netd::fastpath::Fastpath::remove(&directory).expect("removed"));
            assert!(!directory.exists(), "nothing is left");
            progress();
        }
    }
    flows.into_iter().for_each(Bulk::end);
}

/// Another process's start: no memory, and the sockets anew.
fn restart(stage: &Stage, node: &mut Node) {
    let options = common::nodes::options(stage, node.number);
    node.fastpath = node.netns.within(|| corten_netd::fastpath::Fastpath::new(options).expect("sockets"));
}

#[test]
fn the_address_of_a_pod_that_went_while_nobody_watched_reaches_its_new_owner() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Vxlan);
    let (client, near) = (a.pod(&stage), a.pod(&stage));
    let far = b.pod_at(&stage, 9);
    {
        let _server = EchoServer::start(&far.netns, 2);
        talk(&client, &far);
        a.pass();
        b.pass();
        talk(&client, &far);
    }
    // Nobody makes a pass on node 2 from here on.
    let local = b.count("from-nic", Reason::Gone);
    b.delete_pod(far);
    let heir = b.pod_at(&stage, 9);
    let _server = EchoServer::start(&heir.netns, 3);
    for ip in heir.ips() {
        settle(&client.netns, ip);
        assert_eq!(tcp(&client.netns, ip).expect("TCP"), 3, "the new pod answers");
        udp(&client.netns, (ip, PORT).into()).expect("UDP");
    }
    assert!(b.count("from-nic", Reason::Gone) > local, "{:?}", b.counters());
    b.pass();
    let fast = b.count("from-nic", Reason::Vxlan);
    talk(&client, &heir);
    assert!(b.count("from-nic", Reason::Vxlan) > fast, "after a pass it is fast: {:?}", b.counters());
    drop(near);
}

#[test]
fn a_pod_that_lies_about_its_source_gets_no_fast_path() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::HostGw);
    let (liar, victim, far) = (a.pod(&stage), a.pod(&stage), b.pod(&stage));
    a.pass();
    b.pass();
    for ip in [far.v4, victim.v4] {
        settle(&liar.netns, ip);
    }
    let fast = |node: &Node| {
        [Reason::Local, Reason::Gateway].map(|reason| node.count("from-pod", reason)).iter().sum::<u64>()
    };
    let (before, spoofed) = (fast(&a), a.count("from-pod", Reason::SpoofedPod));
    // Of another pod, of nobody, and of a pod of another node.
    let forged: Vec<IpAddr> = vec![victim.v4, "10.244.1.200".parse().unwrap(), far.v4];
    for source in forged {
        liar.netns.sh(&format!("ip addr add {source}/32 dev lo"));
        liar.netns.within(|| {
            let socket = std::net::UdpSocket::bind((source, 0)).expect("bind");
            for _ in 0..10 {
                let _ = socket.send_to(b"lies", (far.v4, PORT));
                let _ = socket.send_to(b"lies", (victim.v4, PORT));
            }
        });
        liar.netns.sh(&format!("ip addr del {source}/32 dev lo"));
    }
    assert!(a.count("from-pod", Reason::SpoofedPod) >= spoofed + 40, "{:?}", a.counters());
    // What the victim itself answers is no lie.
    assert!(fast(&a) <= before + 20, "{:?}", a.counters());
}

#[test]
fn pods_that_come_and_go_leave_nothing() {
    let stage = Stage::new();
    let [mut a, _b] = two_nodes(&stage, Overlay::Vxlan);
    let keeper = a.pod(&stage);
    a.pass();
    let pins = |node: &Node| {
        let directory = common::nodes::options(&stage, node.number).directory;
        let list = std::process::Command::new("find").arg(directory).output().expect("find").stdout;
        String::from_utf8(list).expect("names").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = (pins(&a), a.fastpath.status().endpoints.clone());
    for round in 0..5 {
        let pods: Vec<Pod> = (0..4).map(|n| a.pod_at(&stage, 100 + n)).collect();
        // Some pods go before they were seen.
        if round % 2 == 0 {
            a.pass();
            assert_eq!(a.fastpath.status().endpoints.len(), 2 + 8);
        }
        for pod in pods {
            a.delete_pod(pod);
        }
        if round % 3 == 0 {
            a.pass();
        }
    }
    a.pass();
    assert_eq!((pins(&a), a.fastpath.status().endpoints.clone()), before);
    let directory = common::nodes::options(&stage, a.number).directory;
    let datapath =
        a.netns.within(|| corten_ebpf::datapath::Datapath::load_or_open(&directory).expect("opened"));
    assert_eq!(datapath.endpoints().expect("read").len(), 2);
    let live = datapath.live().expect("read");
    assert_eq!(live.len(), 2, "the uplink and one pod: {live:?}");
    drop((datapath, keeper));
    a.netns.within(|| corten_netd::fastpath::Fastpath::remove(&directory).expect("removed"));
    assert!(!directory.exists());
}

/// A ClusterIP that nft translates to one pod, with no help from the socket programs.
fn translate(node: &Node, v4: IpAddr, v6: IpAddr) {
    node.netns.sh(&format!(
        "nft -f - <<'RULES'
table inet corten-services {{
    chain services {{
        type nat hook prerouting priority dstnat;
        ip daddr 10.96.0.10 dnat ip to {v4}
        ip6 daddr fd96::10 dnat ip6 to {v6}
    }}
}}
RULES
"
    ));
}

#[test]
fn flows_that_nft_translates_go_both_ways_by_the_kernel() {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, Overlay::Vxlan);
    let (client, near, far) = (a.pod(&stage), a.pod(&stage), b.pod(&stage));
    let _servers = [EchoServer::start(&near.netns, 1), EchoServer::start(&far.netns, 2)];
    let services: [IpAddr; 2] = ["10.96.0.10".parse().unwrap(), "fd96::10".parse().unwrap()];
    for (backend, sign) in [(&near, 1), (&far, 2)] {
        for ip in backend.ips() {
            settle(&client.netns, ip);
        }
        translate(&a, backend.v4, backend.v6);
        // On one node bridged replies must meet conntrack too, as every cluster has it.
        a.netns.sh("sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1");
        // Connections from before the fast path was there.
        let old: Vec<Bulk> = services.map(|ip| Bulk::start(&client.netns, (ip, PORT).into())).into();
        old.iter().for_each(Bulk::progresses);
        a.pass();
        b.pass();
        assert!(a.fastpath.status().on, "{}", a.fastpath.status());
        old.iter().for_each(Bulk::progresses);
        for ip in services {
            assert_eq!(tcp(&client.netns, ip).expect("TCP"), sign);
            udp(&client.netns, (ip, PORT).into()).expect("UDP");
        }
        assert!(a.count("from-pod", Reason::UnknownPeer) > 0, "{:?}", a.counters());
        // Beside them, straight to the pod, is fast.
        let fast =
            |node: &Node| node.count("from-pod", Reason::Local) + node.count("from-pod", Reason::Vxlan);
        let before = fast(&a);
        tcp(&client.netns, backend.v4).expect("TCP");
        assert!(fast(&a) > before + 4, "{:?}", a.counters());
        old.into_iter().for_each(Bulk::end);
        for node in [&mut a, &mut b] {
            restart(&stage, node);
            let directory = common::nodes::options(&stage, node.number).directory;
            node.netns.within(|| corten_netd::fastpath::Fastpath::remove(&directory).expect("removed"));
        }
        a.netns.sh("nft delete table inet corten-services");
    }
}

/// Nobody masquerades (`ip-masq` off), so the node port sees the pod's own address, and only conntrack of this node
/// knows whom the pod thinks it talks to.
fn a_node_port_answers_pods_of_other_nodes_that_are_not_masqueraded(overlay: Overlay, reason: Reason) {
    let stage = Stage::new();
    let [mut a, mut b] = two_nodes(&stage, overlay);
    let (near, far) = (a.pod(&stage), b.pod(&stage));
    let _server = EchoServer::start(&near.netns, 1);
    near.ips().into_iter().for_each(|ip| settle(&far.netns, ip));
    a.netns.sh(&format!(
        "nft -f - <<'RULES'
table inet corten-services {{
    chain services {{
        type nat hook prerouting priority dstnat;
        fib daddr type local tcp dport 30080 dnat ip to {v4}:{PORT}
        fib daddr type local tcp dport 30080 dnat ip6 to [{v6}]:{PORT}
        fib daddr type local udp dport 30080 dnat ip to {v4}:{PORT}
        fib daddr type local udp dport 30080 dnat ip6 to [{v6}]:{PORT}
    }}
}}
RULES
",
        v4 = near.v4,
        v6 = near.v6
    ));
    // By the uplink's addresses, and by those that the node has among its pods'.
    let ports: [SocketAddr; 4] =
        ["192.0.2.1:30080", "[2001:db8::1]:30080", "10.244.1.1:30080", "[fd00:1::1]:30080"]
            .map(|to| to.parse().unwrap());
    let old: Vec<Bulk> = ports.map(|to| Bulk::start(&far.netns, to)).into();
    old.iter().for_each(Bulk::progresses);
    a.pass();
    b.pass();
    assert!(a.fastpath.status().on, "{}", a.fastpath.status());
    for to in ports {
        let (mut stream, sign) = connect(&far.netns, to).unwrap_or_else(|e| panic!("TCP to {to}: {e}"));
        assert_eq!(sign, 1);
        round_trip(&mut stream, &vec![7; 30_000]).unwrap_or_else(|e| panic!("TCP to {to}: {e}"));
        udp(&far.netns, to).unwrap_or_else(|e| panic!("UDP to {to}: {e}"));
    }
    old.iter().for_each(Bulk::progresses);
    assert!(a.count("from-pod", Reason::Slow) > 0, "{:?}", a.counters());
    // Beside them, straight to the pod is fast.
    let fast = |node: &Node| node.count("from-pod", reason);
    let before = fast(&a);
    for ip in near.ips() {
        tcp(&far.netns, ip).expect("TCP");
    }
    assert!(fast(&a) > before + 8, "{:?}", a.counters());
    old.into_iter().for_each(Bulk::end);
}

#[test]
fn a_node_port_answers_vxlan_pods_that_are_not_masqueraded() {
    a_node_port_answers_pods_of_other_nodes_that_are_not_masqueraded(Overlay::Vxlan, Reason::Vxlan);
}

#[test]
fn a_node_port_answers_host_gw_pods_that_are_not_masqueraded() {
    a_node_port_answers_pods_of_other_nodes_that_are_not_masqueraded(Overlay::HostGw, Reason::Gateway);
}

#[test]
fn rules_of_others_turn_it_off_and_on_says_what_it_goes_past() {
    let stage = Stage::new();
    let [mut a, _b] = two_nodes(&stage, Overlay::Vxlan);
    let _pod = a.pod(&stage);
    a.pass();
    assert!(a.fastpath.status().on);
    a.netns.sh("nft add table ip firewall
         nft 'add chain ip firewall forward { type filter hook forward priority filter; }'
         nft add rule ip firewall forward ip saddr 10.244.1.0/24 tcp dport 22 drop");
    a.pass();
    let status = a.fastpath.status();
    let why = "chain forward of table ip firewall drops traffic between pods of this node";
    assert_eq!((status.on, status.why.as_slice()), (false, &[why.to_owned()][..]));
    assert!(!common::nodes::options(&stage, 1).directory.exists(), "nothing is left");
    let options = corten_netd::fastpath::Options {
        wish: corten_netd::options::Fastpath::On,
        ..common::nodes::options(&stage, 1)
    };
    a.fastpath = a.netns.within(|| corten_netd::fastpath::Fastpath::new(options).expect("sockets"));
    a.pass();
    assert_eq!(
        (a.fastpath.status().on, a.fastpath.status().overrides.as_slice()),
        (true, &[why.to_owned()][..])
    );
    restart(&stage, &mut a);
    a.netns.sh(
        "nft flush chain ip firewall forward; nft add rule ip firewall forward ip saddr 192.168.0.0/16 drop",
    );
    a.pass();
    assert!(a.fastpath.status().on, "{}", a.fastpath.status());
}

#[test]
fn where_it_cannot_be_auto_is_off_and_on_is_refused() {
    let stage = Stage::new();
    let [mut a, _b] = two_nodes(&stage, Overlay::Vxlan);
    for (wish, refused) in
        [(corten_netd::options::Fastpath::Auto, false), (corten_netd::options::Fastpath::On, true)]
    {
        let options = corten_netd::fastpath::Options {
            wish,
            directory: stage.path("not-bpffs/v1"),
            ..common::nodes::options(&stage, 1)
        };
        let input = a.input();
        a.fastpath = a.netns.within(|| corten_netd::fastpath::Fastpath::new(options).expect("sockets"));
        let (netns, fastpath) = (&a.netns, &mut a.fastpath);
        match netns.within(|| fastpath.pass(&input).cloned()) {
            Ok(status) => {
                assert!(!refused && !status.on);
                assert!(status.why[0].contains("is not on a bpf file system"), "{status}");
            }
            Err(error) => assert!(refused && error.to_string().contains("fastpath = on, but"), "{error}"),
        }
    }
}

/// A pod by the usual chain of plugins, with a host port.
fn chained_pod(stage: &Stage, node: &Node, plugins: &std::path::Path, id: &str) -> common::Netns {
    use serde_json::{Value, json};
    let pod = stage.netns(id);
    let chain = [
        json!({
            "type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
            "ipam": {"type": "host-local", "dataDir": stage.path("ipam"), "ranges": [[{"subnet": "10.244.1.0/24"}]]}
        }),
        json!({
            "type": "portmap", "capabilities": {"portMappings": true},
            "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
        }),
        json!({"type": "firewall"}),
    ];
    let mut previous: Option<Value> = None;
    for mut config in chain {
        config["cniVersion"] = "0.4.0".into();
        config["name"] = "pods".into();
        if let Some(result) = previous.take() {
            config["prevResult"] = result;
        }
        let result = common::cni(plugins, &node.netns, "ADD", id, &pod, &config);
        previous = Some(serde_json::from_str(&result).expect("a result"));
    }
    pod
}

fn the_usual_chain_of_plugins_leaves_it_on(stage: &Stage, plugins: &std::path::Path) {
    let [mut a, _b] = two_nodes(stage, Overlay::Vxlan);
    chained_pod(stage, &a, plugins, "web");
    let rules = a.netns.sh("nft list ruleset");
    assert!(rules.contains("8080"), "{rules}");
    a.pass();
    let status = a.fastpath.status();
    assert!(status.on, "{status}\n{rules}");
    assert_eq!(status.endpoints.len(), 1, "{status}");
}

#[test]
fn our_chain_of_plugins_leaves_it_on() {
    let stage = Stage::new();
    if let Some(plugins) = common::our_plugins(&stage) {
        the_usual_chain_of_plugins_leaves_it_on(&stage, &plugins);
    }
}

#[test]
fn the_go_chain_of_plugins_leaves_it_on() {
    let stage = Stage::new();
    if let Some(plugins) = common::go_plugins() {
        the_usual_chain_of_plugins_leaves_it_on(&stage, &plugins);
    }
}
