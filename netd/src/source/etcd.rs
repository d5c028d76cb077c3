//! etcd as flannel uses it: `PREFIX/config` and one key with a lease of 24 h for each node ([`super::lease`]).
//!
//! A node finds its subnet again by its public address, else by subnet.env, else takes a free one in a transaction that
//! fails when somebody was faster. Its lease is renewed a margin before its end. A watch follows the others; when etcd
//! has forgotten what was missed (compaction) all are listed anew. A lease that is gone is the end: another node may
//! have the subnet by now.
//! Source: flannel `pkg/subnet/etcd/local_manager.go`, `registry.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corten_etcd::{
    Change, Client, Compare, Config, EtcdError, KeyRange, LeaseId, Op, Put, Revision, Tls, Txn, Watch,
    Watcher,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use ipnetwork::{Ipv4Network, Ipv6Network};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::admit::admit_found;
use super::allocate::{Pool, Span};
use super::lease::{self, key, parse_key, value};
use super::{Announcement, LeftOut, NodeSource, Remembered, Snapshot, SourceError, local_node, publish};
use crate::net_conf::NetConf;
use crate::node::{Dual, Node, PodCidrs};
use crate::options::EtcdOptions;

const LEASE: Duration = Duration::from_hours(24);
/// How often another node may be faster.
const RACES: usize = 10;
const PAGE: u32 = 1000;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Upstream's pause after a renewal that failed.
const RENEW_RETRY: Duration = Duration::from_mins(1);

pub struct EtcdSource {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    name: String,
    /// Without a slash at its end.
    prefix: String,
    conf: NetConf,
    pools: Dual<Pool, Pool>,
    /// Of an earlier run.
    previous: PodCidrs,
    lease: Duration,
    margin: Duration,
    own: watch::Sender<Option<Own>>,
}

/// What this node holds.
#[derive(Debug, Clone)]
struct Own {
    key: String,
    node: Node,
    /// `None`: a reservation, which an administrator made and which never ends.
    lease: Option<(LeaseId, Instant)>,
}

/// A key that is there.
#[derive(Debug, Clone)]
struct Found {
    key: String,
    cidrs: PodCidrs,
    node: Result<Node, String>,
    lease: Option<LeaseId>,
    revision: Revision,
}

impl EtcdSource {
    /// What it is, for people.
    pub fn describe(options: &EtcdOptions) -> String {
        format!("etcd {} at {}", options.prefix, options.endpoints.join(","))
    }

    /// Connects and reads the configuration. `previous`: what subnet.env says this node had.
    pub async fn connect(options: &EtcdOptions, previous: PodCidrs) -> Result<Self, SourceError> {
        Self::connect_with(options, previous, LEASE).await
    }

    async fn connect_with(
        options: &EtcdOptions,
        previous: PodCidrs,
        lease: Duration,
    ) -> Result<Self, SourceError> {
        let name = Self::describe(options);
        let config = Config {
            tls: Tls { ca: options.cafile.clone(), identity: options.identity.clone() },
            user: options.user.clone(),
            ..Config::new(&options.endpoints)
        };
        let at = |tried: &str| {
            let (place, tried) = (name.clone(), tried.to_owned());
            move |error: EtcdError| server(place, tried, &error)
        };
        let client = Client::connect(&config).await.map_err(at("connect"))?;
        let prefix = options.prefix.trim_end_matches('/').to_owned();
        let key = format!("{prefix}/config");
        let text = client.get(key.as_str()).await.map_err(at("read the network's configuration"))?;
        let text = text.ok_or_else(|| SourceError::Server {
            place: name.clone(),
            tried: format!("read {key}"),
            problem: format!(
                "there is no such key; put net-conf.json there (etcdctl put {key} '{{\"Network\": ...}}')"
            ),
            passes: true,
        })?;
        let place = format!("key {key} of etcd");
        let conf: NetConf = String::from_utf8_lossy(&text.value)
            .parse()
            .map_err(|error| SourceError::NetConf { place: place.clone(), error })?;
        let pools = pools(&conf).map_err(|problem| SourceError::Invalid { place, problem })?;
        let shared = Shared {
            client,
            name,
            prefix,
            conf,
            pools,
            previous,
            lease,
            margin: options.renew_margin.min(lease),
            own: watch::Sender::new(None),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn server(place: String, tried: String, error: &EtcdError) -> SourceError {
    SourceError::Server { place, tried, problem: error.to_string(), passes: error.passes() }
}

fn pools(conf: &NetConf) -> Result<Dual<Pool, Pool>, String> {
    let v4 = conf.networks.v4.zip(conf.subnets.v4).map(|(network, keys)| Pool::v4(network, &keys));
    let v6 = conf.networks.v6.zip(conf.subnets.v6).map(|(network, keys)| Pool::v6(network, &keys));
    Ok(Dual { v4: v4.transpose()?, v6: v6.transpose()? })
}

impl NodeSource for EtcdSource {
    fn name(&self) -> String {
        self.shared.name.clone()
    }

    fn net_conf(&self) -> &NetConf {
        &self.shared.conf
    }

    /// Leases have no owner but an address, so a MAC found there may be another node's.
    fn remembered(&self) -> BoxFuture<'_, Result<Remembered, SourceError>> {
        std::future::ready(Ok(Remembered::default())).boxed()
    }

    fn acquire<'a>(&'a self, announcement: &'a Announcement) -> BoxFuture<'a, Result<Node, SourceError>> {
        async move {
            let own = self.shared.acquire(announcement).await?;
            let node = own.node.clone();
            self.shared.own.send_replace(Some(own));
            Ok(node)
        }
        .boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<watch::Receiver<Snapshot>, SourceError>> {
        async move {
            let mut follower = Follower::new(self.shared.clone());
            follower.list().await.map_err(|error| self.shared.failed("list the subnets", &error))?;
            let first = follower.snapshot(None, None);
            let (sender, receiver) = publish::channel(first);
            tokio::spawn(follower.run(sender));
            Ok(receiver)
        }
        .boxed()
    }

    fn network_is_up(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// What to do for a subnet. Pure: [`choose`].
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// This one (its place in the list) is ours.
    Keep(usize),
    /// This one is ours and fits the network no longer.
    Drop(usize),
    Take(PodCidrs),
    Exhausted,
}

/// `own`: the key held now; else the one with our public address is ours, as flannel has it.
fn choose(
    pools: &Dual<Pool, Pool>,
    found: &[Found],
    own: Option<&str>,
    announcement: &Announcement,
    previous: PodCidrs,
) -> Choice {
    let told = lease::name(announcement.public_ips);
    let is_ours = |found: &Found| match own {
        Some(own) => found.key == own,
        None => found.node.as_ref().is_ok_and(|node| Some(&node.name) == told.as_ref()),
    };
    let mut ours = found.iter().enumerate().filter(|(_, found)| is_ours(found));
    let first = ours.next();
    if let Some((place, _)) = first.into_iter().chain(ours).find(|(_, found)| fits(pools, found.cidrs)) {
        return Choice::Keep(place);
    }
    if let Some((place, _)) = first {
        return Choice::Drop(place);
    }
    let taken = |span: fn(PodCidrs) -> Option<Span>| -> Vec<Span> {
        found.iter().filter_map(|found| span(found.cidrs)).collect()
    };
    let (v4, v6) = (taken(span_v4), taken(span_v6));
    let is_free = |taken: &[Span], span: Option<Span>| {
        span.is_none_or(|(first, last)| taken.iter().all(|other| other.1 < first || other.0 > last))
    };
    if fits(pools, previous) && is_free(&v4, span_v4(previous)) && is_free(&v6, span_v6(previous)) {
        return Choice::Take(previous);
    }
    // Nodes that start together want different ones; a node that starts again wants the same.
    let seed =
        told.unwrap_or_default().bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
    let pick = |pool: Option<&Pool>, taken: &[Span]| match pool {
        None => Some(None),
        Some(pool) => {
            let free = pool.free(taken);
            (!free.is_empty()).then(|| Some((free[seed % free.len()].0, pool.prefix_len())))
        }
    };
    let (Some(v4), Some(v6)) = (pick(pools.v4.as_ref(), &v4), pick(pools.v6.as_ref(), &v6)) else {
        return Choice::Exhausted;
    };
    Choice::Take(PodCidrs {
        v4: v4
            .map(|(first, len)| Ipv4Network::new((first as u32).into(), len).expect("a length of the pool")),
        v6: v6.map(|(first, len)| Ipv6Network::new(first.into(), len).expect("a length of the pool")),
    })
}

fn fits(pools: &Dual<Pool, Pool>, cidrs: PodCidrs) -> bool {
    let one = |pool: Option<&Pool>, span: Option<Span>| match (pool, span) {
        (Some(pool), Some(span)) => pool.has(span),
        (None, None) => true,
        _ => false,
    };
    one(pools.v4.as_ref(), span_v4(cidrs)) && one(pools.v6.as_ref(), span_v6(cidrs))
}

fn span_v4(cidrs: PodCidrs) -> Option<Span> {
    cidrs.v4.map(|cidr| (u32::from(cidr.network()).into(), u32::from(cidr.broadcast()).into()))
}

fn span_v6(cidrs: PodCidrs) -> Option<Span> {
    cidrs.v6.map(|cidr| (cidr.network().into(), cidr.broadcast().into()))
}

impl Shared {
    fn failed(&self, tried: &str, error: &EtcdError) -> SourceError {
        server(self.name.clone(), tried.to_owned(), error)
    }

    fn subnets(&self) -> String {
        format!("{}/subnets/", self.prefix)
    }

    /// All leases, and the store's revision.
    async fn found(&self) -> Result<(Vec<Found>, Revision), EtcdError> {
        let prefix = self.subnets();
        let page = self.client.range_all(KeyRange::prefix(prefix.as_str()), PAGE).await?;
        let found = page.kvs.iter().filter_map(|kv| {
            let found = found(&prefix, &kv.key, &kv.value)?;
            Some(Found { lease: kv.lease, revision: kv.mod_revision, ..found })
        });
        Ok((found.collect(), page.revision))
    }

    async fn acquire(&self, announcement: &Announcement) -> Result<Own, SourceError> {
        let at = |tried: &'static str| move |error: EtcdError| self.failed(tried, &error);
        let held = self.own.borrow().as_ref().map(|own| own.key.clone());
        for _ in 0..RACES {
            let (found, _) = self.found().await.map_err(at("list the subnets"))?;
            match choose(&self.pools, &found, held.as_deref(), announcement, self.previous) {
                Choice::Keep(place) => {
                    let own = self.keep(&found[place], announcement).await.map_err(at("renew the lease"))?;
                    if let Some(own) = own {
                        return self.own(own.0, found[place].cidrs, own.1, announcement);
                    }
                }
                Choice::Drop(place) => {
                    let key = &found[place].key;
                    warn!(
                        key,
                        "this node's lease does not fit the network's configuration any more; dropping it"
                    );
                    let keys = KeyRange::one(key.as_str());
                    self.client.delete(&keys, false).await.map_err(at("delete the old lease"))?;
                }
                Choice::Take(cidrs) => {
                    if let Some(own) = self.take(cidrs, announcement).await.map_err(at("take a subnet"))? {
                        return self.own(own.0, cidrs, own.1, announcement);
                    }
                }
                Choice::Exhausted => {
                    let ranges = [
                        self.conf.networks.v4.map(|network| network.to_string()),
                        self.conf.networks.v6.map(|network| network.to_string()),
                    ];
                    let network = ranges.into_iter().flatten().collect::<Vec<_>>().join(" ");
                    return Err(SourceError::Exhausted { network, nodes: found.len() });
                }
            }
        }
        Err(SourceError::Server {
            place: self.name.clone(),
            tried: "take a subnet".into(),
            problem: format!("another node was faster {RACES} times"),
            passes: true,
        })
    }

    fn own(
        &self,
        key: String,
        cidrs: PodCidrs,
        lease: Option<(LeaseId, Instant)>,
        announcement: &Announcement,
    ) -> Result<Own, SourceError> {
        let name = lease::name(announcement.public_ips).unwrap_or_default();
        let node = local_node(&self.conf, &name, &self.name, cidrs, announcement)?;
        Ok(Own { key, node, lease })
    }

    /// Renews what is ours and tells what is new. `None`: it was changed meanwhile.
    async fn keep(
        &self,
        found: &Found,
        announcement: &Announcement,
    ) -> Result<Option<(String, Option<(LeaseId, Instant)>)>, EtcdError> {
        let lease = match found.lease {
            None => None,
            Some(id) => match self.client.keep_alive(id).await {
                Ok(lease) => Some(lease),
                // It ends right now; the key may be there still.
                Err(EtcdError::NoLease(_)) => Some(self.client.grant(self.lease).await?),
                Err(error) => return Err(error),
            },
        };
        let until = lease.map(|lease| (lease.id, Instant::now() + lease.ttl));
        let key = found.key.as_bytes();
        let put = Put::new(key, value(announcement)).lease(lease.map(|lease| lease.id));
        let txn = Txn {
            when: vec![Compare::ModRevision(key.to_vec(), found.revision)],
            then: vec![Op::Put(put)],
            otherwise: Vec::new(),
        };
        let done = self.client.txn(txn).await?;
        if done.succeeded {
            info!(key = found.key, "lease found and renewed");
        }
        Ok(done.succeeded.then(|| (found.key.clone(), until)))
    }

    /// `None`: somebody was faster.
    async fn take(
        &self,
        cidrs: PodCidrs,
        announcement: &Announcement,
    ) -> Result<Option<(String, Option<(LeaseId, Instant)>)>, EtcdError> {
        let key = format!("{}{}", self.subnets(), key(cidrs));
        let lease = self.client.grant(self.lease).await?;
        let txn = Txn {
            when: vec![Compare::Absent(key.clone().into_bytes())],
            then: vec![Op::Put(Put::new(key.as_str(), value(announcement)).lease(Some(lease.id)))],
            otherwise: Vec::new(),
        };
        let done = self.client.txn(txn).await;
        if let Ok(answer) = &done
            && answer.succeeded
        {
            info!(key, "lease taken");
            return Ok(Some((key, Some((lease.id, Instant::now() + lease.ttl)))));
        }
        // Also when it is unknown whether it was done: without the lease the key goes too.
        if let Err(error) = self.client.revoke(lease.id).await {
            warn!("cannot revoke lease {}: {error}; it ends in {:?}", lease.id, lease.ttl);
        }
        done.map(|_| None)
    }
}

/// `None` for keys that are no leases.
fn found(prefix: &str, key: &[u8], value: &[u8]) -> Option<Found> {
    let key = std::str::from_utf8(key).ok()?;
    let cidrs = parse_key(key.strip_prefix(prefix)?)?;
    let node = lease::node(cidrs, value);
    Some(Found { key: key.to_owned(), cidrs, node, lease: None, revision: 0 })
}

/// Keeps the list of nodes and the own lease.
struct Follower {
    shared: Arc<Shared>,
    own: watch::Receiver<Option<Own>>,
    leases: BTreeMap<String, Found>,
    revision: Revision,
}

/// Why following has ended.
enum End {
    /// Nobody listens any more.
    Unheard,
    Revoked,
}

impl Follower {
    fn new(shared: Arc<Shared>) -> Self {
        let own = shared.own.subscribe();
        Self { shared, own, leases: BTreeMap::new(), revision: 0 }
    }

    async fn list(&mut self) -> Result<(), EtcdError> {
        let (found, revision) = self.shared.found().await?;
        self.leases = found.into_iter().map(|found| (found.key.clone(), found)).collect();
        self.revision = revision;
        Ok(())
    }

    fn held(&self) -> Own {
        self.own.borrow().clone().expect("watch comes after acquire")
    }

    fn snapshot(&self, previous: Option<&Snapshot>, fault: Option<String>) -> Snapshot {
        let own = self.held();
        let mut names = std::collections::HashSet::new();
        let others =
            self.leases.values().filter(|found| found.key != own.key).map(|found| match &found.node {
                Err(why) => Err(LeftOut::new(&found.key, why)),
                Ok(node) if names.insert(node.name.clone()) => Ok(node.clone()),
                // Two leases of one address: the key tells them apart.
                Ok(node) => Ok(Node { name: format!("{} ({})", node.name, found.key), ..node.clone() }),
            });
        let mut snapshot = admit_found(&self.shared.conf, own.node.clone(), previous, others);
        snapshot.fault = fault;
        snapshot
    }

    fn publish(&self, sender: &watch::Sender<Snapshot>, fault: Option<String>) {
        publish::publish(sender, |previous| self.snapshot(Some(previous), fault));
    }

    async fn run(mut self, sender: watch::Sender<Snapshot>) {
        let mut pause = RETRY_FIRST;
        loop {
            let ended = match self.open().await {
                Ok(watcher) => {
                    self.publish(&sender, None);
                    pause = RETRY_FIRST;
                    self.follow(watcher, &sender).await
                }
                Err(error) => Err(error),
            };
            let error = match ended {
                Ok(End::Unheard) => return,
                // Dropping the sender tells it.
                Ok(End::Revoked) => {
                    return error!(key = self.held().key, "the lease of this node's subnet is gone");
                }
                Err(error) => error,
            };
            let compacted = matches!(error, EtcdError::Compacted { .. } | EtcdError::Future);
            let listed = if compacted { self.list().await } else { Err(error) };
            match listed {
                Ok(()) => info!("etcd has forgotten what was missed; listed all nodes anew"),
                Err(error) => {
                    self.publish(
                        &sender,
                        Some(format!("{}: {error}; the last list stays", self.shared.name)),
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LAST);
                }
            }
            if sender.is_closed() {
                return;
            }
        }
    }

    async fn open(&self) -> Result<Watcher, EtcdError> {
        let mut watch = Watch::new(KeyRange::prefix(self.shared.subnets()));
        watch.start = Some(self.revision + 1);
        self.shared.client.watch(watch).await
    }

    /// Until the watch breaks.
    async fn follow(
        &mut self,
        mut watcher: Watcher,
        sender: &watch::Sender<Snapshot>,
    ) -> Result<End, EtcdError> {
        let mut renew_at = self.renewal();
        loop {
            // Found when listing: nobody would tell of its deletion.
            if !self.leases.contains_key(&self.held().key) {
                return Ok(End::Revoked);
            }
            let renew = async {
                match renew_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sender.closed() => return Ok(End::Unheard),
                changes = watcher.next() => {
                    let changes = changes?;
                    for change in changes.changes {
                        self.apply(change);
                    }
                    self.revision = changes.revision;
                }
                changed = self.own.changed() => {
                    if changed.is_err() {
                        return Ok(End::Unheard);
                    }
                    renew_at = self.renewal();
                    // A new key of ours is told by the watch too, but maybe later.
                    let held = self.held();
                    let found = Found {
                        key: held.key.clone(),
                        cidrs: held.node.pod_cidrs,
                        node: Ok(held.node),
                        lease: None,
                        revision: 0,
                    };
                    self.leases.insert(held.key, found);
                }
                () = renew => match self.renew().await {
                    Ok(at) => renew_at = at,
                    Err(EtcdError::NoLease(_)) => return Ok(End::Revoked),
                    Err(error) => {
                        warn!("cannot renew the lease of this node's subnet: {error}");
                        renew_at = Some(Instant::now() + RENEW_RETRY.min(self.shared.lease / 10));
                    }
                },
            }
            self.publish(sender, None);
        }
    }

    fn apply(&mut self, change: Change) {
        let prefix = self.shared.subnets();
        match change {
            Change::Put { kv, .. } => {
                if let Some(found) = found(&prefix, &kv.key, &kv.value) {
                    self.leases.insert(found.key.clone(), found);
                }
            }
            Change::Delete { key, .. } => {
                self.leases.remove(&*String::from_utf8_lossy(&key));
            }
        }
    }

    /// When the own lease is to be renewed.
    fn renewal(&self) -> Option<Instant> {
        let (_, ends) = self.held().lease?;
        Some(ends.checked_sub(self.shared.margin).unwrap_or_else(Instant::now))
    }

    async fn renew(&self) -> Result<Option<Instant>, EtcdError> {
        let Some((id, _)) = self.held().lease else { return Ok(None) };
        let lease = self.shared.client.keep_alive(id).await?;
        info!("lease renewed for {:?}", lease.ttl);
        // At least a tenth of the lease: a margin as long as the lease must not mean always.
        let pause = lease.ttl.saturating_sub(self.shared.margin).max(lease.ttl / 10);
        Ok(Some(Instant::now() + pause))
    }
}

#[cfg(test)]
#[path = "etcd_tests.rs"]
mod tests;
