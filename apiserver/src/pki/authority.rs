//! A certificate authority: its certificate, and its key where we have it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;

use super::files::{self, PUBLIC};
use super::{AUTHORITY_VALIDITY, Change, PkiError, check, leaf, pair};

pub struct Authority {
    pub path: PathBuf,
    pub pem: String,
    pub der: CertificateDer<'static>,
    key_path: PathBuf,
    /// None with an external authority: then everything it signs must be there.
    issuer: Option<Issuer<'static, KeyPair>>,
}

impl Authority {
    pub(super) fn ensure(
        directory: &Path,
        name: &str,
        common_name: &str,
        now: SystemTime,
        changes: &mut Vec<Change>,
    ) -> Result<Self, PkiError> {
        let (path, key_path) = pair(directory, name);
        match (files::read(&path)?, files::read(&key_path)?) {
            (Some(pem), key) => Self::of(path, key_path, pem, key, now),
            (None, key) => {
                let key = match key {
                    // A start that ended between the two files: nobody has seen a certificate of this key.
                    Some(pem) => leaf::existing_key(&key_path, &pem)?,
                    None => leaf::new_key(common_name, &key_path, changes)?,
                };
                let pem = self_signed(common_name, &key, now)?;
                files::create(&path, PUBLIC, &pem)?;
                changes.push(Change::Made { path: path.clone() });
                Self::of(path, key_path, pem, Some(key.serialize_pem()), now)
            }
        }
    }

    /// The authority of these two files, to sign with (the signer of CertificateSigningRequests, say).
    ///
    /// # Errors
    /// They are not there or not right.
    pub fn load(path: &Path, key_path: &Path, now: SystemTime) -> Result<Self, PkiError> {
        let missing = |path: &Path| PkiError::Io {
            what: "read",
            path: path.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let pem = files::read(path)?.ok_or_else(|| missing(path))?;
        let key = files::read(key_path)?.ok_or_else(|| missing(key_path))?;
        Self::of(path.to_owned(), key_path.to_owned(), pem, Some(key), now)
    }

    fn of(
        path: PathBuf,
        key_path: PathBuf,
        pem: String,
        key: Option<String>,
        now: SystemTime,
    ) -> Result<Self, PkiError> {
        let der = check::der(&path, &pem)?;
        let certificate = check::parse(&path, &der)?;
        check::authority(&path, &certificate, now)?;
        let issuer = match key {
            None => None,
            Some(pem) => {
                let key = leaf::existing_key(&key_path, &pem)?;
                if !check::is_of(&certificate, &key) {
                    return Err(PkiError::OtherKey { certificate: path, key: key_path });
                }
                let issuer = Issuer::from_ca_cert_der(&der, key);
                Some(issuer.map_err(|error| PkiError::Form {
                    path: path.clone(),
                    what: "authority's certificate",
                    why: error.to_string(),
                })?)
            }
        };
        Ok(Self { path, pem, der, key_path, issuer })
    }

    pub fn can_sign(&self) -> bool {
        self.issuer.is_some()
    }

    pub(super) fn issuer(&self, of: &Path) -> Result<&Issuer<'static, KeyPair>, PkiError> {
        let missing = || PkiError::NoAuthorityKey { path: of.to_owned(), key: self.key_path.clone() };
        self.issuer.as_ref().ok_or_else(missing)
    }
}

fn self_signed(common_name: &str, key: &KeyPair, now: SystemTime) -> Result<String, PkiError> {
    let mut params = leaf::params(common_name, &[], now, AUTHORITY_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let failed = |source| PkiError::Issue { subject: common_name.to_owned(), source };
    params.subject_alt_names = vec![SanType::DnsName(common_name.try_into().map_err(failed)?)];
    Ok(params.self_signed(key).map_err(failed)?.pem())
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("path", &self.path)
            .field("can_sign", &self.can_sign())
            .finish_non_exhaustive()
    }
}
