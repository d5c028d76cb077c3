//! Namespaces. Source: kubernetes `pkg/registry/core/namespace`.

use serde_json::{Value, json};

use super::fill::{Fill, With, fill, made};
use super::validate::{At, Causes, labels, names};
use super::{Kind, Preparing, common};
use crate::object::Object;
use crate::status::Cause;

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub static KIND: Kind = Kind {
    name: names::dns_label,
    default,
    prepare_create,
    prepare_update: |new, old, _| {
        keep_finalizers(new, old);
        common::keep(new, old, "status");
    },
    prepare_subresource: |subresource, new, old, _| match subresource {
        "status" => common::keep(new, old, "spec"),
        "finalize" => common::keep(new, old, "status"),
        _ => {}
    },
    validate: |object| finalizers(object, false),
    validate_subresource,
    field: |object, label| match label {
        "status.phase" => common::selected(object, &["status", "phase"]),
        "name" => Some(object.name().to_owned()),
        _ => None,
    },
    ..Kind::PLAIN
};

fn default(object: &mut Object) {
    let name = object.name().to_owned();
    if !name.is_empty() {
        made(object.meta_mut(), "labels").insert(NAME_LABEL.to_owned(), name.into());
    }
    fill(
        &mut object.0,
        &[Fill("spec", With::Object), Fill("status", With::Made(&[Fill("phase", With::Text("Active"))]))],
    );
}

fn prepare_create(object: &mut Object, _: &Preparing<'_>) {
    object.0.insert("status".to_owned(), json!({"phase": "Active"}));
    let spec = made(&mut object.0, "spec");
    let list = spec.entry("finalizers").or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|one| one == FINALIZER)
    {
        list.push(FINALIZER.into());
    }
}

fn keep_finalizers(new: &mut Object, old: &Object) {
    let before = old.get(&["spec", "finalizers"]).cloned();
    let spec = made(&mut new.0, "spec");
    match before {
        Some(list) => spec.insert("finalizers".to_owned(), list),
        None => spec.remove("finalizers"),
    };
}

fn finalizers(object: &Object, by_index: bool) -> Vec<Cause> {
    let mut out = Causes::new();
    let list = At::root(object);
    let list = list.down(&["spec", "finalizers"]);
    for item in list.items() {
        let at = if by_index { item } else { item.shown_at(list.path()) };
        labels::label_name(at.text(), &at, &mut out);
        if !at.text().contains('/') && ![FINALIZER, "orphan", "foregroundDeletion"].contains(&at.text()) {
            at.invalid("name is neither a standard finalizer name nor is it fully qualified", &mut out);
        }
    }
    out
}

fn validate_subresource(subresource: &str, new: &Object, _: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    match subresource {
        "finalize" => return finalizers(new, true),
        "status" => {
            let phase = At::root(new);
            let phase = phase.down(&["status", "phase"]);
            let (needed, detail) = match new.deletion_timestamp() {
                None => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
                Some(_) => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
            };
            if phase.text() != needed {
                let shown: Value = phase.text().into();
                phase
                    .shown_at(super::validate::Path::of(&["status", "Phase"]))
                    .invalid_value(&shown, detail, &mut out);
            }
        }
        _ => {}
    }
    out
}
