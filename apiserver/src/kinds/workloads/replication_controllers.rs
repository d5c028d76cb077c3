//! ReplicationControllers: their selector is a plain map and is taken from the template.

use serde_json::{Value, json};

use super::super::fill::{Fields, Fill, With, fill, has, made};
use super::super::validate::{At, Causes, Check, Rule, pod};
use super::super::{Kind, common, pod_spec};
use crate::object::Object;

pub static KIND: Kind = Kind {
    default,
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        spec(object, &mut out);
        out
    },
    validate_update: |new, _| {
        let mut out = Causes::new();
        spec(new, &mut out);
        out
    },
    validate_subresource: |subresource, new, _| super::replica_sets::status(subresource, new),
    warn: |object| {
        let mut out = Vec::new();
        super::name_warning(object, &mut out);
        super::template_warnings(&At::root(object).down(&["spec", "template"]), &mut out);
        out
    },
    field: |object, label| (label == "status.replicas").then(|| super::replica_sets::count(object)),
    counts_generations: true,
    ..Kind::PLAIN
};

fn default(object: &mut Object) {
    let spec = made(&mut object.0, "spec");
    fill(spec, &[Fill("replicas", With::Int(1)), Fill("template", With::By(pod_spec::template))]);
    let labels = spec
        .get("template")
        .and_then(|template| template.get("metadata"))
        .and_then(|meta| meta.get("labels"));
    let labels = labels.filter(|labels| labels.is_object()).cloned();
    let is_empty = |map: &Fields, name: &str| map.get(name).is_none_or(super::super::validate::is_empty);
    if let Some(labels) = labels {
        if is_empty(spec, "selector") {
            spec.insert("selector".to_owned(), labels.clone());
        }
        if is_empty(object.meta_mut(), "labels") {
            object.set_meta("labels", labels);
        }
    }
    if !has(&object.0, "status") {
        object.0.insert("status".to_owned(), json!({"replicas": 0}));
    }
}

fn spec(object: &Object, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    spec.check(&[Rule("minReadySeconds", Check::NonNegative), Rule("selector", Check::Required)], out);
    let replicas = spec.field("replicas");
    if replicas.is_set() {
        replicas.non_negative(out);
    } else {
        replicas.required("", out);
    }
    let template = spec.field("template");
    if !template.is_set() {
        return template.required("", out);
    }
    let labels = template.down(&["metadata", "labels"]);
    let label = |key: &str| labels.map().and_then(|map| map.get(key)).and_then(Value::as_str);
    if spec.field("selector").entries().any(|(key, value)| label(key) != Some(value.text())) {
        labels.invalid("`selector` does not match template `labels`", out);
    }
    pod::template(&template, out);
    super::runs_for_ever(&template, "ReplicationController", out);
}
