//! `pods/log`: what a container wrote. Source: kubernetes `pkg/registry/core/pod/rest/log.go`, apiserver
//! `pkg/registry/generic/rest/{streamer,response_checker}.go`.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use super::dial::Failed;
use super::options::{flag, number, time};
use super::{Connect, go, pod};
use crate::api::Body;
use crate::request::{Answer, Query};
use crate::status::{Cause, Details, Result, Status};

/// Of an error that a kubelet answers with.
const MAX_ERROR: usize = 50_000;

pub(super) async fn log(connect: Connect<'_>) -> Result<Answer> {
    let query = &connect.call.query;
    let parameters = parameters(&connect)?;
    let pod = connect.pod().await?;
    let container = pod::container(&pod, query.get("container").unwrap_or_default())?;
    let Some(endpoint) = connect.kubelet(&pod).await? else {
        // It has no node, and so has written nothing.
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(Answer::Raw(response));
    };
    let question = if parameters.is_empty() { "" } else { "?" };
    let path = format!("/containerLogs/{}/{}/{container}{question}{parameters}", pod.namespace(), pod.name());
    let mut location = connect.location(&endpoint, path);
    if flag(query, "insecureSkipTLSVerifyBackend") {
        location.tls = Some(connect.api.kubelets.trusting.clone());
    }
    let failed = |why: &dyn std::fmt::Display| {
        let message = format!("Get \"{}\": {why}", location.url());
        Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    };
    let request = Request::builder()
        .method(Method::GET)
        .uri(&location.path)
        .header(header::HOST, location.authority())
        .header(header::USER_AGENT, "corten-apiserver")
        .body(Body::default())
        .map_err(Status::internal)?;
    let response = location.send(request).await.map_err(|error: Failed| failed(&error))?;
    let code = response.status();
    if code.is_redirection() {
        return Err(failed(&"redirects forbidden"));
    }
    if !(200..=206).contains(&code.as_u16()) {
        let said = Limited::new(response.into_body(), MAX_ERROR).collect().await;
        let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Err(refused(code, &String::from_utf8_lossy(&said), pod.name()));
    }
    let mut answer = Response::new(response.into_body().map_err(Into::into).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(Answer::Raw(answer))
}

/// For the kubelet, once they are checked.
fn parameters(connect: &Connect<'_>) -> Result<String> {
    let query = &connect.call.query;
    let (since_seconds, since_time) = (number(query, "sinceSeconds")?, time(query, "sinceTime")?);
    let (tail, limit) = (number(query, "tailLines")?, number(query, "limitBytes")?);
    let causes = check(query, since_seconds, since_time, tail, limit);
    if !causes.is_empty() {
        let mut options = connect.served.resource.clone();
        options.kind = "PodLogOptions".into();
        return Err(Status::invalid(&options, &connect.call.info.name, causes));
    }
    let mut parameters: Vec<(&str, String)> = ["follow", "previous", "timestamps"]
        .into_iter()
        .filter(|name| flag(query, name))
        .map(|name| (name, "true".to_owned()))
        .collect();
    let numbers = [("sinceSeconds", since_seconds), ("tailLines", tail), ("limitBytes", limit)];
    parameters.extend(numbers.into_iter().filter_map(|(name, value)| Some((name, value?.to_string()))));
    parameters.extend(since_time.map(|time| ("sinceTime", time.to_owned())));
    Ok(go::encode(parameters))
}

/// Source: kubernetes `pkg/apis/core/validation` ValidatePodLogOptions.
fn check(
    query: &Query,
    since_seconds: Option<i64>,
    since_time: Option<&str>,
    tail: Option<i64>,
    limit: Option<i64>,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut invalid =
        |field: &str, value: i64, detail: &str| causes.push(Cause::invalid(field, &json!(value), detail));
    if let Some(tail) = tail.filter(|tail| *tail < 0) {
        invalid("tailLines", tail, "must be greater than or equal to 0");
    }
    if let Some(limit) = limit.filter(|limit| *limit < 1) {
        invalid("limitBytes", limit, "must be greater than 0");
    }
    match (since_seconds, since_time) {
        (Some(_), Some(_)) => {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            causes.push(Cause::forbidden("", why));
        }
        (Some(seconds), None) if seconds < 1 => invalid("sinceSeconds", seconds, "must be greater than 0"),
        _ => {}
    }
    if query.has("stream") {
        causes.push(Cause::forbidden("stream", "may not be specified"));
    }
    causes
}

/// What a kubelet's error becomes. Source: apimachinery `pkg/api/errors` NewGenericServerResponse.
fn refused(code: StatusCode, said: &str, name: &str) -> Status {
    let (reason, message) = match code.as_u16() {
        500 => return Status::internal(said),
        400 => return Status::bad_request(said),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", said.to_owned()),
        404 => ("NotFound", "the server could not find the requested resource".to_owned()),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later".to_owned(),
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned(),
        ),
        501.. => (
            "InternalError",
            format!("an error on the server ({}) has prevented the request from succeeding", json!(said)),
        ),
        other => (
            "Unknown",
            format!("the server responded with the status code {other} but did not return more information"),
        ),
    };
    let details = Details { kind: "pods/log".to_owned(), name: name.to_owned(), ..Details::default() };
    Status::new(code, reason, format!("{message} ( pods/log {name})")).with(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_refused_in_upstreams_words() {
        let said = |text: &str| {
            let query = Query::parse(text);
            let number = |name: &str| number(&query, name).expect("a number");
            let time = time(&query, "sinceTime").expect("a time");
            let causes =
                check(&query, number("sinceSeconds"), time, number("tailLines"), number("limitBytes"));
            causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        #[rustfmt::skip]
        let table = [
            ("tailLines=0&limitBytes=1&sinceSeconds=1", ""),
            ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
            ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
            ("sinceSeconds=5&sinceTime=2024-01-02T03:04:05Z",
             "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"),
            ("stream=Stdout", "stream: Forbidden: may not be specified"),
        ];
        for (query, expected) in table {
            assert_eq!(said(query), expected, "{query}");
        }
    }

    #[test]
    fn a_kubelets_error_keeps_its_code() {
        let status = refused(StatusCode::NOT_FOUND, "pod not found", "a");
        let expected = "the server could not find the requested resource ( pods/log a)";
        assert_eq!(
            (status.code(), status.reason(), status.message()),
            (StatusCode::NOT_FOUND, "NotFound", expected)
        );
        let status = refused(StatusCode::BAD_REQUEST, "container \"a\" is waiting to start", "a");
        assert_eq!(status.message(), "container \"a\" is waiting to start");
        assert_eq!(refused(StatusCode::BAD_GATEWAY, "x", "a").reason(), "InternalError");
    }
}
