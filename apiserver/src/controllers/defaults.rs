//! Objects that are in every namespace: the ServiceAccount `default`, and the ConfigMap with the cluster's authority.
//! Both come back when they are deleted or changed. Source: kubernetes `pkg/controller/serviceaccount/
//! serviceaccounts_controller.go`, `pkg/controller/certificates/rootcacertpublisher`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};

use super::retry::Queue;

const SERVICE_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const WHAT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub async fn service_accounts(client: Client) {
    let of = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let changes = watcher::watcher(Api::<ServiceAccount>::all(client.clone()), of(SERVICE_ACCOUNT));
    let gone = changes.filter_map(|event| {
        ready(match event {
            Ok(Event::Delete(account)) => account.namespace(),
            _ => None,
        })
    });
    keep(client, gone.boxed(), |client, namespace| Box::pin(service_account(client, namespace))).await;
}

async fn service_account(client: Client, namespace: String) -> kube::Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &namespace);
    if accounts.get_opt(SERVICE_ACCOUNT).await?.is_some() {
        return Ok(());
    }
    let meta = ObjectMeta { name: Some(SERVICE_ACCOUNT.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata: meta, ..ServiceAccount::default() };
    made(accounts.create(&PostParams::default(), &account).await)
}

/// `pem`: the authorities that a pod needs to know to trust this server.
pub async fn root_ca(client: Client, pem: String) {
    let only = watcher::Config::default().fields(&format!("metadata.name={ROOT_CA}"));
    let changes = watcher::watcher(Api::<ConfigMap>::all(client.clone()), only);
    let touched = changes.filter_map(|event| {
        ready(match event {
            Ok(Event::Delete(map) | Event::Apply(map)) => map.namespace(),
            _ => None,
        })
    });
    let pem: Arc<str> = pem.into();
    keep(client, touched.boxed(), move |client, namespace| {
        Box::pin(config_map(client, namespace, Arc::clone(&pem)))
    })
    .await;
}

async fn config_map(client: Client, namespace: String, pem: Arc<str>) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let data = BTreeMap::from([("ca.crt".to_owned(), pem.to_string())]);
    let Some(mut map) = maps.get_opt(ROOT_CA).await? else {
        let annotations = BTreeMap::from([(DESCRIPTION.to_owned(), WHAT.to_owned())]);
        let meta = ObjectMeta {
            name: Some(ROOT_CA.to_owned()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        };
        let map = ConfigMap { metadata: meta, data: Some(data), ..ConfigMap::default() };
        return made(maps.create(&PostParams::default(), &map).await);
    };
    if map.data.as_ref() == Some(&data) && map.annotations().contains_key(DESCRIPTION) {
        return Ok(());
    }
    map.data = Some(data);
    map.annotations_mut().insert(DESCRIPTION.to_owned(), WHAT.to_owned());
    maps.replace(ROOT_CA, &PostParams::default(), &map).await.map(|_| ())
}

/// Somebody else was first, or the namespace is about to go: as good.
fn made<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("terminated") => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Does `ensure` for each namespace when it appears or changes, and for those that `touched` names.
async fn keep(
    client: Client,
    touched: BoxStream<'static, String>,
    ensure: impl Fn(Client, String) -> BoxFuture<'static, kube::Result<()>> + Send,
) {
    let namespaces = watcher::watcher(Api::<Namespace>::all(client.clone()), watcher::Config::default());
    let alive = namespaces.filter_map(|event| {
        ready(match event {
            Ok(Event::Apply(namespace) | Event::InitApply(namespace)) => {
                namespace.metadata.deletion_timestamp.is_none().then(|| namespace.name_any())
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!("watch of namespaces: {error}");
                None
            }
        })
    });
    let mut wanted = std::pin::pin!(futures::stream::select(alive.boxed(), touched));
    let mut queue = Queue::new();
    let handle = queue.handle();
    loop {
        tokio::select! {
            Some(namespace) = wanted.next() => handle.add(namespace),
            namespace = queue.next() => {
                match ensure(client.clone(), namespace.clone()).await {
                    Ok(()) => queue.succeeded(&namespace),
                    Err(kube::Error::Api(status)) if status.code == 404 => queue.succeeded(&namespace),
                    Err(error) => {
                        tracing::debug!(%namespace, "default objects: {error}");
                        queue.failed(namespace);
                    }
                }
            }
        }
    }
}
