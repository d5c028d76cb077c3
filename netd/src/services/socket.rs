//! The model for programs of this node and its pods: what their sockets are turned to before a packet is made.
//!
//! Pure. A frontend that is left out here is met by the packet rules, which see what a socket does not: those that admit
//! certain sources only, those that drop, and SCTP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use corten_ebpf::socket::{self as maps, Desired, Entry};

use super::model::{Answer, At, Family, Frontend, FrontendKey, Model, ServicePort};
use super::object::Protocol;

/// `node_addresses`: every address of the node, where node ports are answered.
pub fn render(model: &Model, node_addresses: BTreeSet<IpAddr>) -> Desired {
    Desired { entries: model.ports.iter().flat_map(entries).collect(), node_addresses }
}

/// Frontends of one port that answer alike share an entry: so they change together, and a client that is to stay with
/// its backend stays whichever of them it comes by.
fn entries(port: &ServicePort) -> Vec<Entry> {
    let mut alike: BTreeMap<(Family, BTreeSet<SocketAddr>), BTreeSet<maps::At>> = BTreeMap::new();
    for frontend in &port.frontends {
        if let Some((at, backends)) = at_socket(frontend) {
            alike.entry((frontend.key.at.family(), backends)).or_default().insert(at);
        }
    }
    let affinity = port.affinity_s.map(|seconds| Duration::from_secs(seconds.into()));
    alike.into_iter().map(|((_, backends), frontends)| Entry { frontends, backends, affinity }).collect()
}

fn at_socket(frontend: &Frontend) -> Option<(maps::At, BTreeSet<SocketAddr>)> {
    if frontend.allowed.is_some() {
        return None;
    }
    let backends = match &frontend.inside {
        Answer::Backends(backends) => backends.iter().map(|backend| backend.address).collect(),
        Answer::Refuse => BTreeSet::new(),
        Answer::Drop => return None,
    };
    Some((at(frontend.key)?, backends))
}

fn at(key: FrontendKey) -> Option<maps::At> {
    let address = match key.at {
        At::Address(address) => address,
        At::Node(Family::V4) => Ipv4Addr::UNSPECIFIED.into(),
        At::Node(Family::V6) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let address = SocketAddr::new(address, key.port);
    match key.protocol {
        Protocol::Tcp => Some(maps::At::tcp(address)),
        Protocol::Udp => Some(maps::At::udp(address)),
        Protocol::Sctp => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::model::{Backend, ClientSource, FrontendKind};
    use super::super::object::ObjectName;
    use super::*;

    fn backends(addresses: &[&str]) -> Answer {
        let one =
            |text: &&str| Backend { address: text.parse().expect("an address and a port"), local: false };
        Answer::Backends(addresses.iter().map(one).collect())
    }

    fn frontend(at: At, port: u16, protocol: Protocol, inside: Answer) -> Frontend {
        Frontend {
            key: FrontendKey { at, protocol, port },
            kind: FrontendKind::ClusterIp,
            outside: Answer::Drop,
            inside,
            source: ClientSource::Keep,
            allowed: None,
        }
    }

    fn port(frontends: Vec<Frontend>) -> Model {
        let port = ServicePort {
            service: ObjectName { namespace: "d".into(), name: "web".into() },
            name: String::new(),
            protocol: Protocol::Tcp,
            affinity_s: Some(60),
            frontends,
        };
        Model { ports: vec![port], ..Model::default() }
    }

    fn address(text: &str) -> At {
        At::Address(text.parse().expect("an address"))
    }

    #[test]
    fn frontends_that_answer_alike_share_an_entry() {
        let (one, two) = (backends(&["10.0.0.1:80", "10.0.0.2:80"]), backends(&["10.0.0.1:80"]));
        let model = port(vec![
            frontend(address("10.96.0.1"), 80, Protocol::Tcp, one.clone()),
            frontend(At::Node(Family::V4), 30_080, Protocol::Tcp, one),
            frontend(address("192.0.2.9"), 80, Protocol::Tcp, two),
        ]);
        let desired = render(&model, BTreeSet::new());
        let shown: Vec<(usize, Vec<String>)> = desired
            .entries
            .iter()
            .map(|e| (e.backends.len(), e.frontends.iter().map(|f| f.address.to_string()).collect()))
            .collect();
        assert_eq!(
            shown,
            [(1, vec!["192.0.2.9:80".to_owned()]), (2, vec!["0.0.0.0:30080".into(), "10.96.0.1:80".into()])]
        );
        assert!(desired.entries.iter().all(|e| e.affinity == Some(Duration::from_mins(1))));
    }

    #[test]
    fn families_without_backends_stay_apart() {
        let model = port(vec![
            frontend(address("10.96.0.1"), 80, Protocol::Tcp, Answer::Refuse),
            frontend(address("fd00::1"), 80, Protocol::Tcp, Answer::Refuse),
        ]);
        assert_eq!(
            render(&model, BTreeSet::new()).entries.len(),
            2,
            "else the first backend would refuse the other"
        );
    }

    #[test]
    fn what_only_packet_rules_can_do_is_left_to_them() {
        let answer = backends(&["10.0.0.1:80"]);
        let mut admitted = frontend(address("192.0.2.9"), 80, Protocol::Tcp, answer.clone());
        admitted.allowed = Some(Arc::from(["198.51.100.0/24".parse().expect("a range")]));
        let model = port(vec![
            admitted,
            frontend(address("10.96.0.1"), 80, Protocol::Tcp, Answer::Drop),
            frontend(address("10.96.0.1"), 80, Protocol::Sctp, answer),
        ]);
        assert_eq!(render(&model, BTreeSet::new()).entries, []);
    }
}
