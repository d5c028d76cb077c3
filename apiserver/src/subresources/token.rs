//! POST of a TokenRequest to a ServiceAccount: a token that lives with a pod, a Secret, a node or for a time.
//! Source: kubernetes `pkg/registry/core/serviceaccount/storage/token.go`.

use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::lookup::Lookup;
use crate::auth::tokens::{Bound, Reference, Wanted};
use crate::decode::{self, Expected};
use crate::fresh;
use crate::hooks::Operation;
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::{Cause, Details, Result, Status};
use crate::write::Writing;

const GROUP: &str = "authentication.k8s.io";
const API_VERSION: &str = "authentication.k8s.io/v1";
const HOUR: i64 = 3600;
const LEAST: i64 = 10 * 60;
const MOST: i64 = 1 << 32;

/// `served`: serviceaccounts.
///
/// # Errors
/// 400; 404 of the account or of what the token shall be bound to; 409 when that is another one; 422.
pub async fn create(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let info = &call.info;
    let Some(tokens) = api.auth.as_ref().and_then(|auth| auth.tokens.as_ref()) else {
        return Err(Status::internal("this server has no key to sign tokens with"));
    };
    let options = WriteOptions::of(&call.query, "CreateOptions", false)?;
    let node = corten_schema::builtin()
        .of_api_version(API_VERSION, "TokenRequest")
        .ok_or_else(|| Status::internal("the table has no TokenRequest"))?;
    let expected =
        Expected { api_version: API_VERSION, kind: "TokenRequest", node, any_version: false, custom: None };
    let mut request = decode::body(call, content, expected, options.validation)?;
    same("name", request.name(), &info.name, &info.name)?;
    same("namespace", request.namespace(), &info.namespace, &info.name)?;
    let lookup = Lookup::new(Arc::clone(&api.store), Arc::clone(&api.registry));
    let account = lookup.get("", "serviceaccounts", &info.namespace, &info.name).await?;
    let account = account.ok_or_else(|| Status::not_found(&served.resource, &info.name))?;
    if !request.uid().is_empty() && request.uid() != account.uid() {
        let why = format!(
            "the UID in the token request ({}) does not match the UID of the service account ({})",
            request.uid(),
            account.uid()
        );
        return Err(conflict("TokenRequest.authentication.k8s.io", GROUP, "TokenRequest", &info.name, &why));
    }
    complete(&mut request, &account, &tokens.config.audiences);
    check(&request)?;

    let writing = Writing {
        api,
        call,
        served,
        subresource: "token",
        namespace: &info.namespace,
        name: &info.name,
        options: &options,
    };
    let review = writing.review(Operation::Create, Some(request), None, options.to_json("CreateOptions"));
    let mut request = writing.ask(review).await?.object.unwrap_or_default();

    let bound = bound(&lookup, call, &request).await?;
    let mut seconds = seconds(&request);
    if let Some(max) = tokens.config.max_expiration.map(|max| max.as_secs() as i64)
        && seconds > max
    {
        call.warn(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
        seconds = max;
        set(&mut request, "spec", "expirationSeconds", seconds.into());
    }
    let wanted = Wanted {
        namespace: &info.namespace,
        service_account: Reference { name: info.name.clone(), uid: account.uid().to_owned() },
        bound,
        audiences: texts(request.get(&["spec", "audiences"])),
        seconds: seconds.unsigned_abs(),
    };
    let made = tokens.make(wanted, SystemTime::now());
    let expires = Timestamp::try_from(made.expires).map_err(Status::internal)?;
    let status = json!({ "token": made.token, "expirationTimestamp": fresh::time(expires) });
    request.0.insert("status".to_owned(), status);
    Ok(Answer::of(StatusCode::CREATED, &request, None))
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn seconds(request: &Object) -> i64 {
    request.get(&["spec", "expirationSeconds"]).and_then(Value::as_i64).unwrap_or(HOUR)
}

fn set(object: &mut Object, of: &str, key: &str, value: Value) {
    let part = object.0.entry(of).or_insert_with(|| json!({}));
    if !part.is_object() {
        *part = json!({});
    }
    part[key] = value;
}

/// What the body says must be what the path says.
fn same(field: &str, given: &str, wanted: &str, name: &str) -> Result<()> {
    if given.is_empty() || given == wanted {
        return Ok(());
    }
    let detail = format!("must match the service account {field} if specified");
    Err(invalid(name, vec![Cause::invalid(format!("metadata.{field}"), &given.into(), detail)]))
}

fn complete(request: &mut Object, account: &Object, audiences: &[String]) {
    if texts(request.get(&["spec", "audiences"])).is_empty() {
        set(request, "spec", "audiences", json!(audiences));
    }
    if request.get(&["spec", "expirationSeconds"]).is_none_or(Value::is_null) {
        set(request, "spec", "expirationSeconds", HOUR.into());
    }
    for key in ["name", "namespace", "uid"] {
        let own = account.text(&["metadata", key]).to_owned();
        if request.text(&["metadata", key]).is_empty() {
            request.set_meta(key, own);
        }
    }
    request.set_meta("creationTimestamp", fresh::now());
    request.0.remove("status");
}

fn check(request: &Object) -> Result<()> {
    let seconds = seconds(request);
    let detail = match seconds {
        ..LEAST => "may not specify a duration less than 10 minutes",
        LEAST..=MOST => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    Err(invalid("", vec![Cause::invalid("spec.expirationSeconds", &seconds.into(), detail)]))
}

/// A TokenRequest is of no resource, so it has no row.
fn invalid(name: &str, causes: Vec<Cause>) -> Status {
    let list: Vec<String> = causes.iter().map(ToString::to_string).collect();
    let message = format!("TokenRequest.{GROUP} \"{name}\" is invalid: {}", list.join(", "));
    let details = Details {
        group: GROUP.to_owned(),
        kind: "TokenRequest".to_owned(),
        name: name.to_owned(),
        causes,
        ..Details::default()
    };
    Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details)
}

fn conflict(shown: &str, group: &str, kind: &str, name: &str, why: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on {shown} \"{name}\": {why}");
    let details = Details {
        group: group.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        ..Details::default()
    };
    Status::new(StatusCode::CONFLICT, "Conflict", message).with(details)
}

/// What the token shall live with.
async fn bound(lookup: &Lookup, call: &Call, request: &Object) -> Result<Bound> {
    let Some(wish) = request.get(&["spec", "boundObjectRef"]).filter(|wish| !wish.is_null()) else {
        return Ok(Bound::Nothing);
    };
    let text = |key: &str| wish[key].as_str().unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let namespace = &call.info.namespace;
    let get = async |plural: &str, namespace: &str| {
        let found = lookup.get("", plural, namespace, name).await?;
        let row = lookup.row("", plural)?;
        found.ok_or_else(|| Status::not_found(&row.resource, name))
    };
    let reference = |object: &Object| Reference { name: name.to_owned(), uid: object.uid().to_owned() };
    let (object, bound) = match (group, kind) {
        ("", "Pod") => {
            let pod = get("pods", namespace).await?;
            let account = &call.info.name;
            if pod.text(&["spec", "serviceAccountName"]) != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            let node = match pod.text(&["spec", "nodeName"]) {
                "" => None,
                node => {
                    // A node that is not there is named without its uid.
                    let object = lookup.get("", "nodes", "", node).await?;
                    let uid = object.map_or_else(String::new, |object| object.uid().to_owned());
                    Some(Reference { name: node.to_owned(), uid })
                }
            };
            let bound = Bound::Pod { pod: reference(&pod), node };
            (pod, bound)
        }
        ("", "Secret") => {
            let secret = get("secrets", namespace).await?;
            let bound = Bound::Secret(reference(&secret));
            (secret, bound)
        }
        ("", "Node") => {
            let node = get("nodes", "").await?;
            let bound = Bound::Node(reference(&node));
            (node, bound)
        }
        _ => {
            let group_version =
                if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            let why = format!("cannot bind token to object of type {group_version}, Kind={kind}");
            return Err(Status::bad_request(why));
        }
    };
    let uid = text("uid");
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(conflict(kind, group, kind, name, &why));
    }
    Ok(bound)
}
