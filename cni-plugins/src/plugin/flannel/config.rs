//! flannel's keys.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Result;
use crate::error::Error;
use crate::skel::Network;

const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/flannel";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Raw {
    subnet_file: String,
    data_dir: String,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
    runtime_config: Option<Map<String, Value>>,
    args: Option<Map<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub subnet_file: PathBuf,
    pub data_dir: PathBuf,
    /// Keys for the delegate; they go before what the subnet says, but for name and ipam.
    pub delegate: Map<String, Value>,
    /// The beginning of the delegate's ipam: ranges are replaced, routes continued.
    pub ipam: Map<String, Value>,
    /// runtimeConfig, for the delegate.
    pub runtime: Option<Map<String, Value>>,
    pub args: Option<Map<String, Value>>,
}

impl Config {
    pub fn load(network: &Network) -> Result<Self> {
        let raw: Raw = network.parse()?;
        check_delegate(&raw.delegate)?;
        if raw.ipam.get("routes").is_some_and(|routes| !routes.is_array()) {
            return Err(Error::config("key \"ipam.routes\" is not a list"));
        }
        Ok(Self {
            subnet_file: or_default(raw.subnet_file, DEFAULT_SUBNET_FILE),
            data_dir: or_default(raw.data_dir, DEFAULT_DATA_DIR),
            delegate: raw.delegate,
            ipam: raw.ipam,
            runtime: raw.runtime_config,
            args: raw.args,
        })
    }

    /// What DEL can make of a configuration that ADD would refuse.
    pub fn lenient(network: &Network) -> Self {
        Self::load(network).unwrap_or_else(|_| Self {
            subnet_file: DEFAULT_SUBNET_FILE.into(),
            data_dir: data_dir(network),
            delegate: Map::new(),
            ipam: Map::new(),
            runtime: None,
            args: None,
        })
    }
}

/// All that DEL needs: it must work for a configuration that has become wrong.
pub fn data_dir(network: &Network) -> PathBuf {
    let text = network.config.get("dataDir").and_then(Value::as_str).unwrap_or_default();
    or_default(text.to_owned(), DEFAULT_DATA_DIR)
}

fn or_default(text: String, default: &str) -> PathBuf {
    if text.is_empty() { default.into() } else { text.into() }
}

fn check_delegate(delegate: &Map<String, Value>) -> Result<()> {
    for key in ["name", "ipam"] {
        if delegate.contains_key(key) {
            return Err(Error::config(format!(
                "'delegate' dictionary must not have '{key}' field, it'll be set by flannel"
            )));
        }
    }
    match delegate.get("type") {
        Some(Value::String(kind)) if kind == "flannel" => {
            Err(Error::config("key \"delegate.type\": flannel cannot delegate to itself"))
        }
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err(Error::config("'delegate' dictionary, if present, must have (string) 'type' field")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::types::Version;
    use serde_json::json;

    #[test]
    fn what_flannel_sets_itself_is_refused_by_name() {
        for (config, code, wanted) in [
            (json!({"delegate": {"name": "x"}}), Code::InvalidConfig, "'name'"),
            (json!({"delegate": {"ipam": {}}}), Code::InvalidConfig, "'ipam'"),
            (json!({"delegate": {"type": 1}}), Code::InvalidConfig, "'type'"),
            (json!({"delegate": {"type": "flannel"}}), Code::InvalidConfig, "itself"),
            (json!({"delegate": "bridge"}), Code::Decoding, "\"delegate\""),
            (json!({"ipam": {"routes": {}}}), Code::InvalidConfig, "\"ipam.routes\""),
            (json!({"subnetFile": 1}), Code::Decoding, "\"subnetFile\""),
        ] {
            let network = Network {
                name: "n".into(),
                version: Version::LATEST,
                config: config.clone(),
                stdin: Vec::new(),
                path: Vec::new(),
            };
            let error = Config::load(&network).expect_err(wanted);
            assert_eq!(error.code, code, "{config}: {error}");
            assert!(error.to_string().contains(wanted), "{config}: {error}");
            assert_eq!(Config::lenient(&network).data_dir, PathBuf::from(DEFAULT_DATA_DIR));
        }
    }
}
