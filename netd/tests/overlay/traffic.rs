//! Packets really arrive.

use crate::world::{Cluster, Echo, HOST_GW_DUAL, Switch, VXLAN, VXLAN_DUAL, assert_reaches, config, sh};
use corten_netd::overlay::Mode;

fn pods_reach_each_other(net_conf: &str, mode: Mode) {
    let cluster = Cluster::new(2, &config(net_conf));
    let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
    for (from, to) in [(a, b), (b, a)] {
        assert_reaches(from, to, true);
        assert_reaches(from, to, false);
    }
    let status = cluster.daemons[0].status.borrow();
    let peer = &status.peers[0];
    assert_eq!(peer.node, "node2");
    for path in [&peer.ipv4, &peer.ipv6] {
        assert_eq!(path.as_ref().map(|p| (p.mode, p.error.clone())), Some((mode, None)));
    }
}

#[test]
fn pods_reach_each_other_by_vxlan_in_both_families() {
    pods_reach_each_other(VXLAN_DUAL, Mode::Vxlan);
}

#[test]
fn pods_reach_each_other_by_host_gw_in_both_families() {
    pods_reach_each_other(HOST_GW_DUAL, Mode::Gateway);
}

#[test]
fn direct_routing_uses_the_tunnel_only_behind_a_router() {
    let net_conf = VXLAN_DUAL.replace(r#""Type": "vxlan""#, r#""Type": "vxlan", "DirectRouting": true"#);
    let switch = Switch::new();
    sh(
        &switch.namespace,
        "ip addr add 10.9.0.254/24 dev br0; ip addr add 10.8.0.254/24 dev br0
         ip addr add fd09::fe/64 dev br0 nodad; ip addr add fd08::fe/64 dev br0 nodad
         echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
    let hosts = vec![switch.node(1), switch.node(2), switch.node_with(3, "10.8.0.3/24", "fd08::3/64")];
    for host in &hosts[..2] {
        host.sh("ip route add default via 10.9.0.254; ip -6 route add default via fd09::fe");
    }
    hosts[2].sh("ip route add default via 10.8.0.254; ip -6 route add default via fd08::fe");
    let cluster = Cluster::of(switch, hosts, &config(&net_conf));
    let status = cluster.daemons[0].status.borrow().clone();
    let modes: Vec<_> = status
        .peers
        .iter()
        .map(|peer| [&peer.ipv4, &peer.ipv6].map(|path| path.as_ref().expect("a path").mode))
        .collect();
    assert_eq!(modes, [[Mode::Gateway; 2], [Mode::Vxlan; 2]]);
    for from in &cluster.hosts {
        for to in cluster.hosts.iter().filter(|to| to.number != from.number) {
            assert_reaches(from, to, true);
            assert_reaches(from, to, false);
        }
    }
    assert!(cluster.hosts[0].sh("bridge fdb show dev flannel.1").lines().count() == 1, "only the far node");
}

#[test]
fn host_gw_says_which_node_is_not_on_the_same_layer_2() {
    let switch = Switch::new();
    let hosts = [switch.node(1), switch.node_with(2, "10.8.0.2/24", "fd08::2/64")];
    hosts[0].sh("ip route add default via 10.9.0.254; ip -6 route add default via fd09::fe");
    let daemons: Vec<_> = hosts.iter().map(|host| host.open(config(HOST_GW_DUAL)).expect("opened")).collect();
    let nodes: Vec<_> = hosts.iter().zip(&daemons).map(|(h, d)| h.as_node(&d.underlay.borrow())).collect();
    daemons[0].give(nodes[0].clone(), vec![nodes[1].clone()]);
    crate::world::wait(crate::world::HEALED, "the reason", || {
        let problems = daemons[0].status.borrow().problems().join("\n");
        if problems.contains("node2: 10.8.0.2 is not on the layer 2 of uplink eth0") {
            Ok(())
        } else {
            Err(problems)
        }
    });
    assert!(!hosts[0].sh("ip route").contains("10.244.2"));
}

#[test]
fn a_node_set_up_by_hand_as_flanneld_does_is_a_peer_like_any_other() {
    let switch = Switch::new();
    let (ours, theirs) = (switch.node(1), switch.node(2));
    let daemon = ours.open(config(VXLAN)).expect("opened");
    let local = ours.as_node(&daemon.underlay.borrow());
    let mac = crate::world::vtep(&local).v4.expect("chosen");
    theirs.sh(&format!(
        "echo 1 > /proc/sys/net/ipv4/ip_forward
         ip link add flannel.1 address 02:00:00:00:00:22 type vxlan id 1 dev eth0 local 10.9.0.2 dstport 8472 nolearning
         ip addr add 10.244.2.0/32 dev flannel.1
         ip link set flannel.1 mtu 1450 up
         ip neigh replace 10.244.1.0 lladdr {mac} dev flannel.1 nud permanent
         bridge fdb add {mac} dev flannel.1 dst 10.9.0.1 self permanent
         ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"
    ));
    let mut peer = local.clone();
    peer.name = "node2".into();
    peer.pod_cidrs.v4 = Some("10.244.2.0/24".parse().unwrap());
    peer.public_ips.v4 = Some("10.9.0.2".parse().unwrap());
    peer.backend = corten_netd::node::Backend::Vxlan {
        vni: 1,
        vtep: corten_netd::node::Dual { v4: Some("02:00:00:00:00:22".parse().unwrap()), v6: None },
    };
    daemon.give(local, vec![peer]);
    daemon.wait_ready();
    assert_reaches(&ours, &theirs, true);
    assert_reaches(&theirs, &ours, true);
    // From host to pod and from pod to host too: the tunnel device's address is in the pod CIDR.
    let echo = Echo::new(&theirs.pod, theirs.pod_v4());
    let seen = echo.ask(&ours.namespace, "0.0.0.0".parse().unwrap()).expect("an answer");
    assert_eq!(seen.ip().to_string(), "10.244.1.0");
}

#[test]
fn what_pods_send_out_is_masqueraded_and_what_they_send_to_pods_is_not() {
    let cluster = Cluster::new(2, &config(VXLAN_DUAL));
    let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
    // The other node's own address is outside the pod network.
    let echo = Echo::new(&b.namespace, b.v4);
    assert_eq!(echo.ask(&a.pod, a.pod_v4()).expect("an answer").ip(), a.v4);
    let echo = Echo::new(&b.namespace, b.v6);
    assert_eq!(echo.ask(&a.pod, a.pod_v6()).expect("an answer").ip(), a.v6);
    assert_reaches(a, b, true);
    assert_reaches(a, b, false);
    // A host's packet to a pod elsewhere, with a source the pod's node would answer by another way.
    let echo = Echo::new(&b.pod, b.pod_v4());
    assert_eq!(echo.ask(&a.namespace, a.v4).expect("an answer").ip().to_string(), "10.244.1.0");
}

#[test]
fn tunnel_packets_make_no_conntrack_entry() {
    let cluster = Cluster::new(2, &config(VXLAN));
    let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
    assert_reaches(a, b, true);
    let tracked = b.sh("cat /proc/net/nf_conntrack 2>/dev/null || true");
    assert!(!tracked.contains("dport=8472"), "{tracked}");
}
