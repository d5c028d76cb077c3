//! The pair that signs ServiceAccount tokens. ECDSA P-256, as kubeadm makes with `encryptionAlgorithm: ECDSA-P256`;
//! kubeadm's RSA keys are kept.

use std::path::Path;

use super::files::{self, PUBLIC};
use super::{Change, PkiError, leaf};

pub fn ensure(directory: &Path, changes: &mut Vec<Change>) -> Result<(), PkiError> {
    let (path, public) = (directory.join("sa.key"), directory.join("sa.pub"));
    let key = match (files::read(&path)?, files::read(&public)?) {
        (Some(pem), Some(_)) => {
            leaf::existing_key(&path, &pem)?;
            return Ok(());
        }
        (None, Some(_)) => return Err(PkiError::NoKey { certificate: public, key: path }),
        (Some(pem), None) => leaf::existing_key(&path, &pem)?,
        (None, None) => leaf::new_key("service accounts", &path, changes)?,
    };
    files::create(&public, PUBLIC, &key.public_key_pem())?;
    changes.push(Change::Made { path: public });
    Ok(())
}
