//! `approval` of a CertificateSigningRequest, and its `status`: who approves cannot issue, who issues cannot approve.
//! Source: kubernetes `pkg/registry/certificates/certificates/strategy.go`.

use serde_json::{Value, json};

use crate::object::Object;

/// Keeps what `subresource` may not change of a request.
pub fn prepare(subresource: &str, new: &mut Object, old: &Object, now: &str) {
    let before = old.0.get("status").cloned().unwrap_or_else(|| json!({}));
    let mut status = new.0.get("status").cloned().unwrap_or_else(|| json!({}));
    let list =
        |status: &Value| status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    if subresource == "approval" {
        let mut conditions = list(&status);
        times(&mut conditions, &list(&before), now);
        status = before;
        set(&mut status, conditions);
    } else {
        // Approved and Denied stay as they were, in the order they had.
        let is_decision = |one: &&Value| matches!(one["type"].as_str(), Some("Approved" | "Denied"));
        let mut conditions: Vec<Value> = list(&before).iter().filter(is_decision).cloned().collect();
        conditions.extend(list(&status).iter().filter(|one| !is_decision(one)).cloned());
        times(&mut conditions, &list(&before), now);
        set(&mut status, conditions);
    }
    new.0.insert("status".to_owned(), status);
    match old.0.get("spec") {
        Some(spec) => new.0.insert("spec".to_owned(), spec.clone()),
        None => new.0.remove("spec"),
    };
}

fn set(status: &mut Value, conditions: Vec<Value>) {
    let Some(status) = status.as_object_mut() else { return };
    if conditions.is_empty() {
        status.remove("conditions");
    } else {
        status.insert("conditions".to_owned(), conditions.into());
    }
}

fn times(conditions: &mut [Value], before: &[Value], now: &str) {
    for condition in conditions {
        let was = before.iter().find(|one| one["type"] == condition["type"]);
        let Some(condition) = condition.as_object_mut() else { continue };
        if !condition.get("lastUpdateTime").is_some_and(Value::is_string) {
            condition.insert("lastUpdateTime".to_owned(), now.into());
        }
        if condition.get("lastTransitionTime").is_some_and(Value::is_string) {
            continue;
        }
        let since = was
            .filter(|was| was.get("status") == condition.get("status"))
            .and_then(|was| was["lastTransitionTime"].as_str())
            .unwrap_or(now);
        condition.insert("lastTransitionTime".to_owned(), since.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_approves_does_not_issue_and_who_issues_does_not_approve() {
        let object = |value: Value| Object::of(value).expect("an object");
        let old = object(json!({"spec": {"request": "r"}, "status": {}}));
        let mut new = object(json!({"spec": {"request": "x"}, "status": {"certificate": "c",
            "conditions": [{"type": "Approved", "status": "True"}]}}));
        prepare("approval", &mut new, &old, "now");
        let expected = json!({"spec": {"request": "r"}, "status": {"conditions": [
            {"type": "Approved", "status": "True", "lastUpdateTime": "now", "lastTransitionTime": "now"}]}});
        assert_eq!(Value::Object(new.0.clone()), expected);
        let mut issued = object(json!({"status": {"certificate": "c", "conditions": []}}));
        prepare("status", &mut issued, &new, "later");
        assert_eq!(issued.0["status"]["certificate"], "c");
        assert_eq!(issued.0["status"]["conditions"], expected["status"]["conditions"]);
    }
}
