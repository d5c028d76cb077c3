//! What can be done with resources: one file a verb. Nothing here knows a kind.

mod create;
pub mod delete;
mod delete_collection;
mod get;
pub mod list;
pub mod patch;
mod update;
mod watch;

pub use list::selects;

use std::sync::Arc;

use corten_schema::Verb;
use http::Request;

use crate::api::{Api, Body};
use crate::auth::reviews;
use crate::connect;
use crate::registry::Served;
use crate::request::{Answer, Call, Content};
use crate::status::{Result, Status};
use crate::subresources;

/// What a request for a resource is answered with.
///
/// # Errors
/// Whatever keeps it from being done.
pub async fn serve(api: &Arc<Api>, call: &Call, request: Request<Body>) -> Result<Answer> {
    let info = &call.info;
    let served = find(api, call)?;
    if !info.subresource.is_empty() {
        return subresource(api, call, &served, request).await;
    }
    let verb = verb(info.verb).filter(|verb| served.resource.verbs.contains(verb));
    let across_namespaces = served.resource.namespaced && info.namespace.is_empty();
    match verb.ok_or_else(Status::method_not_allowed)? {
        Verb::Get => get::get(api, call, &served).await,
        Verb::List => list::list(api, call, &served).await,
        Verb::Watch => watch::watch(api, call, &served, request).await,
        // Of a name there is no making, of a collection no replacing.
        Verb::Create if !info.name.is_empty() => Err(Status::method_not_allowed()),
        Verb::Update | Verb::Patch if info.name.is_empty() => Err(Status::method_not_allowed()),
        _ if across_namespaces => Err(Status::method_not_allowed()),
        other => write(api, call, &served, other, request).await,
    }
}

/// The resource that a path names.
///
/// # Errors
/// 404: there is none.
pub fn find(api: &Api, call: &Call) -> Result<Arc<Served>> {
    let info = &call.info;
    let found = api.registry.find(&info.group, &info.version, &info.resource);
    found.filter(|served| is_path_of(served, call)).ok_or_else(Status::no_such_path)
}

/// Changes, all of which have a body or may have one.
async fn write(
    api: &Arc<Api>,
    call: &Call,
    served: &Arc<Served>,
    verb: Verb,
    request: Request<Body>,
) -> Result<Answer> {
    let content = Content::read(&call.headers, request.into_body(), api.config.max_body_bytes).await?;
    match verb {
        Verb::Create if served.resource.kind == "Binding" && served.resource.group.is_empty() => {
            let pods = api.registry.find("", "v1", "pods").ok_or_else(Status::no_such_path)?;
            subresources::binding::create(api, call, &pods, &content).await
        }
        Verb::Create if reviews::are(&served.resource) => reviews::create(api, call, served, &content).await,
        Verb::Create => create::create(api, call, served, &content).await,
        Verb::Update => update::update(api, call, served, &content).await,
        Verb::Patch => patch::patch(api, call, served, &content).await,
        Verb::Delete => delete::delete(api, call, served, &content).await,
        Verb::DeleteCollection => delete_collection::delete_collection(api, call, served, &content).await,
        Verb::Get | Verb::List | Verb::Watch => Err(Status::method_not_allowed()),
    }
}

async fn subresource(
    api: &Arc<Api>,
    call: &Call,
    served: &Arc<Served>,
    request: Request<Body>,
) -> Result<Answer> {
    if connect::is(&served.resource, &call.info.subresource) {
        return connect::serve(api, call, served, request).await;
    }
    let subresource = served.resource.subresource(&call.info.subresource).ok_or_else(Status::no_such_path)?;
    let verb = verb(call.info.verb).filter(|verb| subresource.verbs.contains(verb));
    let verb = verb.ok_or_else(Status::method_not_allowed)?;
    let whole = subresource.kind == served.resource.kind;
    if whole && verb == Verb::Get {
        return get::get(api, call, served).await;
    }
    let content = Content::read(&call.headers, request.into_body(), api.config.max_body_bytes).await?;
    match (&*call.info.subresource, verb) {
        (_, Verb::Update) if whole => update::update(api, call, served, &content).await,
        (_, Verb::Patch) if whole => patch::patch(api, call, served, &content).await,
        ("scale", verb) => subresources::scale::scale(api, call, served, verb, &content).await,
        ("binding", Verb::Create) => subresources::binding::create(api, call, served, &content).await,
        ("token", Verb::Create) => subresources::token::create(api, call, served, &content).await,
        ("eviction", Verb::Create) => subresources::eviction::create(api, call, served, &content).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// `/api/v1/pods/a` and `/api/v1/namespaces/a/nodes` are no paths.
fn is_path_of(served: &Served, call: &Call) -> bool {
    let info = &call.info;
    let named = info.parts.len() > 1;
    if served.resource.namespaced {
        !named || !info.namespace.is_empty()
    } else {
        info.namespace.is_empty() || info.resource == "namespaces"
    }
}

fn verb(name: &str) -> Option<Verb> {
    Some(match name {
        "create" => Verb::Create,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        "get" => Verb::Get,
        "list" => Verb::List,
        "patch" => Verb::Patch,
        "update" => Verb::Update,
        "watch" => Verb::Watch,
        _ => return None,
    })
}
