//! What `cargo xtask test` has built for the lanes, and the tools of the machine. What is missing is said with the
//! remedy, and the lane skips.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a lane cannot run here.
#[derive(Debug)]
pub struct Missing(pub String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Directory of the programs under test: `CORTEN_TEST_PROGRAMS`, else the release build, else the dev build.
pub fn programs() -> Result<PathBuf, Missing> {
    if let Some(dir) = std::env::var_os("CORTEN_TEST_PROGRAMS") {
        return Ok(dir.into());
    }
    let target = target_dir().join(format!("{}-unknown-linux-musl", std::env::consts::ARCH));
    let built = ["release", "debug"].into_iter().map(|profile| target.join(profile));
    let mut built = built.filter(|dir| dir.join("corten-cri").is_file() && dir.join("corten").is_file());
    built.next().ok_or_else(|| Missing("the programs are not built: cargo xtask build".into()))
}

/// One program under test.
pub fn program(name: &str) -> Result<PathBuf, Missing> {
    let file = programs()?.join(name);
    if file.is_file() { Ok(file) } else { Err(Missing(format!("{name} is not built: cargo xtask build"))) }
}

/// `net-probe`, built together with the caller: beside it, or above where cargo puts test executables.
pub fn net_probe() -> Result<PathBuf, Missing> {
    let own = std::env::current_exe().map_err(|e| Missing(format!("cannot find the own program: {e}")))?;
    let dirs = own.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join("net-probe")).find(|file| file.is_file());
    found.ok_or_else(|| Missing("net-probe is not built: cargo build --package corten-test-vm".into()))
}

/// Storage of a registry that holds the test images.
pub fn registry_storage() -> Result<PathBuf, Missing> {
    made("registry/storage", "the test images are not built: cargo xtask test builds them")
}

/// OCI layouts of the test images, one directory each.
pub fn image_layouts() -> Result<PathBuf, Missing> {
    made("images", "the test images are not built: cargo xtask test builds them")
}

/// Stock crictl.
pub fn crictl() -> Result<PathBuf, Missing> {
    made("bin/crictl", "crictl is not built: cargo xtask test builds it where there is Go")
}

/// A stock program of Kubernetes: `CORTEN_TEST_STOCK`, else what the lanes have built.
pub fn stock(name: &str) -> Result<PathBuf, Missing> {
    if let Some(dir) = std::env::var_os("CORTEN_TEST_STOCK") {
        let file = Path::new(&dir).join(name);
        return if file.is_file() { Ok(file) } else { Err(Missing(format!("no {}", file.display()))) };
    }
    let remedy =
        format!("{name} is not built: the lanes of cargo xtask conformance build it where there is Go");
    made(&format!("bin/{name}"), &remedy)
}

/// A program of the machine.
pub fn tool(name: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| Missing(format!("{name} is not installed: cargo xtask packages installs it")))
}

/// Namespaces, mounts and cgroups need root.
pub fn root() -> Result<(), Missing> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Missing("needs root".into())) }
}

fn made(name: &str, remedy: &str) -> Result<PathBuf, Missing> {
    let file = target_dir().join("xtask").join(name);
    if file.exists() { Ok(file) } else { Err(Missing(remedy.into())) }
}

fn target_dir() -> PathBuf {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies inside the workspace");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |dir| workspace.join(dir))
}
