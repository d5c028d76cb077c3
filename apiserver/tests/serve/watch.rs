//! Watches.

use std::sync::Arc;
use std::time::Duration;

use corten_apiserver::watch::Hub;
use http::StatusCode;
use serde_json::json;

use crate::common::*;

const ALL: &str = "/api/v1/configmaps?watch=1";
/// What client-go's reflectors send from 1.35 on.
const WATCH_LIST: &str = "/api/v1/configmaps?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=300";

#[tokio::test]
async fn a_watch_from_a_revision_tells_what_came_after_it() {
    let api = api();
    let first = put_config_map(&api, "a", json!({})).await;
    put_config_map(&api, "b", json!({})).await;
    remove(&api, "configmaps/default/a").await;
    let mut watch = Watching::start(&api, &format!("{ALL}&resourceVersion={first}")).await;
    watch.expect(&[("ADDED", "b"), ("DELETED", "a")]).await;
    put_config_map(&api, "b", json!({"x": "y"})).await;
    watch.expect(&[("MODIFIED", "b")]).await;
}

#[tokio::test]
async fn a_deleted_object_is_as_it_was_at_the_revision_of_its_deletion() {
    let api = api();
    let first = put_config_map(&api, "a", json!({})).await;
    let mut watch = Watching::start(&api, &format!("{ALL}&resourceVersion={first}")).await;
    let deleted = remove(&api, "configmaps/default/a").await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], deleted.to_string());
    assert_eq!(event["object"]["data"]["a"], "b");
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_what_is_there() {
    let api = api();
    put_config_map(&api, "a", json!({})).await;
    for version in ["", "&resourceVersion=0"] {
        let mut watch = Watching::start(&api, &format!("{ALL}{version}")).await;
        watch.expect(&[("ADDED", "a")]).await;
        assert!(watch.is_silent().await);
    }
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_that_says_so() {
    let api = api();
    put_config_map(&api, "a", json!({})).await;
    let revision = put_config_map(&api, "b", json!({})).await;
    let mut watch = Watching::start(&api, WATCH_LIST).await;
    watch.expect(&[("ADDED", "a"), ("ADDED", "b")]).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["type"], "BOOKMARK");
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {
        "resourceVersion": revision.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}});
    assert_eq!(event["object"], object);
    put_config_map(&api, "c", json!({})).await;
    watch.expect(&[("ADDED", "c")]).await;
}

#[tokio::test]
async fn initial_events_of_nothing_end_at_once() {
    let api = api();
    let mut watch = Watching::start(&api, WATCH_LIST).await;
    assert_eq!(watch.told().await.0, "BOOKMARK");
}

#[tokio::test]
async fn without_initial_events_a_watch_begins_now() {
    let api = api();
    put_config_map(&api, "a", json!({})).await;
    let path = format!("{ALL}&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
    let mut watch = Watching::start(&api, &path).await;
    put_config_map(&api, "b", json!({})).await;
    watch.expect(&[("ADDED", "b")]).await;
}

#[tokio::test]
async fn an_object_that_is_selected_no_longer_is_deleted_for_the_watcher() {
    let api = api();
    let first = put_config_map(&api, "a", json!({"app": "x"})).await;
    let path = format!("{ALL}&labelSelector=app%3Dx&resourceVersion={first}");
    let mut watch = Watching::start(&api, &path).await;
    put_config_map(&api, "a", json!({"app": "x", "n": "1"})).await;
    let gone = put_config_map(&api, "a", json!({"app": "y"})).await;
    put_config_map(&api, "a", json!({"app": "z"})).await;
    put_config_map(&api, "a", json!({"app": "x"})).await;
    watch.expect(&[("MODIFIED", "a")]).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["type"], "DELETED");
    // As it was when it was last selected, at the revision of the change.
    assert_eq!(event["object"]["metadata"]["labels"], json!({"app": "x", "n": "1"}));
    assert_eq!(event["object"]["metadata"]["resourceVersion"], gone.to_string());
    watch.expect(&[("ADDED", "a")]).await;
    // The same, told after the fact.
    let mut late = Watching::start(&api, &path).await;
    late.expect(&[("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "a")]).await;
}

#[tokio::test]
async fn one_object_can_be_watched_by_name_and_by_the_old_path() {
    let api = api();
    let first = put_config_map(&api, "b", json!({})).await;
    for path in [
        "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Da",
        "/api/v1/watch/namespaces/default/configmaps/a?x=y",
        "/api/v1/configmaps?watch=1&fieldSelector=metadata.name%3Da",
    ] {
        let mut watch = Watching::start(&api, &format!("{path}&resourceVersion={first}")).await;
        put_config_map(&api, "b", json!({})).await;
        put_config_map(&api, "a", json!({})).await;
        watch.expect(&[("ADDED", "a")]).await;
        remove(&api, "configmaps/default/a").await;
        watch.expect(&[("DELETED", "a")]).await;
    }
}

#[tokio::test]
async fn compacted_history_is_an_event_of_error_410() {
    let api = api();
    let first = put_config_map(&api, "a", json!({})).await;
    let mut kept = Watching::start(&api, &format!("{ALL}&resourceVersion={first}")).await;
    put_config_map(&api, "b", json!({})).await;
    let last = put_config_map(&api, "c", json!({})).await;
    kept.expect(&[("ADDED", "b"), ("ADDED", "c")]).await;
    api.store.compact(last).await.expect("compaction");
    let mut watch = Watching::start(&api, &format!("{ALL}&resourceVersion={first}")).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["type"], "ERROR");
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert_eq!(watch.next().await, None);
    put_config_map(&api, "d", json!({})).await;
    kept.expect(&[("ADDED", "d")]).await;
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over_after_a_last_bookmark() {
    let api = api();
    let first = put_config_map(&api, "a", json!({})).await;
    let path = format!("{ALL}&resourceVersion={first}&timeoutSeconds=3&allowWatchBookmarks=true");
    let mut watch = Watching::start(&api, &path).await;
    watch.expect(&[("BOOKMARK", &first.to_string())]).await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn bookmarks_come_to_those_who_want_them() {
    let api = api_with(|api| api.watches = Hub::new(Arc::clone(&api.store), Duration::from_millis(20)));
    put_config_map(&api, "a", json!({})).await;
    let mut with = Watching::start(&api, &format!("{ALL}&resourceVersion=1&allowWatchBookmarks=true")).await;
    with.expect(&[("ADDED", "a")]).await;
    let mut without = Watching::start(&api, &format!("{ALL}&resourceVersion=1")).await;
    without.expect(&[("ADDED", "a")]).await;
    // A change elsewhere, of which the watchers know nothing until a bookmark tells.
    let revision =
        put(&api, "secrets/default/a", json!({"kind": "Secret", "apiVersion": "v1", "metadata": {}})).await;
    while with.told().await != ("BOOKMARK".to_owned(), revision.to_string()) {}
    assert!(without.is_silent().await);
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_and_others_are_not_harmed() {
    let api = api();
    let mut slow = Watching::start(&api, &format!("{ALL}&resourceVersion=1")).await;
    let mut quick = Watching::start(&api, &format!("{ALL}&resourceVersion=1")).await;
    for at in 0..1500 {
        put_config_map(&api, "a", json!({"n": at.to_string()})).await;
        let event = quick.next().await.expect("the quick one goes on");
        assert_eq!(event["object"]["metadata"]["labels"]["n"], at.to_string());
    }
    let mut seen = 0;
    while slow.next().await.is_some() {
        seen += 1;
    }
    assert!((1..1500).contains(&seen), "{seen}");
}

#[tokio::test]
async fn every_watcher_sees_every_change_once_and_in_order() {
    let api = api();
    let mut watches = Vec::new();
    for at in 0..20 {
        let path = match at % 3 {
            0 => format!("{ALL}&resourceVersion=1"),
            1 => WATCH_LIST.to_owned(),
            _ => "/api/v1/namespaces/default/configmaps?watch=1".to_owned(),
        };
        watches.push(Watching::start(&api, &path).await);
        put_config_map(&api, &format!("a{at:02}"), json!({})).await;
    }
    for watch in &mut watches {
        let mut added = Vec::new();
        while added.len() < 20 {
            let (kind, name) = watch.told().await;
            if kind != "BOOKMARK" {
                assert_eq!(kind, "ADDED");
                added.push(name);
            }
        }
        added.dedup();
        assert_eq!(added.len(), 20);
        assert!(added.is_sorted());
    }
}

#[tokio::test]
async fn a_table_tells_its_columns_once() {
    let api = api();
    put_config_map(&api, "a", json!({})).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let asked = request(ALL).header("accept", table);
    let mut watch = Watching::of(send(&api, asked).await);
    let event = watch.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(event["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert!(event["object"]["columnDefinitions"].is_array());
    put_config_map(&api, "b", json!({})).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["columnDefinitions"], json!(null));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test]
async fn a_watch_in_yaml_is_refused() {
    let api = api();
    let response = send(&api, request(ALL).header("accept", "application/yaml")).await;
    assert_eq!(response.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn watches_leave_nothing_behind() {
    let api = api();
    for _ in 0..50 {
        drop(Watching::start(&api, &format!("{ALL}&resourceVersion=1")).await);
    }
    let watchers: usize = api.watches.watchers().await.into_iter().map(|(_, count)| count).sum();
    assert_eq!(watchers, 0);
}

#[tokio::test]
async fn watches_of_what_is_no_longer_served_end_and_others_go_on() {
    let api = api();
    let mut ended = Watching::start(&api, &format!("{ALL}&resourceVersion=1")).await;
    let mut other = Watching::start(&api, "/api/v1/secrets?watch=1&resourceVersion=1").await;
    api.watches.end(b"/registry/configmaps/").await;
    assert_eq!(ended.next().await, None);
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}});
    put(&api, "secrets/default/a", secret).await;
    other.expect(&[("ADDED", "a")]).await;
}

/// client-go lists anew, and so misses changes, after a watch that is begun and ends at once.
#[tokio::test]
async fn a_server_that_ends_asks_watches_to_come_again_instead_of_beginning_them() {
    let api = api();
    api.watches.close().await;
    let response = send(&api, request(&format!("{ALL}&resourceVersion=1"))).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn each_form_of_an_event_is_made_for_those_who_asked_for_it() {
    let api = api();
    let metadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let event = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p"}, "message": "m"});
    let from = "watch=1&resourceVersion=1";
    let mut core = Watching::start(&api, &format!("/api/v1/events?{from}")).await;
    let mut new = Watching::start(&api, &format!("/apis/events.k8s.io/v1/events?{from}")).await;
    let asked = request(&format!("/api/v1/events?{from}")).header("accept", metadata);
    let mut partial = Watching::of(send(&api, asked).await);
    put(&api, "events/default/a", event).await;
    assert_eq!(core.next().await.expect("an event")["object"]["message"], "m");
    assert_eq!(new.next().await.expect("an event")["object"]["note"], "m");
    assert_eq!(partial.next().await.expect("an event")["object"]["kind"], "PartialObjectMetadata");
}
