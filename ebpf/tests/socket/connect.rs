//! TCP: who is reached, and what the client believes it reached.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use corten_ebpf::socket::{At, Entry};
use corten_ebpf_layout::service::Counter;

use crate::world::{Backends, Node, at, connect_error, entry};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00:96::10]:80";

#[test]
fn a_cluster_ip_reaches_every_backend_with_no_rule_in_the_kernel() {
    let Some(mut node) = Node::new() else { return };
    for (backends, vip) in [(Backends::v4(3), VIP), (Backends::v6(3), VIP6)] {
        node.serve(&[entry(&[At::tcp(at(vip))], &backends.addresses)]);
        assert_eq!(backends.reached(at(vip), 64), BTreeSet::from_iter(backends.addresses.clone()));
    }
    let counters = node.services.counters().expect("read");
    assert_eq!(counters[&Counter::Connected], 128);
    assert_eq!(counters[&Counter::Reversed], 128, "each client asked for its peer's name");
}

#[test]
fn data_goes_both_ways() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    let mut client = TcpStream::connect(VIP).expect("connected");
    let (_, mut server) = backends.accepted();
    client.write_all(b"ping").expect("sent");
    let mut buffer = [0; 4];
    server.set_nonblocking(false).expect("set");
    server.read_exact(&mut buffer).expect("received");
    server.write_all(b"pong").expect("sent");
    client.read_exact(&mut buffer).expect("received");
    assert_eq!(&buffer, b"pong");
    assert_ne!(server.peer_addr().expect("a peer"), at(VIP), "the server sees the client");
}

#[test]
fn an_ipv6_socket_reaches_an_ipv4_service_by_its_mapped_address() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    let mapped = at("[::ffff:10.96.0.10]:80");
    assert_eq!(backends.reached(mapped, 32).len(), 2);
}

#[test]
fn a_destination_that_is_no_service_is_left_alone() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses[..1])]);
    // A pod itself; the service's address on another port; its port at another address; its UDP.
    assert_eq!(backends.connect(backends.addresses[1]), backends.addresses[1]);
    let other = TcpListener::bind("192.0.2.1:80").expect("a listener");
    TcpStream::connect("192.0.2.1:80").expect("connected");
    other.accept().expect("accepted");
    let before = node.services.counters().expect("read");
    for untouched in ["10.96.0.10:81", "10.96.0.11:80"] {
        let error = TcpStream::connect(untouched).expect_err("nowhere to go").kind();
        assert_eq!(error, ErrorKind::NetworkUnreachable, "{untouched}");
    }
    assert_eq!(node.services.counters().expect("read"), before);
}

#[test]
fn a_socket_made_outside_of_the_cgroup_is_not_touched() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    node.cgroup.leave();
    assert_eq!(connect_error(at(VIP)), ErrorKind::NetworkUnreachable);
    node.cgroup.join();
    backends.connect(at(VIP));
}

#[test]
fn no_endpoints_refuse_at_once_and_by_that_name() {
    let Some(mut node) = Node::new() else { return };
    node.serve(&[entry(&[At::tcp(at(VIP)), At::udp(at(VIP))], &[])]);
    assert_eq!(connect_error(at(VIP)), ErrorKind::ConnectionRefused);
    let datagram = crate::world::udp("0.0.0.0:0");
    assert_eq!(datagram.send_to(b"x", at(VIP)).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
    assert_eq!(datagram.connect(at(VIP)).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
    assert_eq!(node.services.counters().expect("read")[&Counter::Refused], 3);
}

#[test]
fn switched_off_nothing_is_translated() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    let client = TcpStream::connect(VIP).expect("connected");
    node.services.set_enabled(false);
    assert_eq!(connect_error(at(VIP)), ErrorKind::NetworkUnreachable);
    assert_eq!(
        client.peer_addr().expect("a peer"),
        at(VIP),
        "what was translated goes on being translated back"
    );
    node.services.set_enabled(true);
    TcpStream::connect(VIP).expect("connected");
}

#[test]
fn thousands_of_services() {
    const SERVICES: u16 = 5_000;
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(4);
    let vip = |n: u16| SocketAddr::new([10, 97, (n >> 8) as u8, n as u8].into(), 80);
    let all: Vec<Entry> =
        (0..SERVICES).map(|n| entry(&[At::tcp(vip(n)), At::udp(vip(n))], &backends.addresses)).collect();
    let start = Instant::now();
    node.serve(&all);
    println!("{SERVICES} services of 4 backends written, and read again: {:?}", start.elapsed());
    for n in [0, 1, 2_499, SERVICES - 1] {
        assert!(backends.addresses.contains(&backends.connect(vip(n))));
    }
    let start = Instant::now();
    node.serve(&all[1..]);
    println!("one of them removed: {:?}", start.elapsed());
    assert_eq!(connect_error(vip(0)), ErrorKind::NetworkUnreachable);
    node.serve(&[]);
    assert_eq!(node.services.actual().expect("read").sets.len(), 0);
}
