//! What may I do in a namespace? Source: kubernetes `pkg/registry/authorization/selfsubjectrulesreview`.

use serde_json::{Map, Value, json};

use crate::auth::{Auth, User};
use crate::object::Object;
use crate::status::{Result, Status};

pub async fn answer(auth: &Auth, user: &User, asked: Object) -> Result<Object> {
    let namespace = asked.text(&["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    // A client that has just been given a role looks here.
    auth.authorizer.rbac().settle().await;
    let found = auth.authorizer.rules(user, namespace);
    let (mut resources, mut urls) = (Vec::new(), Vec::new());
    for rule in &found.rules {
        if !rule.resources.is_empty() {
            resources.push(lists(&[
                ("verbs", &rule.verbs),
                ("apiGroups", &rule.api_groups),
                ("resources", &rule.resources),
                ("resourceNames", &rule.resource_names),
            ]));
        }
        if !rule.non_resource_urls.is_empty() {
            urls.push(lists(&[("verbs", &rule.verbs), ("nonResourceURLs", &rule.non_resource_urls)]));
        }
    }
    let mut status =
        json!({ "resourceRules": resources, "nonResourceRules": urls, "incomplete": found.incomplete });
    match &*found.errors {
        [] => {}
        [one] => status["evaluationError"] = one.clone().into(),
        many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
    }
    let answer = json!({
        "kind": asked.kind(), "apiVersion": asked.api_version(), "metadata": {}, "spec": {}, "status": status,
    });
    Ok(Object::of(answer).unwrap_or_default())
}

/// Without those that are empty.
fn lists(lists: &[(&str, &Vec<String>)]) -> Value {
    let some = lists.iter().filter(|(_, list)| !list.is_empty());
    some.map(|(key, list)| ((*key).to_owned(), json!(list))).collect::<Map<_, _>>().into()
}
