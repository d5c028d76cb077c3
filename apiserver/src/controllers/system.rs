//! What upstream's apiserver itself keeps: the four namespaces of the system, and the Service `kubernetes` with its
//! endpoints. Source: kubernetes `pkg/controlplane/controller/{systemnamespaces,kubernetesservice}`,
//! `pkg/controlplane/reconcilers/lease.go`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corten_store::{LeaseId, List, Put, Store, StoreError, Swap};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];
const EVERY: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(15);

/// Makes what is not there; upstream looks once a minute.
///
/// # Errors
/// The server refuses.
pub async fn namespaces(client: &Client) -> kube::Result<()> {
    let all: Api<Namespace> = Api::all(client.clone());
    for name in NAMESPACES {
        if all.get_opt(name).await?.is_some() {
            continue;
        }
        let meta = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata: meta, ..Namespace::default() };
        match all.create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// The Service `kubernetes` and who serves it.
#[derive(Clone)]
pub struct Kubernetes {
    pub store: Arc<dyn Store>,
    pub prefix: String,
    pub service: IpAddr,
    pub advertise: IpAddr,
    pub port: u16,
    pub node_port: Option<u16>,
}

impl Kubernetes {
    /// Keeps namespaces, Service and endpoints, for ever.
    pub async fn run(self, client: Client) {
        let mut lease = None;
        loop {
            if let Err(error) = namespaces(&client).await {
                tracing::debug!("namespaces of the system: {error}");
            }
            if let Err(error) = self.keep(&client, &mut lease).await {
                tracing::warn!("the Service kubernetes: {error:#}");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// # Errors
    /// Of the API or the store.
    pub async fn keep(&self, client: &Client, lease: &mut Option<LeaseId>) -> anyhow::Result<()> {
        self.hold(lease).await?;
        let mut addresses = self.masters().await?;
        addresses.sort_unstable();
        addresses.dedup();
        one::<Service>(client, self.service_object()).await?;
        one::<Endpoints>(client, self.endpoints(&addresses)).await?;
        one::<EndpointSlice>(client, self.slice(&addresses)).await?;
        Ok(())
    }

    /// Takes this server out of the endpoints: it ends.
    pub async fn leave(&self, client: &Client) {
        let key = self.key();
        if let Ok(read) = self.store.get(key.as_bytes(), None).await
            && let Some(kv) = read.kv
        {
            self.store.delete(key.as_bytes(), kv.mod_revision).await.ok();
        }
        let Ok(mut addresses) = self.masters().await else { return };
        addresses.sort_unstable();
        one::<Endpoints>(client, self.endpoints(&addresses)).await.ok();
        one::<EndpointSlice>(client, self.slice(&addresses)).await.ok();
    }

    fn key(&self) -> String {
        format!("{}/masterleases/{}", self.prefix, self.advertise)
    }

    /// This server's lease among all of them.
    async fn hold(&self, lease: &mut Option<LeaseId>) -> Result<(), StoreError> {
        if let Some(id) = *lease {
            match self.store.keep_alive(id).await {
                Ok(_) => return Ok(()),
                Err(StoreError::NoLease(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let id = self.store.grant(LEASE).await?.id;
        let value = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {},
            "subsets": [{"addresses": [{"ip": self.advertise.to_string()}]}]});
        let key = self.key();
        let mut expected = 0;
        loop {
            let put = Put::update(key.clone(), value.to_string(), expected).lease(Some(id));
            match self.store.put(put).await? {
                Swap::Done(_) => break,
                Swap::Changed { current, .. } => expected = current.map_or(0, |kv| kv.mod_revision),
            }
        }
        *lease = Some(id);
        Ok(())
    }

    async fn masters(&self) -> Result<Vec<IpAddr>, StoreError> {
        let prefix = format!("{}/masterleases/", self.prefix);
        let page = self.store.list(List::new(prefix.clone())).await?;
        let address = |key: &[u8]| std::str::from_utf8(&key[prefix.len()..]).ok()?.parse().ok();
        Ok(page.kvs.iter().filter_map(|kv| address(&kv.key)).collect())
    }

    fn service_object(&self) -> Value {
        let mut port = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.port});
        let mut ty = "ClusterIP";
        if let Some(node_port) = self.node_port {
            port["nodePort"] = node_port.into();
            ty = "NodePort";
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": self.service.to_string(), "clusterIPs": [self.service.to_string()], "ports": [port],
                "ipFamilies": [if self.service.is_ipv4() { "IPv4" } else { "IPv6" }], "ipFamilyPolicy": "SingleStack",
                "sessionAffinity": "None", "type": ty},
        })
    }

    fn endpoints(&self, addresses: &[IpAddr]) -> Value {
        let list: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        let port = json!({"name": "https", "port": self.port, "protocol": "TCP"});
        let subsets = if list.is_empty() { json!([]) } else { json!([{"addresses": list, "ports": [port]}]) };
        json!({
            "apiVersion": "v1", "kind": "Endpoints", "subsets": subsets,
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        })
    }

    fn slice(&self, addresses: &[IpAddr]) -> Value {
        let endpoint = |ip: &IpAddr| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}});
        let ty = if self.advertise.is_ipv4() { "IPv4" } else { "IPv6" };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": ty,
            "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
        })
    }
}

/// Makes an object, or changes what differs of the fields that `wanted` has.
async fn one<K>(client: &Client, wanted: Value) -> anyhow::Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Serialize + Clone,
    K: std::fmt::Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let Some(had) = api.get_opt("kubernetes").await? else {
        return match api.create(&PostParams::default(), &serde_json::from_value(wanted)?).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => Ok(other.map(|_| ())?),
        };
    };
    let mut new = serde_json::to_value(&had)?;
    let old = new.clone();
    merge(&mut new, &wanted);
    if new == old {
        return Ok(());
    }
    match api.replace("kubernetes", &PostParams::default(), &serde_json::from_value(new)?).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// Lists of the same length are merged item by item, so that what the server defaulted in them is no difference.
fn merge(into: &mut Value, wanted: &Value) {
    match (into, wanted) {
        (Value::Object(into), Value::Object(wanted)) => {
            for (key, value) in wanted {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(wanted)) if into.len() == wanted.len() => {
            into.iter_mut().zip(wanted).for_each(|(into, wanted)| merge(into, wanted));
        }
        (Value::Null, Value::Array(wanted)) if wanted.is_empty() => {}
        (into, wanted) => *into = wanted.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_defaulted_is_no_difference() {
        let mut had = json!({"spec": {"ports": [{"port": 443, "nodePort": 0}], "ipFamilies": ["IPv4"]}});
        let before = had.clone();
        merge(&mut had, &json!({"spec": {"ports": [{"port": 443}]}, "subsets": []}));
        had.as_object_mut().expect("an object").remove("subsets");
        assert_eq!(had, before);
        merge(&mut had, &json!({"spec": {"ports": [{"port": 444}]}}));
        assert_eq!(had["spec"]["ports"], json!([{"port": 444, "nodePort": 0}]));
    }
}
