//! ListPodSandbox. One that is still being made is not listed.

use std::sync::Arc;

use corten_cri_api::v1;

use super::list_containers::labels_fit;
use super::pod_sandbox_status::state_of;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::sandbox::record::SandboxRecord;
use crate::sandbox::state::Phase;

pub async fn list_pod_sandbox(
    daemon: Arc<Daemon>,
    request: v1::ListPodSandboxRequest,
) -> Result<v1::ListPodSandboxResponse, Error> {
    let filter = request.filter.unwrap_or_default();
    let sandboxes = daemon.store.sandboxes();
    let records = sandboxes.iter().map(|s| s.record());
    let items = records.filter(|r| r.phase != Phase::Creating && fits(r, &filter)).map(item).collect();
    Ok(v1::ListPodSandboxResponse { items })
}

fn fits(record: &SandboxRecord, filter: &v1::PodSandboxFilter) -> bool {
    record.id.starts_with(&filter.id)
        && filter.state.is_none_or(|wanted| wanted.state == i32::from(state_of(record)))
        && labels_fit(&record.config.labels, &filter.label_selector)
}

fn item(record: SandboxRecord) -> v1::PodSandbox {
    v1::PodSandbox {
        state: state_of(&record).into(),
        id: record.id,
        created_at: record.created_at_ns,
        metadata: record.config.metadata,
        labels: record.config.labels,
        annotations: record.config.annotations,
        runtime_handler: record.runtime_handler,
    }
}
