//! What a kubelet may: its own Node, its pods and what they refer to; the rest by fixed rules.
//! Source: kubernetes `plugin/pkg/auth/authorizer/node/node_authorizer.go`.

use super::graph::{Graph, Kind};
use crate::auth::{Attributes, Decision, User};
use crate::select::Fields;

/// (verbs, group, resource) that all nodes may. Source: kubernetes `bootstrappolicy/policy.go` NodeRules.
const RULES: &[(&[&str], &str, &str)] = &[
    (&["create"], "authentication.k8s.io", "tokenreviews"),
    (&["create"], "authorization.k8s.io", "subjectaccessreviews"),
    (&["create"], "authorization.k8s.io", "localsubjectaccessreviews"),
    (&["get", "list", "watch"], "", "services"),
    (&["create", "update", "patch"], "", "events"),
    (&["create", "update", "patch"], "events.k8s.io", "events"),
    (&["get"], "", "endpoints"),
    (&["create", "get", "list", "watch"], "certificates.k8s.io", "certificatesigningrequests"),
    (&["get", "watch", "list"], "storage.k8s.io", "csidrivers"),
    (&["get", "list", "watch"], "node.k8s.io", "runtimeclasses"),
];

const READ: &[&str] = &["get", "list", "watch"];

pub fn authorize(graph: &Graph, user: &User, asked: &Attributes) -> Decision {
    let Some(node) = user.node() else { return Decision::NoOpinion(String::new()) };
    if node.is_empty() {
        return no(format!("unknown node for user {:?}", user.name));
    }
    match decide(graph, node, asked) {
        Ok(()) => Decision::Allow,
        Err(reason) => no(reason),
    }
}

fn no(reason: String) -> Decision {
    Decision::NoOpinion(reason)
}

fn decide(graph: &Graph, node: &str, asked: &Attributes) -> Result<(), String> {
    let (verb, name, namespace) = (&*asked.verb, &*asked.name, &*asked.namespace);
    let unless = |condition: bool, reason: &str| if condition { Ok(()) } else { Err(reason.to_owned()) };
    let related = |related: bool| {
        unless(!name.is_empty(), "No Object name found")?;
        let reason = format!("no relationship found between node '{node}' and this object");
        unless(related, &reason)
    };
    let refers = |kind: Kind| graph.refers(node, kind, namespace, name);
    let only_get = || {
        unless(verb == "get", "can only get individual resources of this type")?;
        unless(asked.subresource.is_empty(), "cannot get subresource")
    };
    let only_read = || {
        unless(READ.contains(&verb), "can only read resources of this type")?;
        unless(asked.subresource.is_empty(), "cannot read subresource")?;
        unless(!namespace.is_empty(), "can only read namespaced object of this type")
    };
    match (&*asked.group, &*asked.resource) {
        ("", "secrets") => {
            only_read()?;
            related(refers(Kind::Secret))
        }
        ("", "configmaps") => {
            only_read()?;
            related(refers(Kind::ConfigMap))
        }
        ("", "persistentvolumeclaims") if asked.subresource == "status" => {
            unless(matches!(verb, "update" | "patch"), "can only get/update/patch this type")?;
            related(refers(Kind::Claim))
        }
        ("", "persistentvolumeclaims") => {
            only_get()?;
            related(refers(Kind::Claim))
        }
        ("", "persistentvolumes") => {
            only_get()?;
            related(graph.has_volume(node, name))
        }
        ("resource.k8s.io", "resourceclaims") => {
            only_get()?;
            related(refers(Kind::ResourceClaim))
        }
        ("storage.k8s.io", "volumeattachments") => {
            only_get()?;
            related(graph.has_attachment(node, name))
        }
        ("", "serviceaccounts") if verb == "get" && asked.subresource.is_empty() => {
            only_read()?;
            related(refers(Kind::ServiceAccount))
        }
        ("", "serviceaccounts") => {
            let individual = verb == "create" && !name.is_empty();
            unless(individual, "can only create tokens for individual service accounts")?;
            unless(asked.subresource == "token", "can only create token subresource of serviceaccount")?;
            related(refers(Kind::ServiceAccount))
        }
        ("coordination.k8s.io", "leases") => {
            let reason = "can only get, create, update, patch, or delete a node lease";
            unless(matches!(verb, "get" | "create" | "update" | "patch" | "delete"), reason)?;
            let reason = "can only access leases in the \"kube-node-lease\" system namespace";
            unless(namespace == "kube-node-lease", reason)?;
            let reason = "can only access node lease with the same name as the requesting node";
            unless(verb == "create" || name == node, reason)
        }
        ("storage.k8s.io", "csinodes") => {
            let reason = "can only get, create, update, patch, or delete a CSINode";
            unless(matches!(verb, "get" | "create" | "update" | "patch" | "delete"), reason)?;
            unless(asked.subresource.is_empty(), "cannot authorize CSINode subresources")?;
            let reason = "can only access CSINode with the same name as the requesting node";
            unless(verb == "create" || name == node, reason)
        }
        ("resource.k8s.io", "resourceslices") => slice(graph, node, asked),
        ("", "nodes") => own_node(node, asked),
        ("", "pods") => pod(graph, node, asked),
        (group, resource) => {
            let combined = match &*asked.subresource {
                "" => resource.to_owned(),
                subresource => format!("{resource}/{subresource}"),
            };
            let allows = |(verbs, of, what): &&(&[&str], &str, &str)| {
                verbs.contains(&verb) && *of == group && *what == combined
            };
            unless(RULES.iter().find(allows).is_some(), "")
        }
    }
}

fn own_node(node: &str, asked: &Attributes) -> Result<(), String> {
    match (&*asked.subresource, &*asked.verb, &*asked.name) {
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Ok(()),
        ("", "get" | "list" | "watch", name) if name == node => Ok(()),
        ("", "get" | "list" | "watch", "") => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch", name) => {
            Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
        }
        _ => Err(String::new()),
    }
}

fn pod(graph: &Graph, node: &str, asked: &Attributes) -> Result<(), String> {
    let known = || {
        let reason = || format!("no relationship found between node '{node}' and this object");
        graph.has_pod(node, &asked.namespace, &asked.name).then_some(()).ok_or_else(reason)
    };
    match (&*asked.subresource, &*asked.verb) {
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        ("", "get") if asked.name.is_empty() => Err("No Object name found".to_owned()),
        ("", "get") => known(),
        ("", "list" | "watch") if selects(asked, node) => Ok(()),
        ("", "list" | "watch") if !asked.name.is_empty() => known(),
        ("", "list" | "watch") => {
            Err("can only list/watch pods with spec.nodeName field selector".to_owned())
        }
        _ => Err(String::new()),
    }
}

fn slice(graph: &Graph, node: &str, asked: &Attributes) -> Result<(), String> {
    if !asked.subresource.is_empty() {
        return Err("cannot authorize ResourceSlice subresources".to_owned());
    }
    match &*asked.verb {
        "create" => Ok(()),
        "get" | "update" | "patch" | "delete" if asked.name.is_empty() => {
            Err("No Object name found".to_owned())
        }
        "get" | "update" | "patch" | "delete" if graph.has_slice(node, &asked.name) => Ok(()),
        "get" | "update" | "patch" | "delete" => {
            Err(format!("no relationship found between node '{node}' and this object"))
        }
        "watch" | "list" | "deletecollection" if selects(asked, node) => Ok(()),
        "watch" | "list" | "deletecollection" => {
            Err("can only list/watch/deletecollection resourceslices with nodeName field selector".to_owned())
        }
        _ => Err(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, \
                  patch, delete, deletecollection"
                .to_owned(),
        ),
    }
}

/// Is only what is of this node asked for?
fn selects(asked: &Attributes, node: &str) -> bool {
    Fields::parse(&asked.field_selector)
        .is_ok_and(|fields| fields.exactly("spec.nodeName").is_some_and(|name| name == node))
}
