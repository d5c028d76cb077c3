//! Probe by a TCP connection: success is that it is accepted.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, TCPSocketAction};
use tokio::net::TcpStream;
use tokio::time::timeout as within;

use super::{Answer, authority, port};

pub async fn ask(socket: &TCPSocketAction, container: &Container, pod_ip: &str, timeout: Duration) -> Answer {
    let Some(port) = port(&socket.port, container) else { return Answer::Unknown("no such port".into()) };
    let host = socket.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
    let to = authority(host, port);
    match within(timeout, TcpStream::connect(&to)).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(error)) => Answer::Failure(format!("dial tcp {to}: {}", crate::errno_name(&error))),
        Err(_) => Answer::Failure(format!("dial tcp {to}: i/o timeout")),
    }
}
