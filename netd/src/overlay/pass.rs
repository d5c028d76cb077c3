//! One pass: dumps, differences, changes, and what is told of it.

use std::time::{Instant, SystemTime};

use corten_netlink::NetlinkError;
use tracing::{debug, info, warn};

use super::actual::{Device, Host};
use super::desired::{Family, Ground, Plan, Way, cidr_v4, cidr_v6, plan};
use super::diff::{entries, link_changes};
use super::error::OverlayError;
use super::status::{Mode, PathStatus, PeerStatus, Status, Underlay};
use super::uplink::Uplink;
use super::{Config, Overlay, apply, devices, families, find_uplink, local_ip, masquerade, sysctl, underlay};
use crate::net_conf::BackendConf;
use crate::node::Node;
use crate::source::Snapshot;

/// What a pass found and did.
#[derive(Default)]
struct Outcome {
    changes: u64,
    errors: Vec<OverlayError>,
    peers: Vec<PeerStatus>,
    /// A change for a peer was refused: try again soon.
    refused: Option<NetlinkError>,
}

impl Outcome {
    /// A person must act.
    fn is_final(&self) -> bool {
        self.errors.iter().any(OverlayError::is_final)
    }
}

impl Overlay {
    /// Makes everything as it should be, as far as it can be.
    ///
    /// # Errors
    /// The first thing that failed, one that a person must mend before others; the status has all.
    pub fn pass(&mut self, snapshot: &Snapshot) -> Result<(), OverlayError> {
        let started = Instant::now();
        let mut outcome = Outcome { peers: nobody(&snapshot.peers), ..Outcome::default() };
        if let Err(error) = self.try_pass(snapshot, &mut outcome) {
            outcome.errors.push(error);
        }
        self.publish(&outcome, started);
        let refused = outcome.refused.map(OverlayError::Netlink);
        let place = outcome.errors.iter().position(OverlayError::is_final).unwrap_or(0);
        outcome.errors.into_iter().nth(place).or(refused).map_or(Ok(()), Err)
    }

    fn try_pass(&mut self, snapshot: &Snapshot, outcome: &mut Outcome) -> Result<(), OverlayError> {
        let mut host = Host::dump(&mut self.route)?;
        let uplink = find_uplink(&mut self.route, &self.config, &host, self.former)?;
        self.former = Some(uplink.index);
        let first = self.status.borrow().passes == 0;
        if first {
            // What a person must mend is found before anything is changed.
            check(&self.config, &host, &uplink, &self.underlay.borrow())?;
        }
        outcome.errors.extend(sysctl::forward_packets(self.config.families(), &uplink.name).err());
        if first && outcome.is_final() {
            return Ok(());
        }
        for family in families(&self.config) {
            let done = self.pass_family(family, &mut host, &uplink, snapshot, outcome);
            outcome.errors.extend(done.err());
        }
        // Rules of a network that will not be would stay when the devices are taken away again.
        if first && outcome.is_final() {
            return Ok(());
        }
        let rules = self.rules(&snapshot.local);
        match masquerade::reconcile(&mut self.netfilter, &rules) {
            Ok(changed) => outcome.changes += u64::from(changed),
            Err(error) => outcome.errors.push(apply::explain(error)),
        }
        self.watch(&host, &uplink);
        let told = underlay(&self.config, &uplink, self.macs);
        self.tell_underlay(told);
        Ok(())
    }

    fn pass_family(
        &mut self,
        family: Family,
        host: &mut Host,
        uplink: &Uplink,
        snapshot: &Snapshot,
        outcome: &mut Outcome,
    ) -> Result<(), OverlayError> {
        let local_ip = local_ip(family, uplink)?;
        let network = match family {
            Family::V4 => self.config.net_conf.networks.v4.map(cidr_v4),
            Family::V6 => self.config.net_conf.networks.v6.map(cidr_v6),
        };
        let ground = Ground {
            backend: &self.config.net_conf.backend,
            network: network.expect("families() has those with a network"),
            uplink,
            local_ip,
            mac: if family.is_ipv4() { self.macs.v4 } else { self.macs.v6 },
            blackhole: self.config.blackhole_route,
            routes: host.routes(family),
        };
        let Some(plan) = plan(family, &ground, &snapshot.local, &snapshot.peers)? else { return Ok(()) };
        let device = self.pass_device(&plan, host, outcome)?;
        let difference = entries(&plan, device.as_ref(), host.routes(family));
        for step in &difference.steps {
            debug!(family = family.name(), "{:?}", step.change);
        }
        outcome.changes += difference.steps.len() as u64;
        describe_ways(&plan, &mut outcome.peers);
        for (place, why) in difference.conflicts {
            blame(&mut outcome.peers[place], family, why);
        }
        let index = device.map(|device| device.index);
        for (place, error) in apply::change_entries(&mut self.route, index, &difference.steps)? {
            match place {
                Some(place) => {
                    blame(&mut outcome.peers[place], family, error.to_string());
                    outcome.refused.get_or_insert(error);
                }
                None => outcome.errors.push(error.into()),
            }
        }
        Ok(())
    }

    /// The tunnel device as it should be, and its tables.
    fn pass_device(
        &mut self,
        plan: &Plan,
        host: &mut Host,
        outcome: &mut Outcome,
    ) -> Result<Option<Device>, OverlayError> {
        let Some(tunnel) = &plan.tunnel else { return Ok(None) };
        let changes = link_changes(tunnel, &host.links)?;
        if !changes.is_empty() {
            info!(device = tunnel.name, "{changes:?}");
            outcome.changes += changes.len() as u64;
            if apply::change_link(&mut self.route, tunnel, &changes)? {
                self.created.push(tunnel.name.clone());
            }
            *host = Host::dump(&mut self.route)?;
        }
        match host.link(&tunnel.name) {
            Some(link) => Ok(Some(Device::dump(&mut self.route, plan.family, link.index)?)),
            // Deleted a moment ago: a notification will come.
            None => Ok(None),
        }
    }

    fn rules(&self, local: &Node) -> Vec<masquerade::Content> {
        masquerade::content(&masquerade::Settings {
            networks: self.config.net_conf.networks,
            local: local.pod_cidrs,
            masquerade: self.config.ip_masq,
            fully_random: self.config.masq_fully_random,
            forward: self.config.forward_rules,
            vxlan_port: match &self.config.net_conf.backend {
                BackendConf::Vxlan(conf) => Some(conf.port),
                BackendConf::HostGw => None,
            },
        })
    }

    /// Which notifications matter from now on.
    fn watch(&mut self, host: &Host, uplink: &Uplink) {
        let devices = devices(&self.config);
        let tunnels = devices.iter().filter_map(|(_, name)| Some(host.link(name)?.index));
        self.watched.tunnels = tunnels.collect();
        self.watched.links = self.watched.tunnels.iter().copied().chain([uplink.index]).collect();
        let names = devices.into_iter().map(|(_, name)| name);
        self.watched.names =
            names.chain([uplink.name.clone()]).chain(self.config.uplink.iface.clone()).collect();
        let networks = &self.config.net_conf.networks;
        self.watched.networks =
            [networks.v4.map(cidr_v4), networks.v6.map(cidr_v6)].into_iter().flatten().collect();
    }

    fn tell_underlay(&self, told: Underlay) {
        let complete = families(&self.config).all(|family| match family {
            Family::V4 => told.announcement.public_ips.v4.is_some(),
            Family::V6 => told.announcement.public_ips.v6.is_some(),
        });
        // Without an address of a family (the link flaps) there is nothing better to tell than before.
        self.underlay.send_if_modified(|before| {
            let changed = complete && *before != told;
            if changed {
                info!(uplink = told.uplink, public = ?told.announcement.public_ips, pod_mtu = told.pod_mtu, "the underlay changed");
                *before = told;
            }
            changed
        });
    }

    fn publish(&self, outcome: &Outcome, started: Instant) {
        let before = self.status.borrow().clone();
        let told = self.underlay.borrow();
        let status = Status {
            ready: before.ready || outcome.errors.is_empty(),
            uplink: Some(told.uplink.clone()),
            pod_mtu: Some(told.pod_mtu),
            passes: before.passes + 1,
            changes: before.changes + u64::from(outcome.changes > 0),
            last_pass: Some(SystemTime::now()),
            last_pass_ms: started.elapsed().as_millis() as u64,
            errors: outcome.errors.iter().map(ToString::to_string).collect(),
            peers: outcome.peers.clone(),
        };
        if outcome.changes > 0 {
            info!(changes = outcome.changes, ms = status.last_pass_ms, "made as it should be");
        }
        let known = before.problems();
        for problem in status.problems().iter().filter(|problem| !known.contains(problem)) {
            warn!("{problem}");
        }
        self.status.send_replace(status);
    }
}

/// Whether a first pass could begin; see [`Overlay::open`].
pub(super) fn check(
    config: &Config,
    host: &Host,
    uplink: &Uplink,
    told: &Underlay,
) -> Result<(), OverlayError> {
    let local = Node {
        name: String::new(),
        pod_cidrs: config.net_conf.networks,
        public_ips: told.announcement.public_ips,
        backend: told.announcement.backend,
    };
    for family in families(config) {
        let ground = Ground {
            backend: &config.net_conf.backend,
            network: family.pod_cidr(&local).expect("families() has those with a network"),
            uplink,
            local_ip: local_ip(family, uplink)?,
            mac: family.vtep(&local),
            blackhole: false,
            routes: host.routes(family),
        };
        if let Some(Plan { tunnel: Some(tunnel), .. }) = plan(family, &ground, &local, &[])? {
            link_changes(&tunnel, &host.links)?;
        }
    }
    Ok(())
}

fn nobody(peers: &[Node]) -> Vec<PeerStatus> {
    peers.iter().map(|peer| PeerStatus { node: peer.name.clone(), ipv4: None, ipv6: None }).collect()
}

fn describe_ways(plan: &Plan, peers: &mut [PeerStatus]) {
    for peer in &plan.peers {
        let (mode, error) = match &peer.way {
            Way::Tunnel { .. } => (Mode::Vxlan, None),
            Way::Gateway(_) => (Mode::Gateway, None),
            Way::None { why, .. } => (Mode::Unreachable, Some(why.clone())),
        };
        *path(&mut peers[peer.place], plan.family) = Some(PathStatus { mode, error });
    }
}

fn blame(peer: &mut PeerStatus, family: Family, why: String) {
    if let Some(path) = path(peer, family) {
        path.error = Some(why);
    }
}

fn path(peer: &mut PeerStatus, family: Family) -> &mut Option<PathStatus> {
    match family {
        Family::V4 => &mut peer.ipv4,
        Family::V6 => &mut peer.ipv6,
    }
}
