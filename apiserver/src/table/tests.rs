use std::sync::Arc;

use corten_schema::time;
use serde_json::{Value, json};

use super::{columns, row};
use crate::object::Object;
use crate::registry::{Registry, Served};

const NOW: &str = "2026-01-02T00:00:00Z";

fn served(group: &str, version: &str, plural: &str) -> Arc<Served> {
    Registry::built_in().find(group, version, plural).expect(plural)
}

fn cells(group: &str, version: &str, plural: &str, mut object: Value) -> Vec<Value> {
    object["metadata"]["name"] = json!("a");
    if object["metadata"]["creationTimestamp"].is_null() {
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T23:55:00Z");
    }
    let object = Object::of(object).expect("an object");
    row(&served(group, version, plural), &object, time::seconds(NOW).expect("a time")).cells
}

#[test]
fn every_kind_has_as_many_cells_as_columns() {
    for served in Registry::built_in().all().iter().filter(|served| !served.resource.columns.is_empty()) {
        let row = row(served, &Object::default(), 0);
        // Upstream shows an age there that has no column.
        let more = usize::from(served.resource.plural == "ipaddresses");
        let count = columns(served).as_array().map_or(0, Vec::len);
        assert_eq!(row.cells.len(), count + more, "{}", served.resource.group_resource());
    }
}

#[test]
fn pods_say_what_their_containers_add_up_to() {
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let spec = json!({"containers": [{"name": "c"}, {"name": "d"}], "initContainers": [{"name": "i"}]});
    let running = json!({"name": "c", "ready": true, "state": {"running": {}}});
    for (spec, status, deleted, expected) in [
        (&spec, json!({"phase": "Pending"}), false, ["0/2", "Pending", "0"]),
        (&spec, json!({"phase": "Pending"}), true, ["0/2", "Terminating", "0"]),
        (&spec, json!({"phase": "Failed", "reason": "Evicted"}), true, ["0/2", "Evicted", "0"]),
        (
            &spec,
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            false,
            ["0/2", "Init:0/1", "0"],
        ),
        (
            &spec,
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2,
                "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:00Z"}}, "state": waiting("CrashLoopBackOff")}]}),
            false,
            ["0/2", "Init:CrashLoopBackOff", "2 (60s ago)"],
        ),
        (
            &spec,
            json!({"phase": "Running", "containerStatuses": [running,
                {"name": "d", "restartCount": 3, "state": waiting("ImagePullBackOff")}]}),
            false,
            ["1/2", "ImagePullBackOff", "3"],
        ),
        (
            &spec,
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
                {"name": "d", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}, running]}),
            false,
            ["1/2", "Running", "0"],
        ),
        (
            &json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]}),
            json!({"phase": "Running", "containerStatuses": [running],
                "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "restartCount": 1}]}),
            false,
            ["2/2", "Running", "1"],
        ),
        (
            &spec,
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            false,
            ["0/2", "ExitCode:3", "0"],
        ),
    ] {
        let mut pod = json!({"spec": spec, "status": status});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!(NOW);
        }
        let cells = cells("", "v1", "pods", pod);
        assert_eq!(cells[1..4], expected.map(Value::from), "{status}");
        assert_eq!(cells[4..], ["5m", "<none>", "<none>", "<none>", "<none>"].map(Value::from));
    }
}

#[test]
fn cells_are_upstreams() {
    let template =
        json!({"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}});
    let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
        {"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "d", "operator": "DoesNotExist"}]});
    for (group, version, plural, object, expected) in [
        (
            "apps",
            "v1",
            "deployments",
            json!({"spec": {"replicas": 3, "template": template, "selector": selector}, "status": {"readyReplicas": 2,
                "updatedReplicas": 3, "availableReplicas": 1}}),
            json!(["a", "2/3", 3, 1, "5m", "c,d", "i:1,j", "a=1,b=2,c in (x,y),!d"]),
        ),
        (
            "",
            "v1",
            "services",
            json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "protocol": "TCP",
                "nodePort": 30000}, {"port": 53, "protocol": "UDP"}], "selector": {"x": "y"}}}),
            json!(["a", "LoadBalancer", "10.0.0.1", "<pending>", "80:30000/TCP,53/UDP", "5m", "x=y"]),
        ),
        (
            "",
            "v1",
            "services",
            json!({"spec": {"type": "ExternalName", "externalName": "example.org"}}),
            json!(["a", "ExternalName", "<none>", "example.org", "<none>", "5m", "<none>"]),
        ),
        (
            "",
            "v1",
            "nodes",
            json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}, "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.3",
                "kernelVersion": "6.1", "architecture": "amd64"}, "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}}),
            json!([
                "a",
                "Ready,SchedulingDisabled",
                "control-plane",
                "5m",
                "v1.36.3",
                "1.2.3.4",
                "<none>",
                "<unknown>",
                "6.1 (amd64)",
                "<unknown>"
            ]),
        ),
        (
            "batch",
            "v1",
            "jobs",
            json!({"spec": {"completions": 2, "template": template}, "status": {"succeeded": 2, "startTime":
                "2026-01-01T23:56:00Z", "completionTime": "2026-01-01T23:56:42Z", "conditions": [{"type": "Complete",
                "status": "True"}]}}),
            json!(["a", "Complete", "2/2", "42s", "5m", "c,d", "i:1,j", "<none>"]),
        ),
        (
            "batch",
            "v1",
            "cronjobs",
            json!({"spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": {"spec": {"template": template}}}}),
            json!(["a", "* * * * *", "<none>", "False", 0, "<none>", "5m", "c,d", "i:1,j", "<none>"]),
        ),
        (
            "",
            "v1",
            "events",
            json!({"type": "Normal", "reason": "Pulled", "message": " text\n", "involvedObject": {"kind": "Pod", "name": "p"},
                "eventTime": "2026-01-01T23:59:50.000000Z", "reportingComponent": "kubelet", "reportingInstance": "n1"}),
            json!(["10s", "Normal", "Pulled", "pod/p", "", "kubelet, n1", "text", "10s", 1, "a"]),
        ),
        (
            "",
            "v1",
            "persistentvolumeclaims",
            json!({"spec": {"volumeName": "v", "storageClassName": "fast", "volumeMode": "Filesystem"}, "status": {"phase":
                "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}}),
            json!(["a", "Bound", "v", "1Gi", "RWO,RWX", "fast", "<unset>", "5m", "Filesystem"]),
        ),
        (
            "",
            "v1",
            "configmaps",
            json!({"data": {"a": "b"}, "binaryData": {"c": "d"}}),
            json!(["a", 2, "5m"]),
        ),
        ("", "v1", "limitranges", json!({}), json!(["a", "2026-01-01T23:55:00Z"])),
        (
            "policy",
            "v1",
            "poddisruptionbudgets",
            json!({"spec": {"maxUnavailable": "30%"}}),
            json!(["a", "N/A", "30%", 0, "5m"]),
        ),
        (
            "autoscaling",
            "v2",
            "horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 50}}}]}}),
            json!(["a", "Deployment/d", "cpu: <unknown>/50%", "1", 5, 0, "5m"]),
        ),
        (
            "discovery.k8s.io",
            "v1",
            "endpointslices",
            json!({"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["1", "2"]},
                {"addresses": ["3", "4"]}]}),
            json!(["a", "IPv4", "80", "1,2,3 + 1 more...", "5m"]),
        ),
        (
            "rbac.authorization.k8s.io",
            "v1",
            "rolebindings",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"},
                {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
            json!(["a", "Role/r", "5m", "u", "", "n/s"]),
        ),
        (
            "",
            "v1",
            "resourcequotas",
            json!({"status": {"hard": {"pods": "5", "limits.cpu": "2"}, "used": {"pods": "1"}}}),
            json!(["a", "pods: 1/5", "limits.cpu: 0/2", "5m"]),
        ),
        (
            "networking.k8s.io",
            "v1",
            "ingresses",
            json!({"spec": {"rules": [{"host": "x"}, {}], "tls": [{}]}}),
            json!(["a", "<none>", "x", "", "80, 443", "5m"]),
        ),
    ] {
        assert_eq!(Value::from(cells(group, version, plural, object)), expected, "{plural}");
    }
}

#[test]
fn pods_that_ended_say_so() {
    let pods = served("", "v1", "pods");
    let pod = |phase: &str| Object::of(json!({"status": {"phase": phase}})).expect("an object");
    assert_eq!(row(&pods, &pod("Running"), 0).conditions, None);
    let conditions = row(&pods, &pod("Failed"), 0).conditions.expect("it failed");
    assert_eq!(
        conditions,
        json!([{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}])
    );
}
