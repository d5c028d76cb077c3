//! One pass: read the kernel, decide, compare, change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corten_ebpf::datapath::{Datapath, DatapathError, Events, How, state};
use corten_netlink::route::Link;
use corten_netlink::{NetlinkError, Protocol, Socket};
use ipnetwork::IpNetwork;

use super::endpoints::{self, Resolved};
use super::foreign::{self, Finding, Surroundings};
use super::nodes::{self, Here, Nodes};
use super::plan::{self, Change};
use super::probe::{self, Decision, Obstacle};
use super::status::{self, Counters, EndpointStatus, Status};
use super::{apply, discovery, legacy, tables};
use crate::net_conf::{BackendConf, NetConf};
use crate::node::{Node, PodCidrs};
use crate::options::Fastpath as Wish;
use crate::source::Snapshot;

/// Loading costs some 100 ms.
const REFUSAL_HOLDS: Duration = Duration::from_secs(25);

#[derive(Debug, Clone)]
pub struct Options {
    pub wish: Wish,
    /// Pins of the tc programs; on bpffs.
    pub directory: PathBuf,
    /// The CNI plugin's bridge.
    pub bridge: String,
    /// All nodes take IPv6 vxlan without a UDP checksum (`udp6zerocsumrx`).
    pub zero_checksum_v6: bool,
}

/// What the rest of the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub local: Node,
    pub peers: Vec<Node>,
    /// The cluster's.
    pub networks: PodCidrs,
    pub backend: BackendConf,
    /// The link that other nodes are reached by.
    pub uplink: u32,
}

impl Input {
    pub fn new(conf: &NetConf, snapshot: &Snapshot, uplink: u32) -> Self {
        Self {
            local: snapshot.local.clone(),
            peers: snapshot.peers.clone(),
            networks: conf.networks,
            backend: conf.backend,
            uplink,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FastpathError {
    /// `fastpath = on`, and it cannot be.
    #[error("fastpath = on, but {}", why.join("; "))]
    Refused { why: Vec<String> },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error("wait for notifications: {0}")]
    Wait(#[from] std::io::Error),
}

pub struct Fastpath {
    options: Options,
    route: Socket,
    /// `None`: the kernel has no nf_tables, so there are no rules and no translation by it.
    netfilter: Option<Socket>,
    /// `None` while off.
    datapath: Option<Datapath>,
    /// When and why the programs could not be loaded.
    refusal: Option<(Instant, Vec<Obstacle>)>,
    status: Status,
    names: BTreeMap<u32, String>,
}

/// What one look at the kernel found.
struct Seen {
    /// What traffic between pods passes: bridge, its ports, uplink, tunnels.
    devices: BTreeSet<String>,
    pods: Resolved,
    host: BTreeSet<IpAddr>,
}

impl Fastpath {
    /// Sockets belong to the calling thread's network namespace. Nothing is changed before the first pass.
    pub fn new(options: Options) -> Result<Self, NetlinkError> {
        let route = Socket::open(Protocol::Route)?;
        let netfilter = Socket::open(Protocol::Netfilter).ok();
        Ok(Self {
            options,
            route,
            netfilter,
            datapath: None,
            refusal: None,
            status: Status::default(),
            names: BTreeMap::new(),
        })
    }

    pub fn status(&self) -> &Status {
        &self.status
    }

    pub fn counters(&self) -> Counters {
        self.datapath.as_ref().and_then(|datapath| datapath.counters().ok()).unwrap_or_default()
    }

    /// The reader of events, when the programs were loaded since the last call.
    pub fn take_events(&mut self) -> Option<Events> {
        self.datapath.as_mut().and_then(Datapath::take_events)
    }

    /// Names of links by index, as of the last pass, for people.
    pub fn link_names(&self) -> &BTreeMap<u32, String> {
        &self.names
    }

    /// Detaches the programs and removes all pins below `directory`. Packets go the kernel's way from then on.
    pub fn remove(directory: &Path) -> Result<(), DatapathError> {
        Datapath::remove(directory)
    }

    /// Makes maps and links as they should be, or takes everything away when the fast path is to be off.
    ///
    /// # Errors
    /// When the kernel could not be read: nothing was changed, and the status keeps what it had beside the error.
    /// [`FastpathError::Refused`].
    pub fn pass(&mut self, input: &Input) -> Result<&Status, FastpathError> {
        let start = Instant::now();
        let (passes, changes) = (self.status.passes + 1, self.status.changes);
        let mut status = match self.one_pass(input) {
            Ok(status) => status,
            Err(error) => {
                self.status.errors = vec![error.to_string()];
                return Err(error);
            }
        };
        status.passes = passes;
        status.changes += changes;
        status.last_pass_us = start.elapsed().as_micros() as u64;
        self.status = status;
        Ok(&self.status)
    }

    fn one_pass(&mut self, input: &Input) -> Result<Status, FastpathError> {
        if self.options.wish == Wish::Off {
            self.take_down(&input.networks)?;
            return Ok(Status::off(probe::decide(Wish::Off, &[], &Ok(Vec::new()))));
        }
        let seen = self.look(input)?;
        let findings = self.findings(input, &seen);
        let mut obstacles = probe::obstacles(&self.options.directory);
        let mut decision = probe::decide(self.options.wish, &obstacles, &findings);
        if decision.on
            && let Err(refusal) = self.load()
        {
            obstacles.extend(refusal);
            decision = probe::decide(self.options.wish, &obstacles, &findings);
        }
        if !decision.on {
            self.take_down(&input.networks)?;
            return match self.options.wish {
                Wish::On => Err(FastpathError::Refused { why: decision.why }),
                _ => Ok(Status::off(decision)),
            };
        }
        let nodes = self.nodes(input, &seen)?;
        self.bring_up(input, &seen, &nodes, decision)
    }

    fn look(&mut self, input: &Input) -> Result<Seen, NetlinkError> {
        let clsact_is_ours = self.datapath.as_ref().is_some_and(|datapath| datapath.how() == How::Clsact);
        let found = discovery::read(&mut self.route, &self.options.bridge, clsact_is_ours)?;
        let pods = match &found.bridge {
            Some(bridge) => endpoints::resolve(bridge, &found.ports, &input.local.pod_cidrs, &found.host),
            None => Resolved::default(),
        };
        let links = self.route.links()?;
        let passed = |link: &&Link| link.index == input.uplink || link.vxlan.is_some();
        let others = links.iter().filter(passed).map(|link| link.name.clone());
        let ports = found.ports.into_iter().map(|port| port.name);
        let devices = ports.chain(others).chain([self.options.bridge.clone()]).collect();
        self.names = links.into_iter().map(|link| (link.index, link.name)).collect();
        Ok(Seen { devices, pods, host: found.host })
    }

    fn findings(&mut self, input: &Input, seen: &Seen) -> Result<Vec<Finding>, String> {
        let around = Surroundings {
            local: cidrs(&input.local.pod_cidrs),
            cluster: cidrs(&input.networks),
            devices: seen.devices.clone(),
        };
        let mut ruleset = match &mut self.netfilter {
            Some(netfilter) => probe::rules(netfilter, &around).map_err(|error| error.to_string())?,
            None => foreign::Ruleset { complete: true, ..foreign::Ruleset::default() },
        };
        legacy::read(&mut ruleset)?;
        if !ruleset.complete {
            return Err("there are too many".into());
        }
        Ok(foreign::findings(&ruleset, &around))
    }

    /// Loads the programs unless they are. A kernel that refused them is asked again after a while.
    fn load(&mut self) -> Result<(), Vec<Obstacle>> {
        if self.datapath.is_some() {
            return Ok(());
        }
        if let Some((when, why)) = &self.refusal
            && when.elapsed() < REFUSAL_HOLDS
        {
            return Err(why.clone());
        }
        match load(&self.options.directory) {
            Ok(datapath) => {
                self.datapath = Some(datapath);
                self.refusal = None;
                Ok(())
            }
            Err(why) => {
                self.refusal = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn take_down(&mut self, cluster: &PodCidrs) -> Result<(), FastpathError> {
        if !self.options.directory.exists() {
            return Ok(());
        }
        if let Some(mut datapath) = self.datapath.take() {
            datapath.set_state(state::OFF)?;
        }
        Datapath::remove(&self.options.directory)?;
        self.forget(cluster)
    }

    fn forget(&mut self, cluster: &PodCidrs) -> Result<(), FastpathError> {
        match &mut self.netfilter {
            Some(netfilter) => Ok(apply::forget(netfilter, &cidrs(cluster))?),
            None => Ok(()),
        }
    }

    fn nodes(&mut self, input: &Input, seen: &Seen) -> Result<Nodes, NetlinkError> {
        let here = Here {
            backend: input.backend,
            uplinks: BTreeSet::from([input.uplink]),
            pod_cidrs: networks(&input.local.pod_cidrs),
            zero_checksum_v6: self.options.zero_checksum_v6,
            own: seen.host.clone(),
            public_ips: input.local.public_ips,
        };
        let routes = discovery::routes(&mut self.route, &nodes::questions(&input.peers))?;
        Ok(nodes::resolve(&input.peers, &here, &routes))
    }

    fn bring_up(
        &mut self,
        input: &Input,
        seen: &Seen,
        nodes: &Nodes,
        decision: Decision,
    ) -> Result<Status, FastpathError> {
        let datapath = self.datapath.as_mut().expect("loaded when the decision is on");
        let uplinks = BTreeSet::from([input.uplink]);
        let desired =
            tables::desired(&input.local, &input.networks, input.backend, &uplinks, &seen.pods, nodes);
        let actual = apply::actual(datapath)?;
        let changes = plan::diff(&desired, &actual);
        let mut errors = apply::apply(datapath, self.netfilter.as_mut(), &desired.config, &changes);
        let how = match datapath.how() {
            How::Tcx => "tcx",
            How::Clsact => "clsact",
        };
        let falls_back = |change: &Change| match change {
            Change::RemoveEndpoint(ip) => {
                actual.endpoints.get(ip).is_some_and(|old| self.names.contains_key(&old.ifindex))
            }
            Change::RemoveNode(cidr) => nodes
                .unserved
                .iter()
                .any(|node| node.pod_cidr.ip() == cidr.ip && node.pod_cidr.prefix() == cidr.len),
            _ => false,
        };
        if changes.iter().any(falls_back)
            && let Err(error) = self.forget(&input.networks)
        {
            errors.push(error.to_string());
        }
        let name = |veth| self.names.get(&veth).cloned().unwrap_or_else(|| veth.to_string());
        let pods = seen.pods.left_out.iter().map(Into::into);
        Ok(Status {
            on: true,
            overrides: decision.overrides,
            attached_by: Some(how),
            endpoints: seen
                .pods
                .endpoints
                .iter()
                .map(|(ip, e)| EndpointStatus { address: *ip, veth: name(e.veth), mac: e.mac.to_string() })
                .collect(),
            nodes: status::nodes(nodes),
            left_out: pods.chain(nodes.unserved.iter().map(Into::into)).collect(),
            errors,
            changes: u64::from(!changes.is_empty()),
            ..Status::default()
        })
    }
}

fn load(directory: &Path) -> Result<Datapath, Vec<Obstacle>> {
    let missing = corten_ebpf::datapath::probe(directory).missing;
    if !missing.is_empty() {
        return Err(missing.iter().map(|what| Obstacle::kernel(what)).collect());
    }
    Datapath::load_or_open(directory).map_err(|error| vec![Obstacle::kernel(&error.to_string())])
}

fn networks(cidrs: &PodCidrs) -> Vec<IpNetwork> {
    cidrs.v4.map(IpNetwork::V4).into_iter().chain(cidrs.v6.map(IpNetwork::V6)).collect()
}

fn cidrs(cidrs: &PodCidrs) -> Vec<corten_netlink::Cidr> {
    networks(cidrs).into_iter().filter_map(|c| corten_netlink::Cidr::new(c.network(), c.prefix())).collect()
}
