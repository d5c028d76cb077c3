//! Is a token right, and is what it is bound to still there?

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::claims::{Claims, Private, Reference};
use super::{Cache, LEGACY_ISSUER, ServiceAccountTokens, jwt, legacy};
use crate::auth::authn::{Proven, Refusal};
use crate::auth::lookup::Lookup;
use crate::auth::{User, extra};
use crate::fresh;
use crate::object::Object;

/// Clocks differ; what was deleted so long ago is gone. Source: go-jose `jwt.DefaultLeeway`.
const LEEWAY: Duration = Duration::from_mins(1);
/// A right signature is remembered so long.
const REMEMBERED: Duration = Duration::from_mins(10);

impl ServiceAccountTokens {
    /// `None`: it is no token of ours.
    ///
    /// # Errors
    /// It says that it is ours, and it is wrong.
    pub async fn verify(
        &self,
        lookup: &Lookup,
        token: &str,
        audiences: Option<&[String]>,
        now: SystemTime,
    ) -> Result<Option<Proven>, Refusal> {
        let Some(payload) = self.signed(token, now)? else { return Ok(None) };
        if payload["iss"] == LEGACY_ISSUER {
            let audiences = intersection(&self.config.audiences, audiences, &self.config.audiences)?;
            let user = legacy::check(lookup, token, &payload).await?;
            return Ok(Some(Proven { user, audiences }));
        }
        let claims: Claims = serde_json::from_value(Value::clone(&payload))
            .map_err(|error| format!("service account token claims could not be validated: {error}"))?;
        let audiences = intersection(claims.aud.list(), audiences, &self.config.audiences)?;
        check_times(&claims, now)?;
        let user = check_objects(lookup, &claims, now).await?;
        if claims.private.warnafter.is_some_and(|after| after < seconds(now)) {
            tracing::debug!(subject = %claims.sub, "a token is used after the time it was asked for");
        }
        Ok(Some(Proven { user, audiences }))
    }

    /// The payload of a token whose signature is right; `None`: nobody we believe issued it.
    fn signed(&self, token: &str, now: SystemTime) -> Result<Option<Arc<Value>>, Refusal> {
        let key = Cache::<Value>::key([token.as_bytes()]);
        if let Some(payload) = self.proven.get(&key, now) {
            return Ok(Some(payload));
        }
        let Some(parsed) = jwt::parse(token) else { return Ok(None) };
        let issuer = parsed.payload["iss"].as_str().unwrap_or_default();
        if issuer != LEGACY_ISSUER && !self.config.issuers.iter().any(|one| one == issuer) {
            return Ok(None);
        }
        let mut keys = self.keys.by_id(&parsed.header.kid).peekable();
        if keys.peek().is_none() {
            return Err("invalid signature, no keys found".to_owned());
        }
        if !keys.any(|key| key.verify(&parsed)) {
            return Err("invalid signature".to_owned());
        }
        let payload = Arc::new(parsed.payload);
        self.proven.put(key, Arc::clone(&payload), now + REMEMBERED, now);
        Ok(Some(payload))
    }
}

/// For which of the wanted audiences a token is; without a wish, for ours.
fn intersection(have: &[String], want: Option<&[String]>, ours: &[String]) -> Result<Vec<String>, Refusal> {
    // Only this server is meant by a token that says nobody.
    let have = if have.is_empty() { ours } else { have };
    let want = want.unwrap_or(ours);
    let both: Vec<String> = have.iter().filter(|one| want.contains(one)).cloned().collect();
    if both.is_empty() {
        return Err(format!("token audiences {have:?} is invalid for the target audiences {want:?}"));
    }
    Ok(both)
}

#[allow(clippy::cast_precision_loss)] // Seconds since 1970 are exact in an f64.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as f64
}

fn check_times(claims: &Claims, now: SystemTime) -> Result<(), Refusal> {
    let (now, leeway) = (seconds(now), LEEWAY.as_secs_f64());
    // Upstream always sets an end; a token without one is not from us.
    if claims.exp.is_none_or(|end| now - leeway > end) {
        return Err("service account token has expired".to_owned());
    }
    if claims.nbf.is_some_and(|begin| now + leeway < begin) {
        return Err("service account token is not valid yet".to_owned());
    }
    if claims.iat.is_some_and(|issued| now + leeway < issued) {
        return Err("service account token is issued in the future".to_owned());
    }
    Ok(())
}

async fn check_objects(lookup: &Lookup, claims: &Claims, now: SystemTime) -> Result<User, Refusal> {
    const GONE: &str = "service account token has been invalidated";
    let Private { namespace, serviceaccount: account, pod, secret, node, .. } = &claims.private;
    let get = async |plural: &str, namespace: &str, name: &str| {
        lookup.get("", plural, namespace, name).await.map_err(|status| status.to_string())
    };
    let check = |what: &str, claim: &str, object: &Object, reference: &Reference| {
        let uid = object.uid();
        if uid != reference.uid {
            return Err(format!("{what} UID ({uid}) does not match {claim} claim ({})", reference.uid));
        }
        Ok(())
    };
    let object = get("serviceaccounts", namespace, &account.name)
        .await?
        .ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
    if object.uid() != account.uid {
        return Err(format!("service account UID ({}) does not match claim ({})", object.uid(), account.uid));
    }
    if is_gone(&object, now) {
        return Err(format!("service account {namespace}/{} has been deleted", account.name));
    }
    if let Some(reference) = secret {
        let object = get("secrets", namespace, &reference.name).await?.ok_or(GONE)?;
        check("secret", "service account secret ref", &object, reference)?;
        if is_gone(&object, now) {
            return Err(GONE.to_owned());
        }
    }
    let mut user = User::service_account(namespace, &account.name, &account.uid);
    let mut say = |key: &str, value: &str| {
        user.extra.insert(key.to_owned(), vec![value.to_owned()]);
    };
    if let Some(reference) = pod {
        let object = get("pods", namespace, &reference.name).await?.ok_or(GONE)?;
        check("pod", "service account pod ref", &object, reference)?;
        if is_gone(&object, now) {
            return Err(GONE.to_owned());
        }
        say(extra::POD_NAME, &reference.name);
        say(extra::POD_UID, &reference.uid);
    }
    if let Some(reference) = node {
        // Beside a pod it only says where that runs.
        if pod.is_none() {
            let object = get("nodes", "", &reference.name).await?.ok_or(GONE)?;
            check("node", "service account node ref", &object, reference)?;
            if is_gone(&object, now) {
                return Err(GONE.to_owned());
            }
        }
        say(extra::NODE_NAME, &reference.name);
        if !reference.uid.is_empty() {
            say(extra::NODE_UID, &reference.uid);
        }
    }
    if !claims.jti.is_empty() {
        say(extra::CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    Ok(user)
}

/// Its deletion should have happened a while ago.
fn is_gone(object: &Object, now: SystemTime) -> bool {
    let deleted = object.deletion_timestamp().and_then(fresh::parse_time).map(SystemTime::from);
    deleted.is_some_and(|at| at + LEEWAY < now)
}
