//! What is taken away or changed under the daemon is as it should be again within a second. No test may rest on the
//! clock: the resync is an hour away.

use std::time::Duration;

use crate::world::{
    Cluster, Config, HEALED, HOST_GW_DUAL, Host, VXLAN, VXLAN_DUAL, assert_reaches, config, vtep, wait,
};
use corten_netd::node::{Backend, Dual};

/// The state without handles, which a rewritten table has new.
fn state(host: &Host) -> String {
    let dump = host.dump();
    dump.lines().map(|line| line.split(" # handle").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn same(before: &str, after: &str) -> Result<(), String> {
    if before == after {
        return Ok(());
    }
    let only = |a: &str, b: &str| {
        a.lines().filter(|line| !b.lines().any(|l| l == *line)).collect::<Vec<_>>().join("\n")
    };
    Err(format!("missing:\n{}\nmore:\n{}", only(before, after), only(after, before)))
}

/// Does `harm` on the first of two nodes: all is again as before within a second, and pods reach each other.
fn heals(config: &Config, harm: &str) {
    let cluster = Cluster::new(2, config);
    let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
    let before = state(a);
    a.sh(harm);
    wait(HEALED, harm, || same(&before, &state(a)));
    for ipv4 in [true, false] {
        assert_reaches(a, b, ipv4);
        assert_reaches(b, a, ipv4);
    }
}

#[test]
fn flushed_routes_come_back() {
    for net_conf in [VXLAN_DUAL, HOST_GW_DUAL] {
        heals(&config(net_conf), "ip route flush proto 67; ip -6 route flush proto 67");
    }
}

#[test]
fn a_changed_route_is_put_right() {
    heals(
        &config(VXLAN_DUAL),
        "ip route replace 10.244.2.0/24 via 10.9.0.99 dev eth0 proto 67; ip -6 route replace fd44:2::/64 via fd09::99 dev eth0",
    );
}

#[test]
fn flushed_forwarding_entries_come_back() {
    heals(
        &config(VXLAN_DUAL),
        "for d in flannel.1 flannel-v6.1; do bridge fdb show dev $d | while read mac rest; do bridge fdb del $mac dev $d; done; done",
    );
}

#[test]
fn a_foreign_forwarding_entry_goes_and_a_diverted_one_is_put_right() {
    heals(
        &config(VXLAN_DUAL),
        "bridge fdb add 02:00:00:00:00:77 dev flannel.1 dst 10.9.0.77 self permanent
         mac=$(bridge fdb show dev flannel.1 | grep 'dst 10.9.0.2 ' | cut -d' ' -f1)
         bridge fdb replace $mac dev flannel.1 dst 10.9.0.66 self permanent",
    );
}

#[test]
fn flushed_neighbours_come_back() {
    heals(
        &config(VXLAN_DUAL),
        "ip neigh flush dev flannel.1 nud permanent; ip -6 neigh flush dev flannel-v6.1 nud permanent",
    );
}

#[test]
fn flushed_nft_rules_come_back() {
    heals(&config(VXLAN_DUAL), "nft flush ruleset");
}

#[test]
fn a_deleted_or_added_nft_rule_is_put_right() {
    heals(&config(VXLAN_DUAL), "nft flush chain inet corten-flannel postrouting");
    heals(&config(VXLAN_DUAL), "nft add rule inet corten-flannel forward drop");
    heals(&config(VXLAN_DUAL), "nft insert rule inet corten-flannel postrouting masquerade");
}

#[test]
fn a_table_that_does_nothing_though_all_is_in_it_is_made_anew() {
    heals(&config(VXLAN_DUAL), "nft 'add table inet corten-flannel { flags dormant; }'");
    heals(
        &config(VXLAN_DUAL),
        "rules=$(nft list chain inet corten-flannel forward | sed 's/priority filter/priority 10/')
         (echo delete chain inet corten-flannel forward; echo \"$rules\") | nft -f -",
    );
}

#[test]
fn addresses_of_the_device_are_put_right() {
    heals(
        &config(VXLAN_DUAL),
        "ip addr add 192.0.2.1/32 dev flannel.1; ip addr del 10.244.1.0/32 dev flannel.1
         ip addr del fd44:1::/128 dev flannel-v6.1",
    );
}

#[test]
fn a_device_that_was_set_down_or_changed_is_put_right() {
    heals(&config(VXLAN_DUAL), "ip link set flannel.1 down; ip link set flannel-v6.1 down");
    heals(
        &config(VXLAN_DUAL),
        "ip link set flannel.1 mtu 1300; ip link set flannel.1 address 02:00:00:00:00:66",
    );
}

#[test]
fn a_deleted_device_is_made_again_with_its_mac_and_all_its_peers() {
    let cluster = Cluster::new(3, &config(VXLAN_DUAL));
    let a = &cluster.hosts[0];
    let shape = |host: &Host| {
        let mut text = String::new();
        for device in ["flannel.1", "flannel-v6.1"] {
            text += &host.sh(&format!(
                "ip link show {device} | sed -n 's/.*link.ether//p'; ip addr show dev {device} | grep inet; bridge fdb show dev {device} | sort
                 ip neigh show dev {device} nud permanent | sort; ip -6 neigh show dev {device} nud permanent | sort
                 ip route show dev {device}; ip -6 route show dev {device} proto 67"
            ));
        }
        text
    };
    let before = shape(a);
    a.sh("ip link del flannel.1; ip link del flannel-v6.1");
    wait(HEALED, "the devices are back", || {
        if a.ifindex("flannel-v6.1").is_none() || a.ifindex("flannel.1").is_none() {
            return Err("no device".into());
        }
        same(&before, &shape(a))
    });
    for to in &cluster.hosts[1..] {
        for ipv4 in [true, false] {
            assert_reaches(a, to, ipv4);
            assert_reaches(to, a, ipv4);
        }
    }
}

#[test]
fn everything_at_once_heals() {
    heals(&config(HOST_GW_DUAL), "nft flush ruleset; ip route flush proto 67; ip -6 route flush proto 67");
}

#[test]
fn a_new_address_of_the_uplink_moves_the_tunnel_in_place_and_is_told() {
    let mut cluster = Cluster::new(2, &config(VXLAN_DUAL));
    let a = &cluster.hosts[0];
    let (v4, v6) = (a.ifindex("flannel.1"), a.ifindex("flannel-v6.1"));
    let mut underlay = cluster.daemons[0].underlay.clone();
    underlay.mark_unchanged();
    a.sh("ip addr add 10.9.0.77/24 dev eth0; ip addr del 10.9.0.1/24 dev eth0; ip addr add 10.9.0.77/24 dev eth0 2>/dev/null || true
          ip addr add fd09::77/64 dev eth0 nodad; ip addr del fd09::1/64 dev eth0");
    let told = Dual { v4: Some("10.9.0.77".parse().unwrap()), v6: Some("fd09::77".parse().unwrap()) };
    wait(HEALED, "the announcement", || {
        let now = underlay.borrow().announcement.public_ips;
        if now == told { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert!(underlay.has_changed().expect("running"));
    // What the daemon does then: this node is announced anew, and its peer hears of it.
    let node = a.as_node(&cluster.daemons[0].underlay.borrow());
    cluster.daemons[0].change(|snapshot| snapshot.local = node.clone());
    cluster.daemons[1].change(|snapshot| snapshot.peers = vec![node]);
    wait(HEALED, "the devices' local address", || {
        let devices = a.sh("ip -d link show flannel.1; ip -d link show flannel-v6.1");
        if devices.contains("local 10.9.0.77") && devices.contains("local fd09::77") {
            Ok(())
        } else {
            Err(devices)
        }
    });
    assert_eq!((a.ifindex("flannel.1"), a.ifindex("flannel-v6.1")), (v4, v6), "the same devices");
    let b = &cluster.hosts[1];
    for ipv4 in [true, false] {
        assert_reaches(a, b, ipv4);
        assert_reaches(b, a, ipv4);
    }
    assert!(!b.sh("bridge fdb show").contains("dst 10.9.0.1 "), "the old address is forgotten");
    cluster.daemons.clear();
}

#[test]
fn host_gw_takes_a_new_address_before_the_source_knows_it() {
    let cluster = Cluster::new(2, &config(HOST_GW_DUAL));
    let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
    let mut underlay = cluster.daemons[0].underlay.clone();
    underlay.mark_unchanged();
    a.sh("ip addr add 10.9.0.77/24 dev eth0; ip addr del 10.9.0.1/24 dev eth0
          ip addr replace 10.9.0.77/24 dev eth0; ip route flush proto 67");
    wait(HEALED, "told, and routed again", || {
        let public = underlay.borrow().announcement.public_ips.v4;
        let routes = a.sh("ip route show proto 67");
        if public == Some([10, 9, 0, 77].into()) && routes.contains("10.244.2.0/24 via 10.9.0.2") {
            Ok(())
        } else {
            Err(format!("{public:?} {routes} {:?}", cluster.daemons[0].status.borrow().problems()))
        }
    });
    let node = a.as_node(&underlay.borrow());
    cluster.daemons[1].change(|snapshot| snapshot.peers = vec![node]);
    assert_reaches(b, a, true);
    assert_reaches(a, b, true);
}

#[test]
fn the_mtu_follows_the_uplink() {
    let cluster = Cluster::new(1, &config(VXLAN_DUAL));
    let a = &cluster.hosts[0];
    for (uplink, v4, v6) in [(1400, 1350, 1330), (1500, 1450, 1430), (9000, 8950, 8930)] {
        a.sh(&format!("ip link set eth0 mtu {uplink}"));
        wait(HEALED, "the tunnels' MTU", || {
            let mut socket = a.socket();
            let mtu =
                |socket: &mut corten_netlink::Socket, name: &str| socket.link(name).unwrap().map(|l| l.mtu);
            let now = (
                mtu(&mut socket, "flannel.1"),
                mtu(&mut socket, "flannel-v6.1"),
                cluster.daemons[0].underlay.borrow().pod_mtu,
            );
            if now == (Some(v4), Some(v6), v6) { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }
}

#[test]
fn a_peers_new_mac_and_new_address_leave_nothing_of_the_old() {
    let cluster = Cluster::new(2, &config(VXLAN_DUAL));
    let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
    let node = b.as_node(&cluster.daemons[1].underlay.borrow());
    let old = vtep(&node).v4.expect("a tunnel");
    let mut changed = node.clone();
    let new = Dual {
        v4: Some("02:00:00:00:07:04".parse().unwrap()),
        v6: Some("02:00:00:00:07:06".parse().unwrap()),
    };
    changed.backend = Backend::Vxlan { vni: 1, vtep: new };
    changed.public_ips.v4 = Some("10.9.0.200".parse().unwrap());
    cluster.daemons[0].change(|snapshot| snapshot.peers = vec![changed]);
    wait(HEALED, "the new entries", || {
        let now = a.sh("bridge fdb show dev flannel.1; ip neigh show dev flannel.1 nud permanent");
        let lines: Vec<&str> = now.lines().map(str::trim).collect();
        let wanted = [
            "02:00:00:00:07:04 dst 10.9.0.200 self permanent",
            "10.244.2.0 lladdr 02:00:00:00:07:04 PERMANENT",
        ];
        if lines == wanted && !now.contains(&old.to_string()) { Ok(()) } else { Err(now) }
    });
    cluster.daemons[0].change(|snapshot| snapshot.peers = vec![node]);
    assert_reaches(a, b, true);
    assert_reaches(a, b, false);
}

#[test]
fn nodes_come_and_go() {
    for net_conf in [VXLAN_DUAL, HOST_GW_DUAL] {
        let cluster = Cluster::new(2, &config(net_conf));
        let [a, _] = &cluster.hosts[..] else { panic!("two nodes") };
        let with = state(a);
        let peers = cluster.nodes()[1..].to_vec();
        cluster.daemons[0].change(|snapshot| snapshot.peers.clear());
        wait(HEALED, "nothing of the peer", || {
            let now = state(a);
            let left: Vec<&str> = now
                .lines()
                .filter(|l| l.contains("10.244.2.") || l.contains("fd44:2:") || l.contains("dst 10.9.0.2"))
                .collect();
            if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
        });
        cluster.daemons[0].change(|snapshot| snapshot.peers = peers);
        wait(HEALED, "the peer again", || same(&with, &state(a)));
    }
}

#[test]
fn what_went_while_the_daemon_was_down_is_removed_at_its_start() {
    for net_conf in [VXLAN_DUAL, HOST_GW_DUAL] {
        let mut cluster = Cluster::new(3, &config(net_conf));
        let local = cluster.nodes()[0].clone();
        let peer = cluster.nodes()[1].clone();
        let daemon = cluster.daemons.remove(0);
        daemon.stop().expect("ended");
        let a = &cluster.hosts[0];
        assert!(a.sh("ip route").contains("10.244.3.0/24"), "the daemon's end takes nothing away");
        a.sh(
            "ip route add 10.245.0.0/24 via 10.9.0.9; ip route add 10.244.99.0/24 via 10.9.0.9 proto static",
        );
        let daemon = a.open(config(net_conf)).expect("opened");
        daemon.give(local, vec![peer]);
        daemon.wait_ready();
        let left = state(a);
        for gone in ["10.244.3.", "fd44:3:", "dst 10.9.0.3 ", "dst fd09::3 "] {
            assert!(!left.contains(gone), "{gone}: {left}");
        }
        assert!(
            left.contains("10.245.0.0/24") && left.contains("10.244.99.0/24"),
            "others' routes stay: {left}"
        );
        assert_reaches(a, &cluster.hosts[1], true);
        drop(daemon);
        cluster.daemons.clear();
    }
}

#[test]
fn a_flapping_link_gets_its_routes_again() {
    let direct = VXLAN_DUAL.replace(r#""Type": "vxlan""#, r#""Type": "vxlan", "DirectRouting": true"#);
    for net_conf in [direct.as_str(), HOST_GW_DUAL, VXLAN_DUAL] {
        let cluster = Cluster::new(2, &config(net_conf));
        let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
        a.sh("echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down");
        for _ in 0..3 {
            a.sh("ip link set eth0 down");
            std::thread::sleep(Duration::from_millis(60));
            a.sh("ip link set eth0 up");
        }
        for ipv4 in [true, false] {
            assert_reaches(a, b, ipv4);
            assert_reaches(b, a, ipv4);
        }
        wait(HEALED, "healthy again", || {
            let problems = cluster.daemons[0].status.borrow().problems();
            if problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}")) }
        });
    }
}

#[test]
fn an_uplink_that_is_made_anew_carries_the_tunnel_again() {
    let cluster = Cluster::new(2, &config(VXLAN));
    let [a, b] = &cluster.hosts[..] else { panic!("two nodes") };
    // The kernel deletes the tunnel device with the link it is on.
    a.sh("ip link del eth0");
    wait(HEALED, "the trouble is told", || {
        let problems = cluster.daemons[0].status.borrow().problems().join("\n");
        if problems.contains("eth0") { Ok(()) } else { Err(problems) }
    });
    use std::os::fd::{AsFd, AsRawFd};
    let path = format!("/proc/{}/fd/{}", std::process::id(), a.namespace.as_fd().as_raw_fd());
    crate::world::sh(
        &cluster.switch.namespace,
        &format!("ip link add port1 type veth peer name eth0 netns {path}; ip link set port1 master br0 up"),
    );
    a.sh("ip link set eth0 up; ip addr add 10.9.0.1/24 dev eth0");
    assert_reaches(a, b, true);
    assert_reaches(b, a, true);
}
