//! The caller's side of CNI: finds the network's configuration, runs its plugins, remembers what it asked for.
//!
//! | file | what |
//! |---|---|
//! | `config.rs` | conf and conflist files → [`NetworkList`] (pure but for reading the files) |
//! | `request.rs` | what one plugin is told: environment and stdin (pure) |
//! | `exec.rs` | one plugin run, bounded in time and output |
//! | `result.rs` | what a plugin answered (hostile) |
//! | `attachment.rs` | the record of one attachment: what DEL uses whatever became of the configuration |
//! | `chain.rs` | ADD in order, DEL in reverse, STATUS |
//!
//! It makes no namespace and knows no CRI type but port mappings and pod names.

mod attachment;
mod chain;
mod config;
mod exec;
mod request;
mod result;

pub use attachment::{Attachment, PodNetwork};
pub use chain::{Cni, add, delete};
pub use config::{ConfigError, NetworkList, load};
pub use exec::PluginError;
pub use result::addresses;

/// The interface every pod has, as the kubelet's world expects it.
pub const INTERFACE: &str = "eth0";

#[derive(Debug, thiserror::Error)]
pub enum CniError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Plugin(#[from] PluginError),
    #[error(
        "CNI {network}: the result of ADD has no address for {INTERFACE}; is the last plugin an interface plugin with IPAM?"
    )]
    NoAddress { network: String },
    #[error(transparent)]
    Record(#[from] crate::files::FileError),
    #[error("CNI DEL of {network} failed for {} plugin(s): {}", .errors.len(), join(.errors))]
    Delete { network: String, errors: Vec<PluginError> },
}

fn join(errors: &[PluginError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
