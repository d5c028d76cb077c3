//! What cannot work is refused by name, and leaves nothing behind.

use corten_netd::overlay::OverlayError;
use corten_netd::source::Remembered;

use crate::world::{Config, HEALED, HOST_GW_DUAL, Host, Switch, VXLAN, VXLAN_DUAL, config, wait};

fn refused(host: &Host, config: Config) -> OverlayError {
    let before = host.dump();
    let Err(error) = host.open(config) else { panic!("refused") };
    assert_eq!(host.dump(), before, "nothing was changed");
    error
}

#[test]
fn a_foreign_device_of_our_name_is_refused_by_name() {
    let switch = Switch::new();
    for (foreign, found) in [
        ("ip link add flannel.1 type bridge", "is a link of kind bridge, not a vxlan device with VNI 1"),
        (
            "ip link add flannel.1 type vxlan id 7 dev eth0 dstport 8472 nolearning",
            "is a vxlan device with VNI 7, not a vxlan device with VNI 1",
        ),
    ] {
        let host = switch.node(if foreign.contains("bridge") { 1 } else { 2 });
        host.sh(foreign);
        let error = refused(&host, config(VXLAN));
        assert!(error.is_final());
        let text = error.to_string();
        assert!(text.contains("flannel.1") && text.contains(found), "{text}");
    }
}

#[test]
fn another_device_with_our_vni_and_port_is_named() {
    let switch = Switch::new();
    let host = switch.node(1);
    host.sh("ip link add vx0 type vxlan id 1 local 10.9.0.1 dev eth0 dstport 8472");
    let text = refused(&host, config(VXLAN)).to_string();
    assert!(text.contains("link vx0 has VNI 1 and UDP port 8472 already"), "{text}");
}

#[test]
fn a_foreign_device_that_appears_before_the_first_pass_leaves_nothing_half_made() {
    let switch = Switch::new();
    let host = switch.node(1);
    let daemon = host.open(config(VXLAN_DUAL)).expect("opened");
    host.sh("ip link add flannel-v6.1 type bridge");
    let before = host.dump();
    let local = host.as_node(&daemon.underlay.borrow());
    daemon.give(local, Vec::new());
    let error = daemon.failure();
    assert!(matches!(error, OverlayError::Foreign { .. }), "{error}");
    assert_eq!(host.dump(), before);
}

#[test]
fn settings_that_cannot_be_written_leave_nothing_half_made() {
    let switch = Switch::new();
    let host = switch.node(1);
    host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    // Of this thread and those it starts.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace, as root");
    host.sh("mount --make-rprivate /; mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys");
    let before = host.dump();
    let daemon = host.open(config(VXLAN_DUAL)).expect("opened");
    let local = host.as_node(&daemon.underlay.borrow());
    daemon.give(local, Vec::new());
    let error = daemon.failure();
    assert!(error.is_final() && error.to_string().contains("net/ipv4/ip_forward"), "{error}");
    assert_eq!(host.dump(), before);
}

#[test]
fn an_uplink_that_is_not_there_or_has_no_address_is_told() {
    let switch = Switch::new();
    let host = switch.node(1);
    let mut missing = config(VXLAN);
    missing.uplink.iface = vec!["eth9".into()];
    let text = refused(&host, missing).to_string();
    assert!(text.contains("eth9") && text.contains("eth0"), "{text}");
    let mut default = config(VXLAN);
    default.uplink.iface.clear();
    assert!(refused(&host, default).to_string().contains("no default route"), "");
    host.sh("ip -6 addr flush dev eth0");
    let text = refused(&host, config(VXLAN_DUAL)).to_string();
    assert!(text.contains("uplink eth0 has no usable IPv6 address"), "{text}");
}

#[test]
fn host_gw_refuses_translation() {
    let switch = Switch::new();
    let host = switch.node(1);
    let mut config = config(HOST_GW_DUAL);
    config.uplink.public_ips.v4 = Some("192.0.2.1".parse().unwrap());
    let text = refused(&host, config).to_string();
    assert!(text.contains("192.0.2.1 is not uplink eth0's 10.9.0.1"), "{text}");
}

#[test]
fn an_mtu_too_small_for_ipv6_is_refused() {
    let switch = Switch::new();
    let host = switch.node(1);
    host.sh("ip link set eth0 mtu 1300");
    let text = refused(&host, config(VXLAN_DUAL)).to_string();
    assert!(text.contains("eth0 has MTU 1300"), "{text}");
}

#[test]
fn without_privileges_the_capability_is_named() {
    let switch = Switch::new();
    let host = switch.node(1);
    let before = host.dump();
    let error = host
        .namespace
        .run(|| {
            std::thread::scope(|scope| {
                let unprivileged = scope.spawn(|| {
                    // Of this thread alone.
                    corten_sys::caps::set(&corten_sys::caps::Sets::default()).expect("dropped");
                    corten_netd::overlay::Overlay::open(config(VXLAN), Remembered::default()).map(|_| ())
                });
                unprivileged.join().expect("no panic")
            })
        })
        .expect("inside");
    let text = error.expect_err("refused").to_string();
    assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    assert_eq!(host.dump(), before);
}

#[test]
fn a_route_of_others_to_a_peers_pods_is_left_and_told_until_it_goes() {
    let switch = Switch::new();
    let (host, other) = (switch.node(1), switch.node(2));
    host.sh("ip route add 10.244.2.0/24 via 10.9.0.9 proto static");
    let daemon = host.open(config(VXLAN)).expect("opened");
    let peer = other.open(config(VXLAN)).expect("opened");
    let node = other.as_node(&peer.underlay.borrow());
    daemon.give(host.as_node(&daemon.underlay.borrow()), vec![node]);
    wait(HEALED, "the conflict is told", || {
        let problems = daemon.status.borrow().problems().join("\n");
        let wanted = "node2: 10.244.2.0/24 is routed already: 10.244.2.0/24 via 10.9.0.9";
        if problems.contains(wanted) { Ok(()) } else { Err(problems) }
    });
    assert!(host.sh("ip route").contains("10.244.2.0/24 via 10.9.0.9"));
    host.sh("ip route del 10.244.2.0/24");
    wait(HEALED, "the route", || {
        let routes = host.sh("ip route show dev flannel.1");
        if routes.contains("10.244.2.0/24 via 10.244.2.0") { Ok(()) } else { Err(routes) }
    });
    daemon.wait_ready();
}
