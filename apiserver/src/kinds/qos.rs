//! The class of service of a pod. Source: kubernetes `pkg/apis/core/v1/helper/qos`.

use serde_json::Value;

use super::quantity::Quantity;
use crate::object::Object;

const COUNTED: [&str; 2] = ["cpu", "memory"];

pub fn class(pod: &Object) -> &'static str {
    let Some(spec) = pod.0.get("spec") else { return "BestEffort" };
    let own = &spec["resources"];
    let all: Vec<&Value> = if own["requests"].is_object() || own["limits"].is_object() {
        vec![own]
    } else {
        let lists = ["containers", "initContainers"].iter().filter_map(|list| spec[list].as_array());
        lists.flatten().map(|container| &container["resources"]).collect()
    };
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut guaranteed = true;
    for resources in all {
        requests.extend(amounts(&resources["requests"]));
        let found = amounts(&resources["limits"]);
        guaranteed &= COUNTED.iter().all(|name| found.iter().any(|(one, _)| one == name));
        limits.extend(found);
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let sums = |list: &[(&'static str, Quantity)], name: &str| {
        list.iter().filter(|(one, _)| *one == name).map(|(_, amount)| *amount).reduce(Quantity::plus)
    };
    let equal = COUNTED.iter().all(|name| {
        let request = sums(&requests, name);
        request.is_none_or(|request| sums(&limits, name) == Some(request))
    });
    let count =
        |list: &[(&'static str, Quantity)]| COUNTED.iter().filter(|name| sums(list, name).is_some()).count();
    if guaranteed && equal && count(&requests) == count(&limits) { "Guaranteed" } else { "Burstable" }
}

/// Those that count and are more than nothing.
fn amounts(list: &Value) -> Vec<(&'static str, Quantity)> {
    let amount = |name: &'static str| {
        Some((name, Quantity::of(list.get(name)?)?)).filter(|(_, amount)| amount.is_positive())
    };
    COUNTED.into_iter().filter_map(amount).collect()
}
