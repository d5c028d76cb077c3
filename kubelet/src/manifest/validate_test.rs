//! Bad manifests, one a row: what is put into a good Pod, and what the error must say.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Merges `patch` into a small good Pod and gives the error, or the empty string.
fn error(patch: &Value) -> String {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {
        "containers": [{"name": "c", "image": "i:1"}]}});
    merge(&mut pod, patch);
    match super::read(pod.to_string().as_bytes(), Path::new("web.json"), "node", Timestamp::UNIX_EPOCH) {
        Ok(_) => String::new(),
        Err(e) => e.to_string(),
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(a), Value::Object(b)) => {
            b.iter().for_each(|(k, v)| merge(a.entry(k.clone()).or_insert(Value::Null), v));
        }
        (a, b) => *a = b.clone(),
    }
}

fn container(fields: &Value) -> Value {
    let mut c = json!({"name": "c", "image": "i:1"});
    merge(&mut c, fields);
    json!({"spec": {"containers": [c]}})
}

#[test]
fn good_pods_pass() {
    for patch in [
        json!({}),
        json!({"metadata": {"uid": "0a1b-2c", "labels": {"app.kubernetes.io/name": "x"}, "annotations": {"a": "any thing"}}}),
        json!({"spec": {"hostNetwork": true, "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}}),
        container(&json!({"resources": {"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}}})),
        container(
            &json!({"ports": [{"name": "web", "containerPort": 80}], "livenessProbe": {"httpGet": {"port": "web"}}}),
        ),
        json!({"spec": {"nodeName": "node", "hostUsers": true, "automountServiceAccountToken": false}}),
    ] {
        assert_eq!(error(&patch), "", "{patch}");
    }
}

#[test]
fn bad_pods_are_refused_by_field() {
    let two = |a: Value, b: Value| json!({"spec": {"containers": [a, b]}});
    let table = [
        (json!({"kind": "Deployment"}), "\"v1\" \"Deployment\" is not a v1 Pod"),
        (
            json!({"metadata": {"name": "Web"}}),
            "metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain",
        ),
        (json!({"metadata": {"name": null}}), "metadata.name: Required value"),
        (json!({"metadata": {"namespace": "a.b"}}), "metadata.namespace: Invalid value"),
        (json!({"metadata": {"uid": "../../etc"}}), "metadata.uid: Invalid value: \"../../etc\""),
        (json!({"metadata": {"labels": {"a b": "x"}}}), "metadata.labels[a b]: Invalid value"),
        (json!({"spec": {"containers": []}}), "spec.containers: Required value"),
        (
            two(json!({"name": "c", "image": "i"}), json!({"name": "c", "image": "i"})),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            json!({"spec": {"initContainers": [{"name": "c", "image": "i"}]}}),
            "spec.containers[0].name: Duplicate value: \"c\"",
        ),
        (
            json!({"spec": {"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}]}}),
            "spec.initContainers[0].livenessProbe: Forbidden",
        ),
        (
            json!({"spec": {"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always"}]}}),
            "spec.initContainers[0].restartPolicy: not supported in standalone mode",
        ),
        (container(&json!({"image": null})), "spec.containers[0].image: Required value"),
        (
            container(&json!({"name": "a.b"})),
            "spec.containers[0].name: Invalid value: \"a.b\": a lowercase RFC 1123 label",
        ),
        (
            container(&json!({"imagePullPolicy": "Sometimes"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            container(&json!({"ports": [{"containerPort": 0}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: \"0\": must be between 1 and 65535, inclusive",
        ),
        (
            container(
                &json!({"ports": [{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]}),
            ),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\"",
        ),
        (
            container(&json!({"ports": [{"containerPort": 1, "hostIP": "x"}]})),
            "spec.containers[0].ports[0].hostIP: Invalid value",
        ),
        (
            container(&json!({"env": [{"name": "A=B", "value": "x"}]})),
            "spec.containers[0].env[0].name: Invalid value",
        ),
        (
            container(
                &json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]}),
            ),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\"",
        ),
        (
            container(
                &json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}}]}),
            ),
            "spec.containers[0].env[0].valueFrom.configMapKeyRef: not supported in standalone mode (needs an API server)",
        ),
        (
            container(&json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            "spec.containers[0].volumeMounts[0].name: Invalid value: \"v\": Not found",
        ),
        (
            container(&json!({"resources": {"limits": {"memory": "1Mi"}, "requests": {"memory": "2Mi"}}})),
            "spec.containers[0].resources.requests[memory]: Invalid value: \"memory\": must be less than or equal to memory limit",
        ),
        (
            container(&json!({"resources": {"limits": {"memory": "lots"}}})),
            "spec.containers[0].resources.limits[memory]: Invalid value: \"lots\"",
        ),
        (
            container(&json!({"resources": {"limits": {"ephemeral-storage": "1Gi"}}})),
            "resources.limits[ephemeral-storage]: not supported",
        ),
        (
            container(&json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}})),
            "resources.limits[nvidia.com/gpu]: not supported",
        ),
        (
            container(&json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}})),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            container(&json!({"securityContext": {"procMount": "Unmasked"}})),
            "spec.containers[0].securityContext.procMount: Invalid value",
        ),
        (
            container(&json!({"securityContext": {"runAsUser": -1}})),
            "spec.containers[0].securityContext.runAsUser: Invalid value",
        ),
        (
            container(
                &json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}}),
            ),
            "seccompProfile.localhostProfile: Invalid value: \"../x\"",
        ),
        (
            container(&json!({"livenessProbe": {"tcpSocket": {"port": 1}, "exec": {"command": ["x"]}}})),
            "may not specify more than 1 handler type",
        ),
        (
            container(&json!({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}})),
            "livenessProbe.successThreshold: Invalid value: \"2\": must be 1",
        ),
        (
            container(&json!({"readinessProbe": {"httpGet": {"port": "nope"}}})),
            "readinessProbe.httpGet.port: Invalid value: \"nope\"",
        ),
        (
            container(&json!({"readinessProbe": {"grpc": {"port": 1}}})),
            "readinessProbe.grpc: not supported in standalone mode",
        ),
        (container(&json!({"lifecycle": {"stopSignal": "SIGNOPE"}})), "lifecycle.stopSignal: Invalid value"),
        (
            container(&json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}})),
            "preStop.sleep.seconds: Invalid value: \"31\"",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}}),
            "spec.volumes[0].hostPath.path: Invalid value",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/a", "type": "Dir"}}]}}),
            "spec.volumes[0].hostPath.type: Unsupported value",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}}),
            "spec.volumes[0].emptyDir.sizeLimit: not supported",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}}),
            "spec.volumes[0].emptyDir.medium: Unsupported value",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v"}, {"name": "v"}]}}),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (json!({"spec": {"dnsPolicy": "None"}}), "spec.dnsConfig.nameservers: Required value"),
        (
            json!({"spec": {"hostAliases": [{"ip": "1.2.3", "hostnames": ["a"]}]}}),
            "spec.hostAliases[0].ip: Invalid value",
        ),
        (
            json!({"spec": {"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a\nb"]}]}}),
            "spec.hostAliases[0].hostnames[0]: Invalid value",
        ),
        (
            json!({"spec": {"hostPID": true, "shareProcessNamespace": true}}),
            "spec.shareProcessNamespace: Forbidden",
        ),
        (json!({"spec": {"hostUsers": false}}), "spec.hostUsers: not supported"),
        (
            json!({"spec": {"nodeName": "other"}}),
            "spec.nodeName: Invalid value: \"other\": this node is \"node\"",
        ),
        (json!({"spec": {"os": {"name": "windows"}}}), "spec.os.name: Unsupported value"),
        (
            json!({"spec": {"securityContext": {"sysctls": [{"name": "kernel.core_pattern", "value": "|x"}]}}}),
            "spec.securityContext.sysctls[0].name: Forbidden: sysctl \"kernel.core_pattern\" is not allowlisted",
        ),
        (
            json!({"spec": {"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}}),
            "spec.securityContext.sysctls[0].name: Forbidden: may not be specified when 'hostNetwork' is true",
        ),
        (
            json!({"spec": {"priorityClassName": "x"}}),
            "spec.priorityClassName: not supported in standalone mode",
        ),
        (json!({"spec": {"restartPolcy": "Never"}}), "spec.restartPolcy: unknown field"),
    ];
    for (patch, expected) in &table {
        let error = error(patch);
        assert!(error.contains(expected), "{patch}\n  wanted: {expected}\n  got:    {error}");
    }
}

#[test]
fn all_problems_of_a_pod_are_named_at_once() {
    let error = error(
        &json!({"spec": {"containers": [{"name": "C", "image": "", "workingDir": "/"}], "restartPolicy": "No"}}),
    );
    assert_eq!(error.matches("; ").count(), 2, "{error}");
}
