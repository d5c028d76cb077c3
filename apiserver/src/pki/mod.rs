//! The certificates and keys of a cluster in kubeadm's layout, and the kubeconfig files made of them.
//!
//! Made at the first start; what is there is checked and kept. Only a leaf that our own authority issued and whose
//! time runs out (or that lacks a name it must have) is made anew, and that is told. Everything else that is wrong is
//! an error with its remedy: nothing is overwritten that could be somebody else's.
//! Source: kubeadm `phases/certs`, `phases/kubeconfig`, `util/pkiutil`.

mod authority;
mod check;
mod error;
mod files;
mod key;
mod kubeconfig;
mod leaf;
mod service_account;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use authority::Authority;
pub use error::PkiError;
pub use key::{pkcs8, private_key};
pub use kubeconfig::{Credentials, render as render_kubeconfig};
pub use leaf::{Leaf, Usage, issue, issue_for};

/// Source: kubeadm `constants.go`.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_hours(8760);
pub const AUTHORITY_VALIDITY: Duration = Duration::from_hours(87600);
/// Clocks of clients may be behind ours.
const BACKDATE: Duration = Duration::from_mins(5);
/// A leaf with less time than this is renewed.
const RENEW_BEFORE: Duration = Duration::from_hours(720);

/// What the files must say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `/etc/kubernetes/pki`.
    pub certificates: PathBuf,
    /// `/etc/kubernetes`.
    pub kubeconfigs: PathBuf,
    /// What clients connect to: `https://192.168.1.2:6443`.
    pub server: String,
    /// The address that is told to clients.
    pub advertise: IpAddr,
    /// The first address of the Service range: the Service `kubernetes`.
    pub service: IpAddr,
    /// `cluster.local`.
    pub dns_domain: String,
    /// This machine's name.
    pub node_name: Option<String>,
    /// More names and addresses of the server.
    pub extra_names: Vec<String>,
}

/// Where kubeadm keeps each file.
#[derive(Debug, Clone)]
pub struct Layout(pub PathBuf);

/// What was done, to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Made { path: PathBuf },
    Renewed { path: PathBuf, why: String },
}

/// Makes what is not there, checks what is.
///
/// # Errors
/// A file cannot be read or written, or says something that cannot be right; nothing more is changed then.
pub fn ensure(settings: &Settings, now: SystemTime) -> Result<Vec<Change>, PkiError> {
    let mut changes = Vec::new();
    files::directory(&settings.certificates)?;
    files::directory(&settings.kubeconfigs)?;
    let cluster = Authority::ensure(&settings.certificates, "ca", "kubernetes", now, &mut changes)?;
    let front =
        Authority::ensure(&settings.certificates, "front-proxy-ca", "front-proxy-ca", now, &mut changes)?;

    let server = Leaf {
        common_name: "kube-apiserver".to_owned(),
        organizations: Vec::new(),
        usage: Usage::Server,
        names: server_names(settings),
    };
    leaf::ensure(&settings.certificates, "apiserver", &server, &cluster, now, &mut changes)?;
    let kubelet = Leaf::client("kube-apiserver-kubelet-client", &[]);
    leaf::ensure(&settings.certificates, "apiserver-kubelet-client", &kubelet, &cluster, now, &mut changes)?;
    let proxy = Leaf::client("front-proxy-client", &[]);
    leaf::ensure(&settings.certificates, "front-proxy-client", &proxy, &front, now, &mut changes)?;
    service_account::ensure(&settings.certificates, &mut changes)?;

    for (file, user, groups) in kubeconfig::FILES {
        let path = settings.kubeconfigs.join(file);
        let leaf = Leaf::client(user, groups);
        kubeconfig::ensure(&path, &settings.server, &leaf, &cluster, now, &mut changes)?;
    }
    Ok(changes)
}

/// What clients may call the server.
fn server_names(settings: &Settings) -> Vec<String> {
    let own = settings.node_name.iter().cloned();
    let fixed = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"];
    let mut names: Vec<String> = own
        .chain(fixed.map(str::to_owned))
        .chain([
            format!("kubernetes.default.svc.{}", settings.dns_domain),
            settings.service.to_string(),
            settings.advertise.to_string(),
        ])
        .chain(settings.extra_names.iter().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

impl Layout {
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }

    pub fn ca_key(&self) -> PathBuf {
        self.file("ca.key")
    }

    pub fn server(&self) -> (PathBuf, PathBuf) {
        (self.file("apiserver.crt"), self.file("apiserver.key"))
    }

    pub fn kubelet_client(&self) -> (PathBuf, PathBuf) {
        (self.file("apiserver-kubelet-client.crt"), self.file("apiserver-kubelet-client.key"))
    }

    pub fn front_proxy_ca(&self) -> PathBuf {
        self.file("front-proxy-ca.crt")
    }

    pub fn front_proxy_client(&self) -> (PathBuf, PathBuf) {
        (self.file("front-proxy-client.crt"), self.file("front-proxy-client.key"))
    }

    /// Signs ServiceAccount tokens.
    pub fn service_account_key(&self) -> PathBuf {
        self.file("sa.key")
    }

    pub fn service_account_public(&self) -> PathBuf {
        self.file("sa.pub")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { path } => write!(f, "made {}", path.display()),
            Self::Renewed { path, why } => write!(f, "renewed {}: {why}", path.display()),
        }
    }
}

/// `ca` → `ca.crt`, `ca.key`.
fn pair(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")))
}

#[cfg(test)]
mod tests;
