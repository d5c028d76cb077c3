//! ReplicaSets.

use super::super::fill::{Fill, With};
use super::super::validate::{At, Causes, Check, Rule};
use super::super::{Kind, common};
use crate::object::Object;
use crate::status::Cause;

pub static KIND: Kind = Kind {
    default: |object| super::with_template(object, &[Fill("replicas", With::Int(1))]),
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
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
    validate_subresource: |subresource, new, _| status(subresource, new),
    warn: |object| {
        let mut out = Vec::new();
        super::name_warning(object, &mut out);
        super::template_warnings(&At::root(object).down(&["spec", "template"]), &mut out);
        out
    },
    field: |object, label| (label == "status.replicas").then(|| count(object)),
    counts_generations: true,
    ..Kind::PLAIN
};

/// A selectable number.
pub fn count(object: &Object) -> String {
    At::root(object).down(&["status", "replicas"]).int().to_string()
}

fn spec(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    spec.check(&[Rule("replicas", Check::NonNegative), Rule("minReadySeconds", Check::NonNegative)], out);
    super::selector(&spec, "deployment", out);
    super::template(&spec, "ReplicaSet", out);
}

pub fn status(subresource: &str, new: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    if subresource == "status" {
        const MORE: &str = "cannot be greater than status.replicas";
        let fields = [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ];
        let not_more = [
            ("fullyLabeledReplicas", "replicas", MORE),
            ("readyReplicas", "replicas", MORE),
            ("availableReplicas", "replicas", MORE),
            ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
        ];
        super::counts(&At::root(new).field("status"), &fields, &not_more, &mut out);
    }
    out
}
