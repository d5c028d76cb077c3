//! The floor: static C programs of xtask/floor/ that do the kernel work of a runtime and nothing else.

use std::path::PathBuf;

use anyhow::Result;

use super::scene::Scene;

pub struct Programs {
    /// create, start, delete.
    pub container: PathBuf,
    pub exec: PathBuf,
}

/// Why there is none here, or its programs.
pub fn build(scene: &Scene) -> Result<Result<Programs, &'static str>> {
    if scene.hierarchies.is_empty() {
        return Ok(Err("its programs know cgroup v1 alone"));
    }
    if !scene.compile("container", "container.c")? || !scene.compile("exec", "exec.c")? {
        return Ok(Err("there is no C compiler"));
    }
    Ok(Ok(Programs { container: scene.dir.join("container"), exec: scene.dir.join("exec") }))
}
