//! NodePort: by any address of the node, and on the node by loopback.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpListener;

use corten_ebpf::socket::{At, Desired};

use crate::world::{Backends, NODE, NODE6, Node, at, connect_error, entry, ip, pod, udp};

const PORT: u16 = 30_080;

fn node_port(v6: bool) -> At {
    At::tcp(if v6 { at("[::]:30080") } else { at("0.0.0.0:30080") })
}

#[test]
fn the_node_reaches_it_by_its_addresses_and_by_loopback() {
    let Some(mut node) = Node::new() else { return };
    let (v4, v6) = (Backends::v4(2), Backends::v6(2));
    node.serve(&[entry(&[node_port(false)], &v4.addresses), entry(&[node_port(true)], &v6.addresses)]);
    for address in [NODE, "127.0.0.1", "127.1.2.3"] {
        let frontend = (ip(address), PORT).into();
        assert_eq!(v4.reached(frontend, 24), BTreeSet::from_iter(v4.addresses.clone()), "{address}");
    }
    let mapped = at("[::ffff:127.0.0.1]:30080");
    v4.connect(mapped);
    for address in [NODE6, "::1"] {
        let frontend = (ip(address), PORT).into();
        assert_eq!(v6.reached(frontend, 24), BTreeSet::from_iter(v6.addresses.clone()), "{address}");
    }
    // To connect to the unspecified address is to connect to oneself.
    v4.connect(at("0.0.0.0:30080"));
    v6.connect(at("[::]:30080"));
}

#[test]
fn a_pod_reaches_it_by_the_nodes_address_and_its_own_loopback_is_its_own() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    node.serve(&[entry(&[node_port(false)], &backends.addresses)]);
    let pod = pod(10);
    let inside = pod.run(|| {
        backends.connect((ip(NODE), PORT).into());
        for own in ["127.0.0.1:30080", "0.0.0.0:30080", "192.0.2.10:30080"] {
            assert_eq!(connect_error(at(own)), ErrorKind::ConnectionRefused, "{own}");
        }
        let listener = TcpListener::bind("0.0.0.0:30080").expect("a listener in the pod");
        std::net::TcpStream::connect("127.0.0.1:30080").expect("connected");
        listener.accept().expect("its own");
    });
    inside.expect("in the pod");
}

#[test]
fn only_its_port_protocol_and_this_nodes_addresses_are_taken() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[node_port(false)], &backends.addresses)]);
    assert_eq!(connect_error(at("192.0.2.1:30081")), ErrorKind::ConnectionRefused);
    assert_eq!(connect_error(at("198.51.100.9:30080")), ErrorKind::NetworkUnreachable, "another node's");
    assert_eq!(connect_error(at("[::1]:30080")), ErrorKind::ConnectionRefused, "none of this family");
    let server = udp("127.0.0.1:30080");
    let client = udp("127.0.0.1:0");
    client.send_to(b"x", "127.0.0.1:30080").expect("sent");
    server.recv_from(&mut [0; 8]).expect("UDP is not TCP's");
}

#[test]
fn an_address_that_the_node_lost_is_no_longer_taken() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[node_port(false)], &backends.addresses)]);
    backends.connect((ip(NODE), PORT).into());
    let without =
        Desired { entries: vec![entry(&[node_port(false)], &backends.addresses)], ..Desired::default() };
    node.services.apply(&without).expect("applied");
    assert_eq!(connect_error((ip(NODE), PORT).into()), ErrorKind::ConnectionRefused);
    backends.connect(at("127.0.0.1:30080"));
}

#[test]
fn a_service_of_that_very_address_goes_first() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    let external = At::tcp((ip(NODE), PORT).into());
    node.serve(&[
        entry(&[node_port(false)], &backends.addresses[..1]),
        entry(&[external], &backends.addresses[1..]),
    ]);
    assert_eq!(backends.connect((ip(NODE), PORT).into()), backends.addresses[1]);
    assert_eq!(backends.connect(at("127.0.0.1:30080")), backends.addresses[0]);
}
