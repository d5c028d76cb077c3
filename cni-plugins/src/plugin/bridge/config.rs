//! bridge's keys: what they say, what they mean together, what is refused.

use corten_netlink::route::Mac;
use serde::Deserialize;
use serde_json::Value;

use crate::Result;
use crate::error::Error;
use crate::ipam::Ipam;
use crate::skel::{Attachment, Network, check_ifname};
use crate::types::Dns;

/// As written.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: u32,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: i64,
    vlan_trunk: Vec<Value>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
    dns: Dns,
    args: RawArgs,
    runtime_config: RawMac,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawMac,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMac {
    mac: String,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            bridge: "cni0".into(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            ip_masq_backend: None,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            vlan_trunk: Vec::new(),
            preserve_default_vlan: false,
            macspoofchk: false,
            enabledad: false,
            disable_container_interface: false,
            port_isolation: false,
            dns: Dns::default(),
            args: RawArgs::default(),
            runtime_config: RawMac::default(),
        }
    }
}

/// As meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub bridge: String,
    /// Put the gateway's addresses on the bridge and forward.
    pub is_gateway: bool,
    /// Also give the container a default route; implies `is_gateway`.
    pub is_default_gateway: bool,
    /// Replace another address of the bridge instead of failing.
    pub force_address: bool,
    pub ip_masq: bool,
    /// 0: the kernel's default.
    pub mtu: u32,
    pub hairpin: bool,
    pub promiscuous: bool,
    pub mac_spoof_check: bool,
    /// Let IPv6 addresses of the container pass duplicate address detection.
    pub enable_dad: bool,
    /// Leave the container's end down.
    pub disable_container_interface: bool,
    pub isolated: bool,
    /// `None`: the kernel draws one.
    pub mac: Option<Mac>,
    pub dns: Dns,
    pub ipam: Option<Ipam>,
}

/// What DEL and GC need, of whatever else the configuration holds.
#[derive(Debug, Clone, Copy)]
pub struct ForDel {
    pub ip_masq: bool,
    pub mac_spoof_check: bool,
}

impl ForDel {
    pub fn load(network: &Network) -> Self {
        let on = |key: &str| network.config.get(key).and_then(Value::as_bool).unwrap_or_default();
        Self { ip_masq: on("ipMasq"), mac_spoof_check: on("macspoofchk") }
    }
}

impl Config {
    pub fn load(network: &Network, attachment: &Attachment) -> Result<Self> {
        Self::new(network, attachment.args.mac.as_deref())
    }

    pub fn of_network(network: &Network) -> Result<Self> {
        Self::new(network, None)
    }

    fn new(network: &Network, mac_of_args: Option<&str>) -> Result<Self> {
        let raw: Raw = network.parse()?;
        check_ifname("bridge", &raw.bridge)?;
        refuse_vlans(&raw)?;
        check_backend(raw.ip_masq_backend.as_deref())?;
        let ipam = Ipam::of(network)?;
        if ipam.is_some() && raw.disable_container_interface {
            return Err(Error::config("cannot use IPAM when disableContainerInterface is set"));
        }
        if raw.hairpin_mode && raw.promisc_mode {
            return Err(Error::config("cannot set hairpinMode and promiscMode at the same time"));
        }
        // The later source wins, as upstream.
        let sources =
            [raw.runtime_config.mac.as_str(), raw.args.cni.mac.as_str(), mac_of_args.unwrap_or_default()];
        let mac = sources.into_iter().find(|text| !text.is_empty());
        let mac = mac.map(|text| text.parse().map_err(|e| Error::config(format!("mac: {e}")))).transpose()?;
        Ok(Self {
            bridge: raw.bridge,
            is_gateway: raw.is_gateway || raw.is_default_gateway,
            is_default_gateway: raw.is_default_gateway,
            force_address: raw.force_address,
            ip_masq: raw.ip_masq && ipam.is_some(),
            mtu: raw.mtu,
            hairpin: raw.hairpin_mode,
            promiscuous: raw.promisc_mode,
            mac_spoof_check: raw.macspoofchk,
            enable_dad: raw.enabledad,
            disable_container_interface: raw.disable_container_interface,
            isolated: raw.port_isolation,
            mac,
            dns: raw.dns,
            ipam,
        })
    }
}

fn refuse_vlans(raw: &Raw) -> Result<()> {
    if !(0..=4094).contains(&raw.vlan) {
        return Err(Error::config(format!("invalid VLAN ID {} (must be between 0 and 4094)", raw.vlan)));
    }
    let why = "802.1Q filtering on the bridge is not implemented; use one bridge per VLAN";
    if raw.vlan != 0 {
        return Err(Error::unsupported("vlan", why));
    }
    if !raw.vlan_trunk.is_empty() {
        return Err(Error::unsupported("vlanTrunk", why));
    }
    if raw.preserve_default_vlan {
        return Err(Error::unsupported("preserveDefaultVlan", why));
    }
    Ok(())
}

fn check_backend(backend: Option<&str>) -> Result<()> {
    match backend {
        None | Some("nftables" | "") => Ok(()),
        Some("iptables") => Err(Error::unsupported(
            "ipMasqBackend",
            "\"iptables\" would run a program per rule; leave the key out or write \"nftables\"",
        )),
        Some(other) => Err(Error::config(format!("unknown ipMasqBackend {other:?} (nftables is known)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::types::Version;
    use serde_json::json;

    fn network(config: Value) -> Network {
        Network { name: "net".into(), version: Version::LATEST, config, stdin: Vec::new(), path: Vec::new() }
    }

    #[test]
    fn defaults_and_implications() {
        let config = Config::of_network(&network(json!({}))).expect("all defaults");
        assert_eq!((config.bridge.as_str(), config.is_gateway, config.ip_masq), ("cni0", false, false));
        let config =
            Config::of_network(&network(json!({"isDefaultGateway": true, "ipMasq": true}))).expect("fine");
        assert!(config.is_gateway, "implied");
        assert!(!config.ip_masq, "no addresses, nothing to masquerade");
    }

    #[test]
    fn the_mac_comes_from_the_most_specific_source() {
        let sources = json!({
            "runtimeConfig": {"mac": "02:00:00:00:00:01"}, "args": {"cni": {"mac": "02:00:00:00:00:02"}}
        });
        let mac = |config: &Value| {
            Config::new(&network(config.clone()), Some("02:00:00:00:00:03"))
                .expect("fine")
                .mac
                .map(|m| m.0[5])
        };
        assert_eq!(mac(&sources), Some(1));
        assert_eq!(mac(&json!({"args": sources["args"]})), Some(2));
        assert_eq!(mac(&json!({})), Some(3));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (config, code, wanted) in [
            (json!({"vlan": 5}), Code::UnsupportedField, "\"vlan\""),
            (json!({"vlanTrunk": [{"id": 5}]}), Code::UnsupportedField, "\"vlanTrunk\""),
            (json!({"preserveDefaultVlan": true}), Code::UnsupportedField, "\"preserveDefaultVlan\""),
            (json!({"vlan": 5000}), Code::InvalidConfig, "5000"),
            (json!({"ipMasqBackend": "iptables"}), Code::UnsupportedField, "\"ipMasqBackend\""),
            (json!({"ipMasqBackend": "pf"}), Code::InvalidConfig, "\"pf\""),
            (json!({"hairpinMode": true, "promiscMode": true}), Code::InvalidConfig, "hairpinMode"),
            (json!({"disableContainerInterface": true, "ipam": {"type": "x"}}), Code::InvalidConfig, "IPAM"),
            (json!({"bridge": "a/b"}), Code::InvalidConfig, "bridge"),
            (json!({"mtu": -1}), Code::Decoding, "\"mtu\""),
            (json!({"isGateway": "yes"}), Code::Decoding, "\"isGateway\""),
            (json!({"runtimeConfig": {"mac": "x"}}), Code::InvalidConfig, "\"x\""),
            (json!({"ipam": {"type": "../x"}}), Code::InvalidConfig, "../x"),
        ] {
            let error = Config::of_network(&network(config.clone())).expect_err(wanted);
            assert_eq!(error.code, code, "{config}: {error}");
            assert!(error.to_string().contains(wanted), "{config}: {error}");
        }
    }
}
