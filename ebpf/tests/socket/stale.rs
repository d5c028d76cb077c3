//! Connected UDP sockets whose backend has left: their programs would send into the void for ever
//! (cilium #12859, #27300, #48096).

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use corten_ebpf::socket::{At, Destroyed};
use corten_sys::ns::{self, Kind};

use crate::world::{Backends, Node, at, entry, pod, udp};

const VIP: &str = "10.96.0.60:53";
const VIP6: &str = "[fd00:96::60]:53";

fn connected(to: &str) -> UdpSocket {
    let client = udp(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" });
    client.connect(at(to)).expect("connected");
    client
}

fn works(client: &UdpSocket, backends: &Backends) -> bool {
    client.send(b"x").is_ok_and(|_| {
        backends.answered();
        client.recv(&mut [0; 8]).is_ok()
    })
}

fn was_ended(client: &UdpSocket) -> bool {
    client.recv(&mut [0; 8]).expect_err("ended").kind() == ErrorKind::ConnectionAborted
}

fn here() -> Vec<OwnedFd> {
    vec![ns::open("/proc/thread-self/ns/net", Kind::Network).expect("the node's")]
}

#[test]
fn a_socket_whose_backend_left_is_ended_and_the_others_are_not() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    let v6 = Backends::v6(1);
    let six = entry(&[At::udp(at(VIP6))], &v6.addresses);
    node.serve(&[entry(&[At::udp(at(VIP))], &backends.addresses[..1]), six.clone()]);
    let (leaving, mapped) = (connected(VIP), connected("[::ffff:10.96.0.60]:53"));
    let staying = connected(VIP6);
    let direct = udp("0.0.0.0:0");
    direct.connect(backends.addresses[0]).expect("connected");
    assert!(!node.services.has_stale().expect("read"));

    node.serve(&[entry(&[At::udp(at(VIP))], &backends.addresses[1..]), six]);
    assert!(node.services.has_stale().expect("read"));
    let ended = node.services.destroy_stale(&here()).expect("destroyed");
    assert_eq!(ended, Destroyed { destroyed: 2, missing: 0 });
    assert!(was_ended(&leaving) && was_ended(&mapped));
    assert!(works(&staying, &v6));
    assert!(works(&direct, &backends), "it never asked for the service");
    leaving.connect(at(VIP)).expect("connected anew");
    assert!(works(&leaving, &backends), "to the backend that is there now");
    assert_eq!(node.services.destroy_stale(&here()).expect("nothing"), Destroyed::default());
}

#[test]
fn sockets_of_pods_are_found_in_their_namespaces() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[At::udp(at(VIP))], &backends.addresses)]);
    let (first, second) = (pod(10), pod(11));
    let in_first = first.run(|| connected(VIP)).expect("in the pod");
    let in_second = second.run(|| connected(VIP)).expect("in the pod");
    node.serve(&[]);
    let mut networks = here();
    networks.push(fd_of(&first));
    networks.push(fd_of(&second));
    let ended = node.services.destroy_stale(&networks).expect("destroyed");
    assert_eq!(ended, Destroyed { destroyed: 2, missing: 0 });
    assert!(was_ended(&in_first) && was_ended(&in_second));
}

fn fd_of(pod: &corten_sys::netns::NetNs) -> OwnedFd {
    std::os::fd::AsFd::as_fd(pod).try_clone_to_owned().expect("duplicated")
}

#[test]
fn what_left_while_no_daemon_ran_is_found_by_the_next() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    node.serve(&[entry(&[At::udp(at(VIP))], &backends.addresses[..1])]);
    let client = connected(VIP);
    node.restart();
    node.serve(&[entry(&[At::udp(at(VIP))], &backends.addresses[1..])]);
    assert_eq!(node.services.destroy_stale(&here()).expect("destroyed").destroyed, 1);
    assert!(was_ended(&client));
}

#[test]
fn node_ports_count_as_well() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    let node_port = At::udp(at("0.0.0.0:30053"));
    node.serve(&[entry(&[node_port], &backends.addresses[..1])]);
    let client = connected("192.0.2.1:30053");
    node.serve(&[entry(&[node_port], &backends.addresses)]);
    assert!(!node.services.has_stale().expect("read"), "its backend is still one of them");
    node.serve(&[entry(&[node_port], &backends.addresses[1..])]);
    assert_eq!(node.services.destroy_stale(&here()).expect("destroyed").destroyed, 1);
    assert!(was_ended(&client));
}

#[test]
fn sockets_that_are_not_connected_to_it_any_more_are_left() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    let other = at("10.96.0.61:53");
    node.serve(&[
        entry(&[At::udp(at(VIP))], &backends.addresses[..1]),
        entry(&[At::udp(other)], &backends.addresses[1..]),
    ]);
    let unconnected = udp("0.0.0.0:0");
    unconnected.send_to(b"x", at(VIP)).expect("sent");
    backends.answered();
    let elsewhere = connected(VIP);
    elsewhere.connect(other).expect("connected elsewhere");
    drop(connected(VIP));
    node.serve(&[entry(&[At::udp(other)], &backends.addresses[1..])]);
    let ended = node.services.destroy_stale(&here()).expect("nothing to destroy");
    assert_eq!(ended.destroyed, 0);
    assert!(works(&elsewhere, &backends));
}
