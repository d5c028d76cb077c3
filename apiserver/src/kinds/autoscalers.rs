//! HorizontalPodAutoscalers, as `autoscaling/v2` has them; v1 is converted ([`super::convert`]).

use serde_json::{Value, json};

use super::fill::{Fill, With, fill, has, items, made, or_insert};
use super::pod_spec::canonical;
use super::quantity::Quantity;
use super::validate::{At, Causes, Check, Rule, names, resources};
use super::{Kind, common};
use crate::object::Object;
use crate::status::Cause;

pub static KIND: Kind = Kind {
    default,
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: autoscaler,
    validate_update: |new, _| autoscaler(new),
    validate_subresource: |subresource, new, _| {
        let mut out = Causes::new();
        if subresource == "status" {
            let status = At::root(new).field("status");
            ["currentReplicas", "desiredReplicas"]
                .iter()
                .for_each(|field| status.field(field).non_negative(&mut out));
        }
        out
    },
    ..Kind::PLAIN
};

fn default(object: &mut Object) {
    let is_v1 = object.api_version() == "autoscaling/v1";
    let spec = made(&mut object.0, "spec");
    fill(spec, &[Fill("minReplicas", With::Int(1))]);
    if is_v1 {
        return;
    }
    if spec.get("metrics").is_none_or(super::validate::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert(
            "metrics".to_owned(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
        );
    }
    for metric in items(spec, "metrics") {
        let sources = metric
            .values_mut()
            .filter_map(|source| source.get_mut("target"))
            .filter_map(Value::as_object_mut);
        for target in sources {
            for field in ["value", "averageValue"] {
                target.get_mut(field).into_iter().for_each(canonical);
            }
        }
    }
    if has(spec, "behavior") {
        behavior(made(spec, "behavior"));
    }
}

fn behavior(behavior: &mut super::fill::Fields) {
    let by = |kind: &str, value: i64, seconds: i64| json!({"type": kind, "value": value, "periodSeconds": seconds});
    let up = made(behavior, "scaleUp");
    or_insert(up, "stabilizationWindowSeconds", 0);
    or_insert(up, "policies", json!([by("Pods", 4, 15), by("Percent", 100, 15)]));
    fill(up, &[Fill("selectPolicy", With::Text("Max"))]);
    let down = made(behavior, "scaleDown");
    or_insert(down, "policies", json!([by("Percent", 100, 15)]));
    fill(down, &[Fill("selectPolicy", With::Text("Max"))]);
}

fn autoscaler(object: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    let spec = At::root(object).field("spec");
    let (least, most) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if least.is_set() && least.int() < 1 {
        least.invalid("must be greater than or equal to 1", &mut out);
    }
    match most.int() {
        0 => most.required("must be set and greater than 0", &mut out),
        number if number < 0 => most.invalid("must be greater than or equal to 1", &mut out),
        _ => {}
    }
    if least.is_set() && most.int() < least.int() {
        let detail = "must be greater than or equal to `minReplicas`";
        most.invalid_value(&most.int().into(), detail, &mut out);
    }
    let target = spec.field("scaleTargetRef");
    reference(&target, &mut out);
    let version = target.field("apiVersion");
    if !version.text().contains('/') {
        version.invalid_value(&version.text().into(), "apiVersion must specify API group", &mut out);
    }
    let metrics = spec.field("metrics");
    metrics.items().for_each(|metric| one_metric(&metric, &mut out));
    let from_outside =
        metrics.items().any(|metric| ["Object", "External"].contains(&metric.field("type").text()));
    if least.is_set() && least.int() == 0 && !from_outside {
        let detail =
            "must specify at least one Object or External metric to support scaling to zero replicas";
        metrics.forbidden(detail, &mut out);
    }
    for rules in ["scaleUp", "scaleDown"] {
        let rules = spec.field("behavior").field(rules);
        if rules.is_set() {
            scaling_rules(&rules, &mut out);
        }
    }
    out
}

fn reference(at: &At<'_>, out: &mut Causes) {
    const RULES: &[Rule] = &[
        Rule("kind", Check::RequiredText(names::path_segment)),
        Rule("name", Check::RequiredText(names::path_segment)),
    ];
    at.check(RULES, out);
    let version = at.field("apiVersion");
    if version.text().matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {}", version.text());
        version.invalid(detail, out);
    }
}

const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

fn one_metric(at: &At<'_>, out: &mut Causes) {
    let kind = at.field("type");
    if kind.is_empty() {
        kind.required("must specify a metric source type", out);
    }
    if !TYPES.contains(&kind.text()) {
        kind.unsupported(TYPES, out);
    }
    let present: Vec<_> = SOURCES.into_iter().filter(|(_, field)| at.has(field)).collect();
    if let Some(&(name, field)) = present.first() {
        source(name, &at.field(field), out);
    }
    let expected = SOURCES.into_iter().find(|(name, _)| *name == kind.text());
    if let Some((_, field)) = expected.filter(|(_, field)| !at.has(field)) {
        at.field(field).required("must populate information for the given metric source", out);
    }
    if present.len() != 1 {
        for (_, field) in present.into_iter().filter(|one| Some(*one) != expected) {
            at.field(field).forbidden("must populate the given metric source only", out);
        }
    }
}

fn source(kind: &str, at: &At<'_>, out: &mut Causes) {
    let target_at = at.field("target");
    let field = |name| target_at.field(name);
    if kind == "Object" {
        reference(&at.field("describedObject"), out);
    }
    match kind {
        "Object" | "External" | "Pods" => {
            let name = at.down(&["metric", "name"]);
            if name.is_empty() {
                name.required("must specify a metric name", out);
            } else {
                name.names(names::path_segment, out);
            }
        }
        _ => {
            let (name, container) = (at.field("name"), at.field("container"));
            if name.is_empty() {
                name.required("must specify a resource name", out);
            } else if kind == "ContainerResource" {
                resources::container_name(name.text(), &name, out);
            }
            if kind == "ContainerResource" {
                if container.is_empty() {
                    container.required("must specify a container", out);
                } else {
                    container.names(names::dns_label, out);
                }
            }
        }
    }
    target(&target_at, out);
    let (value, average, utilization) = (field("value"), field("averageValue"), field("averageUtilization"));
    match kind {
        "Object" if !value.is_set() && !average.is_set() => {
            average.required("must set either a target value or averageValue", out);
        }
        "External" if value.is_set() && average.is_set() => {
            value.forbidden("may not set both a target value for metric and a per-pod target", out);
        }
        "External" if !value.is_set() && !average.is_set() => {
            average.required("must set either a target value for metric or a per-pod target", out);
        }
        "Pods" if !average.is_set() => average.required("must specify a positive target averageValue", out),
        "Resource" | "ContainerResource" if utilization.is_set() && average.is_set() => {
            average.forbidden("may not set both a target raw value and a target utilization", out);
        }
        "Resource" | "ContainerResource" if !utilization.is_set() && !average.is_set() => {
            utilization.required("must set either a target raw value or a target utilization", out);
        }
        _ => {}
    }
}

fn target(at: &At<'_>, out: &mut Causes) {
    let kind = at.field("type");
    if kind.is_empty() {
        kind.required("must specify a metric target type", out);
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.text()) {
        let shown: Value = kind.text().into();
        kind.invalid_value(&shown, "must be either Utilization, Value, or AverageValue", out);
    }
    for field in ["value", "averageValue"] {
        let amount = at.field(field);
        if Quantity::of(amount.value()).is_some_and(|amount| !amount.is_positive()) {
            amount.invalid("must be positive", out);
        }
    }
    let utilization = at.field("averageUtilization");
    if utilization.is_set() && utilization.int() < 1 {
        utilization.invalid("must be greater than 0", out);
    }
}

fn scaling_rules(at: &At<'_>, out: &mut Causes) {
    let window = at.field("stabilizationWindowSeconds");
    if window.int() < 0 {
        window.invalid("must be greater than or equal to zero", out);
    }
    if window.int() > 3600 {
        window.invalid("must be less than or equal to 3600", out);
    }
    at.field("selectPolicy").one_of_if_set(&["Disabled", "Max", "Min"], out);
    let policies = at.field("policies");
    if policies.is_empty() {
        policies.required("must specify at least one Policy", out);
    }
    for policy in policies.items() {
        let (kind, value, seconds) =
            (policy.field("type"), policy.field("value"), policy.field("periodSeconds"));
        if !["Percent", "Pods"].contains(&kind.text()) {
            kind.unsupported(&["Percent", "Pods"], out);
        }
        for number in [&value, &seconds].iter().filter(|number| number.int() <= 0) {
            number.invalid_value(&number.int().into(), "must be greater than zero", out);
        }
        if seconds.int() > 1800 {
            seconds.invalid("must be less than or equal to 1800", out);
        }
    }
    let tolerance = at.field("tolerance");
    if let Some(amount) = Quantity::of(tolerance.value()).filter(|amount| amount.is_negative()) {
        let detail = "must be greater than or equal to 0";
        tolerance.invalid_value(&amount.to_string().into(), detail, out);
    }
}
