//! What a client asks to upgrade to, and what to answer. Source: streaming `pkg/httpstream`; RFC 6455 section 4.

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub const SPDY: &str = "SPDY/3.1";
pub const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
pub const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// In front of the name of a protocol whose SPDY frames travel in WebSocket messages.
pub const TUNNEL: &str = "SPDY/3.1+";

/// What both sides go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrade {
    Spdy {
        protocol: String,
    },
    /// `protocol`: empty where the client named none; `accept`: the answer to its key.
    WebSocket {
        protocol: String,
        accept: String,
    },
}

/// Why not, as it is said to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("unable to upgrade: missing upgrade headers in request")]
    NoUpgrade,
    #[error("unable to upgrade: header X-Stream-Protocol-Version does not exist in request")]
    NoProtocol,
    #[error(
        "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server accepts {accepted:?}"
    )]
    Protocol { asked: Vec<String>, accepted: Vec<String> },
    #[error("unable to upgrade: missing or bad Sec-WebSocket-Key")]
    Key,
    #[error("unable to upgrade: Sec-WebSocket-Version is not 13")]
    Version,
}

/// It asks for an upgrade, to whatever.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    contains(headers, &CONNECTION, "upgrade")
}

pub fn is_websocket(headers: &HeaderMap) -> bool {
    is_upgrade(headers) && contains(headers, &UPGRADE, "websocket")
}

/// The protocols that a WebSocket's client names, the one it likes best first.
pub fn websocket_protocols(headers: &HeaderMap) -> Vec<String> {
    list(headers, &SEC_WEBSOCKET_PROTOCOL)
}

/// The stream protocols that a SPDY client names.
pub fn spdy_protocols(headers: &HeaderMap) -> Vec<String> {
    list(headers, &PROTOCOL)
}

/// Picks the first protocol of the client's that is among `spdy` or `websocket`; an empty name among the latter stands
/// for a client that names none.
pub fn negotiate(headers: &HeaderMap, spdy: &[&str], websocket: &[&str]) -> Result<Upgrade, Refusal> {
    if !is_upgrade(headers) {
        return Err(Refusal::NoUpgrade);
    }
    if is_websocket(headers) {
        return negotiate_websocket(headers, websocket);
    }
    if !contains(headers, &UPGRADE, "spdy/3.1") {
        return Err(Refusal::NoUpgrade);
    }
    let asked = spdy_protocols(headers);
    if asked.is_empty() {
        return Err(Refusal::NoProtocol);
    }
    let protocol = pick(asked, spdy)?;
    Ok(Upgrade::Spdy { protocol })
}

fn negotiate_websocket(headers: &HeaderMap, accepted: &[&str]) -> Result<Upgrade, Refusal> {
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Refusal::Version);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::Key)?;
    if key.len() != 24 {
        return Err(Refusal::Key);
    }
    let mut asked = websocket_protocols(headers);
    if asked.is_empty() {
        asked.push(String::new());
    }
    let protocol = pick(asked, accepted)?;
    Ok(Upgrade::WebSocket { protocol, accept: derive_accept_key(key.as_bytes()) })
}

fn pick(asked: Vec<String>, accepted: &[&str]) -> Result<String, Refusal> {
    if let Some(protocol) = asked.iter().find(|protocol| accepted.contains(&protocol.as_str())) {
        Ok(protocol.clone())
    } else {
        let accepted = accepted.iter().filter(|name| !name.is_empty()).map(|&name| name.to_owned()).collect();
        Err(Refusal::Protocol { asked, accepted })
    }
}

impl Upgrade {
    pub fn protocol(&self) -> &str {
        match self {
            Self::Spdy { protocol } | Self::WebSocket { protocol, .. } => protocol,
        }
    }

    /// 101 Switching Protocols.
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::Spdy { protocol } => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                put(headers, PROTOCOL, protocol);
            }
            Self::WebSocket { protocol, accept } => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                put(headers, SEC_WEBSOCKET_ACCEPT, accept);
                if !protocol.is_empty() {
                    put(headers, SEC_WEBSOCKET_PROTOCOL, protocol);
                }
            }
        }
        response
    }
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Protocol { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// With its message as text.
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(format!("{self}\n"));
        *response.status_mut() = self.status();
        if let Self::Protocol { accepted, .. } = self {
            for protocol in accepted {
                put(response.headers_mut(), ACCEPTED_PROTOCOLS, protocol);
            }
        }
        response
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.append(name, value);
    }
}

fn contains(headers: &HeaderMap, name: &HeaderName, part: &str) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains(part))
}

fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_first_protocol_of_the_client_that_the_server_knows_is_taken() {
        let spdy = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v5.channel.k8s.io, v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ]);
        let upgrade = negotiate(&spdy, &["v3.channel.k8s.io", "v4.channel.k8s.io"], &[]).expect("negotiated");
        assert_eq!(upgrade, Upgrade::Spdy { protocol: "v4.channel.k8s.io".to_owned() });
        let response = upgrade.response();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[PROTOCOL], "v4.channel.k8s.io");
        let refusal = negotiate(&spdy, &["portforward.k8s.io"], &[]).expect_err("refused");
        assert_eq!(refusal.status(), 403);
        assert_eq!(refusal.response().headers()[ACCEPTED_PROTOCOLS], "portforward.k8s.io");
    }

    #[test]
    fn a_websockets_key_is_answered_as_rfc_6455_shows() {
        let asked = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        let upgrade = negotiate(&asked, &[], &[""]).expect("negotiated");
        let response = upgrade.response();
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
        assert_eq!(negotiate(&asked, &[], &["v5.channel.k8s.io"]).expect_err("refused").status(), 403);
    }

    #[test]
    fn what_is_no_upgrade_is_refused_by_what_is_missing() {
        assert_eq!(negotiate(&headers(&[]), &["a"], &["a"]), Err(Refusal::NoUpgrade));
        let h2c = headers(&[("connection", "Upgrade"), ("upgrade", "h2c")]);
        assert_eq!(negotiate(&h2c, &["a"], &["a"]), Err(Refusal::NoUpgrade));
        let spdy = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert_eq!(negotiate(&spdy, &["a"], &["a"]), Err(Refusal::NoProtocol));
        let websocket =
            headers(&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]);
        assert_eq!(negotiate(&websocket, &["a"], &["a"]), Err(Refusal::Key));
    }
}
