//! Nodes, volumes, events, quotas, bindings: kinds of the cluster whose cells are more than fields.

use serde_json::{Map, Value};

use super::duration;
use super::lists::{join, selector};
use super::view::{View, field, shown};

pub fn node(view: &View<'_>) -> Vec<Value> {
    let ready = view.list("status.conditions").iter().rfind(|condition| field(condition, "type") == "Ready");
    let mut status = match ready.map(|condition| field(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if view.flag("spec.unschedulable") {
        status += ",SchedulingDisabled";
    }
    let info = |name: &str| view.or(&format!("status.nodeInfo.{name}"), "<unknown>").to_owned();
    let architecture = match view.text("status.nodeInfo.architecture") {
        "" => String::new(),
        architecture => format!(" ({architecture})"),
    };
    let address = |ty: &str| {
        let found = view.list("status.addresses").iter().find(|address| field(address, "type") == ty);
        Value::from(found.map_or("<none>", |address| field(address, "address")))
    };
    vec![
        view.name(),
        status.into(),
        roles(view.map("metadata.labels")).into(),
        view.age(),
        view.text("status.nodeInfo.kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage").into(),
        format!("{}{architecture}", info("kernelVersion")).into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn roles(labels: Option<&Map<String, Value>>) -> String {
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        None => None,
    };
    let mut roles: Vec<String> =
        labels.into_iter().flatten().filter_map(role).filter(|role| !role.is_empty()).collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn access_modes(modes: &[Value]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let there =
        short.into_iter().filter(|(mode, _)| modes.iter().any(|has| has == mode)).map(|(_, short)| short);
    join(there, ",")
}

fn class<'a>(view: &View<'a>) -> &'a str {
    view.annotation("volume.beta.kubernetes.io/storage-class")
        .unwrap_or_else(|| view.text("spec.storageClassName"))
}

fn phase<'a>(view: &View<'a>) -> &'a str {
    if view.deleted() { "Terminating" } else { view.text("status.phase") }
}

/// A quantity; Go writes one that is absent as 0.
fn quantity(value: Option<&Value>) -> String {
    value.map_or_else(|| "0".to_owned(), shown)
}

pub fn persistent_volume(view: &View<'_>) -> Vec<Value> {
    let claim = view
        .get("spec.claimRef")
        .map(|claim| format!("{}/{}", field(claim, "namespace"), field(claim, "name")));
    vec![
        view.name(),
        quantity(view.get("spec.capacity.storage")).into(),
        access_modes(view.list("spec.accessModes")).into(),
        view.text("spec.persistentVolumeReclaimPolicy").into(),
        phase(view).into(),
        claim.unwrap_or_default().into(),
        class(view).into(),
        view.or("spec.volumeAttributesClassName", "<unset>").into(),
        view.text("status.reason").into(),
        view.age(),
        view.or("spec.volumeMode", "<unset>").into(),
    ]
}

pub fn persistent_volume_claim(view: &View<'_>) -> Vec<Value> {
    let bound = !view.text("spec.volumeName").is_empty();
    let capacity = if bound { quantity(view.get("status.capacity.storage")) } else { String::new() };
    let modes = if bound { access_modes(view.list("status.accessModes")) } else { String::new() };
    vec![
        view.name(),
        phase(view).into(),
        view.text("spec.volumeName").into(),
        capacity.into(),
        modes.into(),
        class(view).into(),
        view.or("spec.volumeAttributesClassName", "<unset>").into(),
        view.age(),
        view.or("spec.volumeMode", "<unset>").into(),
    ]
}

/// Where the two versions of an event have its parts.
struct Event {
    first: &'static str,
    last: &'static str,
    count: &'static str,
    about: &'static str,
    source: &'static str,
    controller: &'static str,
    message: &'static str,
}

pub fn event(view: &View<'_>) -> Vec<Value> {
    let event = Event {
        first: "firstTimestamp",
        last: "lastTimestamp",
        count: "count",
        about: "involvedObject",
        source: "source",
        controller: "reportingComponent",
        message: "message",
    };
    events(view, &event)
}

pub fn new_event(view: &View<'_>) -> Vec<Value> {
    let event = Event {
        first: "deprecatedFirstTimestamp",
        last: "deprecatedLastTimestamp",
        count: "deprecatedCount",
        about: "regarding",
        source: "deprecatedSource",
        controller: "reportingController",
        message: "note",
    };
    events(view, &event)
}

fn events(view: &View<'_>, at: &Event) -> Vec<Value> {
    let first = view.since(view.or(at.first, view.text("eventTime")));
    let (mut last, mut count) = (view.text(at.last), view.int(at.count));
    if view.get("series").is_some() {
        last = view.text("series.lastObservedTime");
        count = view.int("series.count");
    } else if count == 0 {
        count = 1;
    }
    let last = match last {
        "" if view.get("series").is_none() => first.clone(),
        last => view.since(last),
    };
    let about = |name: &str| view.text(&format!("{}.{name}", at.about));
    let (kind, name) = (about("kind").to_lowercase(), about("name"));
    let object = if name.is_empty() { kind } else { format!("{kind}/{name}") };
    let of = |name: &str, otherwise: &str| match view.text(&format!("{}.{name}", at.source)) {
        "" => view.text(otherwise).to_owned(),
        text => text.to_owned(),
    };
    let (component, host) = (of("component", at.controller), of("host", "reportingInstance"));
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        last.into(),
        view.text("type").into(),
        view.text("reason").into(),
        object.into(),
        about("fieldPath").into(),
        source.into(),
        view.text(at.message).trim().into(),
        first.into(),
        count.into(),
        view.name(),
    ]
}

pub fn resource_quota(view: &View<'_>) -> Vec<Value> {
    let mut hard: Vec<(&String, &Value)> = view.map("status.hard").into_iter().flatten().collect();
    hard.sort_by_key(|(name, _)| *name);
    let used = view.map("status.used");
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, most) in hard {
        let used = quantity(used.and_then(|used| used.get(name)));
        let cell = format!("{name}: {used}/{}", shown(most));
        if name.starts_with("limits.") { &mut limits } else { &mut requests }.push(cell);
    }
    vec![view.name(), requests.join(", ").into(), limits.join(", ").into(), view.age()]
}

pub fn component_status(view: &View<'_>) -> Vec<Value> {
    let healthy = view.list("conditions").iter().find(|condition| field(condition, "type") == "Healthy");
    let status = match healthy.map(|condition| field(condition, "status")) {
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let text = |name: &str| Value::from(healthy.map(|condition| field(condition, name)).unwrap_or_default());
    vec![view.name(), status.into(), text("message"), text("error")]
}

pub fn signing_request(view: &View<'_>) -> Vec<Value> {
    let has =
        |ty: &str| view.list("status.conditions").iter().any(|condition| field(condition, "type") == ty);
    let mut status = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        status += ",Failed";
    }
    if !view.text("status.certificate").is_empty() {
        status += ",Issued";
    }
    let asked = view.get("spec.expirationSeconds").and_then(Value::as_i64);
    vec![
        view.name(),
        view.age(),
        view.or("spec.signerName", "<none>").into(),
        view.text("spec.username").into(),
        asked.map_or_else(|| "<none>".to_owned(), duration::human).into(),
        status.into(),
    ]
}

pub fn role_binding(view: &View<'_>) -> Vec<Value> {
    let role = format!("{}/{}", view.text("roleRef.kind"), view.text("roleRef.name"));
    let subjects = view.list("subjects");
    let of = |kind: &str| {
        let of_kind = subjects.iter().filter(|subject| field(subject, "kind") == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", field(subject, "namespace"), field(subject, "name")),
                _ => field(subject, "name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![view.name(), role.into(), view.age(), of("User"), of("Group"), of("ServiceAccount")]
}

pub fn storage_class(view: &View<'_>) -> Vec<Value> {
    let is_default =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .into_iter()
            .any(|name| view.annotation(name) == Some("true"));
    let name = format!("{}{}", view.text("metadata.name"), if is_default { " (default)" } else { "" });
    vec![
        name.into(),
        view.text("provisioner").into(),
        view.or("reclaimPolicy", "Delete").into(),
        view.or("volumeBindingMode", "Immediate").into(),
        view.flag("allowVolumeExpansion").into(),
        view.age(),
    ]
}

pub fn csi_driver(view: &View<'_>) -> Vec<Value> {
    let attach = view.get("spec.attachRequired").and_then(Value::as_bool).unwrap_or(true);
    let tokens = view.get("spec.tokenRequests").map_or_else(
        || "<unset>".to_owned(),
        |_| join(view.list("spec.tokenRequests").iter().map(|token| field(token, "audience")), ","),
    );
    let modes = match join(view.list("spec.volumeLifecycleModes").iter().filter_map(Value::as_str), ",") {
        modes if modes.is_empty() => "<none>".to_owned(),
        modes => modes,
    };
    vec![
        view.name(),
        attach.into(),
        view.flag("spec.podInfoOnMount").into(),
        view.flag("spec.storageCapacity").into(),
        tokens.into(),
        view.flag("spec.requiresRepublish").into(),
        modes.into(),
        view.age(),
    ]
}

/// Source: kube-aggregator `pkg/registry/apiservice/etcd/etcd.go`.
pub fn api_service(view: &View<'_>) -> Vec<Value> {
    let service = view.get("spec.service").map_or_else(
        || "Local".to_owned(),
        |service| format!("{}/{}", field(service, "namespace"), field(service, "name")),
    );
    let available =
        view.list("status.conditions").iter().find(|condition| field(condition, "type") == "Available");
    let available = match available {
        None => "Unknown".to_owned(),
        Some(condition) if field(condition, "status") == "True" || field(condition, "reason").is_empty() => {
            field(condition, "status").to_owned()
        }
        Some(condition) => format!("{} ({})", field(condition, "status"), field(condition, "reason")),
    };
    vec![view.name(), service.into(), available.into(), view.age()]
}

pub fn resource_claim(view: &View<'_>) -> Vec<Value> {
    let mut states = Vec::new();
    if view.deleted() {
        states.push("deleted");
    }
    if view.get("status.allocation").is_some() {
        states.push("allocated");
        if view.count("status.reservedFor") > 0 {
            states.push("reserved");
        }
    } else if !view.deleted() {
        states.push("pending");
    }
    vec![view.name(), states.join(",").into(), view.age()]
}

pub fn flow_schema(view: &View<'_>) -> Vec<Value> {
    let dangling =
        view.list("status.conditions").iter().find(|condition| field(condition, "type") == "Dangling");
    vec![
        view.name(),
        view.text("spec.priorityLevelConfiguration.name").into(),
        view.int("spec.matchingPrecedence").into(),
        view.or("spec.distinguisherMethod.type", "<none>").into(),
        view.age(),
        dangling.map_or("?", |condition| field(condition, "status")).into(),
    ]
}

pub fn policy(view: &View<'_>, rules: &str) -> Vec<Value> {
    let kind = view.get("spec.paramKind").map_or_else(
        || "<unset>".to_owned(),
        |kind| format!("{}/{}", field(kind, "apiVersion"), field(kind, "kind")),
    );
    vec![view.name(), view.count(&format!("spec.{rules}")).into(), kind.into(), view.age()]
}

pub fn policy_binding(view: &View<'_>) -> Vec<Value> {
    let parameters = match view.get("spec.paramRef") {
        Some(of) if !field(of, "name").is_empty() => match field(of, "namespace") {
            "" => format!("*/{}", field(of, "name")),
            namespace => format!("{namespace}/{}", field(of, "name")),
        },
        Some(of) if of["selector"].is_object() => selector(of.get("selector")),
        _ => "<unset>".to_owned(),
    };
    vec![view.name(), view.text("spec.policyName").into(), parameters.into(), view.age()]
}
