//! The context of one request.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, Method, header};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::{Accept, Info, Offers, Query};
use crate::auth::User;
use crate::status::Result;

/// One request, apart from its body.
#[derive(Debug)]
pub struct Call {
    pub method: Method,
    pub info: Info,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: User,
    /// Who acts as [`Call::user`].
    pub impersonator: Option<User>,
    pub peer: Option<SocketAddr>,
    pub audit_id: String,
    /// Path and query as they were sent.
    pub uri: String,
    pub received: Timestamp,
    warnings: Mutex<Vec<String>>,
    bodies: Mutex<Bodies>,
}

/// What was sent and answered, where the audit log wants it.
#[derive(Debug, Clone, Default)]
pub struct Bodies {
    pub request: Option<Value>,
    pub response: Option<Value>,
}

/// Upstream drops what is beyond.
const MAX_WARNING_BYTES: usize = 4096;

impl Call {
    pub fn new(method: Method, info: Info, query: Query, headers: HeaderMap, user: User) -> Self {
        Self {
            method,
            info,
            query,
            headers,
            user,
            impersonator: None,
            peer: None,
            audit_id: String::new(),
            uri: String::new(),
            received: Timestamp::now(),
            warnings: Mutex::default(),
            bodies: Mutex::default(),
        }
    }

    pub fn bodies(&self) -> Bodies {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn keep(&self, change: impl FnOnce(&mut Bodies)) {
        change(&mut self.bodies.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Is said to the client in a `Warning:` header, once.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = warnings.iter().map(String::len).sum();
        if !warnings.contains(&warning) && bytes + warning.len() <= MAX_WARNING_BYTES {
            warnings.push(warning);
        }
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn user_agent(&self) -> &str {
        self.header(header::USER_AGENT.as_str())
    }

    /// Empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// # Errors
    /// As [`Accept::negotiate`].
    pub fn accept(&self, offers: Offers) -> Result<Accept> {
        Accept::negotiate(&self.headers, &self.query, offers)
    }

    /// What the answer to this call can be made into.
    pub fn offers(&self) -> Offers {
        match self.info.verb {
            "list" | "deletecollection" => Offers::Lists,
            _ if !self.info.is_resource => Offers::Plain,
            _ => Offers::Objects,
        }
    }
}
