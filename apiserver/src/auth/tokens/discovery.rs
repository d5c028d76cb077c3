//! What others need to check our tokens by themselves: `/.well-known/openid-configuration` and `/openid/v1/jwks`.
//! Source: kubernetes `pkg/serviceaccount/openidmetadata.go`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ServiceAccountTokens;
use crate::http::Fixed;

pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
pub const JWKS_PATH: &str = "/openid/v1/jwks";

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

    /// Both, to be served. They change with the keys: with the next start.
    pub fn documents(&self, external_host: &str) -> Vec<Fixed> {
        const KEPT: &str = "public, max-age=3600";
        let document = |path, content_type, value: Value| Fixed {
            path,
            content_type,
            cache_control: KEPT,
            bytes: value.to_string().into(),
        };
        let configuration = self.configuration(external_host);
        let configuration =
            configuration.map(|value| document(CONFIGURATION_PATH, "application/json", value));
        let keys = document(JWKS_PATH, "application/jwk-set+json", self.jwks());
        configuration.into_iter().chain([keys]).collect()
    }

    /// `application/jwk-set+json`.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().map(super::keys::PublicKey::jwk).collect::<Vec<_>>() })
    }
}
