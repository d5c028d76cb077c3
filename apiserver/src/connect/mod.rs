//! Subresources that are no objects: their requests go on to a kubelet, a pod, a node or a service. Source: apiserver
//! `pkg/endpoints/handlers/rest.go` ConnectResource, kubernetes `pkg/registry/core/pod/rest`.

mod dial;
mod exec;
mod go;
mod kubelets;
mod log;
mod options;
mod pod;
mod portforward;
mod proxy;
mod translate;
mod upgrade;

use std::sync::Arc;

use corten_schema::Resource;
use http::{Method, Request};

use crate::api::{Api, Body};
use crate::auth::Decision;
use crate::http::attributes;
use crate::registry::Served;
use crate::request::{Answer, Call};
use crate::status::{Result, Status};

pub use kubelets::Kubelets;

/// One request for such a subresource, apart from its body.
#[derive(Clone, Copy)]
struct Connect<'a> {
    api: &'a Arc<Api>,
    call: &'a Call,
    served: &'a Arc<Served>,
}

/// Whether a subresource is one of them.
pub fn is(resource: &Resource, subresource: &str) -> bool {
    let plural = &*resource.plural;
    resource.group.is_empty()
        && match subresource {
            "log" | "exec" | "attach" | "portforward" => plural == "pods",
            "proxy" => matches!(plural, "pods" | "services" | "nodes"),
            _ => false,
        }
}

/// Serves one for which [`is`] says so.
///
/// # Errors
/// Whatever keeps the request from going on.
pub async fn serve(
    api: &Arc<Api>,
    call: &Call,
    served: &Arc<Served>,
    request: Request<Body>,
) -> Result<Answer> {
    const PROXIED: [Method; 7] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ];
    let methods = match &*call.info.subresource {
        "log" => &PROXIED[..1],
        "proxy" => &PROXIED[..],
        _ => &PROXIED[..2],
    };
    if !methods.contains(&call.method) {
        return Err(Status::method_not_allowed());
    }
    if call.query.has("dryRun") {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    let connect = Connect { api, call, served };
    match &*call.info.subresource {
        "log" => log::log(connect).await,
        "portforward" => portforward::portforward(connect, request).await,
        "proxy" => proxy::proxy(connect, request).await,
        _ => exec::exec(connect, request).await,
    }
}

impl Connect<'_> {
    /// WebSockets ask with GET, which is `get`; what they do needs `create`, as SPDY's POST does. Source:
    /// kubernetes `pkg/registry/core/pod/rest/authorize.go`, issue 133515.
    async fn may_create(&self) -> Result<()> {
        if self.call.info.verb == "create" {
            return Ok(());
        }
        let mut attributes = attributes(self.call);
        "create".clone_into(&mut attributes.verb);
        match self.api.authorizer.authorize(&self.call.user, &attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny(why) | Decision::NoOpinion(why) => {
                Err(Status::forbidden(&self.served.resource, &self.call.info.name, why))
            }
        }
    }
}
