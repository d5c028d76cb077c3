//! What the maps should hold, in the programs' own terms: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use corten_ebpf::datapath::{
    Address, Config, Endpoint, Node, Prefix, Range, TOLD, address, mode, range, state,
};
use corten_netlink::route::Mac;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::endpoints::Resolved;
use super::nodes::{Mode, Nodes};
use crate::net_conf::BackendConf;
use crate::node::{Backend, Node as ClusterNode, PodCidrs};

/// The address of a family that is not used.
const UNUSED: Address = [0; 16];

/// Contents of the maps and the links that have programs; desired or actual.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    pub config: Config,
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    pub nodes: BTreeMap<Prefix, Node>,
    /// Links that endpoints and nodes may be reached by; the kernel removes those that go.
    pub live: BTreeSet<u32>,
    /// Links with `from_pod`.
    pub pods: BTreeSet<u32>,
    /// Links with `from_nic`.
    pub nics: BTreeSet<u32>,
}

/// The maps for these pods and nodes, with the programs switched on.
pub fn desired(
    local: &ClusterNode,
    networks: &PodCidrs,
    backend: BackendConf,
    uplinks: &BTreeSet<u32>,
    pods: &Resolved,
    nodes: &Nodes,
) -> Tables {
    let veths = pods.veths();
    Tables {
        config: config(local, networks, backend),
        endpoints: pods
            .endpoints
            .iter()
            .map(|(ip, e)| {
                let (mac, gateway_mac) = (e.mac.0, e.gateway_mac.0);
                (*ip, Endpoint { ifindex: e.veth, mac, gateway_mac })
            })
            .collect(),
        nodes: nodes.entries.iter().map(|(cidr, entry)| (prefix(*cidr), node(entry))).collect(),
        live: veths.iter().chain(uplinks).copied().collect(),
        pods: veths,
        nics: uplinks.clone(),
    }
}

fn prefix(cidr: IpNetwork) -> Prefix {
    Prefix { ip: cidr.network(), len: cidr.prefix() }
}

fn node(entry: &super::nodes::NodeEntry) -> Node {
    let (mode, vtep_mac) = match entry.mode {
        Mode::Gateway => (mode::GATEWAY, [0; 6]),
        Mode::Vxlan { vtep } => (mode::VXLAN, vtep.0),
    };
    Node {
        ip: address(entry.public_ip),
        next_hop: address(entry.next_hop),
        ifindex: entry.uplink,
        mtu: entry.mtu,
        mode,
        reserved: 0,
        vtep_mac,
        reserved_end: [0; 2],
    }
}

fn config(local: &ClusterNode, networks: &PodCidrs, backend: BackendConf) -> Config {
    let (vni, port) = match backend {
        BackendConf::HostGw => (0, 0),
        BackendConf::Vxlan(conf) => (conf.vni, conf.port),
    };
    let vtep = match local.backend {
        Backend::HostGw => crate::node::Dual::default(),
        Backend::Vxlan { vtep, .. } => vtep,
    };
    let v4 = |cidr: Option<Ipv4Network>| cidr.map_or_else(Range::default, |c| range(prefix(c.into())));
    let v6 = |cidr: Option<Ipv6Network>| cidr.map_or_else(Range::default, |c| range(prefix(c.into())));
    let mac = |mac: Option<Mac>| mac.map_or([0; 6], |mac| mac.0);
    Config {
        state: state::ON,
        told: TOLD,
        vni,
        port: port.to_be_bytes(),
        ip4: local.public_ips.v4.map_or(UNUSED, |ip| address(ip.into())),
        ip6: local.public_ips.v6.map_or(UNUSED, |ip| address(ip.into())),
        pods4: v4(local.pod_cidrs.v4),
        pods6: v6(local.pod_cidrs.v6),
        cluster4: v4(networks.v4),
        cluster6: v6(networks.v6),
        vtep4_mac: mac(vtep.v4),
        vtep6_mac: mac(vtep.v6),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fastpath::endpoints;
    use crate::fastpath::nodes::NodeEntry;
    use crate::net_conf::VxlanConf;
    use crate::node::Dual;

    #[test]
    fn pods_nodes_and_this_node_become_entries() {
        let vtep = Mac([2, 0, 0, 0, 0, 1]);
        let local = ClusterNode {
            name: "a".into(),
            pod_cidrs: Dual { v4: Some("10.244.1.0/24".parse().unwrap()), v6: None },
            public_ips: Dual { v4: Some("192.0.2.1".parse().unwrap()), v6: None },
            backend: Backend::Vxlan { vni: 7, vtep: Dual { v4: Some(vtep), v6: None } },
        };
        let backend = BackendConf::Vxlan(VxlanConf { vni: 7, ..VxlanConf::default() });
        let (mac, gateway_mac) = (Mac([2; 6]), Mac([3; 6]));
        let endpoint = endpoints::Endpoint { veth: 5, mac, gateway_mac };
        let pods =
            Resolved { endpoints: [("10.244.1.9".parse().unwrap(), endpoint)].into(), left_out: vec![] };
        let public_ip: IpAddr = "192.0.2.2".parse().unwrap();
        let entry = NodeEntry {
            mode: Mode::Vxlan { vtep: Mac([9; 6]) },
            public_ip,
            uplink: 3,
            next_hop: public_ip,
            mtu: 1450,
        };
        let nodes = Nodes { entries: [("10.244.2.0/24".parse().unwrap(), entry)].into(), unserved: vec![] };
        let networks = Dual { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None };
        let tables = desired(&local, &networks, backend, &BTreeSet::from([3]), &pods, &nodes);
        assert_eq!(tables.live, BTreeSet::from([3, 5]));
        assert_eq!((tables.pods, tables.nics), (BTreeSet::from([5]), BTreeSet::from([3])));
        assert_eq!(tables.endpoints[&"10.244.1.9".parse::<IpAddr>().unwrap()].mac, [2; 6]);
        let node = tables.nodes[&prefix("10.244.2.0/24".parse().unwrap())];
        assert_eq!((node.mode, node.ifindex, node.vtep_mac, node.mtu), (mode::VXLAN, 3, [9; 6], 1450));
        let config = tables.config;
        assert_eq!((config.state, config.vni, config.port), (state::ON, 7, 8472_u16.to_be_bytes()));
        assert_eq!((config.ip4, config.ip6), (address("192.0.2.1".parse().unwrap()), UNUSED));
        assert_eq!(
            (config.cluster4, config.cluster6),
            (range(prefix("10.244.0.0/16".parse().unwrap())), Range::default())
        );
        assert_eq!((config.vtep4_mac, config.pods6), (vtep.0, Range::default()));
    }
}
