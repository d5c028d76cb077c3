//! `cargo xtask ebpf install-toolchain`: what building the kernel programs needs beyond stable cargo.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::project::{root, target_dir};
use crate::{run, say};

/// Installs what building the kernel programs needs: rust-src, LLVM 22 (Debian packages) and bpf-linker.
#[derive(clap::Args)]
pub struct Args {}

/// bpf-linker reads rustc's bitcode, so its LLVM must not be older than rustc's: 1.95 has LLVM 22.
pub const LLVM: &str = "22";
pub const LINKER: &str = "0.13.0";

pub fn task(_: &Args) -> Result<ExitCode> {
    rust_src()?;
    llvm()?;
    linker()?;
    Ok(ExitCode::SUCCESS)
}

/// Where Debian puts this LLVM.
pub fn llvm_prefix() -> String {
    format!("/usr/lib/llvm-{LLVM}")
}

/// `bpf-linker 0.13.0` → is it the one that this tree builds with?
pub fn is_linker(version: &str) -> bool {
    version.split_whitespace().any(|word| word == LINKER)
}

fn rust_src() -> Result<()> {
    let start = Instant::now();
    run::output(Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(root()))
        .context("build-std compiles core from its source, and rustup cannot add it")?;
    say::ok("rust-src", "present", start.elapsed());
    Ok(())
}

fn llvm() -> Result<()> {
    let start = Instant::now();
    let packages = [format!("llvm-{LLVM}-dev"), format!("libpolly-{LLVM}-dev")];
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}\n"]).args(&packages);
    let present = run::output(&mut query)
        .is_ok_and(|listing| listing.lines().filter(|line| *line == "installed").count() == packages.len());
    if !present {
        say::note("llvm", &format!("installing {}", packages.join(" ")));
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        install.args(["-q", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"]);
        run::output(install.args(&packages))
            .context("on other systems than Debian: install LLVM's libraries and headers by hand")?;
    }
    say::ok("llvm", &llvm_prefix(), start.elapsed());
    Ok(())
}

fn linker() -> Result<()> {
    let start = Instant::now();
    if run::output(Command::new("bpf-linker").arg("--version")).is_ok_and(|version| is_linker(&version)) {
        say::ok("bpf-linker", &format!("{LINKER}, present"), start.elapsed());
        return Ok(());
    }
    say::note("bpf-linker", &format!("building {LINKER} with LLVM {LLVM}"));
    let prefix = llvm_prefix();
    let mut install = crate::project::cargo();
    install
        .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--no-default-features"])
        .args(["--features", &format!("llvm-{LLVM}")])
        .env("CARGO_TARGET_DIR", target_dir().join("bpf-linker"))
        .env("LLVM_PREFIX", &prefix)
        .env("LLVM_SYS_221_PREFIX", &prefix)
        .env("RUSTFLAGS", format!("-L native={prefix}/lib"));
    run::output(&mut install)?;
    say::ok("bpf-linker", LINKER, start.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_linker_counts() {
        assert!(is_linker("bpf-linker 0.13.0\n"));
        for other in ["bpf-linker 0.13.01", "bpf-linker 0.12.0", ""] {
            assert!(!is_linker(other), "{other}");
        }
    }
}
