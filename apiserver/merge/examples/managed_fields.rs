//! What upkeep of managedFields costs a write, in microseconds: `cargo run --release -p corten-merge --example
//! managed_fields`.

use std::hint::black_box;
use std::time::Instant;

use corten_merge::managed::{Ignored, Write};
use serde_json::{Map, Value, json};

fn main() {
    let node = corten_schema::builtin().kind("", "v1", "Pod").expect("pods are built in");
    let (main, status) =
        (Ignored::of("", "Pod", "", true, false), Ignored::of("", "Pod", "status", true, false));
    let write = |subresource, ignored| Write {
        node,
        api_version: "v1",
        kind: "Pod",
        subresource,
        manager: "m",
        now: "2026-01-01T00:00:00Z",
        is_custom: false,
        ignored,
        versions: &(),
    };
    let mut new = pod();
    write("", &main).update(None, new.as_object_mut().expect("an object"));
    let mut live = new.clone();
    live["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]});
    write("status", &status).update(new.as_object(), live.as_object_mut().expect("an object"));
    println!(
        "a pod of {} bytes, {} of them managedFields",
        live.to_string().len(),
        live["metadata"]["managedFields"].to_string().len()
    );

    time("create", || (None, pod()), |live, new| write("", &main).update(live, new));
    time(
        "update, nothing changes",
        || (Some(live.clone()), live.clone()),
        |live, new| write("", &main).update(live, new),
    );
    let relabelled = || {
        let mut new = live.clone();
        new["metadata"]["labels"]["x"] = json!("y");
        (Some(live.clone()), new)
    };
    time("update, a label", relabelled, |live, new| write("", &main).update(live, new));
    let ready = || {
        let mut new = live.clone();
        new["status"]["conditions"][0]["status"] = json!("True");
        (Some(live.clone()), new)
    };
    time("update, a condition of the status", ready, |live, new| write("status", &status).update(live, new));
    let applier = || {
        let mut config = pod();
        config["metadata"]["labels"]["z"] = json!("y");
        (Some(live.clone()), config)
    };
    time("apply", applier, |live, config| {
        black_box(write("", &main).apply(live, config, true).expect("applies"));
    });
}

fn time(
    what: &str,
    make: impl Fn() -> (Option<Value>, Value),
    run: impl Fn(Option<&Map<String, Value>>, &mut Map<String, Value>),
) {
    const ROUNDS: u32 = 2_000;
    let mut inputs: Vec<_> = (0..ROUNDS).map(|_| make()).collect();
    let start = Instant::now();
    for (live, new) in &mut inputs {
        run(live.as_ref().and_then(Value::as_object), new.as_object_mut().expect("an object"));
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!("{what}: {each:.1} µs");
}

fn pod() -> Value {
    let container = |name: &str| {
        json!({"name": name, "image": "registry.example/app/server:1.2.3", "imagePullPolicy": "IfNotPresent",
            "args": ["--listen=0.0.0.0:8080", "--verbose"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"},
                {"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}, {"containerPort": 9090, "name": "metrics", "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": {"httpGet": {"path": "/live", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10,
                "timeoutSeconds": 1, "failureThreshold": 3, "successThreshold": 1},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/app", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web", "tier": "front"}, "annotations": {"a": "b"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true}]},
        "spec": {"containers": [container("app"), container("sidecar")], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "securityContext": {}, "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "config", "configMap": {"name": "c", "defaultMode": 420}}]},
        "status": {}})
}
