//! Where a pod may run: affinity, tolerations, spreading, gates.

use serde_json::Value;

use super::{At, Causes, Check, Rule, labels, names};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn affinity(at: &At<'_>, out: &mut Causes) {
    let node = at.field("nodeAffinity");
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, out);
    }
    for term in node.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term, out);
        node_selector_term(&term.field("preference"), false, out);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = at.field(kind);
        at.field("requiredDuringSchedulingIgnoredDuringExecution")
            .items()
            .for_each(|term| pod_term(&term, out));
        for term in at.field("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term, out);
            pod_term(&term.field("podAffinityTerm"), out);
        }
    }
}

fn weight(term: &At<'_>, out: &mut Causes) {
    let weight = term.field("weight");
    if !(1..=100).contains(&weight.int()) {
        weight.invalid_value(&weight.int().into(), "must be in the range 1-100", out);
    }
}

pub fn node_selector(at: &At<'_>, out: &mut Causes) {
    let terms = at.field("nodeSelectorTerms");
    if terms.is_empty() {
        return terms.required("must have at least one node selector term", out);
    }
    terms.items().for_each(|term| node_selector_term(&term, true, out));
}

fn node_selector_term(at: &At<'_>, strict: bool, out: &mut Causes) {
    for item in at.field("matchExpressions").items() {
        let (operator, values) = (item.field("operator"), item.field("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be specified when `operator` is 'In' or 'NotIn'", out);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'", out);
            }
            "Gt" | "Lt" if values.len() != 1 => {
                values.required("must be specified single value when `operator` is 'Lt' or 'Gt'", out);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => operator.invalid_value(&other.into(), "not a valid selector operator", out),
        }
        labels::label_name(item.field("key").text(), &item.field("key"), out);
        if strict {
            values.items().for_each(|value| value.names(names::label_value, out));
        }
    }
    for item in at.field("matchFields").items() {
        let (operator, values, key) = (item.field("operator"), item.field("values"), item.field("key"));
        match operator.text() {
            "In" | "NotIn" => {
                if values.len() != 1 {
                    let detail =
                        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    values.required(detail, out);
                }
            }
            other => operator.invalid_value(&other.into(), "not a valid selector operator", out),
        }
        if key.text() == "metadata.name" {
            values.items().for_each(|value| value.names(names::dns_subdomain, out));
        } else {
            key.invalid_value(&key.text().into(), "not a valid field selector key", out);
        }
    }
}

fn pod_term(at: &At<'_>, out: &mut Causes) {
    let selector = at.field("labelSelector");
    labels::selector(&selector, out);
    labels::selector(&at.field("namespaceSelector"), out);
    for namespace in at.field("namespaces").items() {
        namespace.shown_at(at.path().field("namespace")).names(names::dns_label, out);
    }
    label_keys(at, out);
    let key = at.field("topologyKey");
    if key.is_empty() {
        key.required("can not be empty", out);
    }
    labels::label_name(key.text(), &key, out);
}

fn label_keys(at: &At<'_>, out: &mut Causes) {
    let selector = at.field("labelSelector");
    let lists = ["matchLabelKeys", "mismatchLabelKeys"].map(|name| at.field(name));
    for list in &lists {
        if !list.is_empty() && !selector.is_set() {
            list.forbidden("must not be specified when labelSelector is not set", out);
            continue;
        }
        list.items().for_each(|key| labels::label_name(key.text(), &key, out));
    }
    let [matching, mismatching] = &lists;
    let mut known: Vec<&str> = selector.field("matchLabels").entries().map(|(key, _)| key).collect();
    for expression in selector.field("matchExpressions").items() {
        let key = expression.field("key").text();
        if let Some(index) = matching.texts().position(|one| one == key)
            && known.contains(&key)
        {
            let at = at.shown_at(at.path().index(index));
            at.invalid_value(&key.into(), "exists in both matchLabelKeys and labelSelector", out);
        }
        known.push(key);
    }
    for key in matching.items().filter(|key| mismatching.texts().any(|one| one == key.text())) {
        key.invalid("exists in both matchLabelKeys and mismatchLabelKeys", out);
    }
}

/// `path` to tell at (an annotation holds some, too).
pub fn tolerations(at: &At<'_>, out: &mut Causes) {
    for item in at.items() {
        let (key, operator, value) = (item.field("key"), item.field("operator"), item.field("value"));
        let effect = item.field("effect");
        if !key.is_empty() {
            labels::label_name(key.text(), &key, out);
        } else if operator.text() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid_value(&operator.text().into(), detail, out);
        }
        if item.has("tolerationSeconds") && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            effect.invalid_value(&effect.text().into(), detail, out);
        }
        match operator.text() {
            "Equal" | "" => {
                let errors = names::label_value(value.text());
                if !errors.is_empty() {
                    operator.invalid_value(&value.text().into(), errors.join(";"), out);
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    operator.invalid_value(
                        value.value(),
                        "value must be empty when `operator` is 'Exists'",
                        out,
                    );
                }
            }
            "Lt" | "Gt" => operator.unsupported(&["Equal", "Exists", "Lt", "Gt"], out),
            _ => operator.unsupported(&["Equal", "Exists"], out),
        }
        if !effect.is_empty() {
            effect.one_of(EFFECTS, out);
        }
    }
}

/// A node's.
pub fn taints(at: &At<'_>, out: &mut Causes) {
    let mut seen = Vec::new();
    for item in at.items() {
        let (key, value, effect) = (item.field("key"), item.field("value"), item.field("effect"));
        labels::label_name(key.text(), &key, out);
        let errors = names::label_value(value.text());
        if !errors.is_empty() {
            value.invalid(errors.join(";"), out);
        }
        effect.one_of(EFFECTS, out);
        let both = (key.text(), effect.text());
        if seen.contains(&both) {
            let text = |at: &At<'_>| Value::from(at.text());
            let (key, value, effect) = (text(&key), text(&value), text(&effect));
            let shape = [("Key", &key), ("Value", &value), ("Effect", &effect), ("TimeAdded", &Value::Null)];
            item.duplicate_shape(&shape, out);
            if let Some(cause) = out.last_mut() {
                cause.message += ": taints must be unique by key and effect pair";
            }
        }
        seen.push(both);
    }
}

pub fn spread_constraints(at: &At<'_>, out: &mut Causes) {
    const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    let items: Vec<_> = at.items().collect();
    for (index, item) in items.iter().enumerate() {
        positive(&item.field("maxSkew"), out);
        let key = item.field("topologyKey");
        if key.is_empty() {
            key.required("can not be empty", out);
        }
        let action = item.field("whenUnsatisfiable");
        if !ACTIONS.contains(&action.text()) {
            action.unsupported(ACTIONS, out);
        }
        let both = |item: &At<'_>| {
            format!("{{{}, {}}}", item.field("topologyKey").text(), item.field("whenUnsatisfiable").text())
        };
        if items[index + 1..].iter().any(|other| both(other) == both(item)) {
            item.field("{topologyKey, whenUnsatisfiable}").duplicate_value(&both(item).into(), out);
        }
        let domains = item.field("minDomains");
        if domains.is_set() {
            positive(&domains, out);
            if action.text() != "DoNotSchedule" {
                let detail = format_args!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    action.text()
                )
                .to_string();
                domains.invalid(detail, out);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            item.field(policy).one_of_if_set(&["Honor", "Ignore"], out);
        }
        label_keys(item, out);
        labels::selector(&item.field("labelSelector"), out);
    }
}

pub fn positive(at: &At<'_>, out: &mut Causes) {
    if at.int() <= 0 {
        at.invalid_value(&at.int().into(), "must be greater than zero", out);
    }
}

pub fn gates(at: &At<'_>, out: &mut Causes) {
    let mut seen = Vec::new();
    for item in at.items() {
        let name = item.field("name").text();
        labels::label_name(name, &item, out);
        if seen.contains(&name) {
            item.duplicate_value(&name.into(), out);
        }
        seen.push(name);
    }
}

pub const READINESS_GATE: &[Rule] =
    &[Rule("conditionType", Check::By(|at, out| labels::label_name(at.text(), at, out)))];
