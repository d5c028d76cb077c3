//! A pod: a network namespace that the node's CNI plugins have plumbed, and the processes in it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Place;
use super::address::Family;
use super::chain::Chain;
use super::probe;
use super::running::Running;

pub struct Pod {
    pub name: String,
    servers: Vec<Running>,
    pub place: Place,
    chain: Chain,
    addresses: Vec<IpAddr>,
    /// DEL has succeeded.
    gone: bool,
}

impl Pod {
    /// `conflist` is the network, `runtime` the capabilities' values (`{"portMappings": [...]}`).
    pub fn add(node: &Place, name: &str, conflist: &Value, runtime: &Value) -> Result<Self> {
        let (place, pin) = node.pod(name)?;
        place.ip(&["link set lo up"])?;
        let chain =
            Chain::add(node, conflist, runtime, name, &pin).with_context(|| format!("ADD of {name}"))?;
        let addresses = chain.addresses()?;
        Ok(Self { name: name.into(), servers: Vec::new(), place, chain, addresses, gone: false })
    }

    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|address| Family::of(**address) == family);
        found.copied().with_context(|| format!("{} has no {family} address", self.name))
    }

    /// Starts the lane's server on all addresses of the pod, by the pod's name.
    pub fn serve(&mut self, port: u16, cpu: Option<usize>) -> Result<()> {
        let listen: Vec<SocketAddr> = self.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        self.servers.push(probe::serve(&self.place, &self.name, &listen, cpu)?);
        Ok(())
    }

    /// DEL, as a runtime does when the pod ends.
    pub fn delete(mut self) -> Result<()> {
        self.servers.clear();
        self.gone = true;
        self.chain.del().with_context(|| format!("DEL of {}", self.name))?;
        self.place.unpin()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.servers.clear();
        if !self.gone {
            // The node goes as well; its kernel state needs no DEL.
            let _ = self.place.unpin();
        }
    }
}
