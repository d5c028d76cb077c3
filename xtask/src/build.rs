//! `cargo xtask build`: the shipped programs, release profile, static.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::project::{PROGRAMS, cargo, release_dir, root, target};
use crate::{run, say};

/// Builds the programs of a node for release and checks that they are static.
///
/// They end up in target/<arch>-unknown-linux-musl/release and need nothing but the kernel. The target is added with
/// rustup when it is missing.
#[derive(clap::Args)]
pub struct Args {}

pub fn task(_: &Args) -> Result<ExitCode> {
    release()?;
    Ok(ExitCode::SUCCESS)
}

/// Builds all programs and prints one line.
pub fn release() -> Result<()> {
    let start = Instant::now();
    ensure_target()?;
    let mut build = cargo();
    build.args(["build", "--release", "--target", target()]);
    for program in &PROGRAMS {
        build.args(["--package", program.package, "--bin", program.name]);
    }
    run::check(&mut build).context("cannot build the programs")?;
    let mut bytes = 0;
    for program in &PROGRAMS {
        let file = release_dir().join(program.name);
        let image = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(
            is_static(&image).with_context(|| format!("{} is no 64-bit ELF file", file.display()))?,
            "{} asks for a dynamic linker: it would not run on a node without a C library",
            file.display()
        );
        bytes += image.len() as u64;
    }
    let detail = format!("{} programs, static, {}", PROGRAMS.len(), say::megabytes(bytes));
    say::ok("build", &detail, start.elapsed());
    Ok(())
}

/// Adds the musl target to the pinned toolchain, or says which command would.
pub fn ensure_target() -> Result<()> {
    let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target()).join("lib").is_dir() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", target()]).current_dir(root());
    say::note("toolchain", &format!("target {} is missing: {}", target(), run::shown(&add)));
    let remedy =
        format!("install the Rust standard library for {0} (with rustup: `rustup target add {0}`)", target());
    run::check(&mut add).context(remedy)
}

/// True when an ELF64 image has no PT_INTERP segment; `None` when it is no little-endian ELF64 file.
/// Source: ELF-64 object file format, "Program header table".
fn is_static(image: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| Some(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().ok()?));
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, entry, count) = (u64_at(32)? as usize, u16_at(54)? as usize, u16_at(56)? as usize);
    for index in 0..count {
        if u32_at(table.checked_add(index * entry)?)? == PT_INTERP {
            return Some(false);
        }
    }
    Some(true)
}

/// Fails with the command to run when the programs have not been built.
pub fn ensure_built() -> Result<()> {
    let missing: Vec<_> =
        PROGRAMS.iter().filter(|p| !release_dir().join(p.name).is_file()).map(|p| p.name).collect();
    if !missing.is_empty() {
        bail!("not built: {} (in {}); run `cargo xtask build`", missing.join(", "), release_dir().display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(segments: &[u32]) -> Vec<u8> {
        let mut image = vec![0u8; 64 + 56 * segments.len()];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[32..40].copy_from_slice(&64u64.to_le_bytes());
        image[54..56].copy_from_slice(&56u16.to_le_bytes());
        image[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        for (index, kind) in segments.iter().enumerate() {
            image[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
        }
        image
    }

    #[test]
    fn an_interpreter_segment_makes_a_program_dynamic() {
        assert_eq!(is_static(&elf(&[1, 2, 6])), Some(true));
        assert_eq!(is_static(&elf(&[6, 3, 1])), Some(false));
    }

    #[test]
    fn what_is_no_elf_file_is_neither() {
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
        assert_eq!(
            is_static(&elf(&[1, 3])[..100]),
            None,
            "a truncated table is an error, not a static program"
        );
    }
}
