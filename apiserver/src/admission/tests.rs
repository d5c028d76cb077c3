use serde_json::{Value, json};

use super::*;
use crate::auth::User;
use crate::auth::authz::{Mode, RBAC_GROUP};
use crate::auth::testing::{World, object};
use crate::object::Object;

struct Setup {
    world: World,
    chain: Chain,
}

async fn setup() -> Setup {
    let world = World::new();
    let authorizer =
        Authorizer::start(vec![Mode::Node, Mode::Rbac], &world.store, &world.registry).expect("rows");
    authorizer.wait_ready().await;
    let context =
        Context { lookup: world.lookup(), authorizer: Arc::new(authorizer), settings: Settings::default() };
    let chain = Chain::new(context, &[], &[]).expect("a chain");
    let setup = Setup { world, chain };
    setup.put("", "namespaces", object("", "ns", "u")).await;
    setup.put("", "serviceaccounts", object("ns", "default", "u")).await;
    setup
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.to_owned(), groups: groups.iter().map(|&g| g.to_owned()).collect(), ..User::default() }
}

fn node() -> User {
    user("system:node:node-a", &["system:nodes"])
}

impl Setup {
    async fn put(&self, group: &str, plural: &str, object: Value) {
        self.world.put(group, plural, object).await;
    }

    /// `""`/`pods/status`.
    fn review(&self, operation: Operation, group: &str, what: &str) -> Review {
        let (plural, subresource) = what.split_once('/').unwrap_or((what, ""));
        let served = self.world.registry.find(group, "v1", plural).expect("a served resource");
        Review {
            user: user("jane", &[]),
            operation,
            subresource: subresource.to_owned(),
            namespace: if served.resource.namespaced { "ns".to_owned() } else { String::new() },
            served,
            name: "a".to_owned(),
            object: None,
            old: None,
            dry_run: false,
            options: Value::Null,
            warnings: Vec::new(),
        }
    }

    async fn create(&self, group: &str, what: &str, given: Value) -> Result<Value> {
        self.create_as(&user("jane", &[]), group, what, given).await
    }

    async fn create_as(&self, user: &User, group: &str, what: &str, given: Value) -> Result<Value> {
        let mut review = self.review(Operation::Create, group, what);
        review.user = user.clone();
        review.object = Some(body(given));
        self.chain.admit(&mut review).await?;
        Ok(Value::Object(review.object.expect("it stays").0))
    }

    async fn update_as(&self, user: &User, group: &str, what: &str, old: Value, new: Value) -> Result<()> {
        let mut review = self.review(Operation::Update, group, what);
        review.user = user.clone();
        (review.object, review.old) = (Some(body(new)), Some(body(old)));
        self.chain.admit(&mut review).await
    }
}

fn body(mut given: Value) -> Object {
    if given["metadata"]["name"].is_null() {
        given["metadata"]["name"] = "a".into();
    }
    Object::of(given).expect("an object")
}

fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.expect_err("it is refused").message().to_owned()
}

#[tokio::test]
async fn nothing_is_made_where_there_is_no_namespace() {
    let setup = setup().await;
    let mut review = setup.review(Operation::Create, "", "configmaps");
    review.object = Some(body(json!({})));
    review.namespace = "gone".to_owned();
    let status = setup.chain.admit(&mut review).await.expect_err("no namespace");
    assert_eq!((status.code().as_u16(), status.message()), (404, "namespaces \"gone\" not found"));
    review.operation = Operation::Delete;
    setup.chain.admit(&mut review).await.expect("deleting goes on");
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_goes_away() {
    let setup = setup().await;
    let mut namespace = object("", "ns", "u");
    namespace["status"] = json!({ "phase": "Terminating" });
    setup.put("", "namespaces", namespace).await;
    let status = setup.create("", "configmaps", json!({})).await.expect_err("terminating");
    assert_eq!(
        status.message(),
        "configmaps \"a\" is forbidden: unable to create new content in namespace ns because it is being terminated"
    );
    let cause = &status.details().causes[0];
    assert_eq!((cause.reason, &*cause.field), ("NamespaceTerminating", "metadata.namespace"));
    assert_eq!(cause.message, "namespace ns is being terminated");
    let generated = json!({ "metadata": { "generateName": "b-", "name": "" } });
    let mut review = setup.review(Operation::Create, "", "configmaps");
    (review.name, review.object) = (String::new(), Some(body(generated)));
    assert!(refused(setup.chain.admit(&mut review).await).starts_with("configmaps \"b-\" is forbidden"));
    let jane = user("jane", &[]);
    setup.update_as(&jane, "", "configmaps", json!({}), json!({})).await.expect("updating goes on");
}

#[tokio::test]
async fn some_namespaces_stay() {
    let setup = setup().await;
    for (name, stays) in [("default", true), ("kube-system", true), ("kube-public", true), ("ns", false)] {
        let mut review = setup.review(Operation::Delete, "", "namespaces");
        (review.name, review.namespace) = (name.to_owned(), name.to_owned());
        let result = setup.chain.admit(&mut review).await;
        assert_eq!(result.is_err(), stays, "{name}");
        if stays {
            let message = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
            assert_eq!(refused(result), message);
        }
    }
}

#[tokio::test]
async fn a_pod_gets_its_account_and_token_as_upstream_gives_them() {
    let setup = setup().await;
    let mut account = object("ns", "default", "u");
    account["imagePullSecrets"] = json!([{ "name": "pull" }]);
    setup.put("", "serviceaccounts", account).await;
    let given = json!({ "spec": {
        "containers": [{ "name": "a" }, { "name": "b", "volumeMounts": [
            { "name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }] }],
        "initContainers": [{ "name": "c" }],
    } });
    let pod = setup.create("", "pods", given).await.expect("a pod");
    let spec = &pod["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["imagePullSecrets"][0]["name"]),
        (&json!("default"), &json!("pull"))
    );
    let name = spec["volumes"][0]["name"].as_str().expect("a volume");
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5, "{name}");
    assert_eq!(
        spec["volumes"],
        json!([{ "name": name, "projected": { "defaultMode": 420, "sources": [
            { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{
                "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
        ] } }])
    );
    let mount = json!([{ "name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }]);
    assert_eq!(
        (&spec["containers"][0]["volumeMounts"], &spec["initContainers"][0]["volumeMounts"]),
        (&mount, &mount)
    );
    assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "own");
    let tolerations = json!([
        { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
        { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
    ]);
    assert_eq!(spec["tolerations"], tolerations);
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
}

#[tokio::test]
async fn a_token_is_mounted_only_where_nobody_refuses_it() {
    let setup = setup().await;
    let mut account = object("ns", "quiet", "u");
    account["automountServiceAccountToken"] = false.into();
    setup.put("", "serviceaccounts", account).await;
    for (account, own, mounted) in [
        ("default", None, true),
        ("default", Some(false), false),
        ("quiet", None, false),
        ("quiet", Some(true), true),
    ] {
        let mut spec = json!({ "serviceAccountName": account, "containers": [{ "name": "a" }] });
        if let Some(own) = own {
            spec["automountServiceAccountToken"] = own.into();
        }
        let pod = setup.create("", "pods", json!({ "spec": spec })).await.expect("a pod");
        assert_eq!(pod["spec"]["volumes"].is_array(), mounted, "{account} {own:?}");
    }
}

#[tokio::test]
async fn a_pod_of_an_account_that_is_not_there_is_refused() {
    let setup = setup().await;
    let pod = json!({ "spec": { "serviceAccountName": "gone", "containers": [] } });
    assert_eq!(
        refused(setup.create("", "pods", pod).await),
        "pods \"a\" is forbidden: error looking up service account ns/gone: serviceaccount \"gone\" not found"
    );
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let setup = setup().await;
    setup.world.delete("", "serviceaccounts", "ns", "default").await;
    let (pod, ()) = tokio::join!(setup.create("", "pods", json!({ "spec": { "containers": [] } })), async {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        setup.put("", "serviceaccounts", object("ns", "default", "u")).await;
    });
    assert_eq!(pod.expect("a pod")["spec"]["serviceAccountName"], "default");
}

#[tokio::test]
async fn tolerations_of_a_pods_own_stay_alone() {
    let setup = setup().await;
    for (own, added) in [
        (json!([{ "operator": "Exists" }]), 0),
        (json!([{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute" }]), 1),
        (
            json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoSchedule" }]),
            2,
        ),
    ] {
        let given = json!({ "spec": { "containers": [], "tolerations": own } });
        let pod = setup.create("", "pods", given).await.expect("a pod");
        assert_eq!(pod["spec"]["tolerations"].as_array().expect("a list").len(), 1 + added, "{own}");
    }
}

#[tokio::test]
async fn a_pods_priority_is_its_classs() {
    let setup = setup().await;
    let mut class = object("", "high", "u");
    class["value"] = 1000.into();
    class["preemptionPolicy"] = "Never".into();
    setup.put("scheduling.k8s.io", "priorityclasses", class.clone()).await;
    let pod = |extra: Value| {
        let mut spec = json!({ "containers": [], "priorityClassName": "high" });
        for (key, value) in extra.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        json!({ "spec": spec })
    };
    let made = setup.create("", "pods", pod(json!({}))).await.expect("a pod");
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]),
        (&json!(1000), &json!("Never"))
    );
    assert_eq!(
        refused(setup.create("", "pods", pod(json!({ "priority": 7 }))).await),
        "pods \"a\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority \
         admission controller computed 1000 from the given PriorityClass name"
    );
    assert_eq!(
        refused(setup.create("", "pods", pod(json!({ "priorityClassName": "gone" }))).await),
        "pods \"a\" is forbidden: no PriorityClass with name gone was found"
    );
    class["globalDefault"] = true.into();
    setup.put("scheduling.k8s.io", "priorityclasses", class).await;
    let made = setup.create("", "pods", json!({ "spec": { "containers": [] } })).await.expect("a pod");
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["priorityClassName"]),
        (&json!(1000), &json!("high"))
    );
    let second = json!({ "metadata": { "name": "second" }, "globalDefault": true, "value": 1 });
    assert!(
        refused(setup.create("scheduling.k8s.io", "priorityclasses", second).await)
            .ends_with("PriorityClass high is already marked as default. Only one default can exist")
    );
}

#[tokio::test]
async fn a_new_node_is_not_ready_and_storage_is_protected() {
    let setup = setup().await;
    let node = setup.create("", "nodes", json!({})).await.expect("a node");
    assert_eq!(
        node["spec"]["taints"],
        json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }])
    );
    let volume = setup.create("", "persistentvolumes", json!({})).await.expect("a volume");
    assert_eq!(volume["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
}

#[tokio::test]
async fn claims_and_ingresses_get_the_newest_default_class() {
    let setup = setup().await;
    for (name, made, default) in [
        ("old", "2020-01-01T00:00:00Z", true),
        ("new", "2026-01-01T00:00:00Z", true),
        ("other", "2027-01-01T00:00:00Z", false),
    ] {
        let mut class = object("", name, "u");
        class["metadata"]["creationTimestamp"] = made.into();
        class["metadata"]["annotations"] = json!({
            "storageclass.kubernetes.io/is-default-class": default.to_string(),
            "ingressclass.kubernetes.io/is-default-class": default.to_string(),
        });
        setup.put("storage.k8s.io", "storageclasses", class.clone()).await;
        setup.put("networking.k8s.io", "ingressclasses", class).await;
    }
    let claim = setup.create("", "persistentvolumeclaims", json!({ "spec": {} })).await.expect("a claim");
    assert_eq!(claim["spec"]["storageClassName"], "new");
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let none = json!({ "spec": { "storageClassName": "" } });
    let claim = setup.create("", "persistentvolumeclaims", none).await.expect("a claim");
    assert_eq!(claim["spec"]["storageClassName"], "");
    let ingress = setup.create("networking.k8s.io", "ingresses", json!({ "spec": {} })).await.expect("one");
    assert_eq!(ingress["spec"]["ingressClassName"], "new");
}

#[tokio::test]
async fn a_claim_grows_only_where_its_class_lets_it() {
    let setup = setup().await;
    let claim = |size: &str, phase: &str| {
        json!({
            "spec": { "storageClassName": "c", "resources": { "requests": { "storage": size } } },
            "status": { "phase": phase },
        })
    };
    let jane = user("jane", &[]);
    let grow = async |phase: &str| {
        setup.update_as(&jane, "", "persistentvolumeclaims", claim("1Gi", phase), claim("2Gi", phase)).await
    };
    assert!(refused(grow("Pending").await).ends_with("Only bound persistent volume claims can be expanded"));
    assert!(refused(grow("Bound").await).contains("only dynamically provisioned pvc can be resized"));
    let mut class = object("", "c", "u");
    class["allowVolumeExpansion"] = true.into();
    setup.put("storage.k8s.io", "storageclasses", class).await;
    grow("Bound").await.expect("it grows");
}

#[tokio::test]
async fn limits_of_a_namespace_are_filled_in_and_kept() {
    let setup = setup().await;
    let mut range = object("ns", "limits", "u");
    range["spec"] = json!({ "limits": [
        { "type": "Container", "default": { "cpu": "500m" }, "defaultRequest": { "cpu": "100m" },
          "max": { "cpu": "1" }, "min": { "cpu": "50m" }, "maxLimitRequestRatio": { "cpu": "10" } },
        { "type": "Pod", "max": { "cpu": "1" } },
    ] });
    setup.put("", "limitranges", range).await;
    let pod = |containers: Value| json!({ "spec": { "containers": containers } });
    let made = setup.create("", "pods", pod(json!([{ "name": "a" }]))).await.expect("a pod");
    let resources = json!({ "limits": { "cpu": "500m" }, "requests": { "cpu": "100m" } });
    assert_eq!(made["spec"]["containers"][0]["resources"], resources);
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container a; cpu limit for container a"
    );
    let container = |limit: &str, request: &str| json!({ "name": "a", "resources": { "limits": { "cpu": limit }, "requests": { "cpu": request } } });
    for (containers, wanted) in [
        (json!([container("2", "1")]), "maximum cpu usage per Container is 1, but limit is 2"),
        (json!([container("100m", "10m")]), "minimum cpu usage per Container is 50m, but request is 10m"),
        (
            json!([container("900m", "60m")]),
            "cpu max limit to request ratio per Container is 10, but provided ratio is 15.000000",
        ),
        (
            json!([container("600m", "600m"), container("600m", "600m")]),
            "maximum cpu usage per Pod is 1, but limit is 1200m",
        ),
    ] {
        let message = refused(setup.create("", "pods", pod(containers)).await);
        assert!(message.starts_with("pods \"a\" is forbidden: ") && message.contains(wanted), "{message}");
    }
}

#[tokio::test]
async fn a_runtime_class_gives_overhead_and_scheduling() {
    let setup = setup().await;
    let mut class = object("", "sandboxed", "u");
    class["overhead"] = json!({ "podFixed": { "cpu": "250m" } });
    class["scheduling"] =
        json!({ "nodeSelector": { "kind": "big" }, "tolerations": [{ "key": "k", "operator": "Exists" }] });
    setup.put("node.k8s.io", "runtimeclasses", class).await;
    let pod = |mut spec: Value| {
        spec["containers"] = json!([]);
        json!({ "spec": spec })
    };
    let made =
        setup.create("", "pods", pod(json!({ "runtimeClassName": "sandboxed" }))).await.expect("a pod");
    assert_eq!(
        (&made["spec"]["overhead"], &made["spec"]["nodeSelector"]),
        (&json!({ "cpu": "250m" }), &json!({ "kind": "big" }))
    );
    for (spec, wanted) in [
        (json!({ "runtimeClassName": "gone" }), "pod rejected: RuntimeClass \"gone\" not found"),
        (
            json!({ "overhead": { "cpu": "1" } }),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({ "runtimeClassName": "sandboxed", "overhead": { "cpu": "1" } }),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({ "runtimeClassName": "sandboxed", "nodeSelector": { "kind": "small" } }),
            "conflict: runtimeClass.scheduling.nodeSelector[kind] = big; pod.spec.nodeSelector[kind] = small",
        ),
    ] {
        assert_eq!(
            refused(setup.create("", "pods", pod(spec)).await),
            format!("pods \"a\" is forbidden: {wanted}")
        );
    }
}

#[tokio::test]
async fn a_kubelet_changes_only_what_is_its_own() {
    let setup = setup().await;
    let pod = |node: &str| json!({ "metadata": { "name": "a", "namespace": "ns", "uid": "p" }, "spec": { "nodeName": node } });
    setup.put("", "pods", pod("node-b")).await;
    for (result, wanted) in [
        (setup.create_as(&node(), "", "nodes", json!({ "metadata": { "name": "node-b" } })).await, "node \"node-a\" is not allowed to modify node \"node-b\""),
        (
            setup.create_as(&node(), "", "nodes", json!({ "metadata": { "name": "node-a", "labels": { "node-restriction.kubernetes.io/x": "y", "kubernetes.io/hostname": "a" } } })).await,
            "node \"node-a\" is not allowed to set the following labels: node-restriction.kubernetes.io/x",
        ),
        (setup.create_as(&node(), "", "pods", pod("node-a")).await, "node \"node-a\" can only create mirror pods"),
        (setup.create_as(&node(), "", "pods/eviction", json!({})).await, "node node-a can only evict pods with spec.nodeName set to itself"),
        (setup.create_as(&node(), "", "serviceaccounts/token", json!({ "spec": {} })).await, "node requested token not bound to a pod"),
        (
            setup.create_as(&node(), "", "serviceaccounts/token", json!({ "spec": { "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "p" } } })).await,
            "node requested token bound to a pod scheduled on a different node",
        ),
        (setup.create_as(&node(), "coordination.k8s.io", "leases", json!({ "metadata": { "name": "node-a" } })).await, "can only access leases in the \"kube-node-lease\" system namespace"),
        (setup.create_as(&node(), "storage.k8s.io", "csinodes", json!({ "metadata": { "name": "node-b" } })).await, "can only access CSINode with the same name as the requesting node"),
    ] {
        let message = refused(result);
        assert!(message.ends_with(wanted), "{message}");
    }
    setup.create_as(&node(), "", "nodes", json!({ "metadata": { "name": "node-a", "labels": { "kubernetes.io/hostname": "a", "mine": "y" } } })).await.expect("its own");
    let status = setup.update_as(&node(), "", "pods/status", pod("node-b"), pod("node-b")).await;
    assert!(refused(status).contains("can only update pod status for pods with spec.nodeName set to itself"));
    setup.update_as(&node(), "", "pods/status", pod("node-a"), pod("node-a")).await.expect("its own pod");
    let mut tainted = json!({ "metadata": { "name": "node-a" }, "spec": { "taints": [{ "key": "k" }] } });
    let mut review = setup.review(Operation::Update, "", "nodes");
    (review.user, review.name) = (node(), "node-a".to_owned());
    (review.object, review.old) =
        (Some(body(json!({ "metadata": { "name": "node-a" } }))), Some(body(tainted.take())));
    assert!(
        refused(setup.chain.admit(&mut review).await)
            .ends_with("node \"node-a\" is not allowed to modify taints")
    );
}

const CERTIFICATES: &str = "certificates.k8s.io";

fn request(signer: &str, common_name: &str, organization: &str) -> Value {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    let request = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pem);
    json!({ "spec": { "signerName": signer, "request": request } })
}

#[tokio::test]
async fn certificates_are_asked_for_approved_and_signed_by_who_may() {
    let setup = setup().await;
    let plural = "certificatesigningrequests";
    let signer = "kubernetes.io/kube-apiserver-client";
    let masters = request(signer, "x", "system:masters");
    assert!(refused(setup.create(CERTIFICATES, plural, masters).await).ends_with(
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    ));
    let good = request(signer, "jane", "dev");
    setup.create(CERTIFICATES, plural, good.clone()).await.expect("a request");
    let foreign =
        request("kubernetes.io/kube-apiserver-client-kubelet", "system:node:node-b", "system:nodes");
    assert!(
        refused(setup.create_as(&node(), CERTIFICATES, plural, foreign).await)
            .ends_with("can only create a node CSR with CN=system:node:node-a")
    );
    let jane = user("jane", &[]);
    let approve = async |who: &User| {
        setup
            .update_as(who, CERTIFICATES, "certificatesigningrequests/approval", good.clone(), good.clone())
            .await
    };
    assert!(refused(approve(&jane).await).ends_with(
        "user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""
    ));
    let mut role = object("", "approver", "u");
    role["rules"] = json!([{ "verbs": ["approve", "sign"], "apiGroups": [CERTIFICATES], "resources": ["signers"],
        "resourceNames": ["kubernetes.io/*"] }]);
    setup.put(RBAC_GROUP, "clusterroles", role).await;
    let mut binding = object("", "approver", "u");
    binding["roleRef"] = json!({ "apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "approver" });
    binding["subjects"] = json!([{ "kind": "User", "name": "jane" }]);
    setup.put(RBAC_GROUP, "clusterrolebindings", binding).await;
    approve(&jane).await.expect("she may");
    let mut signed = good.clone();
    signed["status"] = json!({ "certificate": "x" });
    let sign = async |who: &User| {
        setup
            .update_as(who, CERTIFICATES, "certificatesigningrequests/status", good.clone(), signed.clone())
            .await
    };
    sign(&jane).await.expect("she may");
    assert!(refused(sign(&user("joe", &[])).await).contains("user not permitted to sign requests"));
}

#[tokio::test]
async fn nobody_grants_a_role_he_does_not_have() {
    let setup = setup().await;
    let rules = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"] }]);
    let message = refused(setup.create(RBAC_GROUP, "roles", json!({ "rules": rules })).await);
    assert_eq!(
        message,
        "roles.rbac.authorization.k8s.io \"a\" is forbidden: user \"jane\" (groups=[]) is attempting to grant RBAC \
         permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    let mut role = object("", "reader", "u");
    role["rules"] = rules.clone();
    setup.put(RBAC_GROUP, "clusterroles", role).await;
    let bind = |kind: &str, name: &str| json!({ "roleRef": { "apiGroup": RBAC_GROUP, "kind": kind, "name": name }, "subjects": [] });
    let binding = setup.create(RBAC_GROUP, "rolebindings", bind("ClusterRole", "reader")).await;
    assert!(refused(binding).contains("is attempting to grant RBAC permissions not currently held"));
    let missing = setup.create(RBAC_GROUP, "rolebindings", bind("ClusterRole", "gone")).await;
    assert_eq!(refused(missing), "clusterroles.rbac.authorization.k8s.io \"gone\" not found");
    let root = user("root", &["system:masters"]);
    setup.create_as(&root, RBAC_GROUP, "clusterroles", json!({ "rules": rules })).await.expect("he may");

    let mut given = object("", "granter", "u");
    given["rules"] = json!([{ "verbs": ["bind"], "apiGroups": [RBAC_GROUP], "resources": ["clusterroles"],
        "resourceNames": ["reader"] }]);
    setup.put(RBAC_GROUP, "clusterroles", given).await;
    let mut grant = object("", "granter", "u");
    grant["roleRef"] = json!({ "apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "granter" });
    grant["subjects"] = json!([{ "kind": "User", "name": "jane" }]);
    setup.put(RBAC_GROUP, "clusterrolebindings", grant).await;
    setup.create(RBAC_GROUP, "rolebindings", bind("ClusterRole", "reader")).await.expect("she may bind it");
    let mut other = object("", "other", "u");
    other["rules"] = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["nodes"] }]);
    setup.put(RBAC_GROUP, "clusterroles", other).await;
    let binding = setup.create(RBAC_GROUP, "rolebindings", bind("ClusterRole", "other")).await;
    assert!(refused(binding).contains("Resources:[\"nodes\"]"));
    let gathers = json!({ "aggregationRule": { "clusterRoleSelectors": [{}] }, "rules": [] });
    assert!(
        refused(setup.create(RBAC_GROUP, "clusterroles", gathers).await)
            .ends_with("must have cluster-admin privileges to use the aggregationRule")
    );
}

#[tokio::test]
async fn plugins_are_switched_by_name() {
    let world = World::new();
    let chain = |enable: &[&str], disable: &[&str]| {
        let authorizer = Authorizer::start(vec![Mode::Rbac], &world.store, &world.registry).expect("rows");
        let context = Context {
            lookup: world.lookup(),
            authorizer: Arc::new(authorizer),
            settings: Settings::default(),
        };
        let names = |list: &[&str]| -> Vec<String> { list.iter().map(|&name| name.to_owned()).collect() };
        Chain::new(context, &names(enable), &names(disable))
            .map(|chain| chain.names().collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    };
    let all = chain(&[], &[]).expect("a chain");
    assert!(all.len() == PLUGINS.len() && all.contains(&"NodeRestriction"), "{all:?}");
    assert!(!chain(&["LimitRanger"], &["Priority"]).expect("a chain").contains(&"Priority"));
    chain(&[], &["PodSecurity"]).expect("what is not here can be off");
    for (enable, disable, wanted) in [
        (&["Nonsense"][..], &[][..], "enable-admission-plugins plugin \"Nonsense\" is unknown"),
        (&[], &["Nonsense"], "disable-admission-plugins plugin \"Nonsense\" is unknown"),
        (&["PodSecurity"], &[], "admission plugin PodSecurity is not part of this server"),
        (
            &["Priority"],
            &["Priority"],
            "Priority in enable-admission-plugins and disable-admission-plugins overlapped",
        ),
    ] {
        assert_eq!(chain(enable, disable).expect_err("refused"), wanted);
    }
}
