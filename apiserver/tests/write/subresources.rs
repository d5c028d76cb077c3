use serde_json::{Value, json};

use crate::{Server, deployment};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "a", "image": "b"}]}})
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let server = Server::new();
    server.post(DEPLOYMENTS, &deployment("d")).await.ok();
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = server.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(1), &json!("app=d")));
    scale["spec"]["replicas"] = 4.into();
    assert_eq!(server.put(&path, &scale).await.ok()["spec"]["replicas"], 4);
    assert_eq!(server.put(&path, &scale).await.failure().0, 409);
    let told = server.merge(&path, &json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(told["spec"]["replicas"], 5);
    let object = server.get(&format!("{DEPLOYMENTS}/d")).await.ok();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(5), &json!(3)));
    let told = server.merge(&path, &json!({"spec": {"replicas": -1}})).await;
    let message = "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!(told.failure(), (422, "Invalid", message));
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/e/scale")).await.failure().0, 404);
}

#[tokio::test]
async fn a_binding_gives_a_pod_to_a_node_once() {
    let server = Server::new();
    server.post(PODS, &pod("p")).await.ok();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let told = server.post(&format!("{PODS}/p/binding"), &binding).await;
    assert_eq!((told.code, &told.body["status"]), (201, &json!("Success")), "{told:?}");
    let bound = server.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "n");
    let told = server.post(&format!("{PODS}/p/binding"), &binding).await;
    let message =
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\"";
    assert_eq!(told.failure(), (409, "Conflict", message));
    server.post(PODS, &pod("q")).await.ok();
    let mut other = binding;
    other["metadata"]["name"] = "q".into();
    server.post("/api/v1/namespaces/default/bindings", &other).await.ok();
    assert_eq!(server.get(&format!("{PODS}/q")).await.ok()["spec"]["nodeName"], "n");
}

#[tokio::test]
async fn a_pod_goes_in_two_steps_once_it_has_a_node() {
    let server = Server::new();
    server.post(PODS, &pod("p")).await.ok();
    let told = server.delete(&format!("{PODS}/p")).await.ok();
    assert_eq!((&told["kind"], &told["metadata"]["deletionGracePeriodSeconds"]), (&json!("Pod"), &json!(0)));
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 404);
    let mut on_node = pod("p");
    on_node["spec"]["nodeName"] = "n".into();
    server.post(PODS, &on_node).await.ok();
    let told = server.delete(&format!("{PODS}/p")).await.ok();
    assert_eq!(told["metadata"]["deletionGracePeriodSeconds"], 30, "{told}");
    server.get(&format!("{PODS}/p")).await.ok();
    server.delete_with(&format!("{PODS}/p"), &json!({"gracePeriodSeconds": 0})).await.ok();
    assert_eq!(server.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let server = Server::new();
    let mut running = pod("p");
    running["spec"]["nodeName"] = "n".into();
    let mut running = server.post(PODS, &running).await.ok();
    running["status"]["phase"] = "Running".into();
    running["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    server.put(&format!("{PODS}/p/status"), &running).await.ok();
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    let mut budget = server.post(budgets, &budget).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let path = format!("{PODS}/p/eviction");
    let told = server.post(&path, &eviction).await;
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(told.failure(), (429, "TooManyRequests", message));
    assert_eq!(told.body["details"]["causes"][0]["reason"], "DisruptionBudget");
    budget["status"] = json!({"observedGeneration": 9, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    server.put(&format!("{budgets}/b/status"), &budget).await.ok();
    let told = server.post(&format!("{path}?dryRun=All"), &eviction).await;
    assert_eq!(told.code, 201, "{told:?}");
    let told = server.post(&path, &eviction).await;
    assert_eq!((told.code, &told.body["status"]), (201, &json!("Success")), "{told:?}");
    let pod = server.get(&format!("{PODS}/p")).await.ok();
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    let budget = server.get(&format!("{budgets}/b")).await.ok();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["p"].is_string());
}

#[tokio::test]
async fn a_namespace_is_gone_when_it_is_finalized() {
    let server = Server::new();
    let path = "/api/v1/namespaces/n";
    server.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.ok();
    let mut object = server.delete(path).await.ok();
    assert_eq!(object["spec"]["finalizers"], json!(["kubernetes"]));
    object["spec"]["finalizers"] = json!([]);
    server.put(&format!("{path}/finalize"), &object).await.ok();
    assert_eq!(server.get(path).await.code, 404);
}

#[tokio::test]
async fn a_subresource_that_is_not_there_is_no_path() {
    let server = Server::new();
    server.post(DEPLOYMENTS, &deployment("d")).await.ok();
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/d/nothing")).await.failure().0, 404);
    assert_eq!(server.delete(&format!("{DEPLOYMENTS}/d/scale")).await.failure().0, 405);
}
