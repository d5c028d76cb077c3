//! Client certificates: the common name is the user, each organization a group.
//! Source: apiserver `pkg/authentication/request/x509/x509.go`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::asn1_rs::oid;
use x509_parser::prelude::FromDer;

use super::Refusal;
use super::cache::Cache;
use crate::auth::{User, extra};

/// Intermediates that a client may send.
const MAX_CHAIN: usize = 10;
const CACHED: usize = 4096;

/// Authorities whose client certificates are believed.
pub struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
    known: Cache<User>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    #[error("read the client certificate authorities of {path}: {why}")]
    Read { path: String, why: String },
    #[error("{path} has no certificate of an authority")]
    Empty { path: String },
}

impl ClientCa {
    /// # Errors
    /// The file cannot be read or has no certificate.
    pub fn load(path: &Path) -> Result<Self, ClientCaError> {
        let shown = path.display().to_string();
        let pem = std::fs::read(path)
            .map_err(|error| ClientCaError::Read { path: shown.clone(), why: error.to_string() })?;
        Self::of_pem(&shown, &pem)
    }

    /// `name` for errors.
    ///
    /// # Errors
    /// As [`ClientCa::load`].
    pub fn of_pem(name: &str, pem: &[u8]) -> Result<Self, ClientCaError> {
        let bad = |why: String| ClientCaError::Read { path: name.to_owned(), why };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(ClientCaError::Empty { path: name.to_owned() });
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self { verifier, known: Cache::new(CACHED) })
    }

    /// `None`: there is no certificate, or it names nobody.
    pub fn authenticate(&self, certificates: &[Vec<u8>], now: SystemTime) -> Result<Option<User>, Refusal> {
        if certificates.is_empty() {
            return Ok(None);
        }
        let key = Cache::<User>::key(certificates.iter().map(Vec::as_slice));
        if let Some(user) = self.known.get(&key, now) {
            return Ok(Some(User::clone(&user)));
        }
        let until = self.verify(certificates, now)?;
        let Some(user) = user(&certificates[0])? else { return Ok(None) };
        self.known.put(key, Arc::new(user.clone()), until, now);
        Ok(Some(user))
    }

    /// Until when the whole chain is valid.
    pub fn verify(&self, certificates: &[Vec<u8>], now: SystemTime) -> Result<SystemTime, Refusal> {
        let Some((leaf, others)) = certificates.split_first() else {
            return Err("no certificate".to_owned());
        };
        if others.len() > MAX_CHAIN {
            return Err(format!("a chain of {} certificates", certificates.len()));
        }
        let others: Vec<_> = others.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let leaf_der = CertificateDer::from(leaf.as_slice());
        self.verifier
            .verify_client_cert(&leaf_der, &others, UnixTime::since_unix_epoch(since))
            .map_err(|error| format!("verifying certificate {} failed: {error}", identifier(leaf)))?;
        let ends = certificates.iter().filter_map(|der| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            u64::try_from(certificate.validity().not_after.timestamp()).ok()
        });
        Ok(UNIX_EPOCH + Duration::from_secs(ends.min().unwrap_or_default()))
    }
}

fn identifier(der: &[u8]) -> String {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => {
            format!("SN={}, subject={}", certificate.tbs_certificate.serial, certificate.subject())
        }
        Err(_) => "that is none".to_owned(),
    }
}

/// The common name of a certificate.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    // Go takes the last of several.
    certificate.subject().iter_common_name().last()?.as_str().ok().map(str::to_owned)
}

fn user(der: &[u8]) -> Result<Option<User>, Refusal> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let subject = certificate.subject();
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned);
    let bad = |error: x509_parser::error::X509Error| format!("a name in {subject} is no text: {error}");
    let names: Vec<String> = subject.iter_common_name().map(text).collect::<Result<_, _>>().map_err(bad)?;
    let groups: Vec<String> = subject.iter_organization().map(text).collect::<Result<_, _>>().map_err(bad)?;
    let Some(name) = names.into_iter().next_back().filter(|name| !name.is_empty()) else { return Ok(None) };
    // KEP 4828: 1.3.6.1.4.1.57683.2 is the user's UID.
    let uid_type = oid!(1.3.6.1.4.1.57683.2);
    let uids: Vec<String> =
        subject.iter_by_oid(&uid_type).map(text).collect::<Result<_, _>>().map_err(bad)?;
    let uid = match &*uids {
        [] => String::new(),
        [uid] if !uid.is_empty() => uid.clone(),
        [_] => return Err("UID cannot be an empty string".to_owned()),
        _ => return Err(format!("expected 1 UID, but found multiple: {uids:?}")),
    };
    let mut id = "X509SHA256=".to_owned();
    for byte in Sha256::digest(der) {
        write!(id, "{byte:02x}").expect("text takes text");
    }
    let extra = BTreeMap::from([(extra::CREDENTIAL_ID.to_owned(), vec![id])]);
    Ok(Some(User { name, uid, groups, extra }))
}
