//! What should be, of one address family: pure, from the local node, its peers, the configuration and the uplink.
//!
//! The families never meet: IPv4 pods travel over the IPv4 underlay by `flannel.<VNI>`, IPv6 pods over IPv6 by
//! `flannel-v6.<VNI>`, as in flannel.

use std::net::IpAddr;

use corten_netlink::Cidr;
use corten_netlink::route::{Mac, Route, RouteKind, Vxlan};
use ipnetwork::{Ipv4Network, Ipv6Network};

use super::error::OverlayError;
use super::uplink::Uplink;
use crate::net_conf::{BackendConf, VxlanConf};
use crate::node::{Backend, Node};

/// Who entered a route (RTA_PROTOCOL): `C`, a number that nobody else has in iproute2's list.
pub const ROUTE_PROTOCOL: u8 = 67;
/// The last metric: the bridge's own route to the pod CIDR, when there is one, comes first.
const BLACKHOLE_METRIC: u32 = u32::MAX;
/// Outer Ethernet is not counted (the MTU never has it): IP, UDP, vxlan, inner Ethernet.
const OVERHEAD_V4: u32 = 20 + 8 + 8 + 14;
const OVERHEAD_V6: u32 = 40 + 8 + 8 + 14;
const IPV6_MIN_MTU: u32 = 1280;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn is_ipv4(self) -> bool {
        self == Self::V4
    }

    pub fn name(self) -> &'static str {
        if self.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    fn overhead(self) -> u32 {
        if self.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 }
    }

    pub fn pod_cidr(self, node: &Node) -> Option<Cidr> {
        match self {
            Self::V4 => node.pod_cidrs.v4.map(cidr_v4),
            Self::V6 => node.pod_cidrs.v6.map(cidr_v6),
        }
    }

    pub fn public_ip(self, node: &Node) -> Option<IpAddr> {
        match self {
            Self::V4 => node.public_ips.v4.map(IpAddr::V4),
            Self::V6 => node.public_ips.v6.map(IpAddr::V6),
        }
    }

    pub fn vtep(self, node: &Node) -> Option<Mac> {
        match (node.backend, self) {
            (Backend::Vxlan { vtep, .. }, Self::V4) => vtep.v4,
            (Backend::Vxlan { vtep, .. }, Self::V6) => vtep.v6,
            (Backend::HostGw, _) => None,
        }
    }

    /// `flannel.1`, `flannel-v6.1`.
    pub fn device(self, vni: u32) -> String {
        if self.is_ipv4() { format!("flannel.{vni}") } else { format!("flannel-v6.{vni}") }
    }
}

pub fn cidr_v4(network: Ipv4Network) -> Cidr {
    Cidr::new(network.network().into(), network.prefix()).expect("an Ipv4Network has at most 32 bits")
}

pub fn cidr_v6(network: Ipv6Network) -> Cidr {
    Cidr::new(network.network().into(), network.prefix()).expect("an Ipv6Network has at most 128 bits")
}

/// A tunnel device as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub name: String,
    pub mac: Mac,
    pub mtu: u32,
    pub vxlan: Vxlan,
    /// The pod CIDR's first address, of the host alone: what the node itself sends to pods has it as source, which is
    /// inside the pod CIDR, so the answer finds its way back through the tunnel.
    pub address: Cidr,
}

/// How a peer's pods are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    Tunnel {
        mac: Mac,
        public: IpAddr,
    },
    /// By its public address, on the same layer 2.
    Gateway(IpAddr),
    /// Not at all, and why. What is there for it now stays when `keep` is set: the reason may pass.
    None {
        why: String,
        keep: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its place in the snapshot.
    pub place: usize,
    pub cidr: Cidr,
    pub way: Way,
}

/// What should be, of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub family: Family,
    /// The cluster's network: routes outside are never ours.
    pub network: Cidr,
    pub uplink: u32,
    pub tunnel: Option<Tunnel>,
    pub peers: Vec<Peer>,
    pub blackhole: Option<Route>,
}

/// What a plan is made from, beside the peers.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    pub backend: &'a BackendConf,
    pub network: Cidr,
    pub uplink: &'a Uplink,
    /// The outer source address.
    pub local_ip: IpAddr,
    /// Of the tunnel device.
    pub mac: Option<Mac>,
    pub blackhole: bool,
    /// The routes of table main, of this family: they say which peers are on the uplink's layer 2.
    pub routes: &'a [Route],
}

/// `None` when the local node has no pod CIDR of the family.
///
/// # Errors
/// [`OverlayError::SmallMtu`]; [`OverlayError::Translated`].
pub fn plan(
    family: Family,
    ground: &Ground<'_>,
    local: &Node,
    peers: &[Node],
) -> Result<Option<Plan>, OverlayError> {
    let Some(own) = family.pod_cidr(local) else { return Ok(None) };
    let tunnel = match ground.backend {
        BackendConf::HostGw => {
            refuse_translation(family, ground, local)?;
            None
        }
        BackendConf::Vxlan(conf) => Some(tunnel(family, ground, conf, own)?),
    };
    let on_link = OnLink::new(ground.routes, ground.uplink.index);
    let peers = peers.iter().enumerate().filter_map(|(place, node)| {
        let cidr = family.pod_cidr(node)?;
        Some(Peer { place, cidr, way: way(family, ground, &on_link, node) })
    });
    Ok(Some(Plan {
        family,
        network: ground.network,
        uplink: ground.uplink.index,
        tunnel,
        peers: peers.collect(),
        blackhole: ground.blackhole.then(|| Route {
            kind: RouteKind::Blackhole,
            protocol: ROUTE_PROTOCOL,
            priority: BLACKHOLE_METRIC,
            ..Route::to(own)
        }),
    }))
}

/// One of the two has to be the uplink's address: what this node is to tell (an address may just have changed, and the
/// source not know it yet), or what the source says (a list may have changed that told us an address at the start).
fn refuse_translation(family: Family, ground: &Ground<'_>, local: &Node) -> Result<(), OverlayError> {
    if family.public_ip(local) == Some(ground.local_ip) {
        return Ok(());
    }
    let told = match family {
        Family::V4 => ground.uplink.public_ips.v4.map(IpAddr::V4),
        Family::V6 => ground.uplink.public_ips.v6.map(IpAddr::V6),
    };
    match told {
        Some(public) if public != ground.local_ip => Err(OverlayError::Translated {
            public,
            uplink: ground.uplink.name.clone(),
            local: ground.local_ip,
        }),
        _ => Ok(()),
    }
}

/// The MTU that pods of the family may have.
pub fn pod_mtu(family: Family, backend: &BackendConf, uplink: &Uplink) -> u32 {
    match backend {
        BackendConf::HostGw => uplink.mtu,
        // The kernel takes no more than the uplink's: a configured MTU above it is cut to it.
        BackendConf::Vxlan(conf) => {
            conf.underlay_mtu.map_or(uplink.mtu, |mtu| mtu.min(uplink.mtu)).saturating_sub(family.overhead())
        }
    }
}

fn tunnel(family: Family, ground: &Ground<'_>, conf: &VxlanConf, own: Cidr) -> Result<Tunnel, OverlayError> {
    let uplink = ground.uplink;
    let name = family.device(conf.vni);
    let mtu = pod_mtu(family, ground.backend, uplink);
    if family == Family::V6 && mtu < IPV6_MIN_MTU {
        return Err(OverlayError::SmallMtu { uplink: uplink.name.clone(), mtu: uplink.mtu, name });
    }
    Ok(Tunnel {
        name,
        mac: ground.mac.expect("a MAC is chosen for each family that has a tunnel"),
        mtu,
        vxlan: Vxlan {
            vni: conf.vni,
            port: conf.port,
            local: Some(ground.local_ip),
            link: Some(uplink.index),
            learning: conf.learning,
            gbp: conf.gbp,
            // Inner checksums are there; the outer one only met drivers that got it wrong (63 seconds per connection).
            checksum: false,
        },
        address: Cidr::host(own.network().address()),
    })
}

fn way(family: Family, ground: &Ground<'_>, on_link: &OnLink<'_>, node: &Node) -> Way {
    let none = |why: String| Way::None { why, keep: false };
    let Some(public) = family.public_ip(node) else {
        return none(format!("it has no public {} address", family.name()));
    };
    let uplink = ground.uplink;
    match ground.backend {
        BackendConf::Vxlan(conf) => match family.vtep(node) {
            _ if conf.direct_routing && uplink.up && on_link.reaches(public) => Way::Gateway(public),
            Some(mac) => Way::Tunnel { mac, public },
            None => none(format!("it has told no {} tunnel address", family.name())),
        },
        BackendConf::HostGw if !uplink.up => {
            Way::None { why: format!("uplink {} is down", uplink.name), keep: true }
        }
        BackendConf::HostGw if on_link.reaches(public) => Way::Gateway(public),
        BackendConf::HostGw => none(format!(
            "{public} is not on the layer 2 of uplink {}, which host-gw needs (use vxlan between such nodes)",
            uplink.name
        )),
    }
}

/// Which addresses the kernel would send to without a gateway, by the routes of others than ourselves.
struct OnLink<'a> {
    routes: Vec<&'a Route>,
    uplink: u32,
}

impl<'a> OnLink<'a> {
    fn new(routes: &'a [Route], uplink: u32) -> Self {
        let others = |route: &&Route| route.protocol != ROUTE_PROTOCOL;
        let mut routes: Vec<&Route> = routes.iter().filter(others).collect();
        routes.sort_by_key(|route| (u8::MAX - route.destination.prefix(), route.priority));
        Self { routes, uplink }
    }

    fn reaches(&self, address: IpAddr) -> bool {
        let first = self.routes.iter().find(|route| route.destination.contains(address));
        first.is_some_and(|route| {
            route.kind == RouteKind::Unicast && route.gateway.is_none() && route.link == Some(self.uplink)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::node::Dual;

    pub fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    pub fn uplink() -> Uplink {
        let addresses = Dual { v4: Some("10.9.0.1".parse().unwrap()), v6: Some("fd09::1".parse().unwrap()) };
        Uplink { index: 2, name: "eth0".into(), mtu: 1500, up: true, addresses, public_ips: addresses }
    }

    /// Node `number` on the uplink's network.
    pub fn node(number: u8, backend: Backend) -> Node {
        Node {
            name: format!("node{number}"),
            pod_cidrs: Dual {
                v4: Some(format!("10.244.{number}.0/24").parse().unwrap()),
                v6: Some(format!("fd44:{number}::/64").parse().unwrap()),
            },
            public_ips: Dual {
                v4: Some([10, 9, 0, number].into()),
                v6: Some(format!("fd09::{number}").parse().unwrap()),
            },
            backend,
        }
    }

    pub fn vxlan(number: u8) -> Backend {
        let mac = |kind| Some(Mac([2, kind, 0, 0, 0, number]));
        Backend::Vxlan { vni: 1, vtep: Dual { v4: mac(4), v6: mac(6) } }
    }

    pub fn connected() -> [Route; 3] {
        let of = |text: &str, gateway: Option<&str>| Route {
            link: Some(2),
            protocol: 2,
            gateway: gateway.map(|g| g.parse().unwrap()),
            ..Route::to(cidr(text))
        };
        [of("10.9.0.0/24", None), of("10.9.0.64/26", Some("10.9.0.254")), of("0.0.0.0/0", Some("10.9.0.254"))]
    }

    pub fn planned(
        conf: &BackendConf,
        uplink: &Uplink,
        local: &Node,
        peers: &[Node],
    ) -> Result<Plan, OverlayError> {
        let routes = connected();
        let ground = Ground {
            backend: conf,
            network: cidr("10.244.0.0/16"),
            uplink,
            local_ip: "10.9.0.1".parse().unwrap(),
            mac: Some(Mac([2, 4, 0, 0, 0, 1])),
            blackhole: true,
            routes: &routes,
        };
        plan(Family::V4, &ground, local, peers).map(|plan| plan.expect("the node has a pod CIDR"))
    }

    fn ways(conf: &BackendConf, uplink: &Uplink, peers: &[Node]) -> Vec<Way> {
        let backend = if *conf == BackendConf::HostGw { Backend::HostGw } else { vxlan(1) };
        let plan = planned(conf, uplink, &node(1, backend), peers).expect("a plan");
        plan.peers.into_iter().map(|peer| peer.way).collect()
    }

    fn at(number: u8, public: &str, backend: Backend) -> Node {
        let mut node = node(number, backend);
        node.public_ips.v4 = Some(public.parse().unwrap());
        node
    }

    #[test]
    fn a_peer_is_reached_by_the_tunnel_or_directly_as_backend_and_layer_2_have_it() {
        // .2 is on the link; .70 behind a router by the longer prefix; 192.0.2.9 behind the default route.
        let publics = ["10.9.0.2", "10.9.0.70", "192.0.2.9"];
        let peers = |backend: fn(u8) -> Backend| -> Vec<Node> {
            (2..).zip(publics).map(|(number, public)| at(number, public, backend(number))).collect()
        };
        let tunnel = |number: u8| Way::Tunnel {
            mac: Mac([2, 4, 0, 0, 0, number]),
            public: publics[usize::from(number) - 2].parse().unwrap(),
        };
        let direct = Way::Gateway("10.9.0.2".parse().unwrap());
        let plain = BackendConf::Vxlan(VxlanConf::default());
        assert_eq!(ways(&plain, &uplink(), &peers(vxlan)), [tunnel(2), tunnel(3), tunnel(4)]);
        let routing = BackendConf::Vxlan(VxlanConf { direct_routing: true, ..VxlanConf::default() });
        assert_eq!(ways(&routing, &uplink(), &peers(vxlan)), [direct.clone(), tunnel(3), tunnel(4)]);
        let down = Uplink { up: false, ..uplink() };
        assert_eq!(ways(&routing, &down, &peers(vxlan)), [tunnel(2), tunnel(3), tunnel(4)]);
        let host_gw = ways(&BackendConf::HostGw, &uplink(), &peers(|_| Backend::HostGw));
        assert_eq!(host_gw[0], direct);
        assert!(matches!(&host_gw[2], Way::None { why, keep: false } if why.contains("192.0.2.9")));
        let host_gw = ways(&BackendConf::HostGw, &down, &peers(|_| Backend::HostGw));
        assert!(matches!(&host_gw[0], Way::None { why, keep: true } if why.contains("eth0 is down")));
        assert!(matches!(
            &ways(&plain, &uplink(), &[node(2, Backend::HostGw)])[0],
            Way::None { keep: false, .. }
        ));
    }

    #[test]
    fn the_tunnels_mtu_is_the_underlays_without_the_headers() {
        let conf = |mtu| BackendConf::Vxlan(VxlanConf { underlay_mtu: mtu, ..VxlanConf::default() });
        for (backend, v4, v6) in [
            (conf(None), 1450, 1430),
            (conf(Some(1400)), 1350, 1330),
            (conf(Some(9000)), 1450, 1430),
            (BackendConf::HostGw, 1500, 1500),
        ] {
            let mtu = |family| pod_mtu(family, &backend, &uplink());
            assert_eq!((mtu(Family::V4), mtu(Family::V6)), (v4, v6), "{backend:?}");
        }
    }

    #[test]
    fn host_gw_wants_the_uplinks_own_address() {
        let mut told = uplink();
        told.public_ips.v4 = Some([192, 0, 2, 1].into());
        let local = |backend| Node { public_ips: told.public_ips, ..node(1, backend) };
        let error =
            planned(&BackendConf::HostGw, &told, &local(Backend::HostGw), &[]).expect_err("translated");
        assert!(matches!(error, OverlayError::Translated { .. }) && error.is_final());
        planned(&BackendConf::Vxlan(VxlanConf::default()), &told, &local(vxlan(1)), &[])
            .expect("vxlan passes NAT");
        let moved = Node { public_ips: uplink().public_ips, ..node(1, Backend::HostGw) };
        planned(&BackendConf::HostGw, &told, &moved, &[]).expect("the list follows the uplink");
        planned(&BackendConf::HostGw, &uplink(), &local(Backend::HostGw), &[])
            .expect("the source will follow the uplink");
    }
}
