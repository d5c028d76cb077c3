//! POST of an Eviction: a pod is deleted if its PodDisruptionBudget allows it. Source: kubernetes
//! `pkg/registry/core/pod/storage/eviction.go`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::binding::set_condition;
use crate::api::Api;
use crate::decode::{self, Expected};
use crate::deletion::Asked;
use crate::fresh;
use crate::hooks::Operation;
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, ListOptions, Query, WriteOptions};
use crate::select::Labels;
use crate::status::{Cause, Details, Result, Status};
use crate::stored::Form;
use crate::verbs::delete::{self, success};
use crate::verbs::list;
use crate::write::{Change, Path, Writing};

const POLICY: &str = "policy/v1";
const BUDGETS: (&str, &str, &str) = ("policy", "v1", "poddisruptionbudgets");
const MAX_DISRUPTED_PODS: usize = 2000;
const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// Upstream gives up on a pod that changes all the time.
const TRIES: usize = 20;

/// `served`: pods.
///
/// # Errors
/// 400; 404; 429 while the budget does not allow it; 500 of a pod that has two budgets.
pub async fn create(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let info = &call.info;
    let options = WriteOptions::of(&call.query, "CreateOptions", false)?;
    let eviction = read(call, content, &options)?;
    let mut asked = match eviction.get(&["deleteOptions"]).and_then(Value::as_object) {
        Some(options) => Asked::of(options)?,
        None => Asked::default(),
    };
    asked.dry_run |= options.dry_run;
    let options = WriteOptions { dry_run: asked.dry_run, ..options };
    let writing = Writing {
        api,
        call,
        served,
        subresource: "eviction",
        namespace: &info.namespace,
        name: &info.name,
        options: &options,
    };
    let review = writing.review(Operation::Create, Some(eviction), None, options.to_json("CreateOptions"));
    writing.ask(review).await?;
    for _ in 0..TRIES {
        match evict(&writing, &asked).await {
            Err(status) if status.reason() == "Conflict" && asked.resource_version.is_none() => {}
            other => return other.map(|()| success(StatusCode::CREATED, Value::Null)),
        }
    }
    Err(too_many(&budget_in_work("")))
}

fn read(call: &Call, content: &Content, options: &WriteOptions) -> Result<Object> {
    let node = corten_schema::builtin()
        .of_api_version(POLICY, "Eviction")
        .ok_or_else(|| Status::internal("the table has no Eviction"))?;
    let expected = Expected { api_version: POLICY, kind: "Eviction", node, any_version: true, custom: None };
    let mut eviction = decode::body(call, content, expected, options.validation)?;
    crate::meta::wipe(&mut eviction);
    crate::meta::take_namespace(&mut eviction, &call.info.namespace)?;
    if eviction.name() != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    Ok(eviction)
}

/// One try.
async fn evict(writing: &Writing<'_>, asked: &Asked) -> Result<()> {
    let pod = writing.object().await?;
    let phase = pod.text(&["status", "phase"]);
    let ended = matches!(phase, "Succeeded" | "Failed") || pod.deletion_timestamp().is_some();
    let version = || Some(pod.resource_version().to_owned());
    if ended || phase == "Pending" {
        // It disrupts nothing; one that is not ended may become ready meanwhile.
        let resource_version = asked.resource_version.clone().or_else(|| version().filter(|_| !ended));
        return delete_pod(writing, &Asked { resource_version, ..asked.clone() }).await;
    }
    let budgets = budgets(writing, &pod).await?;
    let budget = match &*budgets {
        [] => return delete_pod(writing, asked).await,
        [one] => one,
        _ => {
            const WHY: &str = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", WHY));
        }
    };
    if !is_ready(&pod) && unready_may_go(budget) {
        let resource_version = asked.resource_version.clone().or_else(version);
        let asked_too = asked.resource_version.is_some();
        return match delete_pod(writing, &Asked { resource_version, ..asked.clone() }).await {
            Err(status) if status.reason() == "Conflict" && !asked_too => {
                Err(too_many(&budget_in_work(budget.name())))
            }
            other => other,
        };
    }
    take(writing, budget.name(), pod.name()).await?;
    delete_pod(writing, asked).await
}

/// Says in the pod why it goes, then deletes it.
async fn delete_pod(writing: &Writing<'_>, asked: &Asked) -> Result<()> {
    let mut asked = asked.clone();
    if !asked.dry_run {
        let change = Change {
            uid: asked.uid.clone(),
            resource_version: asked.resource_version.clone(),
            track: false,
            admit: false,
            ..Change::of(Path::Own)
        };
        let now = fresh::now();
        let written = writing
            .update(&change, |pod| {
                let mut pod = pod.cloned().unwrap_or_default();
                let status = pod.0.entry("status").or_insert_with(|| json!({}));
                if let Some(status) = status.as_object_mut() {
                    let condition = json!({"type": "DisruptionTarget", "status": "True",
                        "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
                    set_condition(status, condition, &now);
                }
                Ok(pod)
            })
            .await?;
        if asked.resource_version.is_some() {
            asked.resource_version = Some(written.object.resource_version().to_owned());
        }
    }
    // Admission was asked about the eviction.
    delete::without_admission(writing, &asked).await.map(drop)
}

async fn budgets(writing: &Writing<'_>, pod: &Object) -> Result<Vec<Object>> {
    let (group, version, plural) = BUDGETS;
    let Some(served) = writing.api.registry.find(group, version, plural) else { return Ok(Vec::new()) };
    let options = ListOptions::of(&Query::default(), &served)?;
    let found = list::read(writing.api, &served, writing.namespace, &options).await?;
    let form = Form::of(&served);
    let mut budgets = Vec::new();
    for kv in &found.items {
        let budget = form.object(kv, kv.mod_revision)?;
        if selects(&budget, pod) {
            budgets.push(budget);
        }
    }
    Ok(budgets)
}

/// A budget with an empty selector is of all pods, one without of none.
fn selects(budget: &Object, pod: &Object) -> bool {
    let Some(selector) = budget.get(&["spec", "selector"]) else { return false };
    let Ok(labels) = Labels::parse(&super::scale::selector(Some(selector))) else { return false };
    let of_pod = pod.labels();
    labels.matches(|key| of_pod?.get(key)?.as_str())
}

fn is_ready(pod: &Object) -> bool {
    let conditions = pod.get(&["status", "conditions"]).and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn unready_may_go(budget: &Object) -> bool {
    let number = |key: &str| budget.get(&["status", key]).and_then(Value::as_i64).unwrap_or(0);
    let desired = number("desiredHealthy");
    budget.text(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow"
        || (desired > 0 && number("currentHealthy") >= desired)
}

/// Takes one disruption from the budget.
async fn take(writing: &Writing<'_>, budget: &str, pod: &str) -> Result<()> {
    let (group, version, plural) = BUDGETS;
    let served = writing.api.registry.find(group, version, plural);
    let served = served.ok_or_else(|| Status::internal("budgets are not served"))?;
    let of_budget = Writing {
        api: writing.api,
        call: writing.call,
        served: &served,
        subresource: "status",
        namespace: writing.namespace,
        name: budget,
        options: writing.options,
    };
    let change = Change { track: false, admit: false, ..Change::of(Path::Own) };
    let now = fresh::now();
    of_budget.update(&change, |budget| taken(budget.unwrap_or(&Object::default()), pod, &now)).await.map(drop)
}

/// The budget after a disruption of `pod`.
///
/// # Errors
/// 429, 403: it does not allow one.
fn taken(budget: &Object, pod: &str, now: &str) -> Result<Object> {
    let name = budget.name();
    let number = |key: &str| budget.get(&["status", key]).and_then(Value::as_i64).unwrap_or(0);
    if number("observedGeneration") < budget.generation() {
        return Err(too_many(&budget_in_work(name)));
    }
    let allowed = number("disruptionsAllowed");
    let disrupted = budget.get(&["status", "disruptedPods"]).and_then(Value::as_object);
    let refuse = |why: &str| {
        let message = format!("poddisruptionbudget.policy \"{name}\" is forbidden: {why}");
        let details = Details {
            group: "policy".to_owned(),
            kind: "poddisruptionbudget".to_owned(),
            name: name.to_owned(),
            ..Details::default()
        };
        Err(Status::new(StatusCode::FORBIDDEN, "Forbidden", message).with(details))
    };
    if allowed < 0 {
        return refuse("pdb disruptions allowed is negative");
    }
    if disrupted.is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        return refuse("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(too_many_now(&why_not(budget)));
    }
    let mut budget = budget.clone();
    let status = budget.0.entry("status").or_insert_with(|| json!({}));
    status["disruptionsAllowed"] = (allowed - 1).into();
    status["disruptedPods"][pod] = now.into();
    if let (0, Some(status)) = (allowed - 1, status.as_object_mut()) {
        let generation = budget_generation(status);
        let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
            "message": "", "observedGeneration": generation});
        let mut own = serde_json::Map::new();
        own.insert("conditions".to_owned(), status.remove("conditions").unwrap_or_else(|| json!([])));
        set_condition(&mut own, condition, now);
        if let Some(list) = own.get_mut("conditions").and_then(Value::as_array_mut) {
            // Only a pod's conditions know when they were probed.
            list.iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|one| drop(one.remove("lastProbeTime")));
        }
        status.extend(own);
    }
    Ok(budget)
}

fn budget_generation(status: &serde_json::Map<String, Value>) -> i64 {
    status.get("observedGeneration").and_then(Value::as_i64).unwrap_or(0)
}

/// Why a budget allows no disruption now.
fn why_not(budget: &Object) -> String {
    let name = budget.name();
    let number = |key: &str| budget.get(&["status", key]).and_then(Value::as_i64).unwrap_or(0);
    let conditions = budget.get(&["status", "conditions"]).and_then(Value::as_array);
    let condition = conditions.into_iter().flatten().find(|one| one["type"] == "DisruptionAllowed");
    let text = |key: &str| condition.and_then(|one| one[key].as_str()).unwrap_or_default();
    let told = text("status") == "False" && !text("message").is_empty();
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    let message = text("message");
    if told && text("reason") == "SyncFailed" {
        format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        )
    } else if healthy <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
    } else if told {
        let reason = text("reason");
        format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    }
}

fn budget_in_work(name: &str) -> String {
    format!("The disruption budget {name} is still being processed by the server.")
}

fn too_many(why: &str) -> Status {
    too_many_now(why).retry_after(Duration::from_secs(10))
}

fn too_many_now(why: &str) -> Status {
    let cause = Cause { reason: "DisruptionBudget", message: why.to_owned(), field: String::new() };
    let details = Details { causes: vec![cause], ..Details::default() };
    Status::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", VIOLATED).with(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Object {
        let value =
            json!({"metadata": {"name": "b", "generation": 1}, "spec": {"selector": {}}, "status": status});
        Object::of(value).expect("an object")
    }

    #[test]
    fn a_budget_counts_down_and_then_refuses_with_the_reason() {
        let one = budget(
            json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2}),
        );
        let none = taken(&one, "p", "now").expect("one is allowed");
        assert_eq!(none.0["status"]["disruptionsAllowed"], 0);
        assert_eq!(none.0["status"]["disruptedPods"], json!({"p": "now"}));
        assert_eq!(none.0["status"]["conditions"][0]["reason"], "InsufficientPods");
        let status = taken(&none, "q", "now").expect_err("none is left");
        assert_eq!((status.code().as_u16(), status.message()), (429, VIOLATED));
        let few = budget(json!({"observedGeneration": 1, "currentHealthy": 1, "desiredHealthy": 2}));
        let status = taken(&few, "p", "now").expect_err("too few are healthy");
        let why = "The disruption budget b needs 2 healthy pods and has 1 currently";
        assert_eq!(status.details().causes[0].message, why);
        let stale = budget(json!({"disruptionsAllowed": 5}));
        let status = taken(&stale, "p", "now").expect_err("it was not looked at yet");
        assert_eq!(status.details().retry_after, Some(Duration::from_secs(10)));
    }

    #[test]
    fn an_empty_selector_is_of_all_pods_and_none_of_none() {
        let pod = Object::of(json!({"metadata": {"labels": {"a": "b"}}})).expect("an object");
        assert!(selects(&budget(json!({})), &pod));
        let without = Object::of(json!({"spec": {}})).expect("an object");
        assert!(!selects(&without, &pod));
    }
}
