//! Who asks, and whether they may.
//!
//! [`authn`] makes a [`User`] of credentials, [`authz`] decides, [`tokens`] makes and checks what ServiceAccounts carry,
//! [`bootstrap`] keeps the roles that every cluster has. Nothing here knows HTTP beyond headers.

pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod lookup;
pub mod reviews;
mod start;
#[cfg(test)]
pub mod testing;
pub mod tokens;
mod user;
pub mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use start::{AuthConfig, AuthError};
pub use user::{extra, groups, names, service_account, split_service_account};

/// Who a request is from. Source: apiserver `pkg/authentication/user`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// All of it together, as a server has it.
pub struct Auth {
    pub authenticator: Arc<authn::Authenticator>,
    pub authorizer: Arc<authz::Authorizer>,
    /// None: ServiceAccount tokens are neither made nor believed.
    pub tokens: Option<Arc<tokens::ServiceAccountTokens>>,
}

/// What a request would do. Source: apiserver `pkg/authorization/authorizer`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Of a resource: `get`, `list`, ...; of a path: the method in lower case.
    pub verb: String,
    /// Empty for a path that is no resource's.
    pub resource: String,
    pub group: String,
    pub version: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub path: String,
    /// What selects objects, for the Node authorizer: `spec.nodeName=a`.
    pub field_selector: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Whatever others say.
    Deny(String),
    /// Not mine to allow; why, where there is something to say.
    NoOpinion(String),
}
