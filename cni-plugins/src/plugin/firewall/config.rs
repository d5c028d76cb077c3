//! firewall's keys: what they say, what is refused.

use serde::Deserialize;

use crate::Result;
use crate::error::Error;
use crate::skel::Network;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    backend: String,
    iptables_admin_chain_name: String,
    firewalld_zone: String,
    ingress_policy: String,
}

/// How the backend was chosen: it is nf_tables by netlink in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Nobody said; where firewalld runs, that is not enough.
    Unset,
    Nftables,
}

/// Who may open connections to a container of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Open,
    /// Not those on other bridges with a policy.
    SameBridge,
    /// Nor those on the same bridge.
    Isolated,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub backend: Backend,
    /// A chain for the administrator's rules, before ours.
    pub admin_chain: String,
    pub firewalld_zone: String,
    pub policy: Policy,
}

/// NFT_NAME_MAXLEN is more; iptables takes 28 characters and no leading dash.
const CHAIN_MAX_BYTES: usize = 28;

impl Config {
    pub fn load(network: &Network) -> Result<Self> {
        let raw: Raw = network.parse()?;
        let or = |text: String, default: &str| if text.is_empty() { default.into() } else { text };
        let admin_chain: String = or(raw.iptables_admin_chain_name, "CNI-ADMIN");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if admin_chain.len() > CHAIN_MAX_BYTES
            || admin_chain.starts_with('-')
            || !admin_chain.chars().all(plain)
        {
            return Err(Error::config(format!(
                "iptablesAdminChainName {admin_chain:?} is no name of a chain"
            ))
            .details("up to 28 letters, digits, '-' and '_', not beginning with '-'"));
        }
        Ok(Self {
            backend: backend(&raw.backend)?,
            admin_chain,
            firewalld_zone: or(raw.firewalld_zone, "trusted"),
            policy: policy(&raw.ingress_policy)?,
        })
    }
}

fn backend(text: &str) -> Result<Backend> {
    match text {
        "" => Ok(Backend::Unset),
        "nftables" => Ok(Backend::Nftables),
        "iptables" => Err(Error::unsupported(
            "backend",
            "\"iptables\" would run a program per rule; leave the key out: the same rules are written to iptables' \
             table by netlink",
        )),
        "firewalld" => Err(Error::unsupported(
            "backend",
            "firewalld is not spoken to; bind the network's subnet to a zone with firewall-cmd --add-source, and \
             write \"nftables\"",
        )),
        other => Err(Error::config(format!("unrecognized backend {other:?} (nftables is known)"))),
    }
}

fn policy(text: &str) -> Result<Policy> {
    match text {
        "" | "open" => Ok(Policy::Open),
        "same-bridge" => Ok(Policy::SameBridge),
        "isolated" => Ok(Policy::Isolated),
        other => Err(Error::config(format!("unknown ingress policy: {other:?}"))
            .details("open, same-bridge and isolated are known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::types::Version;
    use serde_json::{Value, json};

    fn load(config: Value) -> Result<Config> {
        let version = Version::LATEST;
        Config::load(&Network { name: "n".into(), version, config, stdin: Vec::new(), path: Vec::new() })
    }

    #[test]
    fn defaults() {
        // As podman writes it.
        let config = load(json!({"backend": ""})).expect("fine");
        assert_eq!((config.backend, config.policy), (Backend::Unset, Policy::Open));
        assert_eq!((config.admin_chain.as_str(), config.firewalld_zone.as_str()), ("CNI-ADMIN", "trusted"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (config, code, wanted) in [
            (json!({"backend": "iptables"}), Code::UnsupportedField, "leave the key out"),
            (json!({"backend": "firewalld"}), Code::UnsupportedField, "--add-source"),
            (json!({"backend": "pf"}), Code::InvalidConfig, "\"pf\""),
            (json!({"ingressPolicy": "closed"}), Code::InvalidConfig, "unknown ingress policy: \"closed\""),
            (json!({"iptablesAdminChainName": "a b"}), Code::InvalidConfig, "\"a b\""),
            (
                json!({"iptablesAdminChainName": "a".repeat(29)}),
                Code::InvalidConfig,
                "iptablesAdminChainName",
            ),
            (json!({"iptablesAdminChainName": 1}), Code::Decoding, "\"iptablesAdminChainName\""),
        ] {
            let error = load(config).expect_err(wanted);
            assert_eq!(error.code, code, "{error}");
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}
