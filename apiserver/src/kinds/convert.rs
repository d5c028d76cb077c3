//! Kinds that are stored in one version and served in two: HorizontalPodAutoscalers (`autoscaling/v1` and `v2`) and
//! Events (`v1` and `events.k8s.io/v1`). Source: kubernetes `pkg/apis/{autoscaling/v1,events/v1}/conversion.go`.

use serde_json::{Map, Value, json};

use crate::object::Object;

/// Whether objects of a kind differ between their versions by more than the name of the version.
pub fn is_needed(group: &str, kind: &str) -> bool {
    matches!((group, kind), ("autoscaling", "HorizontalPodAutoscaler") | ("" | "events.k8s.io", "Event"))
}

/// An object in another version that it is served in.
pub fn convert(object: &mut Object, to: &str) {
    let from = object.api_version().to_owned();
    if from == to {
        return;
    }
    match (object.kind(), &*from, to) {
        ("HorizontalPodAutoscaler", "autoscaling/v1", "autoscaling/v2") => autoscaler_to_v2(object),
        ("HorizontalPodAutoscaler", "autoscaling/v2", "autoscaling/v1") => autoscaler_to_v1(object),
        ("Event", "v1", "events.k8s.io/v1") => rename(object, |(core, event)| (core, event)),
        ("Event", "events.k8s.io/v1", "v1") => rename(object, |(core, event)| (event, core)),
        _ => {}
    }
    object.0.insert("apiVersion".to_owned(), to.into());
}

type Names = (&'static str, &'static str);

/// In `v1` and in `events.k8s.io/v1`.
const EVENT: [Names; 7] = [
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("message", "note"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Object, order: fn(Names) -> Names) {
    for (from, to) in EVENT.map(order) {
        if let Some(value) = object.0.remove(from) {
            object.0.insert(to.to_owned(), value);
        }
    }
}

/// What v1 has no field for lies in annotations: the field, where it is, and the annotation.
const SPEC: [(&str, &str); 2] = [
    ("metrics", "autoscaling.alpha.kubernetes.io/metrics"),
    ("behavior", "autoscaling.alpha.kubernetes.io/behavior"),
];
const STATUS: [(&str, &str); 2] = [
    ("currentMetrics", "autoscaling.alpha.kubernetes.io/current-metrics"),
    ("conditions", "autoscaling.alpha.kubernetes.io/conditions"),
];

fn part<'o>(object: &'o mut Object, name: &str) -> &'o mut Map<String, Value> {
    super::fill::made(&mut object.0, name)
}

/// The share of the CPU that a metric aims at; v1 has a field for that.
fn cpu_share(metric: &Value, inner: &str) -> Option<Value> {
    let is = metric["type"] == "Resource" && metric["resource"]["name"] == "cpu";
    metric["resource"][inner].get("averageUtilization").filter(|share| is && !share.is_null()).cloned()
}

fn autoscaler_to_v1(object: &mut Object) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    let spec = part(object, "spec");
    if let Some(Value::Array(metrics)) = spec.remove("metrics") {
        let (shares, others): (Vec<Value>, Vec<Value>) =
            metrics.into_iter().partition(|metric| cpu_share(metric, "target").is_some());
        if let Some(share) = shares.last().and_then(|metric| cpu_share(metric, "target")) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), share);
        }
        if !others.is_empty() {
            notes.push((SPEC[0].1, others.iter().map(metric_to_v1).collect()));
        }
    }
    if let Some(behavior) = spec.remove("behavior") {
        notes.push((SPEC[1].1, go_behavior(&behavior)));
    }
    let status = part(object, "status");
    if let Some(Value::Array(metrics)) = status.remove("currentMetrics") {
        let share = metrics.iter().rev().find_map(|metric| cpu_share(metric, "current"));
        if let Some(share) = share {
            status.insert("currentCPUUtilizationPercentage".to_owned(), share);
        }
        if !metrics.is_empty() {
            notes.push((STATUS[0].1, metrics.iter().map(status_to_v1).collect()));
        }
    }
    if let Some(conditions) = status.remove("conditions").filter(|list| !super::validate::is_empty(list)) {
        notes.push((STATUS[1].1, conditions));
    }
    if notes.is_empty() {
        return;
    }
    let annotations = super::fill::made(object.meta_mut(), "annotations");
    for (key, value) in notes {
        annotations.insert(key.to_owned(), value.to_string().into());
    }
}

fn autoscaler_to_v2(object: &mut Object) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(annotations) = object.meta_mut().get_mut("annotations").and_then(Value::as_object_mut) {
        for (field, key) in SPEC.into_iter().chain(STATUS) {
            let value = annotations.remove(key).and_then(|text| serde_json::from_str(text.as_str()?).ok());
            notes.extend(value.map(|value| (field, value)));
        }
        if annotations.is_empty() {
            object.meta_mut().remove("annotations");
        }
    }
    let take = |notes: &mut Vec<(&str, Value)>, field: &str| {
        let at = notes.iter().position(|(name, _)| *name == field)?;
        Some(notes.swap_remove(at).1)
    };
    let (others, behavior) = (take(&mut notes, "metrics"), take(&mut notes, "behavior"));
    let (current, conditions) = (take(&mut notes, "currentMetrics"), take(&mut notes, "conditions"));
    let spec = part(object, "spec");
    let mut metrics: Vec<Value> =
        others.iter().filter_map(Value::as_array).flatten().map(metric_to_v2).collect();
    if let Some(share) = spec.remove("targetCPUUtilizationPercentage").filter(|share| !share.is_null()) {
        metrics.push(by_share(share));
    }
    if metrics.is_empty() {
        metrics.push(by_share(80.into()));
    }
    spec.insert("metrics".to_owned(), metrics.into());
    if let Some(behavior) = behavior.filter(|behavior| !super::validate::is_empty(behavior)) {
        spec.insert("behavior".to_owned(), json_behavior(&behavior));
    }
    let status = part(object, "status");
    let share = status.remove("currentCPUUtilizationPercentage").filter(|share| !share.is_null());
    if let Some(current) = current {
        let list: Vec<Value> = current.as_array().into_iter().flatten().map(status_to_v2).collect();
        status.insert("currentMetrics".to_owned(), list.into());
    } else if let Some(share) = share {
        let current = json!({"averageUtilization": share, "averageValue": "0"});
        let metric = json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]);
        status.insert("currentMetrics".to_owned(), metric);
    }
    if let Some(conditions) = conditions {
        status.insert("conditions".to_owned(), conditions);
    }
}

fn by_share(share: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": share});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// Where the sources of metrics have their parts in v1: `(source, of the target's value, of its average)`.
const METRICS: [(&str, &str, &str); 5] = [
    ("object", "targetValue", "averageValue"),
    ("pods", "", "targetAverageValue"),
    ("resource", "", "targetAverageValue"),
    ("containerResource", "", "targetAverageValue"),
    ("external", "targetValue", "targetAverageValue"),
];

fn metric_to_v1(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, value, average) in METRICS {
        let Some(from) = metric.get(source).and_then(Value::as_object) else { continue };
        let target = &from["target"];
        let mut to = Map::new();
        let mut set = |key: &str, value: Option<&Value>| {
            if let Some(value) = value.filter(|value| !value.is_null() && !key.is_empty()) {
                to.insert(key.to_owned(), value.clone());
            }
        };
        set("name", from.get("name"));
        set("container", from.get("container"));
        let named = from.get("metric");
        set("metricName", named.and_then(|metric| metric.get("name")));
        let selector = named.and_then(|metric| metric.get("selector"));
        set(if source == "external" { "metricSelector" } else { "selector" }, selector);
        set("target", from.get("describedObject"));
        set(value, target.get("value"));
        set(average, target.get("averageValue"));
        set("targetAverageUtilization", target.get("averageUtilization"));
        out[source] = Value::Object(to);
    }
    out
}

fn metric_to_v2(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, value, average) in METRICS {
        let Some(from) = metric.get(source).and_then(Value::as_object) else { continue };
        let mut target = Map::new();
        let field = |key: &str| from.get(key).filter(|value| !value.is_null() && !key.is_empty()).cloned();
        let share = field("targetAverageUtilization");
        let is_zero = |amount: &Value| {
            super::quantity::Quantity::of(amount).is_none_or(super::quantity::Quantity::is_zero)
        };
        let kind = match (
            &share,
            field(value).filter(|value| !is_zero(value) || source != "object"),
            field(average),
        ) {
            (Some(_), ..) => "Utilization",
            (_, Some(_), None) => "Value",
            _ => "AverageValue",
        };
        target.insert("type".to_owned(), kind.into());
        let amounts =
            [("averageUtilization", share), ("value", field(value)), ("averageValue", field(average))];
        target.extend(amounts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        let mut to = Map::from_iter([("target".to_owned(), Value::Object(target))]);
        if let Some(name) = field("metricName") {
            let mut metric = json!({"name": name});
            if let Some(selector) = field("selector").or_else(|| field("metricSelector")) {
                metric["selector"] = selector;
            }
            to.insert("metric".to_owned(), metric);
        }
        let kept = [
            ("name", field("name")),
            ("container", field("container")),
            ("describedObject", field("target")),
        ];
        to.extend(kept.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        out[source] = Value::Object(to);
    }
    out
}

/// In v1 what is, is named `current...`.
fn status_to_v1(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, value, average) in METRICS {
        let Some(from) = metric.get(source).and_then(Value::as_object) else { continue };
        let current = &from["current"];
        let mut to = Map::new();
        let mut set = |key: String, value: Option<&Value>| {
            if let Some(value) = value.filter(|value| !value.is_null()) {
                to.insert(key, value.clone());
            }
        };
        for key in ["name", "container"] {
            set(key.to_owned(), from.get(key));
        }
        set("metricName".to_owned(), from.get("metric").and_then(|metric| metric.get("name")));
        set("target".to_owned(), from.get("describedObject"));
        if !value.is_empty() {
            set("currentValue".to_owned(), current.get("value"));
        }
        set(average.replace("target", "current"), current.get("averageValue"));
        set("currentAverageUtilization".to_owned(), current.get("averageUtilization"));
        out[source] = Value::Object(to);
    }
    out
}

fn status_to_v2(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (source, _, average) in METRICS {
        let Some(from) = metric.get(source).and_then(Value::as_object) else { continue };
        let field = |key: &str| from.get(key).filter(|value| !value.is_null()).cloned();
        let mut current = Map::new();
        let amounts = [
            ("value", field("currentValue")),
            ("averageValue", field(&average.replace("target", "current"))),
            ("averageUtilization", field("currentAverageUtilization")),
        ];
        current.extend(amounts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        let mut to = Map::from_iter([("current".to_owned(), Value::Object(current))]);
        let kept = [
            ("name", field("name")),
            ("container", field("container")),
            ("describedObject", field("target")),
        ];
        to.extend(kept.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        if let Some(name) = field("metricName") {
            to.insert("metric".to_owned(), json!({"name": name}));
        }
        out[source] = Value::Object(to);
    }
    out
}

/// Upstream writes its own type, whose fields have their Go names.
fn go_behavior(behavior: &Value) -> Value {
    renamed(behavior, |key| {
        let mut letters = key.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    })
}

fn json_behavior(behavior: &Value) -> Value {
    renamed(behavior, |key| {
        let mut letters = key.chars();
        letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
    })
}

fn renamed(value: &Value, name: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(key, value)| (name(key), renamed(value, name))).collect())
        }
        Value::Array(list) => list.iter().map(|value| renamed(value, name)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> Object {
        Object::of(value).expect("an object")
    }

    #[test]
    fn an_autoscaler_survives_the_way_through_v1() {
        let v2 = of(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "scaleTargetRef": {"kind": "Deployment", "name": "a"},
                "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
            },
            "status": {"conditions": [{"type": "AbleToScale", "status": "True"}]},
        }));
        let mut object = v2.clone();
        convert(&mut object, "autoscaling/v1");
        assert_eq!(object.get(&["spec", "targetCPUUtilizationPercentage"]), Some(&json!(50)));
        assert_eq!(object.annotations().map(serde_json::Map::len), Some(3));
        convert(&mut object, "autoscaling/v2");
        assert_eq!(object, v2);
    }

    #[test]
    fn an_event_has_other_names_in_its_own_group() {
        let core = of(
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {}, "involvedObject": {"name": "a"}, "message": "m", "count": 1}),
        );
        let mut object = core.clone();
        convert(&mut object, "events.k8s.io/v1");
        assert_eq!(object.text(&["note"]), "m");
        assert_eq!(object.text(&["regarding", "name"]), "a");
        convert(&mut object, "v1");
        assert_eq!(object, core);
    }
}
