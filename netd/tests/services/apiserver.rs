//! The source for an apiserver, against a small one: lists, watches, and a connection that breaks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use corten_netd::services::model::Place;
use corten_netd::services::source::{Snapshot, kube};
use futures::StreamExt;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const NODES: &str = "/api/v1/nodes";

/// Objects by path and name; every change goes to all who watch.
struct Server {
    objects: Mutex<BTreeMap<(&'static str, String), Value>>,
    changes: broadcast::Sender<(&'static str, String)>,
    queries: Mutex<Vec<String>>,
}

type Body = StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

impl Server {
    fn new() -> Arc<Self> {
        let (changes, _) = broadcast::channel(64);
        Arc::new(Self { objects: Mutex::default(), changes, queries: Mutex::default() })
    }

    fn put(&self, path: &'static str, mut object: Value) {
        object["metadata"]["resourceVersion"] = json!("2");
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let known = self.objects.lock().expect("whole").insert((path, name), object.clone()).is_some();
        self.tell(path, if known { "MODIFIED" } else { "ADDED" }, &object);
    }

    fn delete(&self, path: &'static str, name: &str) {
        let object = self.objects.lock().expect("whole").remove(&(path, name.to_owned())).expect("there");
        self.tell(path, "DELETED", &object);
    }

    fn tell(&self, path: &'static str, kind: &str, object: &Value) {
        let _ = self.changes.send((path, format!("{}\n", json!({"type": kind, "object": object}))));
    }

    /// Every watch ends, and the next must start from a new list.
    fn expire(&self) {
        let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
        for path in [SERVICES, SLICES] {
            self.tell(path, "ERROR", &gone);
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let path =
            [SERVICES, SLICES, NODES].into_iter().find(|path| *path == request.uri().path()).expect("known");
        self.queries.lock().expect("whole").push(format!("{path}?{query}"));
        let text = |text: String| Ok(Frame::data(Bytes::from(text)));
        let stream = if query.contains("watch=") {
            let changes = tokio_stream_of(self.changes.subscribe());
            changes.filter_map(move |(of, line)| std::future::ready((of == path).then(|| text(line)))).boxed()
        } else {
            let objects = self.objects.lock().expect("whole");
            let items: Vec<_> =
                objects.iter().filter(|((of, _), _)| *of == path).map(|(_, object)| object).collect();
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
            futures::stream::iter([text(list.to_string())]).boxed()
        };
        Response::builder()
            .header("content-type", "application/json")
            .body(StreamBody::new(stream))
            .expect("valid")
    }
}

fn tokio_stream_of<T: Clone + Send + 'static>(
    receiver: broadcast::Receiver<T>,
) -> impl futures::Stream<Item = T> {
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.ok().map(|change| (change, receiver))
    })
}

async fn serve(server: Arc<Server>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    std::future::ready(Ok::<_, Infallible>(server.answer(&request)))
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    format!("http://{address}")
}

fn service(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "d"},
        "spec": {"clusterIP": address, "ports": [{"port": 80}]},
    })
}

fn slice(service: &str, endpoints: &[(&str, &str)]) -> Value {
    let endpoint = |(address, zone): &(&str, &str)| json!({"addresses": [address], "hints": {"forZones": [{"name": zone}]}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "namespace": "d", "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"port": 8080}], "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

async fn until(receiver: &mut watch::Receiver<Snapshot>, wanted: (usize, usize)) {
    let counts =
        |snapshot: &Snapshot| snapshot.model.as_ref().map(|m| (m.service_count(), m.endpoint_count()));
    let reached = receiver.wait_for(|snapshot| counts(snapshot) == Some(wanted));
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "not {wanted:?}");
}

#[tokio::test]
async fn objects_of_an_apiserver_are_listed_and_followed() {
    let server = Server::new();
    server.put(SERVICES, service("a", "10.96.0.1"));
    server.put(SLICES, slice("a", &[("10.0.0.1", "z1"), ("10.0.0.2", "z2")]));
    let zone = json!({"topology.kubernetes.io/zone": "z2"});
    server
        .put(NODES, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": zone}}));
    let url = serve(server.clone()).await.parse().expect("a URL");
    let client = ::kube::Client::try_from(::kube::Config::new(url)).expect("a client");
    let mut snapshots = kube::watch(client, Place { node: "n1".into(), zone: None });
    // One of two endpoints: the other is meant for another zone than this node's.
    until(&mut snapshots, (1, 1)).await;
    server.put(SERVICES, service("b", "10.96.0.2"));
    server.put(SLICES, slice("b", &[("10.0.0.3", "z2")]));
    until(&mut snapshots, (2, 2)).await;
    server.delete(SERVICES, "a");
    until(&mut snapshots, (1, 1)).await;
    server.expire();
    server.put(SERVICES, service("c", "10.96.0.3"));
    until(&mut snapshots, (2, 1)).await;
    let mended = snapshots.wait_for(|snapshot| snapshot.fault.is_none());
    assert!(tokio::time::timeout(Duration::from_secs(20), mended).await.is_ok(), "both are watched again");
    let queries = server.queries.lock().expect("whole").clone();
    let lists: Vec<_> = queries.iter().filter(|q| !q.starts_with(NODES)).collect();
    let selector =
        "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name%2C%21service.kubernetes.io%2Fheadless";
    assert!(lists.iter().all(|query| query.contains(selector)), "{lists:?}");
    assert!(queries.iter().any(|q| q.starts_with(NODES) && q.contains("metadata.name%3Dn1")), "{queries:?}");
}
