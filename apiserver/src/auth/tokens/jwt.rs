//! The compact form of a signed JSON Web Token (RFC 7515): three parts in base64url.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

pub struct Token<'a> {
    pub header: Header,
    /// Not to be believed before the signature is checked.
    pub payload: Value,
    /// What is signed.
    pub signed: &'a str,
    pub signature: Vec<u8>,
}

#[derive(Debug, Deserialize)]
pub struct Header {
    pub alg: String,
    #[serde(default)]
    pub kid: String,
    /// Extensions that must be understood; we know none.
    pub crit: Option<Value>,
}

/// `None`: it is no such token.
pub fn parse(token: &str) -> Option<Token<'_>> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    Some(Token {
        header: serde_json::from_slice(&decode(header)?).ok()?,
        payload: serde_json::from_slice(&decode(payload)?).ok()?,
        signed,
        signature: decode(signature)?,
    })
}

pub fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
