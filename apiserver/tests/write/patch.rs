use http::Method;
use serde_json::{Value, json};

use crate::{MAPS, Server, deployment, map};

const JSON_PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn patch(server: &Server, path: &str, media: &str, patch: &Value) -> crate::Told {
    server.send(Method::PATCH, path, media, patch.to_string()).await
}

#[tokio::test]
async fn every_form_of_patch_changes_the_object() {
    let server = Server::new();
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let path = format!("{deployments}/d");
    server.post(deployments, &deployment("d")).await.ok();
    let told =
        patch(&server, &path, JSON_PATCH, &json!([{"op": "replace", "path": "/spec/replicas", "value": 2}]))
            .await;
    assert_eq!(told.ok()["spec"]["replicas"], 2);
    let told =
        server.merge(&path, &json!({"spec": {"replicas": 3}, "metadata": {"labels": {"x": "y"}}})).await.ok();
    assert_eq!((&told["spec"]["replicas"], &told["metadata"]["labels"]["x"]), (&json!(3), &json!("y")));
    let more = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "d"}]}}}});
    let told = patch(&server, &path, STRATEGIC, &more).await.ok();
    let names: Vec<_> = told["spec"]["template"]["spec"]["containers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|container| container["name"].as_str().expect("a name"))
        .collect();
    assert!(names.contains(&"a") && names.contains(&"c"), "{names:?}");
    assert_eq!(told["metadata"]["generation"], 4);
}

#[tokio::test]
async fn another_form_is_refused_with_those_that_are_read() {
    let server = Server::new();
    server.post(MAPS, &map("a")).await.ok();
    let told = patch(&server, &format!("{MAPS}/a"), "application/json", &json!({})).await;
    let message = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
    assert_eq!(told.failure(), (415, "UnsupportedMediaType", message));
}

#[tokio::test]
async fn a_patch_of_an_old_version_conflicts_and_of_none_does_not() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    let old = server.post(MAPS, &map("a")).await.ok();
    server.merge(&path, &json!({"data": {"b": "2"}})).await.ok();
    let version = &old["metadata"]["resourceVersion"];
    let told =
        server.merge(&path, &json!({"metadata": {"resourceVersion": version}, "data": {"b": "3"}})).await;
    assert_eq!(told.failure().0, 409);
}

#[tokio::test]
async fn a_patch_cannot_change_name_or_namespace() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    server.post(MAPS, &map("a")).await.ok();
    for meta in [json!({"name": "b"}), json!({"namespace": "b"})] {
        assert_eq!(server.merge(&path, &json!({"metadata": meta})).await.failure().0, 400);
    }
}

#[tokio::test]
async fn ten_thousand_operations_and_no_more() {
    let server = Server::new();
    server.post(MAPS, &map("a")).await.ok();
    let many =
        |count: usize| Value::from(vec![json!({"op": "test", "path": "/data/a", "value": "1"}); count]);
    patch(&server, &format!("{MAPS}/a"), JSON_PATCH, &many(10_000)).await.ok();
    let told = patch(&server, &format!("{MAPS}/a"), JSON_PATCH, &many(10_001)).await;
    let message =
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(told.failure(), (413, "RequestEntityTooLarge", message));
}

#[tokio::test]
async fn patches_that_do_not_fit_are_told_apart() {
    let server = Server::new();
    let path = format!("{MAPS}/a");
    server.post(MAPS, &map("a")).await.ok();
    let told =
        patch(&server, &path, JSON_PATCH, &json!([{"op": "test", "path": "/data/a", "value": "9"}])).await;
    let message = "the server rejected our request due to an error in our request";
    assert_eq!(told.failure(), (422, "Invalid", message));
    assert_eq!(patch(&server, &path, JSON_PATCH, &json!({"op": "test"})).await.failure().0, 400);
    let told = server.send(Method::PATCH, &path, JSON_PATCH, "[{").await;
    assert_eq!(told.failure(), (400, "BadRequest", "error decoding patch: unexpected end of JSON input"));
    let told = server.merge(&path, &json!({"data": {"a": 5}})).await;
    let (code, reason, message) = told.failure();
    assert_eq!((code, reason), (422, "Invalid"));
    assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: "), "{message}");
    let told = server.merge(&format!("{path}?fieldValidation=Strict"), &json!({"spec": {}})).await;
    assert!(told.failure().2.ends_with("strict decoding error: unknown field \"spec\""), "{told:?}");
    assert_eq!(server.merge(&format!("{MAPS}/b"), &json!({})).await.failure().0, 404);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_writes_nothing() {
    let server = Server::new();
    let object = server.post(MAPS, &map("a")).await.ok();
    let told = server.merge(&format!("{MAPS}/a"), &json!({"data": {"a": "1"}})).await.ok();
    assert_eq!(told["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
}
