//! Nodes without a machine: a lease that is renewed, a status that is Ready, and pods that "run" as soon as they are
//! bound: Running and ready, or Succeeded where they must not be started again.

use std::time::Duration;

use anyhow::Result;
use futures::TryStreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

const RENEWED: Duration = Duration::from_secs(5);

/// They live as long as the value.
pub async fn start(client: Client, count: usize) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let name = format!("node-{number}");
        register(&client, &name).await?;
        tasks.spawn(renew(client.clone(), name));
    }
    tasks.spawn(run_pods(client));
    Ok(tasks)
}

async fn register(client: &Client, name: &str) -> Result<()> {
    let node = serde_json::from_value(json!({"metadata": {"name": name, "labels": {
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}}))?;
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &node).await?;
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "Test", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "500", "ephemeral-storage": "100Gi"});
    let status = json!({"status": {
        "capacity": resources, "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": name}],
        "conditions": [condition("Ready", "True"), condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"), condition("PIDPressure", "False")],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

async fn renew(client: Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    loop {
        let now = Timestamp::now();
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")}});
        let apply = PatchParams::apply("kubelet").force();
        if let Err(error) = leases.patch(&name, &apply, &Patch::Apply(lease)).await {
            println!("lease of {name}: {error}");
        }
        tokio::time::sleep(RENEWED).await;
    }
}

async fn run_pods(client: Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let each = |pod: Pod| {
        let client = client.clone();
        async move {
            if let Err(error) = run_pod(&client, &pod).await {
                println!("pod {}: {error:#}", pod.name_any());
            }
            Ok(())
        }
    };
    use kube::runtime::WatchStreamExt;
    let changes = watcher(pods, watcher::Config::default()).default_backoff().applied_objects();
    // What the watcher says of a server that is away it mends itself.
    let _ = changes.try_for_each_concurrent(16, each).await;
}

async fn run_pod(client: &Client, pod: &Pod) -> Result<()> {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.node_name.is_some()) else { return Ok(()) };
    if pod.metadata.deletion_timestamp.is_some() {
        return gone(pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop));
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    if phase != "Pending" {
        return Ok(());
    }
    let once = spec.restart_policy.as_deref() != Some("Always");
    let now = Timestamp::now().to_string();
    let state = if once {
        json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}})
    } else {
        json!({"running": {"startedAt": now}})
    };
    let containers: Vec<_> = spec
        .containers
        .iter()
        .map(|container| {
            json!({
        "name": container.name, "image": container.image, "imageID": "", "ready": !once, "restartCount": 0,
        "started": !once, "state": state})
        })
        .collect();
    let ready = if once { "False" } else { "True" };
    let condition =
        |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": now});
    let status = json!({"status": {
        "phase": if once { "Succeeded" } else { "Running" }, "startTime": now, "podIP": "198.51.100.7",
        "podIPs": [{"ip": "198.51.100.7"}], "hostIP": "192.0.2.1", "containerStatuses": containers,
        "conditions": [condition("Initialized", "True"), condition("PodScheduled", "True"),
            condition("ContainersReady", ready), condition("Ready", ready)],
    }});
    gone(pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await.map(drop))
}

/// A pod that is gone meanwhile needs nothing.
fn gone(result: kube::Result<()>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => Ok(other?),
    }
}
