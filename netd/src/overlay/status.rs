//! What the overlay tells about itself.

use std::time::SystemTime;

use serde::Serialize;

use crate::source::Announcement;

/// Where this node stands in the underlay. Changes when the uplink does; then the node must be announced anew and
/// subnet.env be written with the new MTU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    pub uplink: String,
    /// The uplink's index.
    pub link: u32,
    /// The MTU that pods should have.
    pub pod_mtu: u32,
    pub announcement: Announcement,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Status {
    /// A pass has made everything as it should be, at least once.
    pub ready: bool,
    pub uplink: Option<String>,
    pub pod_mtu: Option<u32>,
    /// Passes since the start, and how many of them found something to change.
    pub passes: u64,
    pub changes: u64,
    #[serde(serialize_with = "seconds")]
    pub last_pass: Option<SystemTime>,
    /// Of the last pass.
    pub last_pass_ms: u64,
    /// What kept the last pass from making everything right, beside what single peers say.
    pub errors: Vec<String>,
    pub peers: Vec<PeerStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerStatus {
    pub node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<PathStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<PathStatus>,
}

/// One family of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathStatus {
    pub mode: Mode,
    /// `None`: healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Vxlan,
    /// A plain route by the peer's public address.
    Gateway,
    Unreachable,
}

impl Status {
    /// Errors of the pass and of every peer, for people.
    pub fn problems(&self) -> Vec<String> {
        let of_peers = self.peers.iter().flat_map(|peer| {
            [&peer.ipv4, &peer.ipv6]
                .into_iter()
                .flatten()
                .filter_map(|path| Some(format!("{}: {}", peer.node, path.error.as_ref()?)))
        });
        self.errors.iter().cloned().chain(of_peers).collect()
    }
}

#[expect(clippy::ref_option, reason = "serde's form")]
fn seconds<S: serde::Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map(|since| since.as_secs_f64()).serialize(serializer)
}
