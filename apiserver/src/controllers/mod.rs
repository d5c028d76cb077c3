//! What a cluster cannot be without: namespaces that end, default objects in each, dependents that go with their owners.
//!
//! Written on `kube`, so that each runs against any API server; here over the server in this process, without a socket.
//! What they do, a stock kube-controller-manager does the same way: each can be left to it (--controllers).

mod client;
mod defaults;
pub mod garbage;
mod kinds;
mod namespace;
mod retry;
pub mod system;

use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;

use crate::api::Api;
use crate::options::run::Controllers;

pub use client::client;

/// Starts those that are wanted; they end when the set is dropped.
pub fn start(api: &Arc<Api>, which: Controllers, root_ca: Option<String>) -> JoinSet<()> {
    let as_user = |name: &str| client(api, name);
    start_with(&as_user, which, root_ca)
}

/// The same on clients of any server. `client_of`: for a name of a controller.
pub fn start_with(
    client_of: &dyn Fn(&str) -> Client,
    which: Controllers,
    root_ca: Option<String>,
) -> JoinSet<()> {
    let mut running = JoinSet::new();
    if which.namespace {
        running.spawn(namespace::run(client_of("namespace-controller")));
    }
    if which.service_account {
        running.spawn(defaults::service_accounts(client_of("service-account-controller")));
    }
    if let (true, Some(pem)) = (which.root_ca, root_ca) {
        running.spawn(defaults::root_ca(client_of("root-ca-cert-publisher"), pem));
    }
    if which.garbage {
        running.spawn(garbage::run(client_of("generic-garbage-collector")));
    }
    running
}
