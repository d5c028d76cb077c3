//! DaemonSets. They count changes of their template in an annotation.

use serde_json::Value;

use super::super::fill::{Fill, With, fill, made, text};
use super::super::validate::{At, Causes, Check, Rule, labels, pod, same};
use super::super::{Kind, Preparing, common};
use crate::object::Object;
use crate::status::Cause;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub static KIND: Kind = Kind {
    default,
    prepare_create: |object, preparing| {
        common::without_status(object, preparing);
        let generation = generation(object).max(1);
        set_generation(object, generation);
    },
    prepare_update,
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        spec(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        super::immutable(new, old, &["spec", "selector"], &mut out);
        spec(new, &mut out);
        out
    },
    validate_subresource,
    warn: |object| {
        let mut out = Vec::new();
        super::template_warnings(&At::root(object).down(&["spec", "template"]), &mut out);
        out
    },
    counts_generations: true,
    ..Kind::PLAIN
};

fn default(object: &mut Object) {
    super::with_template(object, &[Fill("revisionHistoryLimit", With::Int(10))]);
    let strategy = made(made(&mut object.0, "spec"), "updateStrategy");
    fill(strategy, &[Fill("type", With::Text("RollingUpdate"))]);
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = made(strategy, "rollingUpdate");
        fill(rolling, &[Fill("maxUnavailable", With::Int(1)), Fill("maxSurge", With::Int(0))]);
    }
}

fn generation(object: &Object) -> i64 {
    let annotation = object.annotations().and_then(|map| map.get(TEMPLATE_GENERATION));
    annotation.and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_generation(object: &mut Object, generation: i64) {
    made(object.meta_mut(), "annotations")
        .insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
}

fn prepare_update(new: &mut Object, old: &Object, preparing: &Preparing<'_>) {
    common::keep_status(new, old, preparing);
    let null = Value::Null;
    let template = |object: &Object| object.get(&["spec", "template"]).unwrap_or(&null).clone();
    let changed = !same(&template(new), &template(old));
    let before = generation(old);
    if before > 0 || changed {
        set_generation(new, before + i64::from(changed));
    }
}

fn spec(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    let (selector, template) = (spec.field("selector"), spec.field("template"));
    labels::selector(&selector, out);
    let of_template = template.down(&["metadata", "labels"]);
    let matches = labels::matches(&selector, of_template.map());
    if labels::is_selector(&selector) && !matches {
        of_template.invalid("`selector` does not match template `labels`", out);
    }
    if selector.is_set() && labels::is_empty(&selector) {
        selector.invalid("empty selector is invalid for daemonset", out);
    }
    pod::template(&template, out);
    super::runs_for_ever(&template, "DaemonSet", out);
    spec.check(&[Rule("minReadySeconds", Check::NonNegative)], out);
    strategy(&spec.field("updateStrategy"), out);
    spec.check(&[Rule("revisionHistoryLimit", Check::NonNegative)], out);
}

fn strategy(at: &At<'_>, out: &mut Causes) {
    match at.field("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = at.field("rollingUpdate");
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            super::int_or_percent(&unavailable, out);
            super::int_or_percent(&surge, out);
            super::at_most_all(&unavailable, out);
            super::at_most_all(&surge, out);
            match (super::amount(&unavailable) != 0, super::amount(&surge) != 0) {
                (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero", out),
                (false, false) => unavailable.required("cannot be 0 when maxSurge is 0", out),
                _ => {}
            }
        }
        _ => {
            let shape = [("Type", at.field("type").value()), ("RollingUpdate", &Value::Null)];
            at.unsupported_shape(&shape, &["RollingUpdate", "OnDelete"], out);
        }
    }
}

fn validate_subresource(subresource: &str, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    if subresource == "status" {
        let fields = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        super::counts(&At::root(new).field("status"), &fields, &[], &mut out);
        super::not_decremented(new, old, &mut out);
    }
    out
}
