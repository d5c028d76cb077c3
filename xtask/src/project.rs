//! Where things are in this source tree, and which programs it ships.

use std::path::{Path, PathBuf};

/// A shipped program: the package that builds it and the name of its executable.
pub struct Program {
    pub package: &'static str,
    pub name: &'static str,
}

/// The programs of a node, in the order in which they call each other.
pub const PROGRAMS: [Program; 9] = [
    Program { package: "corten", name: "corten" },
    Program { package: "corten-kubelet", name: "corten-kubelet" },
    Program { package: "corten-cri", name: "corten-cri" },
    Program { package: "corten-monitor", name: "corten-monitor" },
    Program { package: "corten-runtime", name: "corten-oci" },
    Program { package: "corten-cni", name: "corten-cni" },
    Program { package: "corten-netd", name: "corten-netd" },
    Program { package: "corten-apiserver", name: "corten-apiserver" },
    Program { package: "corten-demo", name: "corten-demo" },
];

/// The root of the workspace.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies inside the workspace").to_path_buf()
}

/// The target triple of everything that ships: static, without a C library on the node.
pub fn target() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "aarch64-unknown-linux-musl",
        _ => "x86_64-unknown-linux-musl",
    }
}

/// Cargo's target directory, which the user may have moved.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Where the release build puts the shipped programs.
pub fn release_dir() -> PathBuf {
    target_dir().join(target()).join("release")
}

/// Where tasks keep what they made and want to find again: tools, images, logs.
pub fn cache_dir() -> PathBuf {
    target_dir().join("xtask")
}

/// The `cargo` that runs this task, so that a toolchain override holds for what it starts.
pub fn cargo() -> std::process::Command {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}
