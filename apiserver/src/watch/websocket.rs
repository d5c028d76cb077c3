//! A watch over WebSocket: each event is a message of text. Source: apiserver `pkg/endpoints/handlers/watch.go` HandleWS.

use corten_streaming::upgrade::negotiate;
use corten_streaming::websocket::{Message, messages};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::api::Body;
use crate::request::Call;
use crate::status::{Result, Status};

/// Sends what `watch` tells once the client's connection is a WebSocket.
///
/// # Errors
/// 400: the handshake is none.
pub fn upgrade(call: &Call, request: &mut Request<Body>, watch: Body) -> Result<Response<Body>> {
    let upgrade = negotiate(&call.headers, &[], &["", "base64.binary.k8s.io"])
        .map_err(|refusal| Status::bad_request(refusal.to_string()))?;
    let connection = hyper::upgrade::on(request);
    tokio::spawn(send(connection, watch));
    Ok(upgrade.response().map(|()| Body::default()))
}

async fn send(connection: OnUpgrade, mut watch: Body) {
    let Ok(connection) = connection.await else { return };
    let (mut sink, mut stream) = messages(TokioIo::new(connection)).await.split();
    let mut rest = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = watch.frame() => frame,
            said = stream.next() => match said {
                // Clients of watches have nothing to say.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        let Some(Ok(frame)) = frame else {
            let _ = sink.close().await;
            return;
        };
        rest.extend_from_slice(&frame.into_data().unwrap_or_default());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[..=end]).into_owned();
            rest.drain(..=end);
            if sink.send(Message::text(line)).await.is_err() {
                return;
            }
        }
    }
}
