//! Keys that sign and verify tokens. Source: kubernetes `pkg/serviceaccount/{jwt,openidmetadata}.go`.
//!
//! The algorithm follows from the key: what a token's header says must agree with it and decides nothing.

use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::jwt;
use crate::pki;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} has no key for ServiceAccount tokens: {why}", path = path.display())]
    Bad { path: PathBuf, why: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        }
    }
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// base64url of the SHA-256 of its SubjectPublicKeyInfo.
    pub id: String,
    algorithm: Algorithm,
    /// RSAPublicKey, or the uncompressed point.
    bytes: Vec<u8>,
    jwk: Value,
}

impl PublicKey {
    fn of(spki: &[u8]) -> Result<Self, String> {
        let (_, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|error| error.to_string())?;
        let bytes = info.subject_public_key.data.to_vec();
        let id = jwt::encode(&Sha256::digest(spki));
        let (algorithm, mut jwk) = match info.parsed().map_err(|error| error.to_string())? {
            Parsed::RSA(key) => {
                // Without the zero that says that the number is positive.
                let number = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    jwt::encode(&bytes[zeros..])
                };
                let (n, e) = (number(key.modulus), number(key.exponent));
                (Algorithm::Rs256, json!({ "kty": "RSA", "n": n, "e": e }))
            }
            Parsed::EC(point) => {
                let (algorithm, curve, size) = match point.data().len() {
                    65 => (Algorithm::Es256, "P-256", 32),
                    97 => (Algorithm::Es384, "P-384", 48),
                    length => return Err(format!("an elliptic curve whose points have {length} bytes")),
                };
                let (x, y) = point.data()[1..].split_at(size);
                (algorithm, json!({ "kty": "EC", "crv": curve, "x": jwt::encode(x), "y": jwt::encode(y) }))
            }
            _ => return Err("a key that is neither RSA nor on an elliptic curve".to_owned()),
        };
        jwk["use"] = "sig".into();
        jwk["alg"] = algorithm.name().into();
        jwk["kid"] = id.clone().into();
        Ok(Self { id, algorithm, bytes, jwk })
    }

    pub(super) fn verify(&self, token: &jwt::Token<'_>) -> bool {
        token.header.alg == self.algorithm.name()
            && token.header.crit.is_none()
            && UnparsedPublicKey::new(self.algorithm.verification(), &self.bytes)
                .verify(token.signed.as_bytes(), &token.signature)
                .is_ok()
    }

    pub fn jwk(&self) -> &Value {
        &self.jwk
    }
}

/// Keys that verify, in their order.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys(Vec<PublicKey>);

impl PublicKeys {
    /// `--service-account-key-file`: public keys, certificates or private keys in PEM, several to a file.
    ///
    /// # Errors
    /// A file cannot be read or has no key.
    pub fn load<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self, KeyError> {
        let mut keys = Self::default();
        for path in paths {
            for key in of_pem(&read(path)?).map_err(|why| KeyError::Bad { path: path.to_owned(), why })? {
                keys.add(key);
            }
        }
        Ok(keys)
    }

    pub fn add(&mut self, key: PublicKey) {
        if !self.0.contains(&key) {
            self.0.push(key);
        }
    }

    /// Those with this id; all, where a token names none.
    pub(super) fn by_id<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a PublicKey> {
        self.0.iter().filter(move |key| id.is_empty() || key.id == id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }
}

fn read(path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })
}

fn of_pem(pem: &str) -> Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for key in SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes()) {
        keys.push(PublicKey::of(&key.map_err(|error| error.to_string())?)?);
    }
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = certificate.map_err(|error| error.to_string())?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        keys.push(PublicKey::of(certificate.public_key().raw)?);
    }
    if keys.is_empty() {
        keys.push(PublicKey::of(&pki::private_key(pem)?.subject_public_key_info())?);
    }
    Ok(keys)
}

/// The key that signs.
pub struct Signer {
    pair: Pair,
    public: PublicKey,
    /// The first part of every token.
    header: String,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl Signer {
    /// `--service-account-signing-key-file`.
    ///
    /// # Errors
    /// The file cannot be read or has no key.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::of_pem(&read(path)?).map_err(|why| KeyError::Bad { path: path.to_owned(), why })
    }

    /// # Errors
    /// Why it is no key.
    pub fn of_pem(pem: &str) -> Result<Self, String> {
        let pkcs8 = pki::pkcs8(pem)?;
        let pair: KeyPair = pki::private_key(pem)?;
        let public = PublicKey::of(&pair.subject_public_key_info())?;
        let random = SystemRandom::new();
        let ec = |algorithm| {
            EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &random)
                .map(|pair| Pair::Ec(Box::new(pair)))
                .map_err(|error| error.to_string())
        };
        let pair = match public.algorithm {
            Algorithm::Rs256 => {
                Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&pkcs8).map_err(|error| error.to_string())?))
            }
            Algorithm::Es256 => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::Es384 => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)?,
        };
        let header = json!({ "alg": public.algorithm.name(), "kid": public.id });
        let header = jwt::encode(header.to_string().as_bytes());
        Ok(Self { pair, public, header })
    }

    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let mut token = format!("{}.{}", self.header, jwt::encode(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Ec(pair) => {
                pair.sign(&random, token.as_bytes()).expect("the kernel has random bytes").as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature)
                    .expect("a key pair signs");
                signature
            }
        };
        token.push('.');
        token.push_str(&jwt::encode(&signature));
        token
    }
}
