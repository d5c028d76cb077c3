//! Our server with nodes, pods and their kubelet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_apiserver::api::Api;
use corten_apiserver::connect::Kubelets;
use corten_apiserver::http::{Limits, serve, tls};
use corten_apiserver::object::Object;
use corten_apiserver::registry::Registry;
use corten_store::{Config, Embedded, Put};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::kubelet::Kubelet;

pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub struct Authority {
    pub certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        roots
    }

    /// For a server that lets in only who has a certificate of this authority.
    pub fn server(&self, names: &[&str]) -> rustls::ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), Arc::clone(&provider))
                .build();
        let (chain, key) = self.issue(names);
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_client_cert_verifier(clients.expect("an authority"))
            .with_single_cert(chain, key)
            .expect("a certificate and its key")
    }
}

/// Ends when dropped.
pub struct Cluster {
    pub api: Arc<Api>,
    pub kubelet: Kubelet,
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

pub fn kubelets(authority: &Authority, trusted: &Authority) -> Kubelets {
    let addresses = ["InternalIP", "Hostname"].map(str::to_owned).to_vec();
    let identity = authority.issue(&["kube-apiserver-kubelet-client"]);
    Kubelets::new(Some(identity), Some(trusted.roots()), addresses, Duration::from_secs(5)).expect("TLS")
}

impl Cluster {
    /// Pods `a` (one container) and `two` (several) run on the node; `free` is on none.
    pub async fn start(takes_websockets: bool) -> Self {
        let authority = Authority::new();
        let kubelet = Kubelet::start(authority.server(&["127.0.0.1"]), takes_websockets).await;
        let kubelets = kubelets(&authority, &authority);
        Self::with(kubelet, kubelets, takes_websockets).await
    }

    pub async fn with(kubelet: Kubelet, kubelets: Kubelets, takes_websockets: bool) -> Self {
        let store = Arc::new(Embedded::memory(Config::default()).expect("a store in memory"));
        let mut api = Api::new(store, Registry::built_in());
        api.kubelets = kubelets;
        let api = Arc::new(api);
        let features = if takes_websockets { json!(["ExtendWebSocketsToKubelet"]) } else { json!([]) };
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}, "status": {
            "addresses": [{"type": "Hostname", "address": "n.invalid"}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}}, "declaredFeatures": features}});
        put(&api, "minions/n", node).await;
        for (name, node, containers) in [
            ("a", "n", &["main"][..]),
            ("two", "n", &["one", "other"]),
            ("gone", "n", &["main"]),
            ("waiting", "n", &["main"]),
            ("free", "", &["main"]),
        ] {
            put(&api, &format!("pods/default/{name}"), pod(name, node, containers)).await;
        }
        let (address, stop) = listen(Arc::clone(&api)).await;
        Self { api, kubelet, address, _stop: stop }
    }

    /// Code and body of what the server answers without a socket.
    pub async fn ask(&self, method: &str, path: &str) -> (StatusCode, String) {
        let request =
            Request::builder().method(method).uri(path).body(Full::new(Bytes::new())).expect("a request");
        let response = self.api.handle(request).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        (code, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Code and message of a Status.
    pub async fn refused(&self, method: &str, path: &str) -> (u16, String) {
        let (code, body) = self.ask(method, path).await;
        let status: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("no Status: {body}"));
        (code.as_u16(), status["message"].as_str().unwrap_or_default().to_owned())
    }
}

async fn listen(api: Arc<Api>) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let address = listener.local_addr().expect("an address");
    let (chain, key) = Authority::new().issue(&["127.0.0.1"]);
    let signing = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key that signs");
    let own = rustls::sign::CertifiedKey::new(chain, signing);
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(own));
    let tls = tls::config(resolver, Vec::new()).expect("TLS");
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    tokio::spawn(serve(api, listener, Some(tls), Limits::default(), stopped));
    (address, stop)
}

pub fn pod(name: &str, node: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> =
        containers.iter().map(|name| json!({"name": name, "image": "busybox", "resources": {}})).collect();
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"nodeName": node, "containers": containers}, "status": {"phase": "Running"}})
}

/// Writes an object past all verbs.
pub async fn put(api: &Api, key: &str, value: Value) {
    let value = Object::of(value).expect("an object").encode();
    let swap = api.store.put(Put::create(format!("/registry/{key}").into_bytes(), value)).await;
    swap.expect("a store").done().expect("nobody else writes");
}

/// An address of this machine that others could reach; nothing is sent to find it.
pub fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}
