//! Thin registry client: OCI distribution and Docker v2. Everything it is sent is hostile: bounded, verified, and never
//! told credentials that are not its own. Knows nothing of the store.

pub mod auth;
pub mod error;
mod fetch;
mod hosts;
mod http;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use auth::Auth;
pub use error::RegistryError;
pub use fetch::{FetchedManifest, Piece, Sink, combined};
pub use hosts::RegistryConfig;

use crate::reference::Reference;
use auth::Credentials;
use hosts::{Connection, Host};
use hyper::header::HeaderValue;
use tls::HttpClient;

/// Connections and configuration, shared by all pulls.
pub struct Client {
    config: RegistryConfig,
    /// By what the host's configuration wants of a connection.
    clients: Mutex<HashMap<Connection, HttpClient>>,
}

impl Client {
    pub fn new(config: RegistryConfig) -> Self {
        Self { config, clients: Mutex::default() }
    }

    /// The conversation of one pull. Configuration is read anew each time, as in containerd: no restart after an edit.
    pub fn session(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<&Auth>,
        no_progress: Duration,
    ) -> Result<Session, RegistryError> {
        let hosts = self.config.hosts(reference.registry())?;
        let malformed =
            |problem: &str| RegistryError::Auth { url: reference.registry().into(), problem: problem.into() };
        let credentials = auth.map(Auth::credentials).transpose().map_err(malformed)?.flatten();
        let credentials_of = |host: &Host| {
            credentials.clone().filter(|_| auth.is_some_and(|auth| auth.is_for(&host.authority, host.origin)))
        };
        let hosts = hosts
            .into_iter()
            .map(|host| HostSession {
                credentials: credentials_of(&host),
                authorization: Mutex::default(),
                host,
            })
            .collect();
        Ok(Session { client: Arc::clone(self), reference: reference.clone(), hosts, no_progress })
    }

    fn http(&self, connection: &Connection) -> Result<HttpClient, RegistryError> {
        let mut clients = self.clients.lock().expect("no panic while the clients are locked: panics abort");
        if let Some(client) = clients.get(connection) {
            return Ok(client.clone());
        }
        let client = tls::client(connection)?;
        clients.insert(connection.clone(), client.clone());
        Ok(client)
    }
}

/// One pull's view of a registry: its hosts in order, and what each wants to see as Authorization.
pub struct Session {
    client: Arc<Client>,
    reference: Reference,
    hosts: Vec<HostSession>,
    no_progress: Duration,
}

struct HostSession {
    host: Host,
    credentials: Option<Credentials>,
    /// Answer to this host's challenge; never outlives the pull, so that no pull uses another's.
    authorization: Mutex<Option<HeaderValue>>,
}
