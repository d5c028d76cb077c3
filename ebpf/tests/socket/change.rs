//! Services change while programs use them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use corten_ebpf::socket::At;
use corten_ebpf_layout::service::Counter;

use crate::world::{Backends, Node, at, connect_error, entry};

const VIP: &str = "10.96.0.30:80";

fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    server.set_nonblocking(false).expect("set");
    client.write_all(b"ping").expect("sent");
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer).expect("received");
    server.write_all(&buffer).expect("sent");
    client.read_exact(&mut buffer).expect("received");
}

#[test]
fn a_replaced_backend_keeps_its_connections_and_gets_no_new_ones() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses[..1])]);
    let mut client = TcpStream::connect(VIP).expect("connected");
    let (_, mut server) = backends.accepted();
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses[1..])]);
    exchange(&mut client, &mut server);
    assert_eq!(client.peer_addr().expect("a peer"), at(VIP));
    assert_eq!(backends.reached(at(VIP), 8), [backends.addresses[1]].into());
}

#[test]
fn a_removed_service_keeps_its_connections() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    let mut client = TcpStream::connect(VIP).expect("connected");
    let (_, mut server) = backends.accepted();
    node.serve(&[]);
    exchange(&mut client, &mut server);
    assert_eq!(client.peer_addr().expect("a peer"), at(VIP));
    assert_eq!(connect_error(at(VIP)), ErrorKind::NetworkUnreachable);
}

#[test]
fn endpoints_that_come_back_are_reached_again() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    for _ in 0..3 {
        node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
        backends.connect(at(VIP));
        node.serve(&[entry(&[At::tcp(at(VIP))], &[])]);
        assert_eq!(connect_error(at(VIP)), ErrorKind::ConnectionRefused);
    }
}

/// Two services whose lists, and a frontend between them, change all the time, under connections without a pause: none
/// fails, and none reaches a backend that its frontend never had.
#[test]
fn no_connection_sees_a_moment_between_two_lists() {
    const CHANGES: usize = 400;
    let Some(mut node) = Node::new() else { return };
    let (first, second) = (Backends::new(false, 1, 4), Backends::new(false, 11, 4));
    let (vip, other) = (at(VIP), at("10.96.0.31:80"));
    let lists = |round: usize| {
        let take = |b: &Backends| -> Vec<SocketAddr> {
            let keep = |index: usize| (round >> index) & 1 == 1 || index == round % 4;
            b.addresses.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, b)| *b).collect()
        };
        let alone = entry(&[At::tcp(vip)], &take(&first));
        match round % 3 {
            0 => vec![alone],
            1 => vec![alone, entry(&[At::tcp(other)], &take(&second))],
            _ => vec![entry(&[At::tcp(other)], &take(&second)), alone],
        }
    };
    node.serve(&lists(0));
    let (stop, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                TcpStream::connect(vip).expect("connected at any moment");
                connected.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 1.. {
            node.serve(&lists(round));
            while first.accept_one() {}
            assert!(!second.accept_one(), "a backend of the other service was reached");
            if client.is_finished() || round > CHANGES && connected.load(Ordering::Relaxed) > CHANGES {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("every connection was made");
    });
    println!("{} connections during the changes", connected.into_inner());
    assert_eq!(node.services.counters().expect("read")[&Counter::Torn], 0);
}
