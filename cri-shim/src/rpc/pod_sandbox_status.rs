//! PodSandboxStatus. A kubelet makes the pod anew when the namespaces differ from what it asked for, or the address is
//! missing.

use std::collections::HashMap;
use std::sync::Arc;

use corten_cri_api::v1;
use serde_json::json;

use crate::daemon::{Daemon, now_ns};
use crate::error::Error;
use crate::oci_spec::namespaces::of_pod;
use crate::sandbox::record::SandboxRecord;
use crate::store::Sandbox;

pub async fn pod_sandbox_status(
    daemon: Arc<Daemon>,
    request: v1::PodSandboxStatusRequest,
) -> Result<v1::PodSandboxStatusResponse, Error> {
    let sandbox = daemon.store.sandbox(&request.pod_sandbox_id)?;
    let record = sandbox.record();
    let containers = daemon.store.containers_of(&sandbox.id);
    Ok(v1::PodSandboxStatusResponse {
        info: if request.verbose { info(&sandbox, &record) } else { HashMap::new() },
        status: Some(status_of(record)),
        containers_statuses: containers
            .iter()
            .map(|c| super::container_status::status_of(&daemon, c))
            .collect(),
        timestamp: now_ns(),
    })
}

pub fn state_of(record: &SandboxRecord) -> v1::PodSandboxState {
    if record.phase.is_ready() {
        v1::PodSandboxState::SandboxReady
    } else {
        v1::PodSandboxState::SandboxNotready
    }
}

fn status_of(record: SandboxRecord) -> v1::PodSandboxStatus {
    let state = state_of(&record).into();
    let options = of_pod(&record.config);
    let mut ips = record.ips.into_iter();
    v1::PodSandboxStatus {
        id: record.id,
        state,
        created_at: record.created_at_ns,
        network: Some(v1::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| v1::PodIp { ip }).collect(),
        }),
        linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options: Some(options) }) }),
        metadata: record.config.metadata,
        labels: record.config.labels,
        annotations: record.config.annotations,
        runtime_handler: record.runtime_handler,
    }
}

fn info(sandbox: &Sandbox, record: &SandboxRecord) -> HashMap<String, String> {
    let bundle = sandbox.bundle(&sandbox.id);
    let spec = std::fs::read(bundle.join("config.json")).ok();
    let spec: Option<serde_json::Value> = spec.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let info = json!({
        "pid": record.pause_pid,
        "monitorPid": sandbox.monitor().map(|m| m.pid()),
        "phase": record.phase,
        "reason": record.reason,
        "netns": record.netns,
        "config": record.config,
        "runtimeSpec": spec,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
