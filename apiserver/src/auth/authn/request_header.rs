//! A front proxy that we trust says who asks. Source: apiserver `pkg/authentication/request/headerrequest`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::HeaderMap;

use super::{ClientCa, Refusal, x509};
use crate::auth::User;
use crate::request::decode;

/// The `--requestheader-*` flags.
#[derive(Debug, Clone)]
pub struct RequestHeaderConfig {
    /// Common names of proxies; empty: any that the authority issued for.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl Default for RequestHeaderConfig {
    /// As kubeadm sets them.
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            allowed_names: one("front-proxy-client"),
            username_headers: one("x-remote-user"),
            uid_headers: one("x-remote-uid"),
            group_headers: one("x-remote-group"),
            extra_prefixes: one("x-remote-extra-"),
        }
    }
}

pub struct RequestHeader {
    pub ca: ClientCa,
    pub config: RequestHeaderConfig,
}

impl RequestHeader {
    /// `None`: it names nobody. The headers of anybody but a proxy's certificate mean nothing.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        certificates: &[Vec<u8>],
        now: SystemTime,
    ) -> Result<Option<User>, Refusal> {
        let Some(leaf) = certificates.first() else { return Ok(None) };
        let Some(name) = first(headers, &self.config.username_headers) else { return Ok(None) };
        self.ca.verify(certificates, now)?;
        let proxy = x509::common_name(leaf).unwrap_or_default();
        let allowed = &self.config.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&proxy) {
            return Err(format!("x509: subject with cn={proxy} is not in the allowed list"));
        }
        let uid = first(headers, &self.config.uid_headers).unwrap_or_default();
        let groups = self.config.group_headers.iter().flat_map(|name| all(headers, name));
        let groups = groups.filter(|group| !group.is_empty()).collect();
        Ok(Some(User { name, uid, groups, extra: self.extra(headers) }))
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for prefix in &self.config.extra_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for (name, value) in headers {
                if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(&*prefix), value.to_str()) {
                    let key = decode(key, false).unwrap_or_else(|| key.to_owned());
                    extra.entry(key).or_default().push(value.to_owned());
                }
            }
        }
        extra
    }
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = String> + use<'a> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).map(str::to_owned)
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().find_map(|name| all(headers, name).next().filter(|value| !value.is_empty()))
}
