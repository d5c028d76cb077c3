//! Tokens without an end that lie in Secrets. Source: kubernetes `pkg/serviceaccount/legacy.go`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use subtle::ConstantTimeEq;

use crate::auth::authn::Refusal;
use crate::auth::lookup::Lookup;
use crate::auth::{User, split_service_account};

const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

pub async fn check(lookup: &Lookup, token: &str, payload: &Value) -> Result<User, Refusal> {
    let claim = |key: &str, missing: &str| match payload[key].as_str() {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(format!("{missing} claim is missing")),
    };
    let subject = claim("sub", "sub")?;
    let namespace = claim("kubernetes.io/serviceaccount/namespace", "namespace")?;
    let secret_name = claim("kubernetes.io/serviceaccount/secret.name", "secretName")?;
    let name = claim("kubernetes.io/serviceaccount/service-account.name", "serviceAccountName")?;
    let uid = claim("kubernetes.io/serviceaccount/service-account.uid", "serviceAccountUID")?;
    if split_service_account(subject) != Some((namespace, name)) {
        return Err("sub claim is invalid".to_owned());
    }
    let get = async |plural: &str, name: &str| {
        lookup.get("", plural, namespace, name).await.map_err(|status| status.to_string())
    };
    let secret = get("secrets", secret_name).await?.filter(|secret| secret.deletion_timestamp().is_none());
    let secret = secret.ok_or("Token has been invalidated")?;
    let copy = BASE64_STANDARD.decode(secret.text(&["data", "token"])).unwrap_or_default();
    if !bool::from(copy.ct_eq(token.as_bytes())) {
        return Err("Token does not match server's copy".to_owned());
    }
    let account = get("serviceaccounts", name).await?;
    let account = account.ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
    if account.deletion_timestamp().is_some() {
        return Err(format!("ServiceAccount {namespace}/{name} has been deleted"));
    }
    if account.uid() != uid {
        return Err(format!("ServiceAccount UID ({}) does not match claim ({uid})", account.uid()));
    }
    if secret.labels().is_some_and(|labels| labels.get(INVALID_SINCE).is_some_and(|since| since != "")) {
        return Err(format!(
            "the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked invalid. \
             Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' \
             label from the secret to temporarily allow use of this token"
        ));
    }
    Ok(User::service_account(namespace, name, uid))
}
