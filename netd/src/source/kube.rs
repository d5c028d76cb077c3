//! Nodes of a Kubernetes cluster, as flannel uses them: spec.podCIDRs says what a node has, annotations say how it is
//! reached.
//!
//! What this node says of itself is kept true: when its object is made anew, or somebody takes an annotation away, it
//! is written again. The others are listed once and watched; a connection that breaks is made again from where it
//! was, a history that the server has dropped (410 Gone) means listing anew.
//! Source: flannel `pkg/subnet/kube/kube.go`, `annotations.go`; Kubernetes "API Concepts", watch.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::admit::admit_found;
use super::file::pod_cidrs;
use super::lease::{backend, backend_data};
use super::{Announcement, LeftOut, NodeSource, Remembered, Snapshot, SourceError, local_node, publish};
use crate::kube_access::causes;
use crate::net_conf::NetConf;
use crate::node::{Backend, Dual, Node, PublicIps};

const PLACE: &str = "Kubernetes";
/// Node objects are large (images): few at a time.
const PAGE: u32 = 100;
/// A watch this long; longer silence means that the connection is dead.
const WATCH_S: u32 = 120;
const SILENCE: Duration = Duration::from_secs(WATCH_S as u64 + 10);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Between two writes of this node.
const WRITE_FIRST: Duration = Duration::from_millis(200);
const WRITE_LAST: Duration = Duration::from_mins(1);

/// The names of the annotations under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "--kube-annotation-prefix {0}: write a domain name, maybe with a slash and a word: flannel.example.com/two"
)]
pub struct PrefixError(String);

impl Keys {
    /// As flannel completes it: `a.b` is `a.b/`, `a.b/c` is `a.b/c-`.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        let wrong = || PrefixError(prefix.to_owned());
        let (domain, word) = prefix.split_once('/').unwrap_or((prefix, ""));
        let plain = |text: &str| {
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
        };
        let labels: Vec<&str> = domain.split('.').collect();
        if labels.len() < 2 || labels.iter().any(|label| label.is_empty() || !plain(label)) || !plain(word) {
            return Err(wrong());
        }
        let dash = if word.is_empty() || word.ends_with('-') { "" } else { "-" };
        Ok(Self { prefix: format!("{domain}/{word}{dash}") })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// How a daemon finds out its node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whoami {
    Node(String),
    /// The node that this pod runs on.
    Pod {
        name: String,
        namespace: String,
    },
    Unknown,
}

impl Whoami {
    /// `--node-name`, `NODE_NAME`, or `POD_NAME` and `POD_NAMESPACE`.
    pub fn from_env(given: Option<&str>, env: impl Fn(&str) -> Option<String>) -> Self {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(node) = given.map(str::to_owned).or_else(|| env("NODE_NAME")) {
            return Self::Node(node);
        }
        match (env("POD_NAME"), env("POD_NAMESPACE")) {
            (Some(name), Some(namespace)) => Self::Pod { name, namespace },
            _ => Self::Unknown,
        }
    }
}

/// The name of this node.
pub async fn which_node(client: &Client, whoami: &Whoami) -> Result<String, SourceError> {
    let (name, namespace) = match whoami {
        Whoami::Node(name) => return Ok(name.clone()),
        Whoami::Pod { name, namespace } => (name, namespace),
        Whoami::Unknown => {
            return Err(SourceError::Invalid {
                place: PLACE.into(),
                problem: "which node is this? set --node-name, NODE_NAME, or POD_NAME and POD_NAMESPACE"
                    .into(),
            });
        }
    };
    let tried = format!("get pod {namespace}/{name}");
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(name).await.map_err(|error| failed(&tried, &error))?;
    pod.spec.and_then(|spec| spec.node_name).ok_or_else(|| SourceError::Server {
        place: PLACE.into(),
        tried,
        problem: "it is on no node yet".into(),
        passes: true,
    })
}

/// Of a Node object what is read here; the rest is never kept.
#[derive(Debug, Clone, Deserialize)]
struct Object {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs", default)]
    pod_cidrs: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
}

impl Resource for Object {
    type DynamicType = ();
    type Scope = <ApiNode as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        ApiNode::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        ApiNode::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        ApiNode::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        ApiNode::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Object {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn annotation(&self, keys: &Keys, name: &str) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(&keys.key(name)).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn pod_cidrs(&self) -> Result<crate::node::PodCidrs, String> {
        match (&self.spec.pod_cidrs[..], &self.spec.pod_cidr) {
            ([], Some(one)) if !one.is_empty() => pod_cidrs(&[one]),
            (many, _) => pod_cidrs(many),
        }
    }

    fn backend(&self, keys: &Keys) -> Result<Backend, String> {
        let data = |name: &str| -> Result<Option<Value>, String> {
            let parsed = self.annotation(keys, name).map(serde_json::from_str::<Value>).transpose();
            let parsed = parsed.map_err(|error| format!("annotation {}: {error}", keys.key(name)))?;
            Ok(parsed.filter(|value| !value.is_null()))
        };
        let (v4, v6) = (data("backend-data")?, data("backend-v6-data")?);
        backend(self.annotation(keys, "backend-type").unwrap_or_default(), v4.as_ref(), v6.as_ref())
    }

    fn addresses(&self, keys: &Keys, v4: &str, v6: &str) -> Result<PublicIps, String> {
        fn parse<A: std::str::FromStr>(key: String, text: Option<&str>) -> Result<Option<A>, String> {
            let wrong = |text| format!("annotation {key}: {text} is no address of its family");
            text.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
        }
        Ok(Dual {
            v4: parse::<Ipv4Addr>(keys.key(v4), self.annotation(keys, v4))?,
            v6: parse::<Ipv6Addr>(keys.key(v6), self.annotation(keys, v6))?,
        })
    }

    /// The node as it tells itself; `None` when flannel does not run there (yet).
    fn node(&self, keys: &Keys) -> Option<Result<Node, String>> {
        if self.annotation(keys, "kube-subnet-manager") != Some("true") {
            return None;
        }
        let node = || {
            Ok(Node {
                name: self.name().to_owned(),
                pod_cidrs: self.pod_cidrs()?,
                public_ips: self.addresses(keys, "public-ip", "public-ipv6")?,
                backend: self.backend(keys)?,
            })
        };
        Some(node())
    }

    /// Is the network said to be there by flannel's condition?
    fn network_is_up(&self) -> bool {
        self.status.conditions.iter().any(|condition| {
            condition.kind == "NetworkUnavailable"
                && condition.status == "False"
                && condition.reason == REASON
        })
    }

    /// The annotations that `announcement` wants and that are not so; as one patch, `None` when all are.
    fn lacking(&self, keys: &Keys, announcement: &Announcement) -> Option<Value> {
        let (kind, data_v4, data_v6) = backend_data(announcement.backend);
        let mut wanted =
            BTreeMap::from([("backend-type", kind.to_owned()), ("kube-subnet-manager", "true".to_owned())]);
        let mut family = |names: [&'static str; 3], data: Value, address: Option<String>| {
            let [data_name, ip_name, overwrite] = names;
            let Some(address) = address else { return };
            wanted.insert(data_name, data.to_string());
            wanted.insert(ip_name, self.annotation(keys, overwrite).map_or(address, str::to_owned));
        };
        let PublicIps { v4, v6 } = announcement.public_ips;
        family(["backend-data", "public-ip", "public-ip-overwrite"], data_v4, v4.map(|ip| ip.to_string()));
        family(
            ["backend-v6-data", "public-ipv6", "public-ipv6-overwrite"],
            data_v6,
            v6.map(|ip| ip.to_string()),
        );
        wanted.retain(|name, value| self.annotation(keys, name) != Some(value));
        if wanted.is_empty() {
            return None;
        }
        let wanted: BTreeMap<String, String> =
            wanted.into_iter().map(|(name, value)| (keys.key(name), value)).collect();
        Some(json!({ "metadata": { "annotations": wanted } }))
    }
}

const REASON: &str = "FlannelIsUp";

#[derive(Clone)]
pub struct KubeSource {
    nodes: Api<Object>,
    node: String,
    keys: Keys,
    conf: NetConf,
    set_condition: bool,
    announced: watch::Sender<Option<Announcement>>,
    /// The network was said to be up: say it again when the node's object is made anew.
    up: watch::Sender<bool>,
}

impl KubeSource {
    /// `node`: the name of this node. `set_condition`: `--set-node-network-unavailable`.
    pub fn new(client: Client, node: &str, keys: Keys, conf: NetConf, set_condition: bool) -> Self {
        Self {
            nodes: Api::all(client),
            node: node.to_owned(),
            keys,
            conf,
            set_condition,
            announced: watch::Sender::new(None),
            up: watch::Sender::new(false),
        }
    }

    async fn get(&self) -> Result<Object, SourceError> {
        let tried = format!("get node {}", self.node);
        match self.nodes.get(&self.node).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(self.missing()),
            Err(error) => Err(failed(&tried, &error)),
        }
    }

    fn missing(&self) -> SourceError {
        SourceError::NoSuchNode {
            node: self.node.clone(),
            place: PLACE.into(),
            remedy: "its kubelet makes it; is NODE_NAME (or --node-name) what the kubelet calls it?".into(),
        }
    }

    fn local(&self, object: &Object, announcement: &Announcement) -> Result<Node, SourceError> {
        let wrong =
            |problem| SourceError::Invalid { place: format!("node {} of {PLACE}", self.node), problem };
        let cidrs = object.pod_cidrs().map_err(wrong)?;
        local_node(&self.conf, &self.node, PLACE, cidrs, announcement)
    }

    async fn patch(&self, what: &str, patch: Value) -> Result<(), SourceError> {
        let tried = format!("patch nodes/status of {} ({what})", self.node);
        let patched =
            self.nodes.patch_status(&self.node, &PatchParams::default(), &Patch::Strategic(patch)).await;
        patched.map(|_| ()).map_err(|error| failed(&tried, &error))
    }

    /// Is anything to be written of this node?
    fn lacks(&self, object: &Object) -> bool {
        let annotations =
            self.announced.borrow().as_ref().is_some_and(|a| object.lacking(&self.keys, a).is_some());
        annotations || *self.up.borrow() && self.set_condition && !object.network_is_up()
    }

    /// Writes of this node what `object` lacks.
    async fn publish(&self, object: &Object) -> Result<(), SourceError> {
        let announcement = self.announced.borrow().clone();
        if let Some(patch) = announcement.and_then(|a| object.lacking(&self.keys, &a)) {
            info!(node = self.node, "writing annotations");
            self.patch("annotations", patch).await?;
        }
        if *self.up.borrow() && self.set_condition && !object.network_is_up() {
            info!(node = self.node, "saying that the network is up");
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = json!({
                "type": "NetworkUnavailable",
                "status": "False",
                "reason": REASON,
                "message": "Flannel is running on this node",
                "lastTransitionTime": now,
                "lastHeartbeatTime": now,
            });
            self.patch("condition NetworkUnavailable", json!({ "status": { "conditions": [condition] } }))
                .await?;
        }
        Ok(())
    }
}

/// What an error of the API means, and what to do about it.
fn failed(tried: &str, error: &kube::Error) -> SourceError {
    let problem = match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}; corten-netd needs: pods get, nodes get list watch, nodes/status patch (ClusterRole)",
            status.message
        ),
        kube::Error::Api(status) if status.code == 401 => {
            format!("{} (the server does not know who this is: look at token or certificate)", status.message)
        }
        kube::Error::Api(status) => status.message.clone(),
        error => causes(error),
    };
    // Permissions, too, are given while a daemon waits for them.
    SourceError::Server { place: PLACE.into(), tried: tried.to_owned(), problem, passes: true }
}

impl NodeSource for KubeSource {
    fn name(&self) -> String {
        format!("{PLACE}, as node {}", self.node)
    }

    fn net_conf(&self) -> &NetConf {
        &self.conf
    }

    fn remembered(&self) -> BoxFuture<'_, Result<Remembered, SourceError>> {
        async move {
            let object = self.get().await?;
            // Of another backend, or of nothing: then there is nothing to remember.
            let vtep = match object.backend(&self.keys) {
                Ok(Backend::Vxlan { vtep, .. }) => vtep,
                Ok(Backend::HostGw) | Err(_) => Dual::default(),
            };
            let public_ips =
                object.addresses(&self.keys, "node-public-ip", "node-public-ipv6").map_err(|problem| {
                    SourceError::Invalid { place: format!("node {} of {PLACE}", self.node), problem }
                })?;
            Ok(Remembered { vtep, public_ips })
        }
        .boxed()
    }

    fn acquire<'a>(&'a self, announcement: &'a Announcement) -> BoxFuture<'a, Result<Node, SourceError>> {
        async move {
            let object = self.get().await?;
            let local = self.local(&object, announcement)?;
            self.announced.send_replace(Some(announcement.clone()));
            self.publish(&object).await?;
            Ok(local)
        }
        .boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<watch::Receiver<Snapshot>, SourceError>> {
        async move {
            let mut follower = Follower::new(self.clone());
            follower.list().await?;
            let first = follower.snapshot(None)?;
            let (sender, receiver) = publish::channel(first);
            tokio::spawn(follower.run(sender));
            Ok(receiver)
        }
        .boxed()
    }

    fn network_is_up(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        async move {
            self.up.send_replace(true);
            self.publish(&self.get().await?).await
        }
        .boxed()
    }
}

/// How often this node is written: at once after a quiet time, then ever more rarely. Who else writes its annotations
/// (flanneld, still running) would otherwise be answered for ever, and a server that refuses be asked at every event.
/// Pure.
#[derive(Debug)]
struct Pace {
    next: Option<Instant>,
    pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: None, pause: WRITE_FIRST }
    }
}

impl Pace {
    /// `Err`: not before then.
    fn write(&mut self, now: Instant) -> Result<(), Instant> {
        self.pause = match self.next {
            Some(next) if now < next => return Err(next),
            Some(next) if now < next + self.pause => (self.pause * 2).min(WRITE_LAST),
            _ => WRITE_FIRST,
        };
        self.next = Some(now + self.pause);
        Ok(())
    }
}

/// Keeps the list of nodes.
struct Follower {
    source: KubeSource,
    pace: Pace,
    /// Why this node could not be written last.
    unwritten: Option<String>,
    announced: watch::Receiver<Option<Announcement>>,
    /// This node's object.
    own: Option<Object>,
    others: BTreeMap<String, Result<Node, LeftOut>>,
    resource_version: String,
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Why a watch has ended.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// The server has dropped the history that is needed.
    Gone,
    /// In its own time.
    Over,
}

impl Follower {
    fn new(source: KubeSource) -> Self {
        let announced = source.announced.subscribe();
        Self {
            source,
            pace: Pace::default(),
            unwritten: None,
            announced,
            own: None,
            others: BTreeMap::new(),
            resource_version: String::new(),
        }
    }

    /// Keeps true what this node says of itself. When to look again, though nothing is told.
    async fn write_own(&mut self) -> Option<Instant> {
        let own = self.own.as_ref().filter(|own| self.source.lacks(own))?;
        if let Err(later) = self.pace.write(Instant::now()) {
            return Some(later);
        }
        let error = self.source.publish(own).await.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|error| self.unwritten.as_ref() != Some(error)) {
            warn!("{error}");
        }
        self.unwritten = error;
        self.pace.next
    }

    async fn list(&mut self) -> Result<(), SourceError> {
        let mut page = ListParams::default().limit(PAGE);
        let (mut own, mut others) = (None, BTreeMap::new());
        loop {
            let list = self.source.nodes.list(&page).await.map_err(|error| failed("list nodes", &error))?;
            for object in list.items {
                self.source.sort(object, &mut own, &mut others);
            }
            self.resource_version = list.metadata.resource_version.unwrap_or_default();
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        (self.own, self.others) = (own, others);
        Ok(())
    }

    fn snapshot(&self, previous: Option<&Snapshot>) -> Result<Snapshot, SourceError> {
        let announcement = self.announced.borrow().clone().expect("watch comes after acquire");
        let own = self.own.as_ref().ok_or_else(|| self.source.missing())?;
        let local = self.source.local(own, &announcement)?;
        Ok(admit_found(&self.source.conf, local, previous, self.others.values().cloned()))
    }

    /// `fault`: of the connection.
    fn publish(&self, sender: &watch::Sender<Snapshot>, fault: Option<&SourceError>) {
        publish::publish(sender, |previous| {
            let mut next = self.snapshot(Some(previous)).unwrap_or_else(|error| Snapshot {
                fault: Some(format!("{error}; what was known of this node stays")),
                ..previous.clone()
            });
            if let Some(error) = fault {
                next.fault = Some(format!("{error}; the last list stays"));
            }
            next
        });
    }

    async fn run(mut self, sender: watch::Sender<Snapshot>) {
        let mut pause = RETRY_FIRST;
        loop {
            let ended = match self.follow(&sender, &mut pause).await {
                Ok(End::Unheard) => return,
                Ok(End::Over) => {
                    // A server that ends each watch at once is not asked without pause.
                    tokio::time::sleep(RETRY_FIRST).await;
                    Ok(())
                }
                Ok(End::Gone) => {
                    tokio::time::sleep(RETRY_FIRST).await;
                    self.list().await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                self.publish(&sender, Some(&error));
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }

    /// One watch, until it ends or breaks. `pause` starts anew when the server has taken it.
    async fn follow(
        &mut self,
        sender: &watch::Sender<Snapshot>,
        pause: &mut Duration,
    ) -> Result<End, SourceError> {
        let broken = |error: kube::Error| failed("watch nodes", &error);
        let parameters = WatchParams::default().timeout(WATCH_S);
        let events = match self.source.nodes.watch(&parameters, &self.resource_version).await {
            Ok(events) => events,
            Err(kube::Error::Api(status)) if status.code == 410 => return Ok(End::Gone),
            Err(error) => return Err(broken(error)),
        };
        *pause = RETRY_FIRST;
        let mut events = std::pin::pin!(events);
        loop {
            let again = self.write_own().await;
            self.publish(sender, None);
            let event = tokio::select! {
                () = until(again) => continue,
                () = sender.closed() => return Ok(End::Unheard),
                changed = self.announced.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Ok(End::Unheard),
                },
                event = tokio::time::timeout(SILENCE, events.try_next()) => event,
            };
            match event {
                Err(_) | Ok(Ok(None)) => return Ok(End::Over),
                Ok(Err(error)) => return Err(broken(error)),
                Ok(Ok(Some(event))) => {
                    if let Some(end) = self.apply(event)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn apply(&mut self, event: WatchEvent<Object>) -> Result<Option<End>, SourceError> {
        let object = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.resource_version = object.metadata.resource_version.clone().unwrap_or_default();
                self.source.sort(object, &mut self.own, &mut self.others);
                return Ok(None);
            }
            WatchEvent::Bookmark(bookmark) => {
                self.resource_version = bookmark.metadata.resource_version;
                return Ok(None);
            }
            WatchEvent::Error(status) if status.code == 410 => return Ok(Some(End::Gone)),
            WatchEvent::Error(status) => return Err(failed("watch nodes", &kube::Error::Api(status))),
            WatchEvent::Deleted(object) => object,
        };
        self.resource_version = object.metadata.resource_version.clone().unwrap_or_default();
        if object.name() == self.source.node {
            self.own = None;
        } else {
            self.others.remove(object.name());
        }
        Ok(None)
    }
}

impl KubeSource {
    /// Puts one object where it belongs.
    fn sort(
        &self,
        object: Object,
        own: &mut Option<Object>,
        others: &mut BTreeMap<String, Result<Node, LeftOut>>,
    ) {
        let name = object.name().to_owned();
        if name == self.node {
            *own = Some(object);
            return;
        }
        match object.node(&self.keys) {
            None => drop(others.remove(&name)),
            Some(node) => {
                let node = node.map_err(|why| LeftOut::new(&name, &why));
                others.insert(name, node);
            }
        }
    }
}

#[cfg(test)]
#[path = "kube_tests.rs"]
mod tests;
