//! The difference between what maps and links are and what they should be: pure.
//!
//! The order matters. An endpoint is only entered when its veth has its program and the flows that conntrack
//! translates for it are known; so no reply of such a flow is taken past conntrack. What goes, goes first: packets to it
//! fall back to the kernel's way.

use std::net::IpAddr;

use corten_ebpf::datapath::{Config, Endpoint, Hook, Node, Prefix};

use super::tables::Tables;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    RemoveEndpoint(IpAddr),
    RemoveNode(Prefix),
    Detach(Hook, u32),
    Attach(Hook, u32),
    /// Enter the flows that conntrack translates into `slow`.
    Seed,
    PutNode(Prefix, Node),
    PutEndpoint(IpAddr, Endpoint),
    /// Last: switches on.
    Configure(Config),
}

/// Changes that make `actual` into `desired`, in order. Nothing when they are equal.
pub fn diff(desired: &Tables, actual: &Tables) -> Vec<Change> {
    let mut changes = Vec::new();
    let gone = actual.endpoints.keys().filter(|ip| !desired.endpoints.contains_key(ip));
    changes.extend(gone.map(|ip| Change::RemoveEndpoint(*ip)));
    let gone = actual.nodes.keys().filter(|cidr| !desired.nodes.contains_key(cidr));
    changes.extend(gone.map(|cidr| Change::RemoveNode(*cidr)));
    changes.extend(actual.pods.difference(&desired.pods).map(|link| Change::Detach(Hook::FromPod, *link)));
    changes.extend(actual.nics.difference(&desired.nics).map(|link| Change::Detach(Hook::FromNic, *link)));
    changes.extend(desired.pods.difference(&actual.pods).map(|link| Change::Attach(Hook::FromPod, *link)));
    let moved = |(ip, new): (&IpAddr, &Endpoint)| {
        actual.endpoints.get(ip).is_none_or(|old| old.ifindex != new.ifindex)
    };
    if desired.config.state != actual.config.state || desired.endpoints.iter().any(moved) {
        changes.push(Change::Seed);
    }
    // Entering also says that the link lives, so what is right but no longer alive is entered again.
    let new = desired
        .nodes
        .iter()
        .filter(|(cidr, node)| actual.nodes.get(cidr) != Some(*node) || !actual.live.contains(&node.ifindex));
    changes.extend(new.map(|(cidr, node)| Change::PutNode(*cidr, *node)));
    let new = desired.endpoints.iter().filter(|(ip, endpoint)| {
        actual.endpoints.get(ip) != Some(*endpoint) || !actual.live.contains(&endpoint.ifindex)
    });
    changes.extend(new.map(|(ip, endpoint)| Change::PutEndpoint(*ip, *endpoint)));
    // Behind the endpoints: a packet to a pod that is not entered yet would make its flow slow for minutes.
    changes.extend(desired.nics.difference(&actual.nics).map(|link| Change::Attach(Hook::FromNic, *link)));
    if desired.config != actual.config {
        changes.push(Change::Configure(desired.config));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_ebpf::datapath::{address, state};

    fn pod() -> IpAddr {
        "10.244.1.9".parse().unwrap()
    }

    fn cidr() -> Prefix {
        Prefix { ip: "10.244.2.0".parse().unwrap(), len: 24 }
    }

    fn endpoint(ifindex: u32, last: u8) -> Endpoint {
        Endpoint { ifindex, mac: [2, 0, 0, 0, 0, last], gateway_mac: [3; 6] }
    }

    fn node(ifindex: u32) -> Node {
        let ip = address("192.0.2.2".parse().unwrap());
        Node {
            ip,
            next_hop: ip,
            ifindex,
            mtu: 1450,
            mode: 1,
            reserved: 0,
            vtep_mac: [9; 6],
            reserved_end: [0; 2],
        }
    }

    fn full() -> Tables {
        Tables {
            config: Config { state: state::ON, vni: 1, ..Config::default() },
            endpoints: [(pod(), endpoint(5, 1))].into(),
            nodes: [(cidr(), node(3))].into(),
            live: [3, 5].into(),
            pods: [5].into(),
            nics: [3].into(),
        }
    }

    #[test]
    fn what_is_right_is_left_alone() {
        assert_eq!(diff(&full(), &full()), []);
        assert_eq!(diff(&Tables::default(), &Tables::default()), []);
        let more_alive = Tables { live: [3, 5, 7].into(), ..full() };
        assert_eq!(diff(&full(), &more_alive), []);
    }

    #[test]
    fn from_nothing_pods_programs_come_first_then_known_flows_entries_the_nics_program_and_the_switch() {
        let wanted = [
            Change::Attach(Hook::FromPod, 5),
            Change::Seed,
            Change::PutNode(cidr(), node(3)),
            Change::PutEndpoint(pod(), endpoint(5, 1)),
            Change::Attach(Hook::FromNic, 3),
            Change::Configure(full().config),
        ];
        assert_eq!(diff(&full(), &Tables::default()), wanted);
    }

    #[test]
    fn what_is_gone_is_removed_entries_first() {
        let empty = Tables { config: full().config, ..Tables::default() };
        let wanted = [
            Change::RemoveEndpoint(pod()),
            Change::RemoveNode(cidr()),
            Change::Detach(Hook::FromPod, 5),
            Change::Detach(Hook::FromNic, 3),
        ];
        assert_eq!(diff(&empty, &full()), wanted);
    }

    #[test]
    fn an_address_that_moved_to_another_pod_is_replaced_after_its_flows_are_known() {
        let mut desired = full();
        desired.endpoints.insert(pod(), endpoint(6, 2));
        desired.pods = [6].into();
        let wanted = [
            Change::Detach(Hook::FromPod, 5),
            Change::Attach(Hook::FromPod, 6),
            Change::Seed,
            Change::PutEndpoint(pod(), endpoint(6, 2)),
        ];
        assert_eq!(diff(&desired, &full()), wanted);
    }

    #[test]
    fn a_new_mac_or_setting_is_one_change() {
        let mut desired = full();
        desired.endpoints.insert(pod(), endpoint(5, 7));
        desired.config.vni = 2;
        let wanted = [Change::PutEndpoint(pod(), endpoint(5, 7)), Change::Configure(desired.config)];
        assert_eq!(diff(&desired, &full()), wanted);
    }

    #[test]
    fn what_is_no_longer_alive_is_entered_again() {
        let actual = Tables { live: [5].into(), ..full() };
        assert_eq!(diff(&full(), &actual), [Change::PutNode(cidr(), node(3))]);
    }
}
