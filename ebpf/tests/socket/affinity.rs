//! Session affinity ClientIP: a client is a network namespace, the node's or a pod's.

use std::collections::BTreeSet;
use std::time::Duration;

use corten_ebpf::socket::{At, Entry};
use corten_ebpf_layout::service::{Affinity, Counter};

use crate::world::{Backends, Node, at, entry, pod, udp};

const VIP: &str = "10.96.0.20:80";
const HOUR: Duration = Duration::from_hours(1);

fn sticky(frontends: &[At], backends: &[std::net::SocketAddr], lasting: Duration) -> Entry {
    Entry { affinity: Some(lasting), ..entry(frontends, backends) }
}

#[test]
fn a_client_keeps_its_backend_and_each_client_has_its_own() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(8);
    node.serve(&[sticky(&[At::tcp(at(VIP))], &backends.addresses, HOUR)]);
    assert_eq!(backends.reached(at(VIP), 24).len(), 1);
    assert_eq!(node.services.counters().expect("read")[&Counter::Affine], 23);
    let pods: Vec<_> = (10..18).map(pod).collect();
    let mut all = BTreeSet::new();
    for pod in &pods {
        let reached = pod.run(|| backends.reached(at(VIP), 8)).expect("in the pod");
        assert_eq!(reached.len(), 1);
        all.extend(reached);
    }
    assert!(all.len() > 1, "eight clients are not all with one of eight backends");
    assert_eq!(node.services.affinities().expect("read").len(), 9);
}

#[test]
fn frontends_of_one_service_share_it() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(8);
    let frontends = [At::tcp(at(VIP)), At::tcp(at("0.0.0.0:30020"))];
    node.serve(&[sticky(&frontends, &backends.addresses, HOUR)]);
    let first = backends.reached(at(VIP), 1);
    assert_eq!(backends.reached(at("192.0.2.1:30020"), 8), first);
}

#[test]
fn it_ends_so_long_after_the_last_connection() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(8);
    node.serve(&[sticky(&[At::tcp(at(VIP))], &backends.addresses, Duration::from_mins(1))]);
    let mut reached = BTreeSet::new();
    // The clock of the entry is put back: within the minute the backend stays, beyond it it is drawn anew.
    for _ in 0..64 {
        let backend = backends.connect(at(VIP));
        reached.insert(backend);
        let (client, entry) = node.services.affinities().expect("read").pop_first().expect("an entry");
        let ago = |seconds: u64| entry.last_ns.checked_sub(seconds * 1_000_000_000).expect("up for a minute");
        node.services.set_affinity(client, Affinity { last_ns: ago(50), ..entry }).expect("set");
        assert_eq!(backends.connect(at(VIP)), backend);
        let refreshed = node.services.affinities().expect("read")[&client];
        assert!(refreshed.last_ns > entry.last_ns, "a connection prolongs it");
        node.services.set_affinity(client, Affinity { last_ns: ago(61), ..entry }).expect("set");
    }
    assert!(reached.len() > 4, "64 draws of 8 backends were {reached:?}");
}

#[test]
fn a_backend_that_left_is_replaced_and_the_new_one_kept() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(4);
    node.serve(&[sticky(&[At::tcp(at(VIP))], &backends.addresses, HOUR)]);
    let first = backends.connect(at(VIP));
    let others: Vec<_> = backends.addresses.iter().copied().filter(|b| *b != first).collect();
    node.serve(&[sticky(&[At::tcp(at(VIP))], &others, HOUR)]);
    let second = backends.reached(at(VIP), 12);
    assert_eq!(second.len(), 1);
    assert!(!second.contains(&first));
    node.serve(&[sticky(&[At::tcp(at(VIP))], &backends.addresses, HOUR)]);
    assert_eq!(backends.reached(at(VIP), 12), second, "others that come do not matter");
}

#[test]
fn without_it_clients_are_spread_again() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(4);
    node.serve(&[sticky(&[At::tcp(at(VIP))], &backends.addresses, HOUR)]);
    backends.reached(at(VIP), 4);
    node.serve(&[entry(&[At::tcp(at(VIP))], &backends.addresses)]);
    assert!(backends.reached(at(VIP), 32).len() > 1);
}

#[test]
fn it_holds_for_datagrams_of_several_sockets() {
    let Some(mut node) = Node::new() else { return };
    let backends = Backends::v4(4);
    node.serve(&[sticky(&[At::udp(at(VIP))], &backends.addresses, HOUR)]);
    let reached: BTreeSet<_> = (0..12)
        .map(|number| {
            let client = udp("0.0.0.0:0");
            if number % 2 == 0 {
                client.send_to(b"x", at(VIP)).expect("sent");
            } else {
                client.connect(at(VIP)).expect("connected");
                client.send(b"x").expect("sent");
            }
            backends.answered().0
        })
        .collect();
    assert_eq!(reached.len(), 1);
}
