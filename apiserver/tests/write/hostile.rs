use http::Method;
use serde_json::json;

use crate::{JSON, MAPS, Server, map};

#[tokio::test]
async fn bodies_that_are_no_objects_are_refused_with_a_status() {
    let server = Server::new();
    server.post(MAPS, &map("a")).await.ok();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_map = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    #[rustfmt::skip]
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(), b"{".to_vec(), b"null".to_vec(), b"[]".to_vec(), b"5".to_vec(), b"\"x\"".to_vec(),
        b"\xff\xfe".to_vec(), deep.into_bytes(), deep_map.into_bytes(),
        br#"{"metadata":5}"#.to_vec(), br#"{"metadata":{"name":5}}"#.to_vec(),
        br#"{"metadata":{"name":"b","labels":[]}}"#.to_vec(), br#"{"metadata":{"name":"b","labels":{"a":1}}}"#.to_vec(),
        br#"{"metadata":{"name":"b","finalizers":"x"}}"#.to_vec(),
        br#"{"metadata":{"name":"b","ownerReferences":[5]}}"#.to_vec(),
        br#"{"metadata":{"name":"b","generation":1e400}}"#.to_vec(),
        br#"{"kind":5,"metadata":{"name":"b"}}"#.to_vec(), br#"{"apiVersion":{},"metadata":{"name":"b"}}"#.to_vec(),
        br#"{"metadata":{"name":"b"},"data":{"a":{}}}"#.to_vec(), br#"{"metadata":{"name":"b"},"data":"x"}"#.to_vec(),
        b"k8s\0".to_vec(), b"k8s\0\x0a\xff\xff\xff\xff\xff\xff".to_vec(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        for media in [JSON, "application/yaml", "application/vnd.kubernetes.protobuf"] {
            let told = server.send(Method::POST, MAPS, media, body.clone()).await;
            assert!((400..500).contains(&told.code), "{media} {shown}: {told:?}");
            assert_eq!(told.body["kind"], "Status", "{media} {shown}: {told:?}");
            let told = server.send(Method::PUT, &format!("{MAPS}/a"), media, body.clone()).await;
            assert!((400..500).contains(&told.code), "PUT {media} {shown}: {told:?}");
        }
        for media in ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"]
        {
            let path = format!("{MAPS}/a?fieldManager=m");
            let told = server.send(Method::PATCH, &path, &format!("application/{media}"), body.clone()).await;
            // A patch may well say `null` or nothing.
            assert!(told.code < 600 && told.code != 500, "PATCH {media} {shown}: {told:?}");
        }
        if !body.is_empty() {
            let told = server.send(Method::DELETE, &format!("{MAPS}/b"), JSON, body).await;
            assert!((400..500).contains(&told.code), "DELETE {shown}: {told:?}");
        }
    }
}

#[tokio::test]
async fn null_everywhere_is_absence() {
    let server = Server::new();
    let body = json!({"kind": null, "apiVersion": null, "data": null, "immutable": null, "metadata": {
        "name": "n", "labels": null, "annotations": null, "finalizers": null, "ownerReferences": null,
        "managedFields": null, "creationTimestamp": null, "uid": null, "generation": null}});
    let told = server.post(MAPS, &body).await.ok();
    assert!(told.get("data").is_none() && told["metadata"].get("labels").is_none(), "{told}");
    let nothing = json!({"metadata": {"name": null}});
    assert_eq!(server.post(MAPS, &nothing).await.code, 422);
    assert_eq!(server.post(MAPS, &json!({"metadata": null})).await.code, 422);
}

#[tokio::test]
async fn a_body_above_three_mebibytes_is_refused() {
    let server = Server::new();
    let mut big = map("big");
    big["data"]["a"] = "x".repeat(3 << 20).into();
    let told = server.post(MAPS, &big).await;
    assert_eq!(told.failure().0, 413);
}
