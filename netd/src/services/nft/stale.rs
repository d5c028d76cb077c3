//! UDP flows that go on to a backend which is no longer one: NAT is decided by a flow's first packet, and the flow of a
//! client that keeps sending never ends. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use corten_netlink::conntrack::Flow;

use crate::services::model::{At, Family, FrontendKey, Model};
use crate::services::object::Protocol;

/// The UDP frontends and everybody who may answer for them, outside or inside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Udp(BTreeMap<FrontendKey, BTreeSet<SocketAddr>>);

impl Udp {
    pub fn of(model: &Model) -> Self {
        let udp = model.frontends().map(|(_, frontend)| frontend).filter(|f| f.key.protocol == Protocol::Udp);
        let entry = udp.map(|frontend| {
            let backends = frontend.outside.backends().iter().chain(frontend.inside.backends());
            (frontend.key, backends.map(|backend| backend.address).collect())
        });
        Self(entry.collect())
    }

    /// Together with the frontends that were and are no more: they have no backends now.
    #[must_use]
    pub fn and_gone(mut self, before: &Self) -> Self {
        for key in before.0.keys() {
            self.0.entry(*key).or_default();
        }
        self
    }

    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::BOTH.into_iter().filter(|family| self.0.keys().any(|key| key.at.family() == *family))
    }

    pub fn has_node_ports(&self) -> bool {
        self.0.keys().any(|key| matches!(key.at, At::Node(_)))
    }

    /// A flow to a frontend that is answered by nobody the frontend has, or that was never translated because the
    /// frontend came later.
    ///
    /// `is_local`: is this an address of the node? A flow to a node port's number on another machine is none of ours.
    pub fn is_stale(&self, flow: &Flow, is_local: impl Fn(IpAddr) -> bool) -> bool {
        self.is_stale_between(flow.original.destination, flow.reply.source, is_local)
    }

    /// The same, of what the flow's client sends to and of who answers it.
    pub fn is_stale_between(
        &self,
        destination: SocketAddr,
        answers: SocketAddr,
        is_local: impl Fn(IpAddr) -> bool,
    ) -> bool {
        let at = |at| FrontendKey { at, protocol: Protocol::Udp, port: destination.port() };
        let (ip, family) = (destination.ip(), Family::of(destination.ip()));
        let node_port = || self.0.get(&at(At::Node(family))).filter(|_| is_local(ip) && !ip.is_loopback());
        let backends = self.0.get(&at(At::Address(ip))).or_else(node_port);
        backends.is_some_and(|backends| !backends.contains(&answers))
    }
}
