//! Defaults of a pod's specification, by itself and within a template. Source: kubernetes `pkg/apis/core/v1/defaults.go`.

use serde_json::Value;

use super::fill::{self, Fields, Fill, With, fill, flag, has, int, items, object, text};
use super::quantity::{self, Quantity};

const SPEC: &[Fill] = &[
    Fill("dnsPolicy", With::Text("ClusterFirst")),
    Fill("restartPolicy", With::Text("Always")),
    Fill("securityContext", With::Object),
    Fill("terminationGracePeriodSeconds", With::Int(30)),
    Fill("schedulerName", With::Text("default-scheduler")),
    Fill("volumes", With::EachBy(volume)),
    Fill("initContainers", With::EachBy(container)),
    Fill("containers", With::EachBy(container)),
    Fill("ephemeralContainers", With::EachBy(container)),
];

const CONTAINER: &[Fill] = &[
    Fill("terminationMessagePath", With::Text("/dev/termination-log")),
    Fill("terminationMessagePolicy", With::Text("File")),
    Fill("resources", With::Made(&[])),
    Fill("resources", With::By(resources)),
    Fill("ports", With::Each(&[Fill("protocol", With::Text("TCP"))])),
    Fill("env", With::Each(&[Fill("valueFrom", With::In(FROM))])),
    Fill("livenessProbe", With::In(PROBE)),
    Fill("readinessProbe", With::In(PROBE)),
    Fill("startupProbe", With::In(PROBE)),
    Fill(
        "lifecycle",
        With::In(&[
            Fill("postStart", With::In(&[Fill("httpGet", With::In(HTTP))])),
            Fill("preStop", With::In(&[Fill("httpGet", With::In(HTTP))])),
        ]),
    ),
];

const FROM: &[Fill] = &[
    Fill("fieldRef", With::In(FIELD_REF)),
    Fill("resourceFieldRef", With::In(RESOURCE_REF)),
    Fill("fileKeyRef", With::In(&[Fill("optional", With::Flag(false))])),
];
const FIELD_REF: &[Fill] = &[Fill("apiVersion", With::Text("v1"))];
const RESOURCE_REF: &[Fill] = &[Fill("divisor", With::Text("0"))];
const HTTP: &[Fill] = &[Fill("path", With::Text("/")), Fill("scheme", With::Text("HTTP"))];
const PROBE: &[Fill] = &[
    Fill("timeoutSeconds", With::IntForZero(1)),
    Fill("periodSeconds", With::IntForZero(10)),
    Fill("successThreshold", With::IntForZero(1)),
    Fill("failureThreshold", With::IntForZero(3)),
    Fill("httpGet", With::In(HTTP)),
    Fill("grpc", With::In(&[Fill("service", With::Text(""))])),
];

const MODE: Fill = Fill("defaultMode", With::Int(0o644));
const DOWNWARD: Fill = Fill(
    "items",
    With::Each(&[Fill("fieldRef", With::In(FIELD_REF)), Fill("resourceFieldRef", With::In(RESOURCE_REF))]),
);
const ISCSI: &[Fill] = &[Fill("iscsiInterface", With::Text("default"))];
const RBD: &[Fill] = &[
    Fill("pool", With::Text("rbd")),
    Fill("user", With::Text("admin")),
    Fill("keyring", With::Text("/etc/ceph/keyring")),
];
const AZURE_DISK: &[Fill] = &[
    Fill("cachingMode", With::Text("ReadWrite")),
    Fill("kind", With::Text("Shared")),
    Fill("fsType", With::Text("ext4")),
    Fill("readOnly", With::Flag(false)),
];
const SCALE_IO: &[Fill] =
    &[Fill("storageMode", With::Text("ThinProvisioned")), Fill("fsType", With::Text("xfs"))];
/// Kinds of volumes that a PersistentVolume has as well.
pub const SHARED_SOURCES: &[Fill] = &[
    Fill("hostPath", With::In(&[Fill("type", With::Text(""))])),
    Fill("iscsi", With::In(ISCSI)),
    Fill("rbd", With::In(RBD)),
    Fill("azureDisk", With::In(AZURE_DISK)),
    Fill("scaleIO", With::In(SCALE_IO)),
];

const VOLUME: &[Fill] = &[
    Fill("secret", With::In(&[MODE])),
    Fill("configMap", With::In(&[MODE])),
    Fill("downwardAPI", With::In(&[MODE, DOWNWARD])),
    Fill(
        "projected",
        With::By(|fields| {
            fields.entry("sources").or_insert(Value::Null);
        }),
    ),
    Fill(
        "projected",
        With::In(&[
            MODE,
            Fill(
                "sources",
                With::Each(&[
                    Fill("serviceAccountToken", With::In(&[Fill("expirationSeconds", With::Int(3600))])),
                    Fill("downwardAPI", With::In(&[DOWNWARD])),
                ]),
            ),
        ]),
    ),
    Fill(
        "ephemeral",
        With::In(&[Fill(
            "volumeClaimTemplate",
            With::In(&[
                Fill("metadata", With::Object),
                Fill(
                    "spec",
                    With::In(&[
                        Fill("volumeMode", With::Text("Filesystem")),
                        Fill("resources", With::Made(&[])),
                        Fill("resources", With::By(resources)),
                    ]),
                ),
            ]),
        )]),
    ),
    Fill("image", With::By(image_volume)),
];

/// Of a pod or of a template.
pub fn spec(fields: &mut Fields) {
    fill(fields, SPEC);
    if !text(fields, "serviceAccountName").is_empty() {
        let name = fields["serviceAccountName"].clone();
        fields.insert("serviceAccount".to_owned(), name);
    } else if !text(fields, "serviceAccount").is_empty() {
        let name = fields["serviceAccount"].clone();
        fields.insert("serviceAccountName".to_owned(), name);
    }
    if let Some(overhead) = object(fields, "overhead") {
        amounts(overhead);
    }
    if let Some(own) = object(fields, "resources") {
        resources(own);
    }
}

/// What a pod by itself has more than a template.
pub fn of_pod(fields: &mut Fields) {
    for list in ["containers", "initContainers"] {
        items(fields, list).for_each(requests_of_limits);
    }
    host_ports(fields);
    if int(fields, "terminationGracePeriodSeconds") < 0 {
        fields.insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    pod_requests(fields);
    fill::or_insert(fields, "enableServiceLinks", true);
}

/// The template within the specification of a workload.
pub fn template(fields: &mut Fields) {
    fill(fields, &[Fill("metadata", With::Object), Fill("spec", With::Object), Fill("spec", With::By(spec))]);
}

fn volume(fields: &mut Fields) {
    let others = fields.iter().any(|(name, value)| name != "name" && !value.is_null());
    if !others {
        fields.insert("emptyDir".to_owned(), Fields::new().into());
    }
    fill(fields, SHARED_SOURCES);
    fill(fields, VOLUME);
    if let Some(limit) = object(fields, "emptyDir").and_then(|dir| dir.get_mut("sizeLimit")) {
        canonical(limit);
    }
}

fn container(fields: &mut Fields) {
    pull_policy(fields, "image", "imagePullPolicy");
    fill(fields, CONTAINER);
    // Behind a gate that is closed by default.
    if let Some(lifecycle) = object(fields, "lifecycle") {
        lifecycle.remove("stopSignal");
    }
}

fn image_volume(fields: &mut Fields) {
    pull_policy(fields, "reference", "pullPolicy");
}

fn pull_policy(fields: &mut Fields, image: &str, policy: &'static str) {
    if text(fields, policy).is_empty() {
        let to = if is_latest(text(fields, image)) { "Always" } else { "IfNotPresent" };
        fields.insert(policy.to_owned(), to.into());
    }
}

/// An image that is named without a tag and a digest, or with the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    // What is no reference at all has no tag, for upstream too.
    let is_name = !image.is_empty()
        && image.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte))
        && !last.split(':').next().unwrap_or_default().bytes().any(|byte| byte.is_ascii_uppercase());
    is_name && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// A `resources`: amounts in canonical form, rounded up to a thousandth.
pub fn resources(fields: &mut Fields) {
    for list in ["limits", "requests"] {
        if let Some(list) = object(fields, list) {
            amounts(list);
        }
    }
}

/// A list of resources.
pub fn amounts(list: &mut Fields) {
    list.values_mut().for_each(|value| {
        if let Some(quantity) = Quantity::of(value) {
            *value = quantity.round_to_milli().to_string().into();
        }
    });
}

/// A single amount.
pub fn canonical(value: &mut Value) {
    let text = match &*value {
        Value::String(text) => quantity::canonical(text),
        Value::Number(number) => quantity::canonical(&number.to_string()),
        _ => None,
    };
    if let Some(text) = text {
        *value = text.into();
    }
}

fn requests_of_limits(container: &mut Fields) {
    let Some(resources) = object(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = fill::made(resources, "requests");
    for (key, value) in limits {
        requests.entry(key).or_insert(value);
    }
    if requests.is_empty() {
        resources.remove("requests");
    }
}

fn pod_requests(spec: &mut Fields) {
    let sums = sums(spec, "requests");
    let Some(own) = object(spec, "resources") else { return };
    let Some(limits) = own.get("limits").and_then(Value::as_object).filter(|map| !map.is_empty()).cloned()
    else {
        return;
    };
    let requests = fill::made(own, "requests");
    let supported = |key: &str| matches!(key, "cpu" | "memory");
    for (key, sum) in sums {
        if supported(&key) && !requests.contains_key(&key) {
            requests.insert(key, sum.to_string().into());
        }
    }
    for (key, limit) in limits {
        if (supported(&key) || key.starts_with("hugepages-")) && !requests.contains_key(&key) {
            requests.insert(key, limit);
        }
    }
    if requests.is_empty() {
        own.remove("requests");
    }
}

/// What the containers of a pod ask for together: those that run together summed up, or the largest init container.
pub fn sums(spec: &Fields, list: &str) -> Vec<(String, Quantity)> {
    let mut sums: Vec<(String, Quantity)> = Vec::new();
    let amounts = |container: &Value| -> Vec<(String, Quantity)> {
        let map =
            container.get("resources").and_then(|resources| resources.get(list)).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), Quantity::of(value)?)))
            .collect()
    };
    let containers = |list: &str| spec.get(list).and_then(Value::as_array).into_iter().flatten();
    let add = |sums: &mut Vec<(String, Quantity)>, key: String, more: Quantity| match sums
        .iter_mut()
        .find(|(one, _)| *one == key)
    {
        Some((_, sum)) => *sum = sum.plus(more),
        None => sums.push((key, more)),
    };
    for (key, more) in containers("containers").flat_map(amounts) {
        add(&mut sums, key, more);
    }
    let mut sidecars: Vec<(String, Quantity)> = Vec::new();
    let mut largest: Vec<(String, Quantity)> = Vec::new();
    for container in containers("initContainers") {
        let stays = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        for (key, amount) in amounts(container) {
            let mut alone = amount;
            if stays {
                add(&mut sums, key.clone(), amount);
                add(&mut sidecars, key.clone(), amount);
                alone = sidecars.iter().find(|(one, _)| *one == key).map_or(amount, |(_, sum)| *sum);
            } else if let Some((_, sum)) = sidecars.iter().find(|(one, _)| *one == key) {
                alone = alone.plus(*sum);
            }
            match largest.iter_mut().find(|(one, _)| *one == key) {
                Some((_, most)) => *most = (*most).max(alone),
                None => largest.push((key, alone)),
            }
        }
    }
    for (key, most) in largest {
        match sums.iter_mut().find(|(one, _)| *one == key) {
            Some((_, sum)) => *sum = (*sum).max(most),
            None => sums.push((key, most)),
        }
    }
    sums
}

/// On the network of the host a port is the host's.
fn host_ports(spec: &mut Fields) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            for port in items(container, "ports") {
                if int(port, "hostPort") == 0 && has(port, "containerPort") {
                    let own = port["containerPort"].clone();
                    port.insert("hostPort".to_owned(), own);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_latest;

    #[test]
    fn only_latest_is_always_pulled() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1", false),
            ("localhost:5000/nginx", true),
            ("localhost:5000/nginx:1", false),
            ("nginx@sha256:00", false),
            ("", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
