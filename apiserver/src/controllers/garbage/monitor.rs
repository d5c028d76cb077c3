//! Watches of all kinds that can be deleted, as discovery tells them; custom ones come and go.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::ready;
use futures::{Stream, StreamExt};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::graph::{Graph, Kind, Node, Uid};
use crate::controllers::kinds;
use crate::controllers::retry::Handle;

/// How often discovery is asked again where no definition of a custom resource changed. As upstream.
const AGAIN: Duration = Duration::from_secs(30);
/// Changes that come together are taken together.
const TOGETHER: Duration = Duration::from_millis(100);
/// A kind that cannot be listed does not keep others from being collected.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Kinds that are watched.
pub struct Kinds {
    known: Mutex<HashMap<Kind, Monitored>>,
    synced: watch::Sender<usize>,
}

struct Monitored {
    resource: ApiResource,
    namespaced: bool,
    task: AbortHandle,
}

impl Drop for Monitored {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self { known: Mutex::default(), synced: watch::Sender::new(0) }
    }
}

impl Kinds {
    /// Waits until the first lists are read.
    pub async fn ready(&self) {
        let mut synced = self.synced.subscribe();
        let all = async {
            loop {
                let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).len();
                let now = *synced.borrow_and_update();
                if known > 0 && now >= known {
                    return;
                }
                if synced.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(READY_WITHIN, all).await.is_err() {
            tracing::warn!("garbage collection begins although not every kind could be listed");
        }
    }

    /// The resource of a kind, and whether it is in namespaces. Any version of a group will do.
    pub fn find(&self, kind: &Kind) -> Option<(ApiResource, bool)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let group = |api_version: &str| api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let found = known.get(kind).or_else(|| {
            let same = |other: &&Kind| {
                other.kind == kind.kind && group(&other.api_version) == group(&kind.api_version)
            };
            known.get(known.keys().find(same)?)
        });
        found.map(|one| (one.resource.clone(), one.namespaced))
    }

    fn has(&self, kind: &Kind) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(kind)
    }

    fn insert(&self, kind: Kind, monitored: Monitored) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, monitored);
    }

    /// Ends the watches of all others.
    fn keep(&self, served: &HashSet<Kind>) -> Vec<Kind> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = known.keys().filter(|kind| !served.contains(*kind)).cloned().collect();
        for kind in &gone {
            known.remove(kind);
        }
        gone
    }
}

/// Keeps watches of what is served, for ever.
pub async fn run(client: Client, kinds: Arc<Kinds>, graph: Arc<Mutex<Graph>>, queue: Handle<Uid>) {
    let mut definitions = definitions(client.clone());
    loop {
        match kinds::deletable(&client).await {
            Ok(served) => follow(&client, served, &kinds, &graph, &queue),
            Err(error) => {
                tracing::debug!("garbage collection cannot learn what is served: {error}");
                tokio::time::sleep(TOGETHER * 5).await;
                continue;
            }
        }
        tokio::select! {
            Some(()) = definitions.next() => tokio::time::sleep(TOGETHER).await,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Something about custom resources has changed.
fn definitions(client: Client) -> impl Stream<Item = ()> + Unpin {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Definition;
    let all = watcher::watcher(Api::<PartialObjectMeta<Definition>>::all(client), watcher::Config::default());
    let changes = all.default_backoff();
    changes
        .filter_map(|event| ready(matches!(event, Ok(Event::Apply(_) | Event::Delete(_))).then_some(())))
        .boxed()
}

fn follow(
    client: &Client,
    served: Vec<(ApiResource, ApiCapabilities)>,
    kinds: &Arc<Kinds>,
    graph: &Arc<Mutex<Graph>>,
    queue: &Handle<Uid>,
) {
    let kind_of = |resource: &ApiResource| Kind {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    };
    let now: HashSet<_> = served.iter().map(|(resource, _)| kind_of(resource)).collect();
    for gone in kinds.keep(&now) {
        tracing::debug!(kind = %gone.kind, "is served no more");
        for uid in graph.lock().unwrap_or_else(PoisonError::into_inner).of_kind(&gone) {
            take(graph, queue, |graph| graph.remove(&uid));
        }
    }
    for (resource, can) in served {
        let kind = kind_of(&resource);
        if kinds.has(&kind) {
            continue;
        }
        let task = tokio::spawn(one(
            client.clone(),
            resource.clone(),
            kind.clone(),
            Arc::clone(kinds),
            Arc::clone(graph),
            queue.clone(),
        ));
        let namespaced = can.scope == Scope::Namespaced;
        kinds.insert(kind, Monitored { resource, namespaced, task: task.abort_handle() });
    }
}

async fn one(
    client: Client,
    resource: ApiResource,
    kind: Kind,
    kinds: Arc<Kinds>,
    graph: Arc<Mutex<Graph>>,
    queue: Handle<Uid>,
) {
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
    let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut first = true;
    // Those that a new list has not named yet.
    let mut unseen: HashSet<Uid> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                unseen =
                    graph.lock().unwrap_or_else(PoisonError::into_inner).of_kind(&kind).into_iter().collect();
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                unseen.remove(object.metadata.uid.as_deref().unwrap_or_default());
                put(&graph, &queue, &kind, &object);
            }
            Ok(Event::InitDone) => {
                for uid in unseen.drain() {
                    take(&graph, &queue, |graph| graph.remove(&uid));
                }
                if std::mem::take(&mut first) {
                    kinds.synced.send_modify(|count| *count += 1);
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(uid) = object.metadata.uid {
                    take(&graph, &queue, |graph| graph.remove(&uid));
                }
            }
            Err(error) => tracing::debug!(kind = %kind.kind, "watch: {error}"),
        }
    }
}

fn put(graph: &Mutex<Graph>, queue: &Handle<Uid>, kind: &Kind, object: &PartialObjectMeta<DynamicObject>) {
    if let Some((uid, node)) = Node::of(kind.clone(), &object.metadata) {
        take(graph, queue, |graph| graph.put(uid, node));
    }
}

fn take(graph: &Mutex<Graph>, queue: &Handle<Uid>, change: impl FnOnce(&mut Graph) -> Vec<Uid>) {
    let judge = change(&mut graph.lock().unwrap_or_else(PoisonError::into_inner));
    judge.into_iter().for_each(|uid| queue.add(uid));
}
