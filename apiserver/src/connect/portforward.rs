//! `pods/portforward`. Source: kubernetes `pkg/registry/core/pod/rest/subresources.go`; for SPDY in WebSocket messages
//! apiserver `pkg/util/proxy/streamtunnel.go`.

use corten_streaming::upgrade::{
    PROTOCOL, SPDY, TUNNEL, Upgrade, is_websocket, negotiate, websocket_protocols,
};
use corten_streaming::websocket::{Tunnel, WebSocketRole};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;

use super::dial::Location;
use super::{Connect, go, upgrade};
use crate::api::Body;
use crate::request::{Answer, Call};
use crate::status::{Result, Status};

pub(super) async fn portforward(connect: Connect<'_>, request: Request<Body>) -> Result<Answer> {
    connect.may_create().await?;
    let mut ports = Vec::new();
    for port in connect.call.query.all("ports") {
        ports.push(go::parse_int(port).map_err(Status::bad_request)?.to_string());
    }
    let pod = connect.pod().await?;
    let endpoint = connect.assigned(&pod).await?;
    let parameters = if ports.is_empty() { Vec::new() } else { vec![("port", ports.join(","))] };
    let question = if parameters.is_empty() { "" } else { "?" };
    let path = format!("/portForward/{}/{}{question}{}", pod.namespace(), pod.name(), go::encode(parameters));
    let location = connect.location(&endpoint, path);
    let headers = &connect.call.headers;
    let tunnelled: Vec<String> = websocket_protocols(headers)
        .into_iter()
        .filter_map(|protocol| protocol.strip_prefix(TUNNEL).map(str::to_owned))
        .filter(|protocol| protocol.ends_with(".k8s.io"))
        .collect();
    if is_websocket(headers) && !tunnelled.is_empty() && !endpoint.takes_websockets {
        return tunnel(connect.call, request, &location, &tunnelled).await;
    }
    upgrade::pass_through(connect.call, request, &location, true).await
}

/// The kubelet speaks SPDY, its frames go to the client in messages.
async fn tunnel(
    call: &Call,
    mut request: Request<Body>,
    location: &Location,
    protocols: &[String],
) -> Result<Answer> {
    let mut onward = upgrade::onward(call, location, Method::POST)?;
    let headers = onward.headers_mut();
    for name in
        ["sec-websocket-protocol", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"]
    {
        headers.remove(name);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    for protocol in protocols {
        headers.append(PROTOCOL, HeaderValue::from_str(protocol).map_err(Status::internal)?);
    }
    let mut response = location.send(onward).await.map_err(|error| upgrade::dial_failed(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Raw(response.map(|body| body.map_err(Into::into).boxed_unsync())));
    }
    let chosen =
        response.headers().get(PROTOCOL).and_then(|protocol| protocol.to_str().ok()).unwrap_or_default();
    let chosen = if chosen.is_empty() { String::new() } else { format!("{TUNNEL}{chosen}") };
    let agreed: Upgrade = negotiate(&call.headers, &[], &[&chosen])
        .map_err(|refusal| Status::bad_request(refusal.to_string()))?;
    let backend = hyper::upgrade::on(&mut response);
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
        let mut tunnel = Tunnel::new(TokioIo::new(client), WebSocketRole::Server).await;
        let _ = tokio::io::copy_bidirectional(&mut tunnel, &mut TokioIo::new(backend)).await;
    });
    Ok(Answer::Raw(agreed.response().map(|()| Body::default())))
}
