//! Kinds with little to say of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::fill::{Fill, With, fill, items, made, or_insert};
use super::validate::{At, Causes, Check, Path, Rule, labels, names, pod, same};
use super::{Kind, common, pod_spec};
use crate::object::Object;
use crate::status::Cause;

pub static SERVICE_ACCOUNT: Kind = Kind {
    default: |object| {
        // Written by those that know nothing of tokens without Secrets.
        if object.0.get("secrets").is_some_and(super::validate::is_empty) {
            object.0.remove("secrets");
        }
    },
    ..Kind::PLAIN
};

pub static LEASE: Kind = Kind {
    validate: lease,
    validate_update: |new, _| lease(new),
    create_on_update: true,
    unconditional_update: false,
    ..Kind::PLAIN
};

fn lease(object: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let spec = At::root(object).field("spec");
    let (seconds, changes) = (spec.field("leaseDurationSeconds"), spec.field("leaseTransitions"));
    if seconds.is_set() && seconds.int() <= 0 {
        seconds.invalid("must be greater than 0", &mut out);
    }
    if changes.int() < 0 {
        changes.invalid("must be greater than or equal to 0", &mut out);
    }
    out
}

/// Lives for an hour.
pub static EVENT: Kind = Kind {
    name: names::anything,
    default: |object| {
        if object.api_version() == "v1" {
            or_insert(&mut object.0, "source", json!({}));
            or_insert(&mut object.0, "involvedObject", json!({}));
        }
    },
    validate: event,
    validate_update: |new, old| {
        let mut out = event(new);
        if new.api_version() != "v1" {
            const FIXED: [(&str, &str); 9] = [
                ("regarding", "involvedObject"),
                ("reason", "reason"),
                ("note", "message"),
                ("type", "type"),
                ("eventTime", "eventTime"),
                ("action", "action"),
                ("related", "related"),
                ("reportingController", "reportingController"),
                ("reportingInstance", "reportingInstance"),
            ];
            let (root, before) = (At::root(new), At::root(old));
            for (field, shown) in FIXED {
                root.field(field).shown_at(Path::of(&[shown])).immutable(&before.field(field), &mut out);
            }
        }
        out
    },
    field: event_field,
    ttl: Some(Duration::from_hours(1)),
    create_on_update: true,
    ..Kind::PLAIN
};

fn event(object: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let root = At::root(object);
    let is_core = object.api_version() == "v1";
    let pick = |core, own| root.field(if is_core { core } else { own });
    let (about, controller) =
        (pick("involvedObject", "regarding"), pick("reportingComponent", "reportingController"));
    let (time, message) = (root.field("eventTime"), pick("message", "note"));
    let space = about.field("namespace");
    let at = space.shown_at(Path::of(&["involvedObject", "namespace"]));
    let other =
        |out: &mut Causes| at.invalid_value(&space.text().into(), "does not match event.namespace", out);
    let own = object.namespace();
    if time.is_set() {
        if space.is_empty() && !matches!(own, "default" | "kube-system") {
            other(&mut out);
        }
        if controller.is_empty() {
            controller.required("", &mut out);
        }
        labels::label_name(controller.text(), &controller, &mut out);
        for (field, most) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
            let at = root.field(field);
            if at.is_empty() {
                at.required("", &mut out);
            }
            if at.len() > most {
                at.invalid_value(&"".into(), format_args!("can have at most {most} characters"), &mut out);
            }
        }
        if message.len() > 1024 {
            let at = message.shown_at(Path::of(&["message"]));
            at.invalid_value(&"".into(), "can have at most 1024 characters", &mut out);
        }
    } else {
        let fits = if space.is_empty() { matches!(own, "" | "default") } else { own == space.text() };
        if !fits {
            other(&mut out);
        }
    }
    At::root(object)
        .down(&["metadata", "namespace"])
        .shown_at(Path::of(&["namespace"]))
        .names(names::dns_subdomain, &mut out);
    if is_core {
        return out;
    }
    let empty: Value = "".into();
    let series = root.field("series");
    if series.is_set() && series.field("count").int() < 2 {
        At::value_at(&Value::Null, Path::of(&["series.count"])).invalid_value(
            &empty,
            "should be at least 2",
            &mut out,
        );
    }
    if !time.is_set() {
        time.required("", &mut out);
    }
    let kind = root.field("type");
    if !["Normal", "Warning"].contains(&kind.text()) {
        kind.invalid_value(&empty, format_args!("has invalid value: {}", kind.text()), &mut out);
    }
    const UNSET: [(&str, &str); 4] = [
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("deprecatedSource", "source"),
    ];
    for (field, shown) in UNSET {
        if !root.field(field).is_empty() {
            root.field(field).shown_at(Path::of(&[shown])).invalid_value(
                &empty,
                "needs to be unset",
                &mut out,
            );
        }
    }
    out
}

fn event_field(object: &Object, label: &str) -> Option<String> {
    const OF: [&str; 7] = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    if let Some((about, field)) = label.split_once('.') {
        let known = matches!(about, "involvedObject" | "regarding") && OF.contains(&field);
        return known.then(|| {
            let about = object.0.get("involvedObject").or_else(|| object.0.get("regarding"));
            about.and_then(|about| about.get(field)).and_then(Value::as_str).unwrap_or_default().to_owned()
        });
    }
    let controller = || {
        let one = object.text(&["reportingComponent"]);
        if one.is_empty() { object.text(&["reportingController"]).to_owned() } else { one.to_owned() }
    };
    match label {
        "reason" => common::selected(object, &["reason"]),
        "type" => common::selected(object, &["type"]),
        "reportingComponent" | "reportingController" => Some(controller()),
        "source" => {
            let source = object
                .get(&["source", "component"])
                .or_else(|| object.get(&["deprecatedSource", "component"]));
            let source = source.and_then(Value::as_str).unwrap_or_default().to_owned();
            Some(if source.is_empty() { controller() } else { source })
        }
        _ => None,
    }
}

pub static REVISION: Kind = Kind {
    validate: |object| {
        let mut out = Causes::new();
        let root = At::root(object);
        root.check(&[Rule("revision", Check::NonNegative)], &mut out);
        match root.field("data").value() {
            Value::Null => root.field("data").required("data is mandatory", &mut out),
            Value::Object(_) => {}
            _ => root.field("data").required("data must be a valid JSON object", &mut out),
        }
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        let root = At::root(new);
        root.check(&[Rule("revision", Check::NonNegative)], &mut out);
        if !same(root.field("data").value(), At::root(old).field("data").value()) {
            root.field("data").invalid("field is immutable", &mut out);
        }
        out
    },
    ..Kind::PLAIN
};

pub static POD_TEMPLATE: Kind = Kind {
    default: |object| {
        fill(
            &mut object.0,
            &[Fill("template", With::Made(&[])), Fill("template", With::By(pod_spec::template))],
        );
    },
    validate: |object| {
        let mut out = Causes::new();
        pod::template(&At::root(object).field("template"), &mut out);
        out
    },
    validate_update: |new, _| {
        let mut out = Causes::new();
        pod::template(&At::root(new).field("template"), &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};

/// Both kinds of webhooks. They are stored and, without a webhook being called here, do nothing.
pub static WEBHOOKS: Kind = Kind {
    default: |object| {
        const HOOK: &[Fill] = &[
            Fill("failurePolicy", With::Text("Fail")),
            Fill("matchPolicy", With::Text("Equivalent")),
            Fill("namespaceSelector", With::Object),
            Fill("objectSelector", With::Object),
            Fill("timeoutSeconds", With::Int(10)),
            Fill("rules", With::Each(&[Fill("scope", With::Text("*"))])),
            Fill("clientConfig", With::In(&[Fill("service", With::In(&[Fill("port", With::Int(443))]))])),
        ];
        let mutating = object.kind() == "MutatingWebhookConfiguration";
        for hook in items(&mut object.0, "webhooks") {
            fill(hook, HOOK);
            if mutating {
                fill(hook, &[Fill("reinvocationPolicy", With::Text("Never"))]);
            }
        }
    },
    validate: webhooks,
    validate_update: |new, _| webhooks(new),
    counts_generations: true,
    ..Kind::PLAIN
};

fn webhooks(object: &Object) -> Vec<Cause> {
    const RULES: &[Rule] = &[
        Rule("rules", Check::EachBy(webhook_rule)),
        Rule("failurePolicy", Check::OneOfIfSet(&["Fail", "Ignore"])),
        Rule("matchPolicy", Check::OneOfIfSet(&["Equivalent", "Exact"])),
    ];
    let mut out = Causes::new();
    let mut seen = Vec::new();
    for hook in At::root(object).field("webhooks").items() {
        full_name(&hook.field("name"), &mut out);
        hook.check(RULES, &mut out);
        let effects = hook.field("sideEffects");
        if effects.is_set() {
            effects.one_of_if_set(&["None", "NoneOnDryRun"], &mut out);
        } else {
            effects.required("must specify one of None, NoneOnDryRun", &mut out);
        }
        let timeout = hook.field("timeoutSeconds");
        if timeout.is_set() && !(1..=30).contains(&timeout.int()) {
            timeout.invalid("the timeout value must be between 1 and 30 seconds", &mut out);
        }
        labels::selector(&hook.field("namespaceSelector"), &mut out);
        labels::selector(&hook.field("objectSelector"), &mut out);
        hook.field("reinvocationPolicy").one_of_if_set(&["IfNeeded", "Never"], &mut out);
        let client = hook.field("clientConfig");
        if client.has("url") == client.has("service") {
            client.required("exactly one of url or service is required", &mut out);
        } else if client.has("service") {
            const SERVICE: &[Rule] = &[Rule("name", Check::Required), Rule("namespace", Check::Required)];
            client.field("service").check(SERVICE, &mut out);
        } else if !client.field("url").text().starts_with("https://") {
            let scheme = client.field("url").text().split_once("://").map_or("", |(scheme, _)| scheme);
            let detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            client.field("url").invalid_value(&scheme.into(), detail, &mut out);
        }
        review_versions(&hook.field("admissionReviewVersions"), &mut out);
        let name = hook.field("name");
        if !name.is_empty() {
            if seen.contains(&name.text()) {
                name.duplicate(&mut out);
            }
            seen.push(name.text());
        }
    }
    out
}

fn full_name(at: &At<'_>, out: &mut Causes) {
    if at.is_empty() {
        return at.required("", out);
    }
    let errors = names::dns_subdomain(at.text());
    if !errors.is_empty() {
        at.invalid(errors.join(","), out);
    } else if at.text().split('.').count() < 3 {
        at.invalid("should be a domain with at least three segments separated by dots", out);
    }
}

fn webhook_rule(rule: &At<'_>, out: &mut Causes) {
    let alone = |list: &At<'_>, what: &str, out: &mut Causes| {
        if list.is_empty() {
            list.required("", out);
        }
        if list.len() > 1 && list.texts().any(|one| one == "*") {
            list.invalid(format_args!("if '*' is present, must not specify other {what}"), out);
        }
    };
    let operations = rule.field("operations");
    alone(&operations, "operations", out);
    for operation in operations.items() {
        operation.one_of_if_set(&["*", "CONNECT", "CREATE", "DELETE", "UPDATE"], out);
    }
    alone(&rule.field("apiGroups"), "API groups", out);
    alone(&rule.field("apiVersions"), "API versions", out);
    let resources = rule.field("resources");
    if resources.is_empty() {
        resources.required("", out);
    }
    rule.field("scope").one_of_if_set(&["*", "Cluster", "Namespaced"], out);
}

fn review_versions(at: &At<'_>, out: &mut Causes) {
    if at.is_empty() {
        return at.required("must specify one of v1, v1beta1", out);
    }
    let mut seen = Vec::new();
    for version in at.items() {
        if seen.contains(&version.text()) {
            version.invalid("duplicate version", out);
            continue;
        }
        seen.push(version.text());
        version.names(names::dns_1035_label, out);
    }
    if !seen.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
        at.invalid("must include at least one of v1, v1beta1", out);
    }
}

pub static ADMISSION_POLICY: Kind = Kind {
    default: |object| {
        const MATCH: &[Fill] = &[
            Fill("matchPolicy", With::Text("Equivalent")),
            Fill("namespaceSelector", With::Object),
            Fill("objectSelector", With::Object),
            Fill("resourceRules", With::Each(&[Fill("scope", With::Text("*"))])),
            Fill("excludeResourceRules", With::Each(&[Fill("scope", With::Text("*"))])),
        ];
        let is_policy = !object.kind().ends_with("Binding");
        let spec = made(&mut object.0, "spec");
        if is_policy {
            fill(spec, &[Fill("failurePolicy", With::Text("Fail"))]);
        }
        fill(spec, &[Fill("matchConstraints", With::In(MATCH)), Fill("matchResources", With::In(MATCH))]);
    },
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    counts_generations: true,
    ..Kind::PLAIN
};

pub static FLOW_SCHEMA: Kind = Kind {
    default: |object| {
        fill(made(&mut object.0, "spec"), &[Fill("matchingPrecedence", With::IntForZero(1000))]);
    },
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    counts_generations: true,
    ..Kind::PLAIN
};

pub static PRIORITY_LEVEL: Kind = Kind {
    default: |object| {
        const QUEUES: &[Fill] = &[
            Fill("handSize", With::IntForZero(8)),
            Fill("queues", With::IntForZero(64)),
            Fill("queueLengthLimit", With::IntForZero(50)),
        ];
        const SPEC: &[Fill] = &[
            Fill(
                "exempt",
                With::In(&[
                    Fill("nominalConcurrencyShares", With::Int(0)),
                    Fill("lendablePercent", With::Int(0)),
                ]),
            ),
            Fill(
                "limited",
                With::In(&[
                    Fill("nominalConcurrencyShares", With::Int(30)),
                    Fill("lendablePercent", With::Int(0)),
                    Fill("limitResponse", With::In(&[Fill("queuing", With::In(QUEUES))])),
                ]),
            ),
        ];
        fill(made(&mut object.0, "spec"), SPEC);
    },
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    counts_generations: true,
    ..Kind::PLAIN
};

/// Stored, with a status of its own, and nothing else that is special here.
pub static WITH_STATUS: Kind = Kind {
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    ..Kind::PLAIN
};
