//! The allow-list: every field of a Pod this kubelet acts on, with its JSON type, and every field of the Pod API it
//! refuses, with the reason. What is in neither is a typing error. So nothing in a manifest is ever ignored.
//!
//! A refused field may be there when it says nothing (`null`, `{}`, `[]`): generated manifests write such.

use serde_json::Value;

use super::field::{FieldError, Findings, Problem};

/// JSON type of a supported field.
#[derive(Clone, Copy)]
enum Shape {
    Str,
    Bool,
    Int,
    Quantity,
    IntOrStr,
    Map(&'static Shape),
    List(&'static Shape),
    Object(&'static [(&'static str, Rule)]),
}

#[derive(Clone, Copy)]
enum Rule {
    Is(Shape),
    Refused(&'static str),
}

use Rule::{Is, Refused};
use Shape::{Bool, Int, IntOrStr, List, Map, Object, Quantity, Str};

const STR: Shape = Str;
const STRINGS: Shape = List(&STR);
const STR_MAP: Shape = Map(&STR);

const NO_API: &str = "needs an API server";
const NO_SCHEDULER: &str = "there is no scheduler: the file's place decides the node";

const POD: &[(&str, Rule)] = &[
    ("apiVersion", Is(Str)),
    ("kind", Is(Str)),
    ("metadata", Is(Object(METADATA))),
    ("spec", Is(Object(SPEC))),
    ("status", Refused("the kubelet writes it")),
];

const METADATA: &[(&str, Rule)] = &[
    ("name", Is(Str)),
    ("namespace", Is(Str)),
    ("uid", Is(Str)),
    ("labels", Is(STR_MAP)),
    ("annotations", Is(STR_MAP)),
    ("creationTimestamp", Refused(NO_API)),
    ("deletionGracePeriodSeconds", Refused(NO_API)),
    ("deletionTimestamp", Refused("remove the file to delete the pod")),
    ("finalizers", Refused(NO_API)),
    ("generateName", Refused("a static pod has a fixed name")),
    ("generation", Refused(NO_API)),
    ("managedFields", Refused(NO_API)),
    ("ownerReferences", Refused(NO_API)),
    ("resourceVersion", Refused(NO_API)),
    ("selfLink", Refused(NO_API)),
];

const SPEC: &[(&str, Rule)] = &[
    ("activeDeadlineSeconds", Is(Int)),
    ("automountServiceAccountToken", Is(Bool)),
    ("containers", Is(List(&Object(CONTAINER)))),
    ("dnsConfig", Is(Object(DNS_CONFIG))),
    ("dnsPolicy", Is(Str)),
    ("enableServiceLinks", Is(Bool)),
    ("hostAliases", Is(List(&Object(&[("ip", Is(Str)), ("hostnames", Is(STRINGS))])))),
    ("hostIPC", Is(Bool)),
    ("hostNetwork", Is(Bool)),
    ("hostPID", Is(Bool)),
    ("hostUsers", Is(Bool)),
    ("hostname", Is(Str)),
    ("initContainers", Is(List(&Object(CONTAINER)))),
    ("nodeName", Is(Str)),
    ("os", Is(Object(&[("name", Is(Str))]))),
    ("restartPolicy", Is(Str)),
    ("securityContext", Is(Object(POD_SECURITY))),
    ("setHostnameAsFQDN", Is(Bool)),
    ("shareProcessNamespace", Is(Bool)),
    ("subdomain", Is(Str)),
    ("terminationGracePeriodSeconds", Is(Int)),
    ("volumes", Is(List(&Object(VOLUME)))),
    ("affinity", Refused(NO_SCHEDULER)),
    ("ephemeralContainers", Refused(NO_API)),
    ("hostnameOverride", Refused("use hostname and subdomain")),
    (
        "imagePullSecrets",
        Refused("needs an API server for Secrets; credentials belong to the runtime's configuration"),
    ),
    ("nodeSelector", Refused(NO_SCHEDULER)),
    ("overhead", Refused("comes with a RuntimeClass, which needs an API server")),
    ("preemptionPolicy", Refused(NO_SCHEDULER)),
    ("priority", Refused("there is no eviction or preemption that would use it")),
    ("priorityClassName", Refused(NO_API)),
    ("readinessGates", Refused(NO_API)),
    ("resourceClaims", Refused("there is no dynamic resource allocation")),
    ("resources", Refused("pod-level resources are not built; give them per container")),
    ("runtimeClassName", Refused(NO_API)),
    ("schedulerName", Refused(NO_SCHEDULER)),
    ("schedulingGates", Refused(NO_SCHEDULER)),
    ("schedulingGroup", Refused(NO_SCHEDULER)),
    ("serviceAccount", Refused(NO_API)),
    ("serviceAccountName", Refused(NO_API)),
    ("tolerations", Refused(NO_SCHEDULER)),
    ("topologySpreadConstraints", Refused(NO_SCHEDULER)),
];

const DNS_CONFIG: &[(&str, Rule)] = &[
    ("nameservers", Is(STRINGS)),
    ("searches", Is(STRINGS)),
    ("options", Is(List(&Object(&[("name", Is(Str)), ("value", Is(Str))])))),
];

const SECCOMP: Shape = Object(&[("type", Is(Str)), ("localhostProfile", Is(Str))]);
const APP_ARMOR: Shape = SECCOMP;
const SE_LINUX: Shape =
    Object(&[("user", Is(Str)), ("role", Is(Str)), ("type", Is(Str)), ("level", Is(Str))]);

const POD_SECURITY: &[(&str, Rule)] = &[
    ("appArmorProfile", Is(APP_ARMOR)),
    ("fsGroup", Is(Int)),
    ("fsGroupChangePolicy", Is(Str)),
    ("runAsGroup", Is(Int)),
    ("runAsNonRoot", Is(Bool)),
    ("runAsUser", Is(Int)),
    ("seLinuxOptions", Is(SE_LINUX)),
    ("seccompProfile", Is(SECCOMP)),
    ("supplementalGroups", Is(List(&Int))),
    ("supplementalGroupsPolicy", Is(Str)),
    ("sysctls", Is(List(&Object(&[("name", Is(Str)), ("value", Is(Str))])))),
    ("seLinuxChangePolicy", Refused("volumes are not relabelled by mount options")),
    ("windowsOptions", Refused("Linux only")),
];

const SECURITY: &[(&str, Rule)] = &[
    ("allowPrivilegeEscalation", Is(Bool)),
    ("appArmorProfile", Is(APP_ARMOR)),
    ("capabilities", Is(Object(&[("add", Is(STRINGS)), ("drop", Is(STRINGS))]))),
    ("privileged", Is(Bool)),
    ("procMount", Is(Str)),
    ("readOnlyRootFilesystem", Is(Bool)),
    ("runAsGroup", Is(Int)),
    ("runAsNonRoot", Is(Bool)),
    ("runAsUser", Is(Int)),
    ("seLinuxOptions", Is(SE_LINUX)),
    ("seccompProfile", Is(SECCOMP)),
    ("windowsOptions", Refused("Linux only")),
];

const CONTAINER: &[(&str, Rule)] = &[
    ("args", Is(STRINGS)),
    ("command", Is(STRINGS)),
    ("env", Is(List(&Object(ENV)))),
    ("image", Is(Str)),
    ("imagePullPolicy", Is(Str)),
    ("lifecycle", Is(Object(LIFECYCLE))),
    ("livenessProbe", Is(Object(PROBE))),
    ("name", Is(Str)),
    ("ports", Is(List(&Object(PORT)))),
    ("readinessProbe", Is(Object(PROBE))),
    ("resources", Is(Object(RESOURCES))),
    ("securityContext", Is(Object(SECURITY))),
    ("startupProbe", Is(Object(PROBE))),
    ("stdin", Is(Bool)),
    ("stdinOnce", Is(Bool)),
    ("terminationMessagePath", Is(Str)),
    ("terminationMessagePolicy", Is(Str)),
    ("tty", Is(Bool)),
    ("volumeMounts", Is(List(&Object(VOLUME_MOUNT)))),
    ("workingDir", Is(Str)),
    ("envFrom", Refused("ConfigMaps and Secrets need an API server; write the values in env")),
    ("resizePolicy", Refused("a static pod is not resized in place: edit the file, the pod is replaced")),
    (
        "restartPolicy",
        Refused("sidecars and container restart rules are not built; use a container of spec.containers"),
    ),
    ("restartPolicyRules", Refused("container restart rules are not built")),
    ("volumeDevices", Refused("block volumes need persistent volume claims, which need an API server")),
];

const ENV: &[(&str, Rule)] = &[
    ("name", Is(Str)),
    ("value", Is(Str)),
    (
        "valueFrom",
        Is(Object(&[
            ("fieldRef", Is(Object(&[("apiVersion", Is(Str)), ("fieldPath", Is(Str))]))),
            (
                "resourceFieldRef",
                Is(Object(&[("containerName", Is(Str)), ("resource", Is(Str)), ("divisor", Is(Quantity))])),
            ),
            ("configMapKeyRef", Refused(NO_API)),
            ("secretKeyRef", Refused(NO_API)),
            ("fileKeyRef", Refused("environment files are not built")),
        ])),
    ),
];

const HTTP_GET: Shape = Object(&[
    ("host", Is(Str)),
    ("httpHeaders", Is(List(&Object(&[("name", Is(Str)), ("value", Is(Str))])))),
    ("path", Is(Str)),
    ("port", Is(IntOrStr)),
    ("scheme", Is(Str)),
]);
const EXEC: Shape = Object(&[("command", Is(STRINGS))]);

const HANDLER: &[(&str, Rule)] = &[
    ("exec", Is(EXEC)),
    ("httpGet", Is(HTTP_GET)),
    ("sleep", Is(Object(&[("seconds", Is(Int))]))),
    ("tcpSocket", Refused("upstream never ran it: deprecated and without effect")),
];

const LIFECYCLE: &[(&str, Rule)] =
    &[("postStart", Is(Object(HANDLER))), ("preStop", Is(Object(HANDLER))), ("stopSignal", Is(Str))];

const PROBE: &[(&str, Rule)] = &[
    ("exec", Is(EXEC)),
    ("failureThreshold", Is(Int)),
    ("httpGet", Is(HTTP_GET)),
    ("initialDelaySeconds", Is(Int)),
    ("periodSeconds", Is(Int)),
    ("successThreshold", Is(Int)),
    ("tcpSocket", Is(Object(&[("host", Is(Str)), ("port", Is(IntOrStr))]))),
    ("terminationGracePeriodSeconds", Is(Int)),
    ("timeoutSeconds", Is(Int)),
    ("grpc", Refused("gRPC probes are not built; use tcpSocket, httpGet or exec")),
];

const PORT: &[(&str, Rule)] = &[
    ("containerPort", Is(Int)),
    ("hostIP", Is(Str)),
    ("hostPort", Is(Int)),
    ("name", Is(Str)),
    ("protocol", Is(Str)),
];

const RESOURCES: &[(&str, Rule)] = &[
    ("limits", Is(Map(&Quantity))),
    ("requests", Is(Map(&Quantity))),
    ("claims", Refused("there is no dynamic resource allocation")),
];

const VOLUME_MOUNT: &[(&str, Rule)] = &[
    ("mountPath", Is(Str)),
    ("mountPropagation", Is(Str)),
    ("name", Is(Str)),
    ("readOnly", Is(Bool)),
    ("subPath", Is(Str)),
    ("recursiveReadOnly", Refused("whether the runtime can do it is not checked yet")),
    ("subPathExpr", Refused("use subPath")),
];

const NO_DRIVER: &str = "no driver for this kind of volume; use emptyDir or hostPath";

const VOLUME: &[(&str, Rule)] = &[
    ("name", Is(Str)),
    ("emptyDir", Is(Object(&[("medium", Is(Str)), ("sizeLimit", Is(Quantity))]))),
    ("hostPath", Is(Object(&[("path", Is(Str)), ("type", Is(Str))]))),
    ("configMap", Refused(NO_API)),
    ("secret", Refused(NO_API)),
    ("projected", Refused(NO_API)),
    ("downwardAPI", Refused("use env with fieldRef")),
    ("persistentVolumeClaim", Refused(NO_API)),
    ("ephemeral", Refused(NO_API)),
    ("image", Refused("image volumes are not built")),
    ("awsElasticBlockStore", Refused(NO_DRIVER)),
    ("azureDisk", Refused(NO_DRIVER)),
    ("azureFile", Refused(NO_DRIVER)),
    ("cephfs", Refused(NO_DRIVER)),
    ("cinder", Refused(NO_DRIVER)),
    ("csi", Refused(NO_DRIVER)),
    ("fc", Refused(NO_DRIVER)),
    ("flexVolume", Refused(NO_DRIVER)),
    ("flocker", Refused(NO_DRIVER)),
    ("gcePersistentDisk", Refused(NO_DRIVER)),
    ("gitRepo", Refused(NO_DRIVER)),
    ("glusterfs", Refused(NO_DRIVER)),
    ("iscsi", Refused(NO_DRIVER)),
    ("nfs", Refused(NO_DRIVER)),
    ("photonPersistentDisk", Refused(NO_DRIVER)),
    ("portworxVolume", Refused(NO_DRIVER)),
    ("quobyte", Refused(NO_DRIVER)),
    ("rbd", Refused(NO_DRIVER)),
    ("scaleIO", Refused(NO_DRIVER)),
    ("storageos", Refused(NO_DRIVER)),
    ("vsphereVolume", Refused(NO_DRIVER)),
];

/// Every field of `pod` that is not supported, not known or not of its JSON type.
pub fn check(pod: &Value) -> Vec<FieldError> {
    let mut findings = Findings::default();
    walk(pod, &Object(POD), "", &mut findings);
    findings.0
}

fn walk(value: &Value, shape: &Shape, path: &str, findings: &mut Findings) {
    let expected = match (shape, value) {
        (_, Value::Null)
        | (Str | IntOrStr | Quantity, Value::String(_))
        | (Bool, Value::Bool(_))
        | (Quantity, Value::Number(_)) => return,
        (Int | IntOrStr, Value::Number(n)) if n.is_i64() => return,
        (Map(item), Value::Object(entries)) => {
            return entries.iter().for_each(|(k, v)| walk(v, item, &format!("{path}[{k}]"), findings));
        }
        (List(item), Value::Array(items)) => {
            let each = items.iter().enumerate();
            return each.for_each(|(i, v)| element(v, item, &format!("{path}[{i}]"), findings));
        }
        (Object(fields), Value::Object(entries)) => {
            return entries.iter().for_each(|(k, v)| field(v, fields, k, path, findings));
        }
        (Str, _) => "a string (quote it)",
        (Bool, _) => "true or false",
        (Int, _) => "an integer",
        (Quantity, _) => "a quantity such as 500m or 128Mi",
        (IntOrStr, _) => "a port number or the name of a port",
        (Map(_) | Object(_), _) => "a mapping",
        (List(_), _) => "a list",
    };
    findings.add(if path.is_empty() { "(document)" } else { path }, Problem::Type(expected));
}

/// A list may not contain null: it would become a default-valued item.
fn element(value: &Value, shape: &Shape, path: &str, findings: &mut Findings) {
    if value.is_null() {
        findings.add(path, Problem::Required);
    } else {
        walk(value, shape, path, findings);
    }
}

fn field(value: &Value, fields: &[(&str, Rule)], key: &str, path: &str, findings: &mut Findings) {
    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match fields.iter().find(|(name, _)| *name == key) {
        None => findings.add(path, Problem::Unknown),
        Some((_, Is(shape))) => walk(value, shape, &path, findings),
        Some((_, Refused(_))) if says_nothing(value) => {}
        Some((_, Refused(why))) => findings.add(path, Problem::NotSupported(why)),
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(entries) => entries.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn findings(pod: &Value) -> Vec<String> {
        check(pod).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_supported_pod_has_no_findings() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": 1, "memory": "1Mi"}},
                "livenessProbe": {"httpGet": {"port": "web"}}}], "volumes": [{"name": "v", "emptyDir": {}}],
                "tolerations": []},
            "status": {}});
        assert_eq!(findings(&pod), Vec::<String>::new());
    }

    #[test]
    fn unsupported_fields_are_refused_by_name_and_path() {
        let pod = json!({"spec": {"affinity": {"nodeAffinity": {}}, "containers": [
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}], "startupProbe": {"grpc": {"port": 1}}}],
            "volumes": [{"name": "v", "nfs": {"server": "x"}}]}});
        let found = findings(&pod);
        assert!(found[0].starts_with("spec.affinity: not supported in standalone mode"), "{found:?}");
        assert!(found[1].starts_with("spec.containers[0].env[0].valueFrom.secretKeyRef: not supported"));
        assert!(found[2].starts_with("spec.containers[0].startupProbe.grpc: not supported"));
        assert!(found[3].starts_with("spec.volumes[0].nfs: not supported"));
    }

    #[test]
    fn a_typing_error_is_not_ignored() {
        assert_eq!(
            findings(&json!({"spec": {"containers": [{"imagePullPolcy": "Never"}]}})),
            ["spec.containers[0].imagePullPolcy: unknown field"]
        );
    }

    #[test]
    fn a_wrong_json_type_names_the_field() {
        let pod = json!({"spec": {"hostNetwork": "yes", "containers": [{"command": "sh", "env": [{"name": "A", "value": 1}],
            "ports": [{"containerPort": "80"}]}, null]}});
        assert_eq!(
            findings(&pod),
            [
                "spec.containers[0].command: must be a list",
                "spec.containers[0].env[0].value: must be a string (quote it)",
                "spec.containers[0].ports[0].containerPort: must be an integer",
                "spec.containers[1]: Required value",
                "spec.hostNetwork: must be true or false",
            ]
        );
        assert_eq!(findings(&json!([])), ["(document): must be a mapping"]);
    }

    /// The typed Pod must not know a field that this table does not: such a field would be called a typing error.
    #[test]
    fn every_field_the_typed_pod_writes_is_in_the_table() {
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "containers": [{"name": "a"}]}}))
        .expect("typed");
        assert_eq!(findings(&serde_json::to_value(pod).expect("json")), [] as [String; 0]);
    }
}
