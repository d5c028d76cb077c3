use ring::hmac;

use super::*;
use crate::auth::authn::{Proven, Refusal};
use crate::auth::testing::{World, object};
use crate::auth::{User, extra};
use crate::pki::pkcs8;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn config() -> TokenConfig {
    TokenConfig {
        issuers: vec![ISSUER.to_owned(), "https://old.example".to_owned()],
        audiences: vec![ISSUER.to_owned()],
        max_expiration: None,
        extend_expiration: true,
        jwks_uri: None,
    }
}

fn tokens_with(pem: &str) -> Arc<ServiceAccountTokens> {
    ServiceAccountTokens::new(config(), Signer::of_pem(pem).expect("a key"), PublicKeys::default())
}

fn pem() -> String {
    rcgen::KeyPair::generate().expect("a key").serialize_pem()
}

fn tokens() -> Arc<ServiceAccountTokens> {
    tokens_with(&pem())
}

async fn world() -> World {
    let world = World::new();
    world.put("", "serviceaccounts", object("ns", "sa", "sa-uid")).await;
    world.put("", "pods", object("ns", "pod", "pod-uid")).await;
    world.put("", "secrets", object("ns", "secret", "secret-uid")).await;
    world.put("", "nodes", object("", "node", "node-uid")).await;
    world
}

fn reference(name: &str) -> Reference {
    Reference { name: name.to_owned(), uid: format!("{name}-uid") }
}

fn wanted(bound: Bound) -> Wanted<'static> {
    Wanted {
        namespace: "ns",
        service_account: reference("sa"),
        bound,
        audiences: vec![ISSUER.to_owned()],
        seconds: 3600,
    }
}

async fn verify(
    tokens: &ServiceAccountTokens,
    world: &World,
    token: &str,
) -> Result<Option<Proven>, Refusal> {
    tokens.verify(&world.lookup(), token, None, SystemTime::now()).await
}

/// The three parts of a token, decoded; and how to put changed ones together again.
fn parts(token: &str) -> (Value, Value, String) {
    let parsed = jwt::parse(token).expect("a token");
    let header = token.split('.').next().expect("a header");
    let header = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, header).expect("base64");
    let signature = token.rsplit('.').next().expect("a signature").to_owned();
    (serde_json::from_slice(&header).expect("JSON"), parsed.payload, signature)
}

fn joined(header: &Value, payload: &Value, signature: &str) -> String {
    let part = |value: &Value| jwt::encode(value.to_string().as_bytes());
    format!("{}.{}.{signature}", part(header), part(payload))
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut claims = json!({
        "iss": ISSUER, "sub": "system:serviceaccount:ns:sa", "aud": [ISSUER],
        "exp": now + 600, "iat": now, "nbf": now, "jti": "x",
        "kubernetes.io": { "namespace": "ns", "serviceaccount": { "name": "sa", "uid": "sa-uid" } },
    });
    change(&mut claims);
    claims
}

#[tokio::test]
async fn a_token_says_who_it_is_of_and_what_it_is_bound_to() {
    let (world, tokens) = (world().await, tokens());
    let bound = Bound::Pod { pod: reference("pod"), node: Some(reference("node")) };
    let made = tokens.make(wanted(bound), SystemTime::now());
    let proven = verify(&tokens, &world, &made.token).await.expect("good").expect("ours");
    assert_eq!(proven.audiences, [ISSUER]);
    let User { name, uid, groups, extra } = proven.user;
    assert_eq!((&*name, &*uid), ("system:serviceaccount:ns:sa", "sa-uid"));
    assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
    for (key, value) in [
        (extra::POD_NAME, "pod".to_owned()),
        (extra::POD_UID, "pod-uid".to_owned()),
        (extra::NODE_NAME, "node".to_owned()),
        (extra::NODE_UID, "node-uid".to_owned()),
        (extra::CREDENTIAL_ID, format!("JTI={}", made.id)),
    ] {
        assert_eq!(extra[key], [value], "{key}");
    }
    let (header, payload, _) = parts(&made.token);
    assert_eq!(header["alg"], "ES256");
    let keys: Vec<&String> = payload.as_object().expect("claims").keys().collect();
    assert_eq!(keys, ["aud", "exp", "iat", "iss", "jti", "kubernetes.io", "nbf", "sub"]);
}

#[tokio::test]
async fn a_kubelets_token_lives_longer_than_it_was_asked_for_and_warns() {
    let tokens = tokens();
    let pod = || Bound::Pod { pod: reference("pod"), node: None };
    let now = SystemTime::now();
    let lifetime = |made: &Made| {
        let (_, payload, _) = parts(&made.token);
        let seconds = |value: &Value| value.as_u64().expect("a number");
        (
            seconds(&payload["exp"]) - seconds(&payload["iat"]),
            !payload["kubernetes.io"]["warnafter"].is_null(),
        )
    };
    let made = tokens.make(Wanted { seconds: 3607, ..wanted(pod()) }, now);
    assert_eq!(lifetime(&made), (EXTENDED, true));
    assert_eq!(made.expires, now + Duration::from_secs(3607));
    assert_eq!(lifetime(&tokens.make(wanted(pod()), now)), (3600, false));
    assert_eq!(
        lifetime(&tokens.make(Wanted { seconds: 3607, ..wanted(Bound::Nothing) }, now)),
        (3607, false)
    );
    let foreign = Wanted { seconds: 3607, audiences: vec!["vault".to_owned()], ..wanted(pod()) };
    assert_eq!(lifetime(&tokens.make(foreign, now)), (3607, false));
}

#[tokio::test]
async fn a_token_dies_with_what_it_is_bound_to() {
    for (plural, namespace, name, bound) in [
        ("pods", "ns", "pod", Bound::Pod { pod: reference("pod"), node: None }),
        ("secrets", "ns", "secret", Bound::Secret(reference("secret"))),
        ("nodes", "", "node", Bound::Node(reference("node"))),
        ("serviceaccounts", "ns", "sa", Bound::Nothing),
    ] {
        let (world, tokens) = (world().await, tokens());
        let token = tokens.make(wanted(bound), SystemTime::now()).token;
        verify(&tokens, &world, &token).await.expect("good while it is there").expect("ours");
        // Deleted and made again: another one.
        world.put("", plural, object(namespace, name, "another")).await;
        let why = verify(&tokens, &world, &token).await.expect_err("another object");
        assert!(why.contains("UID (another) does not match"), "{why}");
        world.delete("", plural, namespace, name).await;
        let why = verify(&tokens, &world, &token).await.expect_err("no object");
        assert!(why.contains("invalidated") || why.contains("not found"), "{why}");
    }
}

#[tokio::test]
async fn a_token_of_a_pod_that_should_be_gone_is_refused() {
    let (world, tokens) = (world().await, tokens());
    let token =
        tokens.make(wanted(Bound::Pod { pod: reference("pod"), node: None }), SystemTime::now()).token;
    let mut pod = object("ns", "pod", "pod-uid");
    // Within its grace it may still say goodbye.
    pod["metadata"]["deletionTimestamp"] = fresh::now().into();
    world.put("", "pods", pod.clone()).await;
    verify(&tokens, &world, &token).await.expect("good").expect("ours");
    pod["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    world.put("", "pods", pod).await;
    assert!(verify(&tokens, &world, &token).await.expect_err("gone").contains("invalidated"));
}

#[tokio::test]
async fn a_token_without_a_signature_is_refused() {
    let (world, tokens) = (world().await, tokens());
    let (_, payload, signature) = parts(&tokens.make(wanted(Bound::Nothing), SystemTime::now()).token);
    for alg in ["none", "None", "NONE", ""] {
        let header = json!({ "alg": alg, "kid": tokens.signer.public().id });
        for signature in ["", &*signature] {
            let token = joined(&header, &payload, signature);
            assert_eq!(
                verify(&tokens, &world, &token).await.expect_err("refused"),
                "invalid signature",
                "{alg}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_signed_with_the_public_key_as_a_secret_is_refused() {
    let (world, tokens) = (world().await, tokens());
    let key = rcgen::KeyPair::from_pem(&pem()).expect("a key");
    for secret in [
        tokens.jwks().to_string().into_bytes(),
        rcgen::PublicKeyData::subject_public_key_info(&key),
        key.public_key_pem().into_bytes(),
        Vec::new(),
    ] {
        let header = json!({ "alg": "HS256", "kid": tokens.signer.public().id });
        let unsigned = joined(&header, &claims(|_| {}), "");
        let unsigned = unsigned.trim_end_matches('.');
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), unsigned.as_bytes());
        let token = format!("{unsigned}.{}", jwt::encode(signature.as_ref()));
        assert_eq!(verify(&tokens, &world, &token).await.expect_err("refused"), "invalid signature");
    }
}

#[tokio::test]
async fn a_token_of_another_key_is_refused_whatever_its_key_id_says() {
    let (world, tokens) = (world().await, tokens());
    let thief = tokens_with(&pem());
    let (header, payload, signature) = parts(&thief.make(wanted(Bound::Nothing), SystemTime::now()).token);
    let token = joined(&header, &payload, &signature);
    assert_eq!(
        verify(&tokens, &world, &token).await.expect_err("refused"),
        "invalid signature, no keys found"
    );
    let ours = json!({ "alg": "ES256", "kid": tokens.signer.public().id });
    let token = joined(&ours, &payload, &signature);
    assert_eq!(verify(&tokens, &world, &token).await.expect_err("refused"), "invalid signature");
    let nameless = json!({ "alg": "ES256" });
    let token = joined(&nameless, &payload, &signature);
    assert_eq!(verify(&tokens, &world, &token).await.expect_err("refused"), "invalid signature");
}

#[tokio::test]
async fn a_token_with_changed_claims_is_refused() {
    let (world, tokens) = (world().await, tokens());
    let (header, mut payload, signature) =
        parts(&tokens.make(wanted(Bound::Nothing), SystemTime::now()).token);
    payload["sub"] = "system:serviceaccount:kube-system:admin".into();
    let token = joined(&header, &payload, &signature);
    assert_eq!(verify(&tokens, &world, &token).await.expect_err("refused"), "invalid signature");
}

#[tokio::test]
async fn a_token_that_embeds_its_key_or_demands_extensions_is_refused() {
    let (world, tokens) = (world().await, tokens());
    let thief = tokens_with(&pem());
    let (_, payload, signature) = parts(&thief.make(wanted(Bound::Nothing), SystemTime::now()).token);
    let header = json!({ "alg": "ES256", "jwk": thief.jwks()["keys"][0], "x5u": "https://thief.example" });
    let token = joined(&header, &payload, &signature);
    assert_eq!(verify(&tokens, &world, &token).await.expect_err("refused"), "invalid signature");
    // Signed by us, with an extension that we do not know: sign over the changed header.
    let critical = json!({ "alg": "ES256", "crit": ["exp"], "kid": tokens.signer.public().id });
    let token = joined(&critical, &payload, &signature);
    assert!(verify(&tokens, &world, &token).await.is_err());
}

#[tokio::test]
async fn a_token_of_a_foreign_issuer_is_not_ours() {
    let (world, tokens) = (world().await, tokens());
    let token = tokens.signer.sign(&claims(|claims| claims["iss"] = "https://elsewhere.example".into()));
    assert_eq!(verify(&tokens, &world, &token).await.expect("not ours"), None);
    let token = tokens.signer.sign(&claims(|claims| claims["iss"] = "https://old.example".into()));
    verify(&tokens, &world, &token).await.expect("good").expect("a former issuer of ours");
}

#[tokio::test]
async fn a_token_for_a_foreign_audience_is_refused_here_and_good_there() {
    let (world, tokens) = (world().await, tokens());
    let token = tokens
        .make(Wanted { audiences: vec!["vault".to_owned()], ..wanted(Bound::Nothing) }, SystemTime::now());
    let why = verify(&tokens, &world, &token.token).await.expect_err("refused");
    assert!(why.starts_with("token audiences [\"vault\"] is invalid for the target audiences"), "{why}");
    let vault = ["vault".to_owned(), "other".to_owned()];
    let proven = tokens.verify(&world.lookup(), &token.token, Some(&vault), SystemTime::now()).await;
    assert_eq!(proven.expect("good").expect("ours").audiences, ["vault"]);
}

#[tokio::test]
async fn a_token_is_refused_before_and_after_its_time() {
    let (world, tokens) = (world().await, tokens());
    let now = SystemTime::now();
    let token = tokens.make(wanted(Bound::Nothing), now).token;
    let at = async |at: SystemTime| tokens.verify(&world.lookup(), &token, None, at).await;
    at(now + Duration::from_secs(3659)).await.expect("clocks differ").expect("ours");
    let later = now + Duration::from_secs(3662);
    assert_eq!(at(later).await.expect_err("over"), "service account token has expired");
    let earlier = now - Duration::from_mins(2);
    assert_eq!(at(earlier).await.expect_err("early"), "service account token is not valid yet");
    let endless = tokens.signer.sign(&claims(|claims| {
        claims.as_object_mut().expect("claims").remove("exp");
    }));
    assert_eq!(
        verify(&tokens, &world, &endless).await.expect_err("no end"),
        "service account token has expired"
    );
}

#[tokio::test]
async fn what_is_no_token_is_not_ours_whatever_its_form() {
    let (world, tokens) = (world().await, tokens());
    let good = tokens.make(wanted(Bound::Nothing), SystemTime::now()).token;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b.c".to_owned(),
        "😀.😀.😀".to_owned(),
        format!("{}.{}.x", jwt::encode(b"{}"), jwt::encode(b"[]")),
        format!("{0}.{0}.{0}", jwt::encode(deep.as_bytes())),
        format!("{0}.{0}.{0}", jwt::encode(&[0xff; 64])),
        format!("{good}."),
        format!("{good}.{good}"),
        format!("{good}="),
        "A".repeat(1 << 20),
    ] {
        let answer = verify(&tokens, &world, &token).await;
        assert!(!matches!(answer, Ok(Some(_))), "{} is no token", &token[..token.floor_char_boundary(80)]);
    }
    for length in 0..good.len() {
        let answer = verify(&tokens, &world, &good[..length]).await;
        assert!(!matches!(answer, Ok(Some(_))), "cut at {length}");
    }
    verify(&tokens, &world, &good).await.expect("good").expect("ours");
}

#[tokio::test]
async fn rsa_keys_of_kubeadm_sign_and_verify() {
    let pem = include_str!("../../pki/testdata/pkcs1.key");
    let (world, tokens) = (world().await, tokens_with(pem));
    let token = tokens.make(wanted(Bound::Nothing), SystemTime::now()).token;
    assert_eq!(parts(&token).0["alg"], "RS256");
    verify(&tokens, &world, &token).await.expect("good").expect("ours");
    assert!(pkcs8(pem).is_ok());
    let jwk = &tokens.jwks()["keys"][0];
    assert_eq!((&jwk["kty"], &jwk["alg"], &jwk["e"]), (&json!("RSA"), &json!("RS256"), &json!("AQAB")));
}

#[tokio::test]
async fn a_former_key_verifies_while_it_is_listed() {
    let world = world().await;
    let old = tokens();
    let token = old.make(wanted(Bound::Nothing), SystemTime::now()).token;
    let mut keys = PublicKeys::default();
    keys.add(old.signer.public());
    let new = ServiceAccountTokens::new(config(), Signer::of_pem(&pem()).expect("a key"), keys);
    verify(&new, &world, &token).await.expect("good").expect("ours");
    assert_eq!(new.jwks()["keys"].as_array().expect("keys").len(), 2);
    assert!(verify(&tokens(), &world, &token).await.is_err());
}

fn legacy_secret(token: &str) -> Value {
    let mut secret = object("ns", "sa-token", "u");
    secret["type"] = "kubernetes.io/service-account-token".into();
    secret["data"] = json!({ "token": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, token) });
    secret
}

#[tokio::test]
async fn a_legacy_token_is_good_while_its_secret_holds_it() {
    let (world, tokens) = (world().await, tokens());
    let token = tokens.signer.sign(&json!({
        "iss": LEGACY_ISSUER, "sub": "system:serviceaccount:ns:sa",
        "kubernetes.io/serviceaccount/namespace": "ns",
        "kubernetes.io/serviceaccount/secret.name": "sa-token",
        "kubernetes.io/serviceaccount/service-account.name": "sa",
        "kubernetes.io/serviceaccount/service-account.uid": "sa-uid",
    }));
    assert_eq!(verify(&tokens, &world, &token).await.expect_err("no secret"), "Token has been invalidated");
    world.put("", "secrets", legacy_secret("another")).await;
    let why = verify(&tokens, &world, &token).await.expect_err("another token");
    assert_eq!(why, "Token does not match server's copy");
    world.put("", "secrets", legacy_secret(&token)).await;
    let proven = verify(&tokens, &world, &token).await.expect("good").expect("ours");
    assert_eq!(proven.user.name, "system:serviceaccount:ns:sa");
    let mut invalid = legacy_secret(&token);
    invalid["metadata"]["labels"] = json!({ "kubernetes.io/legacy-token-invalid-since": "2026-01-01" });
    world.put("", "secrets", invalid).await;
    assert!(verify(&tokens, &world, &token).await.expect_err("invalid").contains("has been marked invalid"));
}

#[test]
fn discovery_tells_the_issuer_and_its_keys() {
    let tokens = tokens();
    let configuration = tokens.configuration("192.0.2.7:6443").expect("an https issuer");
    assert_eq!(configuration["issuer"], ISSUER);
    assert_eq!(configuration["jwks_uri"], "https://192.0.2.7:6443/openid/v1/jwks");
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let jwk = &tokens.jwks()["keys"][0];
    assert_eq!((&jwk["kty"], &jwk["crv"], &jwk["use"]), (&json!("EC"), &json!("P-256"), &json!("sig")));
    assert_eq!(jwk["kid"], tokens.signer.public().id);
}
