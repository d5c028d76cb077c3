//! What clients learn of the server.

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::*;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn aggregated_discovery_echoes_its_type_and_knows_who_has_it_already() {
    let api = api();
    let response = send(&api, request("/apis").header("accept", AGGREGATED)).await;
    let content_type = &response.headers()["content-type"];
    assert_eq!(content_type, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let etag = response.headers()["etag"].clone();
    let (_, list) = read(response).await;
    let groups: Vec<&str> = list["items"]
        .as_array()
        .expect("groups")
        .iter()
        .filter_map(|one| one["metadata"]["name"].as_str())
        .collect();
    assert!(groups.contains(&"apps") && !groups.contains(&""), "{groups:?}");
    let apps = list["items"].as_array().expect("groups").iter().find(|one| one["metadata"]["name"] == "apps");
    let resources = apps.expect("apps")["versions"][0]["resources"].as_array().expect("resources");
    let deployments = resources.iter().find(|one| one["resource"] == "deployments").expect("deployments");
    assert_eq!(deployments["scope"], "Namespaced");
    let scale = json!({"subresource": "scale", "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
        "verbs": ["get", "patch", "update"]});
    assert!(deployments["subresources"].as_array().expect("some").contains(&scale), "{deployments}");
    let again = request("/apis").header("accept", AGGREGATED).header("if-none-match", etag);
    assert_eq!(send(&api, again).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn legacy_discovery_is_there_for_old_clients() {
    let api = api();
    let (_, versions) = get(&api, "/api").await;
    assert_eq!((&versions["kind"], &versions["versions"]), (&json!("APIVersions"), &json!(["v1"])));
    let (_, groups) = get(&api, "/apis").await;
    assert_eq!(groups["kind"], "APIGroupList");
    let (_, group) = get(&api, "/apis/autoscaling").await;
    assert_eq!(group["preferredVersion"]["version"], "v2");
    let (_, resources) = get(&api, "/api/v1").await;
    assert_eq!((&resources["kind"], &resources["groupVersion"]), (&json!("APIResourceList"), &json!("v1")));
    let find = |list: &Value, name: &str| -> Value {
        let all = list["resources"].as_array().expect("resources");
        all.iter().find(|one| one["name"] == name).cloned().unwrap_or_default()
    };
    // Upstream's own hash.
    assert_eq!(find(&resources, "configmaps")["storageVersionHash"], "qFsyl6wFWjQ=");
    assert_eq!(find(&resources, "pods/eviction")["group"], "policy");
    let (_, resources) = get(&api, "/apis/apps/v1").await;
    assert_eq!(find(&resources, "daemonsets")["storageVersionHash"], "dd7pWHUlMKQ=");
}

#[tokio::test]
async fn the_version_is_a_real_minor() {
    let (_, version) = get(&api(), "/version").await;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    assert!(version["gitVersion"].as_str().expect("text").starts_with("v1.36.3"));
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let api = api();
    let hook = api.health.hook("poststarthook/start-corten");
    assert_eq!(get(&api, "/readyz").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    let (_, text) = get(&api, "/livez?exclude=poststarthook/start-corten&verbose").await;
    assert_eq!(
        text,
        "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/start-corten excluded: ok\nlivez check passed\n"
    );
    hook.done();
    assert_eq!(get(&api, "/readyz").await, (StatusCode::OK, "ok".into()));
    assert_eq!(get(&api, "/readyz/etcd").await, (StatusCode::OK, "ok".into()));
    assert_eq!(get(&api, "/livez/nope").await.0, StatusCode::NOT_FOUND);
    api.health.drain();
    assert_eq!(get(&api, "/readyz").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&api, "/livez").await.0, StatusCode::OK);
}

#[tokio::test]
async fn requests_are_counted_but_not_those_for_paths_made_up() {
    let api = api();
    get(&api, "/api/v1/configmaps").await;
    for at in 0..50 {
        get(&api, &format!("/api/v1/made-up-{at}")).await;
        get(&api, &format!("/apis/made-up-{at}/v1/x")).await;
    }
    let (_, text) = get(&api, "/metrics").await;
    let text = text.as_str().expect("text");
    let line = "apiserver_request_total{code=\"200\",dry_run=\"\",component=\"apiserver\",group=\"\",\
                resource=\"configmaps\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("made-up"));
}

#[tokio::test]
async fn every_answer_has_an_audit_id_and_is_kept_by_no_cache() {
    let api = api();
    let response = send(&api, request("/api/v1/pods").header("audit-id", "mine")).await;
    assert_eq!(response.headers()["audit-id"], "mine");
    assert_eq!(response.headers()["cache-control"], "no-cache, private");
    let response = send(&api, request("/nope")).await;
    assert_eq!(response.headers()["audit-id"].len(), 36);
}

#[tokio::test]
async fn openapi_is_sent_as_it_was_built_and_never_asked_for_again() {
    let api = api();
    let (_, index) = get(&api, "/openapi/v3").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a path");
    let response = send(&api, request(url).header("accept-encoding", "gzip")).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    assert_eq!(response.headers()["cache-control"], "public, immutable");
    let etag = response.headers()["etag"].clone();
    let compressed = bytes(response).await;
    let (_, document) = get(&api, "/openapi/v3/apis/apps/v1").await;
    assert!(document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"].is_object());
    assert!(compressed.len() * 4 < document.to_string().len());
    let again = send(&api, request(url).header("if-none-match", etag)).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let old = send(&api, request("/openapi/v3/apis/apps/v1?hash=OLD")).await;
    assert_eq!(
        (old.status(), &old.headers()["location"]),
        (StatusCode::MOVED_PERMANENTLY, &url.parse().expect("a header"))
    );
    assert_eq!(get(&api, "/openapi/v3/apis/nope/v1").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&api, "/openapi/v2").await.0, StatusCode::NOT_ACCEPTABLE);
}
