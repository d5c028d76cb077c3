//! Dependents and their owners.

use std::time::Instant;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};

use super::map;
use super::server::{Server, until};

fn owned(name: &str, owner: &ConfigMap, blocks: bool) -> ConfigMap {
    let mut map = map(name);
    map.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: owner.name_any(),
        uid: owner.uid().expect("it is stored"),
        block_owner_deletion: Some(blocks),
        controller: None,
    }]);
    map
}

async fn create(maps: &Api<ConfigMap>, map: &ConfigMap) -> ConfigMap {
    maps.create(&PostParams::default(), map).await.expect("created")
}

#[tokio::test]
async fn a_tree_of_a_thousand_goes_with_its_root() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &["--storage=memory"]).await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "kube-public");
    let root = create(&maps, &map("root")).await;
    let branches: Vec<_> = stream::iter(0..10)
        .map(|at| {
            let (maps, root) = (&maps, &root);
            async move { create(maps, &owned(&format!("b-{at}"), root, false)).await }
        })
        .buffer_unordered(10)
        .collect()
        .await;
    let leaves = branches
        .iter()
        .enumerate()
        .flat_map(|(b, branch)| (0..99).map(move |l| (format!("l-{b}-{l}"), branch)));
    stream::iter(leaves)
        .map(|(name, branch)| {
            let maps = &maps;
            async move { create(maps, &owned(&name, branch, false)).await }
        })
        .buffer_unordered(20)
        .collect::<Vec<_>>()
        .await;
    let count = || async { maps.list_metadata(&ListParams::default()).await.expect("a list").items.len() };
    assert_eq!(count().await, 1 + 10 + 990 + 1, "and the root authority");
    let began = Instant::now();
    maps.delete("root", &DeleteParams::background()).await.expect("deleted");
    until("all are gone", || async { count().await == 1 }).await;
    println!("1,000 dependents were collected in {:?}", began.elapsed());
}

#[tokio::test]
async fn foreground_waits_for_dependents_orphan_leaves_them_and_absent_owners_count_for_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &["--storage=memory"]).await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    let is_gone = |name: &'static str| {
        let maps = maps.clone();
        async move { maps.get_opt(name).await.expect("an answer").is_none() }
    };

    let owner = create(&maps, &map("fore")).await;
    let mut held = owned("held", &owner, true);
    held.metadata.finalizers = Some(vec!["example.org/hold".to_owned()]);
    create(&maps, &held).await;
    create(&maps, &owned("free", &owner, false)).await;
    maps.delete("fore", &DeleteParams::foreground()).await.expect("deleted");
    until("the free one is gone", || is_gone("free")).await;
    until("the held one is being deleted", || async {
        maps.get("held").await.expect("held").metadata.deletion_timestamp.is_some()
    })
    .await;
    assert!(!is_gone("fore").await, "its owner waits");
    let mut held = maps.get("held").await.expect("held");
    held.metadata.finalizers = None;
    maps.replace("held", &PostParams::default(), &held).await.expect("released");
    until("the owner is gone", || is_gone("fore")).await;

    let owner = create(&maps, &map("orphaned")).await;
    create(&maps, &owned("stays", &owner, true)).await;
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    maps.delete("orphaned", &orphan).await.expect("deleted");
    until("the owner is gone", || is_gone("orphaned")).await;
    assert!(maps.get("stays").await.expect("it stays").owner_references().is_empty());

    let owner = create(&maps, &map("other")).await;
    let mut wrong = owned("wrong", &owner, false);
    if let Some(owner) = wrong.metadata.owner_references.iter_mut().flatten().next() {
        owner.uid = "00000000-0000-0000-0000-000000000000".to_owned();
    }
    create(&maps, &wrong).await;
    until("one whose owner is another's uid is gone", || is_gone("wrong")).await;
    let elsewhere: Api<ConfigMap> = Api::namespaced(server.client().await, "kube-public");
    create(&elsewhere, &owned("abroad", &owner, false)).await;
    until("an owner in another namespace is none", || async {
        elsewhere.get_opt("abroad").await.expect("an answer").is_none()
    })
    .await;
    assert!(!is_gone("other").await);
}
