//! `healthCheckNodePort`: tells a load balancer by HTTP whether this node has ready endpoints of a Service.
//!
//! Answers are kube-proxy's (pkg/proxy/healthcheck/service_health.go): 200 with endpoints, 503 without, and a JSON text
//! that says so, whatever is asked for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::model::HealthCheck;

/// A balancer asks from a few machines; strangers find no more to fill.
const MAX_CLIENTS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The open ports.
#[derive(Default)]
pub struct HealthChecks {
    ports: BTreeMap<u16, Port>,
}

struct Port {
    check: watch::Sender<HealthCheck>,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthChecks {
    /// Opens, closes and answers as `checks` say. In a tokio runtime. Returns what could not be opened.
    pub fn serve(&mut self, checks: &[HealthCheck]) -> Vec<String> {
        self.ports.retain(|port, _| checks.iter().any(|check| check.port == *port));
        let mut errors = Vec::new();
        for check in checks {
            if let Some(port) = self.ports.get(&check.port) {
                port.check.send_if_modified(|old| {
                    *old != *check && {
                        old.clone_from(check);
                        true
                    }
                });
                continue;
            }
            match listen(check.port) {
                Ok(listener) => {
                    let sender = watch::Sender::new(check.clone());
                    let task = tokio::spawn(accept(listener, sender.subscribe()));
                    self.ports.insert(check.port, Port { check: sender, task });
                }
                Err(error) => errors.push(format!(
                    "healthCheckNodePort {} of Service {}: {error}",
                    check.port, check.service
                )),
            }
        }
        errors
    }
}

/// On every address of both families; of IPv4 alone where there is no IPv6.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let bind = |family, address: SocketAddr| {
        let socket = rustix::net::socket_with(
            family,
            SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
            None,
        )?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, 64)?;
        Ok::<_, rustix::io::Errno>(socket)
    };
    let both = bind(AddressFamily::INET6, (Ipv6Addr::UNSPECIFIED, port).into());
    let socket = match both {
        Err(rustix::io::Errno::AFNOSUPPORT) => {
            bind(AddressFamily::INET, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        other => other,
    };
    TcpListener::from_std(std::net::TcpListener::from(socket?))
}

async fn accept(listener: TcpListener, check: watch::Receiver<HealthCheck>) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others must close first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let check = check.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|_| std::future::ready(Ok::<_, Infallible>(answer(&check.borrow()))));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(check: &HealthCheck) -> Response<Full<Bytes>> {
    let text = serde_json::json!({
        "service": {"namespace": check.service.namespace, "name": check.service.name},
        "localEndpoints": check.local_endpoints,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::new(Bytes::from(text.to_string())));
    if check.local_endpoints == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-load-balancing-endpoint-weight", check.local_endpoints.into());
    response
}
