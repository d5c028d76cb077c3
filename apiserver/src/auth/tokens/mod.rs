//! What ServiceAccounts carry: JSON Web Tokens that this server signs and checks.
//! Source: kubernetes `pkg/serviceaccount/{jwt,claims,legacy}.go`.

mod claims;
pub mod discovery;
mod jwt;
mod keys;
mod legacy;
mod verify;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

pub use claims::{Bound, Claims, Reference};
pub use keys::{KeyError, PublicKey, PublicKeys, Signer};

use super::authn::cache::Cache;
use crate::fresh;

const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Kubelets ask for this; more time is given to clients that do not read the token's file again.
/// Source: kubernetes `pkg/serviceaccount/claims.go`.
const ASKED_BY_KUBELETS: u64 = 60 * 60 + 7;
const EXTENDED: u64 = 365 * 24 * 3600;
const CACHED: usize = 8192;

/// How tokens are made and what is believed. Names are kube-apiserver's flags'.
#[derive(Debug, Clone)]
pub struct TokenConfig {
    /// `--service-account-issuer`: the first signs, all are believed.
    pub issuers: Vec<String>,
    /// `--api-audiences`; the first issuer unless given.
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration`.
    pub max_expiration: Option<Duration>,
    /// `--service-account-extend-token-expiration`.
    pub extend_expiration: bool,
    /// `--service-account-jwks-uri`.
    pub jwks_uri: Option<String>,
}

pub struct ServiceAccountTokens {
    pub config: TokenConfig,
    pub signer: Signer,
    pub keys: PublicKeys,
    /// What a right signature says.
    proven: Cache<Value>,
}

/// What to make a token of.
pub struct Wanted<'a> {
    pub namespace: &'a str,
    pub service_account: Reference,
    pub bound: Bound,
    pub audiences: Vec<String>,
    pub seconds: u64,
}

/// A token and until when it may be used.
pub struct Made {
    pub token: String,
    pub id: String,
    pub expires: SystemTime,
}

impl ServiceAccountTokens {
    pub fn new(config: TokenConfig, signer: Signer, mut keys: PublicKeys) -> Arc<Self> {
        keys.add(signer.public());
        Arc::new(Self { config, signer, keys, proven: Cache::new(CACHED) })
    }

    pub fn make(&self, wanted: Wanted<'_>, now: SystemTime) -> Made {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let of_ours = wanted.audiences.iter().all(|audience| self.config.audiences.contains(audience));
        let extend = self.config.extend_expiration
            && matches!(wanted.bound, Bound::Pod { .. })
            && wanted.seconds == ASKED_BY_KUBELETS
            && of_ours;
        let extended = self.config.max_expiration.map_or(EXTENDED, |max| max.as_secs().min(EXTENDED));
        let (lifetime, warn_after) =
            if extend { (extended, Some(seconds + wanted.seconds)) } else { (wanted.seconds, None) };
        let id = fresh::uid();
        let mut private = json!({ "namespace": wanted.namespace, "serviceaccount": wanted.service_account });
        match &wanted.bound {
            Bound::Nothing => {}
            Bound::Pod { pod, node } => {
                private["pod"] = json!(pod);
                if let Some(node) = node {
                    private["node"] = json!(node);
                }
            }
            Bound::Secret(secret) => private["secret"] = json!(secret),
            Bound::Node(node) => private["node"] = json!(node),
        }
        if let Some(after) = warn_after {
            private["warnafter"] = after.into();
        }
        let claims = json!({
            "iss": self.config.issuers.first().map_or("", String::as_str),
            "sub": super::service_account(wanted.namespace, &wanted.service_account.name),
            "aud": wanted.audiences,
            "exp": seconds + lifetime,
            "iat": seconds,
            "nbf": seconds,
            "jti": id,
            "kubernetes.io": private,
        });
        let token = self.signer.sign(&claims);
        Made { token, id, expires: now + Duration::from_secs(wanted.seconds) }
    }
}

#[cfg(test)]
mod tests;
