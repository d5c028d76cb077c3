//! Device nodes: the default ones and the configured ones.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxDeviceType};

use super::Result;
use crate::error::ConfigError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// In the container.
    pub path: PathBuf,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Character,
    Block,
    Fifo,
}

/// Name, major, minor. Source: runtime-spec config-linux.md "Default Devices"; kernel admin-guide/devices.txt.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The default devices, where no configured one has the same path, then the configured ones.
pub(super) fn plan(linux: &Linux) -> Result<Vec<Device>> {
    let mut configured = Vec::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let field = |name: &str| format!("linux.devices[{index}].{name}");
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Character,
            LinuxDeviceType::B => DeviceKind::Block,
            LinuxDeviceType::P => DeviceKind::Fifo,
            LinuxDeviceType::A => {
                return Err(ConfigError::invalid(field("type"), "a is for device rules only"));
            }
        };
        if !device.path().is_absolute() {
            return Err(ConfigError::invalid(
                field("path"),
                format!("{} is not absolute", device.path().display()),
            ));
        }
        let number = |name: &str, value: i64| {
            u32::try_from(value)
                .map_err(|_| ConfigError::invalid(field(name), format!("{value} is no device number")))
        };
        let fifo = kind == DeviceKind::Fifo;
        configured.push(Device {
            path: device.path().clone(),
            kind,
            major: if fifo { 0 } else { number("major", device.major())? },
            minor: if fifo { 0 } else { number("minor", device.minor())? },
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    let mut devices: Vec<Device> = DEFAULT
        .iter()
        .filter(|(path, ..)| !configured.iter().any(|device| device.path.as_os_str() == *path))
        .map(|(path, major, minor)| Device {
            path: path.into(),
            kind: DeviceKind::Character,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    devices.append(&mut configured);
    Ok(devices)
}
