//! Deployments. Source: kubernetes `pkg/apis/apps`, `pkg/registry/apps/deployment`.

use serde_json::Value;

use super::super::fill::{Fill, With, fill, made, or_insert, text};
use super::super::validate::{At, Causes, Check, Path, Rule, same};
use super::super::{Kind, common};
use crate::object::Object;
use crate::status::Cause;

pub static KIND: Kind = Kind {
    default,
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: |subresource, new, old, preparing| {
        common::only_status(subresource, new, old, preparing);
        if subresource == "status" {
            common::keep_meta(new, old, "labels");
        }
    },
    validate: |object| {
        let mut out = Causes::new();
        spec(object, &mut out);
        out
    },
    validate_update: |new, old| {
        let mut out = Causes::new();
        spec(new, &mut out);
        super::immutable(new, old, &["spec", "selector"], &mut out);
        out
    },
    validate_subresource,
    warn: |object| {
        let mut out = Vec::new();
        super::name_warning(object, &mut out);
        super::template_warnings(&At::root(object).down(&["spec", "template"]), &mut out);
        out
    },
    counts_generations: true,
    also_counts: |new, old| {
        let of = |object: &Object| object.annotations().cloned().map_or(Value::Null, Value::Object);
        !same(&of(new), &of(old))
    },
    ..Kind::PLAIN
};

const DEFAULTS: &[Fill] = &[
    Fill("replicas", With::Int(1)),
    Fill("revisionHistoryLimit", With::Int(10)),
    Fill("progressDeadlineSeconds", With::Int(600)),
];

fn default(object: &mut Object) {
    super::with_template(object, DEFAULTS);
    let strategy = made(made(&mut object.0, "spec"), "strategy");
    fill(strategy, &[Fill("type", With::Text("RollingUpdate"))]);
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = made(strategy, "rollingUpdate");
        or_insert(rolling, "maxUnavailable", "25%");
        or_insert(rolling, "maxSurge", "25%");
    }
}

fn spec(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    spec.check(&[Rule("replicas", Check::NonNegative)], out);
    super::selector(&spec, "deployment", out);
    super::template(&spec, "ReplicaSet", out);
    strategy(&spec.field("strategy"), out);
    spec.check(
        &[Rule("minReadySeconds", Check::NonNegative), Rule("revisionHistoryLimit", Check::NonNegative)],
        out,
    );
    let deadline = spec.field("progressDeadlineSeconds");
    if deadline.is_set() {
        deadline.non_negative(out);
        if deadline.int() <= spec.field("minReadySeconds").int() {
            deadline.invalid("must be greater than minReadySeconds", out);
        }
    }
}

fn strategy(at: &At<'_>, out: &mut Causes) {
    let rolling = at.field("rollingUpdate");
    match at.field("type").text() {
        "Recreate" => {
            if rolling.is_set() {
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'", out);
            }
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            super::int_or_percent(&unavailable, out);
            super::int_or_percent(&surge, out);
            if super::amount(&unavailable) == 0 && super::amount(&surge) == 0 {
                unavailable.invalid("may not be 0 when `maxSurge` is 0", out);
            }
            super::at_most_all(&unavailable, out);
        }
        _ => {
            let shape = [("Type", at.field("type").value()), ("RollingUpdate", &Value::Null)];
            at.unsupported_shape(&shape, &["Recreate", "RollingUpdate"], out);
        }
    }
}

fn validate_subresource(subresource: &str, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    if subresource == "status" {
        const MORE: &str = "cannot be greater than status.replicas";
        let status = At::root(new).field("status").shown_at(Path::of(&["status"]));
        let fields = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ];
        let not_more = [
            ("updatedReplicas", "replicas", MORE),
            ("readyReplicas", "replicas", MORE),
            ("availableReplicas", "replicas", MORE),
            ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
        ];
        super::counts(&status, &fields, &not_more, &mut out);
        super::not_decremented(new, old, &mut out);
    }
    out
}
