//! Which endpoints of a Service's port take traffic on this node: readiness, termination, topology, locality.
//!
//! The rules are kube-proxy's (pkg/proxy/topology.go, CategorizeEndpoints; KEP-1669 for terminating endpoints, KEP-2433
//! and KEP-3015 for hints).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::model::{Backend, Family, Place};
use super::object::{Endpoint, Port, Service, Slice, TrafficPolicy};

/// An endpoint of one port in one family.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub backend: Backend,
    pub ready: bool,
    endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    /// On its way out, still answering: taken when nobody else is there.
    fn leaving(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating
    }
}

/// The endpoints for each traffic policy; both sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub cluster: Arc<[Backend]>,
    pub local: Arc<[Backend]>,
    /// Somebody in the cluster serves, here or elsewhere.
    pub any: bool,
}

/// The endpoints of all slices for a port, found by the port's name and protocol. A pod that moves from one slice to
/// another is in both for a moment: the better state counts.
pub fn candidates<'a>(
    service: &Service,
    port: &Port,
    slices: &[&'a Slice],
    family: Family,
    place: &Place,
) -> Vec<Candidate<'a>> {
    let mut found: BTreeMap<SocketAddr, Candidate<'a>> = BTreeMap::new();
    for slice in slices {
        let same = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for number in same.map(|p| p.port) {
            for endpoint in slice.endpoints.iter().filter(|e| Family::of(e.address) == family) {
                let address = SocketAddr::new(endpoint.address, number);
                let local = endpoint.node.as_deref().is_some_and(|node| node == place.node);
                let ready = endpoint.ready || service.publish_not_ready;
                let candidate = Candidate { backend: Backend { address, local }, ready, endpoint };
                let better = found.get(&address).is_none_or(|old| rank(old) < rank(&candidate));
                if better {
                    found.insert(address, candidate);
                }
            }
        }
    }
    found.into_values().collect()
}

fn rank(candidate: &Candidate<'_>) -> u8 {
    match (candidate.ready, candidate.leaving()) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }
}

pub fn choose(service: &Service, candidates: &[Candidate<'_>], place: &Place) -> Choice {
    let pick = |wanted: &dyn Fn(&Candidate<'_>) -> bool| -> Arc<[Backend]> {
        candidates.iter().filter(|c| wanted(c)).map(|c| c.backend).collect()
    };
    let first =
        |first: Arc<[Backend]>, or: &dyn Fn() -> Arc<[Backend]>| if first.is_empty() { or() } else { first };
    let near = nearness(candidates, place);
    let cluster = first(pick(&|c| c.ready && near.takes(c.endpoint, place)), &|| pick(&|c| c.leaving()));
    let local = first(pick(&|c| c.ready && c.backend.local), &|| pick(&|c| c.leaving() && c.backend.local));
    let any = !cluster.is_empty() || candidates.iter().any(|c| c.ready || c.leaving());
    // An endpoint that the policies in force cannot reach is no reason to keep it.
    let uses_local = service.internal == TrafficPolicy::Local || service.external == TrafficPolicy::Local;
    Choice { cluster, local: if uses_local { local } else { Arc::from([]) }, any }
}

/// How far away an endpoint may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nearness {
    Anywhere,
    SameZone,
    SameNode,
}

impl Nearness {
    fn takes(self, endpoint: &Endpoint, place: &Place) -> bool {
        match self {
            Self::Anywhere => true,
            Self::SameZone => place.zone.as_ref().is_some_and(|zone| endpoint.zone_hints.contains(zone)),
            Self::SameNode => endpoint.node_hints.contains(&place.node),
        }
    }
}

/// Hints count only when every ready endpoint has them and one is meant for us; a partial set is a rollout in progress.
fn nearness(candidates: &[Candidate<'_>], place: &Place) -> Nearness {
    let ready = || candidates.iter().filter(|c| c.ready).map(|c| c.endpoint);
    let usable = |near: Nearness| ready().any(|endpoint| near.takes(endpoint, place));
    if ready().all(|e| !e.node_hints.is_empty()) && usable(Nearness::SameNode) {
        Nearness::SameNode
    } else if ready().all(|e| !e.zone_hints.is_empty()) && usable(Nearness::SameZone) {
        Nearness::SameZone
    } else {
        Nearness::Anywhere
    }
}
