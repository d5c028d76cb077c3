//! `conformance critest`: the CRI validation suite of cri-tools on a private node (`on-node` of test-vm).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::ginkgo::Outcome;
use crate::project::{cache_dir, cargo, release_dir, target};
use crate::{build, images, packages, run, say, tools};

/// The CRI validation suite of cri-tools, stock, against corten-cri.
///
/// Runs on a node of its own: network and mount namespace, cgroup, directories, and a registry on loopback which
/// mirrors registry.k8s.io, k8s.gcr.io, gcr.io and docker.io with images built from Debian packages. Needs root and,
/// the first time, Go. Prints what passed, failed and was skipped, by group, then every failed spec with its reason.
#[derive(clap::Args)]
pub struct Args {
    /// Only specs that match this regular expression (-ginkgo.focus); may be given several times
    #[arg(long, value_name = "REGEX")]
    focus: Vec<String>,
    /// No specs that match this regular expression (-ginkgo.skip); may be given several times
    #[arg(long, value_name = "REGEX")]
    skip: Vec<String>,
    /// Order of the specs, to repeat a run; else a new one
    #[arg(long)]
    seed: Option<u32>,
    /// Minutes that the suite may take
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    limit_min: u64,
    /// Test the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Test this daemon of the machine instead of corten-cri
    #[arg(long, value_parser = ["containerd"])]
    peer: Option<String>,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    packages::ensure()?;
    let programs = if let Some(dir) = &args.programs {
        // The node's plugin directory holds links to them: a relative path would dangle there.
        dir.canonicalize().with_context(|| format!("--programs {}", dir.display()))?
    } else {
        build::release()?;
        release_dir()
    };
    let critest = tools::critest()?;
    images::ensure()?;
    let on_node = build_on_node()?;
    let dir = cache_dir().join("critest");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (report, log, daemon_log) = (dir.join("report.json"), dir.join("log"), dir.join("daemon.log"));
    // A report of an earlier run must not pass for one of this.
    if report.exists() {
        fs::remove_file(&report).with_context(|| format!("cannot remove {}", report.display()))?;
    }
    let output = fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;

    let mut suite = Command::new(on_node);
    suite.env("CORTEN_TEST_PROGRAMS", programs).arg("--daemon-log").arg(&daemon_log);
    if let Some(peer) = &args.peer {
        suite.args(["--peer", peer]);
    }
    // Ginkgo stops by itself at the limit and still reports; who ignores that is killed.
    suite.args(["--limit", &(args.limit_min * 60 + 90).to_string(), "--"]).arg(&critest);
    suite.args(suite_args(args)).arg(format!("-ginkgo.json-report={}", report.display()));
    suite.stdout(output.try_clone().context("cannot share the log")?).stderr(output);
    say::note("critest", &format!("runs; its log is {}", log.display()));
    let start = Instant::now();
    let status = suite.status().with_context(|| format!("cannot start `{}`", run::shown(&suite)))?;

    let Ok(text) = fs::read(&report) else {
        bail!("critest ended without a report ({status}):\n{}", tail(&log));
    };
    let outcome = Outcome::parse(&text).with_context(|| format!("cannot read {}", report.display()))?;
    print!("{}", outcome.table());
    println!(" logs       {} (suite), {} (daemon)", log.display(), daemon_log.display());
    println!(" took       {}, seed {}", say::seconds(start.elapsed()), outcome.seed);
    println!("{}", outcome.counts());
    Ok(if outcome.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn suite_args(args: &Args) -> Vec<String> {
    let mut all: Vec<String> = [
        "-runtime-endpoint=unix://{socket}",
        "-image-endpoint=unix://{socket}",
        "-ginkgo.randomize-all",
        "-ginkgo.flake-attempts=1",
        "-ginkgo.no-color",
        "-ginkgo.v",
    ]
    .map(String::from)
    .into();
    all.push(format!("-ginkgo.timeout={}m", args.limit_min));
    all.extend(args.seed.map(|seed| format!("-ginkgo.seed={seed}")));
    all.extend(args.focus.iter().map(|regex| format!("-ginkgo.focus={regex}")));
    all.extend(args.skip.iter().map(|regex| format!("-ginkgo.skip={regex}")));
    all
}

fn build_on_node() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--target", target(), "--package", "corten-test-vm", "--bin", "on-node"]);
    run::check(&mut build).context("cannot build on-node")?;
    Ok(crate::project::target_dir().join(target()).join("debug/on-node"))
}

fn tail(log: &std::path::Path) -> String {
    const LINES: usize = 30;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_runs_once_in_random_order_and_in_bounded_time() {
        let args = Args {
            focus: vec!["a b".into(), "c".into()],
            skip: vec!["d".into()],
            seed: Some(7),
            limit_min: 5,
            programs: None,
            peer: None,
        };
        let all = suite_args(&args);
        for wanted in [
            "-ginkgo.randomize-all",
            "-ginkgo.flake-attempts=1",
            "-ginkgo.timeout=5m",
            "-ginkgo.seed=7",
            "-ginkgo.focus=a b",
            "-ginkgo.focus=c",
            "-ginkgo.skip=d",
        ] {
            assert!(all.iter().any(|arg| arg == wanted), "{wanted} in {all:?}");
        }
    }
}
