//! Nodes.

use serde_json::{Value, json};

use super::fill::{Fill, With, fill, has, made};
use super::pod_spec::amounts;
use super::validate::{At, Causes, ip, resources, same, scheduling};
use super::{Kind, common, warnings};
use crate::object::Object;

pub static KIND: Kind = Kind {
    default: |object| {
        let spec = made(&mut object.0, "spec");
        // One address range is the first of a list.
        match (spec.get("podCIDR").cloned(), spec.get("podCIDRs").cloned()) {
            (Some(one), None) if !super::validate::is_empty(&one) => {
                spec.insert("podCIDRs".to_owned(), json!([one]));
            }
            (None, Some(list)) if !super::validate::is_empty(&list) => {
                spec.insert("podCIDR".to_owned(), list[0].clone());
            }
            _ => {}
        }
        let status = made(&mut object.0, "status");
        fill(status, &[Fill("capacity", With::By(amounts)), Fill("allocatable", With::By(amounts))]);
        if !has(status, "allocatable")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status.insert("allocatable".to_owned(), capacity);
        }
    },
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        node(object, true, &mut out);
        let list = At::root(object).down(&["spec", "podCIDRs"]);
        list.items().for_each(|one| ip::network(&one, &mut out));
        let first = list.texts().map(|text| text.split('/').next().unwrap_or_default()).collect::<Vec<_>>();
        if list.len() > 2 || list.len() == 2 && !ip::is_dual_stack(&first) {
            list.invalid("may specify no more than one CIDR for each IP family", &mut out);
        }
        out
    },
    validate_update: update,
    validate_subresource: |_, new, old| update(new, old),
    warn: |object| {
        let mut out = Vec::new();
        let spec = At::root(object).field("spec");
        spec.field("podCIDRs").items().for_each(|one| warnings::network(&one, &mut out));
        if spec.has("configSource") {
            out.push("spec.configSource: the feature is no longer supported".to_owned());
        }
        if !spec.field("externalID").is_empty() {
            out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        out
    },
    field: |object, label| match label {
        "spec.unschedulable" => {
            let flag = object.get(&["spec", "unschedulable"]).and_then(Value::as_bool);
            Some(flag.unwrap_or(false).to_string())
        }
        _ => None,
    },
    ..Kind::PLAIN
};

fn node(object: &Object, is_new: bool, out: &mut Causes) {
    let root = At::root(object);
    let taints = root.down(&["spec", "taints"]);
    let at = taints.shown_at(root.down(&["metadata", "taints"]).path());
    if is_new {
        scheduling::taints(&at, out);
    }
    for list in ["capacity", "allocatable"] {
        let at = root.field("status").field(list);
        for (key, entry) in at.entries() {
            resources::amount(key, &entry.shown_at(at.path().name(key)), out);
        }
    }
    if !is_new {
        let mut seen: Vec<&Value> = Vec::new();
        for address in root.down(&["status", "addresses"]).items() {
            if seen.contains(&address.value()) {
                let field = |name| address.field(name).value();
                let shape = [("Type", field("type")), ("Address", field("address"))];
                address.duplicate_shape(&shape, out);
            }
            seen.push(address.value());
        }
        scheduling::taints(&at, out);
    }
}

fn update(new: &Object, old: &Object) -> Causes {
    let mut out = Causes::new();
    node(new, false, &mut out);
    let (root, before) = (At::root(new), At::root(old));
    let (spec, before) = (root.field("spec"), before.field("spec"));
    let (ranges, had) = (spec.field("podCIDRs"), before.field("podCIDRs"));
    if !had.is_empty() && !same(ranges.value(), had.value()) {
        ranges.forbidden("node updates may not change podCIDR except from \"\" to valid", &mut out);
    }
    let (id, had) = (spec.field("providerID"), before.field("providerID"));
    if !had.is_empty() && id.text() != had.text() {
        id.forbidden("node updates may not change providerID except from \"\" to valid", &mut out);
    }
    let change: Vec<&str> = spec.map().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let fixed = |key: &&str| {
        !matches!(
            *key,
            "taints"
                | "unschedulable"
                | "podCIDR"
                | "podCIDRs"
                | "providerID"
                | "configSource"
                | "externalID"
        )
    };
    let changed =
        change.iter().copied().filter(fixed).any(|key| !same(spec.key(key).value(), before.key(key).value()));
    if changed {
        let at = spec.shown_at(super::validate::Path::of(&[""]));
        at.forbidden("node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)", &mut out);
    }
    out
}
