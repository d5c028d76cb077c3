//! The difference between what maps and links are and what they should be: pure.
//!
//! The order matters. An endpoint is only entered when its veth has its program and the flows that conntrack
//! translates for it are known; so no reply of such a flow is taken past conntrack. What goes, goes first: packets to it
//! fall back to the kernel's way.

use corten_ebpf_layout::datapath::{Address, Config, Endpoint, Node};

use super::tables::Tables;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    RemoveEndpoint(Address),
    RemoveNode((Address, u32)),
    DetachPod(u32),
    DetachNic(u32),
    RemoveLive(u32),
    AttachNic(u32),
    AttachPod(u32),
    PutLive(u32),
    /// Enter the flows that conntrack translates into `slow`.
    Seed,
    PutNode((Address, u32), Node),
    PutEndpoint(Address, Endpoint),
    /// Last: switches on.
    Configure(Config),
}

/// Changes that make `actual` into `desired`, in order. Nothing when they are equal.
pub fn diff(desired: &Tables, actual: &Tables) -> Vec<Change> {
    let mut changes = Vec::new();
    let gone = actual.endpoints.keys().filter(|key| !desired.endpoints.contains_key(*key));
    changes.extend(gone.map(|key| Change::RemoveEndpoint(*key)));
    let gone = actual.nodes.keys().filter(|key| !desired.nodes.contains_key(*key));
    changes.extend(gone.map(|key| Change::RemoveNode(*key)));
    changes.extend(actual.pods.difference(&desired.pods).map(|link| Change::DetachPod(*link)));
    changes.extend(actual.nics.difference(&desired.nics).map(|link| Change::DetachNic(*link)));
    changes.extend(actual.live.difference(&desired.live).map(|link| Change::RemoveLive(*link)));
    changes.extend(desired.nics.difference(&actual.nics).map(|link| Change::AttachNic(*link)));
    changes.extend(desired.pods.difference(&actual.pods).map(|link| Change::AttachPod(*link)));
    changes.extend(desired.live.difference(&actual.live).map(|link| Change::PutLive(*link)));
    let new_endpoint = |key: &Address, value: &Endpoint| {
        actual.endpoints.get(key).is_none_or(|old| old.ifindex != value.ifindex)
    };
    let switched_on = desired.config.state != actual.config.state;
    if switched_on || desired.endpoints.iter().any(|(key, value)| new_endpoint(key, value)) {
        changes.push(Change::Seed);
    }
    let new = desired.nodes.iter().filter(|(key, value)| actual.nodes.get(*key) != Some(*value));
    changes.extend(new.map(|(key, value)| Change::PutNode(*key, *value)));
    let new = desired.endpoints.iter().filter(|(key, value)| actual.endpoints.get(*key) != Some(*value));
    changes.extend(new.map(|(key, value)| Change::PutEndpoint(*key, *value)));
    if desired.config != actual.config {
        changes.push(Change::Configure(desired.config));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_ebpf_layout::datapath::{mapped, state};

    const POD: Address = mapped([10, 244, 1, 9]);
    const CIDR: (Address, u32) = (mapped([10, 244, 2, 0]), 120);

    fn endpoint(ifindex: u32, last: u8) -> Endpoint {
        Endpoint { ifindex, mac: [2, 0, 0, 0, 0, last], gateway_mac: [3; 6] }
    }

    fn node(ifindex: u32) -> Node {
        Node {
            ip: mapped([192, 0, 2, 2]),
            next_hop: mapped([192, 0, 2, 2]),
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
            endpoints: [(POD, endpoint(5, 1))].into(),
            nodes: [(CIDR, node(3))].into(),
            live: [3, 5].into(),
            pods: [5].into(),
            nics: [3].into(),
        }
    }

    #[test]
    fn what_is_right_is_left_alone() {
        assert_eq!(diff(&full(), &full()), []);
        assert_eq!(diff(&Tables::default(), &Tables::default()), []);
    }

    #[test]
    fn from_nothing_programs_come_first_then_known_flows_then_entries_then_the_switch() {
        let wanted = [
            Change::AttachNic(3),
            Change::AttachPod(5),
            Change::PutLive(3),
            Change::PutLive(5),
            Change::Seed,
            Change::PutNode(CIDR, node(3)),
            Change::PutEndpoint(POD, endpoint(5, 1)),
            Change::Configure(full().config),
        ];
        assert_eq!(diff(&full(), &Tables::default()), wanted);
    }

    #[test]
    fn what_is_gone_is_removed_entries_first() {
        let empty = Tables { config: full().config, ..Tables::default() };
        let wanted = [
            Change::RemoveEndpoint(POD),
            Change::RemoveNode(CIDR),
            Change::DetachPod(5),
            Change::DetachNic(3),
            Change::RemoveLive(3),
            Change::RemoveLive(5),
        ];
        assert_eq!(diff(&empty, &full()), wanted);
    }

    #[test]
    fn an_address_that_moved_to_another_pod_is_replaced_after_its_flows_are_known() {
        let mut desired = full();
        desired.endpoints.insert(POD, endpoint(6, 2));
        desired.pods = [6].into();
        desired.live = [3, 6].into();
        let wanted = [
            Change::DetachPod(5),
            Change::RemoveLive(5),
            Change::AttachPod(6),
            Change::PutLive(6),
            Change::Seed,
            Change::PutEndpoint(POD, endpoint(6, 2)),
        ];
        assert_eq!(diff(&desired, &full()), wanted);
    }

    #[test]
    fn a_new_mac_or_next_hop_is_one_change() {
        let mut desired = full();
        desired.endpoints.insert(POD, endpoint(5, 7));
        desired.nodes.insert(CIDR, node(3));
        desired.config.vni = 2;
        let wanted = [Change::PutEndpoint(POD, endpoint(5, 7)), Change::Configure(desired.config)];
        assert_eq!(diff(&desired, &full()), wanted);
    }
}
