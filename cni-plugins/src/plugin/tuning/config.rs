//! tuning's keys: what they say, what is refused.

use std::fmt;
use std::path::PathBuf;

use corten_netlink::route::Mac;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::attributes::Attributes;
use super::keys;
use crate::Result;
use crate::error::Error;
use crate::skel::{Attachment, Network};

const DEFAULT_DATA_DIR: &str = "/run/cni/tuning";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    data_dir: String,
    sysctl: Pairs,
    #[serde(flatten)]
    attributes: RawAttributes,
    runtime_config: RawMac,
    args: RawArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAttributes {
    mac: Option<String>,
    promisc: Option<bool>,
    mtu: Option<u32>,
    allmulti: Option<bool>,
    #[serde(rename = "txQLen")]
    tx_queue_len: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMac {
    mac: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawCniArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCniArgs {
    sysctl: Pairs,
    #[serde(flatten)]
    attributes: RawAttributes,
}

/// A JSON object as written: in order, with keys that come twice.
#[derive(Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Keys as written, each once.
    pub sysctls: Vec<(String, String)>,
    pub attributes: Attributes,
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
        refuse_duplicates(network)?;
        // The later source wins, as upstream: the network's keys, CNI_ARGS, runtimeConfig, args.cni.
        let args = raw.args.cni;
        let macs = [
            args.attributes.mac.as_deref(),
            Some(raw.runtime_config.mac.as_str()),
            mac_of_args,
            raw.attributes.mac.as_deref(),
        ];
        let mac = macs.into_iter().flatten().find(|text| !text.is_empty()).map(parse_mac).transpose()?;
        let mut sysctls = raw.sysctl.0;
        for (key, value) in args.sysctl.0 {
            sysctls.retain(|(other, _)| *other != key);
            sysctls.push((key, value));
        }
        let network_has = raw.attributes;
        Ok(Self {
            data_dir: or_default(&raw.data_dir),
            sysctls,
            attributes: Attributes {
                mac,
                // False, as absent, leaves the mode alone (upstream's `promisc` is no tristate).
                promisc: args.attributes.promisc.or(network_has.promisc).filter(|on| *on),
                mtu: args.attributes.mtu.or(network_has.mtu).filter(|mtu| *mtu != 0),
                allmulti: args.attributes.allmulti.or(network_has.allmulti),
                tx_queue_len: args.attributes.tx_queue_len.or(network_has.tx_queue_len),
            },
        })
    }
}

fn parse_mac(text: &str) -> Result<Mac> {
    text.parse().map_err(|e| Error::config(format!("mac: {e}")))
}

/// All that DEL and GC need.
pub fn data_dir(network: &Network) -> PathBuf {
    or_default(network.config.get("dataDir").and_then(Value::as_str).unwrap_or_default())
}

fn or_default(text: &str) -> PathBuf {
    if text.is_empty() { DEFAULT_DATA_DIR.into() } else { text.into() }
}

/// In what came on stdin: a parsed object has kept only the last of a key's values.
fn refuse_duplicates(network: &Network) -> Result<()> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Sysctls {
        sysctl: Option<Pairs>,
        args: Option<Args>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Args {
        cni: Option<CniArgs>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct CniArgs {
        sysctl: Option<Pairs>,
    }
    let Ok(raw) = serde_json::from_slice::<Sysctls>(&network.stdin) else { return Ok(()) };
    let of_args = raw.args.and_then(|args| args.cni).and_then(|cni| cni.sysctl);
    for Pairs(pairs) in [raw.sysctl, of_args].into_iter().flatten() {
        let twice =
            |(index, (key, _)): &(usize, &(String, String))| pairs[..*index].iter().any(|p| p.0 == *key);
        if let Some((_, (key, _))) = pairs.iter().enumerate().find(twice) {
            return Err(keys::duplicate(key));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::types::Version;

    fn load(text: &str, mac_of_args: Option<&str>) -> Result<Config> {
        let config = serde_json::from_str(text).expect("json");
        let stdin = text.as_bytes().to_vec();
        let network = Network { name: "n".into(), version: Version::LATEST, config, stdin, path: Vec::new() };
        Config::new(&network, mac_of_args)
    }

    #[test]
    fn the_later_source_wins() {
        let text = r#"{"mac": "02:00:00:00:00:01", "mtu": 1400, "promisc": true, "txQLen": 0, "sysctl": {"net.a.b": "1", "net.a.c": "1"},
            "runtimeConfig": {"mac": "02:00:00:00:00:03"},
            "args": {"cni": {"mtu": 1300, "allmulti": false, "sysctl": {"net.a.b": "2"}}}}"#;
        let config = load(text, Some("02:00:00:00:00:02")).expect("fine");
        let wanted = Attributes {
            mac: Some(Mac([2, 0, 0, 0, 0, 3])),
            promisc: Some(true),
            mtu: Some(1300),
            allmulti: Some(false),
            tx_queue_len: Some(0),
        };
        assert_eq!(config.attributes, wanted);
        let pairs: Vec<_> = config.sysctls.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("net.a.c", "1"), ("net.a.b", "2")]);
        let mac = load(r#"{"mac": "02:00:00:00:00:01"}"#, Some("02:00:00:00:00:02")).expect("fine");
        assert_eq!(mac.attributes.mac, Some(Mac([2, 0, 0, 0, 0, 2])));
        assert!(load("{}", None).expect("fine").attributes.is_empty());
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for (text, code, wanted) in [
            (
                r#"{"sysctl": {"net.a.b": "1", "net.a.b": "1"}}"#,
                Code::InvalidConfig,
                "duplicated sysctl keys",
            ),
            (
                r#"{"args": {"cni": {"sysctl": {"net.a.b": "1", "net.a.b": "2"}}}}"#,
                Code::InvalidConfig,
                "net.a.b",
            ),
            (r#"{"sysctl": {"net.a.b": 1}}"#, Code::Decoding, "\"sysctl\""),
            (r#"{"mac": "02:00"}"#, Code::InvalidConfig, "\"02:00\""),
            (r#"{"mtu": -1}"#, Code::Decoding, "\"mtu\""),
            (r#"{"txQLen": -1}"#, Code::Decoding, "\"txQLen\""),
            (r#"{"promisc": "yes"}"#, Code::Decoding, "\"promisc\""),
        ] {
            let error = load(text, None).expect_err(text);
            assert_eq!(error.code, code, "{text}: {error}");
            assert!(error.to_string().contains(wanted), "{text}: {error}");
        }
    }
}
