//! What every frontend of every Service answers on this node: the one model that nft and the eBPF maps render.
//!
//! Pure: objects and the node's place in, model out; the same objects give the same model in the same order. Choosing
//! endpoints is in [`super::endpoint`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::endpoint::{self, Candidate, Choice};
use super::object::{ObjectName, Port, Protocol, Refusal, Service, Slice, TrafficPolicy};

/// Where this node is: what makes an endpoint local or near.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    pub node: String,
    /// The node's label topology.kubernetes.io/zone.
    pub zone: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What a client connects to. At most one frontend of the model has a given [`Frontend::at`], protocol and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    Address(IpAddr),
    /// Any address of this node that is not loopback.
    Node(Family),
}

impl At {
    pub fn family(self) -> Family {
        match self {
            Self::Address(address) => Family::of(address),
            Self::Node(family) => family,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    pub at: At,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

/// One pod's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: SocketAddr,
    /// On this node, as far as the slice says so.
    pub local: bool,
}

/// What happens to a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One of them at random; never empty; sorted.
    Backends(Arc<[Backend]>),
    /// Nobody anywhere: refused at once, so that the client need not wait.
    Refuse,
    /// Policy Local and nobody here, but elsewhere: a balancer in front is about to notice.
    Drop,
}

impl Answer {
    pub fn backends(&self) -> &[Backend] {
        match self {
            Self::Backends(backends) => backends,
            Self::Refuse | Self::Drop => &[],
        }
    }
}

/// What becomes of the client's address on the way to the backend, beside hairpins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientSource {
    /// Always the node's: the backend may be on another node, and its answer must come back this way.
    Masquerade,
    /// The node's unless the client is a pod, whose address every node can answer.
    MasqueradeOffCluster,
    /// Policy Local: the backend sees the client.
    Keep,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    pub key: FrontendKey,
    pub kind: FrontendKind,
    /// What clients outside the cluster get.
    pub outside: Answer,
    /// What the node and the pods get: with externalTrafficPolicy Local still every endpoint, as through the ClusterIP.
    pub inside: Answer,
    pub source: ClientSource,
    /// The only sources that may connect; `None`: any.
    pub allowed: Option<Arc<[IpNetwork]>>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub service: ObjectName,
    pub name: String,
    pub protocol: Protocol,
    /// Session affinity ClientIP: how long a client keeps its backend after its last connection.
    pub affinity_s: Option<u32>,
    pub frontends: Vec<Frontend>,
}

/// `healthCheckNodePort`: tells a load balancer whether this node has endpoints of the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    pub service: ObjectName,
    pub local_endpoints: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Model {
    /// Sorted by service, then in the Service's order.
    pub ports: Vec<ServicePort>,
    /// Every ClusterIP: what reaches one on a port that no Service has is refused instead of sent to the router.
    pub cluster_ips: Vec<IpAddr>,
    pub health_checks: Vec<HealthCheck>,
    pub refusals: Vec<Refusal>,
}

impl Model {
    pub fn frontends(&self) -> impl Iterator<Item = (&ServicePort, &Frontend)> {
        self.ports.iter().flat_map(|port| port.frontends.iter().map(move |frontend| (port, frontend)))
    }

    /// How many different pod ports are behind the frontends.
    pub fn endpoint_count(&self) -> usize {
        let answers = self.frontends().flat_map(|(_, f)| [&f.inside, &f.outside]);
        let all: HashSet<_> = answers.flat_map(Answer::backends).collect();
        all.len()
    }

    pub fn service_count(&self) -> usize {
        self.ports.chunk_by(|a, b| a.service == b.service).count()
    }
}

/// What both sources keep: objects as read, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Objects {
    pub services: BTreeMap<ObjectName, Service>,
    pub slices: BTreeMap<ObjectName, Slice>,
    /// What reading them refused.
    pub refusals: BTreeMap<String, Vec<Refusal>>,
}

impl Objects {
    pub fn put_service(&mut self, service: &k8s_openapi::api::core::v1::Service) {
        let name = ObjectName::of(&service.metadata);
        let mut refusals = Vec::new();
        match Service::read(service, &mut refusals) {
            Some(read) => drop(self.services.insert(name.clone(), read)),
            None => drop(self.services.remove(&name)),
        }
        self.note(format!("Service {name}"), refusals);
    }

    pub fn remove_service(&mut self, name: &ObjectName) {
        self.services.remove(name);
        self.refusals.remove(&format!("Service {name}"));
    }

    pub fn put_slice(&mut self, slice: &k8s_openapi::api::discovery::v1::EndpointSlice) {
        let name = ObjectName::of(&slice.metadata);
        let mut refusals = Vec::new();
        match Slice::read(slice, &mut refusals) {
            Some(read) => drop(self.slices.insert(name.clone(), read)),
            None => drop(self.slices.remove(&name)),
        }
        self.note(format!("EndpointSlice {name}"), refusals);
    }

    pub fn remove_slice(&mut self, name: &ObjectName) {
        self.slices.remove(name);
        self.refusals.remove(&format!("EndpointSlice {name}"));
    }

    fn note(&mut self, object: String, refusals: Vec<Refusal>) {
        if refusals.is_empty() {
            self.refusals.remove(&object);
        } else {
            self.refusals.insert(object, refusals);
        }
    }

    /// The model of these objects, seen from `place`.
    pub fn model(&self, place: &Place) -> Model {
        let mut slices: HashMap<&ObjectName, Vec<&Slice>> = HashMap::new();
        for slice in self.slices.values() {
            slices.entry(&slice.service).or_default().push(slice);
        }
        let mut model =
            Model { refusals: self.refusals.values().flatten().cloned().collect(), ..Model::default() };
        for service in self.services.values() {
            let slices = slices.get(&service.name).map_or(&[][..], Vec::as_slice);
            model.ports.extend(service.ports.iter().map(|port| service_port(service, port, slices, place)));
            model.cluster_ips.extend(&service.cluster_ips);
            model.health_checks.extend(service.health_check_port.map(|port| HealthCheck {
                port,
                service: service.name.clone(),
                local_endpoints: local_endpoints(service, slices, place),
            }));
        }
        model.cluster_ips.sort_unstable();
        model.cluster_ips.dedup();
        settle_conflicts(&mut model);
        model
    }
}

/// Ready endpoints on this node, as healthCheckNodePort counts them: each pod once, whatever its ports, and in the family
/// that has more of them.
fn local_endpoints(service: &Service, slices: &[&Slice], place: &Place) -> usize {
    let count = |family| {
        let mut pods = BTreeSet::new();
        for port in &service.ports {
            let candidates = endpoint::candidates(service, port, slices, family, place);
            let local = candidates.iter().filter(|c| c.ready && c.backend.local);
            pods.extend(local.map(|c| c.backend.address.ip()));
        }
        pods.len()
    };
    Family::BOTH.map(count).into_iter().max().unwrap_or_default()
}

fn service_port(service: &Service, port: &Port, slices: &[&Slice], place: &Place) -> ServicePort {
    let choices = Family::BOTH.map(|family| {
        let candidates: Vec<Candidate<'_>> = endpoint::candidates(service, port, slices, family, place);
        endpoint::choose(service, &candidates, place)
    });
    let choice = |family| &choices[family as usize];
    let at_port = |at, port_number| FrontendKey { at, protocol: port.protocol, port: port_number };
    let mut frontends = Vec::new();
    for address in &service.cluster_ips {
        let answer = answer(choice(Family::of(*address)), service.internal);
        frontends.push(Frontend {
            key: at_port(At::Address(*address), port.port),
            kind: FrontendKind::ClusterIp,
            outside: answer.clone(),
            inside: answer,
            source: match service.internal {
                TrafficPolicy::Cluster => ClientSource::MasqueradeOffCluster,
                TrafficPolicy::Local => ClientSource::Keep,
            },
            allowed: None,
        });
    }
    let external = |key: FrontendKey, kind, allowed| {
        let choice = choice(key.at.family());
        Frontend {
            key,
            kind,
            outside: answer(choice, service.external),
            inside: answer(choice, TrafficPolicy::Cluster),
            source: match service.external {
                TrafficPolicy::Cluster => ClientSource::Masquerade,
                TrafficPolicy::Local => ClientSource::Keep,
            },
            allowed,
        }
    };
    // A Service has node ports in the families it has ClusterIPs of.
    for family in
        Family::BOTH.into_iter().filter(|f| service.cluster_ips.iter().any(|ip| Family::of(*ip) == *f))
    {
        let key = port.node_port.map(|number| at_port(At::Node(family), number));
        frontends.extend(key.map(|key| external(key, FrontendKind::NodePort, None)));
    }
    let allowed = (!service.source_ranges.is_empty()).then(|| Arc::from(service.source_ranges.as_slice()));
    for address in &service.load_balancer_ips {
        let key = at_port(At::Address(*address), port.port);
        frontends.push(external(key, FrontendKind::LoadBalancer, allowed.clone()));
    }
    for address in &service.external_ips {
        frontends.push(external(at_port(At::Address(*address), port.port), FrontendKind::ExternalIp, None));
    }
    ServicePort {
        service: service.name.clone(),
        name: port.name.clone(),
        protocol: port.protocol,
        affinity_s: service.affinity_s,
        frontends,
    }
}

fn answer(choice: &Choice, policy: TrafficPolicy) -> Answer {
    let backends = match policy {
        TrafficPolicy::Cluster => &choice.cluster,
        TrafficPolicy::Local => &choice.local,
    };
    match (backends.is_empty(), policy, choice.any) {
        (false, ..) => Answer::Backends(backends.clone()),
        (true, TrafficPolicy::Local, true) => Answer::Drop,
        (true, ..) => Answer::Refuse,
    }
}

/// One owner for every frontend: a ClusterIP before anything a user may write at will, so that an externalIP takes no
/// other Service's address (CVE-2020-8554), then the Service that comes first by name.
fn settle_conflicts(model: &mut Model) {
    let mut claims: Vec<(FrontendKind, FrontendKey, usize)> = Vec::new();
    for (index, port) in model.ports.iter().enumerate() {
        claims.extend(port.frontends.iter().map(|f| (f.kind, f.key, index)));
    }
    claims.sort_unstable_by_key(|(kind, key, index)| (*kind, *index, *key));
    let mut owners: HashMap<FrontendKey, (FrontendKind, usize)> = HashMap::with_capacity(claims.len());
    let mut lost = Vec::new();
    for (kind, key, index) in claims {
        let (owner_kind, owner) = *owners.entry(key).or_insert((kind, index));
        if (owner_kind, owner) != (kind, index) {
            lost.push((kind, key, index, owner));
        }
    }
    for (kind, key, index, owner) in lost {
        model.ports[index].frontends.retain(|f| (f.kind, f.key) != (kind, key));
        if owner != index {
            let (loser, winner) = (&model.ports[index].service, &model.ports[owner].service);
            let why = format!("{kind:?} {key} belongs to Service {winner} already");
            model.refusals.push(Refusal { object: format!("Service {loser}"), why });
        }
    }
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Address(address) => write!(f, "{}", SocketAddr::new(address, self.port))?,
            At::Node(family) => write!(f, "{} of the node's I{family:?} addresses", self.port)?,
        }
        write!(f, "/{:?}", self.protocol)
    }
}

#[cfg(test)]
mod tests;
