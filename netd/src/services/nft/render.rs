//! Model → content of the table: pure.

use std::net::SocketAddr;

use corten_netlink::nft::{DataType, Element, Elements, SetKind};
use ipnetwork::IpNetwork;

use super::chains::{self, DROP, KEEP, MASQUERADE, OFF_CLUSTER, REFUSE};
use super::key::Key;
use super::{Content, Elementary, Shape};
use crate::services::model::{Answer, At, Backend, ClientSource, Family, Frontend, Model, ServicePort};

/// Clients that one endpoint of a Service with session affinity remembers; who comes later is served without.
const CLIENTS_LIMIT: u32 = 65_536;

/// What of the node and the cluster matters to the rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Where pods have their addresses: sources in them are inside. Empty: only the node itself is.
    pub pod_networks: Vec<IpNetwork>,
}

pub fn render(model: &Model, settings: &Settings) -> Content {
    let mut rendering = Rendering::default();
    for (name, chain) in chains::fixed(&settings.pod_networks) {
        rendering.content.chains.insert(name.to_owned(), chain);
    }
    for (name, shape) in fixed_sets() {
        rendering.content.sets.insert(name, Elementary { shape, elements: Vec::new() });
    }
    for port in &model.ports {
        for frontend in &port.frontends {
            rendering.frontend(port, frontend);
        }
    }
    for address in &model.cluster_ips {
        let set = format!("cluster-ips-{}", Family::of(*address).name());
        rendering.put(&set, Key::default().address(*address).element());
    }
    let mut content = rendering.content;
    for set in content.sets.values_mut() {
        set.elements.sort_unstable();
        set.elements.dedup();
    }
    content
}

fn fixed_sets() -> Vec<(String, Shape)> {
    use DataType::{Ipv4Address, Ipv6Address, Mark, NetworkProtocol, Port, TransportProtocol};
    let shape = |key, kind, elements| Shape { key, kind, elements };
    let single = |key, kind| shape(key, kind, Elements::Single);
    let node_port = &[NetworkProtocol, TransportProtocol, Port];
    let mut sets = vec![
        ("node-ports".to_owned(), single(node_port, SetKind::Verdicts)),
        ("inside-node-ports".to_owned(), single(node_port, SetKind::Verdicts)),
        ("node-sources".to_owned(), single(node_port, SetKind::Verdicts)),
    ];
    type Keys = [&'static [DataType]; 6];
    let v4: Keys = [
        &[Ipv4Address],
        &[Ipv4Address, Ipv4Address],
        &[Ipv4Address, TransportProtocol, Port],
        &[Ipv4Address, TransportProtocol, Port, Mark],
        &[Ipv4Address, Ipv4Address, TransportProtocol, Port],
        &[Ipv4Address, Port],
    ];
    let v6: Keys = [
        &[Ipv6Address],
        &[Ipv6Address, Ipv6Address],
        &[Ipv6Address, TransportProtocol, Port],
        &[Ipv6Address, TransportProtocol, Port, Mark],
        &[Ipv6Address, Ipv6Address, TransportProtocol, Port],
        &[Ipv6Address, Port],
    ];
    for (family, [address, pair, frontend, slot, client, backend]) in [(Family::V4, v4), (Family::V6, v6)] {
        let mut add = |name: &str, shape| sets.push((format!("{name}-{}", family.name()), shape));
        add("cluster-ips", single(address, SetKind::Plain));
        add("hairpin", single(pair, SetKind::Plain));
        add("allowed", shape(client, SetKind::Plain, Elements::Ranges));
        add("sources", single(frontend, SetKind::Verdicts));
        for view in [OUTSIDE, INSIDE] {
            add(&format!("{view}frontends"), single(frontend, SetKind::Verdicts));
            add(&format!("{view}backends"), single(slot, SetKind::Values(backend)));
            let by_port = single(&[TransportProtocol, Port, Mark], SetKind::Values(backend));
            add(&format!("{view}node-backends"), by_port);
        }
    }
    sets
}

/// Prefixes of the names of maps and chains.
const OUTSIDE: &str = "";
const INSIDE: &str = "inside-";

#[derive(Default)]
struct Rendering {
    content: Content,
}

impl Rendering {
    fn put(&mut self, set: &str, element: Element) {
        self.content.sets.get_mut(set).expect("a set that is always there").elements.push(element);
    }

    fn chain(&mut self, name: String, make: impl FnOnce() -> super::Chain) -> String {
        self.content.chains.entry(name.clone()).or_insert_with(make);
        name
    }

    fn frontend(&mut self, port: &ServicePort, frontend: &Frontend) {
        self.view(OUTSIDE, port, frontend, &frontend.outside);
        if frontend.inside != frontend.outside {
            self.view(INSIDE, port, frontend, &frontend.inside);
        }
        self.source(frontend);
        let local = |backend: &&Backend| backend.local;
        for backend in frontend.inside.backends().iter().chain(frontend.outside.backends()).filter(local) {
            let ip = backend.address.ip();
            let set = format!("hairpin-{}", Family::of(ip).name());
            self.put(&set, Key::default().address(ip).address(ip).element());
        }
    }

    fn view(&mut self, view: &str, port: &ServicePort, frontend: &Frontend, answer: &Answer) {
        let family = frontend.key.at.family();
        let target = match answer {
            Answer::Refuse => REFUSE.to_owned(),
            Answer::Drop => DROP.to_owned(),
            Answer::Backends(backends) => match port.affinity_s {
                None => self.pick(view, frontend, backends),
                Some(timeout_s) => self.sticky(port, family, backends, timeout_s),
            },
        };
        let target = match &frontend.allowed {
            None => target,
            Some(ranges) => {
                self.allow(frontend, ranges);
                self.chain(format!("guarded/{target}"), || chains::guarded(family, &target))
            }
        };
        match frontend.key.at {
            At::Address(_) => {
                let map = format!("{view}frontends-{}", family.name());
                self.put(&map, Key::default().frontend(&frontend.key).goto(&target));
            }
            At::Node(_) => {
                let name = format!("node-{}/{target}", family.name());
                let chain = self.chain(name, || chains::on_node(family, &target));
                let key = Key::default().byte(family.number()).frontend(&frontend.key);
                self.put(&format!("{view}node-ports"), key.goto(&chain));
            }
        }
    }

    /// The chain of all frontends with so many backends.
    fn pick(&mut self, view: &str, frontend: &Frontend, backends: &[Backend]) -> String {
        let family = frontend.key.at.family();
        let addressed = matches!(frontend.key.at, At::Address(_));
        let kind = if addressed { "" } else { "node-" };
        let map = format!("{view}{kind}backends-{}", family.name());
        for (slot, backend) in backends.iter().enumerate() {
            self.put(&map, Key::default().frontend(&frontend.key).slot(slot).value(backend.address));
        }
        let name = format!("{view}{kind}pick-{}-{}", family.name(), backends.len());
        self.chain(name, || chains::pick(family, addressed, backends.len(), map))
    }

    /// The chain of one Service's port and one list of its endpoints; the frontends share it, so a client meets the same
    /// endpoint by each of them.
    fn sticky(&mut self, port: &ServicePort, family: Family, backends: &[Backend], timeout_s: u32) -> String {
        let owner = owner(port);
        let remembered: Vec<(String, String)> =
            backends.iter().map(|backend| self.endpoint(&owner, backend.address, timeout_s)).collect();
        let list = backends.iter().map(|b| b.address);
        let name = format!("sticky/{owner}/{}/{:08x}", family.name(), fingerprint(list));
        let shape = Shape { key: &[DataType::Mark], kind: SetKind::Verdicts, elements: Elements::Single };
        let slots = remembered.iter().enumerate();
        let elements = slots.map(|(slot, (chain, _))| Key::default().slot(slot).goto(chain)).collect();
        self.content.sets.insert(name.clone(), Elementary { shape, elements });
        let endpoints = remembered.iter().map(|(chain, clients)| (chain, clients));
        self.chain(name.clone(), || chains::sticky(family, endpoints, backends.len(), name))
    }

    /// The chain and the set of clients of one endpoint of a Service's port.
    fn endpoint(&mut self, owner: &str, backend: SocketAddr, timeout_s: u32) -> (String, String) {
        let id = format!("{owner}/{}/{}", backend.ip().to_string().replace(':', "-"), backend.port());
        let (chain, clients) = (format!("endpoint/{id}"), format!("clients/{id}"));
        let key: &'static [DataType] = match Family::of(backend.ip()) {
            Family::V4 => &[DataType::Ipv4Address],
            Family::V6 => &[DataType::Ipv6Address],
        };
        let shape = Shape { key, kind: SetKind::Plain, elements: Elements::Dynamic { limit: CLIENTS_LIMIT } };
        self.content.sets.insert(clients.clone(), Elementary { shape, elements: Vec::new() });
        let chain = self.chain(chain, || chains::endpoint(backend, clients.clone(), timeout_s));
        (chain, clients)
    }

    /// Ranges of the other family allow nobody here.
    fn allow(&mut self, frontend: &Frontend, ranges: &[IpNetwork]) {
        let family = frontend.key.at.family();
        let set = format!("allowed-{}", family.name());
        let within = |outer: &IpNetwork, inner: &IpNetwork| {
            outer != inner && outer.contains(inner.ip()) && outer.prefix() <= inner.prefix()
        };
        for range in ranges.iter().filter(|range| Family::of(range.ip()) == family) {
            // The kernel refuses overlapping ranges; of two networks that overlap one is in the other.
            if ranges.iter().any(|outer| within(outer, range)) {
                continue;
            }
            let from = Key::default().address(range.network()).frontend(&frontend.key);
            let to = Key::default().address(range.broadcast()).frontend(&frontend.key);
            self.put(&set, from.range(to));
        }
    }

    fn source(&mut self, frontend: &Frontend) {
        let chain = match frontend.source {
            ClientSource::Masquerade => MASQUERADE,
            ClientSource::MasqueradeOffCluster => OFF_CLUSTER,
            ClientSource::Keep => KEEP,
        };
        let family = frontend.key.at.family();
        match frontend.key.at {
            At::Address(_) => {
                let map = format!("sources-{}", family.name());
                self.put(&map, Key::default().frontend(&frontend.key).goto(chain));
            }
            At::Node(_) => {
                let key = Key::default().byte(family.number()).frontend(&frontend.key);
                self.put("node-sources", key.goto(chain));
            }
        }
    }
}

/// The parts of a Service's name are DNS labels: with `/` between them they are names that nft can read again.
fn owner(port: &ServicePort) -> String {
    let protocol = format!("{:?}", port.protocol).to_lowercase();
    format!("{}/{}/{}/{protocol}", port.service.namespace, port.service.name, port.name)
}

/// FNV-1a: tells the lists of endpoints of one Service apart (all, or those on this node), nothing more.
fn fingerprint(addresses: impl Iterator<Item = SocketAddr>) -> u32 {
    let texts = addresses.map(|address| address.to_string());
    let bytes = texts.flat_map(|text| text.into_bytes().into_iter().chain([b' ']));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
