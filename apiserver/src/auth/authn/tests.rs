use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::*;
use crate::auth::extra;
use crate::auth::testing::{World, object};
use crate::auth::tokens::{Bound, PublicKeys, Reference, Signer, TokenConfig, Wanted};
use crate::pki::{self, Authority, Leaf, Usage};

struct Setup {
    _root: tempfile::TempDir,
    world: World,
    ca: Authority,
    front: Authority,
    authenticator: Authenticator,
}

fn settings(root: &std::path::Path) -> pki::Settings {
    pki::Settings {
        certificates: root.join("pki"),
        kubeconfigs: root.to_owned(),
        server: "https://127.0.0.1:6443".to_owned(),
        advertise: [127, 0, 0, 1].into(),
        service: [10, 96, 0, 1].into(),
        dns_domain: "cluster.local".to_owned(),
        node_name: None,
        extra_names: Vec::new(),
    }
}

fn authority(settings: &pki::Settings, name: &str) -> Authority {
    let at = |end: &str| settings.certificates.join(format!("{name}.{end}"));
    Authority::load(&at("crt"), &at("key"), SystemTime::now()).expect("an authority")
}

fn setup() -> Setup {
    let root = tempfile::tempdir().expect("a directory");
    let settings = settings(root.path());
    pki::ensure(&settings, SystemTime::now()).expect("certificates");
    let layout = pki::Layout(settings.certificates.clone());
    let world = World::new();
    let config = TokenConfig {
        issuers: vec!["https://issuer".to_owned()],
        audiences: vec!["https://issuer".to_owned()],
        max_expiration: None,
        extend_expiration: true,
        jwks_uri: None,
    };
    let signer = Signer::load(&layout.service_account_key()).expect("a key");
    let public = layout.service_account_public();
    let keys = PublicKeys::load([public.as_path()]).expect("a key");
    let authenticator = Authenticator {
        lookup: world.lookup(),
        client_ca: Some(ClientCa::load(&layout.ca()).expect("an authority")),
        request_header: Some(RequestHeader {
            ca: ClientCa::load(&layout.front_proxy_ca()).expect("an authority"),
            config: RequestHeaderConfig::default(),
        }),
        tokens: Some(ServiceAccountTokens::new(config, signer, keys)),
        bootstrap_tokens: true,
        anonymous: true,
    };
    let (ca, front) = (authority(&settings, "ca"), authority(&settings, "front-proxy-ca"));
    Setup { _root: root, world, ca, front, authenticator }
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM").to_vec()
}

fn certificate(authority: &Authority, leaf: &Leaf) -> Vec<Vec<u8>> {
    vec![der(&pki::issue(leaf, authority, SystemTime::now()).expect("a certificate").0)]
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

impl Setup {
    async fn ask(&self, pairs: &[(&str, &str)], certificates: &[Vec<u8>]) -> Result<User> {
        self.authenticator.at(&headers(pairs), certificates, SystemTime::now()).await
    }

    async fn refused(&self, pairs: &[(&str, &str)], certificates: &[Vec<u8>]) {
        let status = self.ask(pairs, certificates).await.expect_err("refused");
        assert_eq!((status.code().as_u16(), status.message()), (401, "Unauthorized"));
    }

    async fn token(&self) -> String {
        self.world.put("", "serviceaccounts", object("ns", "sa", "u")).await;
        let account = Reference { name: "sa".to_owned(), uid: "u".to_owned() };
        let wanted = Wanted {
            namespace: "ns",
            service_account: account,
            bound: Bound::Nothing,
            audiences: vec!["https://issuer".to_owned()],
            seconds: 600,
        };
        let tokens = self.authenticator.tokens.as_ref().expect("tokens");
        tokens.make(wanted, SystemTime::now()).token
    }
}

#[tokio::test]
async fn without_credentials_one_is_nobody() {
    let mut setup = setup();
    let user = setup.ask(&[], &[]).await.expect("nobody");
    assert_eq!(
        (&*user.name, &*user.groups),
        ("system:anonymous", &["system:unauthenticated".to_owned()][..])
    );
    for other in [("authorization", "Basic YTpi"), ("authorization", "Bearer"), ("authorization", "Bearer ")]
    {
        assert_eq!(setup.ask(&[other], &[]).await.expect("no token").name, "system:anonymous");
    }
    setup.authenticator.anonymous = false;
    setup.refused(&[], &[]).await;
}

#[tokio::test]
async fn a_client_certificate_names_user_and_groups() {
    let mut setup = setup();
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "jane");
    params.distinguished_name.push(DnType::OrganizationName, "dev");
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "ops");
    params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "u1");
    let leaf = params.signed_by(&KeyPair::generate().expect("a key"), &ca).expect("a certificate");
    setup.authenticator.client_ca = Some(ClientCa::of_pem("ca", ca.pem().as_bytes()).expect("an authority"));
    let chain = [leaf.der().to_vec()];
    for _cached in 0..2 {
        let user = setup.ask(&[], &chain).await.expect("jane");
        assert_eq!((&*user.name, &*user.uid), ("jane", "u1"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        let id = &user.extra[extra::CREDENTIAL_ID][0];
        assert!(id.starts_with("X509SHA256=") && id.len() == 11 + 64, "{id}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_also_when_it_was_known() {
    let setup = setup();
    let leaf = Leaf::client("jane", &[]);
    let hour = Duration::from_hours(1);
    let (pem, _) = pki::issue_for(&leaf, &setup.ca, hour, SystemTime::now()).expect("a certificate");
    let chain = [der(&pem)];
    setup.ask(&[], &chain).await.expect("jane");
    let later = SystemTime::now() + 2 * hour;
    assert!(setup.authenticator.at(&headers(&[]), &chain, later).await.is_err());
    let earlier = SystemTime::now() - hour;
    let unknown = [der(&pki::issue_for(&leaf, &setup.ca, hour, SystemTime::now()).expect("one").0)];
    assert!(setup.authenticator.at(&headers(&[]), &unknown, earlier).await.is_err());
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority_is_refused() {
    let (setup, other) = (setup(), super::tests::setup());
    let root = Leaf::client("admin", &["system:masters"]);
    setup.refused(&[], &certificate(&other.ca, &root)).await;
    // The front proxy's authority is believed about proxies only.
    setup.refused(&[], &certificate(&setup.front, &root)).await;
    // With the right authority sent along.
    let mut chain = certificate(&other.ca, &root);
    chain.push(setup.ca.der.to_vec());
    chain.push(other.ca.der.to_vec());
    setup.refused(&[], &chain).await;
}

#[tokio::test]
async fn a_server_certificate_and_an_authority_are_no_clients() {
    let setup = setup();
    let server = Leaf { usage: Usage::Server, ..Leaf::client("kube-apiserver", &[]) };
    setup.refused(&[], &certificate(&setup.ca, &server)).await;
    setup.refused(&[], &[setup.ca.der.to_vec()]).await;
    setup.refused(&[], &[b"nonsense".to_vec()]).await;
    setup.refused(&[], &[Vec::new()]).await;
    let mut long = certificate(&setup.ca, &Leaf::client("jane", &[]));
    long.extend(std::iter::repeat_n(setup.ca.der.to_vec(), 50));
    setup.refused(&[], &long).await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_does_not_make_one_nobody() {
    let setup = setup();
    setup.refused(&[("authorization", "Bearer nonsense")], &[]).await;
    setup.refused(&[("authorization", &format!("Bearer {}", "A".repeat(100_000)))], &[]).await;
    // Other credentials of the same request may be right.
    let chain = certificate(&setup.ca, &Leaf::client("jane", &[]));
    let user = setup.ask(&[("authorization", "Bearer nonsense")], &chain).await.expect("jane");
    assert_eq!(user.name, "jane");
    let foreign = certificate(&super::tests::setup().ca, &Leaf::client("admin", &["system:masters"]));
    let token = format!("Bearer {}", setup.token().await);
    let user = setup.ask(&[("authorization", &token)], &foreign).await.expect("the token's");
    assert_eq!(user.name, "system:serviceaccount:ns:sa");
}

#[tokio::test]
async fn a_token_comes_in_a_header_or_as_a_websocket_protocol() {
    let setup = setup();
    let token = setup.token().await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let user = setup.ask(&[("authorization", &format!("{scheme} {token}"))], &[]).await.expect("a user");
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert!(user.is_in("system:authenticated"));
    }
    let protocol = format!(
        "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.{}",
        BASE64_URL_SAFE_NO_PAD.encode(&token)
    );
    let upgrade = [("upgrade", "websocket"), ("sec-websocket-protocol", &*protocol)];
    assert_eq!(setup.ask(&upgrade, &[]).await.expect("a user").name, "system:serviceaccount:ns:sa");
    assert_eq!(setup.ask(&upgrade[1..], &[]).await.expect("no upgrade").name, "system:anonymous");
}

#[tokio::test]
async fn a_front_proxy_says_who_asks() {
    let setup = setup();
    let proxy = certificate(&setup.front, &Leaf::client("front-proxy-client", &[]));
    let said = [
        ("x-remote-user", "jane"),
        ("x-remote-uid", "u1"),
        ("x-remote-group", "a"),
        ("x-remote-group", "b"),
        ("x-remote-extra-scopes%2fx", "one"),
        ("x-remote-extra-scopes%2fx", "two"),
    ];
    let user = setup.ask(&said, &proxy).await.expect("jane");
    assert_eq!((&*user.name, &*user.uid), ("jane", "u1"));
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(user.extra["scopes/x"], ["one", "two"]);
}

#[tokio::test]
async fn a_front_proxys_headers_mean_nothing_from_anybody_else() {
    let setup = setup();
    let said = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
    assert_eq!(setup.ask(&said, &[]).await.expect("nobody").name, "system:anonymous");
    let jane = certificate(&setup.ca, &Leaf::client("jane", &[]));
    let user = setup.ask(&said, &jane).await.expect("jane");
    assert!(user.name == "jane" && !user.is_in("system:masters"), "{user:?}");
    // Of the right authority, but not a proxy by name.
    let other = certificate(&setup.front, &Leaf::client("other", &[]));
    setup.refused(&said, &other).await;
    // A client of the cluster that calls itself the proxy.
    let liar = certificate(&setup.ca, &Leaf::client("front-proxy-client", &[]));
    let user = setup.ask(&said, &liar).await.expect("itself");
    assert!(user.name == "front-proxy-client" && !user.is_in("system:masters"), "{user:?}");
}

fn bootstrap_secret(change: impl FnOnce(&mut Value)) -> Value {
    let mut data = json!({
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        "expiration": "2999-01-01T00:00:00Z", "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    });
    change(&mut data);
    for value in data.as_object_mut().expect("an object").values_mut() {
        *value = BASE64_STANDARD.encode(value.as_str().expect("text")).into();
    }
    let mut secret = object("kube-system", "bootstrap-token-abcdef", "u");
    secret["type"] = "bootstrap.kubernetes.io/token".into();
    secret["data"] = data;
    secret
}

#[tokio::test]
async fn a_bootstrap_token_makes_a_bootstrapper_until_it_expires() {
    let mut setup = setup();
    let header = [("authorization", "Bearer abcdef.0123456789abcdef")];
    setup.refused(&header, &[]).await;
    setup.world.put("", "secrets", bootstrap_secret(|_| {})).await;
    let user = setup.ask(&header, &[]).await.expect("a bootstrapper");
    assert_eq!(user.name, "system:bootstrap:abcdef");
    let groups =
        ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"];
    assert_eq!(user.groups, groups);
    setup.refused(&[("authorization", "Bearer abcdef.0123456789abcdeg")], &[]).await;
    setup.refused(&[("authorization", "Bearer ABCDEF.0123456789abcdef")], &[]).await;
    setup.refused(&[("authorization", "Bearer ../../.0123456789abcdef")], &[]).await;
    for (key, value) in [
        ("expiration", "2020-01-01T00:00:00Z"),
        ("expiration", "nonsense"),
        ("usage-bootstrap-authentication", "false"),
        ("token-id", "fedcba"),
        ("auth-extra-groups", "system:masters"),
        ("auth-extra-groups", "system:bootstrappers:"),
    ] {
        setup.world.put("", "secrets", bootstrap_secret(|data| data[key] = value.into())).await;
        setup.refused(&header, &[]).await;
    }
    setup.world.put("", "secrets", bootstrap_secret(|_| {})).await;
    setup.ask(&header, &[]).await.expect("a bootstrapper");
    let mut opaque = bootstrap_secret(|_| {});
    opaque["type"] = "Opaque".into();
    setup.world.put("", "secrets", opaque).await;
    setup.refused(&header, &[]).await;
    setup.world.put("", "secrets", bootstrap_secret(|_| {})).await;
    setup.authenticator.bootstrap_tokens = false;
    setup.refused(&header, &[]).await;
}

#[test]
fn the_cache_is_bounded_and_forgets_in_time() {
    let cache = cache::Cache::new(8);
    let now = SystemTime::now();
    let key = |number: u32| cache::Cache::<u32>::key([&number.to_be_bytes()[..]]);
    for number in 0..100 {
        cache.put(key(number), Arc::new(number), now + Duration::from_secs(10), now);
    }
    let known = (0..100).filter(|number| cache.get(&key(*number), now).is_some()).count();
    assert!((1..=8).contains(&known), "{known}");
    assert!(cache.get(&key(99), now + Duration::from_secs(10)).is_none());
}
