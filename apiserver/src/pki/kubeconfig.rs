//! Kubeconfig files with the client certificate inside.

use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::check::{self, Verdict};
use super::files::{self, SECRET};
use super::{Authority, Change, Leaf, PkiError, leaf};

/// File, user, groups. `super-admin.conf` is beyond RBAC: for the day on which its roles are broken.
pub const FILES: [(&str, &str, &[&str]); 4] = [
    ("admin.conf", "kubernetes-admin", &["kubeadm:cluster-admins"]),
    ("super-admin.conf", "kubernetes-super-admin", &["system:masters"]),
    ("controller-manager.conf", "system:kube-controller-manager", &[]),
    ("scheduler.conf", "system:kube-scheduler", &[]),
];

const CLUSTER: &str = "kubernetes";

/// What a client proves itself with: PEM.
pub struct Credentials<'a> {
    pub user: &'a str,
    pub certificate: &'a str,
    pub key: &'a str,
}

/// The file's text.
pub fn render(server: &str, authority: &str, credentials: &Credentials<'_>) -> String {
    let Credentials { user, certificate, key } = credentials;
    let base64 = |pem: &str| BASE64_STANDARD.encode(pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: {authority}
    server: {server}
  name: {CLUSTER}
contexts:
- context:
    cluster: {CLUSTER}
    user: {user}
  name: {user}@{CLUSTER}
current-context: {user}@{CLUSTER}
preferences: {{}}
users:
- name: {user}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
",
        authority = base64(authority),
        certificate = base64(certificate),
        key = base64(key),
    )
}

pub fn ensure(
    path: &Path,
    server: &str,
    leaf: &Leaf,
    authority: &Authority,
    now: SystemTime,
    changes: &mut Vec<Change>,
) -> Result<(), PkiError> {
    let made = |why: Option<String>| match why {
        None => Change::Made { path: path.to_owned() },
        Some(why) => Change::Renewed { path: path.to_owned(), why },
    };
    let new = || {
        authority.issuer(path)?;
        leaf::issue(leaf, authority, now)
    };
    let Some(text) = files::read(path)? else {
        let (certificate, key) = new()?;
        let credentials = Credentials { user: &leaf.common_name, certificate: &certificate, key: &key };
        files::create(path, SECRET, &render(server, &authority.pem, &credentials))?;
        changes.push(made(None));
        return Ok(());
    };
    let mut config = parse(path, &text)?;
    let Some(user) = user_of(path, &mut config, authority)? else { return Ok(()) };
    let Some(pem) = decoded(user.get("client-certificate-data")) else { return Ok(()) };
    let der = check::der(path, &pem)?;
    if let Verdict::Renew(why) = check::leaf(path, &check::parse(path, &der)?, leaf, authority, now)? {
        let (certificate, key) = new()?;
        user["client-certificate-data"] = BASE64_STANDARD.encode(certificate).into();
        user["client-key-data"] = BASE64_STANDARD.encode(key).into();
        let text = serde_yaml_ng::to_string(&config).map_err(|error| wrong(path, error.to_string()))?;
        files::replace(path, SECRET, &text)?;
        changes.push(made(Some(why)));
    }
    Ok(())
}

fn wrong(path: &Path, why: impl Into<String>) -> PkiError {
    PkiError::Kubeconfig { path: path.to_owned(), why: why.into() }
}

fn parse(path: &Path, text: &str) -> Result<Value, PkiError> {
    serde_yaml_ng::from_str(text).map_err(|error| wrong(path, format!("no kubeconfig: {error}")))
}

/// The user of the current context; `None` where a context, cluster or user is not there for us to judge.
fn user_of<'a>(
    path: &Path,
    config: &'a mut Value,
    authority: &Authority,
) -> Result<Option<&'a mut Value>, PkiError> {
    let context = config["current-context"].as_str().unwrap_or_default().to_owned();
    let Some(context) = named(config, "contexts", &context).map(|entry| entry["context"].clone()) else {
        return Err(wrong(path, format!("no context {context:?}, which is the current one")));
    };
    let name = |key: &str| context[key].as_str().unwrap_or_default().to_owned();
    if let Some(cluster) = named(config, "clusters", &name("cluster"))
        && let Some(pem) = decoded(cluster["cluster"].get("certificate-authority-data"))
        && check::der(path, &pem)? != authority.der
    {
        return Err(PkiError::Foreign { path: path.to_owned(), authority: authority.path.clone() });
    }
    Ok(named(config, "users", &name("user")).and_then(|entry| entry.get_mut("user")))
}

fn named<'a>(config: &'a mut Value, list: &str, name: &str) -> Option<&'a mut Value> {
    config.get_mut(list)?.as_array_mut()?.iter_mut().find(|entry| entry["name"] == name)
}

fn decoded(value: Option<&Value>) -> Option<String> {
    String::from_utf8(BASE64_STANDARD.decode(value?.as_str()?).ok()?).ok()
}
