//! Kinds that make pods from a template.

pub mod cron_jobs;
pub mod daemon_sets;
pub mod deployments;
pub mod jobs;
pub mod replica_sets;
pub mod replication_controllers;
pub mod stateful_sets;

use serde_json::Value;

use super::fill::{Fields, Fill, With, fill};
use super::validate::{At, Causes, labels, names, pod};
use super::{pod_spec, warnings};
use crate::object::Object;

/// The template, wherever a workload's specification has it.
const TEMPLATE: Fill = Fill("template", With::Made(&[]));
const TEMPLATE_FIELDS: Fill = Fill("template", With::By(pod_spec::template));

/// Defaults of a specification with a template.
fn with_template(object: &mut Object, table: &[Fill]) {
    let spec = super::fill::made(&mut object.0, "spec");
    fill(spec, &[TEMPLATE, TEMPLATE_FIELDS]);
    fill(spec, table);
    super::fill::or_insert(&mut object.0, "status", Fields::new());
}

/// The selector must be there and select the template.
fn selector(spec: &At<'_>, what: &str, out: &mut Causes) {
    let selector = spec.field("selector");
    if !selector.is_set() {
        return selector.required("", out);
    }
    labels::selector(&selector, out);
    if labels::is_empty(&selector) {
        selector.invalid(format_args!("empty selector is invalid for {what}"), out);
    }
}

/// The template of what runs for ever: what the selector selects, restarted always, without an end.
fn template(spec: &At<'_>, kind: &str, out: &mut Causes) {
    let (template, selector) = (spec.field("template"), spec.field("selector"));
    if selector.is_set() && !labels::is_selector(&selector) {
        return selector.invalid("invalid label selector", out);
    }
    template_labels(&template, &selector, out);
    pod::template(&template, out);
    runs_for_ever(&template, kind, out);
}

fn template_labels(template: &At<'_>, selector: &At<'_>, out: &mut Causes) {
    let labels = template.down(&["metadata", "labels"]);
    let selects = !selector.is_set() || !labels::is_empty(selector);
    if selects && !labels::matches(selector, labels.map()) {
        labels.invalid("`selector` does not match template `labels`", out);
    }
}

fn runs_for_ever(template: &At<'_>, kind: &str, out: &mut Causes) {
    let policy = template.down(&["spec", "restartPolicy"]);
    if policy.text() != "Always" {
        policy.unsupported(&["Always"], out);
    }
    let deadline = template.down(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        deadline.forbidden(format_args!("activeDeadlineSeconds in {kind} is not Supported"), out);
    }
}

fn immutable(new: &Object, old: &Object, path: &[&'static str], out: &mut Causes) {
    At::root(new).down(path).immutable(&At::root(old).down(path), out);
}

/// A whole number that is not negative, or a percentage.
pub fn int_or_percent(at: &At<'_>, out: &mut Causes) {
    match at.value() {
        Value::String(_) => at.names(names::percent, out),
        _ => at.non_negative(out),
    }
}

fn percent_of(at: &At<'_>) -> Option<i64> {
    let digits = at.text().strip_suffix('%')?;
    names::percent(at.text()).is_empty().then(|| digits.parse().unwrap_or(i64::MAX))
}

/// The number of either.
fn amount(at: &At<'_>) -> i64 {
    percent_of(at).unwrap_or_else(|| at.int())
}

pub fn at_most_all(at: &At<'_>, out: &mut Causes) {
    if percent_of(at).is_some_and(|percent| percent > 100) {
        at.invalid("must not be greater than 100%", out);
    }
}

/// Fields of a status that are counts; some may not be more than another.
fn counts(
    status: &At<'_>,
    fields: &[&'static str],
    not_more: &[(&'static str, &'static str, &str)],
    out: &mut Causes,
) {
    for field in fields {
        let at = status.field(field);
        if at.is_set() {
            at.non_negative(out);
        }
    }
    for (less, more, message) in not_more {
        if status.field(less).int() > status.field(more).int() {
            status.field(less).invalid(message, out);
        }
    }
}

fn not_decremented(new: &Object, old: &Object, out: &mut Causes) {
    let path = ["status", "collisionCount"];
    let (root, before) = (At::root(new), At::root(old));
    let (at, before) = (root.down(&path), before.down(&path));
    if before.is_set() && at.int() < before.int() {
        at.invalid_value(&at.int().into(), "cannot be decremented", out);
    }
}

/// The name becomes part of the names of pods, which are host names.
fn name_warning(object: &Object, out: &mut Vec<String>) {
    let errors = names::dns_label(object.name());
    if !errors.is_empty() && !object.name().is_empty() {
        out.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]", errors.join(" ")));
    }
}

fn template_warnings(template: &At<'_>, out: &mut Vec<String>) {
    warnings::pod(&template.field("metadata"), &template.field("spec"), true, out);
}
