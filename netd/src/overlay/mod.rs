//! The overlay: tunnel devices, neighbours, forwarding entries, routes and masquerade rules, kept as they should be.
//!
//! A level-triggered reconciler. Each pass reads what is ([`actual`]), computes what should be ([`desired`]), and
//! applies the difference ([`diff`], [`apply`], [`masquerade`]); notifications only start a pass ([`wake`]). Nothing is
//! remembered that the kernel knows, so a restart changes nothing that is right. Removed is only what is ours: the
//! device by its name, kind and VNI; routes by their protocol number inside the cluster's network; the one table.
//!
//! How a daemon uses it:
//!
//! ```text
//! let overlay = Overlay::open(config, source.remembered().await?)?;     // chooses the uplink; changes nothing
//! let underlay = overlay.underlay();                                    // watch: announcement, pod MTU, uplink
//! let status = overlay.status();                                        // watch: for /readyz and `status`
//! let local = source.acquire(&underlay.borrow().announcement).await?;
//! tokio::spawn(overlay.run(source.watch().await?));                     // until the snapshots end
//! // whenever `underlay` changes: acquire again; write subnet.env again if `pod_mtu` changed
//! ```
//!
//! [`Overlay::run`] gives an error only when its first pass meets something that waiting will not mend
//! ([`OverlayError::is_final`]); what that pass made is then undone. Later troubles are in the status and tried again.
//! The sockets belong to the network namespace of the thread that calls [`Overlay::open`]; the sysctls to that of the
//! thread that runs a pass.

pub mod actual;
pub mod apply;
pub mod desired;
pub mod diff;
mod error;
mod mac;
pub mod masquerade;
mod pass;
mod status;
mod sysctl;
pub mod uplink;
pub mod wake;

use std::time::Duration;

use corten_netlink::{Protocol, Socket};
use tokio::sync::watch;
use tracing::{info, warn};

use self::actual::Host;
use self::desired::Family;
use self::uplink::{Families, Survey, Uplink, UplinkError, UplinkOptions, choose};
use self::wake::{Ears, Watched};
use crate::net_conf::{BackendConf, NetConf};
use crate::node::{Backend, Dual};
use crate::source::{Announcement, Remembered, Snapshot};
use corten_netlink::route::Mac;

pub use error::OverlayError;
pub use status::{Mode, PathStatus, PeerStatus, Status, Underlay};

/// Changes come in groups: wait this long for the rest of one.
const DEBOUNCE: Duration = Duration::from_millis(20);
const DEBOUNCE_LAST: Duration = Duration::from_millis(250);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// What the daemon's options and net-conf.json say.
#[derive(Debug, Clone)]
pub struct Config {
    pub net_conf: NetConf,
    pub uplink: UplinkOptions,
    /// `--ip-masq`: translate what pods send out of the network.
    pub ip_masq: bool,
    /// Not `--ip-masq-fully-random-disable`.
    pub masq_fully_random: bool,
    /// `--iptables-forward-rules`: accept what is forwarded from and to the network.
    pub forward_rules: bool,
    /// `--ip-blackhole-route`: drop what goes to addresses of our pod CIDR that no pod has.
    pub blackhole_route: bool,
    /// A pass at least this often, though nothing was heard of (`--iptables-resync`).
    pub resync: Duration,
}

impl Config {
    /// flanneld's defaults.
    pub fn new(net_conf: NetConf) -> Self {
        Self {
            net_conf,
            uplink: UplinkOptions::default(),
            ip_masq: false,
            masq_fully_random: true,
            forward_rules: true,
            blackhole_route: false,
            resync: Duration::from_secs(5),
        }
    }

    fn families(&self) -> Families {
        Families { v4: self.net_conf.networks.v4.is_some(), v6: self.net_conf.networks.v6.is_some() }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Overlay {
    config: Config,
    route: Socket,
    netfilter: Socket,
    ears: Option<Ears>,
    /// Of the tunnel devices; chosen before the node is announced, kept when a device is made again.
    macs: Dual<Mac, Mac>,
    /// The uplink of the last pass.
    former: Option<u32>,
    /// Devices made by the first pass.
    created: Vec<String>,
    watched: Watched,
    underlay: watch::Sender<Underlay>,
    status: watch::Sender<Status>,
}

impl Overlay {
    /// Chooses the uplink and the tunnels' MACs: those the source remembers, else those of the devices that are there,
    /// else drawn at random. Changes nothing.
    ///
    /// # Errors
    /// What is in the way already now: no uplink, no address, a foreign device, no nf_tables, no privileges.
    pub fn open(mut config: Config, remembered: Remembered) -> Result<Self, OverlayError> {
        let told = &mut config.uplink.public_ips;
        *told = Dual { v4: remembered.public_ips.v4.or(told.v4), v6: remembered.public_ips.v6.or(told.v6) };
        let ears = Ears::open().map_err(apply::explain)?;
        let mut route = Socket::open(Protocol::Route)?;
        let mut netfilter = Socket::open(Protocol::Netfilter)?;
        let own_ports = vec![route.port()?, netfilter.port()?];
        probe_nf_tables(&mut netfilter)?;
        let host = Host::dump(&mut route)?;
        let devices = devices(&config);
        let former = devices.iter().find_map(|(_, name)| host.link(name)?.vxlan?.link);
        let uplink = find_uplink(&mut route, &config, &host, former)?;
        let macs = Dual {
            v4: mac::choose(&host, remembered.vtep.v4, &devices, Family::V4)?,
            v6: mac::choose(&host, remembered.vtep.v6, &devices, Family::V6)?,
        };
        let underlay = underlay(&config, &uplink, macs);
        pass::check(&config, &host, &uplink, &underlay)?;
        info!(uplink = uplink.name, public = ?uplink.public_ips, pod_mtu = underlay.pod_mtu, "overlay");
        Ok(Self {
            config,
            route,
            netfilter,
            ears: Some(ears),
            macs,
            former: Some(uplink.index),
            created: Vec::new(),
            watched: Watched { own_ports, ..Watched::default() },
            underlay: watch::Sender::new(underlay),
            status: watch::Sender::new(Status::default()),
        })
    }

    /// Where this node stands; changes when the uplink does.
    pub fn underlay(&self) -> watch::Receiver<Underlay> {
        self.underlay.subscribe()
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Passes as long as there are snapshots; leaves everything as it is when they end.
    ///
    /// # Errors
    /// Of the first pass alone, when waiting would not help.
    pub async fn run(mut self, mut snapshots: watch::Receiver<Snapshot>) -> Result<(), OverlayError> {
        let ears = self.ears.take().expect("run() takes the overlay, so there is no second one");
        let mut listener = ears.listen().map_err(OverlayError::Wait)?;
        let mut first = true;
        let mut retry = RETRY_FIRST;
        loop {
            listener.clear();
            // A copy: whoever publishes the next one would wait for the pass, and all who look at this one behind him.
            let snapshot = snapshots.borrow_and_update().clone();
            let outcome = self.pass(&snapshot);
            let pause = match outcome {
                Err(error) if first && error.is_final() => {
                    self.undo();
                    return Err(error);
                }
                Err(_) => {
                    let pause = retry;
                    retry = (retry * 2).min(RETRY_LAST);
                    pause.min(self.config.resync.max(RETRY_FIRST))
                }
                Ok(()) => {
                    retry = RETRY_FIRST;
                    self.config.resync
                }
            };
            first = false;
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() {
                    return Ok(());
                },
                heard = listener.wait(&self.watched) => heard.map_err(OverlayError::Wait)?,
                () = tokio::time::sleep(pause) => continue,
            }
            // However much happens, half of one CPU is enough.
            let last = Duration::from_millis(self.status.borrow().last_pass_ms);
            tokio::time::sleep(last.clamp(DEBOUNCE, DEBOUNCE_LAST)).await;
        }
    }

    /// Takes away the devices that the first pass made.
    fn undo(&mut self) {
        for name in std::mem::take(&mut self.created) {
            if let Err(error) = apply::delete_link(&mut self.route, &name) {
                warn!("undo: {error}");
            }
        }
    }
}

fn probe_nf_tables(netfilter: &mut Socket) -> Result<(), OverlayError> {
    netfilter.nft_probe().map_err(|source| match apply::explain(source) {
        OverlayError::Netlink(source) => OverlayError::NoNfTables { source },
        error => error,
    })
}

/// The names of the tunnel devices that the configuration wants.
fn devices(config: &Config) -> Vec<(Family, String)> {
    let BackendConf::Vxlan(conf) = &config.net_conf.backend else { return Vec::new() };
    families(config).map(|family| (family, family.device(conf.vni))).collect()
}

/// The families that are used.
fn families(config: &Config) -> impl Iterator<Item = Family> + use<> {
    let Families { v4, v6 } = config.families();
    [(v4, Family::V4), (v6, Family::V6)].into_iter().filter(|(used, _)| *used).map(|(_, family)| family)
}

fn find_uplink(
    route: &mut Socket,
    config: &Config,
    host: &Host,
    former: Option<u32>,
) -> Result<Uplink, OverlayError> {
    let reaching = match config.uplink.iface_can_reach {
        Some(address) => route.link_towards(address)?,
        None => None,
    };
    let routes: Vec<_> = host.routes_v4.iter().chain(&host.routes_v6).copied().collect();
    let survey = Survey { links: &host.links, addresses: &host.addresses, routes: &routes, reaching, former };
    Ok(choose(&config.uplink, config.families(), &survey)?)
}

fn underlay(config: &Config, uplink: &Uplink, macs: Dual<Mac, Mac>) -> Underlay {
    let backend = &config.net_conf.backend;
    let mtus = families(config).map(|family| desired::pod_mtu(family, backend, uplink));
    Underlay {
        uplink: uplink.name.clone(),
        link: uplink.index,
        pod_mtu: mtus.min().unwrap_or(uplink.mtu),
        announcement: Announcement {
            public_ips: uplink.public_ips,
            backend: match backend {
                BackendConf::HostGw => Backend::HostGw,
                BackendConf::Vxlan(conf) => Backend::Vxlan { vni: conf.vni, vtep: macs },
            },
        },
    }
}

/// The uplink's own address of a family.
fn local_ip(family: Family, uplink: &Uplink) -> Result<std::net::IpAddr, OverlayError> {
    let address = match family {
        Family::V4 => uplink.addresses.v4.map(Into::into),
        Family::V6 => uplink.addresses.v6.map(Into::into),
    };
    let missing = || UplinkError::NoAddress { link: uplink.name.clone(), family: family.name() };
    Ok(address.ok_or_else(missing)?)
}
