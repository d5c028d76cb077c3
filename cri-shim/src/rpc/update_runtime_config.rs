//! UpdateRuntimeConfig: the node's pod CIDR, as the kubelet learned it. Without a CNI template there is nothing to
//! render with it (containerd does the same); it is shown by a verbose Status.

use std::sync::{Arc, PoisonError};

use corten_cri_api::v1::{UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse};

use crate::daemon::Daemon;
use crate::error::Error;

pub async fn update_runtime_config(
    daemon: Arc<Daemon>,
    request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse, Error> {
    let cidr = request.runtime_config.and_then(|c| c.network_config).map(|n| n.pod_cidr).unwrap_or_default();
    for part in cidr.split(',').filter(|part| !part.is_empty()) {
        if !is_cidr(part) {
            return Err(Error::argument(
                "runtime_config.network_config.pod_cidr",
                format!("{part:?} is no CIDR"),
            ));
        }
    }
    *daemon.pod_cidr.lock().unwrap_or_else(PoisonError::into_inner) = cidr;
    Ok(UpdateRuntimeConfigResponse {})
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let limit = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= limit)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cidrs() {
        for (text, fine) in [
            ("10.0.0.0/24", true),
            ("fd00::/64", true),
            ("10.0.0.0", false),
            ("10.0.0.0/33", false),
            ("x/1", false),
        ] {
            assert_eq!(super::is_cidr(text), fine, "{text}");
        }
    }
}
