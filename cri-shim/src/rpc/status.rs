//! Status: whether pods can be run, and what of them. A kubelet asks every five seconds.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use corten_cri_api::v1::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest,
    StatusResponse,
};
use serde_json::json;

use crate::cni::NetworkList;
use crate::config::BUILT_IN_HANDLER;
use crate::daemon::Daemon;
use crate::error::Error;

pub async fn status(daemon: Arc<Daemon>, request: StatusRequest) -> Result<StatusResponse, Error> {
    let network = daemon.cni.ready().await;
    let runtime = if daemon.monitor_program.is_file() {
        Ok(())
    } else {
        Err(format!("the monitor program {} is gone", daemon.monitor_program.display()))
    };
    let conditions = vec![
        condition("RuntimeReady", runtime.err().map(|why| ("MonitorMissing", why))),
        condition("NetworkReady", network.as_ref().err().map(|e| ("NetworkPluginNotReady", e.to_string()))),
    ];
    let info = if request.verbose { info(&daemon, network.ok().as_ref()) } else { HashMap::new() };
    Ok(StatusResponse {
        status: Some(RuntimeStatus { conditions }),
        info,
        runtime_handlers: handlers(&daemon),
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    })
}

fn condition(kind: &str, wrong: Option<(&str, String)>) -> RuntimeCondition {
    let status = wrong.is_none();
    let (reason, message) = wrong.unwrap_or_default();
    RuntimeCondition { r#type: kind.into(), status, reason: reason.into(), message }
}

fn handlers(daemon: &Daemon) -> Vec<RuntimeHandler> {
    // mount_setattr with AT_RECURSIVE is in every kernel this runs on (5.12); of other runtimes nothing is known.
    let built_in = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
    let own =
        ["", BUILT_IN_HANDLER].map(|name| RuntimeHandler { name: name.into(), features: Some(built_in) });
    let others = daemon
        .config
        .runtimes
        .keys()
        .map(|name| RuntimeHandler { name: name.clone(), features: Some(RuntimeHandlerFeatures::default()) });
    own.into_iter().chain(others).collect()
}

fn info(daemon: &Daemon, network: Option<&NetworkList>) -> HashMap<String, String> {
    let config = json!({
        "root": daemon.config.root,
        "stateDir": daemon.config.state,
        "cniBinDirs": daemon.config.cni.bin_dirs,
        "cniConfDir": daemon.config.cni.conf_dir,
        "cgroupParent": daemon.config.cgroup_parent,
        "certsDirs": daemon.config.registry.certs_dirs,
        "podCidr": *daemon.pod_cidr.lock().unwrap_or_else(PoisonError::into_inner),
    });
    let mut info = HashMap::from([("config".to_owned(), config.to_string())]);
    if let Some(network) = network {
        info.insert("cniconfig".into(), json!(network).to_string());
    }
    info
}
