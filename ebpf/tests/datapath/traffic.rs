//! Real traffic between real stacks: every path, both families; the counters say which way it went.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use corten_ebpf::datapath::{Datapath, Hook, Reason, state};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv, sendto,
    setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

use crate::nodes::{Backend, Nodes, enter, inside, pod_addresses, pod_name};

const LIMIT: Duration = Duration::from_secs(20);
const BULK: usize = 8 << 20;

/// Everything between two pods, one way and back.
fn everything(from: (u8, u8), to: (u8, u8)) {
    for address in pod_addresses(to.0, to.1) {
        let ip: IpAddr = address.parse().unwrap();
        tcp(from, to, ip);
        udp(from, to, ip);
        thread::scope(|scope| inside(scope, pod_name(from.0, from.1), || echo(ip)).join().unwrap());
    }
}

/// Bulk in both directions over one connection, every byte compared.
fn tcp(from: (u8, u8), to: (u8, u8), ip: IpAddr) {
    let bytes: Vec<u8> = (0..BULK).map(|i| (i ^ i >> 8) as u8).collect();
    thread::scope(|scope| {
        let (ready, wait) = std::sync::mpsc::channel();
        let server = inside(scope, pod_name(to.0, to.1), move || {
            let listener = TcpListener::bind(SocketAddr::new(ip, 0)).unwrap();
            ready.send(listener.local_addr().unwrap().port()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut received = vec![0; BULK];
            stream.read_exact(&mut received).unwrap();
            stream.write_all(&received).unwrap();
        });
        let port = wait.recv_timeout(LIMIT).unwrap();
        let expected = &bytes;
        let client = inside(scope, pod_name(from.0, from.1), move || {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, port), LIMIT).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.write_all(expected).unwrap();
            let mut received = vec![0; BULK];
            stream.read_exact(&mut received).unwrap();
            assert!(received == *expected, "TCP to {ip}");
        });
        client.join().unwrap();
        server.join().unwrap();
    });
}

/// Datagrams of every kind of length that fits, echoed.
fn udp(from: (u8, u8), to: (u8, u8), ip: IpAddr) {
    const LENGTHS: [usize; 9] = [0, 1, 17, 18, 19, 511, 1000, 1381, 1382];
    thread::scope(|scope| {
        let (ready, wait) = std::sync::mpsc::channel();
        let server = inside(scope, pod_name(to.0, to.1), move || {
            let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            ready.send(socket.local_addr().unwrap().port()).unwrap();
            for _ in LENGTHS {
                let mut buffer = [0; 2000];
                let (len, peer) = socket.recv_from(&mut buffer).unwrap();
                socket.send_to(&buffer[..len], peer).unwrap();
            }
        });
        let port = wait.recv_timeout(LIMIT).unwrap();
        let client = inside(scope, pod_name(from.0, from.1), move || {
            let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.connect(SocketAddr::new(ip, port)).unwrap();
            for len in LENGTHS {
                let sent: Vec<u8> = (0..len).map(|i| (i * 13 + len) as u8).collect();
                socket.send(&sent).unwrap();
                let mut buffer = [0; 2000];
                let received = socket.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..received], sent, "{len} bytes of UDP to {ip}");
            }
        });
        client.join().unwrap();
        server.join().unwrap();
    });
}

/// An echo request and its reply, in this thread's network namespace.
fn echo(ip: IpAddr) {
    let v4 = ip.is_ipv4();
    let (family, protocol) = if v4 {
        (AddressFamily::Inet, SockProtocol::Icmp)
    } else {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    };
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    setsockopt(&raw, ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
    let mut request = vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0x43, 0x21, 0, 1];
    request.extend(b"a payload of odd length");
    if v4 {
        // ICMPv6's is the kernel's work.
        let sum = request.chunks(2).fold(0_u32, |sum, word| {
            sum + u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]))
        });
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        request[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&raw);
    match SocketAddr::new(ip, 0) {
        SocketAddr::V4(to) => sendto(fd, &request, &SockaddrIn::from(to), MsgFlags::empty()).unwrap(),
        SocketAddr::V6(to) => sendto(fd, &request, &SockaddrIn6::from(to), MsgFlags::empty()).unwrap(),
    };
    loop {
        let mut buffer = [0; 2000];
        let len =
            recv(fd, &mut buffer, MsgFlags::empty()).unwrap_or_else(|errno| panic!("echo of {ip}: {errno}"));
        let reply = &buffer[if v4 { 20 } else { 0 }..len];
        if reply[0] == if v4 { 0 } else { 129 } && reply[4..] == request[4..] {
            return;
        }
    }
}

fn count(datapath: &Datapath, hook: Hook, reason: Reason) -> u64 {
    let counters = datapath.counters().unwrap();
    counters.iter().find(|(h, r, _)| (*h, *r) == (hook, reason)).map_or(0, |(_, _, packets)| *packets)
}

/// Everything took this fast path; only what is never on it (neighbour discovery, ARP) went another way.
#[track_caller]
fn all_fast(datapath: &Datapath, hook: Hook, reason: Reason) {
    let fast = count(datapath, hook, reason);
    assert!(fast > 100, "{fast} packets were fast: {:?}", datapath.counters());
    for (h, other, packets) in datapath.counters().unwrap() {
        let expected = other.is_fast()
            || matches!(other, Reason::NotIp | Reason::Multicast | Reason::Protocol | Reason::NotOurs);
        assert!(h != hook || expected, "{hook:?}: {packets} packets were {other:?}");
    }
}

#[test]
fn pods_of_one_node_meet_without_the_bridge() {
    let Some(nodes) = Nodes::new(Backend::Vxlan) else { return };
    let datapath = nodes.fast_path(1);
    everything((1, 2), (1, 3));
    all_fast(&datapath, Hook::FromPod, Reason::Local);
}

#[test]
fn vxlan_between_two_fast_nodes() {
    let Some(nodes) = Nodes::new(Backend::Vxlan) else { return };
    let (one, two) = (nodes.fast_path(1), nodes.fast_path(2));
    everything((1, 2), (2, 2));
    everything((2, 3), (1, 3));
    for datapath in [&one, &two] {
        all_fast(datapath, Hook::FromPod, Reason::Vxlan);
        all_fast(datapath, Hook::FromNic, Reason::Vxlan);
    }
}

#[test]
fn vxlan_between_a_fast_node_and_a_kernel() {
    let Some(nodes) = Nodes::new(Backend::Vxlan) else { return };
    let one = nodes.fast_path(1);
    everything((1, 2), (2, 2));
    everything((2, 3), (1, 3));
    all_fast(&one, Hook::FromPod, Reason::Vxlan);
    all_fast(&one, Hook::FromNic, Reason::Vxlan);
}

#[test]
fn host_gw_between_two_fast_nodes() {
    let Some(nodes) = Nodes::new(Backend::HostGw) else { return };
    let (one, two) = (nodes.fast_path(1), nodes.fast_path(2));
    everything((1, 2), (2, 2));
    everything((2, 3), (1, 3));
    for datapath in [&one, &two] {
        all_fast(datapath, Hook::FromPod, Reason::Gateway);
        all_fast(datapath, Hook::FromNic, Reason::Gateway);
    }
}

#[test]
fn host_gw_between_a_fast_node_and_a_kernel() {
    let Some(nodes) = Nodes::new(Backend::HostGw) else { return };
    let one = nodes.fast_path(1);
    everything((1, 2), (2, 2));
    everything((2, 3), (1, 3));
    all_fast(&one, Hook::FromPod, Reason::Gateway);
    all_fast(&one, Hook::FromNic, Reason::Gateway);
}

#[test]
fn switching_during_a_bulk_transfer_loses_no_connection() {
    let Some(nodes) = Nodes::new(Backend::Vxlan) else { return };
    let (mut one, mut two) = (nodes.fast_path(1), nodes.fast_path(2));
    let done = std::sync::atomic::AtomicBool::new(false);
    let switched = thread::scope(|scope| {
        let transfers = scope.spawn(|| {
            for _ in 0..4 {
                tcp((1, 2), (2, 2), pod_addresses(2, 2)[0].parse().unwrap());
                tcp((2, 2), (1, 2), pod_addresses(1, 2)[1].parse().unwrap());
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut switched = 0;
        while !done.load(std::sync::atomic::Ordering::Acquire) && !transfers.is_finished() {
            for to in [state::OFF, state::ON] {
                one.set_state(to).unwrap();
                thread::sleep(Duration::from_millis(3));
                two.set_state(to).unwrap();
                switched += 1;
            }
        }
        transfers.join().unwrap();
        switched
    });
    assert!(switched > 4, "switched {switched} times");
    for datapath in [&one, &two] {
        assert!(count(datapath, Hook::FromPod, Reason::Vxlan) > 0);
        assert!(count(datapath, Hook::FromPod, Reason::Off) > 0);
    }
}

#[test]
fn the_loader_may_be_replaced_under_load() {
    let Some(nodes) = Nodes::new(Backend::Vxlan) else { return };
    drop((nodes.fast_path(1), nodes.fast_path(2)));
    let done = std::sync::atomic::AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let transfers = scope.spawn(|| {
            for _ in 0..4 {
                tcp((1, 2), (2, 2), pod_addresses(2, 2)[0].parse().unwrap());
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut last = nodes.fast_path(1);
        while !done.load(std::sync::atomic::Ordering::Acquire) && !transfers.is_finished() {
            drop(last);
            last = nodes.fast_path(1);
        }
        transfers.join().unwrap();
        last
    });
    // Not one packet found no program: all that came were fast.
    all_fast(&last, Hook::FromPod, Reason::Vxlan);
}

#[test]
fn a_new_pod_with_the_address_of_one_that_is_gone_is_reached_though_nobody_runs() {
    let Some(nodes) = Nodes::new(Backend::Vxlan) else { return };
    let datapath = nodes.fast_path(1);
    everything((1, 2), (1, 3));
    drop(datapath);
    crate::netns::run("ip -n n1 link del v3");
    crate::netns::run("ip netns del p13");
    nodes.make_pod(1, 3);
    for address in pod_addresses(1, 3) {
        let ip: IpAddr = address.parse().unwrap();
        tcp((1, 2), (1, 3), ip);
        tcp((2, 2), (1, 3), ip);
    }
    enter("n1");
}
