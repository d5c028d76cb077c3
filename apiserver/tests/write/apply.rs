use http::Method;
use serde_json::{Value, json};

use crate::{MAPS, Server, Told, map};

async fn apply(server: &Server, path: &str, object: &Value) -> Told {
    server.send(Method::PATCH, path, "application/apply-patch+yaml", object.to_string()).await
}

#[tokio::test]
async fn an_apply_makes_the_object_and_owns_its_fields() {
    let server = Server::new();
    let path = format!("{MAPS}/a?fieldManager=me");
    let told = apply(&server, &path, &map("a")).await;
    assert_eq!(told.code, 201, "{told:?}");
    let entry = &told.body["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("me"), &json!("Apply")));
    assert_eq!(entry["fieldsV1"], json!({"f:data": {"f:a": {}}}));
    let again = apply(&server, &path, &map("a")).await;
    assert_eq!((again.code, &again.body), (200, &told.body));
}

#[tokio::test]
async fn an_apply_of_what_another_owns_conflicts_unless_forced() {
    let server = Server::new();
    apply(&server, &format!("{MAPS}/a?fieldManager=one"), &map("a")).await.ok();
    let mut other = map("a");
    other["data"]["a"] = "2".into();
    let told = apply(&server, &format!("{MAPS}/a?fieldManager=two"), &other).await;
    let message = "Apply failed with 1 conflict: conflict with \"one\": .data.a";
    assert_eq!(told.failure(), (409, "Conflict", message));
    let cause =
        json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"});
    assert_eq!(told.body["details"]["causes"], json!([cause]));
    let told = apply(&server, &format!("{MAPS}/a?fieldManager=two&force=true"), &other).await.ok();
    assert_eq!(told["data"]["a"], "2");
}

#[tokio::test]
async fn what_an_apply_leaves_out_goes_if_nobody_else_owns_it() {
    let server = Server::new();
    let path = format!("{MAPS}/a?fieldManager=me");
    let mut object = map("a");
    object["data"]["b"] = "2".into();
    apply(&server, &path, &object).await.ok();
    let told = apply(&server, &path, &map("a")).await.ok();
    assert_eq!(told["data"], json!({"a": "1"}));
}

#[tokio::test]
async fn an_apply_names_its_manager() {
    let server = Server::new();
    let told = apply(&server, &format!("{MAPS}/a"), &map("a")).await;
    let message =
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    assert_eq!(told.failure(), (422, "Invalid", message));
}

#[tokio::test]
async fn every_write_keeps_managed_fields() {
    let server = Server::new();
    let made = server.post(MAPS, &map("a")).await.ok();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("tester"), &json!("Update")));
    let path = format!("{MAPS}/a?fieldManager=other");
    let told = server.merge(&path, &json!({"data": {"b": "2"}})).await.ok();
    let managers: Vec<_> = told["metadata"]["managedFields"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["manager"].as_str().expect("a name"))
        .collect();
    assert!(managers.contains(&"tester") && managers.contains(&"other"), "{managers:?}");
}

#[tokio::test]
async fn a_dry_run_of_an_apply_stores_nothing() {
    let server = Server::new();
    let told = apply(&server, &format!("{MAPS}/a?fieldManager=me&dryRun=All"), &map("a")).await;
    assert_eq!(told.code, 201);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
}
