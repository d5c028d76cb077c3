//! What a pod or claim may ask for in its namespace, and what it gets where it does not.
//! Source: kubernetes `plugin/pkg/admission/limitranger`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use corten_schema::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::{Context, Plugin, pods};
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "LimitRanger",
    on_by_default: true,
    resources: &[("", "pods"), ("", "persistentvolumeclaims")],
    mutate: Some(|context, review| Box::pin(mutate(context, review))),
    validate: Some(|context, review| Box::pin(validate(context, review))),
};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;

/// The limits of a namespace, if they say anything about this change.
async fn limits(context: &Context, review: &Review) -> Result<Vec<Value>> {
    let pod = review.is_of("", "pods");
    let looked_at = match (review.operation, &*review.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") => !pod,
        (Operation::Update, "resize") => pod,
        _ => false,
    };
    let leaving = review.old.as_ref().is_some_and(|old| old.deletion_timestamp().is_some());
    if !looked_at || leaving {
        return Ok(Vec::new());
    }
    let ranges = context.lookup.list("", "limitranges", &review.namespace).await?;
    let of = |range: &Object| -> Vec<Value> {
        let limits = range.get(&["spec", "limits"]).and_then(Value::as_array);
        limits.cloned().unwrap_or_default()
    };
    Ok(ranges.iter().flat_map(of).collect())
}

async fn mutate(context: &Context, review: &mut Review) -> Result<()> {
    if !review.is_of("", "pods") {
        return Ok(());
    }
    let limits = limits(context, review).await?;
    let Some(pod) = &mut review.object else { return Ok(()) };
    let defaults = |key: &str| {
        let of = limits.iter().filter(|limit| limit["type"] == "Container");
        let mut all = Map::new();
        for (name, value) in of.filter_map(|limit| limit[key].as_object()).flatten() {
            // The first range that says something is the one that counts.
            all.entry(name.clone()).or_insert_with(|| value.clone());
        }
        all
    };
    let (requests, defaults) = (defaults("defaultRequest"), defaults("default"));
    let mut told = Vec::new();
    let spec = pods::spec_mut(pod);
    for (list, shown) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pods::items_mut(spec, list) {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (kind, key, given) in [("request", "requests", &requests), ("limit", "limits", &defaults)] {
                let set = fill(container, key, given);
                if !set.is_empty() {
                    told.push(format!("{} {kind} for {shown} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        let annotations = pod.meta_mut().entry("annotations").or_insert_with(|| json!({}));
        annotations[ANNOTATION] = text.into();
    }
    Ok(())
}

/// The names of what was not given.
fn fill(container: &mut Value, key: &str, given: &Map<String, Value>) -> Vec<String> {
    let missing = |name: &&String| container["resources"][key].get(name.as_str()).is_none();
    let mut set: Vec<String> = given.keys().filter(missing).cloned().collect();
    for name in &set {
        container["resources"][key][name] = given[name].clone();
    }
    set.sort();
    set
}

async fn validate(context: &Context, review: &mut Review) -> Result<()> {
    let limits = limits(context, review).await?;
    let (false, Some(object)) = (limits.is_empty(), &review.object) else { return Ok(()) };
    let spec = object.0.get("spec").unwrap_or(&Value::Null);
    let mut errors = Vec::new();
    for limit in &limits {
        let kind = limit["type"].as_str().unwrap_or_default();
        match (kind, review.is_of("", "pods")) {
            ("Container", true) => {
                for container in ["containers", "initContainers"].iter().flat_map(|l| pods::items(spec, l)) {
                    let of = |key: &str| amounts(&container["resources"][key]);
                    check(limit, kind, &of("requests"), &of("limits"), &mut errors);
                }
            }
            ("Pod", true) => {
                check(limit, kind, &total(spec, "requests"), &total(spec, "limits"), &mut errors);
            }
            ("PersistentVolumeClaim", false) => {
                let requests = amounts(&spec["resources"]["requests"]);
                for (name, least) in amounts(&limit["min"]) {
                    errors.extend(too_little(kind, &name, &least, &requests, &Amounts::new()));
                }
                for (name, most) in amounts(&limit["max"]) {
                    errors.extend(claims_too_much(kind, &name, &most, &requests));
                }
            }
            _ => {}
        }
    }
    match &*errors {
        [] => Ok(()),
        [one] => Err(review.forbid(one)),
        many => Err(review.forbid(format!("[{}]", many.join(", ")))),
    }
}

fn amounts(value: &Value) -> Amounts {
    let parse = |value: &Value| match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    };
    let map = value.as_object().into_iter().flatten();
    map.filter_map(|(name, value)| Some((name.clone(), parse(value)?))).collect()
}

fn check(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    for (name, least) in amounts(&limit["min"]) {
        errors.extend(too_little(kind, &name, &least, requests, limits));
    }
    for (name, most) in amounts(&limit["max"]) {
        errors.extend(too_much(kind, &name, &most, requests, limits));
    }
    for (name, most) in amounts(&limit["maxLimitRequestRatio"]) {
        errors.extend(too_wide(kind, &name, &most, requests, limits));
    }
}

fn less(one: &Quantity, other: &Quantity) -> bool {
    one.compare(other) == Ordering::Less
}

fn too_little(
    kind: &str,
    name: &str,
    least: &Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {least}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(request), _) if less(request, least) => Some(format!("{head}, but request is {request}")),
        (_, Some(limit)) if less(limit, least) => Some(format!("{head}, but limit is {limit}")),
        _ => None,
    }
}

fn too_much(kind: &str, name: &str, most: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {most}");
    match (limits.get(name), requests.get(name)) {
        (None, _) => Some(format!("{head}.  No limit is specified")),
        (Some(limit), _) if less(most, limit) => Some(format!("{head}, but limit is {limit}")),
        (_, Some(request)) if less(most, request) => Some(format!("{head}, but request is {request}")),
        _ => None,
    }
}

fn claims_too_much(kind: &str, name: &str, most: &Quantity, requests: &Amounts) -> Option<String> {
    let head = format!("maximum {name} usage per {kind} is {most}");
    match requests.get(name) {
        None => Some(format!("{head}.  No request is specified")),
        Some(request) if less(most, request) => Some(format!("{head}, but request is {request}")),
        Some(_) => None,
    }
}

#[allow(clippy::cast_precision_loss)] // As upstream computes it.
fn too_wide(kind: &str, name: &str, most: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {most}");
    let Some(request) = requests.get(name).filter(|amount| !amount.is_zero()) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = limits.get(name).filter(|amount| !amount.is_zero()) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    const MAX_MILLI: i64 = i64::MAX / 1000;
    let fine = request.value() <= MAX_MILLI && limit.value() <= MAX_MILLI;
    let of = |amount: &Quantity| if fine { amount.milli_value() } else { amount.value() } as f64;
    let ratio = of(limit) / of(request);
    (ratio * 1000.0 > most.milli_value() as f64).then(|| format!("{head}, but provided ratio is {ratio:.6}"))
}

/// What all containers of a pod ask for together; a pod's own word counts more.
fn total(spec: &Value, key: &str) -> Amounts {
    let mut sum = Amounts::new();
    for container in pods::items(spec, "containers") {
        add(&mut sum, &amounts(&container["resources"][key]));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in pods::items(spec, "initContainers") {
        let own = amounts(&container["resources"][key]);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut starting, &sidecars);
        } else {
            let mut now = own;
            add(&mut now, &sidecars);
            raise(&mut starting, &now);
        }
    }
    raise(&mut sum, &starting);
    for (name, amount) in amounts(&spec["resources"][key]) {
        if matches!(&*name, "cpu" | "memory") || name.starts_with("hugepages-") {
            sum.insert(name, amount);
        }
    }
    sum
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or_else(|| amount.clone(), |have| have.plus(amount));
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, at_least: &Amounts) {
    for (name, amount) in at_least {
        if to.get(name).is_none_or(|have| less(have, amount)) {
            to.insert(name.clone(), amount.clone());
        }
    }
}
