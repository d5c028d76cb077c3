//! A pod's priority is its PriorityClass's. Source: kubernetes `plugin/pkg/admission/priority`.

use serde_json::Value;

use super::{Context, Plugin, pods};
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::Result;

pub const PLUGIN: Plugin = Plugin {
    name: "Priority",
    on_by_default: true,
    resources: &[("", "pods"), ("scheduling.k8s.io", "priorityclasses")],
    mutate: Some(|context, review| Box::pin(mutate(context, review))),
    validate: Some(|context, review| Box::pin(validate(context, review))),
};

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";

async fn mutate(context: &Context, review: &mut Review) -> Result<()> {
    if !review.is_of("", "pods") || !review.subresource.is_empty() {
        return Ok(());
    }
    match review.operation {
        Operation::Create => resolve(context, review).await,
        Operation::Update => {
            keep(review);
            Ok(())
        }
        Operation::Delete | Operation::Connect => Ok(()),
    }
}

/// An update that says nothing about it.
fn keep(review: &mut Review) {
    let (Some(pod), Some(old)) = (&mut review.object, &review.old) else { return };
    let spec = pods::spec_mut(pod);
    for field in ["priority", "preemptionPolicy"] {
        if let (None, Some(value)) = (spec.get(field), old.get(&["spec", field])) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
}

async fn resolve(context: &Context, review: &mut Review) -> Result<()> {
    let Some(pod) = &review.object else { return Ok(()) };
    let name = pod.text(&["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        default_class(context).await?
    } else {
        match context.lookup.get(GROUP, CLASSES, "", &name).await? {
            Some(class) => Some(class),
            None => return Err(review.forbid(format!("no PriorityClass with name {name} was found"))),
        }
    };
    let value = class.as_ref().map_or(0, value);
    let policy = match &class {
        Some(class) => class.text(&["preemptionPolicy"]).to_owned(),
        None => "PreemptLowerPriority".to_owned(),
    };
    if let Some(given) = pod.get(&["spec", "priority"]).and_then(Value::as_i64)
        && given != value
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        );
        return Err(review.forbid(why));
    }
    let given = pod.text(&["spec", "preemptionPolicy"]);
    if !policy.is_empty() && !given.is_empty() && given != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(review.forbid(why));
    }
    let Some(pod) = &mut review.object else { return Ok(()) };
    let spec = pods::spec_mut(pod);
    if let Some(class) = class {
        spec.insert("priorityClassName".to_owned(), class.name().into());
    }
    spec.insert("priority".to_owned(), value.into());
    if !policy.is_empty() {
        spec.insert("preemptionPolicy".to_owned(), policy.into());
    }
    Ok(())
}

fn value(class: &Object) -> i64 {
    class.0.get("value").and_then(Value::as_i64).unwrap_or_default()
}

/// Of several (a race) the one with the lowest value.
async fn default_class(context: &Context) -> Result<Option<Object>> {
    let classes = context.lookup.list(GROUP, CLASSES, "").await?;
    let default = |class: &Object| class.0.get("globalDefault") == Some(&Value::Bool(true));
    Ok(classes.into_iter().filter(default).min_by_key(value))
}

async fn validate(context: &Context, review: &mut Review) -> Result<()> {
    if !review.is_of(GROUP, CLASSES) || review.operation == Operation::Delete {
        return Ok(());
    }
    let Some(class) = &review.object else { return Ok(()) };
    if class.0.get("globalDefault") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    match default_class(context).await? {
        Some(other) if review.operation == Operation::Create || other.name() != class.name() => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            );
            Err(review.forbid(why))
        }
        _ => Ok(()),
    }
}
