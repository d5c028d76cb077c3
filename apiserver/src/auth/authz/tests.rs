use serde_json::{Value, json};

use super::*;
use crate::auth::testing::{World, object};

const ALL: &[Mode] = &[Mode::Node, Mode::Rbac];

async fn start(world: &World) -> Authorizer {
    let authorizer = Authorizer::start(ALL.to_vec(), &world.store, &world.registry).expect("rows");
    authorizer.wait_ready().await;
    authorizer
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.to_owned(), groups: groups.iter().map(|&g| g.to_owned()).collect(), ..User::default() }
}

/// `get pods/log.apps ns/name`.
fn asked(text: &str) -> Attributes {
    let mut words = text.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let (verb, what, at) = (next().to_owned(), next(), next());
    if what.starts_with('/') {
        return Attributes { verb, path: what.to_owned(), ..Attributes::default() };
    }
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (namespace, name) = at.split_once('/').unwrap_or((at, ""));
    Attributes {
        verb,
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    }
}

fn rule(value: Value) -> Rule {
    serde_json::from_value(value).expect("a rule")
}

#[test]
fn rules_allow_what_upstreams_do() {
    let pods = json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"] });
    let named = json!({
        "verbs": ["*"], "apiGroups": ["*"], "resources": ["pods/log"], "resourceNames": ["a", "b"],
    });
    let urls = json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/healthz/*", "/api*"] });
    let all = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] });
    for (given, question, wanted) in [
        (&pods, "get pods ns/a", true),
        (&pods, "get pods", true),
        (&pods, "delete pods ns/a", false),
        (&pods, "get pods.apps ns/a", false),
        (&pods, "get pods/log ns/a", false),
        (&pods, "get deployments/scale ns/a", true),
        (&pods, "get deployments ns/a", false),
        (&pods, "get scale ns/a", false),
        (&pods, "get /pods", false),
        (&named, "get pods/log ns/a", true),
        (&named, "get pods/log.other ns/b", true),
        (&named, "get pods/log ns/c", false),
        (&named, "list pods/log ns", false),
        (&named, "get pods ns/a", false),
        (&urls, "get /healthz", true),
        (&urls, "get /healthz/ping", true),
        (&urls, "get /healthzx", false),
        (&urls, "get /apis/apps", true),
        (&urls, "post /healthz", false),
        (&urls, "get pods ns/a", false),
        (&all, "deletecollection secrets ns", true),
        (&all, "get pods/exec ns/a", true),
        (&all, "get /healthz", false),
    ] {
        assert_eq!(rule(given.clone()).allows(&asked(question)), wanted, "{given} {question}");
    }
}

#[test]
fn rules_cover_others_thing_by_thing() {
    let rules = |value: Value| -> Vec<Rule> { serde_json::from_value(value).expect("rules") };
    let held = rules(json!([
        { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "services"] },
        { "verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"] },
        { "verbs": ["update"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"] },
        { "verbs": ["get"], "nonResourceURLs": ["/healthz/*"] },
    ]));
    for (wanted, left) in [
        (json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]), ""),
        (json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"] }]), ""),
        (json!([{ "verbs": ["delete"], "apiGroups": ["apps"], "resources": ["deployments/scale"] }]), ""),
        (
            json!([{ "verbs": ["update"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"] }]),
            "",
        ),
        (json!([{ "verbs": ["get"], "nonResourceURLs": ["/healthz/a", "/healthz/*"] }]), ""),
        (
            json!([{ "verbs": ["update"], "apiGroups": [""], "resources": ["secrets"] }]),
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["update"]}"#,
        ),
        (
            json!([{ "verbs": ["get", "delete", "watch"], "apiGroups": [""], "resources": ["pods", "nodes"] }]),
            "{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"delete\" \"watch\"]}\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}",
        ),
        (
            json!([{ "verbs": ["get"], "nonResourceURLs": ["*"] }]),
            r#"{NonResourceURLs:["*"], Verbs:["get"]}"#,
        ),
        (
            json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }]),
            r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#,
        ),
    ] {
        assert_eq!(rule::shown_compactly(&missing_rules(&held, &rules(wanted.clone()))), left, "{wanted}");
    }
}

async fn role(world: &World, kind: &str, namespace: &str, name: &str, rules: Value) {
    let mut role = object(namespace, name, "u");
    role["rules"] = rules;
    world.put(RBAC_GROUP, kind, role).await;
}

async fn bind(world: &World, namespace: &str, name: &str, role: (&str, &str), subjects: Value) {
    let mut binding = object(namespace, name, "u");
    binding["roleRef"] = json!({ "apiGroup": RBAC_GROUP, "kind": role.0, "name": role.1 });
    binding["subjects"] = subjects;
    let kind = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
    world.put(RBAC_GROUP, kind, binding).await;
}

fn reads(resource: &str) -> Value {
    json!([{ "verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": [resource] }])
}

#[tokio::test]
async fn bindings_give_roles_to_users_groups_and_service_accounts() {
    let world = World::new();
    role(&world, "clusterroles", "", "pods", reads("pods")).await;
    role(&world, "roles", "a", "secrets", reads("secrets")).await;
    bind(&world, "", "everywhere", ("ClusterRole", "pods"), json!([{ "kind": "Group", "name": "dev" }]))
        .await;
    bind(&world, "a", "here", ("ClusterRole", "pods"), json!([{ "kind": "User", "name": "jane" }])).await;
    let accounts = json!([{ "kind": "ServiceAccount", "name": "sa" }, { "kind": "ServiceAccount", "name": "sb", "namespace": "b" }]);
    bind(&world, "a", "accounts", ("Role", "secrets"), accounts).await;
    let authorizer = start(&world).await;
    let (dev, jane) = (user("x", &["dev"]), user("jane", &[]));
    let (own, other) = (User::service_account("a", "sa", ""), User::service_account("b", "sb", ""));
    for (who, question, wanted) in [
        (&dev, "get pods b/x", true),
        (&dev, "list pods", true),
        (&dev, "delete pods b/x", false),
        (&jane, "get pods a/x", true),
        (&jane, "get pods ab/x", false),
        (&jane, "list pods", false),
        (&own, "get secrets a/x", true),
        (&own, "get secrets b/x", false),
        (&other, "get secrets a/x", true),
        (&other, "get secrets b/x", false),
        (&User::service_account("b", "sa", ""), "get secrets a/x", false),
        (&user("system:serviceaccount:a:sa:x", &[]), "get secrets a/x", false),
        (&user("root", &["system:masters"]), "delete nodes /x", true),
        (&User::loopback(), "get /metrics", true),
        (&User::anonymous(), "get pods a/x", false),
    ] {
        let decision = authorizer.decide(who, &asked(question));
        assert_eq!(decision == Decision::Allow, wanted, "{} {question}: {decision:?}", who.name);
    }
}

#[tokio::test]
async fn a_binding_to_nothing_is_said() {
    let world = World::new();
    bind(&world, "", "a", ("ClusterRole", "gone"), json!([{ "kind": "User", "name": "jane" }])).await;
    bind(&world, "ns", "b", ("Role", "gone"), json!([{ "kind": "User", "name": "jane" }])).await;
    let authorizer = start(&world).await;
    let Decision::NoOpinion(why) = authorizer.decide(&user("jane", &[]), &asked("get pods")) else {
        panic!("no role")
    };
    assert_eq!(why, "RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found");
    let Decision::NoOpinion(why) = authorizer.decide(&user("jane", &[]), &asked("get pods ns/x")) else {
        panic!("no role")
    };
    assert_eq!(
        why,
        "RBAC: [clusterrole.rbac.authorization.k8s.io \"gone\" not found, role.rbac.authorization.k8s.io \"gone\" not found]"
    );
}

#[tokio::test]
async fn what_was_granted_a_moment_ago_is_not_refused_and_what_was_taken_is() {
    let world = World::new();
    let authorizer = start(&world).await;
    let jane = user("jane", &[]);
    for _ in 0..50 {
        role(&world, "clusterroles", "", "pods", reads("pods")).await;
        bind(&world, "", "a", ("ClusterRole", "pods"), json!([{ "kind": "User", "name": "jane" }])).await;
        assert_eq!(authorizer.decide_settled(&jane, &asked("get pods a/x")).await, Decision::Allow);
        world.delete(RBAC_GROUP, "clusterrolebindings", "", "a").await;
        authorizer.rbac().settle().await;
        assert_ne!(authorizer.decide(&jane, &asked("get pods a/x")), Decision::Allow);
        world.delete(RBAC_GROUP, "clusterroles", "", "pods").await;
    }
}

#[tokio::test]
async fn nobody_gives_away_what_he_does_not_have() {
    let world = World::new();
    role(&world, "clusterroles", "", "pods", reads("pods")).await;
    bind(&world, "", "a", ("ClusterRole", "pods"), json!([{ "kind": "User", "name": "jane" }])).await;
    let authorizer = start(&world).await;
    let jane = user("jane", &["dev"]);
    let rules = |value: Value| -> Vec<Rule> { serde_json::from_value(value).expect("rules") };
    authorizer.rbac().confirm_no_escalation(&jane, "ns", &rules(reads("pods"))).expect("she has it");
    let why = authorizer.rbac().confirm_no_escalation(&jane, "ns", &rules(reads("secrets")));
    assert_eq!(
        why.expect_err("she has not"),
        "user \"jane\" (groups=[\"dev\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\" \"watch\"]}"
    );
}

async fn pod(world: &World, name: &str, node: &str, change: impl FnOnce(&mut Value)) {
    let mut pod = object("ns", name, "u");
    pod["spec"] = json!({
        "nodeName": node, "serviceAccountName": "sa", "imagePullSecrets": [{ "name": "pull" }],
        "containers": [{
            "env": [{ "valueFrom": { "secretKeyRef": { "name": "env" } } }],
            "envFrom": [{ "configMapRef": { "name": "envmap" } }],
        }],
        "initContainers": [{ "envFrom": [{ "secretRef": { "name": "init" } }] }],
        "volumes": [
            { "name": "a", "secret": { "secretName": "volume" } },
            { "name": "b", "projected": { "sources": [{ "configMap": { "name": "projected" } }] } },
            { "name": "c", "persistentVolumeClaim": { "claimName": "claim" } },
            { "name": "d", "ephemeral": { "volumeClaimTemplate": {} } },
        ],
    });
    change(&mut pod);
    world.put("", "pods", pod).await;
}

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
    let world = World::new();
    pod(&world, "pod", "node-a", |_| {}).await;
    pod(&world, "mirror", "node-b", |pod| {
        pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    })
    .await;
    let mut volume = object("", "pv", "u");
    volume["spec"] = json!({
        "claimRef": { "namespace": "ns", "name": "claim" },
        "csi": { "nodeStageSecretRef": { "namespace": "vault", "name": "stage" } },
    });
    world.put("", "persistentvolumes", volume).await;
    let mut attachment = object("", "va", "u");
    attachment["spec"] = json!({ "nodeName": "node-a" });
    world.put("storage.k8s.io", "volumeattachments", attachment).await;
    let authorizer = start(&world).await;
    let node = |name: &str| user(&format!("system:node:{name}"), &["system:nodes"]);
    let may = |who: &User, question: &str| authorizer.decide(who, &asked(question)) == Decision::Allow;
    let (a, b) = (node("node-a"), node("node-b"));
    for question in [
        "get secrets ns/pull",
        "get secrets ns/env",
        "get secrets ns/init",
        "list secrets ns/volume",
        "watch configmaps ns/envmap",
        "get configmaps ns/projected",
        "get persistentvolumeclaims ns/claim",
        "get persistentvolumeclaims ns/pod-d",
        "patch persistentvolumeclaims/status ns/claim",
        "get persistentvolumes /pv",
        "get secrets vault/stage",
        "get volumeattachments.storage.k8s.io /va",
        "create serviceaccounts/token ns/sa",
        "get serviceaccounts ns/sa",
        "get pods ns/pod",
    ] {
        assert!(may(&a, question), "{question}");
        assert!(!may(&b, question), "{question} from another node");
        assert!(!may(&user("system:node:node-a", &[]), question), "{question} without the group");
    }
    for question in [
        "get secrets ns/other",
        "get secrets other/pull",
        "list secrets ns",
        "list secrets",
        "create secrets ns/pull",
        "delete pods/log ns/pod",
        "get nodes /node-b",
        "list nodes",
        "list pods",
        "get leases.coordination.k8s.io ns/node-a",
        "get leases.coordination.k8s.io kube-node-lease/node-b",
        "get csinodes.storage.k8s.io /node-b",
        "create serviceaccounts/token ns/other",
        "get roles.rbac.authorization.k8s.io ns/x",
    ] {
        assert!(!may(&a, question), "{question}");
    }
    for question in [
        "get nodes /node-a",
        "create nodes",
        "patch nodes/status /node-a",
        "update leases.coordination.k8s.io kube-node-lease/node-a",
        "create leases.coordination.k8s.io kube-node-lease",
        "get csinodes.storage.k8s.io /node-a",
        "create pods ns",
        "create pods/eviction ns/pod",
        "list services",
        "create events ns",
        "create tokenreviews.authentication.k8s.io",
        "create certificatesigningrequests.certificates.k8s.io",
    ] {
        assert!(may(&a, question), "{question}");
    }
    let mut mine = asked("watch pods");
    mine.field_selector = "spec.nodeName=node-a".to_owned();
    assert_eq!(authorizer.decide(&a, &mine), Decision::Allow);
    assert_ne!(authorizer.decide(&b, &mine), Decision::Allow);
    // The pod is gone: so is the right.
    world.delete("", "pods", "ns", "pod").await;
    authorizer.graph.settle_for(&a).await;
    assert!(!may(&a, "get secrets ns/pull"));
    let Decision::NoOpinion(why) = authorizer.decide(&a, &asked("get secrets ns/pull")) else {
        panic!("refused")
    };
    assert_eq!(why, "no relationship found between node 'node-a' and this object");
}
