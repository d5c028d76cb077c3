//! What was there before: flannel's device and routes, a device with another port, a MAC that the source remembers.

use corten_netd::node::Dual;
use corten_netd::source::Remembered;

use crate::world::{Switch, VXLAN, config, vtep};

const FLANNELS: &str = "
    ip link add flannel.1 address 02:00:00:00:00:11 type vxlan id 1 dev eth0 local 10.9.0.1 dstport 8472 nolearning
    ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 mtu 1450 up
    for n in 2 3; do
        ip neigh replace 10.244.$n.0 lladdr 02:00:00:00:00:0$n dev flannel.1 nud permanent
        bridge fdb add 02:00:00:00:00:0$n dev flannel.1 dst 10.9.0.$n self permanent
        ip route add 10.244.$n.0/24 via 10.244.$n.0 dev flannel.1 onlink
    done";

#[test]
fn flannels_device_is_taken_over_as_it_is_and_its_dead_nodes_go() {
    let switch = Switch::new();
    let (host, other) = (switch.node(1), switch.node(2));
    host.sh(FLANNELS);
    let index = host.ifindex("flannel.1");
    let daemon = host.open(config(VXLAN)).expect("opened");
    let local = host.as_node(&daemon.underlay.borrow());
    assert_eq!(vtep(&local).v4, Some("02:00:00:00:00:11".parse().unwrap()), "the peers know this one");
    let peer = other.open(config(VXLAN)).expect("opened");
    let mut node = other.as_node(&peer.underlay.borrow());
    node.backend = corten_netd::node::Backend::Vxlan {
        vni: 1,
        vtep: Dual { v4: Some("02:00:00:00:00:02".parse().unwrap()), v6: None },
    };
    daemon.give(local, vec![node]);
    daemon.wait_ready();
    assert_eq!(host.ifindex("flannel.1"), index, "the same device");
    let all = host.sh("ip route; bridge fdb show dev flannel.1; ip neigh show dev flannel.1 nud permanent");
    assert!(all.contains("10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 67 onlink"), "{all}");
    assert!(!all.contains("10.244.3.0") && !all.contains("10.9.0.3"), "{all}");
}

#[test]
fn a_device_with_another_port_is_made_anew_and_one_that_learns_is_changed() {
    let switch = Switch::new();
    let host = switch.node(1);
    host.sh("ip link add flannel.1 type vxlan id 1 dev eth0 local 10.9.0.1 dstport 4789 nolearning; ip link set flannel.1 up");
    let daemon = host.open(config(VXLAN)).expect("opened");
    daemon.give(host.as_node(&daemon.underlay.borrow()), Vec::new());
    daemon.wait_ready();
    let index = host.ifindex("flannel.1");
    assert!(host.sh("ip -d link show flannel.1").contains("dstport 8472 nolearning"));
    daemon.stop().expect("ended");
    let learning = VXLAN.replace(r#""Type": "vxlan""#, r#""Type": "vxlan", "Learning": true, "MTU": 1400"#);
    let daemon = host.open(config(&learning)).expect("opened");
    daemon.give(host.as_node(&daemon.underlay.borrow()), Vec::new());
    daemon.wait_ready();
    let shown = host.sh("ip -d link show flannel.1");
    assert!(!shown.contains("nolearning") && shown.contains("mtu 1350"), "{shown}");
    assert_eq!(host.ifindex("flannel.1"), index);
    daemon.stop().expect("ended");
    let gbp = VXLAN.replace(r#""Type": "vxlan""#, r#""Type": "vxlan", "VNI": 42, "Port": 4789, "GBP": true"#);
    let daemon = host.open(config(&gbp)).expect("opened");
    daemon.give(host.as_node(&daemon.underlay.borrow()), Vec::new());
    daemon.wait_ready();
    let shown = host.sh("ip -d link show flannel.42");
    assert!(shown.contains("id 42") && shown.contains("dstport 4789") && shown.contains("gbp"), "{shown}");
}

#[test]
fn the_mac_that_the_source_remembers_is_the_devices() {
    let switch = Switch::new();
    let host = switch.node(1);
    host.sh(FLANNELS);
    let remembered = Remembered {
        vtep: Dual { v4: Some("02:00:00:00:00:aa".parse().unwrap()), v6: None },
        public_ips: Dual { v4: Some("192.0.2.7".parse().unwrap()), v6: None },
    };
    let daemon = host.open_with(config(VXLAN), remembered).expect("opened");
    let local = host.as_node(&daemon.underlay.borrow());
    assert_eq!(local.public_ips.v4, Some("192.0.2.7".parse().unwrap()), "behind NAT: told, not used");
    daemon.give(local, Vec::new());
    daemon.wait_ready();
    let shown = host.sh("ip -d link show flannel.1");
    assert!(shown.contains("02:00:00:00:00:aa") && shown.contains("local 10.9.0.1"), "{shown}");
}

#[test]
fn without_options_the_table_holds_what_is_needed_alone() {
    let switch = Switch::new();
    let host = switch.node(1);
    let mut config = config(crate::world::HOST_GW_DUAL);
    (config.ip_masq, config.forward_rules) = (false, false);
    let daemon = host.open(config.clone()).expect("opened");
    daemon.give(host.as_node(&daemon.underlay.borrow()), Vec::new());
    daemon.wait_ready();
    assert!(!host.sh("nft list ruleset").contains("corten"), "no table at all");
    daemon.stop().expect("ended");
    config.ip_masq = true;
    config.masq_fully_random = false;
    let daemon = host.open(config).expect("opened");
    daemon.give(host.as_node(&daemon.underlay.borrow()), Vec::new());
    daemon.wait_ready();
    let rules = host.sh("nft list ruleset");
    assert!(rules.contains("masquerade comment") && !rules.contains("fully-random"), "{rules}");
    assert!(!rules.contains("notrack") && !rules.contains("forward"), "{rules}");
}
