//! Programs, maps and links outlive the daemon, and its next start takes them over.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::maps::{HashMap, MapData};
use corten_ebpf::socket::{At, Options, SocketError, SocketServices, remove};

use crate::world::{Backends, Cgroup, Node, at, connect_error, entry, open};

const VIP: &str = "10.96.0.40:80";

#[test]
fn services_work_while_no_daemon_runs() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    let Node { services, bpffs, cgroup } = node;
    drop(services);
    assert_eq!(backends.reached(at(VIP), 32).len(), 2);
    let again = open(&bpffs, &cgroup);
    assert!(again.is_enabled());
    assert!(!again.is_attached(), "by other programs");
    again.attach().expect("attached");
    assert!(again.is_attached());
}

#[test]
fn a_restart_changes_nothing_and_loses_no_connection() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(2);
    let services = [entry(&[At::tcp(at(VIP)), At::udp(at(VIP))], &backends.addresses)];
    node.serve(&services);
    let before = node.services.actual().expect("read");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut connected = 0;
            while !stop.load(Ordering::Relaxed) {
                let client = TcpStream::connect(VIP).expect("connected at any moment");
                assert_eq!(client.peer_addr().expect("a peer"), at(VIP));
                connected += 1;
            }
            connected
        });
        for _ in 0..10 {
            node.restart();
            assert_eq!(node.services.actual().expect("read"), before);
            node.serve(&services);
            while backends.accept_one() {}
        }
        stop.store(true, Ordering::Relaxed);
        assert!(client.join().expect("every connection was made") > 0);
    });
}

#[test]
fn a_link_to_a_cgroup_that_is_gone_is_made_anew() {
    let Some(node) = Node::new() else { return };
    let Node { services, bpffs, cgroup } = node;
    assert!(services.is_attached());
    let second = Cgroup::new().expect("a cgroup");
    let path = second.path.clone();
    let moved =
        SocketServices::open(Options { pin_directory: bpffs.path().join("socket"), cgroup: path.clone() })
            .expect("loaded");
    moved.attach().expect("attached to another cgroup");
    assert!(moved.is_attached());
    drop(second);
    std::fs::create_dir(&path).expect("the same name again");
    assert!(!moved.is_attached(), "the link is there and does nothing");
    moved.attach().expect("attached");
    assert!(moved.is_attached());
    drop(cgroup);
    std::fs::remove_dir(&path).expect("removed");
}

#[test]
fn an_attached_program_stays_attached() {
    let Some(node) = Node::new() else { return };
    let links = |node: &Node| -> Vec<(std::ffi::OsString, std::time::SystemTime)> {
        let pins = std::fs::read_dir(node.pin_directory()).expect("pins").flatten();
        pins.map(|pin| (pin.file_name(), pin.metadata().unwrap().modified().unwrap())).collect()
    };
    let before = links(&node);
    node.services.attach().expect("attached");
    assert_eq!(links(&node), before, "no pin was replaced");
}

#[test]
fn removal_leaves_nothing_behind() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(1);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    let client = TcpStream::connect(VIP).expect("connected");
    remove(&node.pin_directory()).expect("removed");
    assert!(!node.pin_directory().exists());
    assert_eq!(connect_error(at(VIP)), ErrorKind::NetworkUnreachable);
    backends.accepted();
    drop(client);
    remove(&node.pin_directory()).expect("twice is no error");
}

#[test]
fn a_pinned_map_of_another_shape_is_made_anew() {
    let Some(mut node) = Node::new() else { return };
    remove(&node.pin_directory()).expect("removed");
    std::fs::create_dir(node.pin_directory()).expect("made");
    let foreign: HashMap<MapData, u32, u64> = HashMap::create(16, 0).expect("a map");
    foreign.pin(node.pin_directory().join("FRONTENDS")).expect("pinned");
    let backends = Backends::v4(1);
    node.restart();
    node.services.set_enabled(true);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    backends.connect(at(VIP));
}

#[test]
fn directories_of_another_kind_are_refused_by_name() {
    let Some(node) = Node::new() else { return };
    let plain = tempfile::tempdir().expect("a directory");
    let options = |pins: &std::path::Path, cgroup: &std::path::Path| Options {
        pin_directory: pins.into(),
        cgroup: cgroup.into(),
    };
    let error = SocketServices::open(options(plain.path(), &node.cgroup.path)).err().expect("refused");
    assert!(matches!(error, SocketError::NotBpffs { .. }), "{error}");
    assert!(error.to_string().contains("mount -t bpf"), "{error}");
    let error = SocketServices::open(options(node.bpffs.path(), plain.path())).err().expect("refused");
    assert!(matches!(error, SocketError::NotCgroup { .. }), "{error}");
}
