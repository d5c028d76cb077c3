//! Where the next page of a list begins. Source: apiserver `pkg/storage/continue.go`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use corten_store::Revision;
use serde::{Deserialize, Serialize};

use crate::status::Status;

/// What a continue token says.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    /// `None`: as the store is now, since what it began with is gone.
    pub revision: Option<Revision>,
    /// The last key that was answered.
    pub after: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

/// The next page begins behind `last`, a key of `prefix`.
pub fn encode(last: &[u8], prefix: &[u8], revision: Revision) -> String {
    let start = String::from_utf8_lossy(last.strip_prefix(prefix).unwrap_or(last));
    token(format!("{start}\0"), revision)
}

fn token(start: String, rv: Revision) -> String {
    let token = Encoded { v: VERSION.to_owned(), rv, start };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("a token is JSON"))
}

/// # Errors
/// What is wrong with it, in upstream's words.
pub fn decode(text: &str, prefix: &[u8]) -> Result<Token, String> {
    const INVALID: &str = "continue key is not valid";
    let Encoded { v, rv, start } = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| error.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
        .map_err(|why| format!("{INVALID}: {why}"))?;
    if v != VERSION {
        return Err(format!("{INVALID}: server does not recognize this encoded version {v}"));
    }
    if rv == 0 {
        return Err(format!("{INVALID}: incorrect encoded start resourceVersion (version {VERSION})"));
    }
    if start.is_empty() {
        return Err(format!("{INVALID}: encoded start key empty (version {VERSION})"));
    }
    let key = start.strip_prefix('/').unwrap_or(&start);
    // No way out of the prefix.
    let clean = |part: &str| !matches!(part, "" | "." | "..");
    if !key.split('/').all(clean) {
        return Err(format!("{INVALID}: {start}"));
    }
    // The token names the first key that may come next; the store wants the last that came before.
    let last = key.strip_suffix('\0').unwrap_or(key);
    let after = [prefix, last.as_bytes()].concat();
    Ok(Token { revision: (rv > 0).then_some(rv), after: after.into() })
}

/// 410: the list that `text` goes on with is history no longer. The client may go on at the present revision with the
/// token that this answer carries, or begin anew.
pub fn expired(text: &str, prefix: &[u8]) -> Status {
    const MESSAGE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
                           new list without the continue parameter, or use the continue token in this response to \
                           retrieve the remainder of the results. Continuing with the provided token results in an \
                           inconsistent list - objects that were created, modified, or deleted between the time the \
                           first chunk was returned and now may show up in the list.";
    match decode(text, prefix) {
        Ok(Token { after, .. }) => {
            let start = String::from_utf8_lossy(&after[prefix.len()..]).into_owned();
            Status::expired(MESSAGE).continue_with(token(format!("{start}\0"), -1))
        }
        Err(_) => Status::expired(MESSAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_upstreams_form() {
        let token = encode(b"/registry/pods/a/b", b"/registry/pods/", 7);
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).expect("base64")).expect("text");
        assert_eq!(text, r#"{"v":"meta.k8s.io/v1","rv":7,"start":"a/b\u0000"}"#);
        let decoded = decode(&token, b"/registry/pods/").expect("our own");
        assert_eq!(decoded, Token { revision: Some(7), after: Bytes::from_static(b"/registry/pods/a/b") });
    }

    #[test]
    fn tokens_that_lead_elsewhere_are_refused() {
        for (json, error) in [
            (
                r#"{"v":"meta.k8s.io/v1","rv":7,"start":"../secrets/a\u0000"}"#,
                "continue key is not valid: ../secrets/a\0",
            ),
            (r#"{"v":"meta.k8s.io/v1","rv":7,"start":"a//b"}"#, "continue key is not valid: a//b"),
            (
                r#"{"v":"x","rv":7,"start":"a"}"#,
                "continue key is not valid: server does not recognize this encoded version x",
            ),
            (
                r#"{"v":"meta.k8s.io/v1","start":"a"}"#,
                "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (
                r#"{"v":"meta.k8s.io/v1","rv":7}"#,
                "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)",
            ),
        ] {
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(json), b"/registry/pods/"), Err(error.to_owned()));
        }
        assert!(decode("%%%", b"/").is_err());
    }
}
