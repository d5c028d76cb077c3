//! net-conf.json: the network's ranges, and how its nodes reach each other.
//!
//! Pure: text in, [`NetConf`] or an error that names key and remedy out. flannel reads its keys without regard to case,
//! and so does this; a key that nobody knows is an error here and silence there.
//! Source: flannel `pkg/subnet/config.go`, `pkg/backend/vxlan/vxlan.go`, `Documentation/configuration.md`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde_json::{Map, Value};

use crate::node::{Dual, PodCidrs};

/// The vxlan port of Linux, and of flannel on Linux; IANA's is 4789.
pub const VXLAN_PORT: u16 = 8472;
const VXLAN_VNI: u32 = 1;
/// A VNI has 24 bits.
const VNI_MAX: u64 = (1 << 24) - 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConf {
    /// What the pod CIDRs of all nodes are parts of, one range a family; a family that is off is `None`.
    pub networks: PodCidrs,
    /// How etcd's allocation cuts the ranges; an apiserver and a node list give pod CIDRs themselves.
    pub subnets: Dual<SubnetKeys<Ipv4Addr>, SubnetKeys<Ipv6Addr>>,
    pub backend: BackendConf,
}

/// `SubnetLen`, `SubnetMin` and `SubnetMax`, or their IPv6 kin, as written; defaults depend on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubnetKeys<Address> {
    pub len: Option<u8>,
    pub min: Option<Address>,
    pub max: Option<Address>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendConf {
    HostGw,
    Vxlan(VxlanConf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanConf {
    pub vni: u32,
    /// UDP port of all nodes.
    pub port: u16,
    /// MTU of the underlay in place of the uplink's; the tunnel's is smaller by the outer headers.
    pub underlay_mtu: Option<u32>,
    /// The group policy extension.
    pub gbp: bool,
    /// The kernel learns forwarding entries from packets.
    pub learning: bool,
    /// Peers on the same layer 2 are reached by a plain route, without the tunnel.
    pub direct_routing: bool,
}

impl Default for VxlanConf {
    fn default() -> Self {
        Self {
            vni: VXLAN_VNI,
            port: VXLAN_PORT,
            underlay_mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        }
    }
}

impl BackendConf {
    /// The name in `Backend.Type`, in annotations and in etcd.
    pub fn name(&self) -> &'static str {
        match self {
            BackendConf::HostGw => "host-gw",
            BackendConf::Vxlan(_) => "vxlan",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NetConfError {
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{key} is not a JSON object; write {wanted}")]
    NotAnObject { key: &'static str, wanted: &'static str },
    #[error("unknown key {key}; known are {known}")]
    Unknown { key: String, known: String },
    #[error("{key} stands there twice (keys are read without regard to case); keep one")]
    Twice { key: String },
    #[error("{key} is {value}; write {wanted}")]
    Value { key: String, value: String, wanted: &'static str },
    #[error("{key} is missing; add \"{key}\": \"{example}\" (or \"{switch}\": false)")]
    NoNetwork { key: &'static str, example: &'static str, switch: &'static str },
    #[error("EnableIPv4 and EnableIPv6 are both false; enable one")]
    NoFamily,
    #[error(
        "Backend is missing, for which flannel takes udp, a backend that is not here; add \"Backend\": {{\"Type\": \"vxlan\"}}"
    )]
    NoBackend,
    #[error("Backend.Type {name}: {why}; use \"vxlan\", or \"host-gw\" where all nodes share a layer 2")]
    Backend { name: String, why: &'static str },
}

const TOP: &[&str] = &[
    "Network",
    "IPv6Network",
    "EnableIPv4",
    "EnableIPv6",
    "EnableNFTables",
    "SubnetLen",
    "SubnetMin",
    "SubnetMax",
    "IPv6SubnetLen",
    "IPv6SubnetMin",
    "IPv6SubnetMax",
    "Backend",
];
const VXLAN: &[&str] = &["Type", "VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting"];
const HOST_GW: &[&str] = &["Type"];

impl FromStr for NetConf {
    type Err = NetConfError;

    fn from_str(text: &str) -> Result<Self, NetConfError> {
        let Value::Object(object) = serde_json::from_str(text)? else {
            return Err(NetConfError::NotAnObject {
                key: "net-conf",
                wanted: r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#,
            });
        };
        let keys = Keys::new("", object, TOP)?;
        let (v4, v6) =
            (keys.boolean("EnableIPv4")?.unwrap_or(true), keys.boolean("EnableIPv6")?.unwrap_or(false));
        // Both of flannel's ways end in one here: rules are always nf_tables, in a table of their own.
        keys.boolean("EnableNFTables")?;
        if !v4 && !v6 {
            return Err(NetConfError::NoFamily);
        }
        Ok(Self {
            networks: Dual {
                v4: v4.then(|| keys.network_v4()).transpose()?,
                v6: v6.then(|| keys.network_v6()).transpose()?,
            },
            subnets: Dual {
                v4: v4.then(|| keys.subnets(["SubnetLen", "SubnetMin", "SubnetMax"], 30)).transpose()?,
                v6: v6
                    .then(|| keys.subnets(["IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"], 126))
                    .transpose()?,
            },
            backend: backend(keys.get("Backend"))?,
        })
    }
}

fn backend(value: Option<&Value>) -> Result<BackendConf, NetConfError> {
    let object = match value {
        None | Some(Value::Null) => return Err(NetConfError::NoBackend),
        Some(Value::Object(object)) => object,
        Some(_) => {
            return Err(NetConfError::NotAnObject { key: "Backend", wanted: r#"{"Type": "vxlan"}"# });
        }
    };
    let kind = object.iter().find(|(key, _)| key.eq_ignore_ascii_case("Type")).map(|(_, kind)| kind);
    let Some(Value::String(kind)) = kind else {
        return Err(NetConfError::Value {
            key: "Backend.Type".into(),
            value: kind.map_or("missing".into(), Value::to_string),
            wanted: r#""vxlan" or "host-gw""#,
        });
    };
    let why = match kind.to_ascii_lowercase().as_str() {
        "vxlan" => return vxlan(&Keys::new("Backend.", object.clone(), VXLAN)?).map(BackendConf::Vxlan),
        "host-gw" => return Keys::new("Backend.", object.clone(), HOST_GW).map(|_| BackendConf::HostGw),
        "udp" => "packets through user space are not supported",
        "wireguard" | "ipsec" => "encrypted tunnels are not supported",
        "ipip" => "IPIP tunnels are not supported",
        "extension" => "commands of the administrator as a backend are not supported",
        "alloc" => "a backend that does nothing is not supported",
        "tencent-vpc" | "ali-vpc" | "aws-vpc" | "gce" => "routing tables of clouds are not supported",
        _ => "nobody knows this backend",
    };
    Err(NetConfError::Backend { name: kind.clone(), why })
}

fn vxlan(keys: &Keys) -> Result<VxlanConf, NetConfError> {
    let default = VxlanConf::default();
    // flannel takes 0 for "the default" in port and MTU.
    Ok(VxlanConf {
        vni: keys
            .integer("VNI", 0..=VNI_MAX, "a number from 0 to 16777215")?
            .map_or(default.vni, |v| v as u32),
        port: keys
            .integer("Port", 0..=65535, "a UDP port")?
            .filter(|port| *port != 0)
            .map_or(default.port, |v| v as u16),
        underlay_mtu: keys
            .integer("MTU", 0..=65535, "the MTU of the underlay in bytes, at most 65535")?
            .filter(|mtu| *mtu != 0)
            .map(|v| v as u32),
        gbp: keys.boolean("GBP")?.unwrap_or(default.gbp),
        learning: keys.boolean("Learning")?.unwrap_or(default.learning),
        direct_routing: keys.boolean("DirectRouting")?.unwrap_or(default.direct_routing),
    })
}

/// The members of one JSON object, all known, each once.
struct Keys {
    path: &'static str,
    members: Map<String, Value>,
}

impl Keys {
    fn new(path: &'static str, members: Map<String, Value>, known: &[&str]) -> Result<Self, NetConfError> {
        for key in members.keys() {
            if !known.iter().any(|name| name.eq_ignore_ascii_case(key)) {
                return Err(NetConfError::Unknown { key: format!("{path}{key}"), known: known.join(", ") });
            }
            if members.keys().filter(|other| other.eq_ignore_ascii_case(key)).count() > 1 {
                return Err(NetConfError::Twice { key: format!("{path}{key}") });
            }
        }
        Ok(Self { path, members })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.members
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
            .filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &'static str) -> NetConfError {
        NetConfError::Value { key: format!("{}{key}", self.path), value: value.to_string(), wanted }
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>, NetConfError> {
        self.get(key)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false")))
            .transpose()
    }

    fn integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        wanted: &'static str,
    ) -> Result<Option<u64>, NetConfError> {
        let number = |value: &Value| value.as_u64().filter(|number| range.contains(number));
        self.get(key).map(|value| number(value).ok_or_else(|| self.wrong(key, value, wanted))).transpose()
    }

    fn text<T: FromStr>(&self, key: &str, wanted: &'static str) -> Result<Option<T>, NetConfError> {
        let parsed = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        self.get(key).map(|value| parsed(value).ok_or_else(|| self.wrong(key, value, wanted))).transpose()
    }

    /// `Network`; host bits are dropped, as flannel does.
    fn network_v4(&self) -> Result<Ipv4Network, NetConfError> {
        const MISSING: NetConfError =
            NetConfError::NoNetwork { key: "Network", example: "10.244.0.0/16", switch: "EnableIPv4" };
        const WANTED: &str = r#"an IPv4 range such as "10.244.0.0/16""#;
        match self.range("Network", WANTED)?.ok_or(MISSING)? {
            IpNetwork::V4(range) if range.prefix() > 0 => {
                Ok(Ipv4Network::new(range.network(), range.prefix()).expect("the prefix was valid before"))
            }
            other => Err(self.wrong("Network", &Value::String(other.to_string()), WANTED)),
        }
    }

    /// `IPv6Network`.
    fn network_v6(&self) -> Result<Ipv6Network, NetConfError> {
        const MISSING: NetConfError =
            NetConfError::NoNetwork { key: "IPv6Network", example: "fd42:244::/56", switch: "EnableIPv6" };
        const WANTED: &str = r#"an IPv6 range such as "fd42:244::/56""#;
        match self.range("IPv6Network", WANTED)?.ok_or(MISSING)? {
            IpNetwork::V6(range) if range.prefix() > 0 => {
                Ok(Ipv6Network::new(range.network(), range.prefix()).expect("the prefix was valid before"))
            }
            other => Err(self.wrong("IPv6Network", &Value::String(other.to_string()), WANTED)),
        }
    }

    /// A range must say its length: an address alone would mean one address.
    fn range(&self, key: &str, wanted: &'static str) -> Result<Option<IpNetwork>, NetConfError> {
        match self.get(key) {
            Some(value) if !value.as_str().is_some_and(|text| text.contains('/')) => {
                Err(self.wrong(key, value, wanted))
            }
            _ => self.text(key, wanted),
        }
    }

    /// flannel takes a length of 0 and the unspecified address for "the default".
    fn subnets<Address>(&self, keys: [&str; 3], longest: u64) -> Result<SubnetKeys<Address>, NetConfError>
    where
        Address: FromStr + Copy + Into<IpAddr>,
    {
        const LENGTH: &str = "a prefix length that leaves each node four addresses or more";
        const ADDRESS: &str = "an address of this family";
        let [len, min, max] = keys;
        let given = |address: &Address| !(*address).into().is_unspecified();
        Ok(SubnetKeys {
            len: self.integer(len, 0..=longest, LENGTH)?.filter(|len| *len != 0).map(|len| len as u8),
            min: self.text(min, ADDRESS)?.filter(given),
            max: self.text(max, ADDRESS)?.filter(given),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetConf, String> {
        text.parse().map_err(|error: NetConfError| error.to_string())
    }

    #[test]
    fn the_usual_file_of_kube_flannel_has_flannels_defaults() {
        let conf =
            parse(r#"{"Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": {"Type": "vxlan"}}"#)
                .unwrap();
        assert_eq!(conf.networks, Dual { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None });
        assert_eq!(conf.backend, BackendConf::Vxlan(VxlanConf::default()));
        assert_eq!((VxlanConf::default().vni, VxlanConf::default().port), (1, 8472));
    }

    #[test]
    fn every_key_is_read_without_regard_to_case() {
        let conf = parse(
            r#"{"network": "10.5.1.2/16", "IPV6NETWORK": "fd00::/48", "enableipv6": true, "SubnetLen": 26,
                "SubnetMin": "10.5.10.0", "SubnetMax": "10.5.20.0", "IPv6SubnetLen": 0, "IPv6SubnetMin": "::",
                "IPv6SubnetMax": "fd00:0:0:9::",
                "Backend": {"type": "VXLAN", "vni": 7, "Port": 0, "mtu": 1400, "GBP": true, "Learning": true,
                            "directRouting": true}}"#,
        )
        .unwrap();
        assert_eq!(conf.networks.v4.unwrap().to_string(), "10.5.0.0/16");
        assert_eq!(conf.networks.v6.unwrap().to_string(), "fd00::/48");
        let v4 = conf.subnets.v4.unwrap();
        assert_eq!((v4.len, v4.min.unwrap().to_string()), (Some(26), "10.5.10.0".to_string()));
        let v6 = conf.subnets.v6.unwrap();
        assert_eq!((v6.len, v6.min, v6.max.unwrap().to_string()), (None, None, "fd00:0:0:9::".to_string()));
        let BackendConf::Vxlan(vxlan) = conf.backend else { panic!("{:?}", conf.backend) };
        assert_eq!((vxlan.vni, vxlan.port, vxlan.underlay_mtu), (7, 8472, Some(1400)));
        assert!(vxlan.gbp && vxlan.learning && vxlan.direct_routing);
    }

    #[test]
    fn a_family_that_is_off_may_have_any_range() {
        // As k3s writes it for a cluster without IPv6.
        let conf = parse(
            r#"{"Network": "10.42.0.0/16", "EnableIPv6": false, "EnableIPv4": true, "IPv6Network": "::/0",
                "Backend": {"Type": "host-gw"}}"#,
        )
        .unwrap();
        assert_eq!((conf.networks.v6, conf.subnets.v6, conf.backend), (None, None, BackendConf::HostGw));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let vxlan = r#""Backend": {"Type": "vxlan"}"#;
        let table = [
            ("{", "not JSON"),
            ("[]", r#"net-conf is not a JSON object; write {"Network""#),
            (r#"{"Network": "10.0.0.0/16"}"#, r#"add "Backend": {"Type": "vxlan"}"#),
            (r#"{"Network": "10.0.0.0/16", "Backend": "vxlan"}"#, "Backend is not a JSON object"),
            (r#"{"Network": "10.0.0.0/16", "Backend": {}}"#, r#"Backend.Type is missing; write "vxlan""#),
            (
                r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "udp"}}"#,
                r#"Backend.Type udp: packets through user space are not supported; use "vxlan""#,
            ),
            (r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "wireguard"}}"#, "Backend.Type wireguard"),
            (r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "vxln"}}"#, "nobody knows this backend"),
            (
                r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "host-gw", "VNI": 1}}"#,
                "unknown key Backend.VNI; known are Type",
            ),
            (
                r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "vxlan", "VNI": 16777216}}"#,
                "Backend.VNI is 16777216; write a number from 0 to 16777215",
            ),
            (
                r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "vxlan", "Port": 65536}}"#,
                "Backend.Port is 65536",
            ),
            (
                r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "vxlan", "vni": 1, "VNI": 2}}"#,
                "stands there twice",
            ),
            (&format!("{{{vxlan}}}"), r#"Network is missing; add "Network": "10.244.0.0/16""#),
            (
                &format!(r#"{{"Network": "10.0.0.0", {vxlan}}}"#),
                r#"Network is "10.0.0.0"; write an IPv4 range"#,
            ),
            (&format!(r#"{{"Network": "fd00::/48", {vxlan}}}"#), r#"Network is "fd00::/48"; write an IPv4"#),
            (&format!(r#"{{"Network": "0.0.0.0/0", {vxlan}}}"#), "Network is"),
            (
                &format!(r#"{{"Network": "10.0.0.0/16", "EnableIPv6": true, {vxlan}}}"#),
                r#"IPv6Network is missing; add "IPv6Network": "fd42:244::/56" (or "EnableIPv6": false)"#,
            ),
            (&format!(r#"{{"EnableIPv4": false, {vxlan}}}"#), "both false; enable one"),
            (&format!(r#"{{"Network": "10.0.0.0/16", "EnableIPv6": "yes", {vxlan}}}"#), "true or false"),
            (&format!(r#"{{"Network": "10.0.0.0/16", "SubnetLen": 31, {vxlan}}}"#), "SubnetLen is 31"),
            (&format!(r#"{{"Network": "10.0.0.0/16", "SubnetMin": "fd00::", {vxlan}}}"#), "SubnetMin is"),
            (
                &format!(r#"{{"Network": "10.0.0.0/16", "Netwrok": 1, {vxlan}}}"#),
                "unknown key Netwrok; known are Network",
            ),
        ];
        for (text, wanted) in table {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}\n gave {error}\n not {wanted}");
        }
    }
}
