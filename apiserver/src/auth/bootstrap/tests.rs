use super::*;

#[test]
fn the_recorded_policy_is_upstreams() {
    let all = policy();
    let count = |kind: &str| all.iter().filter(|wanted| wanted.object["kind"] == kind).count();
    let counts = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"].map(count);
    assert_eq!(counts, [69, 50, 7, 7]);
    let admin = all.iter().find(|wanted| wanted.object["metadata"]["name"] == "admin").expect("admin");
    assert_eq!(
        admin.object["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"],
        json!({ "rbac.authorization.k8s.io/aggregate-to-admin": "true" })
    );
    let public = all
        .iter()
        .find(|wanted| {
            wanted.object["metadata"]["name"] == "system:public-info-viewer"
                && wanted.object["kind"] == "ClusterRoleBinding"
        })
        .expect("what nobody may see");
    assert_eq!(public.object["subjects"].as_array().expect("subjects").len(), 2);
    assert!(all.iter().all(|wanted| wanted.object["metadata"]["name"].is_string()));
}

fn role(rules: Value) -> Value {
    json!({ "kind": "ClusterRole", "metadata": { "name": "a", "labels": { "x": "mine" } }, "rules": rules })
}

fn get(resource: &str) -> Value {
    json!({ "verbs": ["get"], "apiGroups": [""], "resources": [resource] })
}

#[test]
fn what_is_missing_is_added_and_what_is_more_stays() {
    let mut expected = role(json!([get("pods"), get("nodes")]));
    expected["metadata"]["labels"] = json!({ "x": "theirs", "y": "new" });
    let existing = role(json!([get("secrets"), get("pods")]));
    let Step::Update(object) = reconcile::step(Some(existing), expected.clone()) else { panic!("an update") };
    assert_eq!(object["rules"], json!([get("secrets"), get("pods"), get("nodes")]));
    assert_eq!(object["metadata"]["labels"], json!({ "x": "mine", "y": "new" }));
    assert_eq!(reconcile::step(Some(object), expected), Step::Nothing);
}

#[test]
fn a_role_that_refuses_to_be_looked_after_is_left_alone() {
    let mut existing = role(json!([]));
    existing["metadata"]["annotations"] = json!({ "rbac.authorization.kubernetes.io/autoupdate": "false" });
    assert_eq!(reconcile::step(Some(existing), role(json!([get("pods")]))), Step::Nothing);
}

#[test]
fn a_binding_to_another_role_is_made_anew_and_subjects_are_added() {
    let binding = |role: &str, subjects: Value| {
        json!({
            "metadata": { "name": "b" }, "roleRef": { "kind": "ClusterRole", "name": role }, "subjects": subjects,
        })
    };
    let expected = binding("a", json!([{ "kind": "User", "name": "x" }]));
    let other = binding("b", json!([]));
    assert_eq!(reconcile::step(Some(other), expected.clone()), Step::Recreate(expected.clone()));
    let more = binding("a", json!([{ "kind": "User", "name": "y" }]));
    let Step::Update(object) = reconcile::step(Some(more), expected.clone()) else { panic!("an update") };
    assert_eq!(object["subjects"].as_array().expect("subjects").len(), 2);
    assert_eq!(reconcile::step(Some(expected.clone()), expected), Step::Nothing);
}
