//! What can be wrong with the files, and what to do about it.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },

    #[error("{path}: no {what} in PEM: {why}; restore it, or remove it to have it made anew", path = path.display())]
    Form { path: PathBuf, what: &'static str, why: String },

    #[error("{certificate} is there and its key {key} is not; restore the key, or remove the certificate to have both made anew", certificate = certificate.display(), key = key.display())]
    NoKey { certificate: PathBuf, key: PathBuf },

    #[error("{path} must be made, and {key}, which signs it, is not there; restore the key, or put a certificate signed by its authority in place", path = path.display(), key = key.display())]
    NoAuthorityKey { path: PathBuf, key: PathBuf },

    #[error("{key} is not the key of {certificate}; restore the right pair, or remove both to have them made anew", certificate = certificate.display(), key = key.display())]
    OtherKey { certificate: PathBuf, key: PathBuf },

    #[error("{path} ended on {ended}; remove it and its key to have them made anew", path = path.display())]
    Expired { path: PathBuf, ended: String },

    #[error("the authority {path} ended on {ended}; clients trust it by its file: make a new one and give it to all of them", path = path.display())]
    AuthorityExpired { path: PathBuf, ended: String },

    #[error("{path} is valid from {from} on only; is the clock of this machine right?", path = path.display())]
    NotYet { path: PathBuf, from: String },

    #[error("{path} is no authority's certificate (basicConstraints CA is not set)", path = path.display())]
    NoAuthority { path: PathBuf },

    #[error("{path} was not issued by {authority}; put the authority in place that issued it, or remove it to have it made anew", path = path.display(), authority = authority.display())]
    Foreign { path: PathBuf, authority: PathBuf },

    #[error("{path} is not for {name}; remove it and its key to have them made anew with it", path = path.display())]
    NameMissing { path: PathBuf, name: String },

    #[error("{path} may not be used as a {usage} certificate; remove it and its key to have them made anew", path = path.display())]
    Usage { path: PathBuf, usage: &'static str },

    #[error("{path}: {why}; correct it, or remove it to have it made anew", path = path.display())]
    Kubeconfig { path: PathBuf, why: String },

    #[error("a certificate for {subject} can name two groups at most")]
    Groups { subject: String },

    #[error("make a certificate for {subject}: {source}")]
    Issue { subject: String, source: rcgen::Error },
}
