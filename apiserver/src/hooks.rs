//! What the frame asks of others: who somebody is, whether they may, whether a change is admitted, what is recorded.
//! Tests run a server without any of it ([`AllowAll`]).

use std::sync::Arc;

use futures::future::BoxFuture;
use http::StatusCode;
use http::request::Parts;
use serde_json::Value;

use crate::api::Api;
use crate::auth::{Attributes, Decision, User};
use crate::object::Object;
use crate::registry::Served;
use crate::request::Call;
use crate::status::Result;

/// A certificate in DER. A client's come leaf first, and are verified by nobody yet.
pub type Der = Vec<u8>;

pub trait Authenticator: Send + Sync {
    /// # Errors
    /// [`crate::status::Status::unauthorized`]: there are credentials and they are wrong, or there are none and must be.
    fn authenticate<'a>(&'a self, parts: &'a Parts, certificates: &'a [Der]) -> BoxFuture<'a, Result<User>>;
}

pub trait Authorizer: Send + Sync {
    /// Takes no time where it is allowed; before it is refused, what was written up to now is waited for.
    fn authorize<'a>(&'a self, user: &'a User, attributes: &'a Attributes) -> BoxFuture<'a, Decision>;
}

pub trait Admission: Send + Sync {
    /// Looks at a change before it is made; may change the object, may warn by [`Review::warnings`].
    fn admit<'a>(&'a self, api: &'a Api, review: &'a mut Review) -> BoxFuture<'a, Result<()>>;
}

/// How much of a request is recorded. Source: apiserver `pkg/apis/audit/types.go`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Metadata,
    /// With what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

pub trait Audit: Send + Sync {
    /// What will be recorded: bodies are kept in [`Call::bodies`] only where they are wanted.
    fn level(&self, _: &Call) -> Level {
        Level::None
    }

    /// A request came in, was answered, or (long-running ones) began to be answered.
    fn record(&self, stage: Stage, call: &Call, code: Option<StatusCode>);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One change before it is made.
pub struct Review {
    pub user: User,
    pub operation: Operation,
    pub served: Arc<Served>,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// `None` of a deletion.
    pub object: Option<Object>,
    /// `None` of a creation.
    pub old: Option<Object>,
    pub dry_run: bool,
    /// `CreateOptions`, `DeleteOptions`, ...
    pub options: Value,
    pub warnings: Vec<String>,
}

/// Everybody is `system:admin`, may do everything, and nothing is recorded.
pub struct AllowAll;

impl Authenticator for AllowAll {
    fn authenticate<'a>(&'a self, _: &'a Parts, _: &'a [Der]) -> BoxFuture<'a, Result<User>> {
        let user = User {
            name: "system:admin".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            ..User::default()
        };
        Box::pin(std::future::ready(Ok(user)))
    }
}

impl Authorizer for AllowAll {
    fn authorize<'a>(&'a self, _: &'a User, _: &'a Attributes) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(Decision::Allow))
    }
}

impl Admission for AllowAll {
    fn admit<'a>(&'a self, _: &'a Api, _: &'a mut Review) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Audit for AllowAll {
    fn record(&self, _: Stage, _: &Call, _: Option<StatusCode>) {}
}
