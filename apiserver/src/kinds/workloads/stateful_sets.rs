//! StatefulSets. Their claims are volumes of their pods.

use serde_json::{Value, json};

use super::super::fill::{Fill, With, fill, items, made, or_insert, text};
use super::super::validate::{At, Causes, Check, Path, Rule, labels, names, pod, same};
use super::super::{Kind, claims, common, warnings};
use crate::object::Object;
use crate::status::Cause;

pub static KIND: Kind = Kind {
    name: names::dns_label,
    default,
    prepare_create: common::without_status,
    prepare_update: common::keep_status,
    prepare_subresource: common::only_status,
    validate: |object| {
        let mut out = Causes::new();
        spec(object, true, &mut out);
        out
    },
    validate_update,
    validate_subresource,
    warn,
    counts_generations: true,
    ..Kind::PLAIN
};

const DEFAULTS: &[Fill] = &[
    Fill("podManagementPolicy", With::Text("OrderedReady")),
    Fill(
        "persistentVolumeClaimRetentionPolicy",
        With::Made(&[Fill("whenDeleted", With::Text("Retain")), Fill("whenScaled", With::Text("Retain"))]),
    ),
    Fill("replicas", With::Int(1)),
    Fill("revisionHistoryLimit", With::Int(10)),
];

fn default(object: &mut Object) {
    super::with_template(object, DEFAULTS);
    let spec = made(&mut object.0, "spec");
    let strategy = made(spec, "updateStrategy");
    if text(strategy, "type").is_empty() {
        fill(strategy, &[Fill("type", With::Text("RollingUpdate")), Fill("rollingUpdate", With::Object)]);
    }
    if text(strategy, "type") == "RollingUpdate" {
        fill(strategy, &[Fill("rollingUpdate", With::In(&[Fill("partition", With::Int(0))]))]);
    }
    for claim in items(spec, "volumeClaimTemplates") {
        or_insert(claim, "kind", "PersistentVolumeClaim");
        or_insert(claim, "apiVersion", "v1");
        or_insert(claim, "metadata", json!({}));
        claims::default_fields(claim);
    }
}

fn spec(object: &Object, is_new: bool, out: &mut Causes) {
    let root = At::root(object);
    let spec = root.field("spec");
    let policy = spec.field("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy.text()) {
        policy.invalid("must be 'OrderedReady' or 'Parallel'", out);
    }
    strategy(&spec.field("updateStrategy"), out);
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.field(field).one_of_if_set(&["Retain", "Delete"], out);
    }
    if is_new {
        for claim in spec.field("volumeClaimTemplates").items() {
            claims::validate_spec(&claim.field("spec"), out);
        }
    }
    spec.check(&[Rule("replicas", Check::NonNegative), Rule("minReadySeconds", Check::NonNegative)], out);
    let start = spec.down(&["ordinals", "start"]);
    start.shown_at(spec.path().field("ordinals.start")).non_negative(out);
    if is_new {
        spec.check(&[Rule("serviceName", Check::Text(names::dns_label))], out);
    }
    super::selector(&spec, "statefulset", out);
    template(&spec, out);
}

fn template(spec: &At<'_>, out: &mut Causes) {
    let (template, selector) = (spec.field("template"), spec.field("selector"));
    if selector.is_set() && !labels::is_selector(&selector) {
        selector.invalid("", out);
    } else {
        super::template_labels(&template, &selector, out);
        let with_claims = with_claims(spec, &template);
        let at = At::value_at(&with_claims, Path::of(&["spec", "template"]));
        pod::template(&at, out);
        let meta = template.field("metadata");
        labels::labels(&meta.field("labels").shown_at(template.path().field("labels")), out);
        let annotations = meta.field("annotations").shown_at(template.path().field("annotations"));
        labels::annotations(&annotations, out);
    }
    super::runs_for_ever(&template, "StatefulSet", out);
}

/// The template as its pods will be: the claims are volumes, and the names are the set's to give.
fn with_claims(spec: &At<'_>, template: &At<'_>) -> Value {
    let mut template = template.value().clone();
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else { return template };
    pod.remove("subdomain");
    pod.remove("hostname");
    let claims = spec.field("volumeClaimTemplates");
    let names: Vec<&str> = claims.items().map(|claim| claim.down(&["metadata", "name"]).text()).collect();
    let mut volumes: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let own = pod.get("volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.extend(own.filter(|one| !names.iter().any(|name| one["name"] == **name)).cloned());
    pod.insert("volumes".to_owned(), volumes.into());
    template
}

fn strategy(at: &At<'_>, out: &mut Causes) {
    let rolling = at.field("rollingUpdate");
    match at.field("type").text() {
        "OnDelete" => {
            if rolling.is_set() {
                let partition = rolling.field("partition").int().into();
                let shape =
                    [("Partition", &partition), ("MaxUnavailable", rolling.field("maxUnavailable").value())];
                rolling.invalid_shape(&shape, "only allowed for updateStrategy 'RollingUpdate'", out);
            }
        }
        "RollingUpdate" => {
            rolling.check(&[Rule("partition", Check::NonNegative)], out);
            let most = rolling.field("maxUnavailable");
            if most.is_set() {
                super::int_or_percent(&most, out);
                if super::amount(&most) == 0 {
                    most.invalid("cannot be 0", out);
                }
                super::at_most_all(&most, out);
            }
        }
        other => {
            let kind = other.into();
            let shape = [("Type", &kind), ("RollingUpdate", &Value::Null)];
            at.invalid_shape(&shape, "must be 'RollingUpdate' or 'OnDelete'", out);
        }
    }
}

fn validate_update(new: &Object, old: &Object) -> Vec<Cause> {
    const CHANGEABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let mut out = Causes::new();
    spec(new, false, &mut out);
    let kept = |object: &Object| {
        let mut spec = object.0.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
        spec.retain(|key, _| !CHANGEABLE.contains(&&**key));
        Value::Object(spec)
    };
    if !same(&kept(new), &kept(old)) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        At::root(new).field("spec").forbidden(detail, &mut out);
    }
    out
}

fn validate_subresource(subresource: &str, new: &Object, old: &Object) -> Vec<Cause> {
    let mut out = Causes::new();
    if subresource == "status" {
        const MORE: &str = "cannot be greater than status.replicas";
        let fields = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ];
        let not_more = [
            ("readyReplicas", "replicas", MORE),
            ("currentReplicas", "replicas", MORE),
            ("updatedReplicas", "replicas", MORE),
            ("availableReplicas", "replicas", MORE),
            ("availableReplicas", "readyReplicas", "cannot be greater than status.readyReplicas"),
        ];
        super::counts(&At::root(new).field("status"), &fields, &not_more, &mut out);
        super::not_decremented(new, old, &mut out);
    }
    out
}

fn warn(object: &Object) -> Vec<String> {
    let mut out = Vec::new();
    let root = At::root(object);
    let spec = root.field("spec");
    super::template_warnings(&spec.field("template"), &mut out);
    for claim in spec.field("volumeClaimTemplates").items() {
        warnings::claim_spec(&claim.field("spec").shown_at(claim.path()), &mut out);
    }
    if spec.field("revisionHistoryLimit").int() < 0 {
        out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
    }
    out
}
