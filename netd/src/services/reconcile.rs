//! Keeps the kernel as the last model says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corten_ebpf::socket::{self as sockets, SocketError};
use corten_netlink::NetlinkError;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::health::HealthChecks;
use super::host;
use super::maps::{Applier, desired};
use super::model::{Family, Model};
use super::nft::stale::Udp;
use super::nft::{KernelTable, Settings, render};
use super::source::Snapshot;
use super::status::{Mode, SHOWN, Status};
use super::wake::{Ears, Heard};

/// Changes come in groups: wait this long for the rest of one.
const DEBOUNCE: Duration = Duration::from_millis(20);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Config {
    pub settings: Settings,
    /// `Err`: why Services are not served at sockets.
    pub sockets: Result<sockets::Options, String>,
    /// A pass at least this often, though nothing was heard of.
    pub resync: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    #[error("Services by nf_tables: {0}")]
    Table(#[source] NetlinkError),
    #[error("Services: wait for changes: {0}")]
    Wait(#[source] std::io::Error),
    #[error("Services at sockets: {0}")]
    Sockets(#[source] SocketError),
}

/// See [`super`]'s text.
pub struct Services {
    settings: Settings,
    resync: Duration,
    table: KernelTable,
    sockets: Option<Applier>,
    ears: Option<Ears>,
    health: HealthChecks,
    /// What the last good pass put in force.
    last: Option<(Arc<Model>, BTreeSet<IpAddr>)>,
    /// Frontends that the programs did not take last: said once.
    refused: BTreeSet<String>,
    status: watch::Sender<Status>,
}

impl Services {
    /// Loads what is needed; changes nothing. When the programs for sockets cannot be had, nf_tables serves everybody, and
    /// the status says why.
    ///
    /// # Errors
    /// No nf_tables, or no privileges.
    pub fn open(config: Config) -> Result<Self, ServicesError> {
        let table = KernelTable::open().map_err(ServicesError::Table)?;
        let ears = Ears::open().map_err(ServicesError::Table)?;
        let opened = config.sockets.and_then(|options| Applier::open(options).map_err(|e| e.to_string()));
        let (sockets, mode) = match opened {
            Ok(applier) => (Some(applier), Mode::SocketsAndPackets),
            Err(why) => {
                info!("Services by nf_tables alone: {why}");
                (None, Mode::PacketsOnly { why })
            }
        };
        Ok(Self {
            settings: config.settings,
            resync: config.resync,
            table,
            sockets,
            ears: Some(ears),
            health: HealthChecks::default(),
            last: None,
            refused: BTreeSet::new(),
            status: watch::Sender::new(Status::new(mode)),
        })
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Passes as long as there are snapshots; leaves everything as it is when they end.
    ///
    /// # Errors
    /// Only when changes can no longer be waited for. What a pass cannot do is in the status and tried again.
    pub async fn run(mut self, mut snapshots: watch::Receiver<Snapshot>) -> Result<(), ServicesError> {
        let ears = self.ears.take().expect("run() takes the Services, so there is no second one");
        let mut listener = ears.listen().map_err(ServicesError::Wait)?;
        let own = self.table.port().map_err(ServicesError::Table)?;
        let mut retry = RETRY_FIRST;
        let mut resync = Instant::now() + self.resync;
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            let next = if self.pass(&snapshot) {
                retry = RETRY_FIRST;
                resync
            } else {
                retry = (retry * 2).min(RETRY_LAST);
                Instant::now() + retry
            };
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() {
                    return Ok(());
                },
                heard = listener.wait(own) => if heard.map_err(ServicesError::Wait)? == Heard::Table {
                    self.table.forget();
                },
                () = tokio::time::sleep_until(next) => {
                    if Instant::now() >= resync {
                        resync = Instant::now() + self.resync;
                        self.last = None;
                        if self.table.distrust().is_err() {
                            self.table.forget();
                        }
                    }
                    continue;
                }
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    /// False: something is left to do.
    fn pass(&mut self, snapshot: &Snapshot) -> bool {
        let mut status = self.status.borrow().clone();
        status.source_fault.clone_from(&snapshot.fault);
        let Some(model) = &snapshot.model else {
            self.status.send_replace(status);
            return true;
        };
        let errors = self.put_in_force(model, &mut status);
        status.done.passes += 1;
        status.done.failures += u64::from(!errors.is_empty());
        for error in errors.iter().filter(|error| !status.errors.contains(error)) {
            warn!("{error}");
        }
        let done = errors.is_empty();
        status.errors = errors;
        status.in_force = done;
        self.status.send_replace(status);
        done
    }

    /// Sockets, packets, flows, health checks; what fails keeps nothing else from being done.
    fn put_in_force(&mut self, model: &Arc<Model>, status: &mut Status) -> Vec<String> {
        let mut errors = Vec::new();
        let addresses: BTreeSet<IpAddr> = match self.table.addresses() {
            Ok(addresses) => addresses.into_iter().collect(),
            Err(error) => return vec![error.to_string()],
        };
        let same_model = self.last.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, model));
        let same_addresses = self.last.as_ref().is_some_and(|(_, last)| *last == addresses);
        self.last = None;
        if !same_model || !same_addresses {
            self.at_sockets(model, &addresses, status, &mut errors);
        }
        if !same_model || !self.table.is_known() {
            match self.table.apply(render(model, &self.settings)) {
                Ok(applied) => {
                    status.done.elements += applied.elements as u64;
                    status.done.tables += u64::from(applied.rebuilt);
                    if applied.rebuilt {
                        info!(elements = applied.elements, "made the table of Services");
                    }
                }
                Err(error) => errors.push(format!("Services by nf_tables: {error}")),
            }
        }
        match self.table.forget_stale_flows(Udp::of(model)) {
            Ok(flows) => status.done.flows += flows as u64,
            Err(error) => errors.push(format!("forget UDP flows of Services: {error}")),
        }
        errors.extend(self.health.serve(&model.health_checks));
        describe(model, status);
        let served = |family: &Family| model.frontends().any(|(_, f)| f.key.at.family() == *family);
        let families: Vec<_> = Family::BOTH.into_iter().filter(served).collect();
        status.warnings = host::warnings(Path::new("/proc/sys/net"), &families, &status.mode);
        if errors.is_empty() {
            self.last = Some((model.clone(), addresses));
        }
        errors
    }

    fn at_sockets(
        &mut self,
        model: &Model,
        addresses: &BTreeSet<IpAddr>,
        status: &mut Status,
        errors: &mut Vec<String>,
    ) {
        let Some(applier) = &mut self.sockets else { return };
        let addresses: Vec<_> = addresses.iter().copied().collect();
        match applier.apply(&desired(model, &addresses)) {
            Ok(applied) => {
                status.mode = Mode::SocketsAndPackets;
                status.done.ended += applied.ended as u64;
                let refused: BTreeSet<String> = applied.refused.into_iter().collect();
                for refused in refused.difference(&self.refused) {
                    warn!("not served at sockets: {refused}");
                }
                self.refused = refused;
            }
            Err(error) => {
                status.mode = Mode::PacketsOnly { why: error.to_string() };
                errors.push(format!("Services at sockets: {error}"));
            }
        }
        if let Ok(counters) = applier.counters() {
            status.count_sockets(counters);
        }
    }
}

fn describe(model: &Model, status: &mut Status) {
    status.services = model.service_count();
    status.frontends = model.frontends().count();
    status.endpoints = model.endpoint_count();
    status.refused = model.refusals.iter().take(SHOWN).map(ToString::to_string).collect();
    status.refused_total = model.refusals.len();
}

/// Takes away what an earlier run left standing, for a daemon that serves no Services: the table of this thread's network
/// namespace, and the programs pinned below `pin_directory`. What is not there is no error.
pub fn remove(pin_directory: &Path) -> Result<(), ServicesError> {
    KernelTable::open().and_then(|mut table| table.remove()).map_err(ServicesError::Table)?;
    sockets::remove(pin_directory).map_err(ServicesError::Sockets)
}
