//! Pods. Source: kubernetes `pkg/registry/core/pod/strategy.go`, `pkg/api/pod`.

use serde_json::{Value, json};

use super::fill::{Fill, With, fill};
use super::validate::pod::{self, all_containers};
use super::validate::{At, Causes, container, labels, same, scheduling};
use super::{Kind, Preparing, common, pod_spec, qos, warnings};
use crate::object::Object;
use crate::status::Cause;

pub static KIND: Kind = Kind {
    default,
    prepare_create,
    prepare_update: |new, old, _| common::keep(new, old, "status"),
    prepare_subresource,
    validate,
    validate_update,
    validate_subresource,
    warn,
    grace,
    field,
    counts_generations: true,
    ..Kind::PLAIN
};

fn default(object: &mut Object) {
    fill(
        &mut object.0,
        &[
            Fill("spec", With::Object),
            Fill("spec", With::By(pod_spec::spec)),
            Fill("spec", With::By(pod_spec::of_pod)),
            Fill("status", With::Object),
        ],
    );
}

fn prepare_create(object: &mut Object, preparing: &Preparing<'_>) {
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(object)});
    if object
        .get(&["spec", "schedulingGates"])
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty())
    {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": preparing.now,
        }]);
    }
    object.0.insert("status".to_owned(), status);
    merge_label_keys(object);
}

/// `matchLabelKeys` become conditions on the values that the pod itself has.
fn merge_label_keys(object: &mut Object) {
    let labels = object.labels().cloned().unwrap_or_default();
    let Some(spec) = object.0.get_mut("spec") else { return };
    let apply = |term: &mut Value, keys: &str, operator: &str| {
        let keys: Vec<String> = term[keys]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|key| key.as_str().map(str::to_owned))
            .collect();
        let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut) else { return };
        for key in keys {
            let Some(value) = labels.get(&key) else { continue };
            let list = selector.entry("matchExpressions").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.get_mut("affinity").and_then(|affinity| affinity.get_mut(kind)) else {
            continue;
        };
        for (list, inner) in [
            ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm")),
            ("requiredDuringSchedulingIgnoredDuringExecution", None),
        ] {
            let terms = affinity.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            for term in terms {
                let term = match inner {
                    Some(inner) => match term.get_mut(inner) {
                        Some(term) => term,
                        None => continue,
                    },
                    None => term,
                };
                apply(term, "matchLabelKeys", "In");
                apply(term, "mismatchLabelKeys", "NotIn");
            }
        }
    }
    let constraints = spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten() {
        apply(constraint, "matchLabelKeys", "In");
    }
}

fn prepare_subresource(subresource: &str, new: &mut Object, old: &Object, _: &Preparing<'_>) {
    match subresource {
        "status" => {
            common::keep(new, old, "spec");
            common::keep_meta(new, old, "ownerReferences");
            let class = old.text(&["status", "qosClass"]).to_owned();
            if new.text(&["status", "qosClass"]).is_empty()
                && let Some(status) = new.0.get_mut("status").and_then(Value::as_object_mut)
            {
                status.insert("qosClass".to_owned(), class.into());
            }
        }
        "ephemeralcontainers" => {
            let list = new.get(&["spec", "ephemeralContainers"]).cloned();
            keep_but(new, old, |spec| {
                if let Some(list) = list {
                    spec["ephemeralContainers"] = list;
                }
            });
        }
        "resize" => {
            let asked = new.0.get("spec").cloned().unwrap_or_default();
            keep_but(new, old, |spec| resized(spec, &asked));
        }
        _ => {}
    }
}

/// Everything as it was, but for what `change` does to the specification.
fn keep_but(new: &mut Object, old: &Object, change: impl FnOnce(&mut Value)) {
    for field in ["spec", "status"] {
        common::keep(new, old, field);
    }
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        common::keep_meta(new, old, field);
    }
    if let Some(spec) = new.0.get_mut("spec") {
        change(spec);
    }
}

fn resized(spec: &mut Value, asked: &Value) {
    for list in ["containers", "initContainers"] {
        let (Some(have), Some(asked)) =
            (spec.get_mut(list).and_then(Value::as_array_mut), asked[list].as_array())
        else {
            continue;
        };
        let alike = have.len() == asked.len() && have.iter().zip(asked).all(|(a, b)| a["name"] == b["name"]);
        if !alike {
            *have = asked.clone();
            continue;
        }
        for (container, asked) in have.iter_mut().zip(asked) {
            for field in ["resources", "resizePolicy"] {
                match asked.get(field) {
                    Some(value) => container[field] = value.clone(),
                    None => {
                        container.as_object_mut().map(|container| container.remove(field));
                    }
                }
            }
        }
    }
    if let Some(own) = asked.get("resources") {
        spec["resources"] = own.clone();
    }
}

fn validate(object: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let (root, spec) = meta_and_spec(object, &mut out);
    let ephemeral = spec.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("cannot be set on create", &mut out);
    }
    if !spec.field("nodeName").is_empty() && !spec.field("schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        spec.field("nodeName").forbidden(detail, &mut out);
    }
    pod::profiles_match(&root.down(&["metadata", "annotations"]), &spec, &mut out);
    out
}

fn meta_and_spec<'v>(object: &'v Object, out: &mut Causes) -> (At<'v>, At<'v>) {
    let root = At::root(object);
    let spec = root.field("spec");
    pod::annotation_values(&root.down(&["metadata", "annotations"]), &spec, out);
    pod::spec(&spec, true, object.name(), out);
    if spec.field("serviceAccountName").is_empty() {
        for volume in spec.field("volumes").items() {
            for source in volume.down(&["projected", "sources"]).items() {
                if source.has("serviceAccountToken") {
                    let detail = "must not be specified when serviceAccountName is not set";
                    source.field("serviceAccountToken").forbidden(detail, out);
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        spec.field(list).items().for_each(|one| container::trimmed_image(&one, out));
    }
    (root, spec)
}

fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let mut out = Causes::new();
    let (root, spec) = meta_and_spec(new, &mut out);
    annotations_update(&root, old, &mut out);
    let before = At::root(old);
    let before = before.field("spec");
    for list in ["containers", "initContainers"] {
        if spec.field(list).len() != before.field(list).len() {
            spec.field(list).forbidden("pod updates may not add or remove containers", &mut out);
            return out;
        }
        spec.field(list).items().for_each(|one| container::trimmed_image(&one, &mut out));
    }
    if !deadline_update(&spec, &before, &mut out) {
        return out;
    }
    tolerations_update(&spec.field("tolerations"), &before.field("tolerations"), &mut out);
    gates_update(&spec.field("schedulingGates"), &before.field("schedulingGates"), &mut out);
    let mut munged = new.0.get("spec").cloned().unwrap_or_default();
    let old_spec = old.0.get("spec").cloned().unwrap_or_default();
    munge(&mut munged, &old_spec);
    if !before.field("schedulingGates").is_empty() {
        gated(&mut munged, &old_spec, &spec, &mut out);
    }
    if !same(&munged, &old_spec) {
        spec.forbidden(format_args!("{MAY_CHANGE}\n{}", super::diff::text(&old_spec, &munged)), &mut out);
    }
    out
}

/// Makes what may change what it was.
fn munge(munged: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        let new = munged.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, old) in new.zip(old[list].as_array().into_iter().flatten()) {
            container["image"] = old["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        restore(munged, old, field);
    }
    if old["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0)
        && munged["terminationGracePeriodSeconds"] == 1
    {
        restore(munged, old, "terminationGracePeriodSeconds");
    }
}

fn restore(munged: &mut Value, old: &Value, field: &str) {
    let Some(map) = munged.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// What waits for its gates may still be told more closely where to run.
fn gated(munged: &mut Value, old: &Value, spec: &At<'_>, out: &mut Causes) {
    let selector = spec.field("nodeSelector");
    let kept = old["nodeSelector"].as_object().into_iter().flatten();
    for (key, value) in kept {
        if selector.key(key).value() != value {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            selector.invalid(detail, out);
            break;
        }
    }
    restore(munged, old, "nodeSelector");
    let affinity = old.get("affinity").and_then(|affinity| affinity.get("nodeAffinity")).cloned();
    if let Some(map) = munged.get_mut("affinity").and_then(Value::as_object_mut) {
        match affinity {
            Some(affinity) => map.insert("nodeAffinity".to_owned(), affinity),
            None => map.remove("nodeAffinity"),
        };
    }
}

fn annotations_update(root: &At<'_>, old: &Object, out: &mut Causes) {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    let at = root.down(&["metadata", "annotations"]);
    let empty = serde_json::Map::new();
    let before = old.annotations().unwrap_or(&empty);
    for (key, value) in before {
        if at.key(key).value() == value {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            at.key(key).forbidden("may not remove or update AppArmor annotations", out);
        }
        if key == pod::MIRROR {
            at.key(key).forbidden("may not remove or update mirror pod annotation", out);
        }
    }
    for (key, _) in at.entries().filter(|(key, _)| !before.contains_key(*key)) {
        if key.starts_with(APP_ARMOR) {
            at.key(key).forbidden("may not add AppArmor annotations", out);
        }
        if key == pod::MIRROR {
            at.key(key).forbidden("may not add mirror pod annotation", out);
        }
    }
    pod::annotation_values(&at, &root.field("spec"), out);
}

/// False: nothing more is said.
fn deadline_update(spec: &At<'_>, old: &At<'_>, out: &mut Causes) -> bool {
    let (new, old) = (spec.field("activeDeadlineSeconds"), old.field("activeDeadlineSeconds"));
    if !new.is_set() {
        if old.is_set() {
            new.invalid("must not update from a positive integer to nil value", out);
        }
        return true;
    }
    if !(0..=i64::from(i32::MAX)).contains(&new.int()) {
        new.range(0, i64::from(i32::MAX), out);
        return false;
    }
    if old.is_set() && old.int() < new.int() {
        new.invalid("must be less than or equal to previous value", out);
        return false;
    }
    true
}

fn tolerations_update(new: &At<'_>, old: &At<'_>, out: &mut Causes) {
    let but_seconds = |at: &At<'_>| {
        let mut map = at.map().cloned().unwrap_or_default();
        map.remove("tolerationSeconds");
        Value::Object(map)
    };
    if old.items().any(|old| !new.items().any(|new| same(&but_seconds(&old), &but_seconds(&new)))) {
        return new.forbidden("existing toleration can not be modified except its tolerationSeconds", out);
    }
    scheduling::tolerations(new, out);
}

fn gates_update(new: &At<'_>, old: &At<'_>, out: &mut Causes) {
    for gate in new.items() {
        let name = gate.field("name");
        if !old.items().any(|old| old.field("name").text() == name.text()) {
            let detail =
                format_args!("only deletion is allowed, but found new scheduling gate '{}'", name.text())
                    .to_string();
            name.forbidden(detail, out);
        }
    }
}

fn validate_subresource(subresource: &str, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    match subresource {
        "status" => status_update(new, old, &mut out),
        "ephemeralcontainers" => {
            let (_, spec) = meta_and_spec(new, &mut out);
            let before = At::root(old);
            let before = before.down(&["spec", "ephemeralContainers"]);
            let list = spec.field("ephemeralContainers");
            for container in before.items() {
                let name = container.field("name").text();
                match list.items().find(|one| one.field("name").text() == name) {
                    None => list.forbidden(
                        format_args!("existing ephemeral containers \"{name}\" may not be removed\n"),
                        &mut out,
                    ),
                    Some(one) if !same(one.value(), container.value()) => {
                        let detail = format!(
                            "existing ephemeral containers \"{name}\" may not be changed\n{}",
                            super::diff::text(container.value(), one.value())
                        );
                        list.forbidden(detail, &mut out);
                    }
                    Some(_) => {}
                }
            }
        }
        "resize" => resize(new, old, &mut out),
        _ => {}
    }
    out
}

fn status_update(new: &Object, old: &Object, out: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    annotations_update(&root, old, out);
    let nominated = status.field("nominatedNodeName");
    if !nominated.is_empty() {
        nominated.names(super::validate::names::dns_subdomain, out);
    }
    for condition in status.field("conditions").items() {
        let kind = condition.field("type");
        labels::label_name(kind.text(), &kind.shown_at(condition.path().field("Type")), out);
        condition.field("status").one_of_if_set(&["False", "True", "Unknown"], out);
    }
    let node = root.down(&["spec", "nodeName"]);
    let before = At::root(old);
    if before.down(&["spec", "nodeName"]).text() != node.text() {
        node.forbidden("may not be changed directly", out);
    }
}

fn resize(new: &Object, old: &Object, out: &mut Causes) {
    let (_, spec) = meta_and_spec(new, out);
    let before = At::root(old);
    let before = before.field("spec");
    if before.down(&["os", "name"]).text() == "windows" {
        return spec.forbidden("windows pods cannot be resized", out);
    }
    if qos::class(new) != old.text(&["status", "qosClass"]) {
        spec.invalid_value(
            &json!(old.text(&["status", "qosClass"])),
            "Pod QOS Class may not change as a result of resizing",
            out,
        );
    }
    let mut munged = new.0.get("spec").cloned().unwrap_or_default();
    let old_spec = old.0.get("spec").cloned().unwrap_or_default();
    resized(&mut munged, &old_spec);
    if !same(&munged, &old_spec) {
        let detail = "only cpu and memory resources are mutable";
        spec.forbidden(format_args!("{detail}\n{}", super::diff::text(&old_spec, &munged)), out);
    }
    for (new, old) in all_containers(&spec).iter().zip(all_containers(&before)) {
        for list in ["limits", "requests"] {
            let (new, old) = (new.field("resources").field(list), old.field("resources").field(list));
            if old.entries().any(|(key, _)| !new.has(key)) {
                new.forbidden(format_args!("resource {list} cannot be removed"), out);
            }
        }
    }
}

fn warn(object: &Object) -> Vec<String> {
    let mut out = Vec::new();
    let errors = super::validate::names::dns_label(object.name());
    if !errors.is_empty() && !object.name().is_empty() {
        out.push(format!("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]", errors.join(" ")));
    }
    let root = At::root(object);
    warnings::pod(&root.field("metadata"), &root.field("spec"), false, &mut out);
    out
}

#[expect(clippy::unnecessary_wraps, reason = "as every kind's")]
fn grace(object: &Object, asked: Option<u32>) -> Option<u32> {
    let own = object.get(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0);
    let mut seconds = asked.map_or(own, i64::from);
    let ended = matches!(object.text(&["status", "phase"]), "Failed" | "Succeeded");
    if object.text(&["spec", "nodeName"]).is_empty() || ended {
        seconds = 0;
    }
    let seconds = if seconds < 0 { 1 } else { seconds };
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn field(object: &Object, label: &str) -> Option<String> {
    match label {
        "spec.nodeName" | "spec.host" => common::selected(object, &["spec", "nodeName"]),
        "spec.restartPolicy" => common::selected(object, &["spec", "restartPolicy"]),
        "spec.schedulerName" => common::selected(object, &["spec", "schedulerName"]),
        "spec.serviceAccountName" => common::selected(object, &["spec", "serviceAccountName"]),
        "spec.hostNetwork" => {
            let flag = object.get(&["spec", "hostNetwork"]).and_then(Value::as_bool);
            Some(flag.unwrap_or(false).to_string())
        }
        "status.phase" => common::selected(object, &["status", "phase"]),
        "status.podIP" => {
            let first = object.get(&["status", "podIPs"]).and_then(|list| list.get(0));
            let first = first.and_then(|one| one.get("ip")).and_then(Value::as_str);
            Some(first.unwrap_or(object.text(&["status", "podIP"])).to_owned())
        }
        "status.nominatedNodeName" => common::selected(object, &["status", "nominatedNodeName"]),
        _ => None,
    }
}
