//! Delegation to the address plugin a configuration names.

use serde_json::Value;

use crate::Result;
use crate::delegate::{Delegate, Role};
use crate::error::{Code, Error};
use crate::plugin::host_local;
use crate::skel::{Attachment, Network, ValidAttachment};
use crate::types::{self, CniResult};

static ROLE: Role = Role {
    title: "IPAM plugin",
    key: "ipam.type",
    built_in: "host-local",
    exec_variable: "CORTEN_CNI_EXEC_IPAM",
};

/// The address plugin a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipam(Delegate);

impl Ipam {
    /// `None`: the network has no addresses.
    pub fn of(network: &Network) -> Result<Option<Self>> {
        let kind = match network.config.get("ipam").and_then(|ipam| ipam.get("type")) {
            None => return Ok(None),
            Some(Value::String(kind)) => kind,
            Some(_) => return Err(Error::new(Code::Decoding, "key \"ipam.type\" is not a string")),
        };
        if kind.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self(Delegate::new(&ROLE, kind)?)))
    }

    pub fn add(&self, network: &Network, attachment: &Attachment) -> Result<CniResult> {
        if self.0.ours().is_some() {
            return host_local::allocate_all(network, attachment);
        }
        types::parse(&self.0.add(network, attachment)?, network.version)
    }

    pub fn del(&self, network: &Network, attachment: &Attachment) -> Result<()> {
        self.0.del(network, attachment)
    }

    pub fn check(&self, network: &Network, attachment: &Attachment) -> Result<()> {
        self.0.check(network, attachment)
    }

    pub fn gc(&self, network: &Network, valid: &[ValidAttachment]) -> Result<()> {
        self.0.gc(network, valid)
    }

    pub fn status(&self, network: &Network) -> Result<()> {
        self.0.status(network)
    }
}
