//! The way of a request: who asks, may they, what answers. Source: apiserver `pkg/server/config.go`
//! DefaultBuildHandlerChain.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use super::impersonate::impersonate;
use super::in_flight::too_many;
use super::metrics::Labels;
use super::paths;
use super::recorded;
use super::text::not_found;
use crate::api::{Api, Body, BoxError};
use crate::auth::{Attributes, Decision, User};
use crate::fresh;
use crate::hooks::{Der, Stage};
use crate::request::{Accept, Call, Info, Offers, Query, decode};
use crate::select::Fields;
use crate::status::{Result, Status};
use crate::verbs;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What the socket knows of a request; in its extensions.
#[derive(Clone, Default)]
pub struct Connection {
    pub peer: Option<std::net::SocketAddr>,
    /// The client's, leaf first. Nobody has verified them.
    pub certificates: Arc<[Der]>,
}

impl Api {
    /// Answers a request, whatever happens.
    pub fn handle<B>(self: &Arc<Self>, request: Request<B>) -> BoxFuture<'static, Response<Body>>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let api = Arc::clone(self);
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move { api.respond(request).await })
    }

    async fn respond(self: &Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let audit_id = audit_id(&parts.headers);
        let connection = parts.extensions.remove::<Connection>().unwrap_or_default();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let mut response = match self.identify(&mut parts, &connection).await {
            Ok(user) => match info(&parts.method, parts.uri.path(), &query) {
                Ok(info) => {
                    let headers = std::mem::take(&mut parts.headers);
                    let mut call = Call::new(parts.method.clone(), info, query, headers, user);
                    call.peer = connection.peer;
                    call.audit_id.clone_from(&audit_id);
                    call.uri = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
                    self.answer(call, Request::from_parts(parts, body)).await
                }
                Err(status) => status.into_response(Accept::default()),
            },
            Err(status) => {
                let accept = Accept::negotiate(&parts.headers, &query, Offers::Plain).unwrap_or_default();
                status.into_response(accept)
            }
        };
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, HeaderValue::from_str(&audit_id).expect("checked or made here"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        response
    }

    async fn identify(&self, parts: &mut http::request::Parts, connection: &Connection) -> Result<User> {
        match parts.extensions.remove::<User>() {
            Some(user) => Ok(user),
            None => self.authenticator.authenticate(parts, &connection.certificates).await,
        }
    }

    async fn answer(self: &Arc<Self>, mut call: Call, request: Request<Body>) -> Response<Body> {
        match impersonate(&*self.authorizer, &call.user, &call.headers).await {
            Ok(None) => {}
            Ok(Some(other)) => call.impersonator = Some(std::mem::replace(&mut call.user, other)),
            Err(status) => return status.into_response(call.accept(Offers::Plain).unwrap_or_default()),
        }
        self.audit.record(Stage::RequestReceived, &call, None);
        let (labels, began) = (Labels::of(&call), Instant::now());
        let known = !call.info.is_resource || verbs::find(self, &call).is_ok();
        let level = self.audit.level(&call);
        let mut response = match recorded::request(&call, level, request, self.config.max_body_bytes).await {
            Ok(request) => self.bounded(&call, request).await,
            Err(status) => status.into_response(call.accept(Offers::Plain).unwrap_or_default()),
        };
        for warning in call.warnings() {
            if let Some(value) = warning_header(&warning) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        let code = response.status();
        if is_long_running(&call) && code == StatusCode::OK {
            self.audit.record(Stage::ResponseStarted, &call, Some(code));
            self.metrics.answered(labels.clone(), code, None);
            let running = self.metrics.long_running(labels);
            let end = End { api: Arc::clone(self), call, code };
            return response.map(|body| Guarded { body, _guard: (running, end) }.boxed_unsync());
        }
        // A series for each path that somebody makes up would be theirs to fill memory with.
        if known {
            self.metrics.answered(labels, code, Some(began.elapsed()));
        }
        let response = recorded::response(&call, level, response).await;
        self.audit.record(Stage::ResponseComplete, &call, Some(code));
        response
    }

    /// Within what is allowed at once, and in time.
    async fn bounded(self: &Arc<Self>, call: &Call, request: Request<Body>) -> Response<Body> {
        let failed = |status: Status| status.into_response(call.accept(Offers::Plain).unwrap_or_default());
        if is_long_running(call) {
            return self.decided(call, request).await.unwrap_or_else(failed);
        }
        let Some(_place) = self.in_flight.enter(call, &self.config) else {
            self.metrics.dropped();
            return too_many();
        };
        if let Ok(result) = timeout(self.config.request_timeout, self.decided(call, request)).await {
            return result.unwrap_or_else(failed);
        }
        self.metrics.count("apiserver_request_aborts_total");
        failed(timed_out())
    }

    async fn decided(self: &Arc<Self>, call: &Call, request: Request<Body>) -> Result<Response<Body>> {
        self.authorize(call).await?;
        if !call.info.is_resource {
            return paths::serve(self, call).await;
        }
        let (group, version) = (&*call.info.group, &*call.info.version);
        let all = self.registry.all();
        if !all.iter().any(|one| one.resource.group == group && one.resource.version == version) {
            return Ok(not_found());
        }
        verbs::serve(self, call, request).await?.into_response(call)
    }

    async fn authorize(&self, call: &Call) -> Result<()> {
        let attributes = attributes(call);
        match self.authorizer.authorize(&call.user, &attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => Err(forbidden(&call.user, &attributes, &why)),
        }
    }
}

/// Requests that go on until somebody ends them. Source: kube-apiserver's BasicLongRunningRequestCheck.
fn is_long_running(call: &Call) -> bool {
    const SUBRESOURCES: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
    let info = &call.info;
    info.is_resource && (info.verb == "watch" || SUBRESOURCES.contains(&&*info.subresource))
}

fn timed_out() -> Status {
    const MESSAGE: &str = "Timeout: request did not complete within the allotted timeout";
    Status::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", MESSAGE)
}

fn warning_header(warning: &str) -> Option<HeaderValue> {
    let text: String = warning.chars().filter(|c| !c.is_control()).collect();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()).ok()
}

/// Says that a request that went on is over.
struct End {
    api: Arc<Api>,
    call: Call,
    code: StatusCode,
}

impl Drop for End {
    fn drop(&mut self) {
        self.api.audit.record(Stage::ResponseComplete, &self.call, Some(self.code));
    }
}

/// A body, and what is dropped with it.
struct Guarded<G> {
    body: Body,
    _guard: G,
}

impl<G: Send + Unpin> hyper::body::Body for Guarded<G> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn info(method: &Method, path: &str, query: &Query) -> Result<Info> {
    let path =
        decode(path, false).ok_or_else(|| Status::bad_request("the path is no percent-encoded UTF-8"))?;
    let fields = Fields::parse(query.get("fieldSelector").unwrap_or_default()).unwrap_or_default();
    let named = fields.exactly("metadata.name").filter(|name| is_path_segment(name));
    Ok(Info::of(method, &path, query.flag("watch").unwrap_or(false), named))
}

/// Source: apimachinery `pkg/api/validation/path`.
fn is_path_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
}

fn audit_id(headers: &HeaderMap) -> String {
    let sent = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
    sent.filter(|id| !id.is_empty() && id.len() <= 64).map_or_else(fresh::uid, str::to_owned)
}

/// What a call would do.
pub fn attributes(call: &Call) -> Attributes {
    let info = &call.info;
    let selector = match info.verb {
        "list" | "watch" | "deletecollection" => call.query.get("fieldSelector").unwrap_or_default(),
        _ => "",
    };
    Attributes {
        verb: info.verb.to_owned(),
        resource: info.resource.clone(),
        group: info.group.clone(),
        version: info.version.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        path: info.path.clone(),
        field_selector: selector.to_owned(),
    }
}

/// 403 in upstream's words. Source: apiserver `pkg/endpoints/handlers/responsewriters/errors.go`.
pub fn forbidden(user: &User, attributes: &Attributes, why: &str) -> Status {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let (user, verb) = (quoted(&user.name), &attributes.verb);
    let what = if attributes.resource.is_empty() {
        format!("User {user} cannot {verb} path {}", quoted(&attributes.path))
    } else {
        let resource = match &*attributes.subresource {
            "" => attributes.resource.clone(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let place = match &*attributes.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {}", quoted(namespace)),
        };
        let group = quoted(&attributes.group);
        format!("User {user} cannot {verb} resource {} in API group {group} {place}", quoted(&resource))
    };
    let what = what.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let separator = if why.is_empty() { "" } else { ": " };
    let resource = match &*attributes.group {
        "" => attributes.resource.clone(),
        group => format!("{}.{group}", attributes.resource),
    };
    let object = match (&*resource, &*attributes.name) {
        ("", "") => String::new(),
        (resource, "") => resource.to_owned(),
        (resource, name) => format!("{resource} {}", quoted(name)),
    };
    let space = if object.is_empty() { "" } else { " " };
    let details = crate::status::Details {
        group: attributes.group.clone(),
        kind: attributes.resource.clone(),
        name: attributes.name.clone(),
        ..crate::status::Details::default()
    };
    let message = format!("{object}{space}is forbidden: {what}{separator}{why}");
    let message = if object.is_empty() { message.replacen("is forbidden", "forbidden", 1) } else { message };
    Status::new(StatusCode::FORBIDDEN, "Forbidden", message).with(details)
}
