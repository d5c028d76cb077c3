//! What an existing certificate is good for. Pure.

use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::{Authority, Leaf, PkiError, RENEW_BEFORE, Usage};

/// An existing leaf that is ours.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// To be made anew, and why.
    Renew(String),
}

/// The first certificate of a PEM file.
pub fn der(path: &Path, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| bad(path, error.to_string()))
}

pub fn parse<'a>(path: &Path, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(bad(path, error.to_string())),
    }
}

fn bad(path: &Path, why: String) -> PkiError {
    PkiError::Form { path: path.to_owned(), what: "certificate", why }
}

pub fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// Is this the certificate of that key?
pub fn is_of(certificate: &X509Certificate<'_>, key: &KeyPair) -> bool {
    *certificate.public_key().subject_public_key.data == *key.public_key_raw()
}

pub fn authority(path: &Path, certificate: &X509Certificate<'_>, now: SystemTime) -> Result<(), PkiError> {
    if !certificate.is_ca() {
        return Err(PkiError::NoAuthority { path: path.to_owned() });
    }
    not_yet(path, certificate, now)?;
    let end = certificate.validity().not_after;
    if end.timestamp() <= seconds(now) {
        return Err(PkiError::AuthorityExpired { path: path.to_owned(), ended: end.to_string() });
    }
    Ok(())
}

/// A leaf beside what it should be. Only what our authority (whose key we have) issued may be renewed.
pub fn leaf(
    path: &Path,
    certificate: &X509Certificate<'_>,
    leaf: &Leaf,
    authority: &Authority,
    now: SystemTime,
) -> Result<Verdict, PkiError> {
    let issuer = parse(&authority.path, &authority.der)?;
    let issued = certificate.issuer() == issuer.subject()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok();
    if !issued {
        return Err(PkiError::Foreign { path: path.to_owned(), authority: authority.path.clone() });
    }
    not_yet(path, certificate, now)?;
    let end = certificate.validity().not_after;
    let renewable = authority.can_sign();
    if end.timestamp() <= seconds(now + RENEW_BEFORE) {
        match (renewable, end.timestamp() <= seconds(now)) {
            (true, true) => return Ok(Verdict::Renew(format!("it ended on {end}"))),
            (true, false) => return Ok(Verdict::Renew(format!("it ends on {end}"))),
            (false, true) => {
                return Err(PkiError::Expired { path: path.to_owned(), ended: end.to_string() });
            }
            (false, false) => {}
        }
    }
    if let Some(name) = leaf.names.iter().find(|name| !has_name(certificate, name)) {
        if renewable {
            return Ok(Verdict::Renew(format!("it was not for {name}")));
        }
        return Err(PkiError::NameMissing { path: path.to_owned(), name: name.clone() });
    }
    if !may(certificate, leaf.usage) {
        return Err(PkiError::Usage { path: path.to_owned(), usage: leaf.usage.name() });
    }
    Ok(Verdict::Good)
}

fn not_yet(path: &Path, certificate: &X509Certificate<'_>, now: SystemTime) -> Result<(), PkiError> {
    let from = certificate.validity().not_before;
    if from.timestamp() > seconds(now) {
        return Err(PkiError::NotYet { path: path.to_owned(), from: from.to_string() });
    }
    Ok(())
}

fn may(certificate: &X509Certificate<'_>, usage: Usage) -> bool {
    // Without the extension it may be used for everything (RFC 5280, 4.2.1.12).
    let Ok(Some(usages)) = certificate.extended_key_usage() else { return true };
    usages.value.any
        || match usage {
            Usage::Server => usages.value.server_auth,
            Usage::Client => usages.value.client_auth,
        }
}

fn has_name(certificate: &X509Certificate<'_>, wanted: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    let address = wanted.parse::<IpAddr>().ok();
    names.value.general_names.iter().any(|name| match (name, address) {
        (GeneralName::DNSName(name), None) => name.eq_ignore_ascii_case(wanted),
        (GeneralName::IPAddress(bytes), Some(IpAddr::V4(address))) => **bytes == address.octets(),
        (GeneralName::IPAddress(bytes), Some(IpAddr::V6(address))) => **bytes == address.octets(),
        _ => false,
    })
}
