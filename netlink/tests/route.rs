//! Links, addresses and routes against the kernel, each test in network namespaces of its own.

use std::os::fd::AsFd;

use corten_netlink::route::{
    Address, BridgePort, Forward, IPV4_DEVCONF_ARP_NOTIFY, IPV4_DEVCONF_ROUTE_LOCALNET, Link, LinkChange,
    Mac, Neighbour, Peer, Route, RouteKind, Veth, Vxlan, encode,
};
use corten_netlink::{Cidr, Event, Notifications, Protocol, RouteGroup, Socket};
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

fn up(index: u32) -> corten_netlink::Message {
    encode::set_link(index, &LinkChange { up: Some(true), ..LinkChange::default() })
}

/// A bridge as underlay with an address, and a vxlan device on it that is up.
fn tunnel(host: &mut Socket, local: &str) -> (Link, Link) {
    host.transact(vec![encode::create_bridge("br0", 1500)]).expect("the underlay");
    let underlay = link(host, "br0");
    let local = cidr(local);
    let mtu = if local.is_ipv4() { 1450 } else { 1430 };
    let vxlan = Vxlan {
        vni: 1,
        port: 8472,
        local: Some(local.address()),
        link: Some(underlay.index),
        learning: false,
        gbp: false,
        checksum: false,
    };
    host.transact(vec![
        encode::add_address_undetected(underlay.index, local),
        encode::create_vxlan("flannel.1", Some(Mac([2, 0, 0, 0, 0, 1])), mtu, &vxlan),
    ])
    .expect("created");
    let device = link(host, "flannel.1");
    assert_eq!(device.vxlan, Some(vxlan));
    assert_eq!((device.mac, device.mtu, device.up), (Some(Mac([2, 0, 0, 0, 0, 1])), mtu, false));
    let change = LinkChange { no_generated_ipv6: true, ..LinkChange::default() };
    host.transact(vec![encode::set_link(device.index, &change), up(device.index)]).expect("up");
    assert_eq!(host.addresses(device.index).expect("listed"), [], "no link-local address was made");
    (underlay, device)
}

#[test]
fn a_vxlan_device_is_created_read_and_changed_in_place() {
    for (first, second) in [("10.9.0.1/24", "10.9.0.2/24"), ("fd09::1/64", "fd09::2/64")] {
        let (mut host, _, _) = two_networks();
        let (_, device) = tunnel(&mut host, first);
        let changed = Vxlan {
            local: Some(cidr(second).address()),
            learning: true,
            ..device.vxlan.expect("a vxlan device")
        };
        host.transact(vec![encode::set_vxlan(device.index, &changed)]).expect("changed");
        assert_eq!(link(&mut host, "flannel.1").vxlan, Some(changed));
        let again = host.transact(vec![encode::create_vxlan("flannel.1", None, 0, &changed)]);
        assert!(again.expect_err("the name is taken").is(Errno::EEXIST));
    }
}

#[test]
fn neighbours_and_forwarding_entries_are_put_replaced_listed_and_deleted() {
    for (local, gateway, nodes) in [
        ("10.9.0.1/24", "10.244.1.0", ["10.9.0.2", "10.9.0.3"]),
        ("fd09::1/64", "fd44:1::", ["fd09::2", "fd09::3"]),
    ] {
        let (mut host, _, _) = two_networks();
        let (_, device) = tunnel(&mut host, local);
        let gateway = gateway.parse().unwrap();
        let nodes = nodes.map(|node| node.parse().unwrap());
        let macs = [Mac([2, 0, 0, 0, 0, 8]), Mac([2, 0, 0, 0, 0, 9])];
        for (mac, node) in macs.into_iter().zip(nodes) {
            host.transact(vec![
                encode::put_forward(device.index, macs[0], node),
                encode::put_neighbour(device.index, gateway, mac),
            ])
            .expect("put, then put in its place");
            let forward = Forward { link: device.index, mac: macs[0], destination: node, permanent: true };
            assert_eq!(host.forwards(device.index).expect("listed"), [forward]);
            let neighbours = host.neighbours(gateway.is_ipv4(), device.index).expect("listed");
            let neighbour =
                Neighbour { link: device.index, address: gateway, mac: Some(mac), permanent: true };
            assert!(neighbours.contains(&neighbour), "{neighbours:?}");
        }
        let delete = || {
            vec![
                encode::delete_neighbour(device.index, gateway),
                encode::delete_forward(device.index, macs[0], nodes[1]),
            ]
        };
        host.transact(delete()).expect("deleted");
        assert_eq!(host.forwards(device.index).expect("listed"), []);
        assert!(host.transact(delete()).expect_err("nothing left").is(Errno::ENOENT));
    }
}

#[test]
fn a_route_takes_the_place_of_another_and_is_deleted_exactly() {
    let (mut host, _, _) = two_networks();
    assert_eq!(host.main_routes(true).expect("no table is no error"), []);
    let (underlay, device) = tunnel(&mut host, "10.9.0.1/24");
    host.transact(vec![encode::add_address_undetected(underlay.index, cidr("fd09::1/64"))]).expect("IPv6");
    for (pods, gateway, direct, via) in [
        ("10.244.1.0/24", "10.244.1.0", "10.9.0.2", "fd09::2"),
        ("fd44:1::/64", "fd44:1::", "fd09::2", "fd09::3"),
    ] {
        let pods = cidr(pods);
        let main = Route { table: Some(254), protocol: 67, ..Route::to(pods) };
        let main = if pods.is_ipv4() { main } else { Route { priority: 1024, ..main } };
        let tunnelled =
            Route { gateway: Some(gateway.parse().unwrap()), link: Some(device.index), onlink: true, ..main };
        let plain = Route { gateway: Some(direct.parse().unwrap()), link: Some(underlay.index), ..main };
        let other_family = Route { gateway: Some(via.parse().unwrap()), ..plain };
        let of_pods = |host: &mut Socket| {
            let mut routes = host.main_routes(pods.is_ipv4()).expect("listed");
            routes.retain(|route| route.destination == pods);
            routes
        };
        for route in [tunnelled, plain, other_family, tunnelled] {
            let put = || vec![encode::replace_route(&route)];
            if let Err(refusal) = host.transact(put()) {
                // IPv6 looks the onlink gateway up, and finds the very route that is to go.
                assert!(refusal.is(Errno::EINVAL) && !pods.is_ipv4() && route == tunnelled, "{refusal}");
                host.transact(vec![encode::delete_route(&other_family)]).expect("deleted");
                host.transact(put()).expect("put");
            }
            assert_eq!(of_pods(&mut host), [route], "no other is left");
        }
        let wrong = host.transact(vec![encode::delete_route(&Route { protocol: 99, ..tunnelled })]);
        assert!(wrong.expect_err("of another protocol").is(Errno::ESRCH));
        host.transact(vec![encode::delete_route(&tunnelled)]).expect("deleted");
        assert_eq!(of_pods(&mut host), []);
        let blackhole = Route { kind: RouteKind::Blackhole, priority: 9999, ..main };
        host.transact(vec![encode::replace_route(&blackhole)]).expect("put");
        assert_eq!(of_pods(&mut host)[0].kind, RouteKind::Blackhole);
        assert!(host.routes(pods.is_ipv4()).expect("listed").iter().all(|r| r.destination != pods));
        host.transact(vec![encode::delete_route(&blackhole)]).expect("deleted");
        assert_eq!(of_pods(&mut host), []);
    }
    let towards = host.route_towards("10.9.0.7".parse().unwrap()).expect("looked up").expect("a route");
    assert_eq!((towards.link, towards.gateway), (Some(underlay.index), None));
    assert_eq!(towards.source, Some("10.9.0.1".parse().unwrap()));
    assert_eq!(host.route_towards("10.9.0.1".parse().unwrap()).expect("looked up"), None, "it is this host");
}

#[test]
fn thousands_of_requests_are_pipelined_and_the_refused_are_told_by_their_place() {
    let (mut host, _, _) = two_networks();
    let (_, device) = tunnel(&mut host, "10.9.0.1/16");
    let node = |n: u32| std::net::IpAddr::from((0x0a09_0000 + n).to_be_bytes());
    let mac = |n: u32| Mac([2, 0, 0, 1, (n >> 8) as u8, n as u8]);
    let mut requests: Vec<_> =
        (2..4002).map(|n| encode::put_forward(device.index, mac(n), node(n))).collect();
    for place in [0, 127, 128, 3999] {
        requests[place] = encode::put_forward(9999, mac(1), node(1));
    }
    let refused = host.transact_all(requests).expect("the socket works");
    assert_eq!(refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 127, 128, 3999]);
    assert!(refused[0].1.to_string().contains("on link 9999"), "{}", refused[0].1);
    assert_eq!(host.forwards(device.index).expect("listed").len(), 3996);
    let all_bad = (0..1000).map(|n| encode::put_forward(9999, mac(n), node(n))).collect();
    assert_eq!(host.transact_all(all_bad).expect("refusals do not overrun the queue").len(), 1000);
}

#[test]
fn links_and_addresses_of_another_namespace_are_read_from_here() {
    let (mut host, pod, mut inside) = two_networks();
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let peer = Peer { name: "eth0", netns: pod.as_fd(), mac: Some(mac) };
    host.transact(vec![encode::create_veth(&Veth { name: "veth1", master: None, mtu: 0, peer })])
        .expect("the pair");
    let inner = link(&mut inside, "eth0").index;
    let address = cidr("10.2.0.7/24");
    inside.transact(vec![encode::add_address(inner, address), up(inner)]).expect("an address");
    let veth = link(&mut host, "veth1");
    let netns = veth.peer_netns.expect("the peer is elsewhere");
    let links = host.links_in(netns).expect("listed");
    let found = links.iter().find(|l| Some(l.index) == veth.peer).expect("the peer");
    assert_eq!((found.name.as_str(), found.mac), ("eth0", Some(mac)));
    let addresses = host.addresses_in(netns).expect("listed");
    assert!(addresses.iter().any(|a| a.index == inner && a.cidr == address), "{addresses:?}");
    assert!(host.links_in(netns + 77).is_err(), "there is no such namespace");
}

#[test]
fn changes_are_heard_of_with_their_sender() {
    let (mut host, _, _) = two_networks();
    let groups = [RouteGroup::Links, RouteGroup::Ipv4Addresses, RouteGroup::Neighbours];
    let mut notifications = Notifications::route(&groups).expect("a socket");
    assert_eq!(notifications.read().expect("read"), [], "it does not block");
    let port = host.port().expect("a port");
    assert_ne!(port, 0);
    host.transact(vec![encode::create_bridge("br0", 0)]).expect("the bridge");
    let index = link(&mut host, "br0").index;
    host.transact(vec![
        encode::add_address(index, cidr("10.2.0.1/16")),
        encode::put_neighbour(index, "10.2.0.9".parse().unwrap(), Mac([2, 0, 0, 0, 0, 9])),
    ])
    .expect("changed");
    let events = notifications.read().expect("read");
    let heard = |wanted: u16| {
        events
            .iter()
            .any(|e| matches!(e, Event::Changed { kind, sender, .. } if *kind == wanted && *sender == port))
    };
    assert!(heard(libc::RTM_NEWADDR) && heard(libc::RTM_NEWNEIGH), "{events:?}");
    assert!(events.iter().any(|e| matches!(e, Event::Changed { kind: libc::RTM_NEWLINK, .. })));
    let mac = |n: u32| Mac([2, 0, 0, 0, (n >> 8) as u8, n as u8]);
    let put = |n| encode::put_neighbour(index, "10.2.0.9".parse().unwrap(), mac(n));
    host.transact((0..40_000).map(put).collect()).expect("a flood");
    let mut lost = false;
    loop {
        let events = notifications.read().expect("read");
        lost |= events.contains(&Event::Lost);
        if events.is_empty() {
            break;
        }
    }
    assert!(lost, "a queue that ran over says so");
}

#[test]
fn a_flushed_ruleset_is_heard_of() {
    use corten_netlink::nft::{Batch, Family, Table};
    let (_, _, _) = two_networks();
    let mut notifications = Notifications::nf_tables().expect("a socket");
    let mut socket = Socket::open(Protocol::Netfilter).expect("a socket");
    let mut batch = Batch::new();
    batch.add_table(Table { family: Family::Inet, name: "t" }, None);
    batch.commit(&mut socket).expect("a table");
    let events = notifications.read().expect("read");
    assert!(matches!(events[0], Event::Changed { kind: 0x0a00, .. }), "NEWTABLE: {events:?}");
}
