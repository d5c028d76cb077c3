//! What a kubelet is told at start.

use std::path::PathBuf;

use crate::dns::ClusterDns;

/// Every path is given: two kubelets on one machine never meet.
#[derive(Debug, Clone)]
pub struct Config {
    pub manifests: PathBuf,
    pub runtime_socket: PathBuf,
    pub image_socket: PathBuf,
    /// `ROOT/pods/UID/...`: volumes and files of pods.
    pub root_dir: PathBuf,
    /// `LOGS/NAMESPACE_NAME_UID/CONTAINER/N.log`
    pub log_dir: PathBuf,
    /// Lock and socket of this kubelet.
    pub state_dir: PathBuf,
    pub node_name: String,
    pub cgroup_root: String,
    pub cluster_dns: ClusterDns,
    pub cluster_domain: String,
    /// Read for pods whose DNS is the node's.
    pub resolv_conf: PathBuf,
    /// Read for pods on the host network.
    pub hosts_file: PathBuf,
}
