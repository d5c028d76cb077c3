//! RuntimeConfig: which cgroup driver the kubelet has to use.

use std::sync::Arc;

use corten_cri_api::v1::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeConfigRequest, RuntimeConfigResponse,
};

use crate::daemon::Daemon;
use crate::error::Error;

pub async fn runtime_config(_: Arc<Daemon>, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse, Error> {
    let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
    Ok(RuntimeConfigResponse { linux: Some(linux) })
}
