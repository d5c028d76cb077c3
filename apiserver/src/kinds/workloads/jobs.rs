//! Jobs. Source: kubernetes `pkg/apis/batch`, `pkg/registry/batch/job`.

use serde_json::{Value, json};

use super::super::fill::{Fields, Fill, With, fill, flag, has, made};
use super::super::validate::{At, Causes, Check, Rule, go, is_empty, labels, names, pod, same};
use super::super::{Kind, common, pod_spec};
use crate::object::Object;
use crate::status::Cause;

pub static KIND: Kind = Kind {
    default,
    prepare_create: |object, preparing| {
        common::without_status(object, preparing);
        select_own_pods(object);
        labels_of_template(object);
    },
    prepare_update: |new, old, preparing| {
        common::keep_status(new, old, preparing);
        labels_of_template(new);
    },
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        job(object, true, &mut out);
        out
    },
    validate_update,
    validate_subresource,
    warn: |object| {
        let mut out = Vec::new();
        let errors = names::dns_label(object.name());
        if !errors.is_empty() && !object.name().is_empty() {
            out.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", errors.join(" ")));
        }
        spec_warnings(&At::root(object).field("spec"), &mut out);
        out
    },
    field: |object, label| {
        let count = || At::root(object).down(&["status", "succeeded"]).int().to_string();
        (label == "status.successful").then(count)
    },
    counts_generations: true,
    ..Kind::PLAIN
};

const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

fn default(object: &mut Object) {
    let spec = made(&mut object.0, "spec");
    template_defaults(spec);
    default_spec(spec);
    if !has(&object.0, "status") {
        object.0.insert("status".to_owned(), json!({}));
    }
}

/// Of a job's specification within a template of jobs: only what its pods need.
pub fn template_defaults(spec: &mut Fields) {
    fill(spec, &[Fill("template", With::Made(&[])), Fill("template", With::By(pod_spec::template))]);
    if let Some(policy) = spec.get_mut("podFailurePolicy").and_then(Value::as_object_mut) {
        const RULE: &[Fill] = &[Fill("onPodConditions", With::Each(&[Fill("status", With::Text("True"))]))];
        fill(policy, &[Fill("rules", With::Each(RULE))]);
    }
}

fn default_spec(spec: &mut Fields) {
    if !has(spec, "completions") && !has(spec, "parallelism") {
        spec.insert("completions".to_owned(), 1.into());
    }
    let limit = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    super::super::fill::or_insert(spec, "backoffLimit", limit);
    let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    super::super::fill::or_insert(spec, "podReplacementPolicy", replacement);
    fill(
        spec,
        &[
            Fill("parallelism", With::Int(1)),
            Fill("completionMode", With::Text("NonIndexed")),
            Fill("suspend", With::Flag(false)),
            Fill("manualSelector", With::Flag(false)),
        ],
    );
}

/// A job without labels has those of its template, with those that make its pods its own: upstream's two maps are one.
fn labels_of_template(object: &mut Object) {
    let labels =
        object.get(&["spec", "template", "metadata", "labels"]).filter(|labels| !is_empty(labels)).cloned();
    let own = object.meta_mut().get("labels");
    if let Some(labels) = labels
        && own.is_none_or(is_empty)
    {
        object.set_meta("labels", labels);
    }
}

/// Labels that make the job's pods its own, and the selector of them.
fn select_own_pods(object: &mut Object) {
    let (name, uid) = (object.name().to_owned(), object.uid().to_owned());
    let spec = made(&mut object.0, "spec");
    if flag(spec, "manualSelector") {
        return;
    }
    let labels = made(made(made(spec, "template"), "metadata"), "labels");
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| value.as_str().into());
        }
    }
    let selected = made(made(spec, "selector"), "matchLabels");
    selected.entry(UID_LABELS[1]).or_insert_with(|| uid.into());
}

fn job(object: &Object, prefixed: bool, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    generated_selector(object, &spec, prefixed, out);
    selected_spec(&spec, out);
    let completions = spec.field("completions").int();
    if spec.field("completionMode").text() == "Indexed" && completions > 0 {
        let host = format!("{}-{}", object.name(), completions - 1);
        if !names::dns_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            root.down(&["metadata", "name"]).invalid(detail, out);
        }
    }
}

fn generated_selector(object: &Object, spec: &At<'_>, prefixed: bool, out: &mut Causes) {
    let selector = spec.field("selector");
    if spec.field("manualSelector").flag() || !selector.is_set() {
        return;
    }
    let meta = spec.down(&["template", "metadata"]);
    let of = meta.field("labels");
    let count = if prefixed { 2 } else { 1 };
    let mut expected = Fields::new();
    for at in 0..count {
        for (key, value) in [(UID_LABELS[at], object.uid()), (NAME_LABELS[at], object.name())] {
            expected.insert(key.to_owned(), value.into());
            let label = of.key(key);
            if !label.is_set() {
                label.required(&format!("must be '{value}'"), out);
            } else if label.text() != value {
                label.invalid(format_args!("must be '{value}'"), out);
            }
        }
    }
    if labels::is_selector(&selector) && !labels::matches(&selector, Some(&expected)) {
        selector.invalid("`selector` not auto-generated", out);
    }
}

fn selected_spec(spec: &At<'_>, out: &mut Causes) {
    unselected_spec(spec, out);
    let selector = spec.field("selector");
    if selector.is_set() {
        labels::selector(&selector, out);
    } else {
        selector.required("", out);
    }
    let labels = spec.down(&["template", "metadata", "labels"]);
    if labels::is_selector(&selector) && !labels::matches(&selector, labels.map()) {
        labels.invalid("`selector` does not match template `labels`", out);
    }
}

/// A job's specification, whether it is one or a template of one.
pub fn unselected_spec(spec: &At<'_>, out: &mut Causes) {
    const COUNTS: &[Rule] = &[
        Rule("parallelism", Check::NonNegative),
        Rule("completions", Check::NonNegative),
        Rule("activeDeadlineSeconds", Check::NonNegative),
        Rule("backoffLimit", Check::NonNegative),
        Rule("ttlSecondsAfterFinished", Check::NonNegative),
        Rule("backoffLimitPerIndex", Check::NonNegative),
        Rule("maxFailedIndexes", Check::NonNegative),
    ];
    spec.check(COUNTS, out);
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        spec.field("backoffLimitPerIndex").required("when maxFailedIndexes is specified", out);
    }
    managed_by(&spec.field("managedBy"), out);
    completion_mode(spec, out);
    failure_policy(spec, out);
    success_policy(spec, out);
    let replacement = spec.field("podReplacementPolicy");
    if spec.has("podFailurePolicy") {
        replacement.one_of_if_set(&["Failed"], out);
    } else {
        replacement.one_of_if_set(&["Failed", "TerminatingOrFailed"], out);
    }
    let template = spec.field("template");
    pod::template(&template, out);
    let policy = template.down(&["spec", "restartPolicy"]);
    match policy.text() {
        "Always" | "" => policy.required("valid values: \"OnFailure\", \"Never\"", out),
        "OnFailure" | "Never" => {
            if spec.has("podFailurePolicy") && policy.text() != "Never" {
                policy.invalid("only \"Never\" is supported when podFailurePolicy is specified", out);
            }
        }
        _ => policy.unsupported(&["OnFailure", "Never"], out),
    }
}

fn managed_by(at: &At<'_>, out: &mut Causes) {
    if !at.is_set() {
        return;
    }
    if at.text().is_empty() {
        at.required("", out);
    } else {
        for (part, detail) in names::domain_prefixed_path(at.text()) {
            at.invalid_value(&part.into(), detail, out);
        }
    }
    if at.len() > 63 {
        at.too_long(63, out);
    }
}

fn completion_mode(spec: &At<'_>, out: &mut Causes) {
    let mode = spec.field("completionMode");
    mode.one_of_if_set(&["NonIndexed", "Indexed"], out);
    let field = |name| spec.field(name);
    let (completions, parallelism) = (field("completions"), field("parallelism"));
    let (per_index, failed) = (field("backoffLimitPerIndex"), field("maxFailedIndexes"));
    if mode.text() != "Indexed" {
        if !mode.is_set() || mode.text() == "NonIndexed" {
            for at in [per_index, failed].iter().filter(|at| at.is_set()) {
                at.invalid("requires indexed completion mode", out);
            }
        }
        return;
    }
    let at_most = |at: &At<'_>, most: i64, when: &str, out: &mut Causes| {
        if at.int() > most {
            at.invalid(format_args!("must be less than or equal to {most}{when}"), out);
        }
    };
    if !completions.is_set() {
        completions.required("when completion mode is Indexed", out);
    }
    at_most(&parallelism, 100_000, " when completion mode is Indexed", out);
    if completions.is_set() && failed.int() > completions.int() {
        failed.invalid("must be less than or equal to completions", out);
    }
    at_most(&failed, 100_000, "", out);
    if completions.int() > 100_000 && per_index.is_set() {
        if !failed.is_set() {
            failed.required("must be specified when completions is above 100000", out);
        }
        let when = " when completions are above 100000 and used with backoff limit per index";
        at_most(&parallelism, 10_000, when, out);
        at_most(&failed, 10_000, when, out);
    }
}

fn failure_policy(spec: &At<'_>, out: &mut Causes) {
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let rules = spec.down(&["podFailurePolicy", "rules"]);
    if rules.len() > 20 {
        rules.too_many(20, out);
    }
    for rule in rules.items() {
        let action = rule.field("action");
        if action.is_empty() {
            action.required(&format!("valid values: {}", quoted(ACTIONS)), out);
        } else if action.text() == "FailIndex" {
            if !spec.has("backoffLimitPerIndex") {
                action.invalid("requires the backoffLimitPerIndex to be set", out);
            }
        } else {
            action.one_of(ACTIONS, out);
        }
        let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, spec, out);
        }
        if conditions.len() > 20 {
            conditions.too_many(20, out);
        }
        conditions.items().for_each(|condition| pod_condition(&condition, out));
        let both = match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        omitted(&rule, both, out);
    }
}

/// `Invalid` without the value.
fn omitted(at: &At<'_>, detail: &str, out: &mut Causes) {
    let message = format!("Invalid value: {detail}");
    out.push(Cause { reason: "FieldValueInvalid", message, field: at.path().to_string() });
}

fn quoted(list: &[&str]) -> String {
    format!("[{}]", list.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(" "))
}

fn pod_condition(at: &At<'_>, out: &mut Causes) {
    const STATUSES: &[&str] = &["False", "True", "Unknown"];
    labels::label_name(at.field("type").text(), &at.field("type"), out);
    let status = at.field("status");
    if status.is_empty() {
        status.required(&format!("valid values: {}", quoted(STATUSES)), out);
    } else {
        status.one_of(STATUSES, out);
    }
}

fn exit_codes(at: &At<'_>, spec: &At<'_>, out: &mut Causes) {
    const OPERATORS: &[&str] = &["In", "NotIn"];
    let (operator, values, container) = (at.field("operator"), at.field("values"), at.field("containerName"));
    if operator.is_empty() {
        operator.required(&format!("valid values: {}", quoted(OPERATORS)), out);
    } else {
        operator.one_of(OPERATORS, out);
    }
    let of_template = spec.down(&["template", "spec"]);
    let known = ["containers", "initContainers"]
        .iter()
        .any(|list| of_template.field(list).items().any(|one| one.field("name").text() == container.text()));
    if container.is_set() && !known {
        container.invalid("must be one of the container or initContainer names in the pod template", out);
    }
    if values.is_empty() {
        values.invalid("at least one value is required", out);
    } else if values.len() > 255 {
        values.too_many(255, out);
    }
    let mut seen: Vec<i64> = Vec::new();
    for value in values.items() {
        if operator.text() == "In" && value.int() == 0 {
            value.invalid("must not be 0 for the In operator", out);
        }
        if seen.contains(&value.int()) {
            value.duplicate(out);
        }
        seen.push(value.int());
    }
    if !seen.is_sorted() {
        values.invalid("must be ordered", out);
    }
}

fn success_policy(spec: &At<'_>, out: &mut Causes) {
    let policy = spec.field("successPolicy");
    if !policy.is_set() {
        return;
    }
    let rules = policy.field("rules");
    if spec.field("completionMode").text() != "Indexed" {
        let rules: Vec<String> = rules
            .items()
            .map(|rule| {
                let field = |name| rule.field(name).value();
                go(&[
                    ("SucceededIndexes", field("succeededIndexes")),
                    ("SucceededCount", field("succeededCount")),
                ])
            })
            .collect();
        let message =
            format!("Invalid value: {{\"Rules\":[{}]}}: requires indexed completion mode", rules.join(","));
        return out.push(Cause { reason: "FieldValueInvalid", message, field: policy.path().to_string() });
    }
    if rules.is_empty() {
        rules.required("at least one rules must be specified when the successPolicy is specified", out);
    }
    if rules.len() > 20 {
        rules.too_many(20, out);
    }
    let completions = spec.field("completions").int();
    for rule in rules.items() {
        let (count, indexes) = (rule.field("succeededCount"), rule.field("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            rule.required("at least one of succeededCount or succeededIndexes must be specified", out);
        }
        let total = match index_count(indexes.text(), completions) {
            Ok(total) => total,
            Err(why) => {
                indexes.invalid(format_args!("error parsing succeededIndexes: {why}"), out);
                0
            }
        };
        count.non_negative(out);
        let at_most = |most: i64, what: &str, out: &mut Causes| {
            if count.int() > most {
                count.invalid(
                    format_args!("must be less than or equal to {most} (the number of {what})"),
                    out,
                );
            }
        };
        at_most(completions, "specified completions", out);
        if indexes.is_set() {
            at_most(total, "indexes in the specified succeededIndexes field", out);
        }
    }
}

/// `1,3-5`: how many these are; each below `completions`, in order.
fn index_count(text: &str, completions: i64) -> Result<i64, String> {
    let number = |text: &str| -> Result<i64, String> {
        let number =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: \"{text}\""))?;
        if number >= completions { Err(format!("too large index: \"{text}\"")) } else { Ok(number) }
    };
    let (mut total, mut last) = (0, None);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let parts: Vec<&str> = interval.split('-').collect();
        let (first, end) = match *parts {
            [one] => (number(one)?, number(one)?),
            [first, end] => (number(first)?, number(end)?),
            _ => {
                return Err(format!(
                    "the fragment \"{interval}\" violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        if parts.len() == 2 && first >= end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let (root, before) = (At::root(new), At::root(old));
    let (spec, before) = (root.field("spec"), before.field("spec"));
    let had = before.down(&["template", "metadata", "labels"]);
    job(new, had.has(NAME_LABELS[1]) && had.has(UID_LABELS[1]), &mut out);
    selected_spec(&spec, &mut out);
    let completions = spec.field("completions");
    if spec.field("completionMode").text() != "Indexed" {
        completions.immutable(&before.field("completions"), &mut out);
    } else if completions.is_set()
        && completions.value() != before.field("completions").value()
        && completions.int() != spec.field("parallelism").int()
    {
        completions.invalid("can only be modified in tandem with spec.parallelism", &mut out);
    }
    spec.field("selector").immutable(&before.field("selector"), &mut out);
    template_update(new, old, &spec.field("template"), &mut out);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        spec.field(field).immutable(&before.field(field), &mut out);
    }
    // Upstream says the same thing once, however often it finds it.
    let mut seen = Vec::new();
    out.retain(|cause| {
        let is_new = !seen.contains(cause);
        seen.push(cause.clone());
        is_new
    });
    out
}

/// The template changes only while the job is held, and then where its pods run and what they need.
fn template_update(new: &Object, old: &Object, at: &At<'_>, out: &mut Causes) {
    let of = |object: &Object| object.get(&["spec", "template"]).cloned().unwrap_or_default();
    let (template, mut before) = (of(new), of(old));
    let status = At::root(old).field("status");
    let held = status.field("conditions").items().any(|condition| {
        condition.field("type").text() == "Suspended" && condition.field("status").text() == "True"
    });
    let suspended = old.get(&["spec", "suspend"]) == Some(&Value::Bool(true));
    let free = suspended && (!status.has("startTime") || held) && status.field("active").int() == 0;
    if free {
        let mut take = |path: &[&str]| {
            let (name, parents) = path.split_last().expect("a path has a last name");
            let value = path.iter().try_fold(&template, |value, name| value.get(name)).cloned();
            let parent = parents.iter().try_fold(&mut before, |value, name| value.get_mut(name));
            if let Some(parent) = parent.and_then(Value::as_object_mut) {
                match value {
                    Some(value) => parent.insert((*name).to_owned(), value),
                    None => parent.remove(*name),
                };
            }
        };
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            take(&["spec", field]);
        }
        take(&["metadata", "annotations"]);
        take(&["metadata", "labels"]);
        if template["spec"]["affinity"].is_object() && !before["spec"]["affinity"].is_object() {
            before["spec"]["affinity"] = json!({});
        }
        let node = template["spec"]["affinity"].get("nodeAffinity").cloned();
        if let Some(affinity) = before["spec"].get_mut("affinity").and_then(Value::as_object_mut) {
            match node {
                Some(node) => affinity.insert("nodeAffinity".to_owned(), node),
                None => affinity.remove("nodeAffinity"),
            };
        }
        for list in ["containers", "initContainers"] {
            let containers = before["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            let others = template["spec"][list].as_array().into_iter().flatten();
            for (container, other) in containers.zip(others).filter(|(a, b)| a["name"] == b["name"]) {
                container["resources"] = other["resources"].clone();
            }
        }
    }
    if same(&template, &before) {
        return;
    }
    let spec = at.field("spec").shown_at(super::super::validate::Path::of(&["spec", "template.spec"]));
    let shown = if free { &spec } else { at };
    shown.invalid("field is immutable", out);
}

fn validate_subresource(subresource: &str, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    if subresource != "status" {
        return out;
    }
    let root = At::root(new);
    let status = root.field("status");
    super::counts(&status, &["active", "succeeded", "failed", "ready", "terminating"], &[], &mut out);
    let conditions = status.field("conditions");
    let is = |object: &Object, kind: &str| {
        At::root(object).down(&["status", "conditions"]).items().any(|condition| {
            condition.field("type").text() == kind && condition.field("status").text() == "True"
        })
    };
    let is_new = |kind: &str| is(new, kind) && !is(old, kind);
    let (complete, failed) = (is(new, "Complete"), is(new, "Failed"));
    if complete && failed {
        omitted(&conditions, "cannot set Complete=True and Failed=true conditions", &mut out);
    }
    if complete && is(new, "FailureTarget") {
        omitted(&conditions, "cannot set Complete=True and FailureTarget=true conditions", &mut out);
    }
    let completion = status.field("completionTime");
    if completion.is_set() && !complete {
        completion.invalid("cannot set completionTime when there is no Complete=True condition", &mut out);
    }
    if complete && !completion.is_set() {
        completion.required("completionTime is required for Complete jobs", &mut out);
    }
    if is_new("Failed") && !is(new, "FailureTarget") {
        omitted(
            &conditions,
            "cannot set Failed=True condition without the FailureTarget=true condition",
            &mut out,
        );
    }
    if is_new("Complete") && !is(new, "SuccessCriteriaMet") {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        omitted(&conditions, detail, &mut out);
    }
    if complete || failed {
        if status.field("active").int() > 0 {
            status.field("active").invalid("active>0 is invalid for finished job", &mut out);
        }
        if !status.has("startTime") {
            status.field("startTime").required("startTime is required for finished job", &mut out);
        }
    }
    for kind in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
        if is(old, kind) && !is(new, kind) {
            let what = if kind == "SuccessCriteriaMet" { "" } else { "terminal " };
            omitted(&conditions, &format!("cannot disable the {what}{kind}=True condition"), &mut out);
        }
    }
    for field in ["failed", "succeeded"] {
        if status.field(field).int() < At::root(old).field("status").field(field).int() {
            let at = status.field(field);
            at.invalid_value(&at.int().into(), format_args!("cannot decrease the {field} counter"), &mut out);
        }
    }
    out
}

pub fn spec_warnings(spec: &At<'_>, out: &mut Vec<String>) {
    let many = spec.field("completions").int() > 100_000 && spec.field("parallelism").int() > 10_000;
    if spec.field("completionMode").text() == "Indexed" && many {
        out.push(format!("{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail", spec.path()));
    }
    super::template_warnings(&spec.field("template"), out);
}
