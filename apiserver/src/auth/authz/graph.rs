//! What a node needs: the pods that are bound to it and what those refer to.
//! Source: kubernetes `plugin/pkg/auth/authorizer/node/graph.go`, `pkg/api/v1/pod/util.go`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use corten_store::Store;
use serde_json::Value;

use crate::auth::User;
use crate::auth::views::{Keep, View};
use crate::object::Object;
use crate::registry::Registry;

/// What a kubelet may read when a pod on its node refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    ServiceAccount,
}

#[derive(Default)]
pub struct Graph {
    /// None: the mode Node is off.
    views: Option<Views>,
}

struct Views {
    pods: View<Pods>,
    volumes: View<Volumes>,
    attachments: View<NodeNames>,
    slices: Option<View<NodeNames>>,
}

/// Of each node the pods bound to it.
#[derive(Default)]
struct Pods {
    nodes: HashMap<String, BTreeMap<String, BTreeSet<(Kind, String)>>>,
    node_of: HashMap<String, String>,
}

/// Of each claim (`NAMESPACE/NAME`) the volume that is bound to it.
#[derive(Default)]
struct Volumes {
    volumes: BTreeMap<String, Volume>,
}

struct Volume {
    claim: String,
    /// `NAMESPACE/NAME`.
    secrets: BTreeSet<String>,
}

/// Of each object the node that it says it is of.
#[derive(Default)]
struct NodeNames(HashMap<String, String>);

impl Keep for Pods {
    fn put(&mut self, key: &str, object: Object) {
        self.remove(key);
        let node = object.text(&["spec", "nodeName"]);
        if !node.is_empty() {
            self.node_of.insert(key.to_owned(), node.to_owned());
            self.nodes.entry(node.to_owned()).or_default().insert(key.to_owned(), references(&object));
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(node) = self.node_of.remove(key)
            && let Some(pods) = self.nodes.get_mut(&node)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
    }
}

impl Keep for Volumes {
    fn put(&mut self, key: &str, object: Object) {
        self.volumes.remove(key);
        let claim = ["namespace", "name"].map(|part| object.text(&["spec", "claimRef", part]));
        if let ["", _] | [_, ""] = claim {
            return;
        }
        let secrets = volume_secrets(&object, claim[0]);
        self.volumes.insert(key.to_owned(), Volume { claim: claim.join("/"), secrets });
    }

    fn remove(&mut self, key: &str) {
        self.volumes.remove(key);
    }
}

impl Keep for NodeNames {
    fn put(&mut self, key: &str, object: Object) {
        self.0.insert(key.to_owned(), object.text(&["spec", "nodeName"]).to_owned());
    }

    fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

impl Graph {
    pub fn start(store: &Arc<dyn Store>, registry: &Registry) -> Self {
        let prefix = |group: &str, plural: &str| Some(registry.find(group, "v1", plural)?.prefix(""));
        let start = || {
            Some(Views {
                pods: View::start(Arc::clone(store), prefix("", "pods")?),
                volumes: View::start(Arc::clone(store), prefix("", "persistentvolumes")?),
                attachments: View::start(Arc::clone(store), prefix("storage.k8s.io", "volumeattachments")?),
                slices: prefix("resource.k8s.io", "resourceslices")
                    .map(|prefix| View::start(Arc::clone(store), prefix)),
            })
        };
        Self { views: start() }
    }

    pub async fn wait_ready(&self) {
        if let Some(views) = &self.views {
            views.pods.wait_ready().await;
            views.volumes.wait_ready().await;
            views.attachments.wait_ready().await;
            if let Some(slices) = &views.slices {
                slices.wait_ready().await;
            }
        }
    }

    /// Waits until what is in the store now is seen, if this user is a node.
    pub async fn settle_for(&self, user: &User) {
        if let (Some(views), Some(_)) = (&self.views, user.node()) {
            let (pods, volumes) = (views.pods.settle(), views.volumes.settle());
            futures::future::join3(pods, volumes, views.attachments.settle()).await;
        }
    }

    /// Does a pod on this node refer to it (or, of a Secret, a volume of such a pod)?
    pub fn refers(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let Some(views) = &self.views else { return false };
        let wanted = (kind, name.to_owned());
        let prefix = format!("{namespace}/");
        let by_pod = views.pods.read(|pods| {
            pods.nodes.get(node).is_some_and(|pods| {
                pods.iter().any(|(key, refers)| key.starts_with(&prefix) && refers.contains(&wanted))
            })
        });
        by_pod || (kind == Kind::Secret && self.volume_has_secret(node, &format!("{namespace}/{name}")))
    }

    fn volume_has_secret(&self, node: &str, secret: &str) -> bool {
        let Some(views) = &self.views else { return false };
        views.volumes.read(|volumes| {
            let mut with = volumes.volumes.values().filter(|volume| volume.secrets.contains(secret));
            with.any(|volume| self.claims(node, &volume.claim))
        })
    }

    fn claims(&self, node: &str, claim: &str) -> bool {
        claim.split_once('/').is_some_and(|(namespace, name)| self.refers(node, Kind::Claim, namespace, name))
    }

    pub fn has_pod(&self, node: &str, namespace: &str, name: &str) -> bool {
        let key = format!("{namespace}/{name}");
        self.views
            .as_ref()
            .is_some_and(|views| views.pods.read(|pods| pods.node_of.get(&key).is_some_and(|of| of == node)))
    }

    /// Is it bound to a claim of a pod on this node?
    pub fn has_volume(&self, node: &str, name: &str) -> bool {
        let Some(views) = &self.views else { return false };
        let claim = views.volumes.read(|volumes| Some(volumes.volumes.get(name)?.claim.clone()));
        claim.is_some_and(|claim| self.claims(node, &claim))
    }

    pub fn has_attachment(&self, node: &str, name: &str) -> bool {
        let Some(views) = &self.views else { return false };
        views.attachments.read(|names| names.0.get(name).is_some_and(|of| of == node))
    }

    pub fn has_slice(&self, node: &str, name: &str) -> bool {
        let slices = self.views.as_ref().and_then(|views| views.slices.as_ref());
        slices.is_some_and(|slices| slices.read(|names| names.0.get(name).is_some_and(|of| of == node)))
    }
}

/// Items of a list in an object.
fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// What a pod refers to by name. A mirror pod refers to nothing: a kubelet makes it, and must not gain by it.
fn references(pod: &Object) -> BTreeSet<(Kind, String)> {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let mut all = BTreeSet::new();
    let (Some(spec), false) =
        (pod.0.get("spec"), pod.annotations().is_some_and(|all| all.contains_key(MIRROR)))
    else {
        return all;
    };
    let mut add = |kind: Kind, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            all.insert((kind, name.to_owned()));
        }
    };
    add(Kind::ServiceAccount, &spec["serviceAccountName"]);
    items(spec, "imagePullSecrets").for_each(|secret| add(Kind::Secret, &secret["name"]));
    for container in
        ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|l| items(spec, l))
    {
        for env in items(container, "env") {
            add(Kind::Secret, &env["valueFrom"]["secretKeyRef"]["name"]);
            add(Kind::ConfigMap, &env["valueFrom"]["configMapKeyRef"]["name"]);
        }
        for env in items(container, "envFrom") {
            add(Kind::Secret, &env["secretRef"]["name"]);
            add(Kind::ConfigMap, &env["configMapRef"]["name"]);
        }
    }
    for volume in items(spec, "volumes") {
        add(Kind::Secret, &volume["secret"]["secretName"]);
        add(Kind::Secret, &volume["azureFile"]["secretName"]);
        for source in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            add(Kind::Secret, &volume[source]["secretRef"]["name"]);
        }
        add(Kind::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
        add(Kind::ConfigMap, &volume["configMap"]["name"]);
        for source in items(&volume["projected"], "sources") {
            add(Kind::Secret, &source["secret"]["name"]);
            add(Kind::ConfigMap, &source["configMap"]["name"]);
        }
        add(Kind::Claim, &volume["persistentVolumeClaim"]["claimName"]);
        if volume.get("ephemeral").is_some_and(|ephemeral| !ephemeral.is_null())
            && let Some(name) = volume["name"].as_str()
        {
            add(Kind::Claim, &Value::from(format!("{}-{name}", pod.name())));
        }
    }
    for claim in items(spec, "resourceClaims") {
        add(Kind::ResourceClaim, &claim["resourceClaimName"]);
    }
    if let Some(status) = pod.0.get("status") {
        for claim in items(status, "resourceClaimStatuses") {
            add(Kind::ResourceClaim, &claim["resourceClaimName"]);
        }
        add(Kind::ResourceClaim, &status["extendedResourceClaimStatus"]["resourceClaimName"]);
    }
    all
}

/// The Secrets of a PersistentVolume that a kubelet needs. Source: kubernetes `pkg/api/v1/persistentvolume/util.go`.
fn volume_secrets(volume: &Object, claim_namespace: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let Some(spec) = volume.0.get("spec") else { return all };
    let mut add = |namespace: &Value, name: &Value| {
        let namespace = namespace.as_str().filter(|text| !text.is_empty()).unwrap_or(claim_namespace);
        if let Some(name) = name.as_str().filter(|text| !text.is_empty()) {
            all.insert(format!("{namespace}/{name}"));
        }
    };
    add(&spec["azureFile"]["secretNamespace"], &spec["azureFile"]["secretName"]);
    for source in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
        let secret = &spec[source]["secretRef"];
        add(&secret["namespace"], &secret["name"]);
    }
    for secret in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        let secret = &spec["csi"][secret];
        add(&secret["namespace"], &secret["name"]);
    }
    all
}
