//! Links, addresses and routes against the kernel, each test in network namespaces of its own.

use std::os::fd::AsFd;

use corten_netlink::route::{
    Address, BridgePort, IPV4_DEVCONF_ARP_NOTIFY, IPV4_DEVCONF_ROUTE_LOCALNET, Link, LinkChange, Mac, Peer,
    Route, Veth, encode,
};
use corten_netlink::{Cidr, Protocol, Socket};
use corten_sys::netns::NetNs;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

/// A fresh namespace for this thread and a second one, with a socket in each.
fn two_networks() -> (Socket, NetNs, Socket) {
    let fresh = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, as root");
        NetNs::current().expect("the namespace")
    };
    let pod = fresh();
    let pod_socket = Socket::open(Protocol::Route).expect("a socket");
    fresh();
    (Socket::open(Protocol::Route).expect("a socket"), pod, pod_socket)
}

fn cidr(text: &str) -> Cidr {
    text.parse().expect("a cidr")
}

fn link(socket: &mut Socket, name: &str) -> Link {
    socket.link(name).expect("looked up").unwrap_or_else(|| panic!("{name} exists"))
}

fn sysctl(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).expect("a sysctl").trim().to_owned()
}

#[test]
fn a_veth_is_born_on_the_bridge_with_its_peer_in_the_other_namespace() {
    let (mut host, pod, mut inside) = two_networks();
    host.transact(vec![encode::create_bridge("br0", 1400)]).expect("the bridge");
    let bridge = link(&mut host, "br0");
    assert_eq!((bridge.kind.as_deref(), bridge.mtu, bridge.up), (Some("bridge"), 1400, true));
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let peer = Peer { name: "eth0", netns: pod.as_fd(), mac: Some(mac) };
    let veth = Veth { name: "veth1", master: Some(bridge.index), mtu: 1300, peer };
    host.transact(vec![encode::create_veth(&veth)]).expect("the pair");
    let outer = link(&mut host, "veth1");
    let inner = link(&mut inside, "eth0");
    assert_eq!((outer.master, outer.mtu, outer.up), (Some(bridge.index), 1300, true));
    assert_eq!((inner.mac, inner.mtu, inner.up), (Some(mac), 1300, false));
    assert_eq!((inner.peer, outer.peer), (Some(outer.index), Some(inner.index)));
    assert_eq!(host.link_by_index(outer.index).expect("looked up"), Some(outer.clone()));
    let again = host.transact(vec![encode::create_veth(&veth)]).expect_err("both names are taken");
    assert!(again.is(Errno::EEXIST), "{again}");
    assert!(again.to_string().starts_with("create veth veth1"), "{again}");
    host.transact(vec![
        encode::set_bridge_port(outer.index, BridgePort { hairpin: true, isolated: true }),
        encode::delete_link(outer.index),
    ])
    .expect("changed, then deleted");
    assert_eq!(host.link("veth1").expect("looked up"), None);
    assert_eq!(inside.link("eth0").expect("looked up"), None, "the peer goes with it");
}

#[test]
fn several_requests_travel_in_one_send_and_the_first_refusal_is_told() {
    let (mut host, _, _) = two_networks();
    let error = host
        .transact(vec![
            encode::create_bridge("br0", 0),
            encode::add_address(9999, cidr("10.0.0.1/24")),
            encode::create_bridge("br1", 0),
        ])
        .expect_err("there is no link 9999");
    assert!(error.is(Errno::ENODEV), "{error}");
    assert!(error.to_string().contains("10.0.0.1/24 of link 9999"), "{error}");
    assert_eq!(host.links().expect("listed").len(), 3, "lo and both bridges: the kernel went on");
}

#[test]
fn addresses_and_routes_are_listed_as_they_were_added() {
    let (mut host, _, _) = two_networks();
    host.transact(vec![encode::create_bridge("br0", 0)]).expect("the bridge");
    let index = link(&mut host, "br0").index;
    let (v4, v6) = (cidr("10.2.0.1/16"), cidr("fd02::1/64"));
    let default = Route {
        gateway: Some("10.2.0.9".parse().unwrap()),
        link: Some(index),
        ..Route::to(cidr("0.0.0.0/0"))
    };
    let special = Route {
        link: Some(index),
        table: Some(1000),
        priority: 77,
        scope: 253,
        mtu: Some(1300),
        advmss: Some(1200),
        ..Route::to(cidr("192.0.2.0/24"))
    };
    host.transact(vec![
        encode::add_address(index, v4),
        encode::add_address(index, v6),
        encode::add_route(&default),
        encode::add_route(&special),
    ])
    .expect("added");
    let addresses: Vec<Cidr> = host.addresses(index).expect("listed").iter().map(|a| a.cidr).collect();
    assert!(addresses.contains(&v4) && addresses.contains(&v6), "{addresses:?}");
    let routes = host.routes(true).expect("listed");
    let main = |mut route: Route| {
        route.table.get_or_insert(254);
        route
    };
    assert!(routes.contains(&main(default)) && routes.contains(&main(special)), "{routes:?}");
    assert_eq!(host.link_towards("192.0.3.1".parse().unwrap()).expect("looked up"), Some(index));
    assert_eq!(host.link_towards("2001:db8::1".parse().unwrap()).expect("looked up"), None);
    host.transact(vec![encode::delete_address(index, v4)]).expect("deleted");
    let left: Vec<Address> = host.addresses(index).expect("listed");
    assert!(!left.iter().any(|a| a.cidr == v4));
}

#[test]
fn ipv4_settings_of_a_link_need_no_proc_sys() {
    let (mut host, _, _) = two_networks();
    host.transact(vec![encode::create_bridge("br0", 0)]).expect("the bridge");
    let index = link(&mut host, "br0").index;
    let conf = vec![(IPV4_DEVCONF_ARP_NOTIFY, 1), (IPV4_DEVCONF_ROUTE_LOCALNET, 1)];
    let change = LinkChange {
        ipv4_conf: conf,
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        promiscuous: Some(true),
        ..LinkChange::default()
    };
    host.transact(vec![encode::set_link(index, &change)]).expect("changed");
    assert_eq!(sysctl("ipv4/conf/br0/arp_notify"), "1");
    assert_eq!(sysctl("ipv4/conf/br0/route_localnet"), "1");
    let bridge = link(&mut host, "br0");
    assert_eq!((bridge.mac, bridge.promiscuity, bridge.up), (Some(Mac([2, 0, 0, 0, 0, 1])), 1, true));
}
