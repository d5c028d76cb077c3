//! An object as it is and as it should be: what to do. Pure.
//! Source: component-helpers `auth/rbac/reconciliation`, which adds and takes nothing away.

use serde_json::{Value, json};

use crate::auth::authz::{Rule, missing_rules};

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Nothing,
    Create(Value),
    Update(Value),
    /// A binding's role cannot change.
    Recreate(Value),
}

pub fn step(existing: Option<Value>, expected: Value) -> Step {
    let Some(existing) = existing else { return Step::Create(expected) };
    let annotation = &existing["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"];
    if annotation == "false" {
        return Step::Nothing;
    }
    if expected.get("roleRef").is_some_and(|role| *role != existing["roleRef"]) {
        return Step::Recreate(expected);
    }
    let mut object = existing.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in expected["metadata"][map].as_object().into_iter().flatten() {
            if existing["metadata"][map].get(key).is_none() {
                object["metadata"][map][key] = value.clone();
            }
        }
    }
    let rules =
        |object: &Value| -> Vec<Rule> { serde_json::from_value(object["rules"].clone()).unwrap_or_default() };
    append(
        &mut object["rules"],
        missing_rules(&rules(&existing), &rules(&expected)).into_iter().map(|r| json!(r)),
    );
    if expected["aggregationRule"].is_null() {
        if let Some(object) = object.as_object_mut() {
            object.remove("aggregationRule");
        }
    } else {
        let have = &existing["aggregationRule"]["clusterRoleSelectors"];
        let new = without(&expected["aggregationRule"]["clusterRoleSelectors"], have);
        append(&mut object["aggregationRule"]["clusterRoleSelectors"], new.into_iter());
    }
    if expected.get("subjects").is_some() {
        append(&mut object["subjects"], without(&expected["subjects"], &existing["subjects"]).into_iter());
    }
    // Looking into what is not there has left nulls.
    if let Some(fields) = object.as_object_mut() {
        let had = |key: &String| existing.get(key).is_some();
        fields.retain(|key, value| !value.is_null() || had(key));
    }
    if object == existing { Step::Nothing } else { Step::Update(object) }
}

/// Those of a list that another does not have.
fn without(list: &Value, other: &Value) -> Vec<Value> {
    let other = other.as_array().map(Vec::as_slice).unwrap_or_default();
    list.as_array().into_iter().flatten().filter(|item| !other.contains(item)).cloned().collect()
}

fn append(list: &mut Value, more: impl Iterator<Item = Value>) {
    for item in more {
        match list.as_array_mut() {
            Some(items) => items.push(item),
            None => *list = Value::Array(vec![item]),
        }
    }
}
