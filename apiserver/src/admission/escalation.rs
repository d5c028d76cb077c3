//! Nobody grants what he does not have, unless he may escalate or bind. No plugin: it cannot be switched off.
//! Source: kubernetes `pkg/registry/rbac/{escalation_check.go,*/policybased}`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::auth::authz::{RBAC_GROUP, RoleRef, Rule};
use crate::auth::{Attributes, Decision, groups};
use crate::hooks::{Operation, Review};
use crate::object::Object;
use crate::status::{Result, Status};

pub async fn check(context: &Context, review: &Review) -> Result<()> {
    let changes = matches!(review.operation, Operation::Create | Operation::Update);
    if review.served.resource.group != RBAC_GROUP || !changes || review.user.is_in(groups::MASTERS) {
        return Ok(());
    }
    let Some(object) = &review.object else { return Ok(()) };
    if review.old.as_ref().is_some_and(|old| only_for_garbage_collection(object, old)) {
        return Ok(());
    }
    match &*review.served.resource.plural {
        "roles" | "clusterroles" => role(context, review, object).await,
        "rolebindings" | "clusterrolebindings" => binding(context, review, object).await,
        _ => Ok(()),
    }
}

async fn role(context: &Context, review: &Review, object: &Object) -> Result<()> {
    let escalate = Attributes {
        verb: "escalate".to_owned(),
        group: RBAC_GROUP.to_owned(),
        version: "*".to_owned(),
        resource: review.served.resource.plural.to_string(),
        name: if review.operation == Operation::Create { String::new() } else { review.name.clone() },
        namespace: review.namespace.clone(),
        ..Attributes::default()
    };
    if allowed(context, review, &escalate).await {
        return Ok(());
    }
    confirm(context, review, &rules(object.0.get("rules")))?;
    let gathers = |object: &Object| {
        let selectors = object.get(&["aggregationRule", "clusterRoleSelectors"]);
        selectors.and_then(Value::as_array).is_some_and(|selectors| !selectors.is_empty())
    };
    if gathers(object) || review.old.as_ref().is_some_and(gathers) {
        // It can gather anything.
        let all = json!([
            { "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] },
            { "verbs": ["*"], "nonResourceURLs": ["*"] },
        ]);
        const WHY: &str = "must have cluster-admin privileges to use the aggregationRule";
        confirm(context, review, &rules(Some(&all))).map_err(|_| review.forbid(WHY))?;
    }
    Ok(())
}

async fn binding(context: &Context, review: &Review, object: &Object) -> Result<()> {
    let role = object.0.get("roleRef").and_then(|role| RoleRef::deserialize(role).ok()).unwrap_or_default();
    let resource = match &*role.kind {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        _ => "",
    };
    let bind = Attributes {
        verb: "bind".to_owned(),
        group: role.api_group.clone(),
        version: "*".to_owned(),
        resource: resource.to_owned(),
        name: role.name.clone(),
        namespace: review.namespace.clone(),
        ..Attributes::default()
    };
    if !resource.is_empty() && allowed(context, review, &bind).await {
        return Ok(());
    }
    let rules = context.authorizer.rbac().role_rules(&role, &review.namespace);
    let missing = |why: String| match &*role.kind {
        "ClusterRole" | "Role" => match context.lookup.row(RBAC_GROUP, resource) {
            Ok(served) => Status::not_found(&served.resource, &role.name),
            Err(status) => status,
        },
        _ => Status::internal(why),
    };
    confirm(context, review, &rules.map_err(missing)?)
}

/// Looks again before it says no, so what is known of roles is fresh behind it.
async fn allowed(context: &Context, review: &Review, asked: &Attributes) -> bool {
    context.authorizer.decide_settled(&review.user, asked).await == Decision::Allow
}

fn confirm(context: &Context, review: &Review, rules: &[Rule]) -> Result<()> {
    let rbac = context.authorizer.rbac();
    rbac.confirm_no_escalation(&review.user, &review.namespace, rules).map_err(|why| review.forbid(why))
}

fn rules(value: Option<&Value>) -> Vec<Rule> {
    value.and_then(|rules| Vec::deserialize(rules).ok()).unwrap_or_default()
}

/// What the garbage collector must be able to change about an object that it could not make.
/// Source: kubernetes `pkg/registry/rbac/helpers.go`.
fn only_for_garbage_collection(new: &Object, old: &Object) -> bool {
    let changed = new != old;
    let bare = |object: &Object| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            object.meta_mut().remove(field);
        }
        object
    };
    changed && bare(new) == bare(old)
}
