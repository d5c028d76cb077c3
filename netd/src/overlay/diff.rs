//! What to do so that what is becomes what should be. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use corten_netlink::Cidr;
use corten_netlink::route::{Link, Mac, Route, RouteKind, Vxlan};

use super::actual::Device;
use super::desired::{Peer, Plan, ROUTE_PROTOCOL, Tunnel, Way};
use super::error::OverlayError;

const SCOPE_LINK: u8 = 253;
/// RTPROT_BOOT: an administrator's program, which is what flannel's routes say.
const PROTOCOL_BOOT: u8 = 3;
/// What the kernel makes of metric 0 in IPv6.
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// A change of a tunnel device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    Create,
    /// It cannot be changed into what it should be.
    Delete {
        index: u32,
    },
    Vxlan {
        index: u32,
        vxlan: Vxlan,
    },
    Mtu {
        index: u32,
        mtu: u32,
    },
    Mac {
        index: u32,
        mac: Mac,
    },
    Up {
        index: u32,
    },
}

/// The changes of the device itself, in order. Empty: it is as it should be.
///
/// # Errors
/// [`OverlayError::Foreign`], [`OverlayError::TwinDevice`]: in the way is what we may not touch.
pub fn link_changes(tunnel: &Tunnel, links: &[Link]) -> Result<Vec<LinkChange>, OverlayError> {
    let wanted = &tunnel.vxlan;
    let Some(link) = links.iter().find(|link| link.name == tunnel.name) else {
        refuse_twin(tunnel, links)?;
        return Ok(vec![LinkChange::Create]);
    };
    let index = link.index;
    let Some(actual) = link.vxlan.filter(|actual| actual.vni == wanted.vni) else {
        let found = match (&link.vxlan, &link.kind) {
            (Some(vxlan), _) => format!("a vxlan device with VNI {}", vxlan.vni),
            (None, Some(kind)) => format!("a link of kind {kind}"),
            (None, None) => "hardware".to_owned(),
        };
        let wanted = format!("a vxlan device with VNI {}", wanted.vni);
        return Err(OverlayError::Foreign { name: tunnel.name.clone(), found, wanted });
    };
    let family = |vxlan: &Vxlan| vxlan.local.map(|address| address.is_ipv4());
    // A device without local address or with one of the other family would have to become another kind of tunnel.
    if actual.port != wanted.port || actual.gbp != wanted.gbp || family(&actual) != family(wanted) {
        return Ok(vec![LinkChange::Delete { index }, LinkChange::Create]);
    }
    let mut changes = Vec::new();
    let changeable = |vxlan: &Vxlan| (vxlan.local, vxlan.link, vxlan.learning);
    if changeable(&actual) != changeable(wanted) {
        changes.push(LinkChange::Vxlan { index, vxlan: *wanted });
    }
    if link.mtu != tunnel.mtu {
        changes.push(LinkChange::Mtu { index, mtu: tunnel.mtu });
    }
    if link.mac != Some(tunnel.mac) {
        changes.push(LinkChange::Mac { index, mac: tunnel.mac });
    }
    if !link.up {
        changes.push(LinkChange::Up { index });
    }
    Ok(changes)
}

fn refuse_twin(tunnel: &Tunnel, links: &[Link]) -> Result<(), OverlayError> {
    let Vxlan { vni, port, local, .. } = tunnel.vxlan;
    let ipv4 = local.is_some_and(|address| address.is_ipv4());
    let twin = |link: &&Link| {
        // Without a local address it is an IPv4 tunnel.
        link.vxlan
            .is_some_and(|v| v.vni == vni && v.port == port && v.local.is_none_or(|a| a.is_ipv4()) == ipv4)
    };
    match links.iter().find(twin) {
        Some(other) => Err(OverlayError::TwinDevice { other: other.name.clone(), vni, port }),
        None => Ok(()),
    }
}

/// A change of an entry. Those of neighbours and forwards are on the tunnel device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    PutAddress(Cidr),
    DeleteAddress(Cidr),
    PutForward { mac: Mac, destination: IpAddr },
    DeleteForward { mac: Mac, destination: IpAddr },
    PutNeighbour { address: IpAddr, mac: Mac },
    DeleteNeighbour(IpAddr),
    PutRoute(Route),
    DeleteRoute(Route),
}

/// A change and the peer that it is for, by its place in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub change: Change,
    pub peer: Option<usize>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the order to do them: what is pointed to comes before what points to it, and goes after it.
    pub steps: Vec<Step>,
    /// Peers that cannot have their route, and why.
    pub conflicts: Vec<(usize, String)>,
}

/// `device` is the tunnel's, when there is one; `routes` those of table main.
pub fn entries(plan: &Plan, device: Option<&Device>, routes: &[Route]) -> Difference {
    let mut difference = Difference::default();
    let mut undo = Vec::new();
    if let (Some(tunnel), Some(device)) = (&plan.tunnel, device) {
        addresses(tunnel, device, &mut difference.steps, &mut undo);
        // New forwards before the neighbours that lead to them: a peer's new MAC is reachable at once.
        forwards(plan, device, &mut difference.steps, &mut undo);
        neighbours(plan, device, &mut difference.steps, &mut undo);
    }
    put_routes(plan, device, routes, &mut difference);
    difference.steps.extend(undo.into_iter().rev().map(|change| Step { change, peer: None }));
    difference
}

fn addresses(tunnel: &Tunnel, device: &Device, steps: &mut Vec<Step>, undo: &mut Vec<Change>) {
    let generated = |scope: u8| !tunnel.address.is_ipv4() && scope == SCOPE_LINK;
    let has = device.addresses.iter().any(|a| a.cidr == tunnel.address && !a.duplicate());
    if !has {
        steps.push(Step { change: Change::PutAddress(tunnel.address), peer: None });
    }
    let stale = device.addresses.iter().filter(|a| a.cidr != tunnel.address && !generated(a.scope));
    undo.extend(stale.map(|a| Change::DeleteAddress(a.cidr)));
}

/// Peers by tunnel: place, gateway, MAC, public address.
fn tunnelled(plan: &Plan) -> impl Iterator<Item = (usize, IpAddr, Mac, IpAddr)> + '_ {
    plan.peers.iter().filter_map(|peer| match peer.way {
        Way::Tunnel { mac, public } => Some((peer.place, peer.cidr.network().address(), mac, public)),
        _ => None,
    })
}

fn forwards(plan: &Plan, device: &Device, steps: &mut Vec<Step>, undo: &mut Vec<Change>) {
    let wanted: HashMap<Mac, (IpAddr, usize)> =
        tunnelled(plan).map(|(place, _, mac, public)| (mac, (public, place))).collect();
    let mut there = HashSet::new();
    for forward in device.forwards.iter().filter(|forward| forward.permanent) {
        match wanted.get(&forward.mac) {
            Some((public, _)) if *public == forward.destination => {
                there.insert(forward.mac);
            }
            // To be replaced in place.
            Some(_) => {}
            None => undo.push(Change::DeleteForward { mac: forward.mac, destination: forward.destination }),
        }
    }
    let missing = tunnelled(plan).filter(|(_, _, mac, _)| !there.contains(mac));
    steps.extend(missing.map(|(place, _, mac, destination)| Step {
        change: Change::PutForward { mac, destination },
        peer: Some(place),
    }));
}

fn neighbours(plan: &Plan, device: &Device, steps: &mut Vec<Step>, undo: &mut Vec<Change>) {
    let wanted: HashMap<IpAddr, Mac> = tunnelled(plan).map(|(_, gateway, mac, _)| (gateway, mac)).collect();
    let mut there = HashSet::new();
    for neighbour in device.neighbours.iter().filter(|neighbour| neighbour.permanent) {
        match wanted.get(&neighbour.address) {
            Some(mac) if Some(*mac) == neighbour.mac => {
                there.insert(neighbour.address);
            }
            Some(_) => {}
            None => undo.push(Change::DeleteNeighbour(neighbour.address)),
        }
    }
    let missing = tunnelled(plan).filter(|(_, gateway, _, _)| !there.contains(gateway));
    steps.extend(missing.map(|(place, address, mac, _)| Step {
        change: Change::PutNeighbour { address, mac },
        peer: Some(place),
    }));
}

/// What becomes of a destination.
enum Wanted {
    Put(Route),
    /// What is there stays.
    Keep(Cidr),
    Nothing,
}

fn wanted_routes(plan: &Plan, device: Option<&Device>) -> impl Iterator<Item = (Option<usize>, Wanted)> {
    let peers = plan.peers.iter().map(move |peer| (Some(peer.place), route_to(plan, peer, device)));
    peers.chain(plan.blackhole.map(|route| (None, Wanted::Put(route))))
}

fn route_to(plan: &Plan, peer: &Peer, device: Option<&Device>) -> Wanted {
    let route = Route { protocol: ROUTE_PROTOCOL, ..Route::to(peer.cidr) };
    match (&peer.way, device) {
        (Way::Tunnel { .. }, Some(device)) => Wanted::Put(Route {
            gateway: Some(peer.cidr.network().address()),
            onlink: true,
            link: Some(device.index),
            ..route
        }),
        (Way::Gateway(public), _) => {
            Wanted::Put(Route { gateway: Some(*public), link: Some(plan.uplink), ..route })
        }
        (Way::Tunnel { .. }, None) | (Way::None { keep: true, .. }, _) => Wanted::Keep(peer.cidr),
        (Way::None { keep: false, .. }, _) => Wanted::Nothing,
    }
}

fn put_routes(plan: &Plan, device: Option<&Device>, routes: &[Route], difference: &mut Difference) {
    let mut there: HashMap<(Cidr, u32), usize> = HashMap::new();
    for (place, route) in routes.iter().enumerate() {
        // A replacing request takes the place of the first.
        there.entry((route.destination, metric(route))).or_insert(place);
    }
    let mut stays = HashSet::new();
    let mut kept = HashSet::new();
    for (peer, wanted) in wanted_routes(plan, device) {
        let route = match wanted {
            Wanted::Put(route) => route,
            Wanted::Keep(cidr) => {
                kept.insert(cidr);
                continue;
            }
            Wanted::Nothing => continue,
        };
        if let Some(place) = there.get(&(route.destination, metric(&route))) {
            let first = &routes[*place];
            stays.insert(*place);
            if identity(first) == identity(&route) {
                continue;
            }
            if !may_take_over(first) {
                let why = format!("{} is routed already: {}", route.destination, describe(first));
                difference.conflicts.extend(peer.map(|peer| (peer, why)));
                continue;
            }
            // IPv6 looks an onlink gateway up, and refuses when the very route that is to go leads elsewhere (EINVAL,
            // ip6_route_check_nh_onlink()): here it goes first, in the same send.
            if !route.destination.is_ipv4() && route.onlink && first.link != route.link {
                difference.steps.push(Step { change: Change::DeleteRoute(*first), peer });
            }
        }
        difference.steps.push(Step { change: Change::PutRoute(route), peer });
    }
    let stale = routes.iter().enumerate().filter(|(place, route)| {
        is_ours(plan, device, route) && !stays.contains(place) && !kept.contains(&route.destination)
    });
    let delete = stale.map(|(_, route)| Step { change: Change::DeleteRoute(*route), peer: None });
    difference.steps.extend(delete);
}

fn metric(route: &Route) -> u32 {
    if route.destination.is_ipv4() || route.priority != 0 { route.priority } else { IPV6_DEFAULT_METRIC }
}

/// A route without what the kernel adds to it.
fn identity(route: &Route) -> Route {
    Route {
        // IPv6 shows the loopback link for a blackhole.
        link: if route.kind == RouteKind::Blackhole { None } else { route.link },
        table: None,
        scope: 0,
        priority: metric(route),
        ..*route
    }
}

/// Ours, or one that flannel entered before us.
fn may_take_over(route: &Route) -> bool {
    matches!(route.protocol, ROUTE_PROTOCOL | PROTOCOL_BOOT)
}

/// Only these are ever removed: in the cluster's network, and entered by us, or through our tunnel by flannel before.
fn is_ours(plan: &Plan, device: Option<&Device>, route: &Route) -> bool {
    let inside = route.destination.prefix() >= plan.network.prefix()
        && plan.network.contains(route.destination.address());
    let through_tunnel = device.is_some_and(|device| route.link == Some(device.index));
    inside && (route.protocol == ROUTE_PROTOCOL || through_tunnel && route.protocol == PROTOCOL_BOOT)
}

fn describe(route: &Route) -> String {
    let link = route.link.map_or(String::new(), |link| format!(" by link {link}"));
    let gateway = route.gateway.map_or(String::new(), |gateway| format!(" via {gateway}"));
    format!("{}{gateway}{link}, protocol {}", route.destination, route.protocol)
}

#[cfg(test)]
mod tests {
    use corten_netlink::route::{Forward, Neighbour};

    use super::super::desired::tests::{cidr, connected, node, planned, uplink, vxlan};
    use super::*;
    use crate::net_conf::{BackendConf, VxlanConf};
    use crate::node::Backend;

    const DEVICE: u32 = 7;

    fn plan(peers: &[u8]) -> Plan {
        let peers: Vec<_> = peers.iter().map(|number| node(*number, vxlan(*number))).collect();
        planned(&BackendConf::Vxlan(VxlanConf::default()), &uplink(), &node(1, vxlan(1)), &peers)
            .expect("a plan")
    }

    fn link(tunnel: &Tunnel) -> Link {
        Link {
            index: DEVICE,
            name: tunnel.name.clone(),
            kind: Some("vxlan".into()),
            mac: Some(tunnel.mac),
            mtu: tunnel.mtu,
            up: true,
            vxlan: Some(tunnel.vxlan),
            ..Link::default()
        }
    }

    /// The kernel after all steps, in a world of one device. Checks what the kernel would refuse.
    fn applied(steps: &[Step], device: &mut Device, routes: &mut Vec<Route>) {
        for step in steps {
            match step.change {
                Change::PutAddress(cidr) => device.addresses.push(address(cidr)),
                Change::DeleteAddress(cidr) => device.addresses.retain(|a| a.cidr != cidr),
                Change::PutForward { mac, destination } => {
                    device.forwards.retain(|f| f.mac != mac);
                    device.forwards.push(Forward { link: DEVICE, mac, destination, permanent: true });
                }
                Change::DeleteForward { mac, destination } => {
                    let before = device.forwards.len();
                    device.forwards.retain(|f| (f.mac, f.destination) != (mac, destination));
                    assert_eq!(device.forwards.len() + 1, before, "it was there");
                }
                Change::PutNeighbour { address, mac } => {
                    assert!(device.forwards.iter().any(|f| f.mac == mac), "its forward comes first");
                    device.neighbours.retain(|n| n.address != address);
                    let mac = Some(mac);
                    device.neighbours.push(Neighbour { link: DEVICE, address, mac, permanent: true });
                }
                Change::DeleteNeighbour(address) => device.neighbours.retain(|n| n.address != address),
                Change::PutRoute(route) => {
                    let key = |r: &Route| (r.destination, metric(r));
                    match routes.iter().position(|r| key(r) == key(&route)) {
                        Some(place) => routes[place] = route,
                        None => routes.push(route),
                    }
                }
                Change::DeleteRoute(route) => {
                    let place = routes.iter().position(|r| *r == route).expect("it was there");
                    routes.remove(place);
                }
            }
        }
    }

    fn address(cidr: Cidr) -> corten_netlink::route::Address {
        let mut body = vec![2, cidr.prefix(), 0, 0];
        body.extend(DEVICE.to_ne_bytes());
        body.extend([8, 0, 2, 0]);
        body.extend(corten_netlink::message::address_bytes(cidr.address()));
        corten_netlink::route::Address::decode(&body).expect("an address")
    }

    fn settled(plan: &Plan, device: &mut Device, routes: &mut Vec<Route>) {
        let difference = entries(plan, Some(device), routes);
        applied(&difference.steps, device, routes);
        assert_eq!(entries(plan, Some(device), routes), Difference::default(), "one pass is enough");
    }

    fn nothing() -> (Device, Vec<Route>) {
        (Device { index: DEVICE, ..Device::default() }, connected().to_vec())
    }

    #[test]
    fn any_list_of_peers_is_reached_from_any_other_in_one_pass() {
        let lists: [&[u8]; 5] = [&[], &[2], &[2, 3], &[3, 4, 5], &[5]];
        for from in lists {
            for to in lists {
                let (mut device, mut routes) = nothing();
                settled(&plan(from), &mut device, &mut routes);
                settled(&plan(to), &mut device, &mut routes);
                assert_eq!((device.forwards.len(), device.neighbours.len()), (to.len(), to.len()));
                // The blackhole of our own pod CIDR too.
                assert_eq!(routes.len(), connected().len() + to.len() + 1, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_new_mac_and_a_new_address_leave_nothing_old() {
        let (mut device, mut routes) = nothing();
        settled(&plan(&[2]), &mut device, &mut routes);
        let mut changed = plan(&[2]);
        let (mac, public) = (Mac([2, 9, 9, 9, 9, 9]), "10.9.0.99".parse().unwrap());
        changed.peers[0].way = Way::Tunnel { mac, public };
        settled(&changed, &mut device, &mut routes);
        assert_eq!(device.forwards, [Forward { link: DEVICE, mac, destination: public, permanent: true }]);
        assert_eq!(device.neighbours[0].mac, Some(mac));
        assert_eq!(device.neighbours.len(), 1);
    }

    #[test]
    fn others_routes_and_learned_entries_are_left_alone() {
        let (mut device, mut routes) = nothing();
        let learned = Forward {
            link: DEVICE,
            mac: Mac([2; 6]),
            destination: "10.9.0.5".parse().unwrap(),
            permanent: false,
        };
        device.forwards.push(learned);
        let theirs =
            |text: &str, protocol, link| Route { protocol, link: Some(link), ..Route::to(cidr(text)) };
        let others = [
            // Of an administrator, in the network; ours by number, outside of it; flannel's, by another link.
            theirs("10.244.9.0/24", 4, 2),
            theirs("10.245.0.0/24", ROUTE_PROTOCOL, 2),
            theirs("10.244.8.0/24", PROTOCOL_BOOT, 2),
        ];
        routes.extend(others);
        let stale =
            [theirs("10.244.7.0/24", ROUTE_PROTOCOL, 2), theirs("10.244.6.0/24", PROTOCOL_BOOT, DEVICE)];
        routes.extend(stale);
        settled(&plan(&[2]), &mut device, &mut routes);
        assert!(device.forwards.contains(&learned));
        assert!(others.iter().all(|route| routes.contains(route)));
        assert!(!stale.iter().any(|route| routes.contains(route)));
    }

    #[test]
    fn a_route_of_others_in_the_way_is_a_conflict_and_flannels_is_taken_over() {
        let (device, mut routes) = nothing();
        let in_the_way = |protocol| Route { protocol, link: Some(9), ..Route::to(cidr("10.244.2.0/24")) };
        routes.push(in_the_way(4));
        let difference = entries(&plan(&[2]), Some(&device), &routes);
        assert_eq!(difference.conflicts.len(), 1);
        assert!(difference.conflicts[0].1.contains("10.244.2.0/24 is routed already"), "{difference:?}");
        assert!(
            !difference
                .steps
                .iter()
                .any(|s| matches!(s.change, Change::PutRoute(r) if r.destination == cidr("10.244.2.0/24")))
        );
        routes.pop();
        routes.push(in_the_way(PROTOCOL_BOOT));
        let difference = entries(&plan(&[2]), Some(&device), &routes);
        assert!(difference.conflicts.is_empty());
        let deletes = difference.steps.iter().filter(|s| matches!(s.change, Change::DeleteRoute(_))).count();
        assert_eq!(deletes, 0, "it is replaced without a moment between");
    }

    #[test]
    fn while_the_reason_may_pass_what_is_there_stays() {
        let (mut device, mut routes) = nothing();
        let host_gw = |up| {
            let uplink = super::super::uplink::Uplink { up, ..uplink() };
            planned(&BackendConf::HostGw, &uplink, &node(1, Backend::HostGw), &[node(2, Backend::HostGw)])
                .expect("a plan")
        };
        settled(&host_gw(true), &mut device, &mut routes);
        assert_eq!(entries(&host_gw(false), None, &routes), Difference::default());
    }

    #[test]
    fn a_device_is_changed_in_place_where_the_kernel_can_and_else_made_anew() {
        let tunnel = plan(&[]).tunnel.expect("a tunnel");
        let right = link(&tunnel);
        let changes = |change: fn(&mut Link)| {
            let mut link = right.clone();
            change(&mut link);
            link_changes(&tunnel, &[link]).expect("ours")
        };
        let vxlan = |link: &mut Link, change: fn(&mut Vxlan)| change(link.vxlan.as_mut().expect("vxlan"));
        assert_eq!(link_changes(&tunnel, &[]).expect("free"), [LinkChange::Create]);
        assert_eq!(changes(|_| {}), []);
        assert_eq!(changes(|l| l.mtu = 1400), [LinkChange::Mtu { index: DEVICE, mtu: 1450 }]);
        assert_eq!(changes(|l| l.mac = None), [LinkChange::Mac { index: DEVICE, mac: tunnel.mac }]);
        assert_eq!(changes(|l| l.up = false), [LinkChange::Up { index: DEVICE }]);
        let moved = [LinkChange::Vxlan { index: DEVICE, vxlan: tunnel.vxlan }];
        for change in [
            (|v| v.local = Some([10, 9, 0, 9].into())) as fn(&mut Vxlan),
            |v| v.link = Some(9),
            |v| v.learning = true,
        ] {
            let mut other = right.clone();
            vxlan(&mut other, change);
            assert_eq!(link_changes(&tunnel, &[other]).expect("ours"), moved);
        }
        for change in [
            (|v| v.port = 4789) as fn(&mut Vxlan),
            |v| v.gbp = true,
            |v| v.local = Some("fd09::1".parse().unwrap()),
            |v| v.local = None,
        ] {
            let mut other = right.clone();
            vxlan(&mut other, change);
            let anew = [LinkChange::Delete { index: DEVICE }, LinkChange::Create];
            assert_eq!(link_changes(&tunnel, &[other]).expect("ours"), anew);
        }
        let mut adopted = right.clone();
        vxlan(&mut adopted, |v| v.checksum = true);
        assert_eq!(
            link_changes(&tunnel, &[adopted]).expect("ours"),
            [],
            "flannel's has checksums, and stays"
        );
    }

    #[test]
    fn what_is_not_ours_is_named() {
        let tunnel = plan(&[]).tunnel.expect("a tunnel");
        let mut other = link(&tunnel);
        other.vxlan.as_mut().expect("vxlan").vni = 9;
        assert!(matches!(link_changes(&tunnel, &[other]), Err(OverlayError::Foreign { .. })));
        let mut bridge = link(&tunnel);
        (bridge.kind, bridge.vxlan) = (Some("bridge".into()), None);
        assert!(matches!(link_changes(&tunnel, &[bridge]), Err(OverlayError::Foreign { .. })));
        let mut twin = link(&tunnel);
        twin.name = "vx0".into();
        let named = link_changes(&tunnel, &[twin.clone()]).expect_err("a twin");
        assert!(matches!(named, OverlayError::TwinDevice { other, .. } if other == "vx0"));
        twin.vxlan.as_mut().expect("vxlan").local = Some("fd09::1".parse().unwrap());
        assert_eq!(
            link_changes(&tunnel, &[twin]).expect("no twin"),
            [LinkChange::Create],
            "IPv6 is another tunnel"
        );
    }
}
