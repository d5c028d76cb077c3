//! ContainerStatus.

use std::collections::HashMap;
use std::sync::Arc;

use corten_cri_api::v1;
use serde_json::json;

use super::images::{image_name, image_ref};
use crate::container::record::ContainerRecord;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::store::Container;

pub async fn container_status(
    daemon: Arc<Daemon>,
    request: v1::ContainerStatusRequest,
) -> Result<v1::ContainerStatusResponse, Error> {
    let container = daemon.store.container(&request.container_id)?;
    let info = if request.verbose { info(&container) } else { HashMap::new() };
    Ok(v1::ContainerStatusResponse { status: Some(status_of(&daemon, &container)), info })
}

pub fn status_of(daemon: &Daemon, container: &Container) -> v1::ContainerStatus {
    let record = container.record();
    let user = v1::LinuxContainerUser {
        uid: record.user.uid.into(),
        gid: record.user.gid.into(),
        supplemental_groups: record.user.groups.iter().map(|g| i64::from(*g)).collect(),
    };
    let stop_signal = cri_signal(record.stop_signal);
    let log_path = record.log_path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let ContainerRecord { config, facts, .. } = record;
    let state = facts.reported();
    let exit = facts.exit;
    v1::ContainerStatus {
        id: record.id,
        metadata: config.metadata,
        state: state.into(),
        created_at: record.created_at_ns,
        started_at: facts.started_at_ns.unwrap_or_default(),
        finished_at: exit.as_ref().map(|e| e.finished_at_ns).unwrap_or_default(),
        exit_code: exit.as_ref().map(|e| e.code).unwrap_or_default(),
        image: Some(v1::ImageSpec {
            image: image_name(daemon, &record.image_id, config.image.as_ref()),
            ..config.image.unwrap_or_default()
        }),
        image_ref: image_ref(daemon, &record.image_id),
        image_id: record.image_id,
        reason: exit.as_ref().map(|e| e.reason.clone()).unwrap_or_default(),
        message: exit.map(|e| e.message).unwrap_or_default(),
        labels: config.labels,
        annotations: config.annotations,
        mounts: config.mounts,
        log_path,
        resources: config
            .linux
            .and_then(|l| l.resources)
            .map(|linux| v1::ContainerResources { linux: Some(linux), windows: None }),
        user: Some(v1::ContainerUser { linux: Some(user) }),
        stop_signal: stop_signal.into(),
    }
}

/// The CRI's name for a signal number.
fn cri_signal(number: i32) -> v1::Signal {
    let name = match number {
        34 => "SIGRTMIN".to_owned(),
        35..=49 => format!("SIGRTMINPLUS{}", number - 34),
        50..=63 => format!("SIGRTMAXMINUS{}", 64 - number),
        64 => "SIGRTMAX".to_owned(),
        other => corten_sys::signal::name(other).unwrap_or_default().to_owned(),
    };
    v1::Signal::from_str_name(&name).unwrap_or(v1::Signal::RuntimeDefault)
}

fn info(container: &Container) -> HashMap<String, String> {
    let record = container.record();
    let bundle = container.sandbox.bundle(&container.id);
    let spec = std::fs::read(bundle.join("config.json")).ok();
    let spec: Option<serde_json::Value> = spec.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let info = json!({
        "sandboxID": record.sandbox_id,
        "pid": record.pid.unwrap_or_default(),
        "removing": record.facts.removing,
        "snapshotKey": record.id,
        "config": record.config,
        "runtimeSpec": spec,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_cri_names() {
        for (number, signal) in [
            (15, v1::Signal::Sigterm),
            (9, v1::Signal::Sigkill),
            (37, v1::Signal::Sigrtminplus3),
            (49, v1::Signal::Sigrtminplus15),
            (50, v1::Signal::Sigrtmaxminus14),
            (64, v1::Signal::Sigrtmax),
        ] {
            assert_eq!(cri_signal(number), signal, "{number}");
        }
    }
}
