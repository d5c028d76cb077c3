//! A certificate that an authority issues: of the server, or of a client.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};

use super::check::{self, Verdict};
use super::files::{self, PUBLIC, SECRET};
use super::{Authority, BACKDATE, CERTIFICATE_VALIDITY, Change, PkiError, key, pair};

#[derive(Debug, Clone)]
pub struct Leaf {
    pub common_name: String,
    /// Two at most: rcgen's names have no more of a kind.
    pub organizations: Vec<String>,
    pub usage: Usage,
    /// DNS names and addresses.
    pub names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

impl Usage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

impl Leaf {
    pub fn client(user: &str, groups: &[&str]) -> Self {
        Self {
            common_name: user.to_owned(),
            organizations: groups.iter().map(|&group| group.to_owned()).collect(),
            usage: Usage::Client,
            names: Vec::new(),
        }
    }
}

pub fn ensure(
    directory: &Path,
    name: &str,
    leaf: &Leaf,
    authority: &Authority,
    now: SystemTime,
    changes: &mut Vec<Change>,
) -> Result<(), PkiError> {
    let (path, key_path) = pair(directory, name);
    let Some(pem) = files::read(&path)? else {
        authority.issuer(&path)?;
        let key = match files::read(&key_path)? {
            Some(pem) => existing_key(&key_path, &pem)?,
            None => new_key(&leaf.common_name, &key_path, changes)?,
        };
        files::create(&path, PUBLIC, &certificate(leaf, authority, &path, &key, CERTIFICATE_VALIDITY, now)?)?;
        changes.push(Change::Made { path });
        return Ok(());
    };
    let der = check::der(&path, &pem)?;
    let parsed = check::parse(&path, &der)?;
    let Some(key) = files::read(&key_path)? else {
        return Err(PkiError::NoKey { certificate: path, key: key_path });
    };
    if !check::is_of(&parsed, &existing_key(&key_path, &key)?) {
        return Err(PkiError::OtherKey { certificate: path, key: key_path });
    }
    if let Verdict::Renew(why) = check::leaf(&path, &parsed, leaf, authority, now)? {
        // The same key: the pair is right at every moment.
        let key = existing_key(&key_path, &key)?;
        files::replace(
            &path,
            PUBLIC,
            &certificate(leaf, authority, &path, &key, CERTIFICATE_VALIDITY, now)?,
        )?;
        changes.push(Change::Renewed { path, why });
    }
    Ok(())
}

/// A new key and its certificate, both in PEM.
///
/// # Errors
/// The authority's key is not here.
pub fn issue(leaf: &Leaf, authority: &Authority, now: SystemTime) -> Result<(String, String), PkiError> {
    issue_for(leaf, authority, CERTIFICATE_VALIDITY, now)
}

pub fn issue_for(
    leaf: &Leaf,
    authority: &Authority,
    validity: Duration,
    now: SystemTime,
) -> Result<(String, String), PkiError> {
    let key = generate(&leaf.common_name)?;
    let pem = certificate(leaf, authority, &authority.path, &key, validity, now)?;
    Ok((pem, key.serialize_pem()))
}

fn certificate(
    leaf: &Leaf,
    authority: &Authority,
    path: &Path,
    key: &KeyPair,
    validity: Duration,
    now: SystemTime,
) -> Result<String, PkiError> {
    if leaf.organizations.len() > 2 {
        return Err(PkiError::Groups { subject: leaf.common_name.clone() });
    }
    let failed = |source| PkiError::Issue { subject: leaf.common_name.clone(), source };
    let mut params = params(&leaf.common_name, &leaf.organizations, now, validity);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![match leaf.usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    for name in &leaf.names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(failed)?),
        });
    }
    Ok(params.signed_by(key, authority.issuer(path)?).map_err(failed)?.pem())
}

/// What all certificates have.
pub fn params(
    common_name: &str,
    organizations: &[String],
    now: SystemTime,
    validity: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    // As Go writes a Name: each organization is an attribute of its own, before the common name.
    let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    for (kind, organization) in kinds.into_iter().zip(organizations) {
        name.push(kind, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(check::seconds(now).unsigned_abs());
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + validity;
    params.serial_number = Some(serial());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params
}

/// 63 random bits.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 8] =
        ring::rand::generate(&ring::rand::SystemRandom::new()).map_or([1; 8], ring::rand::Random::expose);
    bytes[0] = bytes[0] & 0x7f | 0x01;
    SerialNumber::from_slice(&bytes)
}

pub fn new_key(subject: &str, path: &Path, changes: &mut Vec<Change>) -> Result<KeyPair, PkiError> {
    let key = generate(subject)?;
    files::create(path, SECRET, &key.serialize_pem())?;
    changes.push(Change::Made { path: path.to_owned() });
    Ok(key)
}

fn generate(subject: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|source| PkiError::Issue { subject: subject.to_owned(), source })
}

pub fn existing_key(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    key::private_key(pem).map_err(|why| PkiError::Form { path: path.to_owned(), what: "private key", why })
}
