//! Fields that are not implemented are refused by name: a configuration is carried out whole or not at all.

use oci_spec::runtime::{Linux, Spec};

use super::Result;
use crate::error::ConfigError;

pub(super) fn unsupported(spec: &Spec, linux: &Linux) -> Result<()> {
    let foreign = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    for (field, present) in foreign {
        refuse(present, field, "it is not a Linux container's")?;
    }
    let devices = linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty());
    refuse(devices, "linux.netDevices", "move the interface before create")?;
    refuse(
        linux.intel_rdt().is_some(),
        "linux.intelRdt",
        "assign the process to a resctrl group after create",
    )?;
    let label = linux.mount_label().as_ref().is_some_and(|label| !label.is_empty());
    refuse(label, "linux.mountLabel", "SELinux is not supported")
}

fn refuse(present: bool, field: &str, remedy: &'static str) -> Result<()> {
    if present { Err(ConfigError::unsupported(field, remedy)) } else { Ok(()) }
}
