use futures::future::join_all;
use serde_json::json;

use crate::{MAPS, Server, map};

#[tokio::test]
async fn a_hundred_updates_at_once_succeed_or_conflict() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    let object = server.post(MAPS, &map("a")).await.ok();
    let updates = (0..100).map(|number| {
        let mut object = object.clone();
        object["data"]["a"] = format!("n{number}").into();
        let (server, path) = (&server, &path);
        async move { server.put(path, &object).await.code }
    });
    let codes = join_all(updates).await;
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 99);
}

#[tokio::test]
async fn a_hundred_patches_at_once_all_succeed() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    server.post(MAPS, &map("a")).await.ok();
    let patches = (0..100).map(|number| {
        let patch = json!({"data": {format!("k{number}"): "x"}});
        let (server, path) = (&server, &path);
        async move { server.merge(path, &patch).await.ok() }
    });
    join_all(patches).await;
    let data = server.get(&path).await.ok()["data"].clone();
    assert_eq!(data.as_object().expect("a map").len(), 101);
}

#[tokio::test]
async fn of_a_hundred_creations_of_a_name_one_succeeds() {
    let server = Server::new();
    let creations = (0..100).map(|_| async { server.post(MAPS, &map("a")).await.code });
    let codes = join_all(creations).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1);
    assert_eq!(codes.iter().filter(|code| **code == 409).count(), 99);
}
