//! The passes over time: what wakes them, and what others may ask meanwhile.
//!
//! Notifications of all network namespaces are heard ([`Notifications::listen_everywhere`]), so a pod's address that
//! comes after its port wakes like everything else. Changes of legacy iptables are told by nobody; the slow resync sees
//! them.

use std::future::pending;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use corten_ebpf::datapath::Events;
use corten_netlink::route::Route;
use corten_netlink::{Event, NetlinkError, Notifications, RouteGroup};
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{sleep, sleep_until};
use tracing::{info, warn};

use super::events::{HEADER, Told};
use super::status::{Report, Status};
use super::{Fastpath, FastpathError, Input, Options};
use crate::net_conf::NetConf;
use crate::overlay::Underlay;
use crate::overlay::desired::ROUTE_PROTOCOL;
use crate::source::Snapshot;

/// Events that come together wake once.
const DEBOUNCE: Duration = Duration::from_millis(15);
/// After a pass at least this many times its CPU time passes until the next: a storm of events costs a third of a CPU
/// at most. (Most of a pass that attaches is waiting: tcx waits for an RCU grace period, some 20 ms.)
const REST: u32 = 2;
const RESYNC: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
/// Events that a slow reader of `drops` may be behind; it loses the oldest.
const BACKLOG: usize = 1024;
/// Events that are told between two looks at everything else.
const BATCH: usize = 256;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWGEN: u16 = 15;
const NFTA_TABLE_NAME: u16 = 1;

/// The fast path for the daemon: cheap to clone.
#[derive(Clone)]
pub struct Service {
    fastpath: Arc<Mutex<Fastpath>>,
    told: broadcast::Sender<Arc<Told>>,
}

struct Ears {
    /// Links and addresses, of all namespaces.
    pods: AsyncFd<Notifications>,
    routes: AsyncFd<Notifications>,
    /// `None`: no nf_tables.
    rules: Option<AsyncFd<Notifications>>,
}

impl Service {
    /// In the network namespace that the daemon serves.
    pub fn new(options: Options) -> Result<Self, NetlinkError> {
        let (told, _) = broadcast::channel(BACKLOG);
        Ok(Self { fastpath: Arc::new(Mutex::new(Fastpath::new(options)?)), told })
    }

    /// Passes for ever. Before the first input nothing is touched: what an earlier daemon left goes on.
    ///
    /// # Errors
    /// [`FastpathError::Refused`]: `fastpath = on`, and it cannot be. Notifications cannot be had.
    pub async fn run(&self, mut inputs: watch::Receiver<Option<Input>>) -> Result<(), FastpathError> {
        let mut ears = Ears::open()?;
        let mut events: Option<AsyncFd<Events>> = None;
        loop {
            ears.clear();
            let input = inputs.borrow_and_update().clone();
            let mut rest = Duration::ZERO;
            let again = match input {
                None => RESYNC,
                Some(input) => {
                    let (again, cpu_time) = self.pass(input, &mut events).await?;
                    rest = (cpu_time * REST).min(RETRY);
                    again
                }
            };
            let rested = tokio::time::Instant::now() + rest;
            tokio::select! {
                changed = inputs.changed() => if changed.is_err() { return Ok(()) },
                () = ears.wait() => {
                    sleep(DEBOUNCE).await;
                    sleep_until(rested).await;
                }
                () = self.tell(&mut events) => {}
                () = sleep(again) => {}
            }
        }
    }

    /// [`Service::run`] for what source and overlay tell, until they end.
    pub async fn follow(
        &self,
        conf: NetConf,
        mut nodes: watch::Receiver<Snapshot>,
        mut underlay: watch::Receiver<Underlay>,
    ) -> Result<(), FastpathError> {
        let (inputs, receiver) = watch::channel(None);
        let feed = async move {
            loop {
                let uplink = underlay.borrow_and_update().link;
                let input = Input::new(&conf, &nodes.borrow_and_update(), uplink);
                inputs.send_if_modified(|last| {
                    let news = last.as_ref() != Some(&input);
                    *last = Some(input);
                    news
                });
                let changed = tokio::select! {
                    changed = nodes.changed() => changed,
                    changed = underlay.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            outcome = self.run(receiver) => outcome,
            () = feed => Ok(()),
        }
    }

    /// One pass, on a thread that may block. When to look again without being woken, and the CPU time it took.
    async fn pass(
        &self,
        input: Input,
        events: &mut Option<AsyncFd<Events>>,
    ) -> Result<(Duration, Duration), FastpathError> {
        let fastpath = self.fastpath.clone();
        let pass = move || {
            let start = cpu_time();
            let mut fastpath = lock(&fastpath);
            let before = fastpath.status().clone();
            let result = fastpath.pass(&input).cloned();
            (before, result, fastpath.take_events(), cpu_time().saturating_sub(start))
        };
        let (before, result, new_events, cpu_time) =
            tokio::task::spawn_blocking(pass).await.map_err(io::Error::other)?;
        if let Some(new) = new_events {
            *events = Some(readable(new)?);
        }
        match result {
            Ok(status) => {
                if (before.on, &before.why) != (status.on, &status.why) || status.passes == 1 {
                    log_decision(&status);
                }
                // Tried again every second: said once.
                for error in status.errors.iter().filter(|error| !before.errors.contains(error)) {
                    warn!(%error, "fast path");
                }
                Ok((if status.errors.is_empty() { RESYNC } else { RETRY }, cpu_time))
            }
            Err(error @ FastpathError::Refused { .. }) => Err(error),
            Err(error) => {
                let told = error.to_string();
                if !before.errors.contains(&told) {
                    warn!("fast path: a pass failed and is tried again: {told}");
                }
                Ok((RETRY, cpu_time))
            }
        }
    }

    /// Passes events on to those who follow. Returns when the loop should look at everything else: never, unless the
    /// ring buffer is broken.
    async fn tell(&self, events: &mut Option<AsyncFd<Events>>) {
        let Some(reader) = events else { return pending().await };
        loop {
            let Ok(mut ready) = reader.readable_mut().await else { break };
            let mut batch = Vec::new();
            while batch.len() < BATCH
                && let Some(event) = ready.get_inner_mut().next()
            {
                batch.push(event);
            }
            if batch.len() < BATCH {
                ready.clear_ready();
            }
            let fastpath = lock(&self.fastpath);
            for event in batch {
                // Nobody follows: nothing is lost that anybody wanted.
                let _ = self.told.send(Arc::new(Told::new(&event, fastpath.link_names())));
            }
        }
        *events = None;
    }

    pub fn report(&self) -> Report {
        let fastpath = lock(&self.fastpath);
        Report::new(fastpath.status().clone(), fastpath.counters())
    }

    /// Lines of `corten-netd drops`, from now on, as long as the receiver lives. In a tokio runtime.
    pub fn drops(&self, json: bool) -> mpsc::Receiver<Bytes> {
        let (lines, receiver) = mpsc::channel(64);
        let mut told = self.told.subscribe();
        tokio::spawn(async move {
            if !json && lines.send(format!("{HEADER}\n").into()).await.is_err() {
                return;
            }
            loop {
                let line = tokio::select! {
                    () = lines.closed() => return,
                    told = told.recv() => match told {
                        Ok(told) if json => serde_json::to_string(&*told).unwrap_or_default(),
                        Ok(told) => told.to_string(),
                        Err(broadcast::error::RecvError::Lagged(_)) => continue,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                };
                if lines.send(format!("{line}\n").into()).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// Of this thread.
fn cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; these keep one descriptor for their whole lives, which is all it asks"
)]
fn readable<T: AsRawFd>(socket: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

fn lock(fastpath: &Mutex<Fastpath>) -> MutexGuard<'_, Fastpath> {
    // A pass that panicked left maps and links, which the next one reads anyway.
    fastpath.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log_decision(status: &Status) {
    if status.on {
        info!(endpoints = status.endpoints.len(), nodes = status.nodes.len(), "fast path is on");
        status.overrides.iter().for_each(|rule| warn!(%rule, "fast path goes past a rule of others"));
    } else {
        info!(why = status.why.join("; "), "fast path is off");
    }
}

impl Ears {
    fn open() -> Result<Self, FastpathError> {
        use RouteGroup::{Ipv4Addresses, Ipv4Routes, Ipv6Addresses, Ipv6Routes, Links};
        let pods = Notifications::route(&[Links, Ipv4Addresses, Ipv6Addresses])?;
        pods.listen_everywhere()?;
        let routes = Notifications::route(&[Ipv4Routes, Ipv6Routes])?;
        let rules = Notifications::nf_tables().ok().map(readable).transpose()?;
        Ok(Self { pods: readable(pods)?, routes: readable(routes)?, rules })
    }

    /// Takes what has arrived so far: the pass to come will see it.
    fn clear(&mut self) {
        let sockets = [Some(&mut self.pods), Some(&mut self.routes), self.rules.as_mut()];
        for socket in sockets.into_iter().flatten() {
            while socket.get_mut().read().is_ok_and(|events| !events.is_empty()) {}
        }
    }

    async fn wait(&mut self) {
        let rules = async {
            match &mut self.rules {
                Some(rules) => heard(rules).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = heard(&mut self.pods) => {}
            () = heard(&mut self.routes) => {}
            () = rules => {}
        }
    }
}

/// Returns when something that matters has arrived, or the socket is broken (the next pass will tell).
async fn heard(socket: &mut AsyncFd<Notifications>) {
    loop {
        let Ok(mut ready) = socket.readable_mut().await else { return };
        match ready.get_inner_mut().read() {
            Ok(events) if events.is_empty() => ready.clear_ready(),
            Ok(events) if events.iter().any(matters) => return,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Might this event change what a pass finds?
fn matters(event: &Event) -> bool {
    let Event::Changed { kind, body, .. } = event else { return true };
    match *kind {
        // Routes to pods are the overlay's own; those to nodes matter.
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
            Route::decode(body).is_none_or(|route| route.protocol != ROUTE_PROTOCOL)
        }
        kind if kind >> 8 == NFNL_SUBSYS_NFTABLES => {
            let table = || corten_netlink::message::Attributes::after(body, 4)?.string(NFTA_TABLE_NAME);
            kind & 0xff != NFT_MSG_NEWGEN
                && !table().is_some_and(|table| table.starts_with(super::foreign::OWN))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_netlink::Message;
    use corten_netlink::message::HEADER_LEN;

    fn nft(kind: u16, table: &str) -> Event {
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        let message = Message::new("", kind, 0, &[1, 0, 0, 0]).string(NFTA_TABLE_NAME, table);
        Event::Changed { kind, sender: 0, body: message.sealed(1, false)[HEADER_LEN..].to_vec() }
    }

    #[test]
    fn rules_of_others_wake_and_our_own_do_not() {
        assert!(matters(&nft(6, "filter")));
        assert!(!matters(&nft(6, "corten-services")));
        assert!(!matters(&nft(NFT_MSG_NEWGEN, "x")));
        assert!(matters(&Event::Lost));
    }

    #[test]
    fn routes_to_nodes_wake_and_those_to_pods_do_not() {
        let route = |protocol| {
            let route = Route { protocol, ..Route::to("10.244.2.0/24".parse().unwrap()) };
            let body =
                corten_netlink::route::encode::add_route(&route).sealed(1, false)[HEADER_LEN..].to_vec();
            Event::Changed { kind: libc::RTM_NEWROUTE, sender: 0, body }
        };
        assert!(matters(&route(2)));
        assert!(!matters(&route(ROUTE_PROTOCOL)));
    }
}
