//! Server-side apply, and managedFields through other writes.

use serde_json::{Value, json};

use crate::{MAPS, Server, Told, deployment, map};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

impl Server {
    async fn apply(&self, path: &str, query: &str, config: &Value) -> Told {
        let path = format!("{path}?{query}");
        self.send(http::Method::PATCH, &path, "application/apply-patch+yaml", config.to_string()).await
    }
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .find(|entry| entry["manager"] == manager)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn config(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

#[tokio::test]
async fn an_apply_makes_what_is_not_there_and_is_idempotent() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    let made = server.apply(&path, "fieldManager=me", &config(json!({"x": "1"}))).await;
    assert_eq!(made.code, 201);
    let made = made.ok();
    assert_eq!(fields(&made, "me"), json!({"f:data": {"f:x": {}}}));
    let again = server.apply(&path, "fieldManager=me", &config(json!({"x": "1"}))).await;
    assert_eq!((again.code, again.ok()), (200, made));
}

#[tokio::test]
async fn conflicts_name_their_fields_and_can_be_forced() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    server.post(MAPS, &map("a")).await.ok();
    let told = server.apply(&path, "fieldManager=me", &config(json!({"a": "2"}))).await;
    let message = "Apply failed with 1 conflict: conflict with \"tester\" using v1: .data.a";
    assert_eq!(told.failure(), (409, "Conflict", message));
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"tester\" using v1", "field": ".data.a"}]);
    assert_eq!(told.body["details"]["causes"], cause);
    let forced = server.apply(&path, "fieldManager=me&force=true", &config(json!({"a": "2"}))).await.ok();
    assert_eq!((&forced["data"]["a"], fields(&forced, "me")), (&json!("2"), json!({"f:data": {"f:a": {}}})));
    assert_eq!(fields(&forced, "tester"), json!({"f:data": {}}));
}

#[tokio::test]
async fn what_is_not_applied_any_more_goes() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    server.apply(&path, "fieldManager=me", &config(json!({"x": "1", "y": "2"}))).await.ok();
    let less = server.apply(&path, "fieldManager=me", &config(json!({"y": "2"}))).await.ok();
    assert_eq!(less["data"], json!({"y": "2"}));
}

#[tokio::test]
async fn defaults_come_back_where_an_apply_takes_something_away() {
    let server = Server::new();
    let path = format!("{DEPLOYMENTS}/d");
    let mut config = deployment("d");
    config["spec"]["replicas"] = json!(3);
    server.apply(&path, "fieldManager=me", &config).await.ok();
    config["spec"].as_object_mut().unwrap().remove("replicas");
    let less = server.apply(&path, "fieldManager=me", &config).await.ok();
    assert_eq!(less["spec"]["replicas"], 1);
    assert_eq!(less["metadata"]["generation"], 2);
}

#[tokio::test]
async fn an_apply_is_checked_as_upstream_does() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dat": {}});
    let told = server.apply(&path, "fieldManager=me", &wrong).await;
    let message =
        "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dat: field not declared in schema";
    assert_eq!(told.failure(), (500, "", message));
    let told = server.apply(&path, "fieldManager=me", &json!({"apiVersion": "v1", "kind": "Secret"})).await;
    assert_eq!(told.failure(), (400, "BadRequest", "invalid object type: /v1, Kind=Secret"));
    let told = server.apply(&path, "fieldManager=me", &json!([])).await;
    assert_eq!(told.failure().0, 400);
    let told = server.apply(&path, "", &config(json!({}))).await;
    assert_eq!(told.failure().0, 422);
}

#[tokio::test]
async fn the_scale_takes_the_replicas_over() {
    let server = Server::new();
    let path = format!("{DEPLOYMENTS}/d");
    server.apply(&path, "fieldManager=me", &deployment("d")).await.ok();
    server.merge(&format!("{path}/scale?fieldManager=hpa"), &json!({"spec": {"replicas": 5}})).await.ok();
    let object = server.get(&path).await.ok();
    assert_eq!(fields(&object, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&object, "me")["f:spec"].get("f:replicas"), None);
    let told = server.apply(&path, "fieldManager=me", &deployment("d")).await;
    let message = "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert_eq!(told.failure(), (409, "Conflict", message));
}

#[tokio::test]
async fn the_status_has_managers_of_its_own() {
    let server = Server::new();
    let path = format!("{DEPLOYMENTS}/d");
    server.post(DEPLOYMENTS, &deployment("d")).await.ok();
    let status = json!({"status": {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}});
    let object = server.merge(&format!("{path}/status?fieldManager=ctl"), &status).await.ok();
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["manager"] == "ctl").unwrap();
    assert_eq!((&entry["subresource"], entry["fieldsV1"].get("f:spec")), (&json!("status"), None));
    assert!(entry["fieldsV1"]["f:status"]["f:replicas"].is_object());
}
