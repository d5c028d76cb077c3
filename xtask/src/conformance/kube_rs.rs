//! `conformance kube-rs`: the tests of the published `kube` crates that need a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::lane::{Programs, ended};
use crate::project::{cache_dir, cargo, root};
use crate::run;

/// kube-rs' own tests that need a cluster, those without a kubelet, against corten-apiserver.
///
/// They are in the published crates, in the versions of our Cargo.lock: copied into the target directory, built and run
/// there as they are.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    programs: Programs,
}

const CRATES: [&str; 5] = ["kube", "kube-client", "kube-core", "kube-derive", "kube-runtime"];

/// They start pods and want to see them run, or their logs.
const NEED_A_KUBELET: [&str; 3] =
    ["pod_can_await_conditions", "pod_can_exec_and_write_to_stdin", "can_get_pod_logs_and_evict"];

/// All but OpenSSL and what only others can serve.
const FEATURES: &str = "kube/derive,kube/runtime,kube/ws,kube/jsonpatch,kube/admission,kube/unstable-client,\
kube/unstable-runtime,kube/gzip,kube-client/rustls-tls,kube-client/ws,kube-client/unstable-client";

pub fn conformance(args: &Args) -> Result<ExitCode> {
    let mut lane = args.programs.lane("with-server", &["kubectl"])?;
    let sources = copied()?;
    lane.args(["--", "cargo", "test", "--manifest-path"]).arg(sources.join("Cargo.toml"));
    lane.arg("--target-dir").arg(cache_dir().join("kube-rs-target"));
    lane.args(["--workspace", "--lib", "--features", FEATURES, "--", "--ignored", "--test-threads=1"]);
    for name in NEED_A_KUBELET {
        lane.args(["--skip", name]);
    }
    ended(&mut lane)
}

/// A workspace of their sources.
fn copied() -> Result<PathBuf> {
    let dir = cache_dir().join("kube-rs");
    let metadata = run::output(cargo().args(["metadata", "--format-version", "1"]).current_dir(root()))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let mut patches = String::new();
    let mut members = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if !CRATES.contains(&name) {
            continue;
        }
        let manifest = Path::new(package["manifest_path"].as_str().context("a manifest")?);
        let to = dir.join(name);
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&dir)?;
        let from = manifest.parent().context("it lies in a directory")?;
        run::check(Command::new("cp").arg("-r").arg(from).arg(&to))?;
        // What cargo made of it when it was published locks and verifies nothing here.
        let _ = fs::remove_file(to.join("Cargo.lock"));
        members.push(format!("\"{name}\""));
        patches += &format!("{name} = {{ path = \"{name}\" }}\n");
    }
    ensure!(!members.is_empty(), "Cargo.lock has no kube crates");
    let manifest = format!(
        "[workspace]\nresolver = \"2\"\nmembers = [{}]\n\n[patch.crates-io]\n{patches}",
        members.join(", ")
    );
    fs::write(dir.join("Cargo.toml"), manifest)?;
    Ok(dir)
}
