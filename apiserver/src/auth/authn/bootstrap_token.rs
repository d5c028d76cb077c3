//! Tokens with which nodes join: Secrets in kube-system. Source: kubernetes
//! `plugin/pkg/auth/authenticator/token/bootstrap`, cluster-bootstrap `util/{secrets,tokens}`.

use std::collections::BTreeSet;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use super::Refusal;
use crate::auth::lookup::Lookup;
use crate::auth::{User, groups, names};
use crate::fresh;
use crate::object::Object;

/// `None`: it is no such token, or none that is good.
pub async fn authenticate(lookup: &Lookup, token: &str, now: SystemTime) -> Result<Option<User>, Refusal> {
    let Some((id, secret)) = split(token) else { return Ok(None) };
    let name = format!("bootstrap-token-{id}");
    let found = lookup.get("", "secrets", "kube-system", &name).await.map_err(|status| status.to_string())?;
    let Some(object) = found else { return Ok(None) };
    match check(&object, id, secret, now) {
        Ok(user) => Ok(Some(user)),
        Err(why) => {
            tracing::info!("Bootstrap secret kube-system/{name} matching bearer token {why}");
            Ok(None)
        }
    }
}

fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn check(object: &Object, id: &str, secret: &str, now: SystemTime) -> Result<User, String> {
    let data = |key: &str| {
        let decoded = BASE64_STANDARD.decode(object.text(&["data", key])).unwrap_or_default();
        String::from_utf8(decoded).unwrap_or_default()
    };
    if object.deletion_timestamp().is_some() {
        return Err("is deleted and awaiting removal".to_owned());
    }
    if object.text(&["type"]) != "bootstrap.kubernetes.io/token" {
        return Err("has invalid type, expected bootstrap.kubernetes.io/token.".to_owned());
    }
    if !bool::from(data("token-secret").as_bytes().ct_eq(secret.as_bytes())) {
        return Err("has invalid value for key token-secret.".to_owned());
    }
    if data("token-id") != id {
        return Err("has invalid value for key token-id.".to_owned());
    }
    let expiration = data("expiration");
    if !expiration.is_empty()
        && fresh::parse_time(&expiration).is_none_or(|end| std::time::SystemTime::from(end) <= now)
    {
        return Err(format!("has expired: {expiration}"));
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("not marked usage-bootstrap-authentication=true.".to_owned());
    }
    let mut all = BTreeSet::from([groups::BOOTSTRAPPERS.to_owned()]);
    let more = data("auth-extra-groups");
    for group in more.split(',').filter(|_| !more.is_empty()) {
        if !is_group(group) {
            return Err("has invalid value for key auth-extra-groups.".to_owned());
        }
        all.insert(group.to_owned());
    }
    Ok(User {
        name: format!("{}{id}", names::BOOTSTRAP_PREFIX),
        groups: all.into_iter().collect(),
        ..User::default()
    })
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().next_back().is_some_and(plain)
        && rest.bytes().all(|byte| plain(byte) || matches!(byte, b':' | b'-'))
}
