//! Follows definitions: what is served, who has which name, and that objects go with their definition.
//!
//! Reads the store; writes through the API as everybody does. Source: apiextensions `pkg/controller/{status,establish,
//! finalizer,openapiv3}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_schema::openapi;
use corten_store::{Change, KeyValue, Keys, List, Revision, StoreError, Told};
use kube::api::PostParams;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::definition::{CLEANUP, versions};
use super::names::{self, Condition, is};
use super::rows::rows;
use crate::api::Api;
use crate::fresh;
use crate::http::Document;
use crate::object::Object;
use crate::registry::{ROOT, Served};

const RETRY: Duration = Duration::from_millis(500);
/// How long one try waits for objects to go. As upstream.
const PATIENCE: Duration = Duration::from_mins(1);

/// All definitions, and what they let be served.
pub struct Definitions {
    api: Arc<Api>,
    prefix: Bytes,
    /// What all keys begin with.
    root: String,
    known: BTreeMap<String, Known>,
    documents: BTreeMap<(String, String), openapi::Document>,
}

struct Known {
    definition: Object,
    rows: Vec<Arc<Served>>,
}

impl Definitions {
    /// Serves what is defined already.
    ///
    /// # Errors
    /// Of the store.
    pub async fn load(api: &Arc<Api>) -> Result<(Self, Revision), StoreError> {
        let row = api.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let prefix = row.map_or_else(Bytes::new, |row| row.prefix("").into());
        const BELOW: &[u8] = b"/apiextensions.k8s.io/customresourcedefinitions/";
        let root = prefix.strip_suffix(BELOW).unwrap_or(ROOT.as_bytes());
        let root = String::from_utf8_lossy(root).into_owned();
        let (known, documents) = (BTreeMap::new(), BTreeMap::new());
        let mut this = Self { api: Arc::clone(api), prefix, root, known, documents };
        let revision = this.list().await?;
        Ok((this, revision))
    }

    async fn list(&mut self) -> Result<Revision, StoreError> {
        let page = self.api.store.list(List::new(self.prefix.clone())).await?;
        self.known.clear();
        for kv in &page.kvs {
            self.put(kv);
        }
        self.documents.clear();
        let groups: BTreeSet<_> = self.known.values().map(|one| group_of(&one.definition)).collect();
        self.publish(&groups);
        Ok(page.revision)
    }

    fn put(&mut self, kv: &KeyValue) -> Option<String> {
        let definition = Object::at_rest(kv).ok()?;
        let rows = rows(&definition, &self.root);
        let group = group_of(&definition);
        self.known.insert(definition.name().to_owned(), Known { definition, rows });
        Some(group)
    }

    /// Serves what is known now; documents of these groups are made anew.
    fn publish(&mut self, groups: &BTreeSet<String>) {
        self.documents.retain(|(group, _), _| !groups.contains(group));
        let mut kinds: BTreeMap<(String, String), Vec<openapi::Custom>> = BTreeMap::new();
        for row in self.known.values().flat_map(|one| &one.rows) {
            let resource = &row.resource;
            if groups.contains(&*resource.group) {
                let of = (resource.group.to_string(), resource.version.to_string());
                kinds.entry(of).or_default().push(described(row));
            }
        }
        for (of, kinds) in kinds {
            let document = openapi::document(&of.0, &of.1, &kinds);
            self.documents.insert(of, document);
        }
        let documents = self.documents.values().map(|one| {
            let gzip = Bytes::copy_from_slice(&one.gzip);
            (one.path.clone(), Document { hash: one.hash.clone(), gzip })
        });
        self.api.openapi.replace_custom(documents);
        self.api.registry.replace_custom(self.known.values().flat_map(|one| one.rows.clone()));
    }

    /// Follows changes until the store ends.
    pub async fn run(mut self, from: Revision, client: Client) {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut ending = BTreeSet::new();
        let mut from = from;
        self.judge_all(&client, &mut ending, &ended).await;
        loop {
            let keys = Keys::Prefix(self.prefix.clone());
            let mut watcher = match self.api.store.watch(keys, Some(from + 1)).await {
                Ok(watcher) => watcher,
                Err(StoreError::Closed) => return,
                Err(_) => {
                    tokio::time::sleep(RETRY).await;
                    match self.list().await {
                        Ok(revision) => from = revision,
                        Err(error) => tracing::warn!("definitions of custom resources: {error}"),
                    }
                    continue;
                }
            };
            loop {
                tokio::select! {
                    told = watcher.next() => match told {
                        Ok(Told::Changes(changes)) => {
                            from = changes.last().map_or(from, |change| change.revision());
                            self.take(&changes).await;
                            self.judge_all(&client, &mut ending, &ended).await;
                        }
                        Ok(Told::Progress(revision)) => from = revision,
                        Err(StoreError::Closed) => return,
                        Err(error) => {
                            tracing::debug!("watch of definitions: {error}");
                            break;
                        }
                    },
                    Some(name) = ends.recv() => {
                        ending.remove(&name);
                        self.judge_all(&client, &mut ending, &ended).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, changes: &[Arc<Change>]) {
        let before = self.prefixes();
        let mut groups = BTreeSet::new();
        for change in changes {
            let name = String::from_utf8_lossy(&change.key()[self.prefix.len()..]).into_owned();
            groups.extend(self.known.get(&name).map(|one| group_of(&one.definition)));
            match &**change {
                Change::Put { kv, .. } => groups.extend(self.put(kv)),
                Change::Delete { .. } => {
                    self.known.remove(&name);
                }
            }
        }
        self.publish(&groups);
        for gone in before.difference(&self.prefixes()) {
            self.api.watches.end(gone.as_bytes()).await;
        }
    }

    /// Where the objects lie that are served.
    fn prefixes(&self) -> BTreeSet<String> {
        let rows = self.known.values().flat_map(|one| &one.rows);
        rows.map(|row| row.resource.prefix.to_string()).collect()
    }

    /// Names may be free for others now: all are judged, which changes nothing of those that are right.
    async fn judge_all(
        &mut self,
        client: &Client,
        ending: &mut BTreeSet<String>,
        ended: &mpsc::UnboundedSender<String>,
    ) {
        let names: Vec<_> = self.known.keys().cloned().collect();
        for name in names {
            let Some(known) = self.known.get(&name) else { continue };
            let definition = known.definition.clone();
            if definition.deletion_timestamp().is_none() {
                if let Err(error) = self.accept(client, &definition).await {
                    tracing::debug!(definition = name, "its names: {error}");
                    again(name, ended);
                }
                continue;
            }
            if definition.finalizers().any(|one| one == CLEANUP) && ending.insert(name.clone()) {
                let (client, ended) = (client.clone(), ended.clone());
                tokio::spawn(async move {
                    if let Err(error) = end(&client, &definition).await {
                        tracing::warn!(definition = name, "its objects: {error}");
                        tokio::time::sleep(RETRY).await;
                    }
                    ended.send(name).ok();
                });
            }
        }
    }

    /// Gives a definition its names: serves it first, then says so in its status. Who reads `Established` finds it served.
    async fn accept(&mut self, client: &Client, definition: &Object) -> kube::Result<()> {
        let named = names::decide(definition, self.known.values().map(|one| &one.definition));
        let mut new = definition.clone();
        let status = new.0.entry("status").or_insert_with(|| json!({}));
        status["acceptedNames"] = named.accepted;
        names::set_conditions(&mut new, &named.conditions, &fresh::now());
        if new.0.get("status") == definition.0.get("status") {
            return Ok(());
        }
        let groups = BTreeSet::from([group_of(definition)]);
        let name = definition.name().to_owned();
        let served = Known { rows: rows(&new, &self.root), definition: new.clone() };
        let before = self.known.insert(name.clone(), served);
        self.publish(&groups);
        let told = status_of(client, &new).await;
        if let (Err(_), Some(before)) = (&told, before) {
            self.known.insert(name, before);
            self.publish(&groups);
        }
        told
    }
}

/// Judges once more, after a while.
fn again(name: String, ended: &mpsc::UnboundedSender<String>) {
    let ended = ended.clone();
    tokio::spawn(async move {
        tokio::time::sleep(RETRY).await;
        ended.send(name).ok();
    });
}

fn group_of(definition: &Object) -> String {
    definition.text(&["spec", "group"]).to_owned()
}

fn described(row: &Served) -> openapi::Custom {
    let custom = row.custom();
    let resource = &row.resource;
    openapi::Custom {
        kind: resource.kind.to_string(),
        list_kind: format!("{}List", resource.kind),
        plural: resource.plural.to_string(),
        namespaced: resource.namespaced,
        status: custom.is_some_and(|custom| custom.status),
        scale: custom.is_some_and(|custom| custom.scale.is_some()),
        schema: custom.map(|custom| custom.raw_schema.clone()).filter(|schema| !schema.is_null()),
    }
}

fn definitions(client: &Client) -> kube::Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    kube::Api::all_with(client.clone(), &ApiResource::from_gvk(&kind))
}

/// Somebody else changed it meanwhile: the change comes to us, and it is judged again.
async fn status_of(client: &Client, definition: &Object) -> kube::Result<()> {
    let object: DynamicObject =
        serde_json::from_value(Value::Object(definition.0.clone())).map_err(kube::Error::SerdeError)?;
    let name = definition.name();
    match definitions(client).replace_status(name, &PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Deletes all objects of a definition, then lets it go.
async fn end(client: &Client, definition: &Object) -> kube::Result<()> {
    let name = definition.name();
    let condition = |status, reason, message: String| Condition::new("Terminating", status, reason, message);
    let tell = async |condition: Condition| {
        let Some(now) = definitions(client).get_opt(name).await? else { return Ok(()) };
        let now = serde_json::to_value(now).map_err(kube::Error::SerdeError)?;
        let mut now = Object::of(now).unwrap_or_default();
        names::set_conditions(&mut now, &[condition], &fresh::now());
        status_of(client, &now).await
    };
    let last = if is(definition, "Established") {
        tell(condition(true, "InstanceDeletionInProgress", "CustomResource deletion is in progress".into()))
            .await?;
        if let Err(error) = empty(client, definition).await {
            let what = format!("could not issue all deletes: {error}");
            tell(condition(true, "InstanceDeletionFailed", what)).await?;
            return Err(error);
        }
        condition(false, "InstanceDeletionCompleted", "removed all instances".into())
    } else {
        condition(false, "NeverEstablished", "resource was never established".into())
    };
    tell(last).await?;
    let Some(now) = definitions(client).get_opt(name).await? else { return Ok(()) };
    let left: Vec<_> = now.finalizers().iter().filter(|one| *one != CLEANUP).collect();
    let meta = json!({"metadata": {"finalizers": left, "resourceVersion": now.resource_version(), "uid": now.uid()}});
    match definitions(client).patch(name, &PatchParams::default(), &Patch::Merge(meta)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn empty(client: &Client, definition: &Object) -> kube::Result<()> {
    let Some(version) = versions(definition).find(|version| version["served"] == true) else { return Ok(()) };
    let text = |name: &str| definition.text(&["status", "acceptedNames", name]);
    let version = version["name"].as_str().unwrap_or_default();
    let kind = GroupVersionKind::gvk(definition.text(&["spec", "group"]), version, text("kind"));
    let resource = ApiResource::from_gvk_with_plural(&kind, text("plural"));
    let all: kube::Api<DynamicObject> = kube::Api::all_with(client.clone(), &resource);
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let left = all.list_metadata(&ListParams::default()).await?.items;
        if left.is_empty() {
            return Ok(());
        }
        let places: BTreeSet<_> = left.iter().map(ResourceExt::namespace).collect();
        for place in places {
            let here = match &place {
                Some(namespace) => kube::Api::namespaced_with(client.clone(), namespace, &resource),
                None => all.clone(),
            };
            let here: kube::Api<DynamicObject> = here;
            here.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        }
        if tokio::time::Instant::now() > until {
            let what = format!("{} of its objects wait for their finalizers", left.len());
            return Err(kube::Error::Service(what.into()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
