//! Stock clients that lanes drive Corten with, built from Go modules whose digests are in go.sum.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::project::{cache_dir, root};
use crate::{run, say};

const CRI_TOOLS: &str = "v1.36.0";
const KUBERNETES: &str = "v1.36.3";

/// Builds crictl unless this version is there already. Without Go it says so and the lanes that need it skip.
pub fn ensure() {
    if let Err(error) = cri_tool("crictl", &["build"]) {
        say::note("crictl", &format!("lanes that need it skip: {error:#}"));
    }
}

/// Builds critest unless this version is there already; where it is. It is a test program in its package, not a command.
pub fn critest() -> Result<PathBuf> {
    cri_tool("critest", &["test", "-c", "-vet=off"])
}

/// A program of cri-tools, built with `go` and these words.
fn cri_tool(name: &str, how: &[&str]) -> Result<PathBuf> {
    let start = Instant::now();
    let program = cache_dir().join("bin").join(name);
    if run::output(Command::new(&program).arg("--version")).is_ok_and(|version| version.contains(CRI_TOOLS)) {
        say::ok(name, &format!("{CRI_TOOLS}, kept from the last run"), start.elapsed());
        return Ok(program);
    }
    let go = run::find("go").context("Go is not installed: install Go 1.26 (https://go.dev/dl)")?;
    say::note(name, &format!("building {CRI_TOOLS} with Go"));
    fs::create_dir_all(cache_dir().join("bin")).context("cannot make the directory for tools")?;
    let mut build = Command::new(go);
    build
        .current_dir(root().join("test-vm/tools/cri-tools"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .args(how)
        .args(["-trimpath", "-ldflags"])
        .arg(format!("-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version={CRI_TOOLS}"))
        .arg("-o")
        .arg(&program)
        .arg(format!("sigs.k8s.io/cri-tools/cmd/{name}"));
    run::output(&mut build).with_context(|| format!("cannot build {name}"))?;
    say::ok(name, CRI_TOOLS, start.elapsed());
    Ok(program)
}

/// Builds a program of Kubernetes (`kubectl`, `kube-apiserver`, ...) unless this version is there already; where it is.
/// All of them take two cores some twelve minutes the first time.
pub fn kubernetes(name: &str) -> Result<PathBuf> {
    let start = Instant::now();
    let program = cache_dir().join("bin").join(name);
    let version = if name == "kubectl" { ["version", "--client"].as_slice() } else { &["--version"] };
    if run::output(Command::new(&program).args(version)).is_ok_and(|version| version.contains(KUBERNETES)) {
        say::ok(name, &format!("{KUBERNETES}, kept from the last run"), start.elapsed());
        return Ok(program);
    }
    let go = run::find("go").context("Go is not installed: install Go 1.26 (https://go.dev/dl)")?;
    say::note(name, &format!("building {KUBERNETES} with Go, for some minutes"));
    fs::create_dir_all(cache_dir().join("bin")).context("cannot make the directory for tools")?;
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (key, value) in [("gitVersion", KUBERNETES), ("gitMajor", "1"), ("gitMinor", "36")] {
            flags += &format!(" -X {package}.{key}={value}");
        }
    }
    let mut build = Command::new("nice");
    build
        .arg(go)
        .current_dir(root().join("test-vm/tools/kubernetes"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(&program)
        .arg(format!("k8s.io/kubernetes/cmd/{name}"));
    run::output(&mut build).with_context(|| format!("cannot build {name}"))?;
    say::ok(name, KUBERNETES, start.elapsed());
    Ok(program)
}

/// Builds the program of client-go's informers; where it is.
pub fn storm() -> Result<PathBuf> {
    let start = Instant::now();
    let program = cache_dir().join("bin/storm");
    let go = run::find("go").context("Go is not installed: install Go 1.26 (https://go.dev/dl)")?;
    fs::create_dir_all(cache_dir().join("bin")).context("cannot make the directory for tools")?;
    let mut build = Command::new(go);
    build.current_dir(root().join("test-vm/tools/client-go")).env("CGO_ENABLED", "0");
    build.env("GOFLAGS", "-mod=readonly").args(["build", "-trimpath", "-o"]).arg(&program).arg(".");
    run::output(&mut build).context("cannot build the program of client-go")?;
    say::ok("storm", KUBERNETES, start.elapsed());
    Ok(program)
}
