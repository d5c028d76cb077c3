//! Device nodes and the device cgroup.

use std::path::PathBuf;

use corten_cri_api::v1;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::SpecError;

/// A device node of the host, and where the container gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    pub path: PathBuf,
    pub kind: NodeKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Some of `rwm`.
    pub access: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Block,
    Char,
}

/// Refuses permissions the cgroup has no letters for.
pub fn check(device: &v1::Device) -> Result<(), SpecError> {
    let text = &device.permissions;
    if !text.bytes().all(|b| b"rwm".contains(&b)) {
        let wanted = "some of the letters r, w and m";
        return Err(SpecError::Value { field: "devices[].permissions", value: text.clone(), wanted });
    }
    for (field, path) in
        [("devices[].host_path", &device.host_path), ("devices[].container_path", &device.container_path)]
    {
        if !path.starts_with('/') {
            return Err(SpecError::Value { field, value: path.clone(), wanted: "an absolute path" });
        }
    }
    Ok(())
}

pub(super) fn nodes(devices: &[HostDevice]) -> Vec<LinuxDevice> {
    let node = |d: &HostDevice| {
        LinuxDeviceBuilder::default()
            .path(&d.path)
            .typ(kind(d.kind))
            .major(i64::from(d.major))
            .minor(i64::from(d.minor))
            .file_mode(d.mode)
            .uid(d.uid)
            .gid(d.gid)
            .build()
            .expect("every field has a default")
    };
    devices.iter().map(node).collect()
}

/// Nothing, then what was asked for; the runtime adds the devices every container has. Privileged: everything.
pub(super) fn rules(devices: &[HostDevice], privileged: bool) -> Vec<LinuxDeviceCgroup> {
    let all = LinuxDeviceCgroupBuilder::default().allow(privileged).access("rwm");
    let mut rules = vec![all.build().expect("every field has a default")];
    if privileged {
        return rules;
    }
    rules.extend(devices.iter().map(|d| {
        LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(kind(d.kind))
            .major(i64::from(d.major))
            .minor(i64::from(d.minor))
            .access(d.access.clone())
            .build()
            .expect("every field has a default")
    }));
    rules
}

fn kind(kind: NodeKind) -> LinuxDeviceType {
    match kind {
        NodeKind::Block => LinuxDeviceType::B,
        NodeKind::Char => LinuxDeviceType::C,
    }
}
