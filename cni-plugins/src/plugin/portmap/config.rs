//! portmap's keys: what they say, what is refused.

use std::net::IpAddr;

use corten_netlink::nft::Transport;
use serde::Deserialize;
use serde_json::Value;

use super::condition::{self, Condition};
use crate::Result;
use crate::error::Error;
use crate::skel::{Attachment, Network};

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    backend: Option<String>,
    snat: bool,
    conditions_v4: Vec<String>,
    conditions_v6: Vec<String>,
    masq_all: bool,
    mark_masq_bit: Option<i64>,
    external_set_mark_chain: Option<String>,
    runtime_config: RawRuntime,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            backend: None,
            snat: true,
            conditions_v4: Vec::new(),
            conditions_v6: Vec::new(),
            masq_all: false,
            mark_masq_bit: None,
            external_set_mark_chain: None,
            runtime_config: RawRuntime::default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawRuntime {
    port_mappings: Vec<RawMapping>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMapping {
    host_port: i64,
    container_port: i64,
    #[serde(default)]
    protocol: String,
    #[serde(rename = "hostIP", default)]
    host_ip: String,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// Masquerade what a container or this host sends to itself through the mapping.
    pub snat: bool,
    /// Masquerade everything mapped.
    pub masq_all: bool,
    pub conditions_v4: Condition,
    pub conditions_v6: Condition,
    pub mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    pub host_port: u16,
    pub container_port: u16,
    pub transport: Transport,
    pub host_ip: Option<IpAddr>,
}

impl Mapping {
    /// A host address of the other family leaves this one out.
    pub fn is_for(&self, ipv4: bool) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv4() == ipv4)
    }
}

impl Config {
    pub fn load(network: &Network) -> Result<Self> {
        let raw: Raw = network.parse()?;
        check_backend(&raw)?;
        if let Some(bit) = raw.mark_masq_bit
            && !(0..=31).contains(&bit)
        {
            return Err(Error::config("markMasqBit must be between 0 and 31"));
        }
        // In range, the bit has no further meaning: our masquerade rules match addresses and need no mark, as
        // upstream's nftables backend.
        let mappings = raw.runtime_config.port_mappings.iter().map(mapping).collect::<Result<_>>()?;
        Ok(Self {
            snat: raw.snat,
            masq_all: raw.masq_all,
            conditions_v4: condition::parse("conditionsV4", true, &raw.conditions_v4)?,
            conditions_v6: condition::parse("conditionsV6", false, &raw.conditions_v6)?,
            mappings,
        })
    }

    /// A mapping that would make no rule at all is an error, not silence.
    pub fn refuse_unreachable(&self, addresses: &[IpAddr]) -> Result<()> {
        let reachable = |m: &&Mapping| addresses.iter().any(|address| m.is_for(address.is_ipv4()));
        let Some(mapping) = self.mappings.iter().find(|m| !reachable(m)) else { return Ok(()) };
        let from = mapping.host_ip.map(|ip| format!(" on hostIP {ip}")).unwrap_or_default();
        let text = format!("host port {}{from} cannot be mapped", mapping.host_port);
        Err(Error::config(text).details(format!("the container's addresses are {addresses:?}")))
    }
}

/// DEL must not stumble over what ADD refused.
pub fn has_mappings(network: &Network) -> bool {
    let list = network.config.pointer("/runtimeConfig/portMappings").and_then(Value::as_array);
    list.is_some_and(|list| !list.is_empty())
}

fn check_backend(raw: &Raw) -> Result<()> {
    match raw.backend.as_deref() {
        None | Some("nftables") => {}
        Some("iptables") => {
            let why = "\"iptables\" would run a program per rule; leave the key out or write \"nftables\"";
            return Err(Error::unsupported("backend", why));
        }
        Some(other) => {
            return Err(Error::config(format!("unrecognized backend {other:?} (nftables is known)")));
        }
    }
    if raw.external_set_mark_chain.is_some() {
        let why = "it names an iptables chain; with nftables nothing is marked";
        return Err(Error::unsupported("externalSetMarkChain", why));
    }
    Ok(())
}

fn mapping(raw: &RawMapping) -> Result<Mapping> {
    let port = |name: &str, number: i64| {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| Error::config(format!("invalid {name} port number: {number}")))
    };
    let transport = match raw.protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Transport::Tcp,
        "udp" => Transport::Udp,
        "sctp" => Transport::Sctp,
        _ => {
            let text = format!("invalid protocol {:?} of host port {}", raw.protocol, raw.host_port);
            return Err(Error::config(text).details("tcp, udp and sctp are known"));
        }
    };
    let host_ip =
        match raw.host_ip.as_str() {
            "" => None,
            text => Some(text.parse().map(|ip: IpAddr| ip.to_canonical()).map_err(|_| {
                Error::config(format!("invalid hostIP {text:?} of host port {}", raw.host_port))
            })?),
        };
    Ok(Mapping {
        host_port: port("host", raw.host_port)?,
        container_port: port("container", raw.container_port)?,
        transport,
        host_ip,
    })
}

/// The first address of each family that is on the container's interface (or says of no interface).
pub fn container_addresses(network: &Network, attachment: &Attachment) -> Result<Vec<IpAddr>> {
    let Some(result) = network.parsed_prev_result()? else { return Ok(Vec::new()) };
    let is_ours = |index: Option<usize>| match index.and_then(|index| result.interfaces.get(index)) {
        Some(interface) => interface.name == attachment.ifname && !interface.sandbox.is_empty(),
        None => true,
    };
    let first = |ipv4: bool| {
        let mut ours = result.ips.iter().filter(|ip| is_ours(ip.interface));
        ours.find(|ip| ip.address.is_ipv4() == ipv4).map(|ip| ip.address.address())
    };
    Ok([first(true), first(false)].into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::types::Version;
    use serde_json::json;

    fn load(config: Value) -> Result<Config> {
        let version = Version::LATEST;
        Config::load(&Network { name: "n".into(), version, config, stdin: Vec::new(), path: Vec::new() })
    }

    fn with_mapping(mapping: &Value) -> Result<Config> {
        load(json!({"runtimeConfig": {"portMappings": [mapping]}}))
    }

    #[test]
    fn mappings_are_read() {
        let config = with_mapping(
            &json!({"hostPort": 80, "containerPort": 8080, "protocol": "UDP", "hostIP": "::ffff:10.0.0.1"}),
        )
        .expect("fine");
        let mapping = config.mappings[0];
        assert_eq!(
            (mapping.host_port, mapping.container_port, mapping.transport),
            (80, 8080, Transport::Udp)
        );
        assert!(mapping.is_for(true) && !mapping.is_for(false));
        assert!(config.snat && !config.masq_all);
        let ipv6 = ["fd00::1".parse().expect("an address")];
        assert!(config.refuse_unreachable(&ipv6).expect_err("other family").msg.contains("hostIP 10.0.0.1"));
    }

    #[test]
    fn bad_mappings_and_foreign_backends_are_refused_by_name() {
        let base = json!({"hostPort": 80, "containerPort": 80});
        for (key, value, wanted) in [
            ("hostPort", json!(0), "host port number: 0"),
            ("hostPort", json!(65536), "65536"),
            ("containerPort", json!(-1), "container port number: -1"),
            ("protocol", json!("icmp"), "\"icmp\""),
            ("hostIP", json!("localhost"), "\"localhost\""),
        ] {
            let mut mapping = base.clone();
            mapping[key] = value;
            let error = with_mapping(&mapping).expect_err(wanted);
            assert_eq!(error.code, Code::InvalidConfig);
            assert!(error.to_string().contains(wanted), "{error}");
        }
        for (config, code, wanted) in [
            (json!({"backend": "iptables"}), Code::UnsupportedField, "\"backend\""),
            (json!({"backend": "x"}), Code::InvalidConfig, "\"x\""),
            (
                json!({"externalSetMarkChain": "KUBE-MARK-MASQ"}),
                Code::UnsupportedField,
                "externalSetMarkChain",
            ),
            (json!({"markMasqBit": 32}), Code::InvalidConfig, "markMasqBit"),
            (json!({"conditionsV4": ["!", "-d", "10.0.0.0/8"]}), Code::InvalidConfig, "conditionsV4"),
        ] {
            let error = load(config).expect_err(wanted);
            assert_eq!(error.code, code, "{error}");
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }
}
