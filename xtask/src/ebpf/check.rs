//! `cargo xtask ebpf check`: is the committed object the one of these sources?

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::build::build;
use super::manifest::Manifest;
use super::{manifest_path, object_path, source};
use crate::project::root;
use crate::say;

/// Compares the committed object with its manifest and the sources; needs stable cargo only.
#[derive(clap::Args)]
pub struct Args {
    /// Build anew and compare the bytes too; needs the toolchain (`cargo xtask ebpf install-toolchain`)
    #[arg(long)]
    rebuild: bool,
}

pub fn task(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let manifest = matches_sources()?;
    say::ok("ebpf", &format!("object and sources match, {}", manifest.rustc), start.elapsed());
    if args.rebuild {
        let start = Instant::now();
        let (object, built) = build()?;
        if built.object != manifest.object {
            bail!(
                "the object built here ({} bytes, {}) is not the committed one ({}).\n  committed with: {}, {}, LLVM {}\n  \
                 built with:     {}, {}, LLVM {}",
                object.len(),
                built.object,
                manifest.object,
                manifest.rustc,
                manifest.bpf_linker,
                manifest.llvm,
                built.rustc,
                built.bpf_linker,
                built.llvm
            );
        }
        say::ok("ebpf", "built anew: the same bytes", start.elapsed());
    }
    Ok(ExitCode::SUCCESS)
}

/// The manifest, if object and sources are those that it describes.
pub fn matches_sources() -> Result<Manifest> {
    let text = fs::read_to_string(manifest_path()).context("cannot read ebpf/fastpath.toml")?;
    let manifest = Manifest::parse(&text)?;
    let object = fs::read(object_path()).context("cannot read ebpf/fastpath.bpf.o")?;
    match manifest.stale(&source::digest(&root())?, &source::digest_of(&object)) {
        Some(why) => bail!("{why}: run `cargo xtask ebpf build` and commit what it writes"),
        None => Ok(manifest),
    }
}
