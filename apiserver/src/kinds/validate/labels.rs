//! Labels and selectors over them. Source: apimachinery `pkg/apis/meta/v1/validation`.

use serde_json::{Map, Value};

use super::{At, Causes, names};

/// A map of labels: names and values.
pub fn labels(at: &At<'_>, out: &mut Causes) {
    for (key, value) in at.entries() {
        label_name(key, at, out);
        for detail in names::label_value(value.text()) {
            at.invalid_value(&value.text().into(), detail, out);
        }
    }
}

/// A label's name, told at `at`.
pub fn label_name(name: &str, at: &At<'_>, out: &mut Causes) {
    for detail in names::qualified(name) {
        at.invalid_value(&name.into(), detail, out);
    }
}

/// The keys of annotations, and how much they are together.
pub fn annotations(at: &At<'_>, out: &mut Causes) {
    const LIMIT: usize = 256 * 1024;
    let mut size = 0;
    for (key, value) in at.entries() {
        for detail in names::qualified(&key.to_lowercase()) {
            at.invalid_value(&key.into(), detail, out);
        }
        size += key.len() + value.len();
    }
    if size > LIMIT {
        at.too_long(LIMIT, out);
    }
}

/// A `LabelSelector`.
pub fn selector(at: &At<'_>, out: &mut Causes) {
    labels(&at.field("matchLabels"), out);
    at.field("matchExpressions").items().for_each(|item| requirement(&item, out));
}

fn requirement(at: &At<'_>, out: &mut Causes) {
    let values = at.field("values");
    match at.field("operator").text() {
        "In" | "NotIn" if values.is_empty() => {
            values.required("must be specified when `operator` is 'In' or 'NotIn'", out);
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'", out);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => at.field("operator").invalid_value(&other.into(), "not a valid selector operator", out),
    }
    label_name(at.field("key").text(), &at.field("key"), out);
    values.items().for_each(|value| value.names(names::label_value, out));
}

/// Whether a `LabelSelector` can be turned into one: its operators and values fit.
pub fn is_selector(at: &At<'_>) -> bool {
    let mut out = Causes::new();
    selector(at, &mut out);
    out.is_empty()
}

/// No condition at all.
pub fn is_empty(selector: &At<'_>) -> bool {
    selector.field("matchLabels").len() + selector.field("matchExpressions").len() == 0
}

/// Whether labels fulfil a `LabelSelector`; null selects nothing, an empty one everything.
pub fn matches(selector: &At<'_>, labels: Option<&Map<String, Value>>) -> bool {
    if !selector.is_set() {
        return false;
    }
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    selector.field("matchLabels").entries().all(|(key, value)| label(key) == Some(value.text()))
        && selector.field("matchExpressions").items().all(|expression| {
            let have = label(expression.field("key").text());
            let values = expression.field("values");
            let among = |have| values.texts().any(|value| value == have);
            match expression.field("operator").text() {
                "In" => have.is_some_and(among),
                "NotIn" => !have.is_some_and(among),
                "Exists" => have.is_some(),
                "DoesNotExist" => have.is_none(),
                _ => false,
            }
        })
}
