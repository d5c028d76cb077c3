//! Private keys as other tools write them. Ours are ECDSA P-256 in PKCS#8.

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// `rsaEncryption` with its NULL.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// The key of a PEM file: `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY`.
///
/// # Errors
/// Why it is none.
pub fn private_key(pem: &str) -> Result<KeyPair, String> {
    let der = PrivatePkcs8KeyDer::from(pkcs8(pem)?);
    KeyPair::try_from(&der).map_err(|error| error.to_string())
}

/// The first private key of a PEM file as PKCS#8, which is all that our cryptography reads.
///
/// # Errors
/// Why there is none.
pub fn pkcs8(pem: &str) -> Result<Vec<u8>, String> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    match key {
        PrivateKeyDer::Pkcs8(key) => Ok(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Pkcs1(key) => Ok(wrap(RSA, key.secret_pkcs1_der())),
        PrivateKeyDer::Sec1(key) => {
            let der = key.secret_sec1_der();
            // The curve stands in the key's parameters.
            let has = |curve: &[u8]| der.windows(curve.len()).any(|part| part == curve);
            let curve = [P256, P384].into_iter().find(|curve| has(curve));
            let curve = curve.ok_or("an elliptic curve other than P-256 and P-384")?;
            Ok(wrap(&[EC, curve].concat(), der))
        }
        _ => Err("an unknown form of private key".to_owned()),
    }
}

/// `SEQUENCE { INTEGER 0, SEQUENCE algorithm, OCTET STRING key }` (RFC 5208).
fn wrap(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const OCTETS: u8 = 0x04;
    let version: &[u8] = &[0x02, 0x01, 0x00];
    element(SEQUENCE, &[version, &element(SEQUENCE, algorithm), &element(OCTETS, key)].concat())
}

pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    if content.len() >= 0x80 {
        der.push(0x80 | length.len() as u8);
    }
    der.extend_from_slice(length);
    der.extend_from_slice(content);
    der
}
