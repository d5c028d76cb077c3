//! A kubelet changes only what is its own: what the Node authorizer cannot see, since it does not know objects.
//! Source: kubernetes `plugin/pkg/admission/noderestriction`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::certificate_subject_restriction::subject;
use super::{Context, Plugin, pods};
use crate::auth::{Attributes, Decision};
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::{Result, Status};

pub const PLUGIN: Plugin = Plugin {
    name: "NodeRestriction",
    // Not so upstream, where kubeadm switches it on.
    on_by_default: true,
    resources: &[
        ("", "pods"),
        ("", "nodes"),
        ("", "persistentvolumeclaims"),
        ("", "serviceaccounts"),
        ("coordination.k8s.io", "leases"),
        ("storage.k8s.io", "csinodes"),
        ("resource.k8s.io", "resourceslices"),
        ("certificates.k8s.io", "certificatesigningrequests"),
    ],
    mutate: Some(|context, review| Box::pin(admit(context, review))),
    validate: None,
};

async fn admit(context: &Context, review: &mut Review) -> Result<()> {
    let Some(node) = review.user.node().map(str::to_owned) else { return Ok(()) };
    if node.is_empty() {
        return Err(review.forbid(format!("could not determine node from user {:?}", review.user.name)));
    }
    let node = node.as_str();
    let resource = review.served.resource.plural.to_string();
    let subresource = review.subresource.clone();
    let refused = match (&*resource, &*subresource) {
        ("pods", "") => return pod(context, review, node).await,
        ("pods", "status") => pod_status(review, node),
        ("pods", "eviction") => return eviction(context, review, node).await,
        ("pods", other) => {
            Some(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("nodes", _) => own_node(review, node),
        ("persistentvolumeclaims", "status") => claim_status(review, node),
        ("persistentvolumeclaims", _) => Some("may only update PVC status".to_owned()),
        ("serviceaccounts", "token") if review.operation == Operation::Create => {
            return token(context, review, node).await;
        }
        ("leases", _) => lease(review, node),
        ("csinodes", _) => (name(review) != node)
            .then(|| "can only access CSINode with the same name as the requesting node".to_owned()),
        ("resourceslices", _) => slice(review, node),
        ("certificatesigningrequests", "") => certificate(review, node),
        _ => None,
    };
    refused.map_or(Ok(()), |why| Err(review.forbid(why)))
}

/// Also of a creation, which has none in its path.
fn name(review: &Review) -> &str {
    match (review.operation, &review.object) {
        (Operation::Create, Some(object)) => object.name(),
        _ => &review.name,
    }
}

async fn existing_pod(context: &Context, review: &Review, name: &str) -> Result<Object> {
    let pod = context.lookup.get("", "pods", &review.namespace, name).await?;
    let row = context.lookup.row("", "pods")?;
    pod.ok_or_else(|| Status::not_found(&row.resource, name))
}

async fn pod(context: &Context, review: &Review, node: &str) -> Result<()> {
    match review.operation {
        Operation::Create => {
            let Some(pod) = &review.object else { return Ok(()) };
            if let Some(why) = new_pod(pod, node) {
                return Err(review.forbid(why));
            }
            let Some(object) = context.lookup.get("", "nodes", "", node).await? else {
                return Err(Status::not_found(&context.lookup.row("", "nodes")?.resource, node));
            };
            let owner =
                pod.owner_references().next().map_or("", |owner| owner["uid"].as_str().unwrap_or_default());
            if owner != object.uid() {
                let why = format!("node {node} UID mismatch: expected {owner} got {}", object.uid());
                return Err(review.forbid(why));
            }
            let spec = pod.0.get("spec").unwrap_or(&Value::Null);
            match api_reference(spec) {
                Ok(None) => Ok(()),
                Ok(Some(what)) => {
                    Err(review.forbid(format!("node {node:?} can not create pods that reference {what}")))
                }
                Err(why) => {
                    Err(review.forbid(format!("error checking mirror pod for API references: {why}")))
                }
            }
        }
        Operation::Delete => {
            let pod = existing_pod(context, review, &review.name).await?;
            if pod.text(&["spec", "nodeName"]) == node {
                return Ok(());
            }
            Err(review.forbid(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        Operation::Update | Operation::Connect => Err(review.forbid(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
    }
}

fn new_pod(pod: &Object, node: &str) -> Option<String> {
    if !pods::is_mirror(pod) {
        let mirror = pods::MIRROR;
        return Some(format!(
            "pod does not have {mirror:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.text(&["spec", "nodeName"]) != node {
        return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners: Vec<&Value> = pod.owner_references().collect();
    let [owner] = *owners else {
        return Some(if owners.is_empty() {
            format!("node {node:?} can only create pods with an owner reference set to itself")
        } else {
            format!("node {node:?} can only create pods with a single owner reference set to itself")
        });
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Some(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Some(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    (owner["blockOwnerDeletion"] == true)
        .then(|| format!("node {node:?} must not set blockOwnerDeletion on an owner reference"))
}

/// Volumes that need nothing of the API.
const PLAIN_VOLUMES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

const API_VOLUMES: &[(&str, &str)] = &[
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];

const API_SOURCES: &[(&str, &str)] = &[
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// The first object of the API that a pod refers to. Source: kubernetes `pkg/api/pod/util.go` HasAPIObjectReference.
fn api_reference(spec: &Value) -> Result<Option<&'static str>, String> {
    if !spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        return Ok(Some("serviceaccounts"));
    }
    if pods::names_secrets(spec) {
        return Ok(Some("secrets"));
    }
    if pods::names_config_maps(spec) {
        return Ok(Some("configmaps"));
    }
    if pods::items(spec, "resourceClaims").next().is_some() {
        return Ok(Some("resourceclaims"));
    }
    let first = |of: &Value, list: &[(&str, &'static str)]| {
        list.iter().find(|(key, _)| pods::has(of, key)).map(|(_, shown)| *shown)
    };
    for volume in pods::items(spec, "volumes") {
        if PLAIN_VOLUMES.iter().any(|key| pods::has(volume, key)) {
            continue;
        }
        if let Some(shown) = first(volume, API_VOLUMES) {
            return Ok(Some(shown));
        }
        let shown_name = &volume["name"];
        if !pods::has(volume, "projected") {
            return Err(format!("unknown volume type for volume  {shown_name}"));
        }
        for source in pods::items(&volume["projected"], "sources") {
            match first(source, API_SOURCES) {
                Some(shown) => return Ok(Some(shown)),
                None if pods::has(source, "downwardAPI") => {}
                None => return Err(format!("unknown source for projected volume {shown_name}")),
            }
        }
    }
    Ok(None)
}

fn pod_status(review: &Review, node: &str) -> Option<String> {
    let (Operation::Update, Some(new), Some(old)) = (review.operation, &review.object, &review.old) else {
        return Some("unexpected operation".to_owned());
    };
    if old.text(&["spec", "nodeName"]) != node {
        return Some(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if new.labels().cloned().unwrap_or_default() != old.labels().cloned().unwrap_or_default() {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    let same = |field: &str| {
        let of = |pod: &Object| pod.get(&["status", field]).filter(|value| !value.is_null()).cloned();
        of(new) == of(old)
    };
    if !same("resourceClaimStatuses") {
        return Some(format!("node {node:?} cannot update resource claim statues"));
    }
    (!same("extendedResourceClaimStatus"))
        .then(|| format!("node {node:?} cannot update extended resource claim status"))
}

async fn eviction(context: &Context, review: &Review, node: &str) -> Result<()> {
    if review.operation != Operation::Create {
        return Err(review.forbid("unexpected operation"));
    }
    let named = if review.name.is_empty() { name(review) } else { &review.name };
    if named.is_empty() {
        return Err(review.forbid("could not determine pod from request data"));
    }
    let pod = existing_pod(context, review, named).await?;
    if pod.text(&["spec", "nodeName"]) == node {
        return Ok(());
    }
    Err(review.forbid(format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn claim_status(review: &Review, node: &str) -> Option<String> {
    let (Operation::Update, Some(new), Some(old)) = (review.operation, &review.object, &review.old) else {
        return Some("unexpected operation".to_owned());
    };
    let bare = |claim: &Object| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            claim.meta_mut().remove(field);
        }
        if let Some(status) = claim.0.get_mut("status").and_then(Value::as_object_mut) {
            for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.remove(field);
            }
        }
        claim
    };
    (bare(new) != bare(old)).then(|| {
        format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        )
    })
}

fn own_node(review: &Review, node: &str) -> Option<String> {
    let named = name(review);
    let named = if named.is_empty() { &review.name } else { named };
    if named != node {
        return Some(format!("node {node:?} is not allowed to modify node {named:?}"));
    }
    let Some(new) = &review.object else { return None };
    let set = |object: &Object, path: &[&str]| object.get(path).filter(|value| !value.is_null()).cloned();
    let source = set(new, &["spec", "configSource"]);
    match (review.operation, &review.old) {
        (Operation::Create, _) => {
            if source.is_some() {
                return Some(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(new.labels(), None);
            (!forbidden.is_empty())
                .then(|| format!("node {node:?} is not allowed to set the following labels: {forbidden}"))
        }
        (Operation::Update, Some(old)) => {
            if source.is_some() && source != set(old, &["spec", "configSource"]) {
                return Some(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            let list = |object: &Object, path: &[&str]| {
                object.get(path).and_then(Value::as_array).cloned().unwrap_or_default()
            };
            let same = |path: &[&str]| list(new, path) == list(old, path);
            if !same(&["spec", "taints"]) {
                return Some(format!("node {node:?} is not allowed to modify taints"));
            }
            if !same(&["metadata", "ownerReferences"]) {
                return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let forbidden = forbidden_labels(new.labels(), old.labels());
            (!forbidden.is_empty()).then(|| format!("is not allowed to modify labels: {forbidden}"))
        }
        _ => None,
    }
}

/// Source: kubelet `pkg/apis/well_known_labels.go`.
const KUBELET_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Labels that change and that a node may not change, in a row.
fn forbidden_labels(new: Option<&Map<String, Value>>, old: Option<&Map<String, Value>>) -> String {
    let of = |map: Option<&Map<String, Value>>, key: &str| map.and_then(|map| map.get(key)).cloned();
    let keys = new.into_iter().chain(old).flat_map(Map::keys);
    let changed = keys.filter(|key| of(new, key) != of(old, key));
    let forbidden: BTreeSet<&str> = changed.map(String::as_str).filter(|key| is_forbidden(key)).collect();
    forbidden.into_iter().collect::<Vec<_>>().join(", ")
}

fn is_forbidden(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |domain: &str| {
        namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    };
    let of_kubelets =
        KUBELET_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    within("node-restriction.kubernetes.io")
        || ((within("kubernetes.io") || within("k8s.io")) && !of_kubelets)
}

async fn token(context: &Context, review: &Review, node: &str) -> Result<()> {
    let Some(request) = &review.object else { return Ok(()) };
    let reference = |key: &str| request.text(&["spec", "boundObjectRef", key]);
    if reference("apiVersion") != "v1" || reference("kind") != "Pod" || reference("name").is_empty() {
        return Err(review.forbid("node requested token not bound to a pod"));
    }
    let uid = reference("uid");
    if uid.is_empty() {
        return Err(review.forbid("node requested token with a pod binding without a uid"));
    }
    let pod = existing_pod(context, review, reference("name")).await?;
    if uid != pod.uid() {
        return Err(review.forbid(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        )));
    }
    if pod.text(&["spec", "nodeName"]) != node {
        return Err(review.forbid("node requested token bound to a pod scheduled on a different node"));
    }
    audience(context, review, &pod).await
}

/// A node gets tokens for whom the pod's volumes name, or for whom it may ask.
async fn audience(context: &Context, review: &Review, pod: &Object) -> Result<()> {
    let wanted = review.object.as_ref().and_then(|request| request.get(&["spec", "audiences"])?.as_array());
    let wanted = match wanted.map(Vec::as_slice).unwrap_or_default() {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err(review.forbid("node may only request 0 or 1 audiences")),
    };
    if pod_names_audience(context, review, pod, wanted).await? {
        return Ok(());
    }
    let asked = Attributes {
        verb: "request-serviceaccounts-token-audience".to_owned(),
        version: "v1".to_owned(),
        resource: wanted.to_owned(),
        namespace: review.namespace.clone(),
        name: review.name.clone(),
        ..Attributes::default()
    };
    if context.authorizer.decide_settled(&review.user, &asked).await == Decision::Allow {
        return Ok(());
    }
    Err(review.forbid(format!(
        "audience {wanted:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        review.user.name
    )))
}

async fn pod_names_audience(context: &Context, review: &Review, pod: &Object, wanted: &str) -> Result<bool> {
    let spec = pod.0.get("spec").unwrap_or(&Value::Null);
    let is_wanted = |value: &Value| value["audience"].as_str().unwrap_or_default() == wanted;
    for volume in pods::items(spec, "volumes") {
        let mut tokens = pods::items(&volume["projected"], "sources")
            .filter(|source| pods::has(source, "serviceAccountToken"))
            .map(|source| &source["serviceAccountToken"]);
        if tokens.any(is_wanted) {
            return Ok(true);
        }
        let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
            Some(name) => name.to_owned(),
            None if pods::has(volume, "ephemeral") => {
                format!("{}-{}", pod.name(), volume["name"].as_str().unwrap_or_default())
            }
            None => String::new(),
        };
        let driver = if claim.is_empty() {
            volume["csi"]["driver"].as_str().unwrap_or_default().to_owned()
        } else {
            driver_of_claim(context, &review.namespace, &claim).await?
        };
        let driver = context.lookup.get("storage.k8s.io", "csidrivers", "", &driver).await?;
        if let Some(requests) = driver.as_ref().and_then(|driver| driver.0.get("spec"))
            && pods::items(requests, "tokenRequests").any(is_wanted)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Empty where it is not known.
async fn driver_of_claim(context: &Context, namespace: &str, claim: &str) -> Result<String> {
    let claim = context.lookup.get("", "persistentvolumeclaims", namespace, claim).await?;
    let volume = claim.as_ref().map_or("", |claim| claim.text(&["spec", "volumeName"]));
    let volume = context.lookup.get("", "persistentvolumes", "", volume).await?;
    Ok(volume.map_or_else(String::new, |volume| volume.text(&["spec", "csi", "driver"]).to_owned()))
}

fn lease(review: &Review, node: &str) -> Option<String> {
    if review.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    (name(review) != node)
        .then(|| "can only access node lease with the same name as the requesting node".to_owned())
}

fn slice(review: &Review, node: &str) -> Option<String> {
    let of = |object: &Option<Object>| {
        object.as_ref().map_or("", |slice| slice.text(&["spec", "nodeName"])) == node
    };
    match review.operation {
        Operation::Create if !of(&review.object) => {
            Some("can only create ResourceSlice with the same NodeName as the requesting node".to_owned())
        }
        Operation::Delete if !of(&review.old) => {
            Some("can only delete ResourceSlice with the same NodeName as the requesting node".to_owned())
        }
        _ => None,
    }
}

fn certificate(review: &Review, node: &str) -> Option<String> {
    let (Operation::Create, Some(request)) = (review.operation, &review.object) else { return None };
    let signer = request.text(&["spec", "signerName"]);
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return None;
    }
    match subject(request) {
        Err(why) => Some(format!("unable to parse csr: {why}")),
        Ok(subject) if subject.common_name == format!("system:node:{node}") => None,
        Ok(_) => Some(format!("can only create a node CSR with CN=system:node:{node}")),
    }
}
