//! What others need to check our tokens by themselves: `/.well-known/openid-configuration` and `/openid/v1/jwks`.
//! Source: kubernetes `pkg/serviceaccount/openidmetadata.go`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ServiceAccountTokens;

pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
pub const JWKS_PATH: &str = "/openid/v1/jwks";
/// Seconds that a client may keep them (`Cache-Control: public, max-age=3600`).
pub const MAX_AGE: u32 = 3600;

impl ServiceAccountTokens {
    /// `application/json`; `None`: the issuer is no https URL, so there is nothing to discover.
    pub fn configuration(&self, external_host: &str) -> Option<Value> {
        let issuer = self.config.issuers.first().filter(|issuer| issuer.starts_with("https://"))?;
        let default = format!("https://{external_host}{JWKS_PATH}");
        let algorithms: BTreeSet<&str> =
            self.keys.iter().filter_map(|key| key.jwk()["alg"].as_str()).collect();
        Some(json!({
            "issuer": issuer,
            "jwks_uri": self.config.jwks_uri.as_ref().unwrap_or(&default),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        }))
    }

    /// `application/jwk-set+json`.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() })
    }
}
