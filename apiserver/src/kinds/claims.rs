//! PersistentVolumeClaims, by themselves and as templates.

use serde_json::{Value, json};

use super::fill::{self, Fields, Fill, With, made};
use super::quantity::Quantity;
use super::validate::{At, Causes, Check, Path, Rule, labels, names, resources, same};
use super::{Kind, common, pod_spec, warnings};
use crate::object::Object;
use crate::status::Cause;

pub static KIND: Kind = Kind {
    default: |object| default_fields(&mut object.0),
    prepare_create: |object, _| {
        object.0.insert("status".to_owned(), json!({"phase": "Pending"}));
        sources(object);
    },
    prepare_update: |new, old, _| {
        common::keep(new, old, "status");
        sources(new);
    },
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        validate_spec(&At::root(object).field("spec"), &mut out);
        out
    },
    validate_update,
    validate_subresource: |subresource, new, _| {
        let mut out = Causes::new();
        if subresource == "status" {
            for (_, amount) in At::root(new).down(&["status", "capacity"]).entries() {
                if let Some(quantity) = Quantity::of(amount.value()).filter(|one| one.is_negative()) {
                    amount.invalid_value(
                        &quantity.value().into(),
                        "must be a valid resource quantity",
                        &mut out,
                    );
                }
            }
        }
        out
    },
    warn: |object| {
        let mut out = Vec::new();
        warnings::claim_spec(&At::root(object).field("spec"), &mut out);
        out
    },
    ..Kind::PLAIN
};

/// Of a claim or of a template of one within a StatefulSet.
pub fn default_fields(fields: &mut Fields) {
    const SPEC: &[Fill] = &[
        Fill("volumeMode", With::Text("Filesystem")),
        Fill("resources", With::Made(&[])),
        Fill("resources", With::By(pod_spec::resources)),
    ];
    fill::fill(made(fields, "spec"), SPEC);
    fill::fill(made(fields, "status"), &[Fill("phase", With::Text("Pending"))]);
}

/// `dataSource` and `dataSourceRef` say the same, whichever was given.
fn sources(object: &mut Object) {
    let spec = made(&mut object.0, "spec");
    let usable = |source: &Value| {
        let (kind, group) = (source["kind"].as_str(), source["apiGroup"].as_str().unwrap_or_default());
        kind == Some("PersistentVolumeClaim") && group.is_empty()
            || kind == Some("VolumeSnapshot") && group == "snapshot.storage.k8s.io"
    };
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) if source.is_object() => {
            if usable(&source) {
                spec.insert("dataSourceRef".to_owned(), source);
            } else {
                spec.remove("dataSource");
            }
        }
        (None, Some(Value::Object(mut source))) => {
            // Namespaces of sources are behind a gate that is closed by default.
            source.remove("namespace");
            spec.insert("dataSource".to_owned(), Value::Object(source));
        }
        _ => {}
    }
}

const ACCESS: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub fn validate_spec(spec: &At<'_>, out: &mut Causes) {
    let modes = spec.field("accessModes");
    if modes.is_empty() {
        modes.required("at least 1 access mode is required", out);
    }
    labels::selector(&spec.field("selector"), out);
    access_modes(&modes, out);
    let storage = spec.down(&["resources", "requests"]).key("storage");
    let storage = storage.shown_at(spec.path().field("resources").key("storage"));
    match Quantity::of(storage.value()) {
        None => storage.required("", out),
        Some(amount) if !amount.is_positive() => {
            storage.invalid_value(&amount.to_string().into(), "must be greater than zero", out);
        }
        Some(_) => resources::amount("storage", &storage, out),
    }
    const RULES: &[Rule] = &[
        Rule("storageClassName", Check::Text(names::dns_subdomain)),
        Rule("volumeMode", Check::OneOfIfSet(&["Block", "Filesystem"])),
        Rule("dataSource", Check::By(source)),
        Rule("dataSourceRef", Check::By(source)),
        Rule("volumeAttributesClassName", Check::Text(names::dns_subdomain)),
    ];
    spec.check(RULES, out);
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    if source.is_set() && reference.is_set() && !same(source.value(), reference.value()) {
        spec.invalid_value(&json!({}), "must match dataSourceRef", out);
    }
}

pub fn access_modes(modes: &At<'_>, out: &mut Causes) {
    let (mut alone, mut other) = (false, false);
    for mode in modes.items() {
        match mode.text() {
            "ReadWriteOncePod" => alone = true,
            text if ACCESS.contains(&text) => other = true,
            _ => mode.shown_at(modes.path()).unsupported(ACCESS, out),
        }
    }
    if alone && other {
        modes.forbidden("may not use ReadWriteOncePod with other access modes", out);
    }
}

fn source(at: &At<'_>, out: &mut Causes) {
    if !at.is_set() {
        return;
    }
    at.check(&[Rule("name", Check::Required), Rule("kind", Check::Required)], out);
    let (group, kind) = (at.field("apiGroup"), at.field("kind"));
    if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        at.invalid_value(&kind.text().into(), detail, out);
    }
    at.check(
        &[
            Rule("apiGroup", Check::Text(names::dns_subdomain)),
            Rule("namespace", Check::Text(names::dns_label)),
        ],
        out,
    );
}

fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    let mut out = Causes::new();
    let (root, before) = (At::root(new), At::root(old));
    let (spec, old_spec) = (root.field("spec"), before.field("spec"));
    validate_spec(&spec, &mut out);
    let (mut now, mut then) =
        (new.0.get("spec").cloned().unwrap_or_default(), old.0.get("spec").cloned().unwrap_or_default());
    if old_spec.field("volumeName").is_empty() {
        then["volumeName"] = now["volumeName"].clone();
    }
    let path = ["metadata", "annotations"];
    let (class, class_before) = (root.down(&path).key(CLASS), before.down(&path).key(CLASS));
    let named = spec.field("storageClassName");
    if named.is_set()
        && !old_spec.has("storageClassName")
        && (!class_before.is_set() || class_before.text() == named.text())
    {
        now["storageClassName"] = then["storageClassName"].clone();
    } else if class.text() != class_before.text() {
        let path = Path::of(&["metadata", "annotations"]).key(CLASS);
        class.shown_at(path).invalid_value(&class.text().into(), "field is immutable", &mut out);
    }
    let bound = new.text(&["status", "phase"]) == "Bound";
    if bound {
        {
            let (now, then) = (&mut now, &then);
            now["resources"]["requests"]["storage"] = then["resources"]["requests"]["storage"].clone();
            now["volumeAttributesClassName"] = then["volumeAttributesClassName"].clone();
        }
    }
    if !same(&now, &then) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        spec.forbidden(format_args!("{detail}\n{}", super::diff::text(&then, &now)), &mut out);
    }
    let amount = |at: At<'_>| Quantity::of(at.value()).or_else(|| Quantity::parse("0"));
    let size = amount(spec.down(&["resources", "requests", "storage"]));
    let capacity = amount(before.down(&["status", "capacity", "storage"]));
    if size < amount(old_spec.down(&["resources", "requests", "storage"])) && size <= capacity {
        spec.down(&["resources", "requests", "storage"])
            .forbidden("field can not be less than status.capacity", &mut out);
    }
    let mode = spec.field("volumeMode").shown_at(Path::of(&["volumeMode"]));
    mode.immutable(&old_spec.field("volumeMode"), &mut out);
    out
}
