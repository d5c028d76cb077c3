//! What becomes of one object, given its owners and its dependents.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::graph::{FOREGROUND, Graph, Kind, Node, ORPHAN, Uid};
use super::monitor::Kinds;
use crate::controllers::retry::Handle;

pub struct Collector {
    pub client: Client,
    pub graph: Arc<Mutex<Graph>>,
    pub kinds: Arc<Kinds>,
    pub queue: Handle<Uid>,
}

/// How it stands with one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Solid,
    /// There is none (any more).
    Absent,
    /// It is being deleted and waits for its dependents.
    Waiting,
}

/// What is to be done with an object that has owners.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// Only these owners are real.
    Keeps(Vec<Uid>),
    Goes(Policy),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Background,
    Foreground,
    Orphan,
}

/// Pure: the whole decision.
fn fate(owners: &[(Uid, Owner)], has_dependents: bool, finalizers: &[String]) -> Fate {
    if owners.is_empty() {
        return Fate::Stays;
    }
    let of = |what: Owner| owners.iter().filter(move |(_, owner)| *owner == what);
    if of(Owner::Solid).next().is_some() {
        if of(Owner::Solid).count() == owners.len() {
            return Fate::Stays;
        }
        return Fate::Keeps(of(Owner::Solid).map(|(uid, _)| uid.clone()).collect());
    }
    if of(Owner::Waiting).next().is_some() && has_dependents {
        return Fate::Goes(Policy::Foreground);
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    Fate::Goes(match () {
        () if has(ORPHAN) => Policy::Orphan,
        () if has(FOREGROUND) => Policy::Foreground,
        () => Policy::Background,
    })
}

impl Collector {
    /// # Errors
    /// The server refused, or an object changed meanwhile: to be judged again.
    pub async fn judge(&self, uid: &Uid) -> kube::Result<()> {
        let Some(node) = self.graph().get(uid).cloned() else { return Ok(()) };
        let Some((resource, namespaced)) = self.kinds.find(&node.kind) else { return Ok(()) };
        let api = self.api(&resource, node.namespace.as_deref().filter(|_| namespaced));
        if node.orphans {
            return self.orphan(&api, uid, &node).await;
        }
        let Some(object) = self.latest(&api, uid, &node).await? else { return Ok(()) };
        let deleting = object.metadata.deletion_timestamp.is_some();
        if deleting && object.finalizers().iter().any(|finalizer| finalizer == FOREGROUND) {
            return self.foreground(&api, uid, &node, &object).await;
        }
        if deleting {
            return Ok(());
        }
        let mut owners = Vec::new();
        for owner in object.owner_references() {
            let stands = self.owner(owner, node.namespace.as_deref()).await?;
            owners.push((owner.uid.clone(), stands));
        }
        let has_dependents = self.graph().dependents(uid).next().is_some();
        match fate(&owners, has_dependents, object.finalizers()) {
            Fate::Stays => Ok(()),
            Fate::Keeps(uids) => {
                let kept = object.owner_references().iter().filter(|owner| uids.contains(&owner.uid));
                self.own(&api, &object, kept.cloned().collect()).await
            }
            Fate::Goes(policy) => {
                tracing::debug!(kind = %node.kind.kind, name = %node.name, ?policy, "its owners are gone");
                gone(api.delete(&node.name, &how(uid, &object, policy)).await.map(|_| ()))
            }
        }
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, resource: &kube::discovery::ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    /// The object as it is now; `None`: it is gone, or another one has its name.
    async fn latest(
        &self,
        api: &Api<DynamicObject>,
        uid: &Uid,
        node: &Node,
    ) -> kube::Result<Option<PartialObjectMeta<DynamicObject>>> {
        let found = api.get_metadata_opt(&node.name).await?;
        Ok(found.filter(|object| object.metadata.uid.as_ref() == Some(uid)))
    }

    async fn owner(&self, owner: &OwnerReference, namespace: Option<&str>) -> kube::Result<Owner> {
        let kind = Kind { api_version: owner.api_version.clone(), kind: owner.kind.clone() };
        let Some((resource, namespaced)) = self.kinds.find(&kind) else {
            // Of a kind that nobody serves (now): nobody can say that it is gone.
            return Ok(Owner::Solid);
        };
        let place = match (namespaced, namespace) {
            (true, Some(namespace)) => Some(namespace),
            // An object of the cluster cannot be owned by one in a namespace: nobody knows in which.
            (true, None) => return Ok(Owner::Solid),
            (false, _) => None,
        };
        if let Some(known) = self.graph().get(&owner.uid)
            && known.namespace.as_deref() == place
            && known.name == owner.name
            && known.kind.kind == owner.kind
        {
            return Ok(if known.waits_for_dependents { Owner::Waiting } else { Owner::Solid });
        }
        // Of another namespace, by another name, or not seen yet: the server knows.
        let found = self.api(&resource, place).get_metadata_opt(&owner.name).await?;
        Ok(match found.filter(|found| found.metadata.uid.as_ref() == Some(&owner.uid)) {
            None => Owner::Absent,
            Some(found) => {
                let waits = found.metadata.deletion_timestamp.is_some()
                    && found.finalizers().iter().any(|finalizer| finalizer == FOREGROUND);
                if waits { Owner::Waiting } else { Owner::Solid }
            }
        })
    }

    /// Lets dependents go on without it, then lets it go.
    async fn orphan(&self, api: &Api<DynamicObject>, uid: &Uid, node: &Node) -> kube::Result<()> {
        let dependents: Vec<_> =
            self.graph().dependents(uid).map(|(uid, node)| (uid.clone(), node.clone())).collect();
        for (dependent, node) in dependents {
            let Some((resource, namespaced)) = self.kinds.find(&node.kind) else { continue };
            let api = self.api(&resource, node.namespace.as_deref().filter(|_| namespaced));
            let Some(object) = self.latest(&api, &dependent, &node).await? else { continue };
            let kept: Vec<_> =
                object.owner_references().iter().filter(|owner| owner.uid != *uid).cloned().collect();
            if kept.len() != object.owner_references().len() {
                self.own(&api, &object, kept).await?;
            }
        }
        let Some(object) = self.latest(api, uid, node).await? else { return Ok(()) };
        self.release(api, &object, ORPHAN).await
    }

    /// Its dependents go first; those that block it must be gone before it is.
    async fn foreground(
        &self,
        api: &Api<DynamicObject>,
        uid: &Uid,
        _: &Node,
        object: &PartialObjectMeta<DynamicObject>,
    ) -> kube::Result<()> {
        let (mut blocked, mut judge) = (false, Vec::new());
        for (dependent, node) in self.graph().dependents(uid) {
            blocked |= node.blocks(uid);
            if !node.deleting {
                judge.push(dependent.clone());
            }
        }
        judge.into_iter().for_each(|dependent| self.queue.add(dependent));
        if blocked {
            return Ok(());
        }
        self.release(api, object, FOREGROUND).await
    }

    async fn own(
        &self,
        api: &Api<DynamicObject>,
        object: &PartialObjectMeta<DynamicObject>,
        owners: Vec<OwnerReference>,
    ) -> kube::Result<()> {
        let owners = if owners.is_empty() { json!(null) } else { json!(owners) };
        self.patch(api, object, json!({"ownerReferences": owners})).await
    }

    async fn release(
        &self,
        api: &Api<DynamicObject>,
        object: &PartialObjectMeta<DynamicObject>,
        finalizer: &str,
    ) -> kube::Result<()> {
        let left: Vec<_> = object.finalizers().iter().filter(|one| *one != finalizer).collect();
        if left.len() == object.finalizers().len() {
            return Ok(());
        }
        let left = if left.is_empty() { json!(null) } else { json!(left) };
        self.patch(api, object, json!({"finalizers": left})).await
    }

    /// A change of metadata, only if the object is still what we saw.
    async fn patch(
        &self,
        api: &Api<DynamicObject>,
        object: &PartialObjectMeta<DynamicObject>,
        mut meta: serde_json::Value,
    ) -> kube::Result<()> {
        meta["uid"] = json!(object.metadata.uid);
        meta["resourceVersion"] = json!(object.metadata.resource_version);
        let patch = Patch::Merge(json!({"metadata": meta}));
        let name = object.name_any();
        gone(api.patch_metadata(&name, &PatchParams::default(), &patch).await.map(|_| ()))
    }
}

fn gone(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

fn how(uid: &Uid, object: &PartialObjectMeta<DynamicObject>, policy: Policy) -> DeleteParams {
    DeleteParams {
        propagation_policy: Some(match policy {
            Policy::Background => PropagationPolicy::Background,
            Policy::Foreground => PropagationPolicy::Foreground,
            Policy::Orphan => PropagationPolicy::Orphan,
        }),
        // Somebody may have given it another owner since.
        preconditions: Some(Preconditions {
            uid: Some(uid.clone()),
            resource_version: object.metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_while_one_owner_is_there() {
        use Owner::{Absent, Solid, Waiting};
        let finalizers = |name: &str| vec![name.to_owned()];
        #[rustfmt::skip]
        let table = [
            (vec![], false, vec![], Fate::Stays),
            (vec![("a", Solid)], false, vec![], Fate::Stays),
            (vec![("a", Solid), ("b", Absent)], false, vec![], Fate::Keeps(vec!["a".into()])),
            (vec![("a", Solid), ("b", Waiting)], true, vec![], Fate::Keeps(vec!["a".into()])),
            (vec![("a", Absent)], false, vec![], Fate::Goes(Policy::Background)),
            (vec![("a", Absent)], true, finalizers(ORPHAN), Fate::Goes(Policy::Orphan)),
            (vec![("a", Absent)], true, finalizers(FOREGROUND), Fate::Goes(Policy::Foreground)),
            (vec![("a", Waiting)], true, vec![], Fate::Goes(Policy::Foreground)),
            (vec![("a", Waiting)], false, vec![], Fate::Goes(Policy::Background)),
        ];
        for (owners, has_dependents, finalizers, expected) in table {
            let owners: Vec<_> = owners.into_iter().map(|(uid, owner)| (uid.to_owned(), owner)).collect();
            assert_eq!(fate(&owners, has_dependents, &finalizers), expected, "{owners:?}");
        }
    }
}
