//! What a connection meets.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::common::Netns;
use crate::world::{CLIENT_IP, CLUSTER_IP, NODE_IP, World, ask, service, socket, tcp, udp, udp_socket};

type Answer = Result<(String, String), ErrorKind>;
const WAYS: [fn(&Netns, SocketAddr) -> Answer; 2] = [tcp, udp];

fn name(answer: Answer) -> String {
    answer.expect("an answer").0
}

/// Who answers in many tries.
fn names(way: fn(&Netns, SocketAddr) -> Answer, from: &Netns, to: SocketAddr) -> BTreeSet<String> {
    (0..24).map(|_| name(way(from, to))).collect()
}

#[test]
fn cluster_ips_reach_every_backend_from_outside_the_node_and_pods_in_both_families() {
    let mut world = World::new();
    let pods = [11, 12].map(|number| world.pod(number));
    world.apply(&service("type: ClusterIP", &[11, 12, 111]));
    for (address, client) in CLUSTER_IP.into_iter().zip(CLIENT_IP) {
        for way in WAYS {
            let all = BTreeSet::from(["pod11", "pod12", "far"].map(String::from));
            for from in [&world.client, &world.node, &pods[0]] {
                assert_eq!(names(way, from, socket(address, 80)), all, "{address}");
            }
            // Who is no pod is masqueraded, else the other node would answer past us; a pod keeps its address.
            let seen = |from| way(from, socket(address, 80)).expect("an answer").1;
            assert_ne!(seen(&world.client), client);
            let own: BTreeSet<_> = (0..24)
                .filter_map(|_| way(&pods[0], socket(address, 80)).ok())
                .filter(|(name, _)| name != "pod11")
                .map(|(_, peer)| peer)
                .collect();
            assert_eq!(own, BTreeSet::from([pod_address(address, 11)]));
        }
    }
}

fn pod_address(like: &str, number: u8) -> String {
    if like.contains(':') { format!("fd00:244:1::{number}") } else { format!("10.244.1.{number}") }
}

#[test]
fn a_node_port_answers_on_the_nodes_addresses_tcp_and_udp_in_both_families() {
    let mut world = World::new();
    let pod = world.pod(11);
    world.apply(&service("type: NodePort", &[11, 111]));
    for (address, gateway) in NODE_IP.into_iter().zip(["10.244.1.1", "fd00:244:1::1"]) {
        for way in WAYS {
            let both = BTreeSet::from(["pod11", "far"].map(String::from));
            for from in [&world.client, &world.node, &pod] {
                assert_eq!(names(way, from, socket(address, 30080)), both, "{address}");
            }
            assert_eq!(names(way, &pod, socket(gateway, 30080)), both, "the bridge's address");
            let (_, peer) = way(&world.client, socket(address, 30080)).expect("an answer");
            assert!([address, gateway].contains(&peer.as_str()), "masqueraded: {peer}");
        }
    }
    // Not on addresses that are not the node's.
    assert!(tcp(&pod, socket("192.0.2.9", 30080)).is_err());
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::new();
    let pod = world.pod(11);
    world.apply(&service("type: NodePort", &[11]));
    for (address, node) in CLUSTER_IP.into_iter().zip(NODE_IP) {
        for way in WAYS {
            for to in [socket(address, 80), socket(node, 30080)] {
                let (name, peer) = way(&pod, to).expect("an answer");
                assert_eq!(name, "pod11");
                assert_ne!(peer, pod_address(address, 11), "the answer must come back through the node");
            }
        }
    }
}

#[test]
fn session_affinity_keeps_a_client_with_one_backend_by_any_address_until_that_goes() {
    let mut world = World::new();
    for number in 11..17 {
        world.pod(number);
    }
    let spec =
        "type: NodePort, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}"
            .replace(", ", "\n  ");
    let all: Vec<u8> = (11..17).collect();
    world.apply(&service(&spec, &all));
    for (address, node) in CLUSTER_IP.into_iter().zip(NODE_IP) {
        for way in WAYS {
            let first = names(way, &world.client, socket(address, 80));
            assert_eq!(first.len(), 1, "{first:?}");
            assert_eq!(
                names(way, &world.client, socket(node, 30080)),
                first,
                "the node port is the same Service"
            );
        }
    }
    let kept = name(tcp(&world.client, socket(CLUSTER_IP[0], 80)));
    let number: u8 = kept.trim_start_matches("pod").parse().expect("a number");
    let without = |number: u8| all.iter().copied().filter(|n| *n != number).collect::<Vec<_>>();
    // Another endpoint goes: the client stays where it is.
    let other = if number == 11 { 12 } else { 11 };
    world.apply(&service(&spec, &without(other)));
    assert_eq!(names(tcp, &world.client, socket(CLUSTER_IP[0], 80)), BTreeSet::from([kept.clone()]));
    // Its own goes: one of the others, and again always the same.
    world.apply(&service(&spec, &without(number)));
    let next = names(tcp, &world.client, socket(CLUSTER_IP[0], 80));
    assert_eq!(next.len(), 1);
    assert!(!next.contains(&kept));
}

#[test]
fn affinity_is_forgotten_after_its_time() {
    let mut world = World::new();
    for number in 11..17 {
        world.pod(number);
    }
    let spec = "sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}";
    world.apply(&service(spec, &[11, 12, 13, 14, 15, 16]));
    let deadline = Instant::now() + Duration::from_secs(20);
    let first = name(tcp(&world.client, socket(CLUSTER_IP[0], 80)));
    loop {
        // The kernel's clock of sets counts in ticks; only silence lets an entry expire.
        std::thread::sleep(Duration::from_millis(1200));
        if name(tcp(&world.client, socket(CLUSTER_IP[0], 80))) != first {
            break;
        }
        assert!(Instant::now() < deadline, "always {first}");
    }
}

#[test]
fn policy_local_serves_only_here_and_keeps_the_clients_address() {
    let mut world = World::new();
    let pod = world.pod(11);
    world.apply(&service("type: NodePort\n  externalTrafficPolicy: Local", &[11, 111]));
    for (node, client) in NODE_IP.into_iter().zip(CLIENT_IP) {
        for way in WAYS {
            for _ in 0..8 {
                let answer = way(&world.client, socket(node, 30080)).expect("an answer");
                assert_eq!(answer, ("pod11".to_owned(), client.to_owned()));
            }
            // The node and its pods get every endpoint, as through the ClusterIP.
            for from in [&world.node, &pod] {
                assert_eq!(names(way, from, socket(node, 30080)).len(), 2);
            }
        }
    }
    world.apply(&service("type: NodePort\n  externalTrafficPolicy: Local", &[111]));
    assert_eq!(
        tcp(&world.client, socket(NODE_IP[0], 30080)),
        Err(ErrorKind::TimedOut),
        "dropped, not refused"
    );
    assert_eq!(name(tcp(&pod, socket(NODE_IP[0], 30080))), "far");
    world.apply(&service("internalTrafficPolicy: Local", &[11, 111]));
    assert_eq!(names(tcp, &pod, socket(CLUSTER_IP[0], 80)), BTreeSet::from(["pod11".to_owned()]));
}

#[test]
fn a_service_without_endpoints_and_a_port_without_service_refuse_at_once() {
    let mut world = World::new();
    let pod = world.pod(11);
    world.apply(&service("type: NodePort", &[]));
    let start = Instant::now();
    for (cluster, node) in CLUSTER_IP.into_iter().zip(NODE_IP) {
        for way in WAYS {
            for from in [&world.client, &world.node, &pod] {
                for to in [socket(cluster, 80), socket(node, 30080), socket(cluster, 81)] {
                    let refusal = way(from, to).expect_err("nobody is there");
                    // A datagram of the node itself is refused before it leaves: EPERM.
                    let refusals = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
                    assert!(refusals.contains(&refusal), "{to}: {refusal}");
                }
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(1), "36 refusals took {:?}", start.elapsed());
}

#[test]
fn source_ranges_of_a_load_balancer_let_only_those_in() {
    let mut world = World::new();
    world.pod(11);
    let balancer = |ranges: &str| {
        let spec = format!("type: LoadBalancer\n  loadBalancerSourceRanges: [{ranges}]");
        let status = "status: {loadBalancer: {ingress: [{ip: 203.0.113.7}]}}\n";
        service(&spec, &[11]).replacen("---\n", &format!("{status}---\n"), 1)
    };
    let to = socket("203.0.113.7", 80);
    world.apply(&balancer("192.0.2.8/30, 192.0.2.0/24, 198.51.100.0/24"));
    assert_eq!(name(tcp(&world.client, to)), "pod11");
    world.apply(&balancer("198.51.100.0/24, 192.0.2.0/30"));
    assert_eq!(tcp(&world.client, to), Err(ErrorKind::TimedOut));
    assert_eq!(
        name(tcp(&world.client, socket(CLUSTER_IP[0], 80))),
        "pod11",
        "ranges are of the balancer's address"
    );
    assert_eq!(name(tcp(&world.client, socket(NODE_IP[0], 30080))), "pod11");
}

#[test]
fn an_external_ip_is_served_and_masqueraded() {
    let mut world = World::new();
    world.pod(11);
    world.apply(&service("externalIPs: [203.0.113.9]", &[11, 111]));
    for way in WAYS {
        assert_eq!(names(way, &world.client, socket("203.0.113.9", 80)).len(), 2);
    }
}

#[test]
fn when_a_udp_backend_goes_the_next_datagram_of_the_same_socket_reaches_a_live_one() {
    let mut world = World::new();
    let pod = world.pod(11);
    world.pod(12);
    for (cluster, node) in CLUSTER_IP.into_iter().zip(NODE_IP) {
        for (from, to) in [
            (&world.client.clone(), socket(cluster, 80)),
            (&world.client.clone(), socket(node, 30080)),
            (&pod, socket(cluster, 80)),
        ] {
            world.apply(&service("type: NodePort", &[11]));
            let talking = udp_socket(from, to);
            let patience = Duration::from_secs(1);
            assert_eq!(name(ask(&talking, patience)), "pod11");
            assert_eq!(
                world.apply(&service("type: NodePort", &[11, 12])).flows,
                0,
                "its backend is still there"
            );
            assert_eq!(name(ask(&talking, patience)), "pod11");
            assert_eq!(world.apply(&service("type: NodePort", &[12])).flows, 1);
            assert_eq!(name(ask(&talking, patience)), "pod12");
            world.apply(&service("type: NodePort", &[]));
            assert_eq!(ask(&talking, patience), Err(ErrorKind::ConnectionRefused));
        }
    }
}

#[test]
fn a_udp_flow_older_than_its_service_finds_it() {
    let mut world = World::new();
    world.pod(11);
    // Forwarded to nowhere, untranslated, and remembered so.
    world.node.sh("ip route add 10.96.0.0/16 via 192.0.2.2");
    let unrelated = service("", &[11]).replace("10.96.0.1", "10.96.9.9").replace("fd00:96::1", "fd00:96::99");
    world.apply(&unrelated);
    let early = udp_socket(&world.client, socket(CLUSTER_IP[0], 80));
    assert!(ask(&early, Duration::from_millis(100)).is_err());
    world.apply(&service("", &[11]));
    assert_eq!(name(ask(&early, Duration::from_secs(1))), "pod11");
}
