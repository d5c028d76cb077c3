//! ClusterRoles whose rules are those of others, chosen by labels: kept up as roles come and go.
//! Source: kubernetes `pkg/controller/clusterroleaggregation`. A kube-controller-manager beside this server computes
//! the same and finds nothing to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::{BASE, GROUP_VERSION};
use crate::api::Api;
use crate::auth::authz::{Authorizer, Role, Rule};

const MANAGER: &str = "clusterrole-aggregation-controller";
/// Changes come in swarms.
const GATHER: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(1);

/// Until its task is ended.
pub async fn run(api: Arc<Api>, authorizer: Arc<Authorizer>) {
    let client = Client::new(&api);
    let roles = authorizer.rbac().cluster_roles();
    let mut revisions = roles.revisions();
    loop {
        revisions.mark_unchanged();
        let changes = roles.read(|roles| changes(&roles.0));
        let mut failed = false;
        for (name, rules) in changes {
            let path = format!("{BASE}/clusterroles/{name}?fieldManager={MANAGER}&force=true");
            let body = json!({
                "apiVersion": GROUP_VERSION, "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules,
            });
            if let Err(failure) = client.ask(Method::PATCH, &path, Some(&body)).await {
                tracing::warn!(role = name, error = failure.message, "a role's rules cannot be gathered");
                failed = true;
            }
        }
        if failed {
            tokio::time::sleep(RETRY).await;
        } else if revisions.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Roles that gather others, and the rules that they should have and do not.
fn changes(roles: &BTreeMap<String, Role>) -> Vec<(String, Vec<Rule>)> {
    let gathering = roles.iter().filter(|(_, role)| !role.selectors.is_empty());
    gathering
        .map(|(name, role)| (name, role, gathered(name, role, roles)))
        .filter(|(_, role, rules)| role.rules != *rules)
        .map(|(name, _, rules)| (name.clone(), rules))
        .collect()
}

fn gathered(name: &str, role: &Role, roles: &BTreeMap<String, Role>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for selector in &role.selectors {
        let chosen = roles.iter().filter(|(other, role)| *other != name && selects(selector, &role.labels));
        for rule in chosen.flat_map(|(_, role)| &role.rules) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    rules
}

/// A `metav1.LabelSelector`.
fn selects(selector: &Value, labels: &Map<String, Value>) -> bool {
    let wanted = selector["matchLabels"].as_object();
    let equal = wanted.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    equal
        && expressions.all(|expression| {
            let value = expression["key"].as_str().and_then(|key| labels.get(key));
            let values = expression["values"].as_array().map(Vec::as_slice).unwrap_or_default();
            let listed = value.is_some_and(|value| values.contains(value));
            match expression["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => value.is_some(),
                Some("DoesNotExist") => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(labels: Value, selector: Option<Value>, verbs: &[&str]) -> Role {
        Role {
            rules: verbs
                .iter()
                .map(|verb| Rule { verbs: vec![(*verb).to_owned()], ..Rule::default() })
                .collect(),
            labels: labels.as_object().cloned().unwrap_or_default(),
            selectors: selector.into_iter().collect(),
        }
    }

    #[test]
    fn a_role_gathers_those_that_it_selects_in_order_of_their_names_without_repeating() {
        let by_label = json!({ "matchLabels": { "a": "b" } });
        let mut roles = BTreeMap::from([
            ("all".to_owned(), role(json!({ "a": "b" }), Some(by_label), &[])),
            ("y".to_owned(), role(json!({ "a": "b" }), None, &["get", "list"])),
            ("x".to_owned(), role(json!({ "a": "b" }), None, &["watch", "get"])),
            ("z".to_owned(), role(json!({ "a": "c" }), None, &["delete"])),
        ]);
        let found = changes(&roles);
        let [(name, rules)] = &*found else { panic!("{found:?}") };
        let verbs: Vec<_> = rules.iter().map(|rule| &*rule.verbs[0]).collect();
        assert_eq!((&**name, verbs), ("all", vec!["watch", "get", "list"]));
        roles.get_mut("all").expect("it").rules.clone_from(rules);
        assert!(changes(&roles).is_empty());
    }

    #[test]
    fn selectors_may_have_expressions() {
        let labels = json!({ "tier": "web", "canary": "" });
        let labels = labels.as_object().expect("an object");
        for (operator, values, key, wanted) in [
            ("In", json!(["web", "db"]), "tier", true),
            ("NotIn", json!(["web"]), "tier", false),
            ("NotIn", json!(["web"]), "other", true),
            ("Exists", json!([]), "canary", true),
            ("DoesNotExist", json!([]), "canary", false),
            ("Nonsense", json!([]), "canary", false),
        ] {
            let selector =
                json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
            assert_eq!(selects(&selector, labels), wanted, "{selector}");
        }
    }
}
