//! A connection that is passed through once both sides have upgraded it. Source: apimachinery
//! `pkg/util/proxy/upgradeaware.go`.

use corten_streaming::upgrade::is_upgrade;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;

use super::dial::{Failed, Location};
use crate::api::Body;
use crate::request::{Answer, Call};
use crate::status::{Result, Status};

/// `required`: what is no upgrade is refused.
pub(super) async fn pass_through(
    call: &Call,
    mut request: Request<Body>,
    location: &Location,
    required: bool,
) -> Result<Answer> {
    if required && !is_upgrade(&call.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let onward = onward(call, location, call.method.clone())?;
    let mut response = location.send(onward).await.map_err(|error| dial_failed(&error))?;
    let code = response.status();
    if code != StatusCode::SWITCHING_PROTOCOLS {
        if code.as_u16() < 400 {
            let message = format!("invalid upgrade response: status code {}", code.as_u16());
            return Err(Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message));
        }
        return Ok(Answer::Raw(response.map(|body| body.map_err(Into::into).boxed_unsync())));
    }
    let backend = hyper::upgrade::on(&mut response);
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
    });
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = code;
    *answer.headers_mut() = response.headers().clone();
    Ok(Answer::Raw(answer))
}

/// The client's request as it goes on: without what was said to us alone.
pub(super) fn onward(call: &Call, location: &Location, method: Method) -> Result<Request<Body>> {
    let mut request = Request::new(Body::default());
    *request.method_mut() = method;
    *request.uri_mut() = location.path.parse().map_err(Status::internal)?;
    *request.headers_mut() = forwarded_headers(call, location);
    Ok(request)
}

pub(super) fn forwarded_headers(call: &Call, location: &Location) -> HeaderMap {
    let mut headers = call.headers.clone();
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name == "authorization" || name.starts_with("impersonate-") || name.starts_with("x-remote-")
        })
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_LENGTH);
    if let (None, Ok(host)) = (headers.get(header::HOST), HeaderValue::from_str(&location.authority())) {
        headers.insert(header::HOST, host);
    }
    if let Some(peer) = call.peer {
        let before = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        let all = before.map_or_else(|| peer.ip().to_string(), |before| format!("{before}, {}", peer.ip()));
        if let Ok(value) = HeaderValue::from_str(&all) {
            headers.insert(HeaderName::from_static("x-forwarded-for"), value);
        }
    }
    headers
}

pub(super) fn dial_failed(error: &Failed) -> Status {
    let message = match error {
        Failed::Dial(why) => format!("error dialing backend: {why}"),
        Failed::Broken(why) => format!("error sending request: {why}"),
    };
    Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
}
