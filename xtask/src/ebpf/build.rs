//! `cargo xtask ebpf build`: `ebpf/programs` → `ebpf/fastpath.bpf.o`, the same bytes on every machine.
//!
//! No path of this machine may get into the object: rustc maps them away, and of the debug information only BTF, which
//! has no paths but those, is kept. The order of items does not depend on where the tree lies either, since one
//! codegen unit is sorted by definition.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::install::{LINKER, LLVM, is_linker, llvm_prefix};
use super::manifest::Manifest;
use super::{build_dir, manifest_path, object_path, programs_dir, source};
use crate::project::{cargo, root};
use crate::{run, say};

/// Builds the kernel programs and writes ebpf/fastpath.bpf.o and its manifest.
#[derive(clap::Args)]
pub struct Args {}

const TARGET: &str = "bpfel-unknown-none";

pub fn task(_: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let (object, manifest) = build()?;
    fs::write(object_path(), &object).context("cannot write ebpf/fastpath.bpf.o")?;
    fs::write(manifest_path(), manifest.to_text()).context("cannot write ebpf/fastpath.toml")?;
    let detail = format!("ebpf/fastpath.bpf.o, {} bytes, {}", object.len(), &manifest.object[..12]);
    say::ok("ebpf", &detail, start.elapsed());
    Ok(ExitCode::SUCCESS)
}

/// The object built anew, and the manifest that describes it.
pub fn build() -> Result<(Vec<u8>, Manifest)> {
    let tools = Tools::find()?;
    let sources = source::digest(&root())?;
    compile(&tools)?;
    let object = strip(&tools, &build_dir().join(TARGET).join("release/fastpath"))?;
    let manifest = Manifest {
        sources,
        object: source::digest_of(&object),
        rustc: tools.rustc,
        bpf_linker: tools.linker,
        llvm: tools.llvm,
    };
    Ok((object, manifest))
}

/// The tools and their versions.
struct Tools {
    rustc: String,
    linker: String,
    llvm: String,
    objcopy: PathBuf,
    sysroot: String,
}

impl Tools {
    /// Finds all, or says what is missing.
    fn find() -> Result<Self> {
        let hint = "install it by `cargo xtask ebpf install-toolchain`";
        let one_line = |command: &mut Command| run::output(command).map(|text| text.trim().to_string());
        let rustc = one_line(Command::new("rustc").current_dir(root()).arg("--version"))?;
        let sysroot = one_line(Command::new("rustc").current_dir(root()).args(["--print", "sysroot"]))?;
        if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
            bail!("rust-src is missing: {hint}");
        }
        let linker = one_line(Command::new("bpf-linker").arg("--version")).context(hint)?;
        if !is_linker(&linker) {
            bail!("{linker} is not the pinned {LINKER}: {hint}");
        }
        let bin = PathBuf::from(llvm_prefix()).join("bin");
        let llvm = one_line(Command::new(bin.join("llvm-config")).arg("--version"))
            .with_context(|| format!("LLVM {LLVM} is missing: {hint}"))?;
        Ok(Self { rustc, linker, llvm, objcopy: bin.join("llvm-objcopy"), sysroot })
    }
}

fn compile(tools: &Tools) -> Result<()> {
    let mut build = cargo();
    build
        .current_dir(programs_dir())
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET, "-Z", "build-std=core"])
        // Stable rustc takes -Z build-std and the bpf target's inline assembly only so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", build_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", flags(tools)?.join("\x1f"))
        .env_remove("RUSTFLAGS");
    run::check(&mut build)
}

fn flags(tools: &Tools) -> Result<Vec<String>> {
    let root = root().canonicalize().context("cannot resolve the root of the tree")?;
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    Ok(vec![
        "-Clinker=bpf-linker".into(),
        "-Clink-arg=--btf".into(),
        // 32-bit instructions: kernel 5.1, and the fast path needs 5.13.
        "-Ctarget-cpu=v3".into(),
        "-Cdebuginfo=2".into(),
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
        format!("--remap-path-prefix={}=corten", root.display()),
        format!("--remap-path-prefix={home}=cargo"),
        format!("--remap-path-prefix={}=rust", tools.sysroot),
    ])
}

/// Keeps code, maps and BTF; drops DWARF.
fn strip(tools: &Tools, linked: &Path) -> Result<Vec<u8>> {
    let stripped = linked.with_extension("bpf.o");
    let mut objcopy = Command::new(&tools.objcopy);
    run::output(objcopy.arg("--strip-debug").arg(linked).arg(&stripped))?;
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}
