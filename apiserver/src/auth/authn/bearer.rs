//! The token of a request. Source: apiserver `pkg/authentication/request/{bearertoken,websocket}`.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, header};

/// ServiceAccount tokens have one to two thousand.
pub const MAX_BYTES: usize = 16 << 10;

/// Browsers cannot set `Authorization` on a WebSocket; they send the token as a subprotocol.
const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

pub fn token(headers: &HeaderMap) -> Option<String> {
    authorization(headers).or_else(|| protocol(headers))
}

fn authorization(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn protocol(headers: &HeaderMap) -> Option<String> {
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return None;
    }
    let mut protocols = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let encoded = protocols.find_map(|protocol| protocol.trim().strip_prefix(PROTOCOL))?;
    let token = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    (!token.is_empty()).then_some(token)
}
