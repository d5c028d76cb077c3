//! Budgets, priorities, quotas, limits, runtime classes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fill::{Fields, Fill, With, fill, items, made, text};
use super::quantity::Quantity;
use super::validate::{At, Causes, Check, Rule, labels, names, resources, scheduling};
use super::workloads::{at_most_all, int_or_percent};
use super::{Kind, common, pod_spec};
use crate::object::Object;
use crate::status::Cause;

pub static BUDGET: Kind = Kind {
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: budget,
    validate_update: |new, _| budget(new),
    validate_subresource: |subresource, new, _| {
        let mut out = Causes::new();
        if subresource == "status" {
            let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
            let status = At::root(new).field("status");
            fields.iter().for_each(|field| status.field(field).non_negative(&mut out));
        }
        out
    },
    counts_generations: true,
    unconditional_update: false,
    ..Kind::PLAIN
};

fn budget(object: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let spec = At::root(object).field("spec");
    let (least, most) = (spec.field("minAvailable"), spec.field("maxUnavailable"));
    if least.is_set() && most.is_set() {
        let policy = spec.field("unhealthyPodEvictionPolicy");
        let selector = spec.field("selector");
        let shape = [
            ("MinAvailable", least.value()),
            ("Selector", selector.value()),
            ("MaxUnavailable", most.value()),
            ("UnhealthyPodEvictionPolicy", policy.value()),
        ];
        spec.invalid_shape(&shape, "minAvailable and maxUnavailable cannot be both set", &mut out);
    }
    for amount in [least, most].iter().filter(|amount| amount.is_set()) {
        int_or_percent(amount, &mut out);
        at_most_all(amount, &mut out);
    }
    labels::selector(&spec.field("selector"), &mut out);
    const RULES: &[Rule] =
        &[Rule("unhealthyPodEvictionPolicy", Check::OneOfIfSet(&["AlwaysAllow", "IfHealthyBudget"]))];
    spec.check(RULES, &mut out);
    out
}

pub static PRIORITY_CLASS: Kind = Kind {
    default: |object| fill(&mut object.0, &[Fill("preemptionPolicy", With::Text("PreemptLowerPriority"))]),
    validate: |object| {
        let mut out = Causes::new();
        priority(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let (root, before) = (At::root(new), At::root(old));
        if root.field("value").int() != before.field("value").int() {
            root.field("value").forbidden("may not be changed in an update.", &mut out);
        }
        root.field("preemptionPolicy").immutable(&before.field("preemptionPolicy"), &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};

fn priority(object: &Object, out: &mut Causes) {
    const SYSTEM: [(&str, i64); 2] =
        [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    const MOST: i64 = 1_000_000_000;
    let root = At::root(object);
    let value = root.field("value");
    if object.name().starts_with("system-") {
        let known = SYSTEM.iter().find(|(name, _)| *name == object.name());
        let why = match known {
            None => format!("{} is not a known system priority class", object.name()),
            Some((name, needed)) if value.int() != *needed => {
                format!("value of {name} PriorityClass must be {needed}")
            }
            Some((name, _)) if root.field("globalDefault").flag() => {
                format!("globalDefault of {name} PriorityClass must be false")
            }
            Some(_) => String::new(),
        };
        if !why.is_empty() {
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
            );
            root.down(&["metadata", "name"]).forbidden(detail, out);
        }
    } else if value.int() > MOST {
        value.forbidden(format_args!("maximum allowed value of a user defined priority is {MOST}"), out);
    }
    root.check(&[Rule("preemptionPolicy", Check::OneOfIfSet(&["PreemptLowerPriority", "Never"]))], out);
}

pub static RUNTIME_CLASS: Kind = Kind {
    default: |object| {
        const TABLE: &[Fill] =
            &[Fill("overhead", With::In(&[Fill("podFixed", With::By(pod_spec::amounts))]))];
        fill(&mut object.0, TABLE);
    },
    validate: |object| {
        let mut out = Causes::new();
        let root = At::root(object);
        root.check(&[Rule("handler", Check::RequiredText(names::dns_label))], &mut out);
        let fixed = root.down(&["overhead", "podFixed"]).shown_at(root.field("overhead").path());
        if fixed.is_set() {
            resources::overhead(&fixed, &mut out);
        }
        labels::labels(&root.down(&["scheduling", "nodeSelector"]), &mut out);
        scheduling::tolerations(&root.down(&["scheduling", "tolerations"]), &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        At::root(new).field("handler").immutable(&At::root(old).field("handler"), &mut out);
        out
    },
    ..Kind::PLAIN
};

pub static LIMIT_RANGE: Kind = Kind {
    default: |object| items(made(&mut object.0, "spec"), "limits").for_each(default_limit),
    validate: limit_range,
    validate_update: |new, _| limit_range(new),
    ..Kind::PLAIN
};

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn default_limit(item: &mut Fields) {
    LISTS.iter().for_each(|list| {
        if let Some(list) = super::fill::object(item, list) {
            pod_spec::amounts(list);
        }
    });
    if text(item, "type") != "Container" {
        return;
    }
    let copy = |item: &mut Fields, from: &str, to: &str| {
        let Some(values) = item.get(from).and_then(Value::as_object).cloned() else { return };
        let list = made(item, to);
        for (key, value) in values {
            list.entry(key).or_insert(value);
        }
    };
    copy(item, "max", "default");
    copy(item, "default", "defaultRequest");
    copy(item, "min", "defaultRequest");
}

fn limit_range(object: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let mut seen = Vec::new();
    for item in At::root(object).down(&["spec", "limits"]).items() {
        let kind = item.field("type");
        let before = out.len();
        labels::label_name(kind.text(), &kind, &mut out);
        let known = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind.text());
        if out.len() == before && !kind.text().contains('/') && !known {
            kind.invalid_value(
                &kind.text().into(),
                "must be a standard limit type or fully qualified",
                &mut out,
            );
        }
        if seen.contains(&kind.text()) {
            kind.duplicate(&mut out);
        }
        seen.push(kind.text());
        limit(&item, kind.text(), &mut out);
    }
    out
}

fn limit(item: &At<'_>, kind: &str, out: &mut Causes) {
    let mut keys = BTreeSet::new();
    for name in LISTS {
        let list = item.field(name);
        if kind == "Pod" && matches!(name, "default" | "defaultRequest") {
            if !list.is_empty() {
                list.forbidden("may not be specified when `type` is 'Pod'", out);
            }
            continue;
        }
        for (key, entry) in list.entries() {
            if matches!(kind, "Pod" | "Container") {
                resources::container_name(key, &entry, out);
            } else {
                resources::name(key, &entry, out);
            }
            keys.insert(key);
        }
    }
    if kind == "PersistentVolumeClaim"
        && !item.field("min").has("storage")
        && !item.field("max").has("storage")
    {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        item.field("limits").required(detail, out);
    }
    for key in keys {
        let of = |name: &'static str| {
            let skipped = kind == "Pod" && name.starts_with("default");
            Quantity::of(item.field(name).key(key).value()).filter(|_| !skipped)
        };
        let tell = |at: &'static str, shown: Quantity, detail: String, out: &mut Causes| {
            item.field(at).key(key).invalid_value(&shown.to_string().into(), detail, out);
        };
        let (min, max, default, request) = (of("min"), of("max"), of("default"), of("defaultRequest"));
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            tell("min", min, format!("min value {min} is greater than max value {max}"), out);
        }
        if let (Some(request), Some(min)) = (request, min)
            && min > request
        {
            tell(
                "defaultRequest",
                request,
                format!("min value {min} is greater than default request value {request}"),
                out,
            );
        }
        if let (Some(request), Some(max)) = (request, max)
            && request > max
        {
            tell(
                "defaultRequest",
                request,
                format!("default request value {request} is greater than max value {max}"),
                out,
            );
        }
        if let (Some(request), Some(default)) = (request, default)
            && request > default
        {
            tell(
                "defaultRequest",
                request,
                format!("default request value {request} is greater than default limit value {default}"),
                out,
            );
        }
        if let (Some(default), Some(min)) = (default, min)
            && min > default
        {
            tell("default", min, format!("min value {min} is greater than default value {default}"), out);
        }
        if let (Some(default), Some(max)) = (default, max)
            && default > max
        {
            tell("default", max, format!("default value {default} is greater than max value {max}"), out);
        }
        let ratio = of("maxLimitRequestRatio");
        if let (Some(ratio), Some(one)) = (ratio, Quantity::parse("1"))
            && ratio < one
        {
            tell("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"), out);
        }
        if let (Some(default), Some(request)) = (default, request)
            && !resources::is_overcommit_allowed(key)
            && default != request
        {
            tell(
                "defaultRequest",
                request,
                format!("default value {default} must equal to defaultRequest value {request} in {key}"),
                out,
            );
        }
    }
}

pub static QUOTA: Kind = Kind {
    default: |object| {
        for part in ["spec", "status"] {
            let hard = Fill("hard", With::By(pod_spec::amounts));
            let used = Fill("used", With::By(pod_spec::amounts));
            if let Some(part) = super::fill::object(&mut object.0, part) {
                fill(part, &[hard, used]);
            }
        }
    },
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: quota,
    validate_update: |new, old| {
        let mut out = quota(new);
        let path = ["spec", "scopes"];
        let (root, before) = (At::root(new), At::root(old));
        let (scopes, before) = (root.down(&path), before.down(&path));
        let set = |at: &At<'_>| -> BTreeSet<String> { at.texts().map(str::to_owned).collect() };
        if set(&scopes) != set(&before) {
            scopes.invalid("field is immutable", &mut out);
        }
        out
    },
    validate_subresource: |subresource, new, _| {
        let mut out = Causes::new();
        if subresource == "status" {
            let status = At::root(new).field("status");
            for list in ["hard", "used"] {
                resources::list(&status.field(list), resources::quota_name, &mut out);
            }
        }
        out
    },
    ..Kind::PLAIN
};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn quota(object: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let spec = At::root(object).field("spec");
    let hard = spec.field("hard");
    resources::list(&hard, resources::quota_name, &mut out);
    let scopes = spec.field("scopes");
    let fits = |scope: &str, key: &str| {
        let computes = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
        match scope {
            "BestEffort" => key == "pods",
            "VolumeAttributesClass" => matches!(key, "persistentvolumeclaims" | "requests.storage"),
            _ => key == "pods" || computes.contains(&key),
        }
    };
    let mut seen = BTreeSet::new();
    for scope in scopes.texts() {
        if !SCOPES.contains(&scope) {
            scopes.invalid("unsupported scope", &mut out);
            continue;
        }
        if hard.entries().any(|(key, _)| !fits(scope, key)) {
            scopes.invalid("unsupported scope applied to resource", &mut out);
        }
        seen.insert(scope);
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if seen.contains(one) && seen.contains(other) {
            scopes.invalid("conflicting scopes", &mut out);
        }
    }
    for item in spec.down(&["scopeSelector", "matchExpressions"]).items() {
        let (scope, operator, values) =
            (item.field("scopeName"), item.field("operator"), item.field("values"));
        let at = spec.down(&["scopeSelector", "matchExpressions"]);
        if !SCOPES.contains(&scope.text()) {
            scope.shown_at(at.path().field("scopeName")).invalid("unsupported scope", &mut out);
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                values.shown_at(at.path().field("values")).required(detail, &mut out);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                values.shown_at(at.path().field("values")).invalid(detail, &mut out);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator
                .shown_at(at.path().field("operator"))
                .invalid("not a valid selector operator", &mut out),
        }
    }
    out
}
