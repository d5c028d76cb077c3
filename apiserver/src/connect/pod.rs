//! A pod, its container and its node's kubelet. Source: kubernetes `pkg/registry/core/pod/strategy.go`.

use serde_json::Value;

use super::Connect;
use super::dial::Location;
use super::kubelets::Endpoint;
use crate::object::Object;
use crate::status::{Result, Status};
use crate::stored::Form;

impl Connect<'_> {
    /// An object of the core group.
    pub(super) async fn read(&self, plural: &str, namespace: &str, name: &str) -> Result<Object> {
        let served = self.api.registry.find("", "v1", plural).ok_or_else(Status::no_such_path)?;
        let read = self.api.store.get(&served.key(namespace, name), None).await;
        let kv =
            read.map_err(Status::internal)?.kv.ok_or_else(|| Status::not_found(&served.resource, name))?;
        Form::of(&served).object(&kv, kv.mod_revision)
    }

    pub(super) async fn pod(&self) -> Result<Object> {
        self.read("pods", &self.call.info.namespace, &self.call.info.name).await
    }

    /// The kubelet of a pod's node; `None`: it has no node yet.
    pub(super) async fn kubelet(&self, pod: &Object) -> Result<Option<Endpoint>> {
        match pod.text(&["spec", "nodeName"]) {
            "" => Ok(None),
            node => self.api.kubelets.endpoint(&self.read("nodes", "", node).await?).map(Some),
        }
    }

    /// As [`Connect::kubelet`], where there must be one.
    pub(super) async fn assigned(&self, pod: &Object) -> Result<Endpoint> {
        let without = || Status::bad_request(format!("pod {} does not have a host assigned", pod.name()));
        self.kubelet(pod).await?.ok_or_else(without)
    }

    pub(super) fn location(&self, endpoint: &Endpoint, path: String) -> Location {
        Location {
            tls: Some(self.api.kubelets.checking.clone()),
            host: endpoint.host.clone(),
            port: endpoint.port,
            path,
            timeout: self.api.kubelets.timeout,
        }
    }
}

/// The container that was asked for, or the only one.
pub(super) fn container(pod: &Object, asked: &str) -> Result<String> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod.get(&["spec", list]).and_then(Value::as_array);
        containers.into_iter().flatten().filter_map(|one| one["name"].as_str()).map(str::to_owned).collect()
    };
    // In the order in which upstream visits them.
    let all = [names("initContainers"), names("containers"), names("ephemeralContainers")].concat();
    if !asked.is_empty() {
        return if all.iter().any(|name| name == asked) {
            Ok(asked.to_owned())
        } else {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {}", pod.name())))
        };
    }
    let must = format!("a container name must be specified for pod {}", pod.name());
    match &*names("containers") {
        [one] => Ok(one.clone()),
        [] => Err(Status::bad_request(must)),
        _ => Err(Status::bad_request(format!("{must}, choose one of: [{}]", all.join(" ")))),
    }
}
