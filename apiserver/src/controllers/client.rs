//! A client of the server in this process.

use std::sync::Arc;

use http::{HeaderValue, Request, header};
use kube::Client;
use kube::client::Body;
use tower::ServiceExt;

use crate::api::Api;
use crate::auth::User;

/// A client without a socket. It may do everything, as upstream's loopback client may; `name` is its user agent.
pub fn client(api: &Arc<Api>, name: &str) -> Client {
    let agent = HeaderValue::from_str(&format!("kube-controller-manager/{name}"));
    let agent = agent.unwrap_or(HeaderValue::from_static("kube-controller-manager"));
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..User::default()
    };
    let service = api.service().map_request(move |mut request: Request<Body>| {
        request.headers_mut().insert(header::USER_AGENT, agent.clone());
        request.extensions_mut().insert(user.clone());
        request
    });
    Client::new(service, "default")
}
