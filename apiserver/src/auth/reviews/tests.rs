use serde_json::json;

use super::*;
use crate::auth::authn::Authenticator;
use crate::auth::authz::{Authorizer, Mode, RBAC_GROUP};
use crate::auth::testing::{World, object};
use crate::auth::tokens::{Bound, PublicKeys, Reference, ServiceAccountTokens, Signer, TokenConfig, Wanted};

async fn auth(world: &World) -> Auth {
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let config = TokenConfig {
        issuers: vec!["https://issuer".to_owned()],
        audiences: vec!["https://issuer".to_owned()],
        max_expiration: None,
        extend_expiration: true,
        jwks_uri: None,
    };
    let tokens =
        ServiceAccountTokens::new(config, Signer::of_pem(&key).expect("a key"), PublicKeys::default());
    let authenticator = Authenticator {
        lookup: world.lookup(),
        client_ca: None,
        request_header: None,
        tokens: Some(Arc::clone(&tokens)),
        bootstrap_tokens: false,
        anonymous: true,
    };
    let authorizer =
        Authorizer::start(vec![Mode::Node, Mode::Rbac], &world.store, &world.registry).expect("rows");
    authorizer.wait_ready().await;
    Auth { authenticator: Arc::new(authenticator), authorizer: Arc::new(authorizer), tokens: Some(tokens) }
}

async fn world() -> World {
    let world = World::new();
    let mut role = object("", "pods", "u");
    role["rules"] = json!([
        { "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] },
        { "verbs": ["get"], "nonResourceURLs": ["/healthz"] },
    ]);
    world.put(RBAC_GROUP, "clusterroles", role).await;
    let mut binding = object("", "b", "u");
    binding["roleRef"] = json!({ "apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "pods" });
    binding["subjects"] = json!([{ "kind": "User", "name": "jane" }]);
    world.put(RBAC_GROUP, "clusterrolebindings", binding).await;
    world
}

fn jane() -> User {
    User { name: "jane".to_owned(), ..User::default() }
}

async fn ask(auth: &Auth, kind: &str, namespace: &str, body: Value) -> Result<Value> {
    let mut object = json!({ "kind": kind, "apiVersion": "authorization.k8s.io/v1", "metadata": {} });
    for (key, value) in body.as_object().expect("an object") {
        object[key] = value.clone();
    }
    let object = Object::of(object).expect("an object");
    answer(auth, kind, &jane(), namespace, object).await.map(|object| Value::Object(object.0))
}

#[tokio::test]
async fn somebodys_rights_are_told_with_what_gives_them() {
    let world = world().await;
    let auth = auth(&world).await;
    let pods = json!({ "verb": "get", "resource": "pods", "namespace": "ns", "name": "a" });
    let spec = json!({ "spec": { "user": "jane", "resourceAttributes": pods } });
    let answer = ask(&auth, "SubjectAccessReview", "", spec).await.expect("an answer");
    let reason = r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "pods" to User "jane""#;
    assert_eq!(answer["status"], json!({ "allowed": true, "reason": reason }));
    let spec = json!({ "spec": { "user": "joe", "groups": ["x"], "resourceAttributes": pods } });
    let answer = ask(&auth, "SubjectAccessReview", "", spec).await.expect("an answer");
    assert_eq!(answer["status"], json!({ "allowed": false }));
    let own = json!({ "spec": { "nonResourceAttributes": { "verb": "get", "path": "/healthz" } } });
    let answer = ask(&auth, "SelfSubjectAccessReview", "", own).await.expect("an answer");
    assert_eq!(answer["status"]["allowed"], true);
    let local = json!({
        "metadata": { "namespace": "ns" }, "spec": { "user": "jane", "resourceAttributes": pods },
    });
    let answer = ask(&auth, "LocalSubjectAccessReview", "ns", local.clone()).await.expect("an answer");
    assert_eq!(answer["status"]["allowed"], true);
    let status = ask(&auth, "LocalSubjectAccessReview", "other", local).await.expect_err("another namespace");
    assert_eq!(status.message(), "spec.resourceAttributes.namespace must match namespace: other");
}

#[tokio::test]
async fn a_question_that_is_none_is_refused_in_upstreams_words() {
    let world = World::new();
    let auth = auth(&world).await;
    let status = ask(&auth, "SubjectAccessReview", "", json!({ "spec": {} })).await.expect_err("nothing");
    assert_eq!(
        status.message(),
        "SubjectAccessReview.authorization.k8s.io \"\" is invalid: [spec.resourceAttributes: Invalid value: null: \
         exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": \
         at least one of user or group must be specified]"
    );
    let none = json!({ "spec": {} });
    let status = ask(&auth, "SelfSubjectRulesReview", "", none.clone()).await.expect_err("no namespace");
    assert_eq!((status.code().as_u16(), status.message()), (400, "no namespace on request"));
    let status = ask(&auth, "TokenReview", "", none).await.expect_err("no token");
    assert_eq!(status.message(), "token is required for TokenReview in authentication");
}

#[tokio::test]
async fn ones_own_rules_and_self_are_told() {
    let world = world().await;
    let auth = auth(&world).await;
    let spec = json!({ "spec": { "namespace": "ns" } });
    let answer = ask(&auth, "SelfSubjectRulesReview", "", spec).await.expect("an answer");
    assert_eq!(
        answer["status"],
        json!({
            "resourceRules": [{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }],
            "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": ["/healthz"] }],
            "incomplete": false,
        })
    );
    let answer = ask(&auth, "SelfSubjectReview", "", json!({})).await.expect("an answer");
    assert_eq!(answer["status"]["userInfo"], json!({ "username": "jane" }));
    assert!(answer["metadata"]["creationTimestamp"].is_string());
}

#[tokio::test]
async fn a_token_is_told_whose_it_is_and_for_whom() {
    let world = World::new();
    world.put("", "serviceaccounts", object("ns", "sa", "u")).await;
    let auth = auth(&world).await;
    let wanted = |audience: &str| Wanted {
        namespace: "ns",
        service_account: Reference { name: "sa".to_owned(), uid: "u".to_owned() },
        bound: Bound::Nothing,
        audiences: vec![audience.to_owned()],
        seconds: 600,
    };
    let tokens = auth.tokens.as_ref().expect("tokens");
    let make = |audience: &str| tokens.make(wanted(audience), std::time::SystemTime::now()).token;
    let good = ask(&auth, "TokenReview", "", json!({ "spec": { "token": make("https://issuer") } })).await;
    let status = good.expect("an answer")["status"].clone();
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["https://issuer"])));
    assert_eq!(status["user"]["username"], "system:serviceaccount:ns:sa");
    assert_eq!(
        status["user"]["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"])
    );
    let vault = json!({ "spec": { "token": make("vault"), "audiences": ["vault"] } });
    let answer = ask(&auth, "TokenReview", "", vault).await.expect("an answer");
    assert_eq!(answer["status"]["audiences"], json!(["vault"]));
    for token in [make("vault"), "nonsense".to_owned()] {
        let answer = ask(&auth, "TokenReview", "", json!({ "spec": { "token": token } })).await;
        let status = &answer.expect("an answer")["status"];
        assert!(status.get("authenticated").is_none() && status["error"].is_string(), "{status}");
    }
}
