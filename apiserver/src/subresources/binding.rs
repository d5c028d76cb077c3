//! POST of a Binding: a pod is given to a node. Source: kubernetes `pkg/registry/core/pod/storage/storage.go`.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::decode::{self, Expected};
use crate::hooks::Operation;
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::{Cause, Result, Status};
use crate::verbs::delete::success;
use crate::write::{Change, Path, Writing};

/// `served`: pods. The name is the path's, or of the older `bindings` the object's.
///
/// # Errors
/// 400; 404; 409 of a pod that has a node, or cannot be given one now.
pub async fn create(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let info = &call.info;
    let options = WriteOptions::of(&call.query, "CreateOptions", false)?;
    let node = corten_schema::builtin()
        .of_api_version("v1", "Binding")
        .ok_or_else(|| Status::internal("the table has no Binding"))?;
    let expected = Expected { api_version: "v1", kind: "Binding", node, any_version: false, custom: None };
    let mut binding = decode::body(call, content, expected, options.validation)?;
    crate::meta::take_namespace(&mut binding, &info.namespace)?;
    let name = binding.name().to_owned();
    if info.subresource == "binding" && name != info.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    refuse(&binding)?;
    let writing = Writing {
        api,
        call,
        served,
        subresource: "binding",
        namespace: &info.namespace,
        name: &name,
        options: &options,
    };
    let review = writing.review(Operation::Create, Some(binding), None, options.to_json("CreateOptions"));
    let binding = writing.ask(review).await?.object.unwrap_or_default();
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let change = Change {
        uid: some(binding.uid()),
        resource_version: some(binding.resource_version()),
        track: false,
        admit: false,
        ..Change::of(Path::Own)
    };
    let now = crate::fresh::now();
    writing
        .update(&change, |pod| {
            let pod = pod.ok_or_else(|| Status::not_found(&served.resource, &name))?;
            bound(pod, &binding, &now).map_err(|why| {
                let message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
                let details = crate::status::Details {
                    kind: "pods/binding".to_owned(),
                    name: name.clone(),
                    ..crate::status::Details::default()
                };
                Status::new(StatusCode::CONFLICT, "Conflict", message).with(details)
            })
        })
        .await?;
    Ok(success(StatusCode::CREATED, Value::Null))
}

fn refuse(binding: &Object) -> Result<()> {
    let mut causes = Vec::new();
    let kind = binding.text(&["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        causes.push(Cause::unsupported("target.kind", &kind.into(), &["Node", "<empty>"]));
    }
    if binding.text(&["target", "name"]).is_empty() {
        causes.push(Cause::required("target.name", ""));
    }
    match &*causes {
        [] => Ok(()),
        // Upstream forgets what kind of error these are.
        [one] => Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", one.to_string())),
        all => {
            let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", format!("[{list}]")))
        }
    }
}

/// The pod on its node.
fn bound(pod: &Object, binding: &Object, now: &str) -> Result<Object, String> {
    let name = pod.name();
    if pod.deletion_timestamp().is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod.text(&["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if pod.get(&["spec", "schedulingGates"]).and_then(Value::as_array).is_some_and(|gates| !gates.is_empty())
    {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut spec = object(pod.0.get("spec"));
    spec.insert("nodeName".to_owned(), binding.text(&["target", "name"]).into());
    pod.0.insert("spec".to_owned(), spec.into());
    let mut status = object(pod.0.get("status"));
    status.remove("nominatedNodeName");
    scheduled(&mut status, now);
    pod.0.insert("status".to_owned(), status.into());
    for key in ["annotations", "labels"] {
        let more = object(binding.get(&["metadata", key]));
        if !more.is_empty() {
            let mut map = object(pod.get(&["metadata", key]));
            map.extend(more);
            pod.set_meta(key, map);
        }
    }
    Ok(pod)
}

fn scheduled(status: &mut Map<String, Value>, now: &str) {
    set_condition(status, json!({"type": "PodScheduled", "status": "True"}), now);
}

/// Sets a pod's condition; the time of its last change moves only with its status.
pub fn set_condition(status: &mut Map<String, Value>, mut condition: Value, now: &str) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    let at = conditions.iter().position(|one| one["type"] == condition["type"]);
    let since = at.map(|at| &conditions[at]).filter(|was| was["status"] == condition["status"]);
    let since = since.map_or_else(|| now.into(), |was| was["lastTransitionTime"].clone());
    condition["lastTransitionTime"] = since;
    if let Some(condition) = condition.as_object_mut() {
        condition.entry("lastProbeTime").or_insert(Value::Null);
    }
    match at {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let object = |value: Value| Object::of(value).expect("an object");
        let binding =
            object(json!({"metadata": {"name": "p", "annotations": {"a": "b"}}, "target": {"name": "n"}}));
        let pod =
            object(json!({"metadata": {"name": "p"}, "spec": {}, "status": {"nominatedNodeName": "m"}}));
        let pod = bound(&pod, &binding, "now").expect("it can be bound");
        assert_eq!(pod.text(&["spec", "nodeName"]), "n");
        assert_eq!(pod.0["metadata"]["annotations"]["a"], "b");
        assert!(pod.0["status"].get("nominatedNodeName").is_none());
        assert_eq!(pod.0["status"]["conditions"][0]["type"], "PodScheduled");
        assert_eq!(bound(&pod, &binding, "now"), Err("pod p is already assigned to node \"n\"".to_owned()));
        let gated = object(json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}));
        assert!(bound(&gated, &binding, "now").is_err());
    }
}
