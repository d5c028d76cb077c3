//! `cargo xtask ebpf`: the kernel programs of the fast path, which are built apart and committed as one object.
//!
//! Users need stable cargo only; who changes `ebpf/programs` or `ebpf/layout` needs rust-src, LLVM 22 and bpf-linker.

mod build;
mod check;
mod install;
mod manifest;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::project::{root, target_dir};

pub use check::matches_sources;

/// Builds and checks the kernel programs of the fast path.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    InstallToolchain(install::Args),
    Build(build::Args),
    Check(check::Args),
}

pub fn task(args: &Args) -> Result<ExitCode> {
    match &args.task {
        Task::InstallToolchain(args) => install::task(args),
        Task::Build(args) => build::task(args),
        Task::Check(args) => check::task(args),
    }
}

/// The workspace of the programs.
fn programs_dir() -> PathBuf {
    root().join("ebpf/programs")
}

/// The committed object.
fn object_path() -> PathBuf {
    root().join("ebpf/fastpath.bpf.o")
}

/// What the committed object was built from and with.
fn manifest_path() -> PathBuf {
    root().join("ebpf/fastpath.toml")
}

/// Where cargo builds the programs.
fn build_dir() -> PathBuf {
    target_dir().join("ebpf")
}
