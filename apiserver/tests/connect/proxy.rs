//! HTTP to pods, services and nodes.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use crate::cluster::{Cluster, own_address, pod, put};

const NAMESPACE: &str = "/api/v1/namespaces/default";

/// Repeats what it is asked; redirects `/away`.
async fn echo(address: std::net::IpAddr) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.expect("an own address");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let mut answer = http::Response::builder().header("access-control-allow-origin", "*");
                if head.uri.path() == "/away" {
                    answer = answer.status(302).header("location", "/here?x=1");
                }
                let forwarded =
                    head.headers.get("x-forwarded-uri").and_then(|uri| uri.to_str().ok()).unwrap_or("-");
                let text =
                    format!("{} {} {forwarded} {}", head.method, head.uri, String::from_utf8_lossy(&body));
                answer.body(Full::new(Bytes::from(text)))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    port
}

#[tokio::test]
async fn requests_reach_pods_and_services_with_their_paths_queries_and_bodies() {
    let Some(ip) = own_address() else {
        println!("SKIP: this machine has no address but loopback, which proxies refuse");
        return;
    };
    let cluster = Cluster::start(false).await;
    let port = echo(ip).await;
    let mut web = pod("web", "n", &["main"]);
    web["spec"]["containers"][0]["ports"] = json!([{"containerPort": port}]);
    web["status"]["podIP"] = json!(ip.to_string());
    put(&cluster.api, "pods/default/web", web).await;
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80}]}});
    put(&cluster.api, "services/specs/default/web", service).await;
    let to_pod = |name: &str| json!({"ip": ip.to_string(), "targetRef": {"kind": "Pod", "name": name, "namespace": "default"}});
    // The first address is of no pod.
    let endpoints = json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "default"},
        "subsets": [{"addresses": [to_pod("none"), to_pod("web")], "ports": [{"name": "http", "port": port}]}]});
    put(&cluster.api, "services/endpoints/default/web", endpoints).await;
    for target in ["pods/web", "services/web:http", "services/web:80", "services/http:web:http"] {
        let path = format!("{NAMESPACE}/{target}/proxy/a%20b/c/");
        let (code, body) = cluster.ask("GET", &format!("{path}?q=1&r=%2F")).await;
        assert_eq!((code.as_u16(), body), (200, format!("GET /a%20b/c/?q=1&r=%2F {path} ")), "{target}");
    }
    let (code, _) = cluster.ask("GET", &format!("{NAMESPACE}/pods/web/proxy")).await;
    assert_eq!(code.as_u16(), 301);
    let (code, body) = cluster.ask("PUT", &format!("{NAMESPACE}/pods/web:{port}/proxy/x")).await;
    assert_eq!((code.as_u16(), body.starts_with("PUT /x ")), (200, true), "{body}");
    let request = http::Request::get(format!("{NAMESPACE}/pods/web/proxy/away")).header("host", "api");
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let response = cluster.api.handle(request).await;
    assert_eq!(response.headers()["location"], format!("https://api{NAMESPACE}/pods/web/proxy/here?x=1"));
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    let (code, message) = cluster.refused("GET", &format!("{NAMESPACE}/services/web:81/proxy/")).await;
    assert_eq!((code, &*message), (503, "no service port 81 found for service \"web\""));
}

#[tokio::test]
async fn a_status_that_names_the_servers_own_address_leads_nowhere() {
    let cluster = Cluster::start(false).await;
    for ip in ["127.0.0.1", "169.254.169.254", "::1", ""] {
        let name = format!("bad-{}", ip.replace(['.', ':'], "-"));
        let mut bad = pod(&name, "n", &["main"]);
        bad["status"]["podIP"] = json!(ip);
        put(&cluster.api, &format!("pods/default/{name}"), bad).await;
        let refused = cluster.refused("GET", &format!("{NAMESPACE}/pods/{name}:80/proxy/")).await;
        assert_eq!(refused, (400, "address not allowed".to_owned()), "{ip}");
    }
    let refused = cluster.refused("GET", "/api/v1/nodes/n/proxy/metrics").await;
    assert_eq!(refused, (400, "address not allowed".to_owned()));
    let refused = cluster.refused("GET", &format!("{NAMESPACE}/pods/ftp:a:1/proxy/")).await;
    assert_eq!(refused, (400, "invalid pod request \"ftp:a:1\"".to_owned()));
    assert!(cluster.kubelet.asked().is_empty());
}
