//! Who asks: credentials of a request made a [`User`].
//!
//! The order is upstream's: front proxy, client certificate, bearer token, nobody. Wrong credentials are refused unless
//! others of the same request are right. Source: kubernetes `pkg/kubeapiserver/authenticator/config.go`.

mod bearer;
mod bootstrap_token;
pub(in crate::auth) mod cache;
mod request_header;
mod x509;

use std::sync::Arc;
use std::time::SystemTime;

use futures::future::BoxFuture;
use http::HeaderMap;
use http::request::Parts;

pub use request_header::{RequestHeader, RequestHeaderConfig};
pub use x509::{ClientCa, ClientCaError};

use super::User;
use super::lookup::Lookup;
use super::tokens::ServiceAccountTokens;
use crate::hooks::{self, Der};
use crate::status::{Result, Status};

/// Why credentials are refused: for our log; the client learns only that they are.
pub type Refusal = String;

/// What a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    pub user: User,
    /// For which of the audiences that were asked for; empty: the token is not bound to any.
    pub audiences: Vec<String>,
}

impl hooks::Authenticator for Arc<Authenticator> {
    fn authenticate<'a>(&'a self, parts: &'a Parts, certificates: &'a [Der]) -> BoxFuture<'a, Result<User>> {
        Box::pin(self.at(&parts.headers, certificates, SystemTime::now()))
    }
}

/// All ways to prove who one is.
pub struct Authenticator {
    pub lookup: Lookup,
    /// `--client-ca-file`.
    pub client_ca: Option<ClientCa>,
    /// `--requestheader-client-ca-file` and its headers.
    pub request_header: Option<RequestHeader>,
    pub tokens: Option<Arc<ServiceAccountTokens>>,
    /// `--enable-bootstrap-token-auth`.
    pub bootstrap_tokens: bool,
    /// `--anonymous-auth`.
    pub anonymous: bool,
}

impl Authenticator {
    async fn at(&self, headers: &HeaderMap, certificates: &[Der], now: SystemTime) -> Result<User> {
        let mut refused = Vec::new();
        let mut take = |result: Result<Option<User>, Refusal>| {
            result.unwrap_or_else(|refusal| {
                refused.push(refusal);
                None
            })
        };
        if let Some(front) = &self.request_header
            && let Some(user) = take(front.authenticate(headers, certificates, now))
        {
            return Ok(user.authenticated());
        }
        if let Some(ca) = &self.client_ca
            && let Some(user) = take(ca.authenticate(certificates, now))
        {
            return Ok(user.authenticated());
        }
        if let Some(token) = bearer::token(headers) {
            let proven = self.token_at(&token, None, now).await;
            if let Some(user) = take(proven.map(|proven| Some(proven.user))) {
                return Ok(user.authenticated());
            }
        }
        if refused.is_empty() && self.anonymous {
            // What nobody may do is RBAC's business: by default the health endpoints and the version.
            return Ok(User::anonymous());
        }
        if !refused.is_empty() {
            tracing::info!(why = %refused.join("; "), "credentials are refused");
        }
        Err(Status::unauthorized())
    }

    /// What a token proves, to this server or to one of the audiences given: also for TokenReview.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub async fn token(&self, token: &str, audiences: Option<&[String]>) -> Result<Proven, Refusal> {
        self.token_at(token, audiences, SystemTime::now()).await
    }

    async fn token_at(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        now: SystemTime,
    ) -> Result<Proven, Refusal> {
        if token.len() > bearer::MAX_BYTES {
            return Err(format!("a bearer token of {} bytes", token.len()));
        }
        if let Some(tokens) = &self.tokens
            && let Some(proven) = tokens.verify(&self.lookup, token, audiences, now).await?
        {
            return Ok(proven);
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::authenticate(&self.lookup, token, now).await?
        {
            return bootstrap_audiences(self.tokens.as_deref(), audiences)
                .map(|audiences| Proven { user, audiences });
        }
        Err("invalid bearer token".to_owned())
    }
}

/// Such a token is for this server alone.
fn bootstrap_audiences(
    tokens: Option<&ServiceAccountTokens>,
    wanted: Option<&[String]>,
) -> Result<Vec<String>, Refusal> {
    let ours = tokens.map(|tokens| tokens.config.audiences.as_slice()).unwrap_or_default();
    let Some(wanted) = wanted else { return Ok(ours.to_vec()) };
    let both: Vec<String> = ours.iter().filter(|one| wanted.contains(one)).cloned().collect();
    if both.is_empty() {
        return Err(format!("token audiences {ours:?} is invalid for the target audiences {wanted:?}"));
    }
    Ok(both)
}

#[cfg(test)]
mod tests;
