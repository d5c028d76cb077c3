//! A pod's /etc/hostname, /etc/hosts and /etc/resolv.conf.

use std::fs;
use std::path::Path;

use corten_cri_api::v1;

use super::record::SandboxDir;
use crate::error::Error;
use crate::files::{FileError, write_atomic};

/// Writes the three files that every container of the pod has mounted.
pub fn write(dir: &SandboxDir, config: &v1::PodSandboxConfig, hostname: &str) -> Result<(), Error> {
    let etc = dir.etc();
    let put = |name: &str, text: &str| write_atomic(&etc.join(name), text.as_bytes(), 0o644);
    put("hostname", &format!("{hostname}\n"))?;
    put("hosts", &host_file("/etc/hosts")?)?;
    let resolv = config.dns_config.as_ref().map(resolv_conf).transpose()?.unwrap_or_default();
    let resolv = if resolv.is_empty() { host_file("/etc/resolv.conf")? } else { resolv };
    Ok(put("resolv.conf", &resolv)?)
}

fn host_file(path: &str) -> Result<String, FileError> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(FileError::io("read", Path::new(path))),
    }
}

/// The resolver's file. Empty when nothing is said.
pub fn resolv_conf(dns: &v1::DnsConfig) -> Result<String, Error> {
    let all = dns.searches.iter().chain(&dns.servers).chain(&dns.options);
    if let Some(bad) =
        all.clone().find(|text| text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        return Err(Error::argument("dns_config", format!("{bad:?}: a word without blanks is needed")));
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &["search ", &dns.searches.join(" "), "\n"].concat();
    }
    for server in &dns.servers {
        text += &["nameserver ", server, "\n"].concat();
    }
    if !dns.options.is_empty() {
        text += &["options ", &dns.options.join(" "), "\n"].concat();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(searches: &[&str], servers: &[&str], options: &[&str]) -> v1::DnsConfig {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        v1::DnsConfig { servers: owned(servers), searches: owned(searches), options: owned(options) }
    }

    #[test]
    fn resolv_conf_is_written_as_containerd_does() {
        let text = resolv_conf(&dns(&["a.b", "b"], &["10.0.0.1", "fd00::1"], &["ndots:5", "edns0"])).unwrap();
        assert_eq!(text, "search a.b b\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:5 edns0\n");
        assert_eq!(resolv_conf(&dns(&[], &[], &[])).unwrap(), "");
    }

    #[test]
    fn an_entry_cannot_write_a_second_line() {
        resolv_conf(&dns(&["a\nnameserver 6.6.6.6"], &[], &[])).unwrap_err();
        resolv_conf(&dns(&[], &["10.0.0.1 x"], &[])).unwrap_err();
    }
}
