//! The device program of a v2 cgroup.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use corten_sys::bpf;

use super::{Policy, program};
use crate::cgroup::error::CgroupError;

/// Load the program for `target` and attach it; the one that was attached before goes only after that.
pub fn apply(dir: &Path, target: &Policy) -> Result<(), CgroupError> {
    let failed =
        |action: &'static str| move |errno| CgroupError::DeviceProgram { action, path: dir.into(), errno };
    let cgroup = File::open(dir).map_err(|error| CgroupError::io("open", dir, &error))?;
    let before = bpf::attached_device_programs(cgroup.as_fd()).map_err(failed("look for"))?;
    let loaded = bpf::load_device_program(&program::generate(target)).map_err(failed("load"))?;
    bpf::attach_device_program(cgroup.as_fd(), loaded.as_fd()).map_err(failed("attach"))?;
    for old in &before {
        bpf::detach_device_program(cgroup.as_fd(), old.as_fd()).map_err(failed("detach the former"))?;
    }
    Ok(())
}
