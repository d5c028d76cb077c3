use http::Method;
use serde_json::json;

use crate::{MAPS, Server, deployment, map};

#[tokio::test]
async fn a_new_object_has_what_the_server_says() {
    let server = Server::new();
    let mut sent = map("a");
    sent["metadata"]["uid"] = "mine".into();
    sent["metadata"]["selfLink"] = "/mine".into();
    sent["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    sent["metadata"]["deletionTimestamp"] = "2001-01-01T00:00:00Z".into();
    let told = server.post(MAPS, &sent).await;
    assert_eq!(told.code, 201);
    let meta = &told.body["metadata"];
    assert_eq!(meta["uid"].as_str().expect("a uid").len(), 36);
    assert_eq!(meta["namespace"], "default");
    assert!(meta["creationTimestamp"].as_str().expect("a time") > "2020");
    assert!(meta.get("deletionTimestamp").is_none() && meta.get("selfLink").is_none());
    assert_eq!(server.get(&format!("{MAPS}/a")).await.ok(), told.body);
}

#[tokio::test]
async fn a_second_one_of_a_name_is_refused() {
    let server = Server::new();
    server.post(MAPS, &map("a")).await.ok();
    let told = server.post(MAPS, &map("a")).await;
    assert_eq!(told.failure(), (409, "AlreadyExists", "configmaps \"a\" already exists"));
    assert_eq!(told.body["details"], json!({"name": "a", "kind": "configmaps"}));
}

#[tokio::test]
async fn generated_names_begin_as_asked() {
    let server = Server::new();
    let mut sent = map("");
    sent["metadata"] = json!({"generateName": "x-"});
    let one = server.post(MAPS, &sent).await.ok();
    let other = server.post(MAPS, &sent).await.ok();
    let name = one["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
    assert_ne!(one["metadata"]["name"], other["metadata"]["name"]);
    assert_eq!(one["metadata"]["generateName"], "x-");
}

#[tokio::test]
async fn names_and_namespaces_are_checked() {
    let server = Server::new();
    let mut other = map("a");
    other["metadata"]["namespace"] = "other".into();
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!(server.post(MAPS, &other).await.failure(), (400, "BadRequest", message));
    let told = server.post(MAPS, &map("A_")).await;
    let (code, reason, message) = told.failure();
    assert_eq!((code, reason), (422, "Invalid"));
    let begin =
        "ConfigMap \"A_\" is invalid: metadata.name: Invalid value: \"A_\": a lowercase RFC 1123 subdomain";
    assert!(message.starts_with(begin), "{message}");
    let told = server.post(MAPS, &map("")).await;
    let message =
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required";
    assert_eq!(told.failure(), (422, "Invalid", message));
}

#[tokio::test]
async fn a_resource_version_is_no_part_of_a_new_object() {
    let server = Server::new();
    let mut sent = map("a");
    sent["metadata"]["resourceVersion"] = "5".into();
    let told = server.post(MAPS, &sent).await;
    assert_eq!(told.failure(), (500, "", "resourceVersion should not be set on objects to be created"));
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_stores_nothing() {
    let server = Server::new();
    let told = server.post(&format!("{MAPS}?dryRun=All"), &map("a")).await;
    assert_eq!(told.code, 201);
    assert_eq!(told.body["metadata"]["uid"].as_str().expect("a uid").len(), 36);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.code, 404);
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &map("B")).await.code, 422);
    assert_eq!(server.post(&format!("{MAPS}?dryRun=Some"), &map("b")).await.code, 422);
    server.post(MAPS, &map("a")).await.ok();
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &map("a")).await.code, 409);
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_errors_warnings_or_nothing() {
    let server = Server::new();
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","x":"2"},"spec":{}}"#;
    let send = |validation: &str| {
        let path = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
        let server = &server;
        async move { server.send(Method::POST, &path, crate::JSON, body).await }
    };
    let told = send("Strict").await;
    let message = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.x\", unknown field \"spec\"";
    assert_eq!(told.failure(), (400, "BadRequest", message));
    let told = send("Warn").await;
    assert_eq!(told.code, 201);
    assert_eq!(told.warnings, [r#"299 - "duplicate field \"data.x\"""#, r#"299 - "unknown field \"spec\"""#]);
    assert!(told.body.get("spec").is_none());
    let told = send("Ignore").await;
    assert_eq!((told.code, told.warnings.len()), (201, 0));
    assert_eq!(told.body["data"]["x"], "2");
}

#[tokio::test]
async fn kind_and_version_may_be_left_out_and_must_not_be_others() {
    let server = Server::new();
    let told = server.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    assert_eq!((&told["kind"], &told["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let mut sent = map("b");
    sent["kind"] = "Secret".into();
    let message = "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion";
    assert_eq!(server.post(MAPS, &sent).await.failure(), (400, "BadRequest", message));
    sent["kind"] = "Nothing".into();
    let told = server.post(MAPS, &sent).await;
    let (code, _, message) = told.failure();
    assert_eq!(code, 400);
    assert!(message.contains("no kind \"Nothing\" is registered for version \"v1\" in scheme"), "{message}");
}

#[tokio::test]
async fn yaml_is_read() {
    let server = Server::new();
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: 'b'\n";
    let told = server.send(Method::POST, MAPS, "application/yaml", body).await.ok();
    assert_eq!(told["data"]["a"], "b");
    assert_eq!(server.send(Method::POST, MAPS, "text/plain", body).await.code, 415);
}

#[tokio::test]
async fn a_new_deployment_has_defaults_and_generation_one() {
    let server = Server::new();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mut sent = deployment("d");
    sent["status"] = json!({"replicas": 7});
    sent["metadata"]["generation"] = 9.into();
    let told = server.post(path, &sent).await.ok();
    assert_eq!(told["metadata"]["generation"], 1, "{told}");
    assert!(told["status"].get("replicas").is_none());
}
