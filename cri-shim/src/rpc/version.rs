//! Version: a kubelet exits unless `version` is exactly "0.1.0".

use std::sync::Arc;

use corten_cri_api::v1::{VersionRequest, VersionResponse};

use crate::daemon::Daemon;
use crate::error::Error;

pub async fn version(_daemon: Arc<Daemon>, _request: VersionRequest) -> Result<VersionResponse, Error> {
    Ok(VersionResponse {
        version: "0.1.0".into(),
        runtime_name: "corten".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: "v1".into(),
    })
}
