//! `cargo xtask packages`: the Debian packages that tests and benchmarks use. None is needed to build or run Corten.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{run, say};

/// Installs the Debian packages that tests and benchmarks use and this machine lacks.
#[derive(clap::Args)]
pub struct Args {}

/// A package and what it is for.
const PACKAGES: &[(&str, &str)] = &[
    ("docker-registry", "the registry that tests pull from"),
    ("skopeo", "pushes test images"),
    ("busybox-static", "the busybox image"),
    ("nginx-light", "the nginx image"),
    ("procps", "pgrep, in the busybox image"),
    ("python3", "makes the test images"),
    ("gcc", "compiles the pause program of the test images"),
    ("libc6-dev", "compiles the pause program of the test images"),
    ("iproute2", "looks at links, addresses and routes"),
    ("nftables", "looks at rules"),
    ("curl", "asks pods over HTTP"),
    ("jq", "reads the runtime's state in tests"),
    ("strace", "looks at the runtime's system calls"),
    ("libseccomp-dev", "the oracle of the seccomp compiler's tests"),
    ("etcd-server", "a store of corten-netd's and of corten-store, in tests"),
    ("openssl", "certificates of test servers"),
    ("crun", "peer of corten-oci in benchmarks"),
    ("runc", "peer of corten-oci in benchmarks"),
    ("containerd", "peer of corten-cri in benchmarks"),
    ("containernetworking-plugins", "peer of corten-cni in tests and benchmarks"),
    ("iperf3", "streams between pods in benchmarks"),
];

pub fn task(_: &Args) -> Result<ExitCode> {
    Ok(if ensure()?.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Installs what is missing. Returns what is missing still, having said how to install it.
pub fn ensure() -> Result<Vec<&'static str>> {
    let start = Instant::now();
    if run::find("dpkg-query").is_none() {
        say::note("packages", "this is no Debian system; tests that miss one of these tools skip:");
        for (package, purpose) in PACKAGES {
            println!("                {package:<28} {purpose}");
        }
        return Ok(PACKAGES.iter().map(|(package, _)| *package).collect());
    }
    let missing = missing()?;
    if missing.is_empty() {
        say::ok("packages", &format!("{} present", PACKAGES.len()), start.elapsed());
        return Ok(Vec::new());
    }
    say::note("packages", &format!("installing {}", missing.join(" ")));
    if let Err(error) = install(&missing) {
        say::note("packages", &format!("cannot install: {error:#}"));
    }
    let left = self::missing()?;
    if left.is_empty() {
        say::ok("packages", &format!("{} installed", missing.len()), start.elapsed());
    } else {
        say::note(
            "packages",
            &format!("tests that need them skip; install by: apt-get install {}", left.join(" ")),
        );
    }
    Ok(left)
}

fn missing() -> Result<Vec<&'static str>> {
    // dpkg-query exits with 1 when it does not know a package, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(PACKAGES.iter().map(|(package, _)| package))
        .output()
        .context("cannot start dpkg-query")?;
    Ok(not_installed(&String::from_utf8_lossy(&output.stdout)))
}

fn not_installed(listing: &str) -> Vec<&'static str> {
    let installed: Vec<&str> = listing.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    PACKAGES.iter().map(|(package, _)| *package).filter(|package| !installed.contains(package)).collect()
}

fn install(packages: &[&str]) -> Result<()> {
    run::output(apt_get().arg("update"))?;
    run::output(apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages))?;
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Runlevel 1 keeps invoke-rc.d from starting the services (registry, containerd, nginx) that we only want as files.
    command.arg("-q").env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fully_installed_packages_count() {
        let all =
            PACKAGES.iter().map(|(package, _)| format!("{package} installed")).collect::<Vec<_>>().join("\n");
        assert!(not_installed(&all).is_empty());
        let halfway = all.replace("skopeo installed", "skopeo config-files").replace("crun installed", "");
        assert_eq!(not_installed(&halfway), ["skopeo", "crun"]);
    }
}
