//! Custom resources, from definition to end.

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Definition;
use kube::ResourceExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams, WatchParams,
};
use serde_json::{Value, json};

use super::server::{Server, until};

fn definition() -> Definition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.image"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"],
                        "x-kubernetes-validations": [{"rule": "self.replicas <= 10", "message": "too many replicas"}],
                        "properties": {
                            "cronSpec": {"type": "string", "pattern": "^\\S+( \\S+){4}$"},
                            "image": {"type": "string"},
                            "replicas": {"type": "integer", "minimum": 1, "default": 1}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}}}]}
    }))
    .expect("a definition")
}

fn object(name: &str, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": name}, "spec": spec}))
    .expect("an object")
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_custom_resource_is_served_like_a_built_in_one_until_its_definition_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(directory.path(), &["--storage=memory"]).await;
    let client = server.client().await;
    let definitions: Api<Definition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.expect("created");
    until("it is established", || async {
        let status = definitions.get("crontabs.stable.example.com").await.expect("there").status;
        let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|one| one.type_ == "Established" && one.status == "True")
    })
    .await;
    let kind = GroupVersionKind::gvk("stable.example.com", "v1", "CronTab");
    let tabs: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        "default",
        &ApiResource::from_gvk_with_plural(&kind, "crontabs"),
    );
    let make = async |name: &str, spec: Value| tabs.create(&PostParams::default(), &object(name, spec)).await;

    let made = make("a", json!({"cronSpec": "* * * * *", "image": "x", "bogus": 1})).await.expect("created");
    assert_eq!(made.data["spec"]["replicas"], 1, "defaulted");
    assert!(made.data["spec"].get("bogus").is_none(), "pruned");
    assert_eq!(made.metadata.generation, Some(1));
    let wrong = message(make("b", json!({"cronSpec": "bad"})).await.expect_err("refused"));
    assert_eq!(
        wrong,
        "CronTab.stable.example.com \"b\" is invalid: spec.cronSpec: Invalid value: \"bad\": spec.cronSpec in body should match '^\\S+( \\S+){4}$'"
    );
    let many =
        message(make("b", json!({"cronSpec": "* * * * *", "replicas": 11})).await.expect_err("refused"));
    assert_eq!(
        many,
        "CronTab.stable.example.com \"b\" is invalid: spec: Invalid value: \"object\": too many replicas"
    );

    let plain = PatchParams::default();
    let status = Patch::Merge(json!({"status": {"replicas": 7}, "spec": {"image": "y"}}));
    let told = tabs.patch_status("a", &plain, &status).await.expect("patched");
    assert_eq!((&told.data["status"]["replicas"], &told.data["spec"]["image"]), (&json!(7), &json!("x")));
    let change = Patch::Merge(json!({"status": {"replicas": 8}}));
    let main = tabs.patch("a", &plain, &change);
    assert_eq!(main.await.expect("patched").data["status"]["replicas"], 7, "status has a path of its own");
    let change = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = tabs.patch_scale("a", &plain, &change);
    assert_eq!(scaled.await.expect("scaled").spec.and_then(|spec| spec.replicas), Some(3));
    let now = tabs.get("a").await.expect("there");
    assert_eq!((&now.data["spec"]["replicas"], now.metadata.generation), (&json!(3), Some(2)));

    let selected = async |value: &str| {
        let list =
            tabs.list(&ListParams::default().fields(&format!("spec.image={value}"))).await.expect("a list");
        list.items.len()
    };
    assert_eq!((selected("x").await, selected("z").await), (1, 0));
    let applied = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "s"},
        "spec": {"cronSpec": "* * * * *"}});
    let applied = tabs.patch("s", &PatchParams::apply("me"), &Patch::Apply(applied)).await.expect("applied");
    assert_eq!(applied.managed_fields().len(), 1);

    let mut watch = tabs.watch(&WatchParams::default(), "0").await.expect("a watch").boxed();
    definitions.delete("crontabs.stable.example.com", &DeleteParams::default()).await.expect("deleted");
    until("it is gone", || async {
        definitions.get_opt("crontabs.stable.example.com").await.expect("an answer").is_none()
    })
    .await;
    until("its resource is served no more", || async { tabs.list(&ListParams::default()).await.is_err() })
        .await;
    let mut deleted = 0;
    while let Ok(Some(Ok(event))) =
        tokio::time::timeout(std::time::Duration::from_secs(5), watch.next()).await
    {
        deleted += usize::from(matches!(event, kube::api::WatchEvent::Deleted(_)));
    }
    assert_eq!(deleted, 2, "both objects were deleted with it");
}
