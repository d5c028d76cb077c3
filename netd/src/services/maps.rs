//! The model as the cgroup programs' tables, and the programs themselves: for what the node and its pods connect to.
//!
//! [`desired`] is pure; [`corten_ebpf::socket`] plans and makes the difference. A frontend that only some sources may use
//! is left to nf_tables: at connect the source is not known yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use corten_ebpf::socket::{self, At as SocketAt, Desired, Entry, SocketError, SocketServices};
use corten_ebpf_layout::service::Counter;

use super::model::{At, Family, Frontend, Model};
use super::object::Protocol;

/// `node_addresses`: where node ports are answered, beside loopback.
pub fn desired(model: &Model, node_addresses: &[IpAddr]) -> Desired {
    let mut entries = Vec::new();
    for port in &model.ports {
        let affinity = port.affinity_s.map(|seconds| Duration::from_secs(seconds.into()));
        let mut alike: BTreeMap<(Family, BTreeSet<SocketAddr>), BTreeSet<SocketAt>> = BTreeMap::new();
        for frontend in port.frontends.iter().filter(|frontend| frontend.allowed.is_none()) {
            let Some(at) = at(frontend) else { continue };
            let backends = frontend.inside.backends().iter().map(|backend| backend.address).collect();
            alike.entry((frontend.key.at.family(), backends)).or_default().insert(at);
        }
        let entry = |((_, backends), frontends)| Entry { frontends, backends, affinity };
        entries.extend(alike.into_iter().map(entry));
    }
    Desired { entries, node_addresses: node_addresses.iter().copied().collect() }
}

/// `None`: no protocol of these programs.
fn at(frontend: &Frontend) -> Option<SocketAt> {
    let protocol = match frontend.key.protocol {
        Protocol::Tcp => socket::Protocol::Tcp,
        Protocol::Udp => socket::Protocol::Udp,
        Protocol::Sctp => return None,
    };
    let address = match frontend.key.at {
        At::Address(address) => address,
        At::Node(Family::V4) => Ipv4Addr::UNSPECIFIED.into(),
        At::Node(Family::V6) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Some(SocketAt { protocol, address: SocketAddr::new(address, frontend.key.port) })
}

/// What a pass over the maps did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    pub changes: usize,
    /// Frontends that the programs do not serve, and why; nf_tables does.
    pub refused: Vec<String>,
    /// Connected UDP sockets ended because their backend is gone.
    pub ended: usize,
}

/// The programs and their maps.
pub struct Applier {
    sockets: SocketServices,
}

impl Applier {
    /// Loads, and attaches nothing yet. Of the network namespace that is the thread's own.
    pub fn open(options: socket::Options) -> Result<Self, SocketError> {
        Ok(Self { sockets: SocketServices::open(options)? })
    }

    /// Fills the maps, then sees that the programs are attached, then ends sockets that lost their backend.
    ///
    /// # Errors
    /// The programs are then off, and nf_tables serves what they did.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, SocketError> {
        self.try_apply(desired).inspect_err(|_| self.sockets.set_enabled(false))
    }

    fn try_apply(&mut self, desired: &Desired) -> Result<Applied, SocketError> {
        let applied = self.sockets.apply(desired)?;
        self.sockets.set_enabled(true);
        self.sockets.attach()?;
        Ok(Applied {
            changes: applied.changes,
            refused: applied.refused.iter().map(|r| format!("{:?}: {:?}", r.at, r.why)).collect(),
            ended: self.end_stale()?,
        })
    }

    fn end_stale(&mut self) -> Result<usize, SocketError> {
        if !self.sockets.has_stale()? {
            return Ok(0);
        }
        // Without /proc the sockets of no other namespace can be found.
        let networks = socket::networks().unwrap_or_default();
        Ok(self.sockets.destroy_stale(&networks)?.destroyed)
    }

    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, SocketError> {
        self.sockets.counters()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::services::model::{Answer, Backend, ClientSource, FrontendKey, FrontendKind, ServicePort};
    use crate::services::object::ObjectName;

    fn frontend(kind: FrontendKind, at: At, protocol: Protocol, inside: &[&str]) -> Frontend {
        let backend = |text: &&str| Backend { address: text.parse().expect("an address"), local: false };
        let backends: Arc<[Backend]> = inside.iter().map(backend).collect();
        let inside = if backends.is_empty() { Answer::Refuse } else { Answer::Backends(backends) };
        Frontend {
            key: FrontendKey { at, protocol, port: 80 },
            kind,
            outside: Answer::Drop,
            inside,
            source: ClientSource::Keep,
            allowed: None,
        }
    }

    fn model(frontends: Vec<Frontend>, affinity_s: Option<u32>) -> Model {
        let service = ObjectName { namespace: "d".into(), name: "web".into() };
        let port =
            ServicePort { service, name: String::new(), protocol: Protocol::Tcp, affinity_s, frontends };
        Model { ports: vec![port], ..Model::default() }
    }

    #[test]
    fn frontends_that_answer_alike_share_an_entry_and_use_what_is_meant_for_inside() {
        let at = |text: &str| At::Address(text.parse().expect("an address"));
        let pods = &["10.0.0.1:8080", "10.0.0.2:8080"][..];
        let frontends = vec![
            frontend(FrontendKind::ClusterIp, at("10.96.0.1"), Protocol::Tcp, pods),
            frontend(FrontendKind::NodePort, At::Node(Family::V4), Protocol::Tcp, pods),
            frontend(FrontendKind::ExternalIp, at("203.0.113.1"), Protocol::Tcp, &pods[..1]),
            frontend(FrontendKind::ClusterIp, at("fd00::1"), Protocol::Tcp, &[]),
            frontend(FrontendKind::NodePort, At::Node(Family::V6), Protocol::Tcp, &[]),
        ];
        let node = ["192.0.2.1".parse().expect("an address")];
        let desired = desired(&model(frontends, Some(60)), &node);
        let shown = |entry: &Entry| {
            let at: Vec<_> = entry.frontends.iter().map(|at| at.address.to_string()).collect();
            (at.join(" "), entry.backends.len())
        };
        let found: Vec<_> = desired.entries.iter().map(shown).collect();
        let entry = |at: &str, count| (at.to_owned(), count);
        assert_eq!(
            found,
            [
                entry("203.0.113.1:80", 1),
                entry("0.0.0.0:80 10.96.0.1:80", 2),
                entry("[::]:80 [fd00::1]:80", 0)
            ]
        );
        assert!(desired.entries.iter().all(|e| e.affinity == Some(Duration::from_mins(1))));
        assert_eq!(desired.node_addresses, BTreeSet::from(node));
    }

    #[test]
    fn sctp_and_restricted_frontends_are_left_to_nf_tables() {
        let at = At::Address("203.0.113.1".parse().expect("an address"));
        let mut restricted = frontend(FrontendKind::LoadBalancer, at, Protocol::Tcp, &["10.0.0.1:8080"]);
        restricted.allowed = Some(Arc::from(["192.0.2.0/24".parse().expect("a network")]));
        let sctp = frontend(FrontendKind::ClusterIp, at, Protocol::Sctp, &["10.0.0.1:8080"]);
        assert_eq!(desired(&model(vec![restricted, sctp], None), &[]).entries, []);
    }
}
