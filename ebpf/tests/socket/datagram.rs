//! UDP, connected and not: who is reached, and whom the answer seems to come from.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use corten_ebpf::socket::At;
use corten_ebpf_layout::service::Counter;

use crate::world::{Backends, Node, at, entry, udp};

const VIP: &str = "10.96.0.53:53";
const MAPPED: &str = "[::ffff:10.96.0.53]:53";
const VIP6: &str = "[fd00:96::53]:53";

/// Sends to the service and takes the answer: which backend was reached, and where the answer seemed to come from.
fn ask(client: &UdpSocket, service: SocketAddr, backends: &Backends) -> (SocketAddr, SocketAddr) {
    client.send_to(b"question", service).expect("sent");
    let (reached, _) = backends.answered();
    let mut buffer = [0; 64];
    let (_, source) = client.recv_from(&mut buffer).expect("an answer");
    (reached, source)
}

#[test]
fn a_connected_socket_reaches_a_backend_and_believes_it_is_the_service() {
    let Some(mut node) = Node::new() else { return };
    for (local, service, v6) in [("0.0.0.0:0", VIP, false), ("[::]:0", MAPPED, false), ("[::]:0", VIP6, true)]
    {
        let backends = Backends::new(v6, if local == "[::]:0" { 5 } else { 1 }, 3);
        let frontend = if v6 { VIP6 } else { VIP };
        node.serve(&[entry(&[At::udp(at(frontend))], &backends.addresses)]);
        let client = udp(local);
        client.connect(at(service)).expect("connected");
        assert_eq!(client.peer_addr().expect("a peer"), at(service));
        client.send(b"question").expect("sent");
        backends.answered();
        let mut buffer = [0; 64];
        let (len, source) = client.recv_from(&mut buffer).expect("an answer");
        assert_eq!((&buffer[..len], source), (&b"question"[..], at(service)));
    }
}

#[test]
fn an_unconnected_socket_gets_its_answer_from_the_service() {
    let Some(mut node) = Node::new() else { return };
    for (local, service, v6) in [("0.0.0.0:0", VIP, false), ("[::]:0", MAPPED, false), ("[::]:0", VIP6, true)]
    {
        let backends = Backends::new(v6, if local == "[::]:0" { 5 } else { 1 }, 3);
        let frontend = if v6 { VIP6 } else { VIP };
        node.serve(&[entry(&[At::udp(at(frontend))], &backends.addresses)]);
        let (reached, source) = ask(&udp(local), at(service), &backends);
        assert!(backends.addresses.contains(&reached));
        assert_eq!(source, at(service));
    }
    assert_eq!(node.services.counters().expect("read")[&Counter::Sent], 3);
}

#[test]
fn many_sockets_spread_over_the_backends() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(3);
    node.serve(&[entry(&[At::udp(at(VIP))], &backends.addresses)]);
    let sockets: Vec<UdpSocket> = (0..32).map(|_| udp("0.0.0.0:0")).collect();
    let reached = sockets.iter().map(|client| ask(client, at(VIP), &backends).0);
    assert_eq!(reached.collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn an_unconnected_socket_stays_with_its_backend_until_that_leaves() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(5);
    let service = |count: usize| [entry(&[At::udp(at(VIP))], &backends.addresses[..count])];
    node.serve(&service(2));
    let client = udp("0.0.0.0:0");
    let (first, _) = ask(&client, at(VIP), &backends);
    for count in [3, 4, 5, 2] {
        node.serve(&service(count));
        assert_eq!(ask(&client, at(VIP), &backends).0, first, "with {count} backends");
    }
    let others: Vec<SocketAddr> = backends.addresses.iter().copied().filter(|b| *b != first).collect();
    node.serve(&[entry(&[At::udp(at(VIP))], &others)]);
    let (second, source) = ask(&client, at(VIP), &backends);
    assert!(others.contains(&second));
    assert_eq!(source, at(VIP));
}

#[test]
fn one_socket_tells_two_services_apart() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    let other = at("10.96.0.54:53");
    node.serve(&[
        entry(&[At::udp(at(VIP))], &backends.addresses[..1]),
        entry(&[At::udp(other)], &backends.addresses[1..]),
    ]);
    let client = udp("0.0.0.0:0");
    for (index, service) in [at(VIP), other, at(VIP)].into_iter().enumerate() {
        assert_eq!(ask(&client, service, &backends), (backends.addresses[index % 2], service));
    }
}

#[test]
fn a_backend_spoken_to_directly_keeps_its_own_name() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    let backend = backends.addresses[0];
    node.serve(&[entry(&[At::udp(at(VIP))], &backends.addresses)]);
    assert_eq!(ask(&udp("0.0.0.0:0"), backend, &backends), (backend, backend));
    // Also for a socket that got there by the service before.
    let client = udp("0.0.0.0:0");
    client.connect(at(VIP)).expect("connected");
    assert_eq!(client.peer_addr().expect("a peer"), at(VIP));
    client.connect(backend).expect("connected");
    assert_eq!(client.peer_addr().expect("a peer"), backend);
}
