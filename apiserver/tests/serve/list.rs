//! GET of one and of many.

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::*;

async fn three(api: &std::sync::Arc<corten_apiserver::api::Api>) -> i64 {
    put_config_map(api, "a", json!({"app": "x"})).await;
    put_config_map(api, "b", json!({"app": "y"})).await;
    put_config_map(api, "c", json!({"app": "x"})).await
}

#[tokio::test]
async fn an_object_is_answered_with_its_revision() {
    let api = api();
    let revision = put_config_map(&api, "a", json!({})).await;
    let (code, object) = get(&api, "/api/v1/namespaces/default/configmaps/a").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(object["kind"], "ConfigMap");
    assert_eq!(object["metadata"]["resourceVersion"], revision.to_string());
    let (code, status) = get(&api, "/api/v1/namespaces/default/configmaps/b").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(status["message"], "configmaps \"b\" not found");
    assert_eq!(status["details"], json!({"name": "b", "kind": "configmaps"}));
}

#[tokio::test]
async fn items_of_a_list_do_not_repeat_their_kind() {
    let api = api();
    three(&api).await;
    let (_, list) = get(&api, "/api/v1/configmaps").await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
    assert_eq!(names(&list), ["a", "b", "c"]);
    assert_eq!(list["items"][0].get("kind"), None);
    let (_, empty) = get(&api, "/api/v1/namespaces/other/configmaps").await;
    assert_eq!(empty["items"], json!([]));
}

#[tokio::test]
async fn the_revision_of_a_list_is_never_below_a_write_its_client_saw() {
    let api = api();
    for at in 0..20 {
        let written = put_config_map(&api, &format!("a{at}"), json!({})).await;
        let (_, list) = get(&api, "/api/v1/secrets").await;
        let listed: i64 =
            list["metadata"]["resourceVersion"].as_str().expect("text").parse().expect("a number");
        assert!(listed >= written);
    }
}

#[tokio::test]
async fn pages_are_all_of_one_revision() {
    let api = api();
    let revision = three(&api).await;
    let (_, page) = get(&api, "/api/v1/configmaps?limit=2").await;
    assert_eq!(names(&page), ["a", "b"]);
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    put_config_map(&api, "b2", json!({})).await;
    let next = page["metadata"]["continue"].as_str().expect("a token");
    let (_, page) = get(&api, &format!("/api/v1/configmaps?limit=2&continue={next}")).await;
    assert_eq!(names(&page), ["c"]);
    assert_eq!(page["metadata"]["resourceVersion"], revision.to_string());
    assert_eq!(page["metadata"].get("continue"), None);
}

#[tokio::test]
async fn a_page_of_compacted_history_says_how_to_go_on() {
    let api = api();
    three(&api).await;
    let (_, page) = get(&api, "/api/v1/configmaps?limit=1").await;
    let next = page["metadata"]["continue"].as_str().expect("a token");
    let late = put_config_map(&api, "d", json!({})).await;
    api.store.compact(late).await.expect("compaction");
    let (code, status) = get(&api, &format!("/api/v1/configmaps?limit=1&continue={next}")).await;
    assert_eq!((code, &status["reason"]), (StatusCode::GONE, &json!("Expired")));
    let inconsistent = status["metadata"]["continue"].as_str().expect("another token");
    let (_, rest) = get(&api, &format!("/api/v1/configmaps?limit=9&continue={inconsistent}")).await;
    assert_eq!(names(&rest), ["b", "c", "d"]);
}

#[tokio::test]
async fn a_list_with_a_selector_does_not_count_what_remains() {
    let api = api();
    three(&api).await;
    let (_, page) = get(&api, "/api/v1/configmaps?limit=1&labelSelector=app%3Dx").await;
    assert_eq!(names(&page), ["a"]);
    assert_eq!(page["metadata"].get("remainingItemCount"), None);
    let next = page["metadata"]["continue"].as_str().expect("a token");
    let (_, page) =
        get(&api, &format!("/api/v1/configmaps?limit=1&labelSelector=app%3Dx&continue={next}")).await;
    assert_eq!(names(&page), ["c"]);
}

#[tokio::test]
async fn selectors_choose_by_labels_and_fields() {
    let api = api();
    three(&api).await;
    for (query, expected) in [
        ("labelSelector=app%3Dx", &["a", "c"][..]),
        ("labelSelector=app+in+(y,z)", &["b"]),
        ("labelSelector=!app", &[]),
        ("fieldSelector=metadata.name%3Db", &["b"]),
        ("fieldSelector=metadata.name!%3Db", &["a", "c"]),
        ("fieldSelector=metadata.namespace%3Ddefault,metadata.name%3Da", &["a"]),
        ("fieldSelector=metadata.name%3Db&labelSelector=app%3Dx", &[]),
    ] {
        let (_, list) = get(&api, &format!("/api/v1/configmaps?{query}")).await;
        assert_eq!(names(&list), expected, "{query}");
        let (_, list) = get(&api, &format!("/api/v1/namespaces/default/configmaps?{query}")).await;
        assert_eq!(names(&list), expected, "{query} in a namespace");
    }
}

#[tokio::test]
async fn wrong_options_are_refused_in_upstreams_words() {
    let api = api();
    #[rustfmt::skip]
    let cases = [
        ("limit=abc", 400, r#"strconv.ParseInt: parsing "abc": invalid syntax"#),
        ("resourceVersion=abc", 400, r#"invalid resource version: resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax"#),
        ("watch=1&resourceVersion=abc", 500, r#"resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax"#),
        ("labelSelector=a%20b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("fieldSelector=ab", 400, "invalid selector: 'ab'; can't understand 'ab'"),
        ("resourceVersionMatch=Exact", 422, "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ("resourceVersionMatch=Foo&sendInitialEvents=true", 422, "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, resourceVersionMatch: Unsupported value: \"Foo\": supported values: \"Exact\", \"NotOlderThan\", \"\", sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]"),
        ("watch=1&resourceVersionMatch=Exact", 422, "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]"),
        ("watch=1&sendInitialEvents=true", 422, "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ("continue=!", 400, "invalid continue token: continue key is not valid"),
        ("continue=abc&resourceVersion=5", 400, "specifying resource version is not allowed when using continue"),
    ];
    for (query, code, message) in cases {
        let (got, status) = get(&api, &format!("/api/v1/configmaps?{query}")).await;
        assert_eq!(got.as_u16(), code, "{query}: {status}");
        let said = status["message"].as_str().expect("a message");
        assert!(said.starts_with(message), "{query}: {said}");
    }
}

#[tokio::test]
async fn a_revision_of_the_future_is_a_timeout_with_its_cause() {
    let api = api();
    three(&api).await;
    for path in ["configmaps?resourceVersion=999", "namespaces/default/configmaps/a?resourceVersion=999"] {
        let response = send(&api, request(&format!("/api/v1/{path}"))).await;
        assert_eq!(response.headers()["retry-after"], "1");
        let (code, status) = read(response).await;
        assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
        let message = status["message"].as_str().expect("a message");
        assert!(message.starts_with("Timeout: Too large resource version: 999, current: "), "{message}");
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(status["details"]["retryAfterSeconds"], 1);
    }
}

#[tokio::test]
async fn an_exact_revision_shows_the_past_until_it_is_compacted() {
    let api = api();
    let revision = three(&api).await;
    remove(&api, "configmaps/default/a").await;
    let path = format!("/api/v1/configmaps?resourceVersion={revision}&resourceVersionMatch=Exact");
    let (_, list) = get(&api, &path).await;
    assert_eq!(names(&list), ["a", "b", "c"]);
    assert_eq!(list["metadata"]["resourceVersion"], revision.to_string());
    let (_, list) = get(&api, &format!("/api/v1/configmaps?resourceVersion={revision}")).await;
    assert_eq!(names(&list), ["b", "c"]);
    let now = put_config_map(&api, "d", json!({})).await;
    api.store.compact(now).await.expect("compaction");
    let (code, status) = get(&api, &path).await;
    assert_eq!((code, &status["reason"]), (StatusCode::GONE, &json!("Expired")));
}

#[tokio::test]
async fn a_limit_is_not_kept_when_any_revision_will_do() {
    let api = api();
    three(&api).await;
    let (_, list) = get(&api, "/api/v1/configmaps?limit=1&resourceVersion=0").await;
    assert_eq!(names(&list), ["a", "b", "c"]);
}

#[tokio::test]
async fn objects_that_are_being_deleted_stay_visible() {
    let api = api();
    let mut dying = config_map("a", json!({}));
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    put(&api, "configmaps/default/a", dying).await;
    let (_, list) = get(&api, "/api/v1/configmaps").await;
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test]
async fn big_numbers_and_strange_texts_come_back_as_they_were() {
    let api = api();
    let mut object = config_map("a", json!({}));
    object["data"] = json!({"text": "\u{1F600}\"\\\u{0}</script>"});
    object["metadata"]["generation"] = json!(i64::MAX);
    put(&api, "configmaps/default/a", object).await;
    let (_, list) = get(&api, "/api/v1/configmaps").await;
    assert_eq!(list["items"][0]["metadata"]["generation"], json!(i64::MAX));
    assert_eq!(list["items"][0]["data"]["text"], "\u{1F600}\"\\\u{0}</script>");
}

#[tokio::test]
async fn a_record_that_somebody_else_wrote_is_read_too() {
    let api = api();
    let value =
        br#"{ "metadata" : {"name":"a","namespace":"default"}, "apiVersion":"v1", "kind":"ConfigMap" }"#;
    let key = &b"/registry/configmaps/default/a"[..];
    api.store.put(corten_store::Put::create(key, &value[..])).await.expect("a store");
    let (_, object) = get(&api, "/api/v1/namespaces/default/configmaps/a").await;
    assert_eq!(object["metadata"]["resourceVersion"], "2");
    let (_, list) = get(&api, "/api/v1/configmaps").await;
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test]
async fn metadata_alone_is_answered_to_who_asks_for_it() {
    let api = api();
    three(&api).await;
    const ONE: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    let asked = request("/api/v1/namespaces/default/configmaps/a").header("accept", ONE);
    let (_, object) = read(send(&api, asked).await).await;
    assert_eq!(
        (&object["kind"], &object["apiVersion"]),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!((&object["metadata"]["name"], object.get("data")), (&json!("a"), None));
    const MANY: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, list) = read(send(&api, request("/api/v1/configmaps").header("accept", MANY)).await).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][2]["kind"], "PartialObjectMetadata");
    assert_eq!(names(&list), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_long_list_goes_out_in_pieces_and_whole() {
    let api = api();
    for at in 0..300 {
        let mut object = config_map(&format!("a{at:03}"), json!({}));
        object["data"]["a"] = "x".repeat(4000).into();
        put(&api, &format!("configmaps/default/a{at:03}"), object).await;
    }
    let (_, list) = get(&api, "/api/v1/configmaps").await;
    assert_eq!(names(&list).len(), 300);
    assert!(names(&list).is_sorted());
}

#[tokio::test]
async fn paths_that_are_none_are_not_found_as_upstream_says() {
    let api = api();
    for path in
        ["/api/v1/pods/x", "/api/v1/namespaces/a/nodes", "/api/v1/foo", "/api/v1/namespaces/a/pods/x/foo"]
    {
        let (code, status) = get(&api, path).await;
        assert_eq!(code, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(status["message"], "the server could not find the requested resource");
        assert_eq!(status["details"], json!({}));
    }
    for path in ["/apis/nope/v1/foo", "/nope", "/apis/apps/v2"] {
        let (code, text) = get(&api, path).await;
        assert_eq!((code, text), (StatusCode::NOT_FOUND, Value::from("404 page not found\n")), "{path}");
    }
    let response = send(&api, http::Request::put("/api/v1/namespaces/a/pods")).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn yaml_is_answered_to_who_asks_for_it() {
    let api = api();
    three(&api).await;
    let asked = request("/api/v1/namespaces/default/configmaps/a").header("accept", "application/yaml");
    let response = send(&api, asked).await;
    assert_eq!(response.headers()["content-type"], "application/yaml");
    let text = String::from_utf8(bytes(response).await.to_vec()).expect("text");
    assert!(text.contains("kind: ConfigMap"), "{text}");
}

#[tokio::test]
async fn a_record_in_protobuf_is_read_and_selected_like_any_other() {
    let api = api();
    let value = config_map("a", json!({"app": "x"}));
    let node = corten_schema::builtin().of_api_version("v1", "ConfigMap").expect("a kind");
    let bytes = corten_protobuf::encode(node, &value).expect("an object");
    let key = &b"/registry/configmaps/default/a"[..];
    api.store.put(corten_store::Put::create(key, bytes)).await.expect("a store");
    let (_, object) = get(&api, "/api/v1/namespaces/default/configmaps/a").await;
    assert_eq!((&object["data"]["a"], &object["metadata"]["resourceVersion"]), (&json!("b"), &json!("2")));
    let (_, list) = get(&api, "/api/v1/configmaps?labelSelector=app%3Dx").await;
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test]
async fn an_event_is_the_same_in_both_of_its_groups() {
    let api = api();
    let event = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "r"});
    put(&api, "events/default/a", event).await;
    let (_, core) = get(&api, "/api/v1/namespaces/default/events/a").await;
    assert_eq!((&core["apiVersion"], &core["message"]), (&json!("v1"), &json!("m")));
    let (_, new) = get(&api, "/apis/events.k8s.io/v1/namespaces/default/events/a").await;
    assert_eq!((&new["apiVersion"], &new["note"]), (&json!("events.k8s.io/v1"), &json!("m")));
    assert_eq!(new["regarding"]["name"], "p");
    let (_, list) = get(&api, "/apis/events.k8s.io/v1/events").await;
    assert_eq!(list["items"][0]["note"], "m");
}
