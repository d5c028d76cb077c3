//! What a runtime does with a conflist, as libcni does it: the plugins one after the other, each with the result of the
//! one before; in reverse for DEL, with the result of the ADD.
//! Source: CNI SPEC.md, "Section 3: Execution of Network Configurations".

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Place;
use super::address::{Family, pod_cidr_text};

/// Where a node has its plugins.
pub const BIN_DIR: &str = "/run/cni/bin";

/// An attachment that was made.
pub struct Chain {
    node: Place,
    conflist: Value,
    runtime: Value,
    container: String,
    netns: String,
    result: Value,
}

impl Chain {
    pub fn add(
        node: &Place,
        conflist: &Value,
        runtime: &Value,
        container: &str,
        netns: &str,
    ) -> Result<Self> {
        let mut chain = Self {
            node: node.clone(),
            conflist: conflist.clone(),
            runtime: runtime.clone(),
            container: container.into(),
            netns: netns.into(),
            result: Value::Null,
        };
        for plugin in chain.plugins()? {
            match chain.call("ADD", &plugin) {
                Ok(text) => {
                    chain.result = serde_json::from_str(&text)
                        .with_context(|| format!("{} printed no result: {text}", plugin["type"]))?;
                }
                Err(error) => {
                    // As runtimes do; what went wrong first is what counts.
                    let _ = chain.del();
                    return Err(error);
                }
            }
        }
        Ok(chain)
    }

    pub fn del(&self) -> Result<()> {
        for plugin in self.plugins()?.iter().rev() {
            self.call("DEL", plugin)?;
        }
        Ok(())
    }

    /// The addresses of the pod.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let ips = self.result["ips"].as_array().context("the result has no addresses")?;
        let address = |ip: &Value| {
            let text = ip["address"].as_str()?.split('/').next()?;
            text.parse().ok()
        };
        ips.iter().map(|ip| address(ip).with_context(|| format!("{ip} is no address"))).collect()
    }

    fn plugins(&self) -> Result<Vec<Value>> {
        self.conflist["plugins"].as_array().cloned().context("the conflist has no plugins")
    }

    fn call(&self, verb: &str, plugin: &Value) -> Result<String> {
        let kind = plugin["type"].as_str().context("a plugin has no type")?;
        let mut config = plugin.clone();
        for key in ["name", "cniVersion"] {
            config[key] = self.conflist[key].clone();
        }
        if !self.result.is_null() {
            config["prevResult"] = self.result.clone();
        }
        let capabilities = plugin["capabilities"].as_object().cloned().unwrap_or_default();
        let wanted = capabilities.iter().filter(|(_, enabled)| enabled.as_bool() == Some(true));
        let granted: serde_json::Map<String, Value> =
            wanted.filter_map(|(name, _)| Some((name.clone(), self.runtime.get(name)?.clone()))).collect();
        if !granted.is_empty() {
            config["runtimeConfig"] = granted.into();
        }
        let vars = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &self.container),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", BIN_DIR),
        ];
        let program = format!("{BIN_DIR}/{kind}");
        let (text, ok) = self.node.try_feed(&program, &[], &vars, &config.to_string())?;
        if !ok {
            bail!("{verb} of {kind}: {text}");
        }
        Ok(text)
    }
}

/// What flannel's plugin delegates to, written out: for nodes without it.
pub fn bridge(index: usize, mtu: u32) -> Value {
    let ranges = Family::BOTH.map(|family| json!([{ "subnet": pod_cidr_text(index, family) }]));
    json!({
        "cniVersion": "1.0.0",
        "name": "cbr0",
        "plugins": [
            { "type": "bridge", "bridge": "cni0", "mtu": mtu, "isDefaultGateway": true, "hairpinMode": true,
              "ipMasq": false, "ipam": { "type": "host-local", "ranges": ranges } },
            { "type": "portmap", "capabilities": { "portMappings": true } }
        ]
    })
}

/// flannel's usual network, as its manifest has it.
pub fn flannel() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "cbr0",
        "plugins": [
            { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
            { "type": "portmap", "capabilities": { "portMappings": true } }
        ]
    })
}

/// The longer chain of podman and nerdctl.
pub fn flannel_with_firewall_and_tuning() -> Value {
    let mut conflist = flannel();
    let plugins = conflist["plugins"].as_array_mut().expect("written above");
    plugins.push(json!({ "type": "firewall" }));
    plugins.push(json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" } }));
    conflist
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chains_of_a_node_are_conflists() {
        for (conflist, plugins) in
            [(bridge(1, 1450), 2), (flannel(), 2), (flannel_with_firewall_and_tuning(), 4)]
        {
            assert_eq!(conflist["plugins"].as_array().map(Vec::len), Some(plugins));
            assert!(conflist["name"].is_string() && conflist["cniVersion"].is_string());
        }
    }
}
