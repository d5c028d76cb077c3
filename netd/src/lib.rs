//! The network daemon of a node: overlay (flannel's vxlan and host-gw), Services, and the eBPF fast path.
//!
//! Every part is a level-triggered reconciler: a [`source`] says what should be, netlink and BPF maps say what is, and
//! the difference is applied; notifications only wake it. Deciding is pure and apart from doing.
#![forbid(unsafe_code)]

pub mod conflist;
pub mod daemon;
pub mod fastpath;
pub mod http;
pub mod kube_access;
pub mod metrics;
pub mod net_conf;
pub mod node;
pub mod notify;
pub mod options;
pub mod overlay;
pub mod services;
pub mod source;
pub mod status;
pub mod subnet_env;
pub mod watched;
