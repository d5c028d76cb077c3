//! What every cluster has from the beginning: the roles and bindings that upstream makes, system namespaces and
//! priority classes. Looked after at each start: what is missing is added, what somebody added stays.
//! Source: kubernetes `pkg/registry/rbac/rest/storage_rbac.go`, `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`
//! (as facts recorded of a stock server, in the schema's `facts/rbac.json`), `pkg/registry/scheduling/rest`.

pub mod aggregate;
mod client;
mod reconcile;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use self::client::{Client, Failure};
use self::reconcile::Step;
use crate::api::Api;

const GROUP_VERSION: &str = "rbac.authorization.k8s.io/v1";
const BASE: &str = "/apis/rbac.authorization.k8s.io/v1";
/// Objects that are written at once: the store commits them together.
const AT_ONCE: usize = 32;
const ATTEMPTS: usize = 30;
const BETWEEN: Duration = Duration::from_secs(1);

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub created: usize,
    pub updated: usize,
}

/// What to bring about.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Roles are looked after (the mode RBAC is on).
    pub rbac: bool,
    /// The certificates are ours: kubeadm's groups and users are bound, where nobody has.
    pub kubeadm: bool,
}

/// Once the server answers (in this process); tried for half a minute, as upstream does.
///
/// # Errors
/// What could not be made.
pub async fn ensure(api: &Arc<Api>, wish: Wish) -> Result<Done, String> {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        match try_ensure(api, wish).await {
            Ok(done) => return Ok(done),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn try_ensure(api: &Arc<Api>, wish: Wish) -> Result<Done, String> {
    let client = Client::new(api);
    let mut done = run(&client, namespaces()).await?;
    let classes = run(&client, priority_classes()).await?;
    done.created += classes.created;
    if wish.rbac {
        let policy = run(&client, policy()).await?;
        done.created += policy.created;
        done.updated += policy.updated;
    }
    if wish.kubeadm {
        done.created += run(&client, kubeadm()).await?.created;
    }
    Ok(done)
}

/// An object that should be there.
struct Wanted {
    collection: String,
    object: Value,
    /// What is there is brought in line; otherwise it is enough that it is there.
    reconcile: bool,
}

async fn run(client: &Client, wanted: Vec<Wanted>) -> Result<Done, String> {
    let mut steps =
        futures::stream::iter(wanted.into_iter().map(|wanted| one(client, wanted))).buffer_unordered(AT_ONCE);
    let mut done = Done::default();
    let mut errors = Vec::new();
    while let Some(step) = steps.next().await {
        match step {
            Ok(Step::Create(_) | Step::Recreate(_)) => done.created += 1,
            Ok(Step::Update(_)) => done.updated += 1,
            Ok(Step::Nothing) => {}
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(done) } else { Err(errors.join("; ")) }
}

async fn one(client: &Client, wanted: Wanted) -> Result<Step, String> {
    let name = wanted.object["metadata"]["name"].as_str().unwrap_or_default();
    let path = format!("{}/{name}", wanted.collection);
    let failed = |failure: Failure| format!("{path}: {}", failure.message);
    let existing = match client.ask(Method::GET, &path, None).await {
        Ok(existing) => Some(existing),
        Err(Failure { code: StatusCode::NOT_FOUND, .. }) => None,
        Err(failure) => return Err(failed(failure)),
    };
    let step = match existing {
        Some(_) if !wanted.reconcile => Step::Nothing,
        existing => reconcile::step(existing, wanted.object.clone()),
    };
    match &step {
        Step::Nothing => {}
        Step::Create(object) => {
            match client.ask(Method::POST, &wanted.collection, Some(object)).await {
                // Another server of the same cluster was faster.
                Ok(_) | Err(Failure { code: StatusCode::CONFLICT, .. }) => {}
                Err(failure) => return Err(failed(failure)),
            }
        }
        Step::Update(object) => {
            client.ask(Method::PUT, &path, Some(object)).await.map_err(failed)?;
        }
        Step::Recreate(object) => {
            client.ask(Method::DELETE, &path, None).await.map_err(failed)?;
            client.ask(Method::POST, &wanted.collection, Some(object)).await.map_err(failed)?;
        }
    }
    Ok(step)
}

fn namespaces() -> Vec<Wanted> {
    let namespace = |name: &str| Wanted {
        collection: "/api/v1/namespaces".to_owned(),
        object: json!({ "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": name } }),
        reconcile: false,
    };
    ["default", "kube-system", "kube-public", "kube-node-lease"].map(namespace).into()
}

/// Source: kubernetes `pkg/apis/scheduling/v1/helpers.go`.
fn priority_classes() -> Vec<Wanted> {
    let class = |name: &str, value: i32, description: &str| Wanted {
        collection: "/apis/scheduling.k8s.io/v1/priorityclasses".to_owned(),
        object: json!({
            "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": { "name": name },
            "value": value, "description": description,
        }),
        reconcile: false,
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// What kubeadm binds. Source: kubeadm `phases/kubeconfig`, `phases/bootstraptoken/node`.
fn kubeadm() -> Vec<Wanted> {
    let binding = |name: &str, role: &str, kind: &str, subject: &str| Wanted {
        collection: format!("{BASE}/clusterrolebindings"),
        object: json!({
            "kind": "ClusterRoleBinding", "apiVersion": GROUP_VERSION, "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject }],
        }),
        reconcile: false,
    };
    vec![
        binding("kubeadm:cluster-admins", "cluster-admin", "Group", "kubeadm:cluster-admins"),
        binding(
            "kubeadm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            "User",
            "kube-apiserver-kubelet-client",
        ),
    ]
}

/// Upstream's roles and bindings. Read each time: they are needed once, at the start.
fn policy() -> Vec<Wanted> {
    const FACTS: &str = include_str!("../../../schema/facts/rbac.json");
    let objects: Vec<Value> = serde_json::from_str(FACTS).expect("checked by a test");
    objects.into_iter().map(wanted).collect()
}

fn wanted(object: Value) -> Wanted {
    let plural = format!("{}s", object["kind"].as_str().unwrap_or_default().to_ascii_lowercase());
    let collection = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{BASE}/namespaces/{namespace}/{plural}"),
        None => format!("{BASE}/{plural}"),
    };
    Wanted { collection, object, reconcile: true }
}

#[cfg(test)]
mod tests;
