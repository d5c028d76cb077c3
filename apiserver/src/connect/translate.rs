//! exec and attach of a client that speaks WebSocket version 5, with a kubelet that speaks SPDY. Source: apiserver
//! `pkg/util/proxy/{streamtranslator,websocket}.go`.

use std::time::Duration;

use corten_streaming::remote_command::{
    self, ClientSession, Input, Options, Outcome, Output, Session, size_message,
};
use corten_streaming::spdy::{Config, Side};
use corten_streaming::upgrade::{PROTOCOL, SPDY, Upgrade, negotiate};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::dial::Location;
use super::exec::V5;
use crate::api::Body;
use crate::request::{Answer, Call};

const IDLE: Duration = Duration::from_hours(4);
const PING: Duration = Duration::from_secs(5);
const MAX_ERROR: usize = 64 << 10;

/// Answers the client first: what goes wrong then is told on its error channel.
pub(super) fn translate(
    call: &Call,
    mut request: Request<Body>,
    location: Location,
    options: Options,
) -> Answer {
    let upgrade = match negotiate(&call.headers, &[], &[V5]) {
        Ok(upgrade) => upgrade,
        Err(refusal) => {
            return Answer::Raw(refusal.response().map(|text| {
                http_body_util::Full::from(text).map_err(|never| match never {}).boxed_unsync()
            }));
        }
    };
    let response = upgrade.response().map(|()| Body::default());
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(client) = client.await {
            run(TokioIo::new(client), &upgrade, &location, options).await;
        }
    });
    Answer::Raw(response)
}

async fn run(
    client: TokioIo<hyper::upgrade::Upgraded>,
    upgrade: &Upgrade,
    location: &Location,
    options: Options,
) {
    let Ok(session) = remote_command::serve(client, upgrade, options, Some(IDLE)).await else { return };
    match kubelet(location, options).await {
        Ok(backend) => join(session, backend).await,
        Err(why) => session.finish(&Outcome::Failure(why)).await,
    }
}

/// Why not, in the words of upstream's client.
async fn kubelet(location: &Location, options: Options) -> std::result::Result<ClientSession, String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&location.path)
        .header(header::HOST, location.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, SPDY);
    for protocol in remote_command::SPDY_PROTOCOLS {
        request = request.header(PROTOCOL, protocol);
    }
    let request = request.body(Body::default()).map_err(|error| error.to_string())?;
    let sending =
        |why: &dyn std::fmt::Display| format!("error sending request: Post \"{}\": {why}", location.url());
    let mut response = location.send(request).await.map_err(|error| sending(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let said = Limited::new(response.into_body(), MAX_ERROR).collect().await;
        let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Err(format!("unable to upgrade connection: {}", message(&said)));
    }
    let protocol = response.headers().get(PROTOCOL).and_then(|protocol| protocol.to_str().ok());
    if protocol != Some(remote_command::SPDY_PROTOCOLS[0]) {
        return Err(format!("the kubelet wants the protocol {protocol:?}, which cannot tell exit codes"));
    }
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| error.to_string())?;
    let config = Config { idle: Some(IDLE), ping: Some(PING), ..Config::new(Side::Client) };
    remote_command::connect(TokioIo::new(upgraded), config, options).await.map_err(|error| error.to_string())
}

/// A kubelet's error is text, or a Status.
fn message(said: &[u8]) -> String {
    let status: Option<Value> = serde_json::from_slice(said).ok();
    let told = status
        .as_ref()
        .filter(|status| status["kind"] == "Status")
        .and_then(|status| status["message"].as_str());
    told.map_or_else(|| String::from_utf8_lossy(said).trim().to_owned(), str::to_owned)
}

async fn join(mut client: Session, mut backend: ClientSession) {
    let (to_stdin, from_stdin) = (backend.stdin.take(), client.stdin.take());
    let (sizes, resizes) = (backend.take_resize(), client.resizes.take());
    let input = async {
        let sizes = async {
            if let (Some(mut sizes), Some(mut resizes)) = (sizes, resizes) {
                while let Some(size) = resizes.next().await {
                    if sizes.send(size_message(size)).await.is_err() {
                        break;
                    }
                }
                // Kept until the end.
                std::future::pending::<()>().await;
            }
        };
        tokio::join!(copy(from_stdin, to_stdin), sizes);
        std::future::pending::<()>().await;
    };
    let (stdout, stderr) = (backend.stdout.take(), backend.stderr.take());
    let (to_stdout, to_stderr) = (client.stdout.take(), client.stderr.take());
    let output = async {
        tokio::join!(copy(stdout, to_stdout), copy(stderr, to_stderr));
        backend.outcome().await
    };
    let outcome = tokio::select! {
        outcome = output => Some(outcome),
        () = input => None,
        () = client.closed() => None,
    };
    if let Some(outcome) = outcome {
        client.finish(&outcome).await;
    }
}

/// To the end, which is passed on.
async fn copy(from: Option<Input>, to: Option<Output>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(bytes) = from.recv().await {
        if to.send(bytes).await.is_err() {
            return;
        }
    }
    let _ = to.finish().await;
}
