//! A pod takes overhead, node selector and tolerations of its RuntimeClass.
//! Source: kubernetes `plugin/pkg/admission/runtimeclass`, `pkg/util/tolerations`.

use std::cmp::Ordering;

use corten_schema::quantity::Quantity;
use serde_json::{Map, Value};

use super::{Context, Plugin, pods};
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "RuntimeClass",
    on_by_default: true,
    resources: &[("", "pods")],
    mutate: Some(|context, review| Box::pin(mutate(context, review))),
    validate: Some(|context, review| Box::pin(validate(context, review))),
};

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn ignored(review: &Review) -> bool {
    review.operation != Operation::Create || !review.subresource.is_empty()
}

async fn class(context: &Context, review: &Review) -> Result<Option<Object>> {
    let Some(name) = review.object.as_ref().and_then(|pod| pod.get(&["spec", "runtimeClassName"])) else {
        return Ok(None);
    };
    let Some(name) = name.as_str() else { return Ok(None) };
    match context.lookup.get("node.k8s.io", "runtimeclasses", "", name).await? {
        Some(class) => Ok(Some(class)),
        None => Err(review.forbid(format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

async fn mutate(context: &Context, review: &mut Review) -> Result<()> {
    if ignored(review) {
        return Ok(());
    }
    let Some(class) = class(context, review).await? else { return Ok(()) };
    let refused = match &mut review.object {
        Some(pod) => apply(pods::spec_mut(pod), &class),
        None => None,
    };
    refused.map_or(Ok(()), |why| Err(review.forbid(why)))
}

/// Why it cannot be.
fn apply(spec: &mut Map<String, Value>, class: &Object) -> Option<String> {
    if let Some(overhead) = class.get(&["overhead", "podFixed"]).filter(|overhead| !overhead.is_null()) {
        let given = spec.get("overhead").and_then(Value::as_object);
        if given
            .is_some_and(|given| !given.is_empty() && !same_quantities(Some(overhead), spec.get("overhead")))
        {
            return Some(OTHER_OVERHEAD.to_owned());
        }
        spec.insert("overhead".to_owned(), overhead.clone());
    }
    let selector = class.get(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
    for (key, value) in selector.into_iter().flatten() {
        let chosen = spec.entry("nodeSelector").or_insert_with(|| Value::Object(Map::new()));
        let shown = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match chosen.get(key) {
            Some(other) if other != value => {
                return Some(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    shown(value),
                    shown(other)
                ));
            }
            _ => chosen[key] = value.clone(),
        }
    }
    let tolerations = class.get(&["scheduling", "tolerations"]).and_then(Value::as_array);
    for toleration in tolerations.into_iter().flatten() {
        if pods::items_mut(spec, "tolerations").all(|one| !covers(one, toleration)) {
            pods::push(spec, "tolerations", toleration.clone());
        }
    }
    None
}

/// Is what `one` tolerates all that `other` does?
fn covers(one: &Value, other: &Value) -> bool {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let wider = |key: &str| text(one, key).is_empty() || text(one, key) == text(other, key);
    let exists = text(one, "operator") == "Exists";
    let same_value =
        exists || (text(other, "operator") != "Exists" && text(one, "value") == text(other, "value"));
    let longer = match (one["tolerationSeconds"].as_i64(), other["tolerationSeconds"].as_i64()) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => one >= other,
    };
    wider("key") && wider("effect") && same_value && longer
}

async fn validate(context: &Context, review: &mut Review) -> Result<()> {
    if ignored(review) {
        return Ok(());
    }
    let class = class(context, review).await?;
    let Some(pod) = &review.object else { return Ok(()) };
    let given = pod.get(&["spec", "overhead"]).filter(|overhead| !overhead.is_null());
    let defined = class.as_ref().and_then(|class| class.get(&["overhead", "podFixed"]));
    match (defined, given) {
        (Some(_), _) if same_quantities(defined, given) => Ok(()),
        (Some(_), _) => Err(review.forbid(OTHER_OVERHEAD)),
        (None, Some(_)) => Err(review
            .forbid("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")),
        (None, None) => Ok(()),
    }
}

fn same_quantities(one: Option<&Value>, other: Option<&Value>) -> bool {
    let map = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (one, other) = (map(one), map(other));
    let same = |a: &Value, b: &Value| {
        let parse = |value: &Value| Quantity::parse(value.as_str()?).ok();
        a == b || matches!((parse(a), parse(b)), (Some(a), Some(b)) if a.compare(&b) == Ordering::Equal)
    };
    one.len() == other.len()
        && one.iter().all(|(key, value)| other.get(key).is_some_and(|with| same(value, with)))
}
