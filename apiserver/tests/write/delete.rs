use serde_json::json;

use crate::{MAPS, Server, deployment, map};

#[tokio::test]
async fn a_deletion_answers_a_status_or_the_object_as_the_kind_does() {
    let server = Server::new();
    let object = server.post(MAPS, &map("a")).await.ok();
    let told = server.delete(&format!("{MAPS}/a")).await;
    assert_eq!(told.code, 200);
    let expected = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": "a", "kind": "configmaps", "uid": object["metadata"]["uid"]}});
    assert_eq!(told.body, expected);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    assert_eq!(server.delete(&format!("{MAPS}/a")).await.failure().2, "configmaps \"a\" not found");
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, &json!({"metadata": {"name": "s"}})).await.ok();
    let told = server.delete(&format!("{accounts}/s")).await.ok();
    assert_eq!((&told["kind"], &told["metadata"]["name"]), (&json!("ServiceAccount"), &json!("s")));
}

#[tokio::test]
async fn preconditions_are_of_uid_and_version() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    let object = server.post(MAPS, &map("a")).await.ok();
    let told = server.delete_with(&path, &json!({"preconditions": {"uid": "another"}})).await;
    let (code, reason, message) = told.failure();
    assert_eq!((code, reason), (409, "Conflict"));
    assert!(
        message.contains("the UID in the precondition (another) does not match the UID in record"),
        "{message}"
    );
    let told = server.delete_with(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await;
    assert!(told.failure().2.contains("The object might have been modified"));
    let good = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {
        "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"]}});
    server.delete_with(&path, &good).await.ok();
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    let mut sent = map("a");
    sent["metadata"]["finalizers"] = json!(["example.com/one", "example.com/two"]);
    server.post(MAPS, &sent).await.ok();
    let told = server.delete(&path).await.ok();
    assert_eq!(told["kind"], "ConfigMap");
    assert!(told["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(told["metadata"]["deletionGracePeriodSeconds"], 0);
    let told = server.post(MAPS, &map("a")).await;
    assert_eq!(told.failure().2, "object is being deleted: configmaps \"a\" already exists");
    let told = server.merge(&path, &json!({"metadata": {"finalizers": ["example.com/three"]}})).await;
    assert_eq!(told.failure().0, 422);
    server.merge(&path, &json!({"metadata": {"finalizers": ["example.com/two"]}})).await.ok();
    assert_eq!(server.get(&path).await.code, 200);
    server.merge(&path, &json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn propagation_leaves_its_finalizer() {
    let server = Server::new();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    for (policy, finalizer) in
        [("Foreground", Some("foregroundDeletion")), ("Orphan", Some("orphan")), ("Background", None)]
    {
        server.post(path, &deployment("d")).await.ok();
        let told = server.delete_with(&format!("{path}/d"), &json!({"propagationPolicy": policy})).await.ok();
        match finalizer {
            Some(finalizer) => {
                assert_eq!(told["metadata"]["finalizers"], json!([finalizer]), "{told}");
                assert_eq!(told["metadata"]["generation"], 2);
                server.merge(&format!("{path}/d"), &json!({"metadata": {"finalizers": []}})).await.ok();
            }
            None => assert_eq!(told["status"], "Success"),
        }
        assert_eq!(server.get(&format!("{path}/d")).await.code, 404, "{policy}");
    }
}

#[tokio::test]
async fn a_namespace_terminates_and_is_finalized() {
    let server = Server::new();
    let path = "/api/v1/namespaces/n";
    server
        .post(
            "/api/v1/namespaces",
            &json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}),
        )
        .await
        .ok();
    let told = server.delete(path).await.ok();
    assert_eq!((&told["kind"], &told["status"]["phase"]), (&json!("Namespace"), &json!("Terminating")));
    assert!(told["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.delete(path).await.ok()["kind"], "Namespace");
    assert_eq!(server.get(path).await.code, 200);
}

#[tokio::test]
async fn a_collection_goes_by_its_selectors() {
    let server = Server::new();
    for name in ["a", "b", "c"] {
        let mut sent = map(name);
        sent["metadata"]["labels"] = json!({"x": if name == "c" { "no" } else { "yes" }});
        server.post(MAPS, &sent).await.ok();
    }
    let told = server.delete(&format!("{MAPS}?labelSelector=x%3Dyes&dryRun=All")).await.ok();
    assert_eq!(told["items"].as_array().expect("a list").len(), 2);
    let told = server.delete(&format!("{MAPS}?labelSelector=x%3Dyes")).await.ok();
    assert_eq!(
        (&told["kind"], told["items"].as_array().expect("a list").len()),
        (&json!("ConfigMapList"), 2)
    );
    let rest = server.get(MAPS).await.ok();
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    assert_eq!(rest["items"].as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn a_dry_run_of_a_deletion_deletes_nothing() {
    let server = Server::new();
    server.post(MAPS, &map("a")).await.ok();
    server.delete(&format!("{MAPS}/a?dryRun=All")).await.ok();
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 200);
}

#[tokio::test]
async fn options_that_are_wrong_are_refused() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    server.post(MAPS, &map("a")).await.ok();
    for (options, code) in [
        (json!({"propagationPolicy": "Never"}), 422),
        (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422),
        (json!({"dryRun": ["Some"]}), 422),
        (json!({"gracePeriodSeconds": "x"}), 400),
        (json!({"kind": "ConfigMap", "apiVersion": "v1"}), 400),
        (json!({"ignoreStoreReadErrorWithClusterBreakingPotential": true}), 422),
    ] {
        assert_eq!(server.delete_with(&path, &options).await.failure().0, code, "{options}");
    }
    assert_eq!(server.get(&path).await.code, 200);
}
