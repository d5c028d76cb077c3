//! Stock clients that lanes drive Corten with, built from Go modules whose digests are in go.sum.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::project::{cache_dir, root};
use crate::{run, say};

const CRI_TOOLS: &str = "v1.36.0";

/// Builds crictl unless this version is there already. Without Go it says so and the lanes that need it skip.
pub fn ensure() -> Result<()> {
    let start = Instant::now();
    let crictl = cache_dir().join("bin/crictl");
    if run::output(Command::new(&crictl).arg("--version")).is_ok_and(|version| version.contains(CRI_TOOLS)) {
        say::ok("crictl", &format!("{CRI_TOOLS}, kept from the last run"), start.elapsed());
        return Ok(());
    }
    let Some(go) = run::find("go") else {
        say::note(
            "crictl",
            "Go is not installed: lanes that need crictl skip; install Go 1.26 (https://go.dev/dl)",
        );
        return Ok(());
    };
    say::note("crictl", &format!("building {CRI_TOOLS} with Go"));
    fs::create_dir_all(cache_dir().join("bin")).context("cannot make the directory for tools")?;
    let mut build = Command::new(go);
    build
        .current_dir(root().join("test-vm/tools/cri-tools"))
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .args(["build", "-trimpath", "-ldflags"])
        .arg(format!("-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version={CRI_TOOLS}"))
        .arg("-o")
        .arg(&crictl)
        .arg("sigs.k8s.io/cri-tools/cmd/crictl");
    match run::output(&mut build) {
        Ok(_) => say::ok("crictl", CRI_TOOLS, start.elapsed()),
        Err(error) => say::note("crictl", &format!("cannot be built, lanes that need it skip: {error:#}")),
    }
    Ok(())
}
