//! One round of workloads in a namespace of its own, from nothing to nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::Board;

/// Stock controllers on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

pub async fn run(client: &Client, number: usize, board: &mut Board) {
    let round = Round { client: client.clone(), namespace: format!("round-{number}") };
    macro_rules! step {
        ($what:literal, $step:expr) => {{
            let start = Instant::now();
            let result = $step.await;
            let failed = result.is_err();
            board.add(format!("round {number}: {}", $what), start, result);
            if failed {
                return;
            }
        }};
    }
    step!("a namespace gets its service account and the root CA", round.namespace());
    step!("a Deployment of 3 with a Service: pods ready, endpoints there", round.deployment());
    step!("it is scaled to 10 and to 2", round.scale());
    step!("a new image rolls out, the old ReplicaSet is empty", round.rollout());
    step!("a StatefulSet of 3 comes up in order", round.stateful_set());
    step!("a DaemonSet has a pod on each node", round.daemon_set());
    step!("a Job of 6 in pairs completes", round.job());
    step!("a deleted pod is replaced", round.replaced());
    step!("a tree of owners is collected in the background", round.tree("Background"));
    step!("a tree of owners is collected in the foreground", round.tree("Foreground"));
    step!("a Deployment is deleted with all that it owns", round.deleted());
    step!("the namespace goes with all that is in it", round.end());
}

struct Round {
    client: Client,
    namespace: String,
}

impl Round {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create<K>(&self, object: Value) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
    {
        self.api::<K>().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    async fn namespace(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"name": self.namespace}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        until("the default service account and kube-root-ca.crt", || async {
            let account = self.api::<ServiceAccount>().get_opt("default").await?;
            let ca = self.api::<ConfigMap>().get_opt("kube-root-ca.crt").await?;
            Ok(account.is_some() && ca.is_some())
        })
        .await
    }

    async fn deployment(&self) -> Result<()> {
        self.create::<Deployment>(json!({"metadata": {"name": "web"}, "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("web", "1", "Always")}}))
            .await?;
        self.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {
            "selector": {"app": "web"}, "ports": [{"port": 80}]}}))
            .await?;
        self.deployed(3).await?;
        until("three endpoints in the slice and in Endpoints", || async {
            let slices = self.api::<EndpointSlice>().list(&ListParams::default()).await?;
            let ready: usize =
                slices.iter().map(|slice| slice.endpoints.as_deref().unwrap_or_default().len()).sum();
            let endpoints = self.api::<Endpoints>().get_opt("web").await?;
            // All pods have one address here: Endpoints has it once.
            Ok(ready >= 1 && endpoints.is_some_and(|endpoints| endpoints.subsets.is_some()))
        })
        .await
    }

    async fn deployed(&self, count: i32) -> Result<()> {
        until("the Deployment is at its count", || async {
            let web = self.api::<Deployment>().get("web").await?;
            let status = web.status.unwrap_or_default();
            Ok(status.observed_generation == web.metadata.generation
                && status.replicas == Some(count)
                && status.updated_replicas == Some(count)
                && status.available_replicas == Some(count))
        })
        .await
    }

    async fn scale(&self) -> Result<()> {
        for count in [10, 2] {
            let scale = json!({"spec": {"replicas": count}});
            let deployments = self.api::<Deployment>();
            deployments.patch_scale("web", &PatchParams::default(), &Patch::Merge(scale)).await?;
            self.deployed(count).await?;
        }
        until("the pods that are too many are gone", || async {
            let pods = self.api::<Pod>().list(&ListParams::default().labels("app=web")).await?;
            Ok(pods.items.len() == 2)
        })
        .await
    }

    async fn rollout(&self) -> Result<()> {
        let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "example/web:2"}]}}}});
        self.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Strategic(image)).await?;
        self.deployed(2).await?;
        let sets = self.api::<ReplicaSet>().list(&ListParams::default().labels("app=web")).await?;
        let mut counts: Vec<i32> =
            sets.iter().filter_map(|set| set.spec.as_ref()).filter_map(|spec| spec.replicas).collect();
        counts.sort_unstable();
        if counts != [0, 2] {
            bail!("the ReplicaSets have {counts:?}");
        }
        Ok(())
    }

    async fn stateful_set(&self) -> Result<()> {
        self.create::<StatefulSet>(json!({"metadata": {"name": "db"}, "spec": {
            "serviceName": "db", "replicas": 3, "selector": {"matchLabels": {"app": "db"}},
            "template": template("db", "1", "Always")}}))
            .await?;
        until("three pods are ready", || async {
            let status = self.api::<StatefulSet>().get("db").await?.status.unwrap_or_default();
            Ok(status.ready_replicas == Some(3))
        })
        .await?;
        let pods = self.api::<Pod>().list(&ListParams::default().labels("app=db")).await?;
        let mut pods: Vec<_> =
            pods.iter().map(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any())).collect();
        pods.sort_by(|a, b| a.1.cmp(&b.1));
        if !pods.is_sorted() || pods.len() != 3 {
            bail!("they came up as {pods:?}");
        }
        Ok(())
    }

    async fn daemon_set(&self) -> Result<()> {
        self.create::<DaemonSet>(json!({"metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent", "1", "Always")}}))
            .await?;
        until("three pods are ready", || async {
            let status = self.api::<DaemonSet>().get("agent").await?.status.unwrap_or_default();
            Ok(status.number_ready == 3 && status.desired_number_scheduled == 3)
        })
        .await
    }

    async fn job(&self) -> Result<()> {
        self.create::<Job>(json!({"metadata": {"name": "once"}, "spec": {
            "completions": 6, "parallelism": 2, "template": template("once", "1", "Never")}}))
            .await?;
        until("it is complete", || async {
            let status = self.api::<Job>().get("once").await?.status.unwrap_or_default();
            let complete = status
                .conditions
                .unwrap_or_default()
                .iter()
                .any(|one| one.type_ == "Complete" && one.status == "True");
            Ok(complete && status.succeeded == Some(6))
        })
        .await
    }

    async fn replaced(&self) -> Result<()> {
        let pods = self.api::<Pod>();
        let old = pods.get("db-1").await?;
        pods.delete("db-1", &DeleteParams::default()).await?;
        until("another pod of this name is ready", || async {
            let new = pods.get_opt("db-1").await?;
            Ok(new.is_some_and(|new| {
                let phase = new.status.as_ref().and_then(|status| status.phase.as_deref());
                new.uid() != old.uid() && phase == Some("Running")
            }))
        })
        .await
    }

    /// Three levels, ten children each.
    async fn tree(&self, propagation: &str) -> Result<()> {
        let maps = self.api::<ConfigMap>();
        let make = |name: String, owner: Option<ConfigMap>| {
            let maps = maps.clone();
            async move {
                let owners: Vec<_> = owner
                    .iter()
                    .map(|owner| {
                        json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "name": owner.name_any(), "uid": owner.uid(), "blockOwnerDeletion": true})
                    })
                    .collect();
                let map =
                    json!({"metadata": {"name": name, "labels": {"tree": "yes"}, "ownerReferences": owners}});
                anyhow::Ok(maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?)
            }
        };
        let root = make("tree".to_owned(), None).await?;
        for branch in 0..10 {
            let child = make(format!("tree-{branch}"), Some(root.clone())).await?;
            for leaf in 0..10 {
                make(format!("tree-{branch}-{leaf}"), Some(child.clone())).await?;
            }
        }
        let parameters =
            if propagation == "Foreground" { DeleteParams::foreground() } else { DeleteParams::background() };
        maps.delete("tree", &parameters).await?;
        until("nothing of the tree is left", || async {
            Ok(maps.list(&ListParams::default().labels("tree")).await?.items.is_empty())
        })
        .await
    }

    async fn deleted(&self) -> Result<()> {
        self.api::<Deployment>().delete("web", &DeleteParams::background()).await?;
        until("its ReplicaSets and pods are gone", || async {
            let labels = ListParams::default().labels("app=web");
            let sets = self.api::<ReplicaSet>().list(&labels).await?.items.len();
            Ok(sets + self.api::<Pod>().list(&labels).await?.items.len() == 0)
        })
        .await
    }

    async fn end(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        until("the namespace is gone", || async { Ok(namespaces.get_opt(&self.namespace).await?.is_none()) })
            .await
    }
}

fn template(app: &str, version: &str, restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"restartPolicy": restart, "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": format!("example/{app}:{version}"),
            "resources": {"requests": {"cpu": "10m"}}}]}})
}

async fn until<F: Future<Output = Result<bool>>>(what: &str, condition: impl Fn() -> F) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if condition().await.with_context(|| what.to_owned())? {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
