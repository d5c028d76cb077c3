//! The server's sockets: TLS, limits, the end.

use std::sync::Arc;
use std::time::Duration;

use corten_apiserver::api::Api;
use corten_apiserver::auth::{Attributes, Decision, User};
use corten_apiserver::hooks::{Authenticator, Authorizer, Der};
use corten_apiserver::http::Limits;
use corten_apiserver::status::{Result, Status};
use futures::future::BoxFuture;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::common::*;

async fn connect(server: &Server, client: Option<(Der, Vec<u8>)>) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.certificate.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
            builder.with_client_auth_cert(vec![certificate.into()], key).expect("a client's certificate")
        }
    };
    let stream = TcpStream::connect(server.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

/// Everything that is answered until the server ends the connection.
async fn exchange(server: &Server, request: &[u8]) -> String {
    let mut stream = connect(server, None).await;
    // A server that refuses early closes before everything is sent.
    if stream.write_all(request).await.is_err() || stream.flush().await.is_err() {
        return String::new();
    }
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the server ends it");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_over_tls() {
    let api = api();
    put_config_map(&api, "a", json!({})).await;
    let server = Server::start(api, Limits::default()).await;
    let answer = exchange(&server, &get("/api/v1/configmaps")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("ConfigMapList"));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_the_server_goes_on() {
    let server = Server::start(api(), Limits::default()).await;
    for request in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/v1/pods HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
    ] {
        let answer = exchange(&server, request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    for path in ["/api/v1/namespaces/%ff%fe/pods", "/%zz"] {
        let answer = exchange(&server, &get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    let answer = exchange(&server, &get("/api/v1/namespaces/%00/pods/..%2f..%2fsecrets")).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(exchange(&server, &get("/livez")).await.ends_with("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_a_limit() {
    let server = Server::start(api(), Limits::default()).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2 << 20));
    let answer = exchange(&server, long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut many = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for at in 0..1000 {
        many.extend_from_slice(format!("x{at}: y\r\n").as_bytes());
    }
    many.extend_from_slice(b"\r\n");
    let answer = exchange(&server, &many).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_is_not_waited_for() {
    let server = Server::start(api(), Limits { head: Duration::from_millis(300), ..Limits::default() }).await;
    let mut stream = connect(&server, None).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("a beginning");
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the server ends it");
    // And one that does not even begin.
    let mut silent = connect(&server, None).await;
    let _ = timeout(SOON, silent.read_to_end(&mut rest)).await.expect("the server ends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let server =
        Server::start(api(), Limits { handshake: Duration::from_millis(200), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the server ends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_costs_others_nothing() {
    let api = api();
    for at in 0..200 {
        let mut object = config_map(&format!("a{at}"), json!({}));
        object["data"]["a"] = "x".repeat(100_000).into();
        put(&api, &format!("configmaps/default/a{at}"), object).await;
    }
    let server = Server::start(api, Limits::default()).await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&server, None).await;
        stream.write_all(&get("/api/v1/configmaps")).await.expect("a request");
        stuck.push(stream);
    }
    assert!(exchange(&server, &get("/livez")).await.ends_with("ok"));
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_requests_and_closes_watches() {
    let api = api();
    put_config_map(&api, "a", json!({})).await;
    let mut server = Server::start(api, Limits::default()).await;
    let mut stream = connect(&server, None).await;
    stream.write_all(&get("/api/v1/configmaps?watch=1")).await.expect("a request");
    let mut begun = [0; 2048];
    let mut read = String::new();
    while !read.contains("ADDED") {
        let length = timeout(SOON, stream.read(&mut begun)).await.expect("in time").expect("a stream");
        read.push_str(&String::from_utf8_lossy(&begun[..length]));
    }
    server.stop();
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the watch ends").expect("in order");
    assert!(String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"), "the body is whole");
    timeout(SOON, &mut server.task).await.expect("the server ends").expect("in order");
}

/// Who shows a certificate, by how many there are in the chain.
struct Shown;

impl Authenticator for Shown {
    fn authenticate<'a>(
        &'a self,
        _: &'a http::request::Parts,
        certificates: &'a [Der],
    ) -> BoxFuture<'a, Result<User>> {
        Box::pin(async move {
            match certificates.len() {
                0 => Ok(User { name: "system:anonymous".to_owned(), ..User::default() }),
                _ => Err(Status::unauthorized()),
            }
        })
    }
}

struct Nobody;

impl Authorizer for Nobody {
    fn authorize<'a>(&'a self, _: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        let public = attributes.path == "/version";
        Box::pin(async move { if public { Decision::Allow } else { Decision::NoOpinion(String::new()) } })
    }
}

fn guarded() -> Arc<Api> {
    api_with(|api| {
        api.authenticator = Box::new(Shown);
        api.authorizer = Box::new(Nobody);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_ca_is_401_and_no_failure_of_tls() {
    let server = Server::start(guarded(), Limits::default()).await;
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(Vec::new()).expect("a certificate").self_signed(&key).expect("signed");
    let mut stream = connect(&server, Some((own.der().to_vec(), key.serialize_der()))).await;
    stream.write_all(&get("/api/v1/pods")).await.expect("a request");
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.expect("in time").expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.contains(r#""message":"Unauthorized""#), "{answer}");
}

#[tokio::test]
async fn what_is_forbidden_is_said_in_upstreams_words() {
    let api = guarded();
    #[rustfmt::skip]
    let cases = [
        ("/api/v1/pods", r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" at the cluster scope"#),
        ("/api/v1/namespaces/default/pods", r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default""#),
        ("/apis/apps/v1/namespaces/a/deployments/b/scale", r#"deployments.apps "b" is forbidden: User "system:anonymous" cannot get resource "deployments/scale" in API group "apps" in the namespace "a""#),
        ("/nope", r#"forbidden: User "system:anonymous" cannot get path "/nope""#),
    ];
    for (path, message) in cases {
        let (code, status) = crate::common::get(&api, path).await;
        assert_eq!(code, 403, "{path}");
        assert_eq!((&status["message"], &status["reason"]), (&json!(message), &json!("Forbidden")));
    }
    assert_eq!(crate::common::get(&api, "/version").await.0, 200);
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    struct Slow;
    impl Authorizer for Slow {
        fn authorize<'a>(&'a self, _: &'a User, _: &'a Attributes) -> BoxFuture<'a, Decision> {
            Box::pin(async {
                std::future::pending::<()>().await;
                Decision::Allow
            })
        }
    }
    let api = api_with(|api| {
        api.authenticator = Box::new(Shown);
        api.authorizer = Box::new(Slow);
        api.config.max_requests_inflight = 2;
    });
    let ask = |path: &'static str| {
        let api = Arc::clone(&api);
        tokio::spawn(async move { send(&api, request(path)).await })
    };
    let waiting = [ask("/api/v1/pods"), ask("/api/v1/pods")];
    while api.in_flight.read_only.load(std::sync::atomic::Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    let response = send(&api, request("/api/v1/pods")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    // Places are given back, also by those who go away.
    for one in waiting {
        one.abort();
        let _ = one.await;
    }
    assert_eq!(api.in_flight.read_only.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_a_timeout() {
    struct Never;
    impl Authorizer for Never {
        fn authorize<'a>(&'a self, _: &'a User, _: &'a Attributes) -> BoxFuture<'a, Decision> {
            Box::pin(std::future::pending())
        }
    }
    let api = api_with(|api| {
        api.authorizer = Box::new(Never);
        api.config.request_timeout = Duration::from_millis(20);
    });
    let (code, status) = crate::common::get(&api, "/api/v1/pods").await;
    assert_eq!((code.as_u16(), &status["reason"]), (504, &json!("Timeout")));
}

#[tokio::test]
async fn one_who_may_not_impersonate_is_refused() {
    let api = api_with(|api| api.authorizer = Box::new(Nobody));
    let asked = request("/version").header("impersonate-user", "other");
    let (code, status) = read(send(&api, asked).await).await;
    assert_eq!(code, 403);
    let message = r#"users "other" is forbidden: User "system:admin" cannot impersonate resource "users" in API group "" at the cluster scope"#;
    assert_eq!(status["message"], message);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_watches_are_carried() {
    let api = api();
    let mut watches = Vec::new();
    for _ in 0..3000 {
        watches.push(Watching::start(&api, "/api/v1/configmaps?watch=1&resourceVersion=1").await);
    }
    put_config_map(&api, "a", json!({})).await;
    for watch in &mut watches {
        watch.expect(&[("ADDED", "a")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_websocket_sends_each_event_as_a_message() {
    let api = api();
    put_config_map(&api, "a", json!({})).await;
    let server = Server::start(Arc::clone(&api), Limits::default()).await;
    let mut stream = connect(&server, None).await;
    let request = "GET /api/v1/configmaps?watch=1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("a request");
    stream.flush().await.expect("a request");
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    let has = |answer: &[u8], what: &[u8]| answer.windows(what.len()).any(|window| window == what);
    while !has(&answer, b"\n") || !has(&answer, b"ADDED") {
        let length = timeout(SOON, stream.read(&mut piece)).await.expect("in time").expect("a stream");
        assert!(length > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..length]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    // RFC 6455's own example, and the head of an unmasked message of text.
    assert!(has(&answer, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(has(&answer, &[b'\r', b'\n', b'\r', b'\n', 0x81]));
}
