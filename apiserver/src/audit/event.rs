//! One line: an Event of audit.k8s.io/v1.

use http::StatusCode;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::auth::User;
use crate::fresh::micro_time;
use crate::hooks::{Level, Stage};
use crate::request::Call;

pub fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::RequestReceived => "RequestReceived",
        Stage::ResponseStarted => "ResponseStarted",
        Stage::ResponseComplete => "ResponseComplete",
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::None => "None",
        Level::Metadata => "Metadata",
        Level::Request => "Request",
        Level::RequestResponse => "RequestResponse",
    }
}

pub fn line(level: Level, stage: Stage, call: &Call, code: Option<StatusCode>) -> Vec<u8> {
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level_name(level), "auditID": call.audit_id,
        "stage": name(stage), "requestURI": call.uri, "verb": call.info.verb,
        "user": user(call.impersonator.as_ref().unwrap_or(&call.user)),
        "sourceIPs": sources(call), "requestReceivedTimestamp": micro_time(call.received),
        "stageTimestamp": micro_time(Timestamp::now()),
    });
    if call.impersonator.is_some() {
        event["impersonatedUser"] = user(&call.user);
    }
    if !call.user_agent().is_empty() {
        event["userAgent"] = call.user_agent().into();
    }
    if call.info.is_resource {
        event["objectRef"] = object(call);
    }
    if stage != Stage::RequestReceived {
        let bodies = call.bodies();
        event["responseStatus"] = status(code, bodies.response.as_ref());
        if level >= Level::Request
            && let Some(request) = &bodies.request
        {
            event["requestObject"] = request.clone();
        }
        if level >= Level::RequestResponse
            && let Some(response) = &bodies.response
        {
            event["responseObject"] = response.clone();
        }
        let decision = if code == Some(StatusCode::FORBIDDEN) { "forbid" } else { "allow" };
        event["annotations"] =
            json!({"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": ""});
    }
    let mut line = serde_json::to_vec(&event).unwrap_or_default();
    line.push(b'\n');
    line
}

fn user(user: &User) -> Value {
    let mut of = Map::from_iter([("username".to_owned(), user.name.as_str().into())]);
    if !user.uid.is_empty() {
        of.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        of.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        of.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(of)
}

/// Proxies on the way, then who is connected. Source: apimachinery `pkg/util/net/http.go` SourceIPs.
fn sources(call: &Call) -> Vec<String> {
    let forwarded = call.header("x-forwarded-for").split(',').map(str::trim);
    let mut ips: Vec<String> =
        forwarded.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned).collect();
    let peer = call.peer.map(|peer| peer.ip().to_string());
    if peer.as_ref() != ips.last() {
        ips.extend(peer);
    }
    ips
}

fn object(call: &Call) -> Value {
    let info = &call.info;
    let fields = [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ];
    let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
    Value::Object(given.map(|(key, text)| (key.to_owned(), text.as_str().into())).collect())
}

fn status(code: Option<StatusCode>, response: Option<&Value>) -> Value {
    let mut status = json!({"metadata": {}, "code": code.map_or(0, |code| code.as_u16())});
    let Some(response) = response.filter(|response| response["kind"] == "Status") else { return status };
    for key in ["status", "message", "reason", "details"] {
        if let Some(value) = response.get(key) {
            status[key] = value.clone();
        }
    }
    status
}
