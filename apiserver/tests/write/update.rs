use serde_json::json;

use crate::{MAPS, Server, deployment, map};

#[tokio::test]
async fn an_update_is_of_the_version_it_says() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    let mut object = server.post(MAPS, &map("a")).await.ok();
    let old = object.clone();
    object["data"]["a"] = "2".into();
    let new = server.put(&path, &object).await.ok();
    assert_eq!(new["data"]["a"], "2");
    assert_eq!(new["metadata"]["uid"], old["metadata"]["uid"]);
    assert_ne!(new["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"]);
    let told = server.put(&path, &old).await;
    let message = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!(told.failure(), (409, "Conflict", message));
}

#[tokio::test]
async fn an_update_without_a_version_overwrites() {
    let server = Server::new();
    server.post(MAPS, &map("a")).await.ok();
    let mut other = map("a");
    other["data"] = json!({"b": "2"});
    let told = server.put(&format!("{MAPS}/a"), &other).await.ok();
    assert_eq!(told["data"], json!({"b": "2"}));
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let server = Server::new();
    let object = server.post(MAPS, &map("a")).await.ok();
    let told = server.put(&format!("{MAPS}/a"), &object).await.ok();
    assert_eq!(told, object);
}

#[tokio::test]
async fn what_is_immutable_stays() {
    let server = Server::new();
    let object = server.post(MAPS, &map("a")).await.ok();
    let mut other = object.clone();
    other["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    other["metadata"]["generation"] = 5.into();
    other["metadata"]["labels"] = json!({"x": "y"});
    let told = server.put(&format!("{MAPS}/a"), &other).await.ok();
    assert_eq!(told["metadata"]["creationTimestamp"], object["metadata"]["creationTimestamp"]);
    assert!(told["metadata"].get("generation").is_none());
    other["metadata"]["uid"] = "another".into();
    let told = server.put(&format!("{MAPS}/a"), &other).await;
    let (code, reason, message) = told.failure();
    assert_eq!((code, reason), (409, "Conflict"));
    assert!(
        message.contains("Precondition failed: UID in precondition: another, UID in object meta: "),
        "{message}"
    );
}

#[tokio::test]
async fn the_path_and_the_object_have_one_name() {
    let server = Server::new();
    server.post(MAPS, &map("a")).await.ok();
    let told = server.put(&format!("{MAPS}/a"), &map("b")).await;
    let message = "the name of the object (b) does not match the name on the URL (a)";
    assert_eq!(told.failure(), (400, "BadRequest", message));
    let told = server.put(&format!("{MAPS}/c"), &map("c")).await;
    assert_eq!(told.failure(), (404, "NotFound", "configmaps \"c\" not found"));
}

#[tokio::test]
async fn status_and_spec_are_apart() {
    let server = Server::new();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mut object = server.post(path, &deployment("d")).await.ok();
    object["spec"]["replicas"] = 3.into();
    object["status"] = json!({"replicas": 2});
    let told = server.put(&format!("{path}/d"), &object).await.ok();
    assert_eq!((&told["metadata"]["generation"], &told["spec"]["replicas"]), (&json!(2), &json!(3)));
    assert!(told["status"].get("replicas").is_none());
    let mut object = told;
    object["spec"]["replicas"] = 9.into();
    object["status"] = json!({"replicas": 2, "observedGeneration": 2});
    let told = server.put(&format!("{path}/d/status"), &object).await.ok();
    assert_eq!((&told["metadata"]["generation"], &told["spec"]["replicas"]), (&json!(2), &json!(3)));
    assert_eq!(told["status"]["replicas"], 2);
}

#[tokio::test]
async fn an_update_makes_what_is_not_there_where_the_kind_allows_it() {
    let server = Server::new();
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 5}});
    let told = server.put(path, &lease).await;
    assert_eq!(told.code, 201, "{told:?}");
    let told = server.put(path, &lease).await;
    let (code, _, message) = told.failure();
    assert_eq!(code, 422);
    assert!(
        message.ends_with("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{message}"
    );
}

#[tokio::test]
async fn a_dry_run_of_an_update_answers_as_if() {
    let server = Server::new();
    let mut object = server.post(MAPS, &map("a")).await.ok();
    object["data"]["a"] = "2".into();
    let told = server.put(&format!("{MAPS}/a?dryRun=All"), &object).await.ok();
    assert_eq!(told["data"]["a"], "2");
    assert_eq!(server.get(&format!("{MAPS}/a")).await.ok()["data"]["a"], "1");
}
