//! The plugins: a table of functions each, one file each.

pub mod bridge;
pub mod firewall;
pub mod flannel;
pub mod host_local;
pub mod loopback;
pub mod portmap;
pub mod tuning;

use serde_json::Value;

use crate::Result;
use crate::skel::{Attachment, Network, Request, ValidAttachment};

/// What a plugin does for each verb; VERSION is the same for all.
pub struct Plugin {
    pub name: &'static str,
    /// One line for help.
    pub about: &'static str,
    /// The result in the configuration's version.
    pub add: fn(&Network, &Attachment) -> Result<Value>,
    /// Idempotent; a namespace that is gone is no error.
    pub del: fn(&Network, &Attachment) -> Result<()>,
    pub check: fn(&Network, &Attachment) -> Result<()>,
    /// Removes what belongs to this network and to none of the attachments.
    pub gc: fn(&Network, &[ValidAttachment]) -> Result<()>,
    /// Would an ADD find what it needs?
    pub status: fn(&Network) -> Result<()>,
}

pub static ALL: &[&Plugin] = &[
    &bridge::PLUGIN,
    &firewall::PLUGIN,
    &flannel::PLUGIN,
    &host_local::PLUGIN,
    &loopback::PLUGIN,
    &portmap::PLUGIN,
    &tuning::PLUGIN,
];

pub fn find(name: &str) -> Option<&'static Plugin> {
    ALL.iter().copied().find(|plugin| plugin.name == name)
}

/// The result to print, of ADD alone.
pub fn act(plugin: &Plugin, request: &Request) -> Result<Option<Value>> {
    match request {
        Request::Add(network, attachment) => (plugin.add)(network, attachment).map(Some),
        Request::Del(network, attachment) => (plugin.del)(network, attachment).map(|()| None),
        Request::Check(network, attachment) => (plugin.check)(network, attachment).map(|()| None),
        Request::Gc(network, valid) => (plugin.gc)(network, valid).map(|()| None),
        Request::Status(network) => (plugin.status)(network).map(|()| None),
    }
}
