//! Words of Go's standard library, which clients see.

use std::io::{Error, ErrorKind};

/// As `net.OpError` says it: `dial tcp 10.0.0.1:10250: connect: connection refused`.
pub(super) fn dial(address: &str, error: &Error) -> String {
    let what = match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => return tls(error),
            None => error.to_string(),
        },
    };
    format!("dial tcp {address}: {what}")
}

fn tls(error: &rustls::Error) -> String {
    use rustls::CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    let why = match error {
        rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "x509: certificate signed by unknown authority"
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "x509: certificate has expired or is not yet valid"
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "x509: certificate is not valid for the address of the kubelet"
        }
        rustls::Error::AlertReceived(alert) => return format!("remote error: tls: {alert:?}"),
        other => return format!("tls: {other}"),
    };
    format!("tls: failed to verify certificate: {why}")
}

/// As `url.QueryEscape`.
pub(super) fn query_escape(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

/// As `url.Values.Encode`: by the names of the parameters.
pub(super) fn encode(mut parameters: Vec<(&str, String)>) -> String {
    parameters.sort_by_key(|(name, _)| *name);
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", query_escape(value))).collect();
    pairs.join("&")
}

/// As `net.JoinHostPort`.
pub(super) fn join_host_port(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// As `strconv.ParseInt` of 64 bits, with its error.
pub(super) fn parse_int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let why = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match text.parse() {
            Ok(number) => return Ok(number),
            Err(_) => "value out of range",
        }
    };
    Err(format!("strconv.ParseInt: parsing {}: {why}", serde_json::Value::from(text)))
}
